"""A rank's own tensors: read from a Hugging Face directory, and given as parts of Hugging Face tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

from ..checkpoint.hf_side import AS_IT_IS, HfReading, HfSide, open_hf_side
from ..checkpoint.hub_source import hf_directory
from ..checkpoint.mapping import mapped_table
from ..errors import MismatchError, shown
from ..models.shared.config import ModelConfig
from ..parallel.model_chunk import Held
from ..parallel.rank import Rank
from ..tensors.dtypes import storage
from ..tensors.sharding import Topology
from ..tensors.spec import Reader
from ..tensors.vocabulary import padded_rows
from .arrays import Tensor, plain, plus
from .chunk import chunk_of
from .config import AnyConfig
from .model import LiveModel, live_model
from .placements import Region, placements

if TYPE_CHECKING:
    from ..tensors.spec import Array


class HfSlice(NamedTuple):
    """A part of a Hugging Face tensor.

    Attributes:
        name: of the Hugging Face tensor.
        box: which part.
        tensor: its elements, of the shape `box.lengths`: a view, unless they are computed.
    """

    name: str
    box: Region
    tensor: Tensor


def export_rank(
    tensors: Mapping[str, Tensor],
    config: AnyConfig | ModelConfig | LiveModel,
    layout: str | None,
    topology: Topology,
    rank: Rank,
    *,
    replicas: bool = False,
    make_vocab_size_divisible_by: int | None = None,
) -> Iterator[HfSlice]:
    """The parts of Hugging Face tensors that one model chunk of a rank has, without a gather.

    Args:
        tensors: the chunk's own, by their names (`chunk.state_dict()`).
        config, layout, topology, rank, make_vocab_size_divisible_by: see `placements`.
        replicas: with what an earlier rank has, too.

    Raises:
        MismatchError: as `placements`; or a tensor has another shape than the rank's.
    """
    model = live_model(config, layout)
    divisor = make_vocab_size_divisible_by
    shapes = {name: held.shape for name, held in chunk_of(model, topology, rank, tensors, divisor).items()}
    where = placements(model, layout, topology, rank, names=tensors, make_vocab_size_divisible_by=divisor)
    for name, listed in where.items():
        tensor = plain(tensors[name], name)
        if tuple(tensor.shape) != shapes[name]:
            raise MismatchError(
                f"{shown(name)} is {list(tensor.shape)}; this rank's is {list(shapes[name])}",
                "Are config, topology and make_vocab_size_divisible_by those of the job?",
            )
        for placement in listed if replicas else (p for p in listed if not p.replica):
            part = placement.local(tensor)
            yield HfSlice(
                placement.hf_name, placement.hf_box, plus(part, placement.add, name) if placement.add else part
            )


def load_rank(
    hf_dir: str | PathLike[str],
    config: AnyConfig | ModelConfig | LiveModel | None,
    layout: str | None,
    topology: Topology,
    rank: Rank,
    *,
    names: Iterable[str] | None = None,
    make_vocab_size_divisible_by: int | None = None,
    dtype: str | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one model chunk of a rank, from a Hugging Face directory; of the files only their parts are read.

    Args:
        hf_dir: the directory, or a repository of the Hub.
        config: see `live_model`; None: that of the directory. A multi-token-prediction head that the trainer's model
            has not, or that the directory promises and lacks, is left out by `live_model(hf_dir, mtp=False)`.
        layout, topology, rank, names, make_vocab_size_divisible_by: see `placements`.
        dtype: cast all to it ("bfloat16"); None: as they are.

    Yields:
        (name, tensor): a torch tensor in the memory of the processor, one at a time.

    Raises:
        MismatchError: as `placements`; or the directory holds another model than `config`.
        VlconvError: of every kind that a source has.
    """
    asked = None if config is None else live_model(config, layout)
    headless = asked is not None and not asked.config.text.mtp
    side = open_hf_side(hf_directory(hf_dir), HfReading(mtp="drop") if headless else AS_IT_IS)
    model = asked or live_model(side.config, layout)
    _check_same(side, model)
    chunk = chunk_of(model, topology, rank, names, make_vocab_size_divisible_by)
    rows = padded_rows(model.config.text.vocab, make_vocab_size_divisible_by, topology.tp)
    reader = mapped_table(model.layout, model.config, rows).from_hf(side.reader, dtype=dtype)
    for name, held in chunk.items():
        with side.files.noting():
            bits = _read(reader, held)
        yield name, _tensor(bits, reader.specs[held.of].dtype)
    side.files.check()


def _check_same(side: HfSide, model: LiveModel) -> None:
    """The directory's model is the one asked for, of which a tower may be left out."""
    if live_model(side.config, model.layout.name).config != model.config:
        raise MismatchError(
            f"{shown(side.directory)} holds another model than the config that is given",
            "Give the config of the same model, or None.",
        )


def _read(reader: Reader, held: Held) -> Array:
    """A rank's tensor, as bits."""
    import numpy as np

    out = np.empty(held.shape, storage(reader.specs[held.of].dtype))
    begin = 0
    for box in held.boxes:
        lengths = box.lengths[len(box.lengths) - len(held.shape) :]
        part = out[(*[slice(None)] * held.axis, slice(begin, begin + lengths[held.axis]))]
        reader.read_into(box, part[None] if part.ndim < len(box.lengths) else part)
        begin += lengths[held.axis]
    return out


def _tensor(bits: Array, dtype: str) -> Tensor:
    import torch

    signed = bits.view(bits.dtype.name.removeprefix("u"))
    return torch.from_numpy(signed).view(getattr(torch, dtype))
