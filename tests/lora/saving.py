"""An adapter saved by tensor-parallel ranks: each has its part as the trainers' wrappers have, and megatron-core saves.

`parts` says what every rank has; `save` lets megatron-core write it, on as many real ranks, with its own sharded
tensors and its own factory for gated layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from mcore import ranks
from torch import Tensor

from .making import Made

COLUMN = ("linear_qkv", "linear_fc1", "in_proj", "output_layer")
"""Modules whose outputs are cut among ranks; all others' inputs are."""


class Shard(NamedTuple):
    """What one rank saves of a tensor.

    Attributes:
        key: in the file.
        local: the rank's own numbers.
        cut: (axis, index, of how many), for each axis that is cut.
        halved: megatron-core's factory of gated layers saves it.
    """

    key: str
    local: Tensor
    cut: tuple[tuple[int, int, int], ...] = ()
    halved: bool = False


def of_bridge(made: Made, rank: int, ranks: int) -> list[Shard]:
    """Megatron-Bridge: both matrices are parallel layers of their own; B of linear_fc1 goes through the factory."""
    shards = []
    for module, a in made.a.items():
        b, column = made.b[module], module.endswith(COLUMN)
        local_a = a.chunk(ranks, 0 if column else 1)[rank]
        local_b = rows_of(made, module, b, rank, ranks) if column else b.chunk(ranks)[rank]
        fc1 = module.endswith("linear_fc1")
        shards.append(Shard(f"{module}.adapter.linear_in.weight", local_a, ((0 if column else 1, rank, ranks),)))
        shards.append(Shard(f"{module}.adapter.linear_out.weight", local_b, ((0, rank, ranks),), halved=fc1))
    return shards


def of_swift(made: Made, rank: int, ranks: int) -> list[Shard]:
    """ms-swift: the one that is not cut like its base is whole on every rank; no factory sees linear_fc1."""
    shards = []
    for module, a in made.a.items():
        b, column = made.b[module], module.endswith(COLUMN)
        if column:
            local = rows_of(made, module, b, rank, ranks)
            shards.append(Shard(f"{module}.lora_B.default.weight", local, ((0, rank, ranks),)))
            shards += [Shard(f"{module}.lora_A.default.weight", a)] * (not rank)
        else:
            shards.append(Shard(f"{module}.lora_A.default.weight", a.chunk(ranks, 1)[rank], ((1, rank, ranks),)))
            shards += [Shard(f"{module}.lora_B.default.weight", b)] * (not rank)
    return shards


def rows_of(made: Made, module: str, b: Tensor, rank: int, ranks: int) -> Tensor:
    """The rows of B that a rank has: its part of gate and of up, of every part of a Gated DeltaNet, of whole groups."""
    sections = [len(b)]
    if module.endswith("mlp.linear_fc1") and "vision" not in module:
        sections = [len(b) // 2] * 2
    if module.endswith("in_proj") and made.name == "mbridge":
        s = made.sizes
        keys, values = s.key_heads * s.key_dim, s.value_heads * s.value_dim
        sections = [keys, keys, values, values, s.value_heads, s.value_heads]
    return torch.cat([part.chunk(ranks)[rank] for part in b.split(sections)])


def save(directory: Path, shards: list[list[Shard]]) -> Path:
    """A torch_dist checkpoint of what each rank has; `shards`: by rank."""
    directory.mkdir(parents=True)
    ranks.run(len(shards), "lora.saving:write", str(directory), [[tuple(s) for s in mine] for mine in shards])
    return directory


def write(directory: str, shards: list[list[tuple[Any, ...]]]) -> None:
    """On a rank: save its part."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    from megatron.core.transformer.mlp import apply_swiglu_sharded_factory

    state: dict[str, Any] = {}
    for key, local, cut, halved in shards[torch.distributed.get_rank()]:
        found = ShardedTensor.from_rank_offsets(key, local.contiguous(), *cut)
        state[f"{key} {cut}"] = apply_swiglu_sharded_factory(found, ()) if halved else found
    dist_checkpointing.save(state, directory)


def of_experts(made: Made, family: str, ep: tuple[int, int], etp: tuple[int, int], apart: bool) -> list[Shard]:
    """The experts' adapters of one rank, (number, of how many) in expert and in expert-tensor parallelism.

    Args:
        made: the model.
        family: "bridge" or "swift".
        ep, etp: which rank.
        apart: each expert is a tensor of its own; else those of a rank are one.
    """
    shards = []
    ends = {"bridge": ("adapter.linear_in", "adapter.linear_out"), "swift": ("lora_A.default", "lora_B.default")}[
        family
    ]
    for module, a in made.a.items():
        b, column = made.b[module], module.endswith(COLUMN)
        count = len(a) // ep[1]
        mine = range(ep[0] * count, (ep[0] + 1) * count)
        for group in [[e] for e in mine] if apart else [list(mine)]:
            experts = (0, group[0] // len(group), len(a) // len(group))
            both = zip(ends, (a, b), (_axis(True, column, family), _axis(False, column, family)), strict=True)
            for end, whole, axis in both:
                local = torch.stack([_local(whole[e], axis, made, module, etp) for e in group])
                if axis is None and etp[0]:
                    continue
                cut = (experts,) if axis is None else (experts, (axis + 1, *etp))
                factory = family == "bridge" and end.endswith("out") and module.endswith("fc1")
                shards += _halved(f"{module}.{end}.weight", local, cut) if factory else [
                    Shard(f"{module}.{end}.weight", local, cut)
                ]  # fmt: skip
    return shards


def _axis(first: bool, column: bool, family: str) -> int | None:
    """The axis of a matrix that expert-tensor parallelism cuts: of A (`first`) or B."""
    if first:
        return 1 if not column else 0 if family == "bridge" else None
    return 0 if column or family == "bridge" else None


def _local(whole: Tensor, axis: int | None, made: Made, module: str, etp: tuple[int, int]) -> Tensor:
    if axis is None:
        return whole
    if axis == 0 and module.endswith("fc1") and len(whole) > made.a[module].shape[1]:  # gate and up apart
        return torch.cat([part.chunk(etp[1])[etp[0]] for part in whole.chunk(2)])
    return whole.chunk(etp[1], axis)[etp[0]]


def _halved(key: str, local: Tensor, cut: tuple[tuple[int, int, int], ...]) -> list[Shard]:
    """What the factory makes of experts: gate and up apart, each rank's among the others'."""
    experts, (axis, rank, ranks) = cut
    halves = local.chunk(2, axis)
    return [Shard(key, half, (experts, (axis, h * ranks + rank, 2 * ranks))) for h, half in enumerate(halves)]
