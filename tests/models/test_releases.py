"""The enumerated tensors of every official release against numbers published elsewhere, and against transformers' own
idea of the model.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from math import prod
from typing import Any

import pytest
from metamodel import meta_shapes

from vlconv.converters.config.made_config import made_config, release_runtime
from vlconv.converters.models import MODELS, RELEASES, Release, Shapes, release_of, repository_of

PUBLISHED: dict[str, tuple[int | None, int]] = {
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
    "Qwen3-0.6B": (310, 596_049_920),  # and a copy of the embedding, which the file of this release has as lm_head
    "Qwen3-1.7B": (None, 1_720_574_976),
    "Qwen3-4B": (None, 4_022_468_096),
    "Qwen3-8B": (399, 8_190_735_360),
    "Qwen3-14B": (None, 14_768_307_200),
    "Qwen3-32B": (None, 32_762_123_264),
    "Qwen3-30B-A3B": (None, 30_532_122_624),
    "Qwen3-235B-A22B": (None, 235_093_634_560),
    "Qwen2.5-0.5B": (290, 494_032_768),
    "Qwen2.5-1.5B": (None, 1_543_714_304),
    "Qwen2.5-3B": (None, 3_085_938_688),
    "Qwen2.5-7B": (339, 7_615_616_512),
    "Qwen2.5-14B": (None, 14_770_033_664),
    "Qwen2.5-32B": (None, 32_763_876_352),
    "Qwen2.5-72B": (None, 72_706_203_648),
    "Qwen3.5-0.8B": (473 + 15, 852_985_920 + 20_452_864),
    "Qwen3.5-2B": (617 + 15, 2_213_241_664 + 60_828_160),
    "Qwen3.5-4B": (723 + 15, 4_539_265_536 + 120_599_552),
    "Qwen3.5-9B": (760 + 15, 9_409_813_744 + 243_290_624),
    "Qwen3.5-27B": (1199, 27_781_427_952),
    "Qwen3.5-35B-A3B": (1026 + 785, 35_107_181_936 + 844_640_768),
    "Qwen3.5-122B-A10B": (1164 + 785, 122_562_817_776 + 2_523_679_232),
    "Qwen3.5-397B-A17B": (None, 396_802_360_816 + 6_595_568_128),
    "Qwen3-Next-80B-A3B": (None, 81_324_862_720),
}
"""Tensors and parameters in the Hub's files, as far as they are told; None: not."""

UNPUBLISHED = {"Qwen3.8-2.4T-A95B"}

NOT_IN_CONFIG = {"Qwen3-Next-80B-A3B"}
"""Their files hold a multi-token-prediction head of which their config.json has no word."""

IN_4 = int(version("transformers").split(".")[0]) < 5

each_release = pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)
each_known_release = pytest.mark.parametrize(
    "release",
    [r for r in RELEASES if not (IN_4 and MODELS[r.config.model_type].traits.rope_parameters)],
    ids=lambda r: r.name,
)

MADE_UP = {"rms_norm_eps": 1e-6, "rope_theta": 1_000_000}
"""What not all releases of these shapes have alike."""


def hf_config(release: Release) -> dict[str, Any]:
    return made_config(release.config, MADE_UP | release_runtime(release))


def tensors(release: Release) -> Shapes:
    return MODELS[release.config.model_type].hf_tensors(release.config)


def with_head(release: Release) -> Release:
    return replace(release, config=replace(release.config, text=replace(release.config.text, mtp=1)))


def test_every_release_is_there():
    assert {r.name for r in RELEASES} == PUBLISHED.keys() | UNPUBLISHED
    assert len(RELEASES) == len(PUBLISHED) + len(UNPUBLISHED)


@each_release
def test_counts_are_the_published_ones(release):
    found = tensors(with_head(release) if release.name in NOT_IN_CONFIG else release)
    count, parameters = PUBLISHED.get(release.name, (None, sum(map(prod, found.values()))))
    assert (count or len(found), parameters) == (len(found), sum(map(prod, found.values())))


@pytest.mark.versions
@each_known_release
def test_names_and_shapes_are_those_of_transformers(release):
    ours = {name: shape for name, shape in tensors(release).items() if not name.startswith("mtp.")}
    assert ours == meta_shapes(hf_config(release))


@each_release
def test_config_json_says_the_same_integers(release):
    config = hf_config(release)
    assert MODELS[config["model_type"]].config(config) == release.config


def test_a_head_that_a_release_has_no_word_of_is_told():
    """Of what is made for a checkpoint that has one."""
    release = with_head(next(r for r in RELEASES if r.name in NOT_IN_CONFIG))
    config = hf_config(release)
    assert MODELS[config["model_type"]].config(config) == release.config


@each_release
def test_prefixes_split_the_names(release):
    model = MODELS[release.config.model_type]
    parts = [model.vision_prefix + n for n in model.vision_tensors(release.config)] + [
        model.text_prefix + n for n in model.text_tensors(release.config)
    ]
    rest = {name for name in tensors(release) if name == "lm_head.weight" or name.startswith("mtp.")}
    assert set(parts) == tensors(release).keys() - rest
    assert bool(release.config.text.mtp) == any(name.startswith("mtp.") for name in rest)


def test_what_releases_dispute_is_left_out():
    runtime = {r.name: release_runtime(r) for r in RELEASES}
    assert [name for name, said in runtime.items() if "rope_theta" not in said] == [
        name for name in runtime if name.startswith(("Qwen3-", "Qwen2.5-")) and "VL" not in name and "Next" not in name
    ]
    assert {name for name, said in runtime.items() if "rms_norm_eps" not in said} == {
        "Qwen2.5-VL-72B",
        *(name for name in runtime if name.startswith("Qwen2.5-") and "VL" not in name),
    }


@pytest.mark.parametrize(
    ("name", "experts"), [("Qwen3.5-122B-A10B", 8), ("Qwen3.5-397B-A17B", 10), ("Qwen3-Next-80B-A3B", 10)]
)
def test_experts_per_token(name, experts):
    assert hf_config_of(name)["num_experts_per_tok"] == experts


def hf_config_of(name: str) -> dict[str, Any]:
    config = hf_config(next(r for r in RELEASES if r.name == name))
    section: dict[str, Any] = config.get("text_config", config)
    return section


class TestFound:
    @pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
    def test_by_its_integers(self, release: Release) -> None:
        assert release_of(release.config) is release

    def test_with_a_head_or_without(self) -> None:
        config = RELEASES[0].config
        assert release_of(replace(config, text=replace(config.text, mtp=config.text.mtp + 1))) is RELEASES[0]
        assert release_of(replace(config, text=replace(config.text, layers=3))) is None

    def test_its_files_are_those_of_a_repository(self) -> None:
        names = {repository_of(release.config) for release in RELEASES}
        assert {
            "Qwen/Qwen3-VL-2B-Instruct",
            "Qwen/Qwen3-VL-30B-A3B-Instruct",
            "Qwen/Qwen2.5-VL-7B-Instruct",
            "Qwen/Qwen2.5-7B-Instruct",
            "Qwen/Qwen3-8B",
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
        } <= names

    def test_of_other_sizes_another_size_has_them(self) -> None:
        config = MODELS["qwen3_vl"].family.releases[2].config
        assert repository_of(replace(config, text=replace(config.text, layers=3))) == "Qwen/Qwen3-VL-2B-Instruct"
