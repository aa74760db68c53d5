"""What a checkpoint does not hold and the reference does: tensors that go along byte for byte, or as plain ones of FP8.

The vision tower of a model whose language half was trained and saved alone, a multi-token-prediction head that no
trainer built, a part that no model here lists. None of it was trained with the rest, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...config.reference import Reference
from ...config.reference_weights import ReferenceWeights, weights_of
from ...errors import MismatchError, ReferenceFault, shown, shown_path
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...models.shared.hf_dialects import Dialect, dialect_copies, read_dialect
from ...models.shared.model import MTP
from ...tensors.dtypes import FLOATS
from ...tensors.fp8.dequantised import Dequantised
from ...tensors.mapped import Mapped, Renamed
from ...tensors.rules import Copy, flipped, hulls
from ...tensors.spec import Reader, TensorSpec
from ..fp8.files import scaled_tensors
from ..hf_side import refuse_quantised
from . import mtp


@dataclass(frozen=True)
class Carried:
    """Tensors of the reference's weights.

    Attributes:
        reader: those that the model lists, under the Hub's names.
        others: those that no model here lists, under their own names.
        dialect: how the reference spells them.
        config: the model to write.
        prefixes: what their names begin with in the reference -> how many there are.
        files: that hold them.
        head: layers of a multi-token-prediction head among them.
        tower: whether the vision tower is among them.
        step: makes plain tensors of those that are FP8; None: none is.
    """

    reader: Reader
    others: Reader
    dialect: Dialect
    config: ModelConfig
    prefixes: Mapping[str, int]
    files: Sequence[Path]
    head: int
    tower: bool
    step: Dequantised | None = None

    def in_dialect(self, asked: Dialect) -> Reader:
        """Those that the model lists as the reference spells them, but with the prefixes of the output."""
        spelled = self.dialect._replace(hf_names=asked.hf_names)
        copies = [copy for copy in dialect_copies(self.config, spelled) if copy.right.name in self.reader.specs]
        return Mapped(self.reader, flipped(copies))


def carry(reference: Reference, config: ModelConfig, prefixes: Sequence[str], *, head: bool, tower: bool) -> Carried:
    """Open what goes along.

    Args:
        reference: whose weights hold it.
        config: the model to write, but for the layers of a head that config.json does not state.
        prefixes: --carry.
        head: whether a multi-token-prediction head goes along.
        tower: whether the checkpoint holds a vision tower itself.

    Raises:
        ReferenceFault: no weights, or not these tensors among them.
        MismatchError: the checkpoint holds them itself, or a prefix takes what does not go alone.
        CorruptError: a file of the reference is damaged.
    """
    weights = weights_of(reference)
    if weights is None:
        raise ReferenceFault(
            f"the reference {shown_path(reference.directory or reference.said)} has no safetensors weights to carry "
            "tensors from",
            "Pass --reference with a directory that has them, or with a hub id.",
        )
    whole, weights = weights, _unscaled(weights, reference)
    taken = {prefix: _taken(weights, prefix) for prefix in (*prefixes, *([MTP] if head else []))}
    chosen = dict.fromkeys(name for names in taken.values() for name in names)
    layers = mtp.layers_of(taken[MTP]) if head else 0
    config = config if config.text.mtp or not head else mtp.with_layers(config, layers)
    files, step = _opened(whole, chosen, reference)
    # Only the names of the rest are known, and no more is needed of it: its files may not be here.
    shapes = {name: files.specs[name].shape if name in chosen else () for name in weights.placed}
    dialect = read_dialect(shapes, config)
    copies = dialect_copies(config, dialect)
    parts = _Parts(copies, config, weights)
    for prefix in prefixes:
        parts.check(prefix, taken[prefix], chosen)
    if tower and parts.tower & chosen.keys():
        raise MismatchError(
            f"the checkpoint holds a vision tower itself: {_some(parts.tower & chosen.keys())} would be there twice",
            "Leave --carry out: its own goes along.",
        )
    if head:
        parts.check_head(chosen)
    listed = [copy for copy in copies if copy.left.name in chosen]
    known = {copy.left.name: files.specs[copy.left.name] for copy in listed}
    refuse_quantised(known)
    _check_shapes(known, listed, weights)
    return Carried(
        reader=Mapped(files, listed),
        others=Renamed(files, {name: name for name in chosen if name not in known}),
        dialect=dialect,
        config=config,
        prefixes={prefix: len(names) for prefix, names in taken.items()},
        files=weights.files(chosen),
        head=layers,
        tower=bool(parts.tower & chosen.keys()),
        step=step,
    )


def _unscaled(weights: ReferenceWeights, reference: Reference) -> ReferenceWeights:
    """The weights without the scales of FP8 tensors."""
    said = reference.quantization
    scales = {said.scale_of(name) for name in weights.placed} if said else ()
    return replace(weights, placed={name: file for name, file in weights.placed.items() if name not in scales})


def _opened(
    weights: ReferenceWeights, names: Collection[str], reference: Reference
) -> tuple[Reader, Dequantised | None]:
    """Some of the tensors, none of them FP8 any more, and what made them plain."""
    said = reference.quantization
    if said is None:
        return weights.open(names), None
    scales = [said.scale_of(name) for name in names if said.scale_of(name) in weights.placed]
    files = weights.open([*names, *scales])
    if not scales and all(spec.dtype in FLOATS for spec in files.specs.values()):
        return files, None
    step = Dequantised(files, scaled_tensors(files.specs, said, weights.directory), "bfloat16")
    return step, step


def _taken(weights: ReferenceWeights, prefix: str) -> list[str]:
    names = [name for name in weights.placed if name.startswith(prefix)]
    if not names:
        raise ReferenceFault(
            f"the weights of the reference {shown_path(weights.directory)} have no tensor whose name begins with "
            f"{shown(prefix)!r}",
            f"They begin with: {_some({'.'.join(name.split('.')[:2]) for name in weights.placed})}.",
        )
    return names


class _Parts:
    """The names of a reference's tensors by the part of the model that they are of."""

    def __init__(self, copies: Sequence[Copy], config: ModelConfig, weights: ReferenceWeights) -> None:
        model = model_of(config)

        def named(belongs: Callable[[str], bool]) -> set[str]:
            return {copy.left.name for copy in copies if belongs(copy.right.name)}

        self.weights = weights
        self.tower = named(lambda name: model.traits.tower and name.startswith(model.vision_prefix))
        self.head = named(lambda name: name.startswith(MTP))
        self.language = named(lambda name: True) - self.tower - self.head

    def check(self, prefix: str, names: Collection[str], chosen: Collection[str]) -> None:
        """Refuse a prefix that takes what does not go alone."""
        mine = self.language.intersection(names)
        if mine:
            raise MismatchError(
                f"--carry {shown(prefix)} takes parts of the language model, such as {_some(mine)}",
                "What was trained comes from the checkpoint: name a longer prefix.",
            )
        if any(name.startswith(MTP) for name in names):
            raise MismatchError(
                f"--carry {shown(prefix)} takes a multi-token-prediction head", "Say it with --mtp carry instead."
            )
        if not self.tower.intersection(names):
            return
        self._check_all_there(self.tower)
        missing, whole = self.tower.difference(chosen), len(self.tower)
        if missing:
            raise MismatchError(
                f"--carry {shown(prefix)} takes {whole - len(missing)} of the vision tower's {whole} tensors; not "
                f"{_some(missing)}",
                "The tower goes as a whole, or not at all.",
            )

    def check_head(self, chosen: Collection[str]) -> None:
        """The reference's head is the one that its config.json promises."""
        self._check_all_there(self.head)
        surplus = {name for name in chosen if name.startswith(MTP)} - self.head
        if surplus:
            raise MismatchError(
                f"{shown_path(self.weights.directory)}: {_some(surplus)} is of no multi-token-prediction head that its "
                "config.json promises",
                "Config and weights of the reference belong to different models.",
            )

    def _check_all_there(self, wanted: Collection[str]) -> None:
        missing = {name for name in wanted if name not in self.weights.placed}
        if missing:
            raise ReferenceFault(
                f"the weights of the reference {shown_path(self.weights.directory)} lack {_some(missing)}",
                "Its config.json promises them: give a complete reference.",
            )


def _check_shapes(known: Mapping[str, TensorSpec], listed: Sequence[Copy], weights: ReferenceWeights) -> None:
    for name, shape in hulls(copy.left for copy in listed).items():
        found = known[name].shape
        if found != shape:
            raise MismatchError(
                f"{shown_path(weights.directory)}: {shown(name)} is {shown(list(found))}; its config.json makes it "
                f"{list(shape)}",
                "Config and weights of the reference belong to different models.",
            )


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(map(shown, listed[:3])) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
