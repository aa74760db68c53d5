"""The config.json that goes with converted weights:
what is kept, what is changed, and that transformers reads the same model from every variant.
"""

from __future__ import annotations

import copy
import json
from importlib.metadata import version

import pytest
import torch
from logits import logits
from tiny import tiny_config, write_tiny_hf

from vlconv.converters.config.hf_config import config_json, config_to_write, read_config, rope_scaling, rope_theta
from vlconv.converters.errors import CorruptError
from vlconv.converters.models import MODELS, model_for
from vlconv.converters.models.shared.fields import decide_tie

SAMPLED = 2

FIVE = ["qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"]
"""What only transformers 5 knows."""
TEXT_ONLY = ["qwen3", "qwen3_moe", "qwen2", "qwen3_next"]
KINDS = ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", *TEXT_ONLY]
HERE = [*KINDS, *FIVE] if int(version("transformers").split(".")[0]) >= 5 else KINDS


def written(config, tied=False, dtype="bfloat16"):
    return config_to_write(config, model_for(config), tied=tied, dtype=dtype)


def text_of(config):
    return config.get("text_config", config)


def rope_parameters(config, keep=False):
    """The config with rope_parameters, as transformers 5 has it, instead of or beside the older fields."""
    config = copy.deepcopy(config)
    text = text_of(config)
    text["rope_parameters"] = {**(text.get("rope_scaling") or {}), "rope_theta": text["rope_theta"]}
    if not keep:
        text.pop("rope_scaling", None)
        del text["rope_theta"]
    return config


def changed(config, top=None, text=None):
    """The config with fields set, or removed where the value is None."""
    config = copy.deepcopy(config)
    for section, changes in ((config, top), (text_of(config), text)):
        for name, value in (changes or {}).items():
            section.pop(name, None)
            if value is not None:
                section[name] = value
    return config


TIE = "tie_word_embeddings"
VARIANTS = {
    "as on the Hub": ("qwen3_vl", False, lambda c: c),
    "rope_parameters only": ("qwen3_vl", False, rope_parameters),
    "rope_parameters beside rope_scaling": ("qwen3_vl", False, lambda c: rope_parameters(c, keep=True)),
    "rope_parameters only, Qwen2.5-VL": ("qwen2_5_vl", False, rope_parameters),
    "rope_parameters only, MoE": ("qwen3_vl_moe", False, rope_parameters),
    "rope_parameters only, text alone": ("qwen3", False, rope_parameters),
    "rope_parameters only, text alone, Qwen2.5": ("qwen2", True, rope_parameters),
    "rope_parameters only, Qwen3-Next": ("qwen3_next", False, rope_parameters),
    "num_local_experts, text alone": (
        "qwen3_moe",
        False,
        lambda c: changed(c, text={"num_experts": None, "num_local_experts": 4}),
    ),
    "num_local_experts only": (
        "qwen3_vl_moe",
        False,
        lambda c: changed(c, text={"num_experts": None, "num_local_experts": 4}),
    ),
    "both names of num_experts": ("qwen3_vl_moe", False, lambda c: changed(c, text={"num_local_experts": 4})),
    "untied, text tied, top untied": ("qwen3_vl_moe", False, lambda c: changed(c, {TIE: False}, {TIE: True})),
    "tied, top tied, text absent": ("qwen3_vl", True, lambda c: changed(c, {TIE: True}, {TIE: None})),
    "tied, top tied, text untied": ("qwen3_vl", True, lambda c: changed(c, {TIE: True}, {TIE: False})),
    "tied, top absent, text tied": ("qwen3_vl", True, lambda c: changed(c, {TIE: None}, {TIE: True})),
    "tied, stated nowhere": ("qwen3_vl", True, lambda c: changed(c, {TIE: None}, {TIE: None})),
    "torch_dtype": ("qwen3_vl", False, lambda c: changed(c, {"torch_dtype": "float32"}, {"dtype": None})),
}


@pytest.mark.versions
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_becomes_the_same_model(tmp_path, variant):
    kind, tied, change = VARIANTS[variant]
    plain = tiny_config(kind, tied=tied)
    write_tiny_hf(tmp_path, plain)
    expected = logits(tmp_path)
    reference = change(plain)
    tie = decide_tie(reference, lm_head=not tied)
    config = config_to_write(reference, model_for(reference), tied=tie.tied, dtype="bfloat16")
    assert model_for(config).config(config) == model_for(plain).config(plain)
    (tmp_path / "config.json").write_bytes(config_json(config))
    assert torch.equal(logits(tmp_path), expected)


