"""A config made without a reference, key by key against the config.json of each official release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.config.from_facts import config_from_facts
from vlconv.converters.config.hf_config import config_to_write
from vlconv.converters.config.made_config import made_config, release_runtime
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS, RELEASES, Release
from vlconv.converters.tensors.rules import table

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"

OURS_ALONE = {
    "dtype": "the new name of torch_dtype, or one more place for it: transformers 5 reads the top level",
    "vision_config.in_channels": "read by transformers, which drops the in_chans that the releases of Qwen2.5-VL state",
    "text_config.tie_word_embeddings": "transformers 4.57 reads the tie here; the MoE releases leave it out",
}
"""What a made config has and a release's has not, each with its reason."""

WITH_FIXTURE = [r for r in RELEASES if (CONFIGS / f"{r.name}.json").exists()]

each_release = pytest.mark.parametrize("release", WITH_FIXTURE, ids=lambda r: r.name)


def flat(document: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return found


def made(release: Release) -> dict[str, Any]:
    """As mcore2hf writes it, from the shapes of a checkpoint alone."""
    layout = LAYOUTS[MODELS[release.config.model_type].default_layout]
    shapes = table(layout.rules(release.config, release.config.text.vocab)).left()
    disputed = [] if release.rms_norm_eps else [("args", {"norm_epsilon": 1e-6})]
    found = config_from_facts(shapes, disputed, tower=layout.tower).hf_config
    model = MODELS[release.config.model_type]
    return config_to_write(found, model, tied=release.config.text.tied, dtype="bfloat16")


def official(release: Release) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONFIGS / f"{release.name}.json").read_text())
    return document


def test_every_fixture_is_a_releases():
    """No public copy of the other releases' config.json is at hand."""
    assert {r.name for r in WITH_FIXTURE} == {path.stem for path in CONFIGS.glob("*.json")}
    assert {r.name for r in RELEASES if "-VL-" in r.name} <= {r.name for r in WITH_FIXTURE}


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)
def test_a_made_config_is_written_as_it_is(release):
    """What config_to_write makes of it says the same; a release's own fields are where transformers looks."""
    model = MODELS[release.config.model_type]
    runtime = {"rms_norm_eps": 1e-6, "rope_theta": 1000000, **release_runtime(release)}
    config = made_config(release.config, runtime, release=release)
    assert config_to_write(config, model, tied=release.config.text.tied, dtype="bfloat16") == config
    text = config.get("text_config", config)
    assert ("vision_config" in config) == bool(release.config.vision)
    assert ("text_config" in config) == (not model.traits.flat_config)
    rope = text.get("rope_parameters", text)
    assert ("rope_parameters" in text) == release.name.startswith(("Qwen3.5", "Qwen3.8"))
    assert rope["rope_theta"] == (runtime["rope_theta"])
    hybrid = release.name.startswith(("Qwen3.5", "Qwen3.8", "Qwen3-Next"))
    assert rope.get("partial_rotary_factor") == (0.25 if hybrid else None)
    assert text.get("full_attention_interval") == (4 if hybrid else None)
    assert text.get("layer_types", []).count("full_attention") == (release.config.text.layers // 4 if hybrid else 0)
    sparse = release.name in ("Qwen3-VL-30B-A3B", "Qwen3-VL-235B-A22B", "Qwen3-30B-A3B", "Qwen3-235B-A22B")
    assert ("mlp_only_layers" in text) == (sparse or "Next" in release.name)


@each_release
def test_a_made_config_is_the_official_one_key_by_key(release):
    ours, theirs = flat(made(release)), flat(official(release))
    assert {key: ours.get(key) for key in theirs} == theirs
    assert ours.keys() - theirs.keys() <= OURS_ALONE.keys()


@each_release
def test_no_exception_is_idle_and_what_servers_read_is_there(release):
    """vLLM and SGLang read these two where transformers has other ways."""
    ours = made(release)
    if "text_config" in ours:
        assert ours["text_config"]["rope_scaling"]["mrope_interleaved"] is True
        assert ours["text_config"].get("norm_topk_prob", True) is True
        assert ("norm_topk_prob" in ours["text_config"]) == bool(release.config.text.experts)
    assert "transformers_version" in ours


def test_every_exception_is_needed():
    surplus = {key for r in WITH_FIXTURE for key in flat(made(r)).keys() - flat(official(r)).keys()}
    assert surplus == OURS_ALONE.keys()
