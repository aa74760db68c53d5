"""The options of each command as keywords of its function, for type checkers and editors.

Names and types are those of the objects' fields, wider where several spellings are taken. Nothing of this is used when
a command runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from .rules import AdapterExperts, Device, ExpertsForm, Format, HfNames, Mtp, MtpAsIs, Witness, WrittenExperts


class RunKeywords(TypedDict, total=False):
    """Of RunOptions."""

    dry_run: bool
    threads: int | None
    memory: int | str | None


class McoreReadingKeywords(TypedDict, total=False):
    """Of McoreReading."""

    revision: str | None
    iteration: int | None
    layout: str | None
    make_vocab_size_divisible_by: int | None
    trust_reference: bool
    mtp: Mtp | None
    carry: str | Iterable[str]
    no_output_layer: bool
    lora_alpha: float | None


class McoreSourceKeywords(McoreReadingKeywords, total=False):
    """Of McoreSource."""

    reference: str | Path | None


class WritingKeywords(RunKeywords, total=False):
    """Of WritingOptions."""

    overwrite: bool
    strict: bool
    resume: bool
    manifest: bool
    sha256: bool
    read_back: bool


class OutputKeywords(WritingKeywords, total=False):
    """Of OutputOptions."""

    dtype: str | None


class RepairKeywords(WritingKeywords, total=False):
    """Of RepairOptions."""

    like: str | Path | None
    undo: str | Iterable[str]


class McoreTargetKeywords(OutputKeywords, total=False):
    """Of McoreTarget, but for what McoreSource has, too."""

    format: Format
    per_layer: bool
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    virtual_pipeline_model_parallel_size: int
    expert_model_parallel_size: int
    expert_tensor_parallel_size: int | None
    decoder_first_pipeline_num_layers: int | None
    decoder_last_pipeline_num_layers: int | None
    as_layout: str | None
    as_iteration: int | None
    set_latest: bool


class Mcore2HfKeywords(McoreSourceKeywords, OutputKeywords, total=False):
    """Of Mcore2HfOptions."""

    max_shard_size: int | str
    experts: WrittenExperts
    hf_names: HfNames
    fp8_like: str | Path | None
    push: str | None
    base: str | Path | None
    adapter: bool
    adapter_experts: AdapterExperts


class Hf2McoreKeywords(McoreTargetKeywords, total=False):
    """Of Hf2McoreOptions."""

    make_vocab_size_divisible_by: int | None
    experts_form: ExpertsForm | None
    mtp: MtpAsIs | None
    no_output_layer: bool
    adapter: bool
    base: str | Path | None


class Mcore2McoreKeywords(McoreSourceKeywords, McoreTargetKeywords, total=False):
    """Of Mcore2McoreOptions."""


class VerifyKeywords(McoreReadingKeywords, RunKeywords, total=False):
    """Of VerifyOptions."""

    references: str | Path | Iterable[str | Path]
    experts_form: ExpertsForm | None
    witness: Witness | None
    on_disk: str | Path | None
    values: bool
    base: str | Path | None
    like: str | Path | None
    forward: bool
    layers: int | None
    device: Device
