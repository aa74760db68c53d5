"""What opening a Megatron checkpoint gives, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..tensors.sharding import Split, Topology
from ..tensors.spec import Shape, TensorSpec
from .chunks import ChunkReader

if TYPE_CHECKING:
    from .dcp.integrity import Integrity

Assemble = Callable[[Mapping[str, Split]], ChunkReader]
Whole = Callable[[Mapping[str, Split]], dict[str, Shape]]


def no_cuts(name: str, axis: int) -> tuple[int, ...]:
    """Chunks say nothing."""
    return ()


@dataclass(slots=True)
class Opened:
    """An open checkpoint.

    Attributes:
        format: a key of FORMATS.
        directory: the folder that holds the files.
        specs: the model's tensors under canonical names (see keys.py), whatever prefix the trainer put before them.
            Where a format keeps only ranks' own tensors, a shape is a rank's, but for the rows of embedding and output
            layer.
        assemble: given how each tensor is cut among ranks, reads whole tensors; a format that keeps global shapes needs
            it not.
        whole: given the same, the shapes of whole tensors, without reading any; None where `specs` has them.
        ignored: what else is in there: kind -> number of entries.
        form: how the layers are keyed, in words.
        args: reads what the checkpoint states of itself: names as in Megatron's args; {} when it states nothing.
        tied_copy: an output layer is there that may be a copy of the embedding, for the last pipeline stage of a tied
            model.
        sectioned: names of the tensors that the files keep in pieces (keys.SECTIONS), as megatron-core's own Gated
            DeltaNet is saved.
        warnings: filled while assembling.
        unclaimed: file -> bytes in it that belong to nothing the checkpoint describes; files without any are left out.
        integrity: the sums of whole files that it states; None: it states none.
        topology: that its files are for; None where they are for any.
        cuts: name of a tensor, axis -> where its chunks begin there, each place once; () where chunks say nothing of
            the ranks that wrote them.
    """

    format: str
    directory: Path
    specs: Mapping[str, TensorSpec]
    assemble: Assemble
    whole: Whole | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    form: str = ""
    args: Callable[[], dict[str, Any]] = dict
    tied_copy: bool = False
    sectioned: frozenset[str] = frozenset()
    warnings: list[str] = field(default_factory=list)
    unclaimed: dict[str, int] = field(default_factory=dict)
    integrity: Integrity | None = None
    topology: Topology | None = None
    cuts: Callable[[str, int], tuple[int, ...]] = no_cuts

    def shapes(self, splits: Mapping[str, Split]) -> dict[str, Shape]:
        """Shapes of whole tensors."""
        return self.whole(splits) if self.whole else {name: self.specs[name].shape for name in splits}


class Summed(NamedTuple):
    """A Megatron checkpoint that is read, with what vouches for its bytes.

    Attributes:
        chunks: of its items, each with the checksum that its file states.
        integrity: the sums of whole files that it states; None: it states none.
    """

    chunks: ChunkReader
    integrity: Integrity | None
