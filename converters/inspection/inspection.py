"""What inspect finds: one frozen record, and the JSON document of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ... import __version__
from ..tensors.spec import TensorSpec
from .blocks import Block, blocks_of


class Iteration(NamedTuple):
    """One of the checkpoints in a save directory.

    Attributes:
        name: its folder, below the directory that was given.
        number: None of `release`, and of what no number names.
        tracked: the tracker file names it.
        described: all else that is found is of it.
    """

    name: str
    number: int | None
    tracked: bool
    described: bool


class Statement(NamedTuple):
    """What a file states of the model.

    Attributes:
        where: the file.
        entries: how many values it has.
        facts: name there -> value, of those that say something of the model.
    """

    where: str
    entries: int
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ModelFound:
    """A model.

    Attributes:
        model_type: as in config.json; of a Megatron checkpoint that several models may be, those: "qwen3_next or …".
        sizes: place in config.json -> value, as far as they are known.
        words: the sizes in one line.
        release: the official release that has all these sizes, or the nearest; "" where there is no relative.
        differs: place in config.json -> the model's value and the release's; empty: it has the release's sizes.
    """

    model_type: str
    sizes: Mapping[str, Any]
    words: str
    release: str = ""
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Needed:
    """What a conversion to Hugging Face takes from elsewhere.

    Attributes:
        directory: of the reference that lies beside the checkpoint, or the Hugging Face directory itself; None: none.
        because: how it was found.
        rests_on: fields of config.json that nothing in the checkpoint shows or states: they are believed.
        unknown: fields of config.json that nobody gives: a reference has to.
        files: what is missing beside weights: tokenizer, chat template and the like.
    """

    directory: Path | None = None
    because: str = ""
    rests_on: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class AdapterSeen(NamedTuple):
    """Low-rank changes of weights (LoRA) that a checkpoint holds.

    Attributes:
        family: "megatron-bridge" or "ms-swift".
        title: its names, in words.
        modules: how many it changes.
        targets: their kinds: "linear_qkv".
        ranks: that its tensors have.
        alpha: None: nobody states it.
        alpha_from: who states it, or why it is not known.
        rslora: the scale is alpha divided by the square root of the rank.
        parameters: elements of all its tensors.
        base_here: the model that it changes is in the checkpoint, too.
    """

    family: str
    title: str
    modules: int
    targets: tuple[str, ...]
    ranks: tuple[int, ...]
    alpha: float | None
    alpha_from: str
    rslora: bool
    parameters: int
    base_here: bool


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a directory is.

    Attributes:
        path: as it was given.
        directory: that holds what is described.
        kind: "megatron" or "huggingface".
        title: what it is, in words.
        format: as `--ckpt-format` has it, "dcp", or "hf"; "" where it could not be opened.
        form: how its layers are keyed, or which topology it is for, in words.
        iteration: that its path names.
        iterations: those in the directory that was given, in number order; of one checkpoint none.
        layout: the trainer's naming; "" where it is not recognised, or on the Hugging Face side.
        trainers: who writes it.
        layout_because: by what it was recognised.
        model: None where it is none that is known.
        topology: parallel sizes that it was written at, by Megatron's names, and the ranks that wrote it.
        tensors: under canonical names, with the shapes of whole tensors.
        whole: whether they are; else a rank's.
        scales: names of those that are scales of FP8 tensors, and no parameters.
        file_bytes: of all its files.
        ignored: what is no weight: kind -> number of entries.
        unclaimed: file -> bytes in it that belong to nothing the checkpoint describes.
        states: what it states of itself, and where.
        needs: what a conversion takes from elsewhere.
        converts: by its metadata; what only the weights show is checked when they are read.
        why_not, hint: why it does not, and what to do about it.
        adapter: None: it holds none.
        manifest: what its vlconv.json says of how it was made; None: it has none.
        next: commands to go on with.
        warnings: what may matter.
    """

    path: Path
    directory: Path
    kind: str
    title: str
    format: str = ""
    form: str = ""
    iteration: int | None = None
    iterations: tuple[Iteration, ...] = ()
    layout: str = ""
    trainers: str = ""
    layout_because: str = ""
    model: ModelFound | None = None
    topology: Mapping[str, int] = field(default_factory=dict)
    tensors: tuple[TensorSpec, ...] = ()
    whole: bool = True
    scales: frozenset[str] = frozenset()
    file_bytes: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    unclaimed: Mapping[str, int] = field(default_factory=dict)
    states: tuple[Statement, ...] = ()
    needs: Needed = field(default_factory=Needed)
    converts: bool = False
    why_not: str = ""
    hint: str = ""
    adapter: AdapterSeen | None = None
    manifest: Mapping[str, Any] | None = None
    next: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Elements of all tensors but scales, padding rows of the vocabulary among them."""
        return sum(prod(spec.shape) for spec in self._weights)

    @property
    def _weights(self) -> list[TensorSpec]:
        """The tensors but scales."""
        return [spec for spec in self.tensors if spec.name not in self.scales]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.tensors)

    @property
    def dtypes(self) -> dict[str, int]:
        """Dtype -> parameters, the most frequent first."""
        counts: Counter[str] = Counter()
        for spec in self._weights:
            counts[spec.dtype] += prod(spec.shape)
        return dict(counts.most_common())

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The modules as a tree."""
        return blocks_of(self._weights)

    def matching(self, pattern: str) -> tuple[TensorSpec, ...]:
        """The tensors whose whole name a glob matches: "*.layers.3.*"."""
        return tuple(spec for spec in self.tensors if fnmatchcase(spec.name, pattern))

    def as_dict(self, pattern: str = "*") -> dict[str, Any]:
        """The JSON document.

        Args:
            pattern: which tensors it lists, as for `matching`.
        """
        return {
            "command": "inspect",
            "status": "inspected",
            "vlconv": __version__,
            "path": str(self.path),
            "directory": str(self.directory),
            "kind": self.kind,
            "title": self.title,
            "format": self.format,
            "form": self.form,
            "iteration": self.iteration,
            "iterations": [found._asdict() for found in self.iterations],
            "layout": self.layout,
            "trainers": self.trainers,
            "layout_because": self.layout_because,
            "model": _model(self.model) if self.model else None,
            "topology": dict(self.topology),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "file_bytes": self.file_bytes,
            "dtypes": self.dtypes,
            "ignored": dict(self.ignored),
            "unclaimed": dict(self.unclaimed),
            "states": [{**found._asdict(), "facts": dict(found.facts)} for found in self.states],
            "reference": {
                "directory": None if self.needs.directory is None else str(self.needs.directory),
                "because": self.needs.because,
                "rests_on": list(self.needs.rests_on),
                "unknown": list(self.needs.unknown),
                "missing_files": list(self.needs.files),
            },
            "converts": self.converts,
            "why_not": self.why_not,
            "hint": self.hint,
            "adapter": None if self.adapter is None else self.adapter._asdict(),
            "manifest": None if self.manifest is None else dict(self.manifest),
            "next": list(self.next),
            "warnings": list(self.warnings),
            "whole_shapes": self.whole,
            "blocks": [block.as_dict() for block in self.blocks],
            "tensors": [
                {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "bytes": spec.nbytes}
                for spec in self.matching(pattern)
            ],
        }


def _model(model: ModelFound) -> dict[str, Any]:
    return {
        "model_type": model.model_type,
        "sizes": dict(model.sizes),
        "release": model.release,
        "differs": {place: {"here": ours, "release": theirs} for place, (ours, theirs) in model.differs.items()},
    }
