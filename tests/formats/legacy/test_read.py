"""Legacy checkpoints (`--ckpt-format torch`) that megatron-core's own modules saved, read at every topology: each
Hugging Face tensor comes back bit for bit.

Damaged and mixed ones are in test_legacy_refused, other trainers' in test_legacy_trainers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2HfOptions, Report, mcore2hf
from vlconv.converters.errors import ReferenceFault
from vlconv.converters.models.shared.config import ModelConfig

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "mixed": tiny(moe=True, dense_layers=[1]),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
    "few groups": tiny(groups=2),
}

CASES: list[tuple[str, Topology, dict[str, Any]]] = [
    ("dense", Topology(tp=2), {"padded": True}),
    ("dense", Topology(pp=2), {"optimizer": False}),
    ("dense", Topology(tp=2, pp=2, vpp=2), {}),
    ("dense", Topology(pp=3, first=1, last=2), {"spec": "local"}),
    ("dense", Topology(pp=2, vpp=2, layout="Et|t|t|tL"), {}),
    ("dense", Topology(pp=2, vpp=2, layout="E|ttt|t|L"), {}),
    ("tied", Topology(tp=2, pp=2), {"padded": True}),
    ("2.5", Topology(tp=2, pp=2), {}),
    ("2.5 tied", Topology(tp=2, pp=2), {"args": False}),
    ("moe", Topology(ep=2), {"args": False}),
    ("moe", Topology(tp=2, ep=2, etp=1), {"args": False}),
    ("moe", Topology(tp=2, ep=2, etp=1), {"grouped": False}),
    ("moe", Topology(tp=2, pp=2, ep=2), {"grouped": False, "padded": True}),
    ("mixed", Topology(tp=2, pp=2, ep=2, etp=1), {}),
    ("few groups", Topology(tp=4), {}),
]
MORE: list[tuple[str, Topology, dict[str, Any]]] = [
    ("dense", Topology(tp=4), {}),
    ("dense", Topology(tp=2, pp=2), {"args": False}),
    ("dense", Topology(tp=2, pp=2, first=1), {}),
    ("dense", Topology(pp=2, last=1), {"padded": True}),
    ("dense", Topology(pp=4), {"args": False, "optimizer": False}),
    ("dense", Topology(pp=3, layout="Ett|t|tL"), {"args": False}),
    ("tied", Topology(tp=4), {"padded": True}),
    ("tied", Topology(pp=2, vpp=2), {"args": False}),
    ("tied", Topology(tp=2), {"spec": "local"}),
    ("moe", Topology(tp=2), {"grouped": False}),
    ("moe", Topology(ep=4), {}),
    ("moe", Topology(ep=2), {"grouped": False}),
    ("moe", Topology(pp=2, ep=2), {"args": False}),
    ("moe", Topology(tp=2, ep=4, etp=1), {}),
    ("moe", Topology(tp=2, ep=2), {"spec": "local"}),
    ("moe", Topology(pp=2, vpp=2, ep=2), {}),
    ("mixed", Topology(tp=2), {"args": False}),
    ("2.5", Topology(tp=4, pp=2), {"spec": "local"}),
    ("2.5", Topology(tp=2, pp=2, vpp=2), {"padded": True}),
]


def named(case: Any) -> str:
    return "-".join([f"{k}={v}" for k, v in case.items()]) if isinstance(case, dict) else str(case)


def converted(
    tmp_path: Path, source: Path, config: ModelConfig, **options: Any
) -> tuple[dict[str, torch.Tensor], Report]:
    """Convert with a reference of this config; the tensors read back, and the report."""
    reference = write_reference(tmp_path / "reference", config)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(reference), **options))
    return read_hf(tmp_path / "hf"), report


def comes_back(tmp_path: Path, name: str, topology: Topology, **how: Any) -> Report:
    """Save, convert, compare every tensor."""
    hf = random_hf_tensors(CONFIGS[name])
    save_legacy(tmp_path / "ckpt", CONFIGS[name], hf, topology, **how)
    found, report = converted(tmp_path, tmp_path / "ckpt", CONFIGS[name])
    assert differing(found, hf) == []
    assert (report.data["format"], report.data["tensors"], report.warnings) == ("torch", len(hf), [])
    etp = f", ETP {topology.expert_tp}" if topology.ep > 1 else ""
    assert report.data["form"] == f"TP {topology.tp}, PP {topology.pp}, VPP {topology.vpp}, EP {topology.ep}{etp}"
    assert report.data["layout"] == ("mbridge-qwen2_5" if name.startswith("2.5") else "mbridge")
    # 248 rows are padded to a multiple of 128 x tp.
    assert report.data["padding_rows"] == (-248 % (128 * topology.tp) if how.get("padded") else 0)
    return report


@pytest.mark.parametrize(("name", "topology", "how"), CASES, ids=named)
def test_topologies(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    comes_back(tmp_path, name, topology, **how)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "topology", "how"), MORE, ids=named)
def test_more_topologies(tmp_path: Path, name: str, topology: Topology, how: dict[str, Any]) -> None:
    comes_back(tmp_path, name, topology, **how)


def test_the_tracker_and_the_old_name_of_the_file(tmp_path: Path) -> None:
    old, new = random_hf_tensors(tiny(), seed=1), random_hf_tensors(tiny(), seed=2)
    save_legacy(tmp_path / "ckpt", tiny(), old, Topology(tp=2), iteration=10)
    last = save_legacy(tmp_path / "ckpt", tiny(), new, Topology(pp=2), iteration=20)
    for file in last.glob("*/model_optim_rng.pt"):
        file.rename(file.with_name("model_rng.pt"))
    found, report = converted(tmp_path, tmp_path / "ckpt", tiny())
    assert differing(found, new) == []
    assert report.data["source"].endswith("iter_0000020")
    found, _ = converted(tmp_path, tmp_path / "ckpt", tiny(), iteration=10, overwrite=True)
    assert differing(found, old) == []


def anonymous() -> int:
    """Bytes of memory of this process that are no file's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


