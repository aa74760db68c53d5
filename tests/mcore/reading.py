"""On a rank: megatron-core loads a checkpoint, and what arrived is compared. Called by `load`."""

from __future__ import annotations

from pathlib import Path

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.validation import StrictHandling

from vlconv.converters.models.shared.config import ModelConfig

from . import model
from .fill import layer_of
from .formulas import Tensors, expected, padding_rows
from .topology import Form, Place, Spec, Topology
from .writing import metadata


def read(
    directory: str,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    form: Form | None,
    spec: Spec,
    grouped: bool,
    padded: bool,
    strict: str,
    bare: bool | None = None,
) -> list[str]:
    """Build, load, compare; returns what differs on this rank."""
    chunks = model.build(config, topology, spec, grouped, padded, bare)
    flags = metadata(form) if form else dist_checkpointing.load_content_metadata(directory) or {}
    for chunk in chunks:
        _adopt_dtypes(chunk, model.place(topology), config, hf)
    asked = model.sharded(chunks, flags)
    loaded = dist_checkpointing.load(asked, directory, strict=StrictHandling(strict))
    faults = []
    for name, chunk in zip(asked, chunks, strict=True):
        chunk.load_state_dict(loaded[name], strict=True)
        faults += _differing(chunk, model.place(topology), config, hf)
    return faults


def read_legacy(
    directory: str,
    config: ModelConfig,
    hf: Tensors,
    topology: Topology,
    spec: Spec,
    grouped: bool,
    padded: bool,
    bare: bool | None = None,
) -> list[str]:
    """Build, load this rank's file, compare; returns what differs on this rank."""
    chunks = model.build(config, topology, spec, grouped, padded, bare)
    (file,) = (Path(directory) / model.legacy_folder(topology)).glob("model*.pt")
    state = torch.load(file, map_location="cpu", weights_only=False)
    faults = []
    for name, chunk in zip(model.names(chunks), chunks, strict=True):
        _adopt_dtypes(chunk, model.place(topology), config, hf)
        chunk.load_state_dict(state[name], strict=True)
        faults += _differing(chunk, model.place(topology), config, hf)
    return faults


def _adopt_dtypes(chunk: model.Chunk, place: Place, config: ModelConfig, hf: Tensors) -> None:
    """A parameter that is float32 in the checkpoint is so in the model too.

    And no value can be right before it is loaded.
    """
    for name, parameter in chunk.named_parameters():
        dtype = expected(name, place, layer_of(chunk, name), config, hf, parameter.shape[0]).dtype
        parameter.data = torch.full_like(parameter, float("nan"), dtype=dtype)


def _differing(chunk: model.Chunk, place: Place, config: ModelConfig, hf: Tensors) -> list[str]:
    faults = []
    for name, parameter in chunk.named_parameters():
        rows = parameter.shape[0]
        want = expected(name, place, layer_of(chunk, name), config, hf, rows)
        real = rows - padding_rows(name, place, config, rows)
        if parameter.dtype != want.dtype or parameter.shape != want.shape:
            faults.append(f"{name}: {parameter.dtype} {tuple(parameter.shape)}, not {want.dtype} {tuple(want.shape)}")
        elif not torch.equal(_bits(parameter.data[:real]), _bits(want[:real])):
            faults.append(
                f"{name}: {int((_bits(parameter.data[:real]) != _bits(want[:real])).sum())} of {want[:real].numel()} "
                "elements differ"
            )
    return faults


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns, so that a NaN equals itself and -0 is not 0."""
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.itemsize])
