"""On a rank: checkpoints of fully sharded trainers, from DTensors. Called by `sharded`.

Megatron-FSDP gives every rank as many whole rows of a tensor as its flat buffer happens to hold, none perhaps; its own
code writes down which.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed.fsdp.src.megatron_fsdp.uneven_dtensor import preprocess_state_dict_for_uneven_dtensor
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

TP = 2


def write_megatron(directory: str, tensors: dict[str, Tensor], cut: dict[str, int], common: dict[str, Any]) -> None:
    """fsdp_dtensor on a mesh of data-parallel by TP tensor-parallel ranks.

    Args:
        directory: exists.
        tensors: whole, under the names in the model's state dict.
        cut: the axis that tensor parallelism cuts, of the tensors that it cuts.
        common: what stands beside the model.
    """
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size() // TP, TP), mesh_dim_names=("dp", "tp"))
    model = {name: _sharded(name, t, mesh, cut.get(name)) for name, t in tensors.items()}
    some = list(tensors)[::20]  # an optimizer's state of every tensor would only cost time
    moments = {
        name: {
            "exp_avg": _sharded(name, torch.full_like(tensors[name], 1e-3, dtype=torch.float32), mesh, cut.get(name))
        }
        for name in some
    }
    state = {
        **common,
        "model": model,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-5}]},
        "rng_state": {"torch": torch.get_rng_state()},
    }
    preprocess_state_dict_for_uneven_dtensor(state)
    checkpoint.save(state, storage_writer=FileSystemWriter(Path(directory)))


def _sharded(name: str, whole: Tensor, mesh: Any, axis: int | None) -> DTensor:
    """This rank's rows; every rank draws the same places to cut."""
    dp, tp = mesh.get_coordinate()
    mine = whole if axis is None else whole.chunk(TP, dim=axis)[tp]
    places = sorted(random.Random(name).choices(range(len(mine) + 1), k=mesh.size(0) - 1))
    first, last = [0, *places][dp], [*places, len(mine)][dp]
    rows = _StridedShard(0, split_factor=TP) if axis == 0 else Shard(0)
    placements = [rows, Replicate() if axis is None else Shard(axis)]
    return DTensor.from_local(
        mine[first:last].contiguous(), mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def write_plain(directory: str, tensors: dict[str, Tensor], prefix: str) -> None:
    """torch's own fully_shard on a module of those parameters, saved by torch.distributed.checkpoint."""
    model = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = model
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(tensor.clone()))
    fully_shard(model, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    checkpoint.save(
        {prefix + name: t for name, t in model.state_dict().items()}, storage_writer=FileSystemWriter(Path(directory))
    )
