"""What a user may ask of each command. The defaults here are the defaults of the command line.

An option that reads and one that writes never share a name: `iteration` and `layout` say what is read, `as_iteration` and
`as_layout` what is written. Values are checked once, when an options object is made: sizes and dtypes may be spelled as on
the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from os import fspath
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import OptionError

ExpertsForm = Literal["hub", "transformers-5", "per-expert"]
"""How a Hugging Face directory lays out its experts.

hub: `gate_up_proj` [E, H, 2I] and `down_proj` [E, I, H]; transformers-5: the same names, [E, 2I, H] and [E, H, I];
per-expert: `experts.N.gate_proj.weight` and so on.
"""

WrittenExperts = Literal["hub", "per-expert"]
HfNames = Literal["old", "new"]
Format = Literal["torch_dist", "torch"]
Witness = Literal["megatron-core", "transformers"]

DTYPES = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}
"""A dtype to write, by its name or its short name."""

UNITS = {
    "": 1,
    "B": 1,
    **{f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)},
    **{f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)},
}
"""Bytes of each unit of a size."""


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
        threads: None: chosen by the number of cores.
    """

    dry_run: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class McoreReading(Options):
    """How a Megatron checkpoint is read.

    Attributes:
        revision: of a reference that is a hub id.
        iteration: which of several iterations in the source.
        layout: the trainer's naming of the source; None: recognised.
        make_vocab_size_divisible_by: as the trainer has it: explains the padding of the vocabulary, beside what is tried
            without it.
        trust_reference: the reference wins where the checkpoint's own words contradict it.
    """

    revision: str | None = None
    iteration: int | None = None
    layout: str | None = None
    make_vocab_size_divisible_by: int | None = None
    trust_reference: bool = False


@dataclass(frozen=True, kw_only=True)
class McoreSource(McoreReading):
    """A Megatron checkpoint with its reference.

    Attributes:
        reference: a Hugging Face directory, or a hub id; None: looked for beside the checkpoint.
    """

    reference: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class OutputOptions(RunOptions):
    """How any output is written.

    Attributes:
        dtype: cast all weights to it ("bfloat16", "bf16", …); None: kept as they are.
        overwrite: an earlier output at the target is replaced at the end by the new one, in one step.
        strict: NaN, infinity and ranks that disagree are refused instead of told.
    """

    dtype: str | None = None
    overwrite: bool = False
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class McoreTarget(OutputOptions):
    """What kind of Megatron checkpoint is written, and how: what hf2mcore and mcore2mcore share.

    Attributes:
        format: Megatron's `--ckpt-format`: torch_dist for any topology, torch (the legacy one) for the topology given.
        per_layer: torch_dist with one key per layer, for a trainer whose layers are not homogeneous; else layers stacked,
            as most load them.
        tensor_model_parallel_size, pipeline_model_parallel_size, virtual_pipeline_model_parallel_size,
            expert_model_parallel_size: of format torch. The virtual one counts model chunks per stage.
        expert_tensor_parallel_size: likewise; None: as tensor_model_parallel_size.
        decoder_first_pipeline_num_layers, decoder_last_pipeline_num_layers: layers of the first and last stage, where
            they differ.
        as_layout: the trainer's naming to write; None: the source's, or the model's default.
        as_iteration: write `iter_…` with this number; None: `release`.
        set_latest: the tracker file names the iteration that is added to a directory of several.
        make_vocab_size_divisible_by: as the trainer has it: the vocabulary is padded to a multiple of it times the tensor
            parallel size; None: not padded.
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
    """

    max_shard_size: int | str = 5_000_000_000
    experts: WrittenExperts = "hub"
    hf_names: HfNames = "old"

    @property
    def shard_bytes(self) -> int:
        """max_shard_size as a number."""
        return int(self.max_shard_size)


@dataclass(frozen=True, kw_only=True)
class Hf2McoreOptions(McoreTarget):
    """Options of hf2mcore.

    Attributes:
        experts_form: settles how the source lays out its experts where their shape cannot; None: recognised.
    """

    experts_form: ExpertsForm | None = None


@dataclass(frozen=True, kw_only=True)
class Mcore2McoreOptions(McoreSource, McoreTarget):
    """Options of mcore2mcore: how the source is read and what is written."""


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
    """

    references: tuple[str | Path, ...] = ()
    experts_form: ExpertsForm | None = None
    witness: Witness | None = None
    on_disk: Path | None = None
    values: bool = False

    def source(self, number: int, iteration: int | None = None) -> McoreSource:
        """How side number 0 (A) or 1 (B) is read; `iteration` is one that its name gives."""
        reference = self.references[min(number, len(self.references) - 1)] if self.references else None
        read: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(McoreReading)}
        return McoreSource(reference=reference, **read | ({} if iteration is None else {"iteration": iteration}))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _dtype(name: str, value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in DTYPES:
        raise OptionError(f"{_flag(name)} {value!r} is none of {', '.join(DTYPES)}")
    return DTYPES[value.lower()]


def _size(name: str, value: Any) -> int:
    """Bytes: 5000000000, "5GB" -> 5000000000, "2GiB" -> 2147483648."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    if isinstance(value, bool) or not match or match[2].upper() not in UNITS or not float(match[1]):
        raise OptionError(f"{_flag(name)} {value!r} is no size such as 5GB, 500MB or 2GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise OptionError(f"{_flag(name)} {value!r} is no whole number from 0 on")
    return value


def _positive(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise OptionError(f"{_flag(name)} {value!r} is no whole number from 1 on")
    return value


def _text(name: str, value: Any) -> str:
    return str(fspath(value))


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return tuple(fspath(one) for one in ((value,) if isinstance(value, str | Path) else value))


def _path(name: str, value: Any) -> Path:
    return Path(value)


def _one_of(choices: Any) -> Any:
    known = get_args(choices)

    def rule(name: str, value: Any) -> Any:
        if value not in known:
            raise OptionError(f"{_flag(name)} {value!r} is none of {', '.join(known)}")
        return value

    return rule


TOPOLOGY = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
    "decoder_first_pipeline_num_layers",
    "decoder_last_pipeline_num_layers",
)
"""The options that say for which ranks a checkpoint of format torch is."""

RULES: dict[str, Any] = {
    **dict.fromkeys(TOPOLOGY, _positive),
    "threads": _positive,
    "make_vocab_size_divisible_by": _positive,
    "as_iteration": _positive,
    "iteration": _whole,
    "dtype": _dtype,
    "max_shard_size": _size,
    "reference": _text,
    "references": _texts,
    "on_disk": _path,
    "format": _one_of(Format),
    "experts": _one_of(WrittenExperts),
    "hf_names": _one_of(HfNames),
    "experts_form": _one_of(ExpertsForm),
    "witness": _one_of(Witness),
}
"""How the value of each option is put into one form, or refused."""
