"""What a user may ask of each command. The defaults here are the defaults of the command line.

An option that reads and one that writes never share a name: `iteration` and `layout` say what is read, `as_iteration`
and `as_layout` what is written. Values are checked once, when an options object is made: sizes and dtypes may be
spelled as on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ..errors import OptionError
from .rules import (
    RULES,
    TOPOLOGY,
    AdapterExperts,
    Device,
    ExpertsForm,
    Format,
    HfNames,
    Mtp,
    MtpAsIs,
    Witness,
    WrittenExperts,
)


class Options:
    """Base of all options: every field that has a rule is put into one form, or refused."""

    def __post_init__(self) -> None:
        """Raises OptionError, which names the option."""
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value, rule = getattr(self, field.name), RULES.get(field.name)
            if value is not None and rule is not None:
                object.__setattr__(self, field.name, rule(field.name, value))


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How any command runs.

    Attributes:
        dry_run: recognise, check and plan; write or compare nothing.
        threads: None: chosen by the number of processors.
        memory: bytes that the process holds at most, beside the tables of what is to be done; an integer, or text such
            as "500MB". None: what the threads take.
    """

    dry_run: bool = False
    threads: int | None = None
    memory: int | str | None = None

    @property
    def memory_bytes(self) -> int | None:
        """Memory as a number."""
        return None if self.memory is None else int(self.memory)


@dataclass(frozen=True, kw_only=True)
class McoreReading(Options):
    """How a Megatron checkpoint is read.

    Attributes:
        revision: of a reference that is a hub id.
        iteration: which of several iterations in the source.
        layout: the trainer's naming of the source; None: recognised.
        make_vocab_size_divisible_by: as the trainer has it: explains the padding of the vocabulary, beside what is
            tried without it.
        trust_reference: the reference wins where the checkpoint's own words contradict it.
        mtp: what becomes of the multi-token-prediction head: "require" that the checkpoint has one, "carry" the
            reference's, byte for byte and untrained, or "drop" it; None: what the checkpoint has.
        carry: prefixes of tensors' names: the reference's tensors whose names begin so go along, byte for byte.
        no_output_layer: an embedding model has none, though its config.json says that it is not tied.
        lora_alpha: of an adapter in the checkpoint; None: as what lies beside it states.
    """

    revision: str | None = None
    iteration: int | None = None
    layout: str | None = None
    make_vocab_size_divisible_by: int | None = None
    trust_reference: bool = False
    mtp: Mtp | None = None
    carry: tuple[str, ...] = ()
    no_output_layer: bool = False
    lora_alpha: float | None = None


