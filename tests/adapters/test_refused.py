"""Adapters that are not merged: by what lies beside them, by whom they fit, by how they are saved."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lora import names
from lora.making import RANK, Made, make, merged
from lora.saved import base, with_reference, written
from references import differing, read_hf
from trainers.saving import save

from vlconv.converters import (
    Mcore2McoreOptions,
    MismatchError,
    OptionError,
    UnsupportedError,
    VlconvError,
    mcore2hf,
    mcore2mcore,
)

ALPHA = 6


@pytest.fixture(scope="module")
def made() -> Made:
    return make("qwen3", "megatron-lm")


def refused(tmp_path: Path, made: Made, tensors: dict[str, torch.Tensor], kind: type[VlconvError], **more: Any) -> str:
    adapter = written(tmp_path / "adapter", made, tensors)
    with pytest.raises(kind) as caught:
        mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), **({"lora_alpha": ALPHA} | more))
    assert not (tmp_path / "out").exists() and type(caught.value) is kind
    return caught.value.what


STATED = [
    ("run_config.yaml", {"_target_": "megatron.bridge.peft.dora.DoRA", "alpha": ALPHA}, "DoRA"),
    ("args.json", {"use_dora": True}, "DoRA"),
    ("run_config.yaml", {"_target_": "megatron.bridge.peft.ia3.IA3"}, "is a ia3, which is no LoRA"),
    ("args.json", {"modules_to_save": ["lm_head"]}, "trained whole"),
    ("args.json", {"alpha_pattern": {"q_proj": 8}}, "single modules a rank or an alpha of their own"),
    ("args.json", {"init_weights": "pissa_niter_4"}, "began as pissa_niter_4"),
    ("args.json", {"init_lora_weights": "olora"}, "began as olora"),
]


@pytest.mark.parametrize(("file", "said", "what"), STATED)
def test_by_what_is_stated(tmp_path: Path, made: Made, file: str, said: dict[str, Any], what: str) -> None:
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    text = yaml.safe_dump({"peft": said}) if file.endswith("yaml") else json.dumps(said)
    (adapter / "iter_0000007" / file).write_text(text)
    with pytest.raises(UnsupportedError, match=what):
        mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA)


def test_what_changed_its_base_goes_into_that_base(tmp_path: Path, made: Made) -> None:
    """PiSSA beside the base that it left."""
    both = with_reference(written(tmp_path / "both", made, names.bridge(made) | made.base), made)
    (both / "args.json").write_text(json.dumps({"init_weights": "pissa", "lora_alpha": ALPHA}))
    mcore2hf(both, tmp_path / "out")
    assert differing(read_hf(tmp_path / "out"), merged(made, ALPHA / RANK)) == []


def test_modules_that_the_base_has_not(tmp_path: Path, made: Made) -> None:
    other = {name.replace("layers.3.", "layers.4."): t for name, t in names.bridge(made).items()}
    adapter = save(tmp_path / "adapter", other)
    with pytest.raises(UnsupportedError, match="no trainer's qwen3 has all of these modules"):
        mcore2hf(adapter, tmp_path / "out", base=base(tmp_path / "base", made), lora_alpha=ALPHA)
    with pytest.raises(MismatchError, match=r"changes decoder\.layers\.4\.\S+, and this qwen3 has no such module"):
        mcore2hf(adapter, tmp_path / "out", base=tmp_path / "base", lora_alpha=ALPHA, layout="megatron-lm")


def test_shapes_that_the_base_has_not(tmp_path: Path, made: Made) -> None:
    wrong = {name: t[:-1] if name.endswith("linear_out.weight") else t for name, t in names.bridge(made).items()}
    assert "are no adapter of" in refused(tmp_path, made, wrong, MismatchError)


def test_a_convolution(tmp_path: Path) -> None:
    made = make("qwen3_vl", "ms-swift", lambda module: module.endswith("layers.0.mlp.linear_fc2"))
    proj = "visual.visual.patch_embed.proj"
    tensors = {f"{proj}.lora_A.default.weight": torch.zeros(4, 96), f"{proj}.lora_B.default.weight": torch.zeros(32, 4)}
    what = refused(tmp_path, made, names.swift(made) | tensors, UnsupportedError)
    assert what == f"{proj} has an adapter, and its weight is no matrix"


def test_rows_that_trainers_keep_in_different_orders(tmp_path: Path) -> None:
    """ms-swift trains text-only hybrid models with two kinds of modules, whose attention has the same names."""
    made = make("qwen3_next", "megatron-lm", lambda module: module.endswith("linear_qkv"))
    what = refused(tmp_path, made, names.swift(made), UnsupportedError)
    assert "in different orders, under the same names" in what
    mcore2hf(tmp_path / "adapter", tmp_path / "out", base=tmp_path / "base", lora_alpha=ALPHA, layout="megatron-lm")
    assert differing(read_hf(tmp_path / "out"), merged(made, ALPHA / RANK)) == []


def test_a_base_that_is_not_asked_for(tmp_path: Path, made: Made) -> None:
    both = with_reference(written(tmp_path / "both", made, names.bridge(made) | made.base, alpha=ALPHA), made)
    with pytest.raises(MismatchError, match="holds a model, and no adapter alone"):
        mcore2hf(both, tmp_path / "out", base=tmp_path / "both" / "huggingface")


def test_alone_without_a_base(tmp_path: Path, made: Made) -> None:
    adapter = written(tmp_path / "adapter", made, names.bridge(made))
    with pytest.raises(UnsupportedError, match=r"an adapter \(LoRA\) alone") as caught:
        mcore2hf(adapter, tmp_path / "out", lora_alpha=ALPHA)
    assert "--base" in caught.value.hint


@pytest.mark.parametrize("given", [{"carry": "model."}, {"mtp": "carry"}, {"reference": "elsewhere"}])
def test_what_a_hugging_face_base_has_itself(tmp_path: Path, made: Made, given: dict[str, str]) -> None:
    assert "the base is a Hugging Face directory" in refused(tmp_path, made, names.bridge(made), OptionError, **given)


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), float("nan"), True, "16"])
def test_an_alpha_that_cannot_be(alpha: Any) -> None:
    with pytest.raises(OptionError, match=r"--lora-alpha .* is no number above 0"):
        mcore2hf("adapter", "out", lora_alpha=alpha)


def test_rank_files(tmp_path: Path, made: Made) -> None:
    """Format torch, of a single rank."""
    folder = tmp_path / "both" / "iter_0000007" / "mp_rank_00"
    folder.mkdir(parents=True)
    state = {"model": names.bridge(made) | made.base, "args": argparse.Namespace(tensor_model_parallel_size=1)}
    torch.save(state | {"iteration": 7, "checkpoint_version": 3.0}, folder / "model_optim_rng.pt")
    base(tmp_path / "both" / "huggingface", made)
    with pytest.raises(UnsupportedError, match="in format torch; adapters are read from torch_dist"):
        mcore2hf(tmp_path / "both", tmp_path / "out", lora_alpha=ALPHA)


def test_mcore2mcore_merges_too(tmp_path: Path, made: Made) -> None:
    both = with_reference(written(tmp_path / "both", made, names.bridge(made) | made.base, alpha=ALPHA), made)
    report = mcore2mcore(both, tmp_path / "merged", Mcore2McoreOptions())
    assert report.data["merged"]["changed"] > 10_000 and "adapter" in report.told
    mcore2hf(tmp_path / "merged", tmp_path / "out")
    assert differing(read_hf(tmp_path / "out"), merged(made, ALPHA / RANK)) == []
