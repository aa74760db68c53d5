"""The files of a run: made where there is room, of finite numbers, in as many chunks as told; and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench import checkout, geometry, making
from bench.chunked import parts
from bench.scratch import NoRoom, scratch


def test_no_room(tmp_path: Path) -> None:
    need = shutil.disk_usage(tmp_path).free + (10 << 30)
    with pytest.raises(NoRoom, match=f"{need / 1e9:.1f} GB are needed"), scratch(tmp_path, need):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_is_left(tmp_path: Path, ending: type[BaseException]) -> None:
    with pytest.raises(ending), scratch(tmp_path, 1) as work:
        (work / "folder").mkdir()
        (work / "folder" / "file").write_bytes(b"x")
        raise ending
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--work", str(tmp_path), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=checkout.TESTS, stdout=subprocess.DEVNULL) as running:
        try:
            until = time.monotonic() + 60
            while not list(tmp_path.glob("*/model/mcore")) and time.monotonic() < until:
                time.sleep(0.02)
            assert list(tmp_path.glob("*/model/mcore"))
            os.kill(running.pid, number)
            assert running.wait(30) == code
        finally:
            running.kill()
    assert list(tmp_path.iterdir()) == []


def test_weights_are_finite_and_not_alike(tmp_path: Path) -> None:
    making.make_hf(tmp_path / "hf", geometry.tiny(2))
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    assert set(tensors) == set(geometry.specs(geometry.tiny(2)))
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    one, other = (tensors[f"model.language_model.layers.{i}.mlp.up_proj.weight"] for i in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "shape", "cut"),
    [
        ("decoder.layers.mlp.experts.experts.linear_fc1.weight", (94, 128, 32, 64), [1, 128, 16, 1]),
        ("decoder.layers.mlp.experts.experts.linear_fc2.weight", (94, 128, 64, 16), [1, 128, 1, 8]),
        ("decoder.layers.self_attention.linear_qkv.weight", (94, 192, 64), [1, 8, 1]),
        ("decoder.layers.self_attention.linear_proj.weight", (94, 64, 128), [1, 1, 8]),
        ("decoder.layers.self_attention.linear_qkv.layer_norm_weight", (94, 64), [1, 1]),
        ("embedding.word_embeddings.weight", (1001, 64), [1, 1]),
    ],
)
def test_chunks_of_eight_ranks(name: str, shape: tuple[int, ...], cut: list[int]) -> None:
    """The two of experts alone make 94 x 128 x (16 + 8) = 288,768."""
    assert parts(f"language_model.{name}", shape, 8) == cut
