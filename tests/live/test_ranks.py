"""megatron-core's own models on gloo ranks: every element of every parameter through placements, and ranks filled from
a Hugging Face directory.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from converting import slow
from mcore import ranks
from mcore.job import Job, Part
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5, tiny_hybrid, tiny_text, without_tower
from mcore.topology import Topology
from references import write_hf

pytestmark = pytest.mark.mcore_versions

Tensors = dict[str, torch.Tensor]

JOBS = {
    "dense": Job(tiny(), Topology(tp=2, pp=2, vpp=2), padded=True),
    "tied": Job(tiny(tied=True), Topology(tp=2, pp=2), "local"),
    "uneven": Job(tiny(), Topology(pp=3, first=1, last=1)),
    "more ranks than groups": Job(tiny(groups=2), Topology(tp=4)),
    "copies": Job(tiny_2_5(), Topology(tp=2, copies=2)),
    "experts": Job(tiny(moe=True), Topology(tp=2, ep=2, etp=1), grouped=True),
    "experts cut": Job(tiny(moe=True, dense_layers=[1]), Topology(tp=2, ep=2, pp=2), "local"),
    "experts cut in two of four": Job(tiny_text("qwen3_moe"), Topology(tp=4, ep=2, etp=2), grouped=True),
    "hybrid": Job(tiny_hybrid("qwen3_5"), Topology(tp=2, pp=2)),
    "biased": Job(tiny_text("qwen2", tied=True), Topology(tp=2, pp=2)),
    "half": Job(without_tower(tiny()), Topology(tp=2), layout="language-model"),
}
QUICK = ("dense", "experts cut in two of four", "hybrid", "more ranks than groups")
CASES = [name if name in QUICK else slow(name) for name in JOBS]


@pytest.mark.parametrize("name", CASES)
def test_placements_hold_every_element_once(name: str) -> None:
    job = JOBS[name]
    hf = random_hf_tensors(job.config)
    parts = [part for found in ranks.run(job.topology.world, "mcore.live:exported", job, hf, False) for part in found]
    assert not any(part.replica for part in parts)
    assert not wrong(parts, hf)
    assert not not_once(parts, hf)


@pytest.mark.parametrize("name", ["tied", *(slow(name) for name in ("experts cut in two of four", "hybrid", "copies"))])
def test_replicas_hold_the_same(name: str) -> None:
    job = JOBS[name]
    hf = random_hf_tensors(job.config)
    found = ranks.run(job.topology.world, "mcore.live:exported", job, hf, True)
    parts = [part for listed in found for part in listed]
    assert not wrong(parts, hf)
    assert not not_once([part for part in parts if not part.replica], hf)
    assert any(part.replica for part in parts)


@pytest.mark.parametrize("name", CASES)
def test_ranks_are_filled(tmp_path: Path, name: str) -> None:
    job = JOBS[name]
    whole = tiny() if job.layout == "language-model" else job.config  # the directory has the tower, too
    hf = random_hf_tensors(whole)
    directory = write_hf(tmp_path / "hf", whole, hf)
    assert not any(ranks.run(job.topology.world, "mcore.live:loaded", job, hf, str(directory)))


def wrong(parts: list[Part], hf: Tensors) -> list[str]:
    """The tensors of which a rank holds other bits."""
    return sorted({p.name for p in parts if not same(p.tensor, hf[p.name][box(p)])})


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous(), b.contiguous())


def box(part: Part) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(part.offsets, part.tensor.shape, strict=True))


def not_once(parts: list[Part], hf: Tensors) -> list[str]:
    """The tensors of which an element is held never, or twice."""
    counts = {name: torch.zeros(tensor.shape, dtype=torch.int32) for name, tensor in hf.items()}
    for part in parts:
        counts[part.name][box(part)] += 1
    return sorted(name for name, count in counts.items() if not bool((count == 1).all()))
