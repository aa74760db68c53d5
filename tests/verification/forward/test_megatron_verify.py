"""`verify --forward` of a Megatron checkpoint, whole: megatron-core finds a table wrong that every round trip takes for
right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny_text
from mcore.topology import Topology
from references import write_hf, write_reference

from vlconv.converters import Report, VerifyOptions, verify
from vlconv.converters.layouts.shared import decoder_layer
from vlconv.converters.models.shared.config import TextConfig
from vlconv.converters.tensors.rules import Copy, Rows, interleave
from vlconv.converters.tensors.spec import Shape

pytestmark = [pytest.mark.mcore_versions, pytest.mark.slow]

CONFIG = tiny_text("qwen3_moe")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    weights = random_hf_tensors(CONFIG, scale=0.05)
    source = save(tmp_path / "mcore", CONFIG, weights, Topology(tp=2, pp=2), padded=True, args=False)
    write_reference(source / "huggingface", CONFIG)
    write_hf(tmp_path / "hf", CONFIG, weights)
    return source


def keys_and_values_exchanged(c: TextConfig, m: str, h: str, kind: str, tail: Shape) -> Iterator[Copy]:
    """linear_qkv as if it held [q | v | k] for each query group."""
    parts = [
        Rows(f"{h}.q_proj.{kind}", per_group=c.heads // c.groups * c.head_dim),
        Rows(f"{h}.v_proj.{kind}", per_group=c.head_dim),
        Rows(f"{h}.k_proj.{kind}", per_group=c.head_dim),
    ]
    yield from interleave(f"{m}.{kind}", groups=c.groups, tail=tail, parts=parts)


def run(a: Path, b: Path | None = None) -> Report:
    return verify(a, b, VerifyOptions(forward=True))


def by_megatron(report: Report, side: str) -> dict[str, object]:
    found: dict[str, object] = report.data["forward"]["megatron_core"][side]
    return found


def test_a_right_table_is_seen_to_be_right(saved: Path) -> None:
    report = run(saved)
    assert report.status == "same"
    assert by_megatron(report, "A")["verdict"] in ("equal", "noise")


def test_a_wrong_table_is_seen_to_be_wrong(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_layer, "qkv", keys_and_values_exchanged)
    assert verify(saved, None, VerifyOptions()).status == "same"  # a round trip does not see it
    report = run(saved)
    assert report.status == "different"
    assert by_megatron(report, "A")["verdict"] == "different"


def test_beside_a_hugging_face_directory(saved: Path, tmp_path: Path) -> None:
    """megatron-core is held against what its own checkpoint is converted to, whatever B is."""
    report = run(saved, tmp_path / "hf")
    assert report.status == "same"
    assert by_megatron(report, "A")["verdict"] in ("equal", "noise")
