"""An adapter loaded by tensor-parallel ranks: each asks megatron-core for its part, as the trainers' wrappers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mcore import ranks

from .saving import Shard


def load(directory: Path, shards: list[list[Shard]]) -> list[list[torch.Tensor]]:
    """What each rank gets in the place of its shards' numbers, which are not looked at."""
    asked = [[tuple(s._replace(local=torch.zeros_like(s.local))) for s in mine] for mine in shards]
    found: list[list[torch.Tensor]] = ranks.run(len(shards), "lora.loading:read", str(directory), asked)
    return found


def read(directory: str, shards: list[list[tuple[Any, ...]]]) -> list[torch.Tensor]:
    """On a rank: load its part."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    from megatron.core.transformer.mlp import apply_swiglu_sharded_factory

    mine = shards[torch.distributed.get_rank()]
    state: dict[str, Any] = {}
    for key, local, cut, halved in mine:
        wanted = ShardedTensor.from_rank_offsets(key, local, *cut)
        state[f"{key} {cut}"] = apply_swiglu_sharded_factory(wanted, ()) if halved else wanted
    loaded = dist_checkpointing.load(state, directory)
    return [loaded[f"{key} {cut}"] for key, _, cut, _ in mine]
