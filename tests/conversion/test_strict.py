"""NaN, infinity and ranks that disagree: counted and named, and refused with --strict."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import write_reference
from tiny import tiny_config, tiny_shapes, tiny_weights, write_side_files, write_tiny_hf, write_weights

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError, MismatchError
from vlconv.converters.tensors.nonfinite import BLOCK, Specials

SAMPLED = 2

NAN, INF = float("nan"), float("inf")
DTYPES = ("bfloat16", "float16", "float32", "float64")


def looked(tensor: torch.Tensor) -> dict[str, Any]:
    specials = Specials()
    specials.look("x", str(tensor.dtype).removeprefix("torch."), memoryview(tensor.view(torch.uint8).numpy()))
    return specials.found


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_special_number_is_seen_and_no_other(dtype: str) -> None:
    kind = getattr(torch, dtype)
    limits = torch.finfo(kind)
    plain = torch.tensor(
        [0.0, -0.0, limits.max, limits.min, limits.tiny, -limits.tiny, limits.smallest_normal / 2, 1, -1], dtype=kind
    )
    assert looked(plain) == {}
    for value, count in ((NAN, (1, 0)), (-NAN, (1, 0)), (INF, (0, 1)), (-INF, (0, 1))):
        assert looked(torch.cat([plain, torch.tensor([value], dtype=kind), plain])) == {"x": count}
    assert looked(torch.empty(0, dtype=kind)) == {}


def test_every_pattern_of_16_bits() -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        for pattern in bits.view(dtype).split(1):
            assert bool(looked(pattern.clone())) is not bool(pattern.isfinite())
        assert looked(bits.view(dtype)) == {"x": (int(bits.view(dtype).isnan().sum()), 2)}


def test_in_any_block_and_from_many_threads() -> None:
    numbers = torch.zeros(3 * BLOCK // 4 + 5)
    numbers[[0, BLOCK // 4 - 1, BLOCK // 4, -1]] = NAN
    specials = Specials()
    threads = [
        threading.Thread(target=specials.look, args=("x", "float32", memoryview(numbers.view(torch.uint8).numpy())))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert specials.found == {"x": (32, 0)}


def test_the_sentence_names_the_worst_and_counts_the_rest() -> None:
    specials = Specials()
    for number in range(1, 9):
        specials.look(
            f"layer.{number}\x1b", "float32", memoryview(torch.full((number,), NAN).view(torch.uint8).numpy())
        )
    specials.look("layer.8\x1b", "float32", memoryview(torch.tensor([INF, -INF]).view(torch.uint8).numpy()))
    assert str(specials).startswith("layer.8\\x1b has 8 NaN and 2 infinite; layer.7\\x1b has 7 NaN; ")
    assert str(specials).endswith("; and 3 more tensors")


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    """A Hugging Face directory with special numbers in two tensors."""
    config = tiny_config()
    write_tiny_hf(tmp_path / "hf", config)
    tensors = tiny_weights(tiny_shapes(config))
    tensors["model.language_model.layers.1.mlp.up_proj.weight"][3, 5:7] = NAN
    tensors["model.language_model.layers.1.mlp.up_proj.weight"][0, 0] = -INF
    tensors["model.visual.merger.norm.bias"][0] = INF
    write_weights(tmp_path / "hf", tensors)
    write_side_files(tmp_path / "hf", config)
    return tmp_path


FOUND_MCORE = {
    "language_model.decoder.layers.1.mlp.linear_fc1.weight": {"nan": 2, "infinite": 1},
    "vision_model.merger.patch_norm.bias": {"nan": 0, "infinite": 1},
}
FOUND_HF = {
    "model.language_model.layers.1.mlp.up_proj.weight": {"nan": 2, "infinite": 1},
    "model.visual.merger.norm.bias": {"nan": 0, "infinite": 1},
}


def test_counted_in_both_directions(sick: Path) -> None:
    there = hf2mcore(sick / "hf", sick / "mcore")
    back = mcore2hf(sick / "mcore", sick / "back")
    assert there.data["special_numbers"] == FOUND_MCORE
    assert back.data["special_numbers"] == FOUND_HF
    for report in (there, back):
        assert [
            w for w in report.warnings if w.startswith("not all weights are numbers: ") and "2 NaN and 1 infinite" in w
        ]
        assert "numbers" not in report.told


def test_strict_refuses_and_leaves_nothing(sick: Path) -> None:
    hf2mcore(sick / "hf", sick / "mcore")
    before = sorted(sick.iterdir())
    with pytest.raises(
        CorruptError, match=r"up_proj.weight has 2 NaN and 1 infinite; model.visual.merger.norm.bias has 1 infinite"
    ):
        mcore2hf(sick / "mcore", sick / "back", Mcore2HfOptions(strict=True))
    with pytest.raises(CorruptError, match=r"linear_fc1.weight has 2 NaN"):
        hf2mcore(sick / "hf", sick / "other", Hf2McoreOptions(strict=True))
    assert sorted(sick.iterdir()) == before


def test_strict_is_content_with_numbers(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf")
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(strict=True))
    assert report.data["special_numbers"] == {}
    assert report.told["numbers"] == "no NaN, no infinity"
    assert mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(strict=True)).status == "done"


def test_padding_rows_are_nobodys_numbers(tmp_path: Path) -> None:
    """A trainer never reads them; they are cut before anything is counted."""
    config = tiny()
    hf = random_hf_tensors(config)
    checkpoint = save_legacy(tmp_path / "ckpt", config, hf, Topology(), padded=True)
    alter(checkpoint / "mp_rank_00", "language_model.output_layer.weight", slice(250, 256), NAN)
    report = mcore2hf(
        checkpoint,
        tmp_path / "out",
        Mcore2HfOptions(reference=str(write_reference(tmp_path / "reference", config)), strict=True),
    )
    assert report.data["special_numbers"] == {}


def test_ranks_that_disagree(tmp_path: Path) -> None:
    config = tiny()
    checkpoint = save_legacy(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(tp=2))
    options = {"reference": str(write_reference(tmp_path / "reference", config))}
    alter(checkpoint / "mp_rank_01", "language_model.decoder.final_layernorm.weight", 3, 100.0)
    report = mcore2hf(checkpoint, tmp_path / "out", Mcore2HfOptions(**options))
    assert len(report.warnings) == 1
    assert (
        "final_layernorm.weight differs between mp_rank_00 (taken) and mp_rank_01: 1 of 64 elements"
        in report.warnings[0]
    )
    for dry_run in (False, True):
        with pytest.raises(MismatchError, match=r"ranks disagree:\n.*final_layernorm.weight differs"):
            mcore2hf(checkpoint, tmp_path / "strict", Mcore2HfOptions(**options, strict=True, dry_run=dry_run))
    assert not (tmp_path / "strict").exists()


def alter(rank: Path, name: str, at: Any, value: float) -> None:
    """Change some elements of one tensor in a rank's file."""
    path = rank / "model_optim_rng.pt"
    saved = torch.load(path, weights_only=False)
    name = next(
        n for n in saved["model"] if n.endswith(name.removeprefix("language_model.")) and not n.startswith("vision")
    )
    saved["model"][name][at] = value
    torch.save(saved, path)
