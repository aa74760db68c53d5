"""megatron-core's own numbering of ranks: which tensor-parallel rank and pipeline stage each global rank is."""

from __future__ import annotations

from typing import Any

from megatron.core.parallel_state import RankGenerator


def places(order: str, sizes: dict[str, int]) -> dict[int, tuple[int, int]]:
    """Global rank -> (tensor-parallel rank, pipeline stage); `sizes`: of tp, cp, dp and pp."""
    ranks: Any = RankGenerator(ep=1, order=order, **sizes)
    found = {}
    for group in ranks.get_ranks("tp-pp"):
        tensor, stage = (
            {rank: at for inner in ranks.get_ranks(axis) for at, rank in enumerate(inner)} for axis in ("tp", "pp")
        )
        found |= {rank: (tensor[rank], stage[rank]) for rank in group}
    return found
