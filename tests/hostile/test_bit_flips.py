"""One flipped bit at random places of every format that stores sums: refused, or the good output; never
another model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.bases import Bases, expected_hf, found_hf
from hostile.files import flip
from hostile.running import Corpus
from vlconv.converters import Mcore2HfOptions, VlconvError, mcore2hf

SAMPLED = 2

DATA = {
    "object": "iter_0000010/*.distcp",  # torch_dist without an optimizer
    "moe": "iter_0000010/*.distcp",
    "fsdp": "iter_0000005/*.distcp",
    "plain": "ckpt/*.distcp",
    "legacy": "release/*/model_optim_rng.pt",
}
"""Where the tensors of each format are."""

HEADS = {
    "dist": ("iter_0000010/.metadata", "iter_0000010/common.pt", "iter_0000010/metadata.json"),
    "fsdp": ("iter_0000005/.metadata",),
    "plain": ("ckpt/.metadata",),
}
"""What is not tensors, and may hold no sums."""

FAST, ALL = 12, 300


class Flipped:
    """One copy of a base, damaged and healed again and again."""

    def __init__(self, bases: Bases, base: str, folder: Path) -> None:
        self.base, self.source, self.out = base, folder / "source", folder / "out"
        shutil.copytree(bases.of(base), self.source)
        self.good = expected_hf(base)

    def outcome(self, path: Path, at: int, bit: int) -> str:
        """refused, equal, or silent with a bit of a file flipped."""
        flip(path, at, bit)
        try:
            return self.converted()
        finally:
            flip(path, at, bit)

    def converted(self) -> str:
        shutil.rmtree(self.out, ignore_errors=True)
        try:
            mcore2hf(self.source, self.out, Mcore2HfOptions(threads=1))
        except VlconvError:
            return "refused" if not self.out.exists() else "left"
        return "equal" if found_hf(self.out) == self.good else "silent"


@pytest.fixture
def flipped(request: pytest.FixtureRequest, corpus: Corpus, tmp_path: Path) -> Iterator[Flipped]:
    yield Flipped(corpus.bases, request.param, tmp_path)
    shutil.rmtree(tmp_path)


def places(files: list[Path], count: int, seed: str) -> Iterator[tuple[Path, int, int]]:
    """Random bits, every byte of all files alike."""
    rng = random.Random(seed)
    sizes = [path.stat().st_size for path in files]
    for _ in range(count):
        path = rng.choices(files, sizes)[0]
        yield path, rng.randrange(path.stat().st_size), rng.randrange(8)


def share(count: int, few: int) -> pytest.MarkDecorator:
    counts = [pytest.param(few, id=str(few)), pytest.param(count, id=str(count), marks=pytest.mark.slow)]
    return pytest.mark.parametrize("count", counts)


@share(ALL, FAST)
@pytest.mark.parametrize(
    "flipped", [pytest.param(b, marks=[pytest.mark.slow] * (b == "moe")) for b in DATA], indirect=True
)
def test_in_tensors(flipped: Flipped, count: int) -> None:
    """Most bytes are weights; of an optimizer's, which nobody reads, the output is the good one."""
    files = sorted(flipped.source.glob(DATA[flipped.base]))
    found = {(p.name, at, bit): flipped.outcome(p, at, bit) for p, at, bit in places(files, count, flipped.base)}
    assert [place for place, outcome in found.items() if outcome not in ("refused", "equal")] == []
    assert list(found.values()).count("refused") > count // 10  # or these were no tensors
    assert flipped.converted() == "equal"  # healed


@share(ALL, 12)
@pytest.mark.parametrize("flipped", HEADS, indirect=True)
def test_in_tables(flipped: Flipped, count: int) -> None:
    files = [flipped.source / name for name in HEADS[flipped.base]]
    found = {
        (path.name, at, bit): flipped.outcome(path, at, bit)
        for path in files
        for _, at, bit in places([path], count // len(files), f"{flipped.base} {path.name}")
    }
    assert [place for place, outcome in found.items() if outcome not in ("refused", "equal")] == []
    assert flipped.converted() == "equal"


def test_a_silent_flip_would_be_seen(corpus: Corpus, tmp_path: Path) -> None:
    """Where sums are none: torch was told not to compute them."""
    import torch

    from hostile.files import MODEL, edit_legacy

    flipped = Flipped(corpus.bases, "legacy", tmp_path)
    path = flipped.source / "release" / "mp_rank_01_000" / MODEL
    torch.serialization.set_crc32_options(False)
    try:
        edit_legacy(path, lambda state: None)
    finally:
        torch.serialization.set_crc32_options(True)
    rows = torch.load(path, weights_only=False)["model"]["language_model.embedding.word_embeddings.weight"]
    at = path.read_bytes().index(rows[7].view(torch.uint8).numpy().tobytes())
    assert flipped.outcome(path, at, 2) == "silent"
