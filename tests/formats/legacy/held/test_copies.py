"""A rank's file that was copied over another rank's is found, however it is stored; what is alike by right is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.topology import Topology
from spoiled import MODEL, Saved

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.legacy.cut import Cut
from vlconv.converters.formats.legacy.held.copies import check_copies
from vlconv.converters.formats.legacy.ranks import Rank
from vlconv.converters.formats.legacy.shards import Shard
from vlconv.converters.formats.zips.read import ItemTensor
from vlconv.converters.tensors.sharding import Split
from vlconv.converters.tensors.sharding import Topology as Sizes

SAYS = "hold the same numbers where they should have different parts of the model"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("dense"), Topology(tp=2, pp=2), tied=True)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("stages"), Topology(pp=4))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("moe"), Topology(ep=2), moe=True)


@contextmanager
def without_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


def keep(state: dict[str, Any]) -> None:
    """Save it as it is."""


class TestRefused:
    @pytest.mark.parametrize(
        ("source", "target"),
        [
            ("mp_rank_00_000", "mp_rank_01_000"),
            ("mp_rank_01_000", "mp_rank_00_000"),
            ("mp_rank_00_001", "mp_rank_01_001"),
        ],
    )
    def test_a_tensor_rank(self, tmp_path: Path, dense: Saved, source: str, target: str) -> None:
        given = dense.given(tmp_path)
        given.copy(source, target)
        given.refused(CorruptError, f"{min(source, target)} and {max(source, target)} {SAYS}", "One is a copy")

    def test_a_stage(self, tmp_path: Path, stages: Saved) -> None:
        given = stages.given(tmp_path)
        given.copy("mp_rank_00_001", "mp_rank_00_002")
        given.refused(CorruptError, f"mp_rank_00_001 and mp_rank_00_002 {SAYS}")

    def test_an_expert_rank(self, tmp_path: Path, moe: Saved) -> None:
        """All but the experts is the same by right."""
        given = moe.given(tmp_path)
        given.copy("mp_rank_00_001", "mp_rank_00_000")
        given.refused(CorruptError, f"mp_rank_00_000 and mp_rank_00_001 {SAYS}")

    def test_but_for_what_is_the_same_by_right(self, tmp_path: Path, dense: Saved) -> None:
        """And for what is no weight."""
        given = dense.given(tmp_path)
        given.copy("mp_rank_00_000", "mp_rank_01_000")

        def change(state: dict[str, Any]) -> None:
            state["model"]["language_model.decoder.layers.0.self_attention.q_layernorm.weight"][3] += 1
            state["args"].seed, state["rng_state"] = 5, [torch.ones(3)]

        given.edit("mp_rank_01_000", change)
        given.refused(CorruptError, SAYS)

    def test_without_checksums(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.copy("mp_rank_00_000", "mp_rank_01_000")
        with without_checksums():
            given.edit_all(keep)
        given.refused(CorruptError, f"mp_rank_00_000 and mp_rank_01_000 {SAYS}")

    def test_of_different_checksums(self, tmp_path: Path, dense: Saved) -> None:
        """One file was saved again without them."""
        given = dense.given(tmp_path)
        given.copy("mp_rank_00_000", "mp_rank_01_000")
        with without_checksums():
            given.edit("mp_rank_01_000", keep)
        given.refused(CorruptError, SAYS)

    def test_of_one_flat_buffer(self, tmp_path: Path, dense: Saved) -> None:
        """Whose own checksum says nothing of each tensor; what lies between them differs."""
        given = dense.given(tmp_path)
        given.copy("mp_rank_00_000", "mp_rank_01_000")
        for seed, folder in enumerate(given.folders):
            given.edit(folder, lambda state, seed=seed: flatten(state, seed))
        given.refused(CorruptError, SAYS)


def flatten(state: dict[str, Any], seed: int) -> None:
    """Make all parameters views of one buffer, with noise between them."""
    model = {name: t for name, t in state["model"].items() if torch.is_tensor(t) and t.dtype == torch.bfloat16}
    size, noise = sum(t.numel() + 64 for t in model.values()), torch.Generator().manual_seed(seed)
    buffer, at = torch.randn(size, generator=noise).to(torch.bfloat16), 0
    for name, t in model.items():
        state["model"][name] = buffer[at : at + t.numel()].view(t.shape).copy_(t)
        at += t.numel() + 64


class TestFine:
    def test_flat_buffers(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit_all(lambda state: flatten(state, 1))
        given.comes_back()

    def test_all_equal_but_one(self, tmp_path: Path, dense: Saved) -> None:
        """Zeros wherever nothing was trained, as biases begin: one tensor that differs is enough."""
        given = dense.given(tmp_path)
        kept = "mlp.linear_fc2.weight"

        def zero(state: dict[str, Any]) -> None:
            for name, t in state["model"].items():
                if torch.is_tensor(t) and not name.endswith(kept):
                    t.zero_()

        given.edit_all(zero)
        given.convert()

    def test_all_equal(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit_all(lambda state: [t.zero_() for t in state["model"].values() if torch.is_tensor(t)])
        given.refused(CorruptError, SAYS)

    @pytest.mark.parametrize("sums", [True, False])
    def test_experts_made_of_one(self, tmp_path: Path, moe: Saved, sums: bool) -> None:
        """Sparse upcycling: every expert begins as the dense model's MLP, so expert ranks hold the same."""
        given = moe.given(tmp_path)

        def upcycle(state: dict[str, Any]) -> None:
            for name, t in state["model"].items():
                if ".experts." in name and torch.is_tensor(t) and t.numel():
                    torch.manual_seed(3)
                    t.copy_(torch.randn(t.shape))

        with torch.random.fork_rng():
            if sums:
                given.edit_all(upcycle)
            else:
                with without_checksums():
                    given.edit_all(upcycle)
        given.convert()


