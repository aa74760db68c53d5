"""Adapters that tensor-parallel ranks saved: megatron-core writes what each has, and all sizes give the same model."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora import canonical, saving
from lora.making import RANK, Made, make, merged
from lora.saving import Shard, save
from mcore import ranks as mcore_ranks
from references import differing, read_hf
from tiny import write_tiny_hf

from vlconv.converters import UnsupportedError, mcore2hf

SAMPLED = 2

ALPHA = 6
RANKS = mcore_ranks.run  # that megatron-core is imported while other tests run: see conftest.py


def saved(root: Path, made: Made, ranks: int, family: str) -> Path:
    of = saving.of_bridge if family == "bridge" else saving.of_swift
    return save(root, [of(made, rank, ranks) for rank in range(ranks)])


def convert(tmp_path: Path, made: Made, adapter: Path) -> list[str]:
    """Names of tensors that are not what they have to be."""
    write_tiny_hf(tmp_path / "base", made.config, tensors=made.hf)
    mcore2hf(adapter, tmp_path / "out", base=tmp_path / "base", lora_alpha=ALPHA)
    return differing(read_hf(tmp_path / "out"), merged(made, ALPHA / RANK))


CASES = [
    ("qwen3", "megatron-lm", "bridge", 2),
    ("qwen3", "megatron-lm", "swift", 2),
    ("qwen3", "megatron-lm", "swift", 4),
    ("qwen3_vl", "mbridge", "bridge", 2),
    ("qwen3_5", "mbridge", "bridge", 2),
    ("qwen3_5", "ms-swift-gdn", "swift", 2),
]


@pytest.mark.parametrize(("kind", "name", "family", "ranks"), CASES)
def test_at_any_size(tmp_path: Path, kind: str, name: str, family: str, ranks: int) -> None:
    made = make(kind, name, lambda module: "visual" not in module)
    assert convert(tmp_path, made, saved(tmp_path / "adapter", made, ranks, family)) == []


def test_a_later_saver_leaves_what_is_not_gated_alone(tmp_path: Path) -> None:
    """Of a vision tower's linear_fc1: no factory sees it any more."""
    made = make("qwen3_vl", "mbridge", lambda module: "vision_model" in module)
    by_rank = [[s._replace(halved=False) for s in saving.of_bridge(made, rank, 4)] for rank in range(4)]
    assert convert(tmp_path, made, save(tmp_path / "adapter", by_rank)) == []


@pytest.mark.parametrize(("kind", "name"), [("qwen3", "megatron-lm"), ("qwen3_vl", "mbridge")])
@pytest.mark.parametrize("ranks", [1, 2])
def test_adapters_of_parts(tmp_path: Path, kind: str, name: str, ranks: int) -> None:
    """CanonicalLoRA: q, k, v and gate, up apart; each of the latter two in halves, rank by rank."""
    made = make(kind, name)
    parts = canonical.parts_of(made)
    adapter = save(tmp_path / "adapter", [canonical.shards(made, parts, rank, ranks) for rank in range(ranks)])
    write_tiny_hf(tmp_path / "base", made.config, tensors=made.hf)
    mcore2hf(adapter, tmp_path / "out", base=tmp_path / "base", lora_alpha=ALPHA)
    assert differing(read_hf(tmp_path / "out"), canonical.merged(made, parts, ALPHA / RANK)) == []


class TestTheSizeDoesNotShow:
    """Then it is refused: the rows would be in a wrong order, and every tensor of its right shape."""

    def refused(self, tmp_path: Path, made: Made, shards: list[list[Shard]]) -> str:
        with pytest.raises(UnsupportedError, match="depends on the tensor parallel size") as caught:
            convert(tmp_path, made, save(tmp_path / "adapter", shards))
        assert not (tmp_path / "out").exists() and "tensor parallel size 1" in caught.value.hint
        return caught.value.what

    def test_no_other_tensor_shows_it(self, tmp_path: Path) -> None:
        made = make("qwen3", "megatron-lm", lambda module: module.endswith("linear_fc1"))
        what = self.refused(tmp_path, made, [saving.of_swift(made, rank, 2) for rank in range(2)])
        assert "it lies in 2 chunks, and other tensors and the checkpoint's own words say nothing" in what
        (tmp_path / "args.json").write_text('{"tensor_model_parallel_size": 2}')
        assert convert(tmp_path, made, tmp_path / "adapter") == []

    def test_a_row_parallel_layer_shows_it(self, tmp_path: Path) -> None:
        made = make("qwen3", "megatron-lm", lambda module: module.endswith(("linear_fc1", "linear_fc2")))
        assert convert(tmp_path, made, saved(tmp_path / "adapter", made, 2, "swift")) == []

    def test_the_checkpoint_states_another(self, tmp_path: Path) -> None:
        made = make("qwen3", "megatron-lm")
        (tmp_path / "args.json").write_text('{"tensor_model_parallel_size": 1}')
        what = self.refused(tmp_path, made, [saving.of_swift(made, rank, 2) for rank in range(2)])
        assert "words say 1 and 2" in what

    def test_chunks_that_no_rank_has(self, tmp_path: Path) -> None:
        made = make("qwen3_5", "mbridge", lambda module: module.endswith(("in_proj", "linear_proj")))
        by_rank = [saving.of_bridge(made, rank, 2) for rank in range(2)]
        end = "in_proj.adapter.linear_out.weight"
        cut = [[s._replace(halved=s.key.endswith(end)) for s in shards] for shards in by_rank]
        assert "it lies in 4 chunks" in self.refused(tmp_path, made, cut)
