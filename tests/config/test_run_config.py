"""run_config.yaml: Megatron-Bridge makes the same provider of it as of the model's config.json."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import megatron_bridge
import pytest
import torch
import yaml
from tiny import tiny_config
from transformers import AutoConfig

from vlconv.converters.config.facts import geometry_facts, runtime_facts
from vlconv.converters.config.megatron_args import contradictions, stated
from vlconv.converters.config.run_config import run_config_yaml
from vlconv.converters.errors import UnsupportedError
from vlconv.converters.models import model_for

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"
RELEASES = sorted(path.stem for path in CONFIGS.iterdir())
KINDS = ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")


def release(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def written(hf: dict[str, Any], dtype: str = "bfloat16") -> bytes:
    return run_config_yaml(hf, model_for(hf).config(hf), dtype)


def built(folder: Path, data: bytes) -> SimpleNamespace:
    (folder / "run_config.yaml").write_bytes(data)
    return megatron_bridge.provider(folder)


@pytest.mark.parametrize("name", megatron_bridge.VALUES)
def test_the_provider_is_megatron_bridges_own(tmp_path: Path, name: str) -> None:
    provider = built(tmp_path, written(release(name)))
    theirs = dict(megatron_bridge.VALUES[name])
    assert provider.activation_func.__name__ == theirs.pop("activation_func")
    assert str(provider.params_dtype) == theirs.pop("params_dtype")
    assert {field: getattr(provider, field, "missing") for field in theirs} == theirs


@pytest.mark.versions
@pytest.mark.parametrize("name", RELEASES)
def test_the_sections_are_transformers_own(tmp_path: Path, name: str) -> None:
    """from_dict of what is written gives what transformers makes of the release's config.json."""
    hf = release(name)
    provider = built(tmp_path, written(hf))
    (tmp_path / "config.json").write_text(json.dumps(hf))
    theirs = AutoConfig.from_pretrained(tmp_path)
    sections = {"vision_config": theirs.vision_config}
    if "text_config" in hf:
        sections["hf_text_config"] = theirs.text_config
    assert {name for name in ("vision_config", "hf_text_config") if hasattr(provider, name)} == sections.keys()
    for place, section in sections.items():
        ours = getattr(provider, place)
        assert type(ours) is type(section)
        assert settled(ours) == settled(section)
        assert ours.to_dict()["dtype"] in ("bfloat16", torch.bfloat16)


def settled(section: Any) -> dict[str, Any]:
    """A section without its dtype and kind, and without the tie, of which transformers 5 has a wrong one there."""
    said = section.to_dict()
    elsewhere = ("dtype", "torch_dtype", "tie_word_embeddings", "model_type", "transformers_version", "_name_or_path")
    return {key: value for key, value in said.items() if key not in elsewhere}


@pytest.mark.parametrize("name", RELEASES)
def test_it_says_what_config_json_says(name: str) -> None:
    """As mcore2hf and verify read it: nothing contradicts the reference, and no fact that they ask for is left out."""
    hf = release(name)
    config = model_for(hf).config(hf)
    facts = geometry_facts(hf, config) | runtime_facts(hf, config)
    section = yaml.safe_load(written(hf))["model"]
    assert contradictions(facts, section) == []
    asked = {name for name, fact in facts.items() if fact.value}
    # Every Qwen-VL has this rope type, and Qwen2.5-VL's releases call the channels in_chans.
    assert asked - stated(section).keys() <= {"rope_type", "vision.channels"}


def test_layers_that_stay_dense(tmp_path: Path) -> None:
    provider = built(tmp_path, written(tiny_config("qwen3_vl_moe", text={"mlp_only_layers": [1, 3]})))
    assert (provider.moe_layer_freq, provider.mlp_only_layers) == ([1, 0, 1, 0], [1, 3])
    assert not hasattr(built(tmp_path, written(tiny_config("qwen3_vl_moe"))), "moe_layer_freq")


@pytest.mark.parametrize(("dtype", "flags"), [("float32", (False, False)), ("float16", (False, True))])
def test_dtypes(tmp_path: Path, dtype: str, flags: tuple[bool, bool]) -> None:
    provider = built(tmp_path, written(tiny_config(), dtype))
    assert (provider.params_dtype, (provider.bf16, provider.fp16)) == (getattr(torch, dtype), flags)
    assert provider.vision_config.to_dict()["dtype"] in (dtype, getattr(torch, dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_for_the_same_model(kind: str) -> None:
    """Also from a config.json that transformers 5 wrote, or that tells where it once lay."""
    hf = tiny_config(kind)
    later = copy.deepcopy(hf)
    text = later.get("text_config", later)
    text["rope_parameters"] = text.pop("rope_scaling") | {"rope_theta": text.pop("rope_theta")}
    if "num_experts" in text:
        text["num_local_experts"] = text.pop("num_experts")
    for section in (later, text, later["vision_config"]):
        section |= {"_name_or_path": "/data/mine", "transformers_version": "5.9.0"}
    assert written(later) == written(dict(reversed(hf.items())))
    assert b"/data" not in written(later)


def test_plain_yaml() -> None:
    """No anchors, no tags, no absolute paths."""
    for name in RELEASES:
        text = written(release(name)).decode()
        assert not {"&", "*", "!"} & set(text)
        assert "/" not in text


def test_another_activation_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"text_config.hidden_act is gelu"):
        written(tiny_config(text={"hidden_act": "gelu"}))


def test_what_would_not_be_read_back_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"a run_config.yaml of 1\.\d+ MB; at most 1.00 MB"):
        written(tiny_config(vision={"more": [1] * 100_000}))
