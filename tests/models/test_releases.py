"""The enumerated tensors of every official release against numbers published elsewhere, and against transformers' own
idea of the model.
"""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from metamodel import meta_shapes

from vlconv.converters.config.made_config import made_config, release_runtime
from vlconv.converters.models import MODELS, RELEASES, Release, Shapes

PUBLISHED = {
    "Qwen3-VL-2B": (625, 2_127_532_032),
    "Qwen3-VL-4B": (713, 4_437_815_808),
    "Qwen3-VL-8B": (750, 8_767_123_696),
    "Qwen3-VL-32B": (1058, 33_357_390_064),
    "Qwen3-VL-30B-A3B": (882, 31_070_754_032),
    "Qwen3-VL-235B-A22B": (1388, 235_670_022_896),
    "Qwen2.5-VL-3B": (824, 3_754_622_976),
    "Qwen2.5-VL-7B": (729, 8_292_166_656),
    "Qwen2.5-VL-32B": (1161, 33_452_718_336),
    "Qwen2.5-VL-72B": (1353, 73_410_777_344),
}
"""Tensors and parameters in the Hub's files."""

each_release = pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)


def hf_config(release: Release) -> dict[str, Any]:
    return made_config(release.config, {"rms_norm_eps": 1e-6, **release_runtime(release)})


def tensors(release: Release) -> Shapes:
    return MODELS[release.config.model_type].hf_tensors(release.config)


def test_every_release_is_there():
    assert {r.name for r in RELEASES} == set(PUBLISHED)


@each_release
def test_counts_are_the_published_ones(release):
    found = tensors(release)
    assert (len(found), sum(map(prod, found.values()))) == PUBLISHED[release.name]


@pytest.mark.versions
@each_release
def test_names_and_shapes_are_those_of_transformers(release):
    assert tensors(release) == meta_shapes(hf_config(release))


@each_release
def test_config_json_says_the_same_integers(release):
    config = hf_config(release)
    assert MODELS[config["model_type"]].config(config) == release.config


@each_release
def test_prefixes_split_the_names(release):
    model = MODELS[release.config.model_type]
    parts = [model.vision_prefix + n for n in model.vision_tensors(release.config)] + [
        model.text_prefix + n for n in model.text_tensors(release.config)
    ]
    assert set(parts) == tensors(release).keys() - {"lm_head.weight"}