@pytest.mark.versions
@pytest.mark.parametrize("kind", HERE)
@pytest.mark.parametrize("tied", [False, True])
def test_what_the_installed_transformers_writes_is_converted(tmp_path, kind, tied):
    from transformers import AutoConfig

    write_tiny_hf(tmp_path, tiny_config(kind, tied=tied))
    expected = logits(tmp_path)
    AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)
    config = written(read_config(tmp_path), tied)
    assert_as_the_hub(config, tied)
    assert (kind in FIVE) or text_of(config)["rope_theta"] in (1e6, 5e6, 1e7)
    (tmp_path / "config.json").write_bytes(config_json(config))
    assert torch.equal(logits(tmp_path), expected)


def assert_as_the_hub(config, tied):
    """What 4.57 knows in a form that it reads."""
    text, tower = text_of(config), "vision_config" in config
    assert ("rope_parameters" in text) == (config["model_type"] in FIVE)
    if "rope_parameters" in text:
        assert not text.keys() & {"rope_scaling", "rope_theta"}
        assert text["rope_parameters"].keys() >= {"rope_theta", "mrope_section", ROTARY}
    else:
        assert (text["rope_scaling"] or {}).get("mrope_section") or not tower
        assert "rope_theta" not in (text["rope_scaling"] or {})
        assert (ROTARY in text) == (config["model_type"] == "qwen3_next")
    assert "num_local_experts" not in text
    assert ("num_experts" in text) == ("moe" in config["model_type"] or config["model_type"] == "qwen3_next")
    assert config[TIE] is tied
    assert text[TIE] is tied
    assert config["dtype"] == "bfloat16"
    assert "torch_dtype" not in config
    assert not tower or config["vision_config"]["model_type"] == config["model_type"]


@pytest.mark.parametrize("kind", [*KINDS, *FIVE])
def test_a_config_as_on_the_hub_stays_as_it_is(kind):
    config = tiny_config(kind, tied=True)
    assert written(config, tied=True) == config | {"dtype": "bfloat16"}


def test_unknown_keys_are_kept():
    config = tiny_config(
        "qwen3_vl",
        text={"new_in_text": [1]},
        vision={"new_in_vision": {"a": None}},
        new_at_the_top="ü",
        transformers_version="4.57.0",
    )
    found = written(config)
    assert found["text_config"]["new_in_text"] == [1]
    assert found["vision_config"]["new_in_vision"] == {"a": None}
    assert (found["new_at_the_top"], found["transformers_version"]) == ("ü", "4.57.0")
    assert json.loads(config_json(found)) == found


def test_the_reference_is_not_changed():
    config = rope_parameters(tiny_config("qwen3_vl"))
    before = copy.deepcopy(config)
    written(config)
    assert config == before


def test_the_weights_decide_dtype_and_architecture():
    found = written(tiny_config("qwen3_vl", architectures=["Other"]), dtype="float32")
    assert (found["dtype"], found["text_config"]["dtype"], found["architectures"]) == (
        "float32",
        "float32",
        ["Qwen3VLForConditionalGeneration"],
    )


def test_long_context_scaling_is_kept():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "mrope_section": [2, 1, 1]}
    assert written(tiny_config("qwen2_5_vl", text={"rope_scaling": yarn}))["rope_scaling"] == yarn


@pytest.mark.parametrize("kind", KINDS)
def test_no_rope_theta_is_refused(kind):
    with pytest.raises(CorruptError, match=r"rope_theta is missing"):
        written(tiny_config(kind, text={"rope_theta": None}))


@pytest.mark.parametrize("kind", FIVE)
def test_no_rope_theta_in_rope_parameters_is_refused(kind):
    config = tiny_config(kind)
    del text_of(config)["rope_parameters"]["rope_theta"]
    with pytest.raises(CorruptError, match=r"rope_theta is missing"):
        written(config)


def test_two_thetas():
    config = rope_parameters(tiny_config("qwen3_vl"), keep=True)
    assert rope_theta(config) == 5e6
    config["text_config"]["rope_theta"] = 1e4
    with pytest.raises(
        CorruptError,
        match=r"contradicts itself: text_config.rope_theta is 10000.0, text_config.rope_parameters.rope_theta is 5",
    ):
        rope_theta(config)


