"""From named tensors to files: stacked layers, wrappers, padding rows, and torch's own distributed checkpoint."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from .decoder import Tensors

BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


def stacked(tensors: Tensors, *lists: str) -> Tensors:
    """The layers of each list, such as "language_model.decoder.layers", gathered on a leading axis."""
    out: Tensors = {}
    layers: dict[str, dict[int, Any]] = {}
    for name, t in tensors.items():
        start = next((f"{at}." for at in lists if name.startswith(f"{at}.")), None)
        if start is None:
            out[name] = t
        else:
            number, _, rest = name.removeprefix(start).partition(".")
            layers.setdefault(start + rest, {})[int(number)] = t
    return out | {name: torch.stack([found[i] for i in range(len(found))]) for name, found in layers.items()}


def padded(tensors: Tensors, rows: int) -> Tensors:
    """Embedding and output layer with noise behind the vocabulary, as no one ever trained it."""
    ends, noise = ("word_embeddings.weight", "output_layer.weight"), torch.Generator().manual_seed(rows)
    return {
        name: torch.cat([t, torch.randn((rows - len(t), t.shape[1]), generator=noise).to(t.dtype)])
        if name.endswith(ends)
        else t
        for name, t in tensors.items()
    }


def save(directory: Path, tensors: Tensors, common: Any = None, wrapper: str = "", *, plain: bool = False) -> Path:
    """A torch_dist directory: one chunk per tensor, and entries of a training run that are no weights; `plain`:
    without Megatron's own files.
    """
    directory.mkdir(parents=True)
    state: dict[str, Any] = {wrapper + name: t.contiguous() for name, t in tensors.items()}
    first = next(iter(state))
    state |= {
        f"optimizer.state.exp_avg.{first}": torch.zeros(3),
        f"{first.rpartition('.')[0]}._extra_state/shard_0_1": io.BytesIO(b"x"),
        "rng_state/shard_0_1": io.BytesIO(b"x"),
    }
    with warnings.catch_warnings(action="ignore"):  # that it saves without a process group
        dcp.save(state, checkpoint_id=directory, no_dist=True)
    if not plain:
        torch.save(common if common is not None else {}, directory / "common.pt")
        (directory / "metadata.json").write_text(json.dumps(BACKEND))
    return directory
