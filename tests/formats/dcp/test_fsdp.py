"""Checkpoints of fully sharded trainers, saved from DTensors on a gloo mesh:
Megatron-FSDP's fsdp_dtensor and plain saves under Hugging Face names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from mcore.save import save
from mcore.sharded import save_fsdp, save_plain
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import differing, read_hf, write_reference

from vlconv.converters import Mcore2HfOptions, Report, mcore2hf
from vlconv.converters.errors import MismatchError, NotACheckpoint, UnsupportedError
from vlconv.converters.models.shared.config import ModelConfig

SAMPLED = 2

pytestmark = pytest.mark.mcore_versions

CONFIGS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "moe": tiny(moe=True),
    "2.5": tiny_2_5(),
    "2.5 tied": tiny_2_5(tied=True),
}


def converted(
    tmp_path: Path, source: Path, config: ModelConfig, **options: Any
) -> tuple[dict[str, torch.Tensor], Report]:
    """Convert with a reference of this config; the tensors read back, and the report."""
    reference = write_reference(tmp_path / "reference", config)
    report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(reference), **options))
    return read_hf(tmp_path / "hf"), report


class TestMegatron:
    @pytest.mark.parametrize(
        ("name", "wrapper"), [("dense", ""), ("tied", "module."), ("moe", "module."), ("2.5", "module.module.")]
    )
    def test_comes_back(self, tmp_path: Path, name: str, wrapper: str) -> None:
        hf = random_hf_tensors(CONFIGS[name], float32=["*norm.weight"])
        source = save_fsdp(tmp_path / "ckpt" / "iter_0000005", CONFIGS[name], hf, wrapper)
        found, report = converted(tmp_path, tmp_path / "ckpt", CONFIGS[name])
        assert differing(found, hf) == []
        assert (report.data["format"], report.data["form"]) == ("fsdp_dtensor", "one key per layer, singleton shards")
        assert report.data["agrees_with"] == ["the checkpoint's args"]
        optimizer = [key for key in dcp.metadata(source).state_dict_metadata if key.startswith("optimizer.")]
        assert len(optimizer) > 3
        assert report.data["ignored"] == {
            "optimizer": len(optimizer),
            "rng_state": 1,
            "common state": 3,  # args, checkpoint_version, iteration
        }
        assert report.warnings == []
        # What makes it what it is: rows cut anywhere, by two tensor-parallel ranks besides, and no file that states a
        # format.
        chunks = (
            dcp.metadata(source)
            .state_dict_metadata[f"model.{wrapper}language_model.decoder.layers.1.self_attention.linear_proj.weight"]
            .chunks
        )
        assert len({tuple(c.offsets) for c in chunks}) == 4 > len({c.sizes[0] for c in chunks}) > 1
        assert sorted(p.name for p in source.iterdir()) == [".metadata", *(f"__{rank}_0.distcp" for rank in range(4))]

    def test_halves_of_what_is_not_gated(self, tmp_path: Path) -> None:
        """Qwen3-VL's vision fc1 is split on every tensor-parallel rank.

        Without their number it cannot be put together, and is not guessed.
        """
        source = save_fsdp(
            tmp_path / "ckpt", tiny(), random_hf_tensors(tiny()), args={"tensor_model_parallel_size": None}
        )
        with pytest.raises(
            UnsupportedError,
            match=r"vision_model\.decoder\.layers\.0\.mlp\.linear_fc1\.(weight|bias).*tensor_model_parallel_size None",
        ):
            converted(tmp_path, source, tiny())


class TestHuggingFaceNames:
    @pytest.mark.parametrize(
        ("name", "prefix", "layout"),
        [
            ("dense", "", "hf"),
            ("dense", "model.", "hf"),
            ("moe", "model.module.", "hf"),
            ("2.5", "model.", "hf-old"),
            ("2.5 tied", "", "hf-old"),
        ],
    )
    def test_comes_back(self, tmp_path: Path, name: str, prefix: str, layout: str) -> None:
        hf = random_hf_tensors(CONFIGS[name])
        found, report = converted(tmp_path, save_plain(tmp_path / "ckpt", hf, prefix), CONFIGS[name])
        assert differing(found, hf) == []
        assert (report.data["format"], report.data["layout"], report.data["form"]) == (
            "dcp",
            layout,
            "one key per layer",
        )
        assert report.told["source"] == f"{tmp_path / 'ckpt'}: torch DCP, one key per layer"
        assert "agrees_with" not in report.data

    def test_new_prefixes_of_qwen2_5(self, tmp_path: Path) -> None:
        config = tiny_2_5()
        hf = random_hf_tensors(config)
        tops = {"model": "model.language_model", "visual": "model.visual"}
        named = {
            ".".join([tops.get(top := name.partition(".")[0], top), name.partition(".")[2]]): t
            for name, t in hf.items()
        }
        found, report = converted(tmp_path, save_plain(tmp_path / "ckpt", named), config)
        assert differing(found, hf) == []
        assert report.data["layout"] == "hf"

    def test_experts_as_transformers_5_has_them(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(moe=True))
        turned = {name: t.transpose(1, 2).contiguous() if ".mlp.experts." in name else t for name, t in hf.items()}
        found, _ = converted(tmp_path, save_plain(tmp_path / "ckpt", turned), tiny(moe=True))
        assert differing(found, hf) == []

    def test_tied_with_a_copy(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(tied=True))
        copy = {**hf, "lm_head.weight": hf["model.language_model.embed_tokens.weight"]}
        found, report = converted(tmp_path, save_plain(tmp_path / "ckpt", copy, "model."), tiny(tied=True))
        assert differing(found, hf) == []
        assert report.warnings == []

    def test_tied_with_a_copy_that_is_none(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny(tied=True))
        other = hf["model.language_model.embed_tokens.weight"].clone()
        other[17, 3] += 2
        source = save_plain(tmp_path / "ckpt", {**hf, "lm_head.weight": other})
        with pytest.raises(
            MismatchError, match=r"lm_head\.weight is no copy of its embedding: 1 of 15872 elements, by at most 2"
        ):
            converted(tmp_path, source, tiny(tied=True))


class TestUnfinished:
    """A torch_dist save writes metadata.json last: without it only names behind `model.` can be another trainer's."""

    def test_is_refused(self, tmp_path: Path) -> None:
        source = save(tmp_path / "ckpt", tiny(), random_hf_tensors(tiny()), Topology(tp=2))
        (source / "metadata.json").unlink()
        with pytest.raises(NotACheckpoint, match=r"metadata\.json is missing") as refused:
            converted(tmp_path, source, tiny())
        assert "interrupted" in refused.value.hint
        assert not (tmp_path / "hf").exists()

    def test_without_dcp_metadata(self, tmp_path: Path) -> None:
        source = save_plain(tmp_path / "ckpt", random_hf_tensors(tiny()))
        (source / ".metadata").unlink()
        with pytest.raises(NotACheckpoint, match=r"\.metadata is missing"):
            converted(tmp_path, source, tiny())


class TestNewestMegatron:
    """Where common.pt is gone, its content is an object among the items."""

    def test_args_are_read(self, tmp_path: Path) -> None:
        hf = random_hf_tensors(tiny())
        source = save(tmp_path / "ckpt", tiny(), hf, Topology(tp=2), padded=True, common="object")
        assert not (source / "common.pt").exists()
        found, report = converted(tmp_path, source, tiny())
        assert differing(found, hf) == []
        assert report.data["agrees_with"] == ["the checkpoint's args"]
        assert report.data["padding_because"] == "the checkpoint's args state vocab_size 248 and padded_vocab_size 256"

    def test_args_are_held_against_the_reference(self, tmp_path: Path) -> None:
        source = save(tmp_path / "ckpt", tiny(), random_hf_tensors(tiny()), Topology(), common="object")
        with pytest.raises(MismatchError, match="ffn_hidden_size"):
            converted(tmp_path, source, tiny(ffn=80))