@pytest.mark.parametrize("value", ["5e6", True, [1]])
def test_a_theta_that_is_no_number(value):
    with pytest.raises(CorruptError, match=r"text_config.rope_theta is .*, not a number"):
        rope_theta(tiny_config("qwen3_vl", text={"rope_theta": value}))


def scaling(config):
    return rope_scaling(config, MODELS[config["model_type"]].traits)


@pytest.mark.parametrize(("kind", "name"), [("qwen3_vl", "rope_scaling"), ("qwen3_5", "rope_parameters")])
def test_no_scaling(kind, name):
    with pytest.raises(CorruptError, match=rf"text_config.{name} is missing"):
        scaling(tiny_config(kind, text={name: None}))


@pytest.mark.parametrize("kind", TEXT_ONLY)
def test_an_unscaled_rope(kind):
    assert scaling(tiny_config(kind)) == {}
    assert scaling(tiny_config(kind, text={"rope_scaling": None})) == {}
    with pytest.raises(CorruptError, match=r"config.json: rope_scaling is yarn, not an object"):
        scaling(tiny_config(kind, text={"rope_scaling": "yarn"}))
    with pytest.raises(CorruptError, match=r"config.json: rope_scaling.rope_type is 1, not a name"):
        scaling(tiny_config(kind, text={"rope_scaling": {"rope_type": 1}}))


@pytest.mark.parametrize("kind", TEXT_ONLY)
def test_an_unscaled_rope_as_transformers_5_has_it(kind):
    config = tiny_config(kind)
    later = rope_parameters(config)
    later["rope_parameters"]["rope_type"] = "default"
    later["rope_parameters"] |= {ROTARY: later.pop(ROTARY)} if ROTARY in later else {}
    assert scaling(later).get("rope_type") == "default"
    assert written(later) == written(config | {"rope_scaling": None})


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize("kind", TEXT_ONLY)
def test_a_long_context_of_text_alone_is_kept(kind):
    plain = tiny_config(kind, text={"rope_scaling": YARN})
    assert written(plain)["rope_scaling"] == YARN
    assert written(rope_parameters(plain)) == written(plain)
    old = {"type": "yarn", "factor": 4.0}
    assert written(tiny_config(kind, text={"rope_scaling": old}))["rope_scaling"] == old


ROTARY = "partial_rotary_factor"


@pytest.mark.parametrize("kind", FIVE)
def test_older_fields_go_into_rope_parameters(kind):
    """As a trainer may leave them that knows transformers 4 alone."""
    config = tiny_config(kind)
    older = copy.deepcopy(config)
    text = text_of(older)
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope.pop("rope_theta"), ROTARY: rope.pop(ROTARY), "rope_scaling": rope}
    found = text_of(written(older))
    assert found["rope_parameters"] == text_of(config)["rope_parameters"]
    assert not found.keys() & {"rope_scaling", "rope_theta"}


def test_two_parts_of_a_head():
    config = tiny_config("qwen3_5", text={ROTARY: 0.5})
    says = rf"text_config.rope_parameters.{ROTARY} is 0.25, text_config.{ROTARY} is 0.5"
    with pytest.raises(CorruptError, match=f"contradicts itself: {says}"):
        written(config)


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_5_moe"])
def test_the_towers_own_name_for_its_kind_is_the_hubs(kind):
    assert written(tiny_config(kind, vision={"model_type": f"{kind}_vision"}))["vision_config"]["model_type"] == kind
    assert written(tiny_config(kind))["vision_config"]["model_type"] == kind


def test_bytes():
    assert config_json({"b": 1, "a": "é"}) == '{\n  "b": 1,\n  "a": "é"\n}\n'.encode()


@pytest.mark.parametrize("theta", [0, -1, -5e6, float("inf"), 1e300, pytest.param(10**400, id="400 digits")])
def test_a_rope_theta_that_no_model_has_is_refused(theta):
    with pytest.raises(
        CorruptError, match=r"config\.json: text_config\.rope_theta is .*, not a number above 0"
    ) as fault:
        rope_theta(tiny_config("qwen3_vl", text={"rope_theta": theta}))
    assert len(str(fault.value)) < 500
