"""What the model chunks of a topology consist of: layers under their local numbers, and each rank's part of them.

Read off the same arithmetic (tensors/sharding.py) by everything that meets ranks: rank files and trainers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import MismatchError
from ..tensors.sharding import Split, Topology, local_shape, parts
from ..tensors.spec import Box, Shape, TensorSpec
from .rank import Rank

HEADS = ("decoder.final_layernorm.", "output_layer.", "mtp.")
"""What the last chunk of the last stage has, behind the language model's prefix."""


@dataclass(frozen=True, slots=True)
class WholeModel:
    """A model, before it is dealt out.

    Attributes:
        specs: canonical tensors.
        splits: how each is cut.
        text: prefix of the language model's `embedding.`, `decoder.` and `output_layer.`.
        sequential: experts in modules of their own (`local_experts`), else grouped.
        tied: with a pipeline, the last stage then holds a copy of the embedding.
    """

    specs: Mapping[str, TensorSpec]
    splits: Mapping[str, Split]
    text: str
    sequential: bool
    tied: bool


class Place(NamedTuple):
    """Where something of a model is, and what it is called there."""

    stage: int
    chunk: int
    name: str


class Held(NamedTuple):
    """A tensor that a rank has of its own.

    Attributes:
        name: in the model chunk.
        shape: of the rank's tensor.
        dtype: of its elements.
        boxes: of canonical tensors, what it is made of, one behind the other along `axis`.
        axis: of the rank's tensor; 0 where there is one box.
        of: the canonical tensor.
        copy: it is a copy of a tensor that another stage has: the embedding, on the last stage.
    """

    name: str
    shape: Shape
    dtype: str
    boxes: tuple[Box, ...]
    axis: int
    of: str
    copy: bool = False


class Dealt:
    """A model dealt out to the stages and chunks of a topology.

    Raises:
        MismatchError: a size does not divide; says which would do.
    """

    def __init__(self, model: WholeModel, topology: Topology) -> None:
        self._model = model
        self._topology = topology
        self._check_experts()
        self._layers = self._dealt_layers()
        self._chunks: dict[tuple[int, int], list[tuple[str, TensorSpec, bool]]] = {}
        for name, spec in model.specs.items():
            stage, chunk, local = self.place(name)
            self._chunks.setdefault((stage, chunk), []).append((local, spec, False))
        self._chunks.setdefault(self._last, []).extend(self._copies())

    @property
    def _last(self) -> tuple[int, int]:
        return self._topology.pp - 1, self._topology.vpp - 1

    def _check_experts(self) -> None:
        model, ep = self._model, self._topology.ep
        experts = max((spec.shape[0] for name, spec in model.specs.items() if model.splits[name].expert), default=0)
        if experts % ep:
            fitting = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
            raise MismatchError(
                f"{experts} experts do not divide by expert parallel size {ep}", f"Sizes that would do: {fitting}."
            )
        if ep > 1 and not experts:
            raise MismatchError(f"expert parallel size {ep}, but the model has no experts", "Leave --ep out.")

    def _dealt_layers(self) -> dict[int, tuple[int, int, int]]:
        """Global number of a decoder layer -> (stage, chunk, its number there)."""
        prefix = f"{self._model.text}decoder.layers."
        count = len({name[len(prefix) :].split(".")[0] for name in self._model.specs if name.startswith(prefix)})
        return {
            i: (stage, chunk, i - span.start)
            for stage, chunks in enumerate(self._topology.layers(count))
            for chunk, span in enumerate(chunks)
            for i in span
        }

    def place(self, name: str) -> Place:
        """Where a tensor or module with this canonical name is.

        Decoder layers are dealt out and renumbered, the heads are in the last chunk, all else in the first.
        """
        text = self._model.text
        prefix = f"{text}decoder.layers."
        if name.startswith(prefix):
            number, _, rest = name[len(prefix) :].partition(".")
            stage, chunk, local = self._layers[int(number)]
            return Place(stage, chunk, f"{prefix}{local}.{rest}")
        if name.startswith(tuple(f"{text}{head}" for head in HEADS)):
            return Place(*self._last, name)
        return Place(0, 0, name)

    def _copies(self) -> Iterator[tuple[str, TensorSpec, bool]]:
        """The copies of the embedding that the last stage of a pipeline has.

        A tied model has one as its output layer; a multi-token-prediction head looks tokens up in one. Where both are,
        megatron-core still makes room for the former, though it then uses the latter as the output layer, too.
        """
        model, embedding = self._model, f"{self._model.text}embedding.word_embeddings.weight"
        copies = [f"{model.text}output_layer.weight"] if model.tied else []
        if any(name.startswith(f"{model.text}mtp.") for name in model.specs):
            copies.append(embedding)
        for name in copies if self._topology.pp > 1 else []:
            yield name, model.specs[embedding], True

    def held(self, rank: Rank) -> Iterator[Held]:
        """The tensors of one of a rank's model chunks, copies last."""
        for name, spec, copy in self._chunks.get((rank.pp, rank.vp), ()):
            if self._model.splits[spec.name].expert:
                yield from self._experts(name, spec, rank)
            else:
                yield self._part(name, spec, rank, copy)

    def _part(self, name: str, spec: TensorSpec, rank: Rank, copy: bool) -> Held:
        split, tp = self._model.splits[spec.name], self._topology.tp
        cut = parts(spec.shape, split, rank.tp, tp, spec.name)
        boxes = tuple(Box(spec.name, part.offsets, part.lengths) for part in cut)
        return Held(name, local_shape(spec.shape, split, tp), spec.dtype, boxes, split.axis or 0, spec.name, copy)

    def _experts(self, name: str, spec: TensorSpec, rank: Rank) -> Iterator[Held]:
        """One tensor for each of the rank's experts."""
        split, one = self._model.splits[spec.name], spec.shape[1:]
        each = spec.shape[0] // self._topology.ep
        cut = list(parts(one, split, rank.etp, self._topology.etp, spec.name))
        shape = local_shape(one, split, self._topology.etp)
        for e in range(each):
            boxes = tuple(Box(spec.name, (rank.ep * each + e, *p.offsets), (1, *p.lengths)) for p in cut)
            yield Held(
                expert_name(name, e, self._model.sequential), shape, spec.dtype, boxes, split.axis or 0, spec.name
            )


def expert_name(name: str, number: int, sequential: bool) -> str:
    """What one of a rank's experts is called: `….experts.linear_fc1.weight3`, or as a module of its own."""
    if sequential:
        return name.replace(".experts.experts.", f".experts.local_experts.{number}.")
    return name.replace(".experts.experts.", ".experts.") + str(number)
