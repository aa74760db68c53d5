"""What a user may ask of each command. The defaults here are the defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ExpertsForm = Literal["hub", "transformers-5", "per-expert"]
"""How a Hugging Face directory lays out its experts.

hub: `gate_up_proj` [E, H, 2I] and `down_proj` [E, I, H]; transformers-5: the same names, [E, 2I, H] and [E, H, I];
per-expert: `experts.N.gate_proj.weight` and so on.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mcore2HfOptions:
    """Options of mcore2hf.

    Attributes:
        reference: a Hugging Face directory, or a hub id; None: looked for beside the checkpoint.
        revision: of the hub id.
        iteration: which of several iterations in the source.
        layout: the trainer's naming; None: recognised.
        dtype: cast all weights to it; None: kept as they are.
        make_vocab_size_divisible_by: explains the padding of the vocabulary, beside what is tried without it.
        max_shard_size: bytes of a safetensors file.
        trust_reference: the reference wins where the checkpoint's own arguments contradict it.
        experts: how experts are written.
        hf_names: Qwen2.5-VL's prefixes; the old ones are read by everything.
        overwrite: an existing target is exchanged for the new one at the end.
        dry_run: recognise, check and plan; write nothing.
        strict: NaN, infinity and ranks that disagree are refused instead of told.
        threads: None: chosen by the number of cores.
    """

    reference: str | None = None
    revision: str | None = None
    iteration: int | None = None
    layout: str | None = None
    dtype: str | None = None
    make_vocab_size_divisible_by: int | None = None
    max_shard_size: int = 5_000_000_000
    trust_reference: bool = False
    experts: Literal["hub", "per-expert"] = "hub"
    hf_names: Literal["old", "new"] = "old"
    overwrite: bool = False
    dry_run: bool = False
    strict: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class McoreOutput:
    """What kind of Megatron checkpoint is written, and how: the options that hf2mcore and mcore2mcore share.

    Attributes:
        format: Megatron's `--ckpt-format`: torch_dist for any topology, torch (the legacy one) for the topology given.
        per_layer: torch_dist with one key per layer, for a trainer whose layers are not homogeneous; else layers
            stacked, as most load them.
        tensor_model_parallel_size, pipeline_model_parallel_size, virtual_pipeline_model_parallel_size,
            expert_model_parallel_size: of format torch.
            The virtual one counts model chunks per stage.
        expert_tensor_parallel_size: likewise; None: as tensor_model_parallel_size.
        decoder_first_pipeline_num_layers, decoder_last_pipeline_num_layers: layers of the first and last stage, where
            they differ.
        layout: the trainer's naming to write; None: the model's default.
        make_vocab_size_divisible_by: the vocabulary is padded to a multiple of it times the tensor parallel size; None:
            not padded.
        dtype: cast all weights to it; None: kept as they are.
        iteration: write `iter_…` with this number; None: `release`.
        overwrite: an existing target is exchanged for the new one at the end.
        dry_run: recognise, check and plan; write nothing.
        strict: NaN, infinity and ranks that disagree are refused instead of told.
        threads: None: chosen by the number of cores.
    """

    format: Literal["torch_dist", "torch"] = "torch_dist"
    per_layer: bool = False
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    virtual_pipeline_model_parallel_size: int = 1
    expert_model_parallel_size: int = 1
    expert_tensor_parallel_size: int | None = None
    decoder_first_pipeline_num_layers: int | None = None
    decoder_last_pipeline_num_layers: int | None = None
    layout: str | None = None
    make_vocab_size_divisible_by: int | None = None
    dtype: str | None = None
    iteration: int | None = None
    overwrite: bool = False
    dry_run: bool = False
    strict: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hf2McoreOptions(McoreOutput):
    """Options of hf2mcore: those of McoreOutput, and one more.

    Attributes:
        experts_form: settles how the source lays out its experts where their shape cannot; None: recognised.
    """

    experts_form: ExpertsForm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mcore2McoreOptions(McoreOutput):
    """Options of mcore2mcore: those of McoreOutput, and how the source is read.

    Attributes:
        reference, revision: a Hugging Face directory or hub id for the source; None: looked for beside it.
        from_iteration: which of several iterations in the source.
        from_layout: the source's naming; None: recognised.
        trust_reference: the reference wins where the checkpoint's own arguments contradict it.
    """

    reference: str | None = None
    revision: str | None = None
    from_iteration: int | None = None
    from_layout: str | None = None
    trust_reference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Options of verify.

    Attributes:
        references: for the Megatron sides in order: Hugging Face directories or hub ids; one serves both. Empty: looked
            for.
        revision: of a hub id.
        iteration: which of several iterations, in every Megatron side that has several.
        layout: the trainer's naming of the Megatron sides; None: recognised.
        make_vocab_size_divisible_by: explains the padding of the vocabulary, beside what is tried without it.
        experts_form: settles how a Hugging Face side lays out its experts where their shape cannot; None: recognised.
        witness: a foreign reader that reads A a second time: megatron-core (which unpickles) or transformers.
        on_disk: the round trip really writes both outputs, in a temporary directory in this one; None: in memory.
        values: different dtypes are accepted where the values are equal after exact widening.
        trust_reference: the reference wins where the checkpoint's own arguments contradict it.
        dry_run: recognise, check and plan; compare nothing.
        threads: None: chosen by the number of cores.
    """

    references: tuple[str, ...] = ()
    revision: str | None = None
    iteration: int | None = None
    layout: str | None = None
    make_vocab_size_divisible_by: int | None = None
    experts_form: ExpertsForm | None = None
    witness: Literal["megatron-core", "transformers"] | None = None
    on_disk: Path | None = None
    values: bool = False
    trust_reference: bool = False
    dry_run: bool = False
    threads: int | None = None