def shards_of(sizes: Sizes, layers: int, experts: int) -> tuple[dict[str, list[Shard]], dict[str, Split]]:
    """What the ranks of a large model hold: qkv and a norm of each layer, and its experts. No file is there: whatever
    would be read is an error.
    """
    shards: dict[str, list[Shard]] = {}
    splits: dict[str, Split] = {}
    for stage in range(sizes.pp):
        for tp, ep in sizes.ranks():
            rank = Rank(tp, stage, ep)
            path = f"/nowhere/mp_rank_{tp:02d}_{stage:03d}_{ep:03d}/{MODEL}"

            def add(name: str, local: str, split: Split, crc: object, nbytes: int, expert: int | None = None) -> None:
                splits[name] = split
                tensor = ItemTensor("bfloat16", (nbytes // 2,), 0, nbytes, hash(crc) % (1 << 32) or 1)
                shards.setdefault(name, []).append(Shard(rank, path, (0, local), tensor, expert))  # noqa: B023

            for local in range(layers // sizes.pp):
                layer = stage * (layers // sizes.pp) + local
                add(f"{layer}.qkv", f"{local}.qkv", Split(axis=0), (layer, tp), 1 << 20)
                add(f"{layer}.norm", f"{local}.norm", Split(), 1, 1 << 10)
                for e in range(experts // sizes.ep):
                    number = ep * (experts // sizes.ep) + e
                    what = (layer, tp, number)
                    add(f"{layer}.fc1", f"{local}.fc1.{e}", Split(axis=0, expert=True), what, 1 << 16, number)
    return shards, splits


@pytest.mark.parametrize(
    ("sizes", "layers", "experts"),
    [
        (Sizes(tp=8, pp=16, ep=4, etp=8), 96, 64),
        (Sizes(tp=8, ep=64, etp=8), 94, 128),
        (Sizes(tp=8, ep=64, etp=8), 60, 0),
    ],
)
def test_512_ranks(sizes: Sizes, layers: int, experts: int) -> None:
    """Without reading a byte, in a second or two; comparing all pairs of ranks takes minutes."""
    shards, splits = shards_of(sizes, layers, experts)
    begin = time.process_time()
    check_copies(shards, splits, Cut(sizes, sizes.tp))
    assert time.process_time() - begin < 4
    assert len({shard.path for listed in shards.values() for shard in listed}) == 512


def test_one_copy_among_512_ranks() -> None:
    sizes = Sizes(tp=8, pp=16, ep=4, etp=8)
    shards, splits = shards_of(sizes, 32, 8)
    original = {s.key: s.tensor for listed in shards.values() for s in listed if s.rank == Rank(3, 5, 2)}
    for name, listed in shards.items():
        shards[name] = [s._replace(tensor=original[s.key]) if s.rank == Rank(7, 9, 1) else s for s in listed]
    with pytest.raises(CorruptError, match=f"mp_rank_03_005_002 and mp_rank_07_009_001 {SAYS}"):
        check_copies(shards, splits, Cut(sizes, sizes.tp))


def test_what_differs_by_right_and_what_does_not() -> None:
    """Three ranks hold the same where it is cut. Of two in one stage the norms should be the same and are not, which
    is another matter; those of the first differ, as they should.
    """
    sizes = Sizes(tp=2, pp=2)
    shards, splits = shards_of(sizes, 2, 0)
    norms = {Rank(0, 0, 0): 11, Rank(1, 0, 0): 11, Rank(0, 1, 0): 22, Rank(1, 1, 0): 33}
    for name, listed in shards.items():
        shards[name] = [
            s._replace(tensor=s.tensor._replace(crc=norms[s.rank] if "norm" in name else 5 + (s.rank == Rank(1, 0, 0))))
            for s in listed
        ]
    with pytest.raises(CorruptError, match=f"^mp_rank_00_001_000 and mp_rank_01_001_000 {SAYS}"):
        check_copies(shards, splits, Cut(sizes, sizes.tp))


def test_each_pair_by_itself() -> None:
    """Of two norms, one stage's first rank has the other stage's first, its second rank the other stage's second: no
    two ranks have both.
    """
    sizes = Sizes(tp=2, pp=2)
    shards, splits = shards_of(sizes, 4, 0)
    crcs = {(0, 0): (11, 44), (1, 0): (11, 44), (0, 1): (11, 55), (1, 1): (22, 44)}
    norms = {
        name: [s._replace(tensor=s.tensor._replace(crc=crcs[s.rank.tp, s.rank.pp][int(s.key[1][0])])) for s in listed]
        for name, listed in shards.items()
        if "norm" in name
    }
    check_copies(norms, {name: splits[name] for name in norms}, Cut(sizes, sizes.tp))