@contextmanager
def polled() -> Iterator[list[int]]:
    """Memory, looked at all the time."""
    seen: list[int] = [anonymous()]
    done = threading.Event()

    def poll() -> None:
        while not done.wait(0.002):
            seen.append(anonymous())

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


class Sparse:
    """A file that torch.save writes to, where many bytes at once become a hole."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("r+b")

    def write(self, data: Any) -> int:
        if len(data) > 1 << 24:
            self.file.seek(len(data), os.SEEK_CUR)
            return len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def test_memory_does_not_grow_with_what_is_not_wanted(tmp_path: Path) -> None:
    """Optimizer state of 6 GiB, and weights within a storage as large: neither is read, nor held."""
    hf = random_hf_tensors(tiny())
    source = save_legacy(tmp_path / "ckpt", tiny(), hf, Topology(), optimizer=False)
    file, hole = source / "mp_rank_00" / "model_optim_rng.pt", tmp_path / "hole"
    state = torch.load(file, weights_only=False)
    hole.touch()
    os.truncate(hole, 6 << 30)
    zeros = torch.from_file(str(hole), shared=False, size=6 << 29, dtype=torch.bfloat16)
    state["optimizer"] = {"state": {0: {"exp_avg": zeros[: 5 << 29]}}}
    state["model"]["language_model.decoder.final_layernorm.weight"] = zeros[5 << 29 :][:64]
    hf["model.language_model.norm.weight"].zero_()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, Sparse(file))
    finally:
        torch.serialization.set_crc32_options(True)
    assert file.stat().st_size > 6 << 30
    assert file.stat().st_blocks * 512 < 32 << 20
    with polled() as seen:
        found, _ = converted(tmp_path, tmp_path / "ckpt", tiny())
    assert len(seen) > 20
    assert max(seen) - seen[0] < 128 << 20
    assert differing(found, hf) == []


def test_leftovers_of_quantisation_aware_training_are_told(tmp_path: Path) -> None:
    hf = random_hf_tensors(tiny())
    source = save_legacy(tmp_path / "ckpt", tiny(), hf, Topology(tp=2), spec="local")
    for file in source.glob("mp_rank_*/model_optim_rng.pt"):
        state = torch.load(file, weights_only=False)
        for layer in range(4):
            proj = f"language_model.decoder.layers.{layer}.self_attention.linear_proj"
            state["model"] |= {f"{proj}.{kind}_quantizer._amax": torch.ones(1) for kind in ("input", "weight")}
        torch.save(state, file)
    found, report = converted(tmp_path, tmp_path / "ckpt", tiny())
    assert differing(found, hf) == []
    assert report.data["ignored"] == {"quantizer state": 2 * 4 * 2, "_extra_state": 70}


def test_what_a_reference_is_needed_for(tmp_path: Path) -> None:
    """What args leave open, the shapes of tensors made whole again show, but for two facts of the vision tower that
    only a release's config would.
    """
    save_legacy(tmp_path / "ckpt", tiny(), random_hf_tensors(tiny()), Topology(tp=2, pp=2))
    with pytest.raises(
        ReferenceFault,
        match=r"does not say itself: vision_config\.num_heads, vision_config\.deepstack_visual_indexes\n",
    ):
        mcore2hf(tmp_path / "ckpt", tmp_path / "hf")