@dataclass(frozen=True, kw_only=True)
class McoreSource(McoreReading):
    """A Megatron checkpoint with its reference.

    Attributes:
        reference: a Hugging Face directory, or a hub id; None: looked for beside the checkpoint.
    """

    reference: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class WritingOptions(RunOptions):
    """How any output is written.

    Attributes:
        overwrite: an earlier output at the target is replaced at the end by the new one, in one step.
        strict: NaN, infinity, ranks that disagree, items without a checksum and holes in data files are refused instead
            of told.
        resume: what an ended run of the same has finished is kept, once its checksums are found right.
        manifest: vlconv.json is written, which says what the output is, and the checksums of its files.
        sha256: with a SHA-256 of each file, too.
        read_back: every byte is read again from the disk before the output takes its place.
    """

    overwrite: bool = False
    strict: bool = False
    resume: bool = True
    manifest: bool = True
    sha256: bool = False
    read_back: bool = False

    def __post_init__(self) -> None:
        """Raises OptionError: values that do not go together, too."""
        super().__post_init__()
        if self.sha256 and not self.manifest:
            raise OptionError(
                "--sha256 is about the manifest, and --no-manifest leaves it out", "Leave one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class OutputOptions(WritingOptions):
    """How converted weights are written.

    Attributes:
        dtype: cast all weights to it ("bfloat16", "bf16", …); None: kept as they are.
    """

    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class McoreTarget(OutputOptions):
    """What kind of Megatron checkpoint is written, and how: what hf2mcore and mcore2mcore share.

    Attributes:
        format: Megatron's `--ckpt-format`: torch_dist for any topology, torch (the legacy one) for the topology given.
        per_layer: torch_dist with one key per layer, for a trainer whose layers are not homogeneous; else layers
            stacked, as most load them.
        tensor_model_parallel_size, pipeline_model_parallel_size, virtual_pipeline_model_parallel_size,
            expert_model_parallel_size: of format torch. The virtual one counts model chunks per stage.
        expert_tensor_parallel_size: likewise; None: as tensor_model_parallel_size.
        decoder_first_pipeline_num_layers, decoder_last_pipeline_num_layers: layers of the first and last stage, where
            they differ.
        as_layout: the trainer's naming to write; None: the source's, or the model's default.
        as_iteration: write `iter_…` with this number; None: `release`.
        set_latest: the tracker file names the iteration that is added to a directory of several.
        make_vocab_size_divisible_by: as the trainer has it: the vocabulary is padded to a multiple of it times the
            tensor parallel size; None: not padded.
    """

    format: Format = "torch_dist"
    per_layer: bool = False
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    virtual_pipeline_model_parallel_size: int = 1
    expert_model_parallel_size: int = 1
    expert_tensor_parallel_size: int | None = None
    decoder_first_pipeline_num_layers: int | None = None
    decoder_last_pipeline_num_layers: int | None = None
    as_layout: str | None = None
    as_iteration: int | None = None
    set_latest: bool = False
    make_vocab_size_divisible_by: int | None = None

    def __post_init__(self) -> None:
        """Raises OptionError: values that do not go together, too."""
        super().__post_init__()
        stages = self.pipeline_model_parallel_size
        ends = (self.decoder_first_pipeline_num_layers, self.decoder_last_pipeline_num_layers)
        if self.format == "torch_dist" and self._has_topology():
            raise OptionError(
                "--format torch_dist is loaded at any topology: parallel sizes mean nothing to it",
                "Leave them out, or write --format torch.",
            )
        if self.format == "torch" and self.per_layer:
            raise OptionError(
                "--per-layer is a form of --format torch_dist", "Leave it out: rank files are always keyed per layer."
            )
        if self.virtual_pipeline_model_parallel_size > 1 and stages == 1:
            raise OptionError("a virtual pipeline size needs a pipeline", "Give --pp too.")
        if stages == 1 and ends != (None, None):
            raise OptionError("layers of the first or last stage are given, but there is one stage", "Give --pp too.")
        if self.set_latest and self.as_iteration is None:
            raise OptionError("--set-latest is about an iteration that is added", "Give --as-iteration too.")

    def _has_topology(self) -> bool:
        return any(getattr(self, f.name) != f.default for f in fields(McoreTarget) if f.name in TOPOLOGY)


@dataclass(frozen=True, kw_only=True)
class Mcore2HfOptions(McoreSource, OutputOptions):
    """Options of mcore2hf.

    Attributes:
        max_shard_size: bytes of a safetensors file; an integer, or text such as "2GiB".
        experts: how experts are written.
        hf_names: prefixes of a model that has older and newer ones (Qwen2.5-VL); the old ones are read by everything.
        fp8_like: an FP8 model, a directory or a hub id, in whose form FP8 weights are written; None: plain ones.
        push: "org/name" on the Hub, to which the output is uploaded once it stands; None: it is not.
        base: the model that an adapter changes which the source holds alone: a Hugging Face directory, a hub id, or a
            Megatron checkpoint; None: the source holds it.
        adapter: write the adapter that the source holds as a PEFT directory, and no model.
        adapter_experts: how adapters of experts are written then.
    """

    max_shard_size: int | str = 5_000_000_000
    experts: WrittenExperts = "hub"
    hf_names: HfNames = "old"
    fp8_like: str | Path | None = None
    push: str | None = None
    base: str | Path | None = None
    adapter: bool = False
    adapter_experts: AdapterExperts = "transformers-5"

    def __post_init__(self) -> None:
        """Raises OptionError: values that do not go together, too."""
        super().__post_init__()
        given = {"--dtype": self.dtype, "--experts": self.experts != "hub", "--hf-names": self.hf_names != "old"}
        clash = [flag for flag, value in given.items() if value]
        if self.fp8_like is not None and clash:
            raise OptionError(f"{clash[0]} says what --fp8-like takes from its model", "Leave one of them out.")
        if self.push and not self.manifest:
            raise OptionError(
                "--push holds the output against the manifest, and --no-manifest leaves it out",
                "Leave one of them out.",
            )
        if self.push and self.adapter:
            raise OptionError("--push uploads models, and --adapter writes none", "Upload it with hf upload.")
        if self.adapter:
            _refuse_beside_adapter(given | {"--dtype": None, "--fp8-like": self.fp8_like})
        if self.adapter_experts != "transformers-5" and not self.adapter:
            raise OptionError("--adapter-experts is about an adapter that is written", "Give --adapter too.")

    @property
    def shard_bytes(self) -> int:
        """max_shard_size as a number."""
        return int(self.max_shard_size)


@dataclass(frozen=True, kw_only=True)
class Hf2McoreOptions(McoreTarget):
    """Options of hf2mcore.

    Attributes:
        experts_form: settles how the source lays out its experts where their shape cannot; None: recognised.
        mtp: "require" that the source has a multi-token-prediction head, or "drop" it; None: what the source has.
        no_output_layer: an embedding model has none, though its config.json says that it is not tied.
        adapter: the source is a PEFT directory: write its adapter, and no model.
        base: the Hugging Face directory or hub id of the model that it changes; None: as its adapter_config.json says.
    """

    experts_form: ExpertsForm | None = None
    mtp: MtpAsIs | None = None
    no_output_layer: bool = False
    adapter: bool = False
    base: str | Path | None = None

    def __post_init__(self) -> None:
        """Raises OptionError: values that do not go together, too."""
        super().__post_init__()
        if self.mtp is not None and self.mtp not in get_args(MtpAsIs):
            raise OptionError(
                f"--mtp {self.mtp} takes it from a reference, and a Hugging Face source has none",
                f"Give one of {', '.join(get_args(MtpAsIs))}.",
            )
        if self.base is not None and not self.adapter:
            raise OptionError("--base is about a source that is an adapter", "Give --adapter too.")
        if self.adapter and self.format != "torch_dist":
            raise OptionError("--adapter is written as torch_dist", "Leave --format out.")
        if self.adapter:
            _refuse_beside_adapter(
                {
                    "--experts-form": self.experts_form,
                    "--mtp": self.mtp,
                    "--no-output-layer": self.no_output_layer,
                    "--make-vocab-size-divisible-by": self.make_vocab_size_divisible_by,
                }
            )


def _refuse_beside_adapter(options: Mapping[str, object]) -> None:
    """Raises OptionError for an option about a whole model, which is given."""
    given = [flag for flag, value in options.items() if value]
    if given:
        raise OptionError(f"{given[0]} is about a whole model, and --adapter writes none", "Leave one of them out.")


@dataclass(frozen=True, kw_only=True)
class Mcore2McoreOptions(McoreSource, McoreTarget):
    """Options of mcore2mcore: how the source is read and what is written."""


@dataclass(frozen=True, kw_only=True)
class RepairOptions(WritingOptions):
    """Options of repair.

    Attributes:
        like: a model of the same base, of either side or a hub id, whose numbers show what went wrong; None: `undo`
            says it.
        undo: names of faults that are undone wherever in the model they may have happened; (): those that `like` shows.
    """

    like: str | Path | None = None
    undo: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """Options of push.

    Attributes:
        dry_run: check that the Hub can be reached; compare and upload nothing.
        threads: that compare files; None: chosen by the number of processors.
    """

    dry_run: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(McoreReading, RunOptions):
    """Options of verify; those of McoreReading are about every Megatron side.

    Attributes:
        references: for the Megatron sides in order: Hugging Face directories or hub ids; one serves both. Empty: looked
            for.
        experts_form: settles how a Hugging Face side lays out its experts where their shape cannot; None: recognised.
        witness: a foreign reader that reads A a second time: megatron-core (which unpickles) or transformers.
        on_disk: the round trip really writes both outputs, in a temporary directory in this one; None: in memory.
        values: different dtypes are accepted where the values are equal after exact widening.
        base: of a side that is an adapter alone: the model that it changes, as for mcore2hf; None: no side is one.
        like: a Hugging Face model, a directory or a hub id, which A, that another tool wrote, is to be like: names,
            shapes, dtypes, index, config and files, and no number.
        forward: both models are run, too, and their logits compared; of a Megatron checkpoint alone, what
            megatron-core and transformers compute of it.
        layers: only so many of their first decoder layers are run; None: all.
        device: that runs them.
    """

    references: tuple[str | Path, ...] = ()
    experts_form: ExpertsForm | None = None
    witness: Witness | None = None
    on_disk: Path | None = None
    values: bool = False
    base: str | Path | None = None
    like: str | Path | None = None
    forward: bool = False
    layers: int | None = None
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Raises OptionError: values that do not go together, too."""
        super().__post_init__()
        other = {"--witness": self.witness, "--on-disk": self.on_disk, "--like": self.like}
        clash = [flag for flag, value in other.items() if value is not None]
        if self.forward and clash:
            raise OptionError(f"--forward and {clash[0]} are two checks", "Give one of them at a time.")
        alone = {"--layers": self.layers is not None, "--device": self.device != "cpu"}
        without = [flag for flag, given in alone.items() if given]
        if not self.forward and without:
            raise OptionError(f"{without[0]} is about models that are run", "Give --forward too.")

    @property
    def mtp_of_hf(self) -> MtpAsIs | None:
        """What becomes of the head of a Hugging Face side, which has nothing to carry one from."""
        return None if self.mtp == "carry" else self.mtp

    def source(self, number: int, iteration: int | None = None) -> McoreSource:
        """How side number 0 (A) or 1 (B) is read; `iteration` is one that its name gives."""
        reference = self.references[min(number, len(self.references) - 1)] if self.references else None
        read: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(McoreReading)}
        return McoreSource(reference=reference, **read | ({} if iteration is None else {"iteration": iteration}))


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """Options of inspect.

    Attributes:
        iteration: which of several; None: the tracker's, or the latest.
        layout: the trainer's naming; None: recognised.
    """

    iteration: int | None = None
    layout: str | None = None
