"""Every model answers every question, and no room outside models/ asks for a name."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import pytest

from vlconv.converters.config.facts import needed
from vlconv.converters.config.made_config import made_config, release_runtime
from vlconv.converters.errors import ReferenceFault, UnsupportedError
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS, model_with
from vlconv.converters.models.shared.traits import QUESTIONS, VISIBLE

CONVERTERS = Path(__file__).parents[2] / "converters"
OUTSIDE = sorted(p for p in CONVERTERS.rglob("*.py") if p.relative_to(CONVERTERS).parts[0] != "models")

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.model_type)


def asked() -> set[str]:
    """The traits that some room asks for: the attributes of whatever is called traits."""
    found = set()
    for path in CONVERTERS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "traits":
                found.add(node.attr)
    return found


def test_every_question_that_is_asked_has_an_answer_and_no_answer_is_idle():
    assert asked() | set(VISIBLE) == set(QUESTIONS)


@each_model
def test_a_model_answers_every_question(model):
    assert all(isinstance(getattr(model.traits, name), bool | str | tuple | None) for name in QUESTIONS)


@each_model
def test_a_model_has_a_layout_to_write(model):
    layout = LAYOUTS[model.default_layout]
    assert layout.serves(model.traits) and "torch_dist" in layout.writes
    for release in model.family.releases:
        assert list(layout.rules(release.config, release.config.text.vocab))


@each_model
def test_a_model_answers_every_room(model):
    """What rooms ask beside traits and a layout: a config to make, facts to look for."""
    assert model.family.releases or model.model_type in WITHOUT_RELEASE
    for release in model.family.releases:
        runtime = {"rms_norm_eps": 1e-6, "rope_theta": 1_000_000, **release_runtime(release)}
        assert model.config(made_config(release.config, runtime, release=release)) == release.config
    assert {"layers", "rope_theta"} <= set(needed(model, dense_layers=False))


WITHOUT_RELEASE = {"qwen3_5_text"}
"""Made of the language model of what has a vision tower."""

ALIKE = {frozenset({"qwen3_5_moe_text", "qwen3_next"})}
"""Models whose names show the same; experts and projections, in which they differ, are the same on Megatron's side."""


def shows(model):
    return {name: getattr(model.traits, name) for name in VISIBLE}


def test_names_tell_any_two_models_apart_but_these():
    pairs = combinations(MODELS.values(), 2)
    assert {frozenset({a.model_type, b.model_type}) for a, b in pairs if shows(a) == shows(b)} == ALIKE


@each_model
def test_a_model_is_known_by_what_its_names_show(model):
    others = {name for pair in ALIKE if model.model_type in pair for name in pair}
    if not others:
        assert model_with(shows(model)) is model
        return
    with pytest.raises(ReferenceFault, match=r"no name tells them apart") as fault:
        model_with(shows(model))
    assert all(name in str(fault.value) for name in others)


def test_another_model_is_taken_for_none():
    """No q/k norm and no bias is not Qwen2.5; a bias and a norm is nobody's."""
    nobodys = dict.fromkeys(VISIBLE, False)
    with pytest.raises(UnsupportedError, match=r"no model that is converted .*qk norm: no"):
        model_with(nobodys)
    with pytest.raises(UnsupportedError):
        model_with(nobodys | {"qkv_bias": True, "qk_norm": True})
    with pytest.raises(UnsupportedError):  # Qwen3-VL's tower needs its table
        model_with(nobodys | {"tower": True, "qk_norm": True})


def names_compared(path: Path) -> list[str]:
    """Comparisons of anything with a model's name, or a prefix of one, written out."""
    families = tuple({name.split("_")[0] for name in MODELS})
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare | ast.Dict | ast.Match):
            continue
        parts = node.keys if isinstance(node, ast.Dict) else [node]
        texts = [n.value for part in parts if part for n in ast.walk(part) if isinstance(n, ast.Constant)]
        found += [f"{path.name}:{node.lineno} {text}" for text in texts if str(text).startswith(families)]
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(CONVERTERS)))
def test_no_file_outside_models_compares_a_name(path):
    assert not names_compared(path)


def test_a_comparison_would_be_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        'a = kind == "qwen2_5_vl"\nb = kind in ("x", "qwen3_vl")\nc = {"qwen3_vl_moe": 1}[kind]\nd = x == "mbridge"\n'
    )
    assert len(names_compared(path)) == 3
