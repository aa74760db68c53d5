"""The nearest official release: itself for each release, the right one with what differs for a neighbour."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlconv.converters.config.made_config import config_facts
from vlconv.converters.config.releases import nearest
from vlconv.converters.models import RELEASES, Release


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: f"{r.config.model_type} {r.name}")
def test_each_release_is_itself(release: Release) -> None:
    near = nearest([release.config.model_type], config_facts(release.config))
    assert near and near.differs == {}
    same = [r.name for r in RELEASES if r.config == release.config]
    assert near.release in same


def test_a_model_with_fewer_layers_is_nearest_to_the_one_it_was_cut_from() -> None:
    release = next(r for r in RELEASES if r.name == "Qwen3-VL-8B")
    cut = replace(release.config, text=replace(release.config.text, layers=30))
    near = nearest(["qwen3_vl"], config_facts(cut))
    assert near and near.release == "Qwen3-VL-8B"
    assert near.differs == {"text_config.num_hidden_layers": (30, 36)}
    assert str(near) == "nearest: Qwen3-VL-8B, differs in text_config.num_hidden_layers 30 instead of 36"


def test_a_flat_config_has_flat_places() -> None:
    release = next(r for r in RELEASES if r.name == "Qwen3-8B")
    cut = replace(release.config, text=replace(release.config.text, ffn=12_000))
    near = nearest(["qwen3"], config_facts(cut))
    assert near and near.differs == {"intermediate_size": (12_000, 12_288)}


def test_padding_of_the_vocabulary_is_no_difference() -> None:
    release = next(r for r in RELEASES if r.name == "Qwen3-VL-8B")
    facts = config_facts(release.config)
    rows = facts.pop("vocab")
    assert nearest(["qwen3_vl"], {**facts, "rows": -(-rows // 1024) * 1024}).differs == {}  # type: ignore[union-attr]
    near = nearest(["qwen3_vl"], {**facts, "rows": 1000})
    assert near and near.differs == {"text_config.vocab_size": (1000, rows)}
