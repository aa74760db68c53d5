"""Reading config.json: what is asked for, what is refused, and by which name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny import tiny_config

from vlconv.converters.errors import CorruptError, UnsupportedError, VlconvError
from vlconv.converters.models import MODELS, model_for
from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig, hf_path

VISION = VisionConfig(4, 32, 4, 48, 64, patch=4, temporal_patch=2, channels=3, merge=2, positions=16, deepstack=(0, 2))


def read(config):
    return model_for(config).config(config)


def test_dense():
    assert read(tiny_config("qwen3_vl", tied=True)) == ModelConfig(
        "qwen3_vl", TextConfig(4, 64, 8, 4, 16, 96, 300, True), VISION
    )


def test_experts():
    assert read(tiny_config("qwen3_vl_moe")).text == TextConfig(4, 64, 8, 4, 16, 96, 300, False, experts=4, moe_ffn=24)


def test_qwen2_5_flat_and_nested():
    flat = tiny_config("qwen2_5_vl")
    text = {
        name: flat.pop(name)
        for name in tiny_config("qwen3_vl")["text_config"].keys() & flat.keys() - {"model_type", "tie_word_embeddings"}
    }
    nested = {**flat, "text_config": text}
    assert read(nested) == read(tiny_config("qwen2_5_vl"))
    assert read(nested).text.head_dim == 8
    assert read(nested).vision.deepstack == ()


def test_transformers_5_spellings():
    config = tiny_config(
        "qwen3_vl_moe",
        text={"num_experts": None, "num_local_experts": 4},
        vision={"patch_size": [4, 4], "temporal_patch_size": [2]},
    )
    assert read(config) == read(tiny_config("qwen3_vl_moe"))


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ({"decoder_sparse_step": 1, "mlp_only_layers": []}, set()),
        ({"decoder_sparse_step": 1, "mlp_only_layers": None}, set()),
        ({"decoder_sparse_step": 2}, {0, 2}),
        ({"decoder_sparse_step": 3}, {0, 1, 3}),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [1]}, {1}),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, {0, 2, 3}),
    ],
)
def test_layers_that_stay_dense(text, dense):
    assert read(tiny_config("qwen3_vl_moe", text=text)).text.dense_layers == dense


def test_ffn_may_be_absent_where_nothing_has_it():
    assert read(tiny_config("qwen3_vl_moe", text={"intermediate_size": None})).text.ffn == 0
    with pytest.raises(CorruptError, match=r"text_config.intermediate_size is missing"):
        read(tiny_config("qwen3_vl_moe", text={"intermediate_size": None, "mlp_only_layers": [0]}))


def test_text_only():
    assert read(tiny_config("qwen3")) == ModelConfig("qwen3", TextConfig(4, 64, 8, 2, 16, 96, 300, False))
    assert read(tiny_config("qwen2", tied=True)) == ModelConfig("qwen2", TextConfig(4, 64, 8, 2, 8, 96, 300, True))
    moe = TextConfig(4, 64, 8, 2, 16, 96, 300, False, experts=4, moe_ffn=24)
    assert read(tiny_config("qwen3_moe")) == ModelConfig("qwen3_moe", moe)


HYBRID = TextConfig(
    *(4, 64, 8, 2, 32, 96, 300, False),
    linear_layers=frozenset({0, 1, 2}),
    key_heads=4,
    value_heads=8,
    key_dim=8,
    value_dim=16,
    kernel=4,
    mtp=1,
)
HYBRID_MOE = replace(HYBRID, ffn=0, experts=4, moe_ffn=24, shared_ffn=40)


def test_hybrids():
    tower = replace(VISION, deepstack=())
    assert read(tiny_config("qwen3_5")) == ModelConfig("qwen3_5", HYBRID, tower)
    assert read(tiny_config("qwen3_5_moe")) == ModelConfig("qwen3_5_moe", HYBRID_MOE, tower)
    assert read(tiny_config("qwen3_5_text")) == ModelConfig("qwen3_5_text", HYBRID)
    assert read(tiny_config("qwen3_5_moe_text")) == ModelConfig("qwen3_5_moe_text", HYBRID_MOE)
    assert read(tiny_config("qwen3_next")).text == replace(HYBRID_MOE, ffn=96, mtp=0)


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        ({"layer_types": None}, {0, 1, 2}),
        ({"layer_types": None, "full_attention_interval": 2}, {0, 2}),
        ({"layer_types": ["full_attention", "linear_attention"] * 2}, {1, 3}),
    ],
)
def test_which_layers_have_linear_attention(text, linear):
    assert read(tiny_config("qwen3_5", text=text)).text.linear_layers == linear


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("layer_types", ["linear_attention"] * 3, "4 times linear_attention or full_attention"),
        ("layer_types", ["sliding_attention"] * 4, "4 times linear_attention or full_attention"),
        ("layer_types", "linear_attention", "4 times linear_attention or full_attention"),
        ("linear_num_value_heads", 6, "text_config.linear_num_value_heads 6 is not a multiple of"),
        ("mtp_num_hidden_layers", -1, "text_config.mtp_num_hidden_layers is -1"),
        ("linear_conv_kernel_dim", 0, "text_config.linear_conv_kernel_dim is 0"),
    ],
)
def test_what_no_hybrid_has(field, value, says):
    with pytest.raises(CorruptError, match=says):
        read(tiny_config("qwen3_5", text={field: value}))


def test_a_head_of_two_layers():
    with pytest.raises(UnsupportedError, match=r"text_config.mtp_num_hidden_layers is 2"):
        read(tiny_config("qwen3_5", text={"mtp_num_hidden_layers": 2}))


def test_places_in_a_flat_config():
    assert hf_path(TextConfig, "ffn") == "text_config.intermediate_size"
    assert hf_path(TextConfig, "ffn", flat=True) == "intermediate_size"
    assert hf_path(VisionConfig, "ffn", flat=True) == "vision_config.intermediate_size"


TEXT = ["num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"]
VISUAL = [
    "depth",
    "hidden_size",
    "num_heads",
    "intermediate_size",
    "out_hidden_size",
    "patch_size",
    "temporal_patch_size",
    "spatial_merge_size",
]
QWEN3 = ["head_dim", "intermediate_size"]
MOE = ["head_dim", "num_experts", "moe_intermediate_size", "decoder_sparse_step"]
TOWERS = ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"]
NESTED = ["qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"]
DELTA_NET = ["linear_conv_kernel_dim", "linear_key_head_dim", "linear_num_key_heads", "linear_num_value_heads"]
DELTA_NET += ["linear_value_head_dim", "head_dim"]
MISSING = [
    *((kind, "text", name) for kind in MODELS for name in TEXT),
    *((kind, "vision", name) for kind in TOWERS for name in VISUAL),
    *((kind, "text", name) for kind in MODELS if kind.startswith(("qwen3_5", "qwen3_next")) for name in DELTA_NET),
    *((kind, "text", "shared_expert_intermediate_size") for kind in ("qwen3_5_moe", "qwen3_next")),
    *((kind, "text", name) for kind, names in (("qwen3_vl", QWEN3), ("qwen3_vl_moe", MOE)) for name in names),
    *(
        (kind, "vision", name)
        for kind in ("qwen3_vl", "qwen3_vl_moe")
        for name in ("in_channels", "num_position_embeddings", "deepstack_visual_indexes")
    ),
]


@pytest.mark.parametrize(("kind", "section", "name"), MISSING)
def test_a_missing_field_is_named_never_guessed(kind, section, name):
    config = tiny_config(kind, **{section: {name: None}})
    path = "" if section == "text" and kind not in NESTED else f"{section}_config."
    with pytest.raises(CorruptError, match=rf"config.json: {path}{name} is missing"):
        read(config)


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
@pytest.mark.parametrize("value", [None, [], "x"])
def test_a_missing_section_is_named(section, value):
    with pytest.raises(CorruptError, match=section):
        read(tiny_config("qwen3_vl") | {section: value})


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "64", [64, 32], 2**40, {}])
def test_impossible_integers(value):
    with pytest.raises(CorruptError, match=r"text_config.hidden_size is"):
        read(tiny_config("qwen3_vl", text={"hidden_size": value}))


def test_bounded_enumeration():
    with pytest.raises(CorruptError, match="num_hidden_layers"):
        read(tiny_config("qwen3_vl", text={"num_hidden_layers": 10**6}))
    with pytest.raises(CorruptError, match="depth"):
        read(tiny_config("qwen3_vl", vision={"depth": 10**6}))


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("qwen3_vl_moe", {"text": {"num_local_experts": 8}}, "num_experts is 4, text_config.num_local_experts is 8"),
        ("qwen3_vl", {"text": {"num_key_value_heads": 3}}, "not a multiple"),
        ("qwen2_5_vl", {"text": {"num_attention_heads": 12}}, "hidden_size 64 is not a multiple"),
        ("qwen3_vl", {"vision": {"num_heads": 5}}, "not a multiple"),
        ("qwen3_vl", {"vision": {"deepstack_visual_indexes": [0, 4]}}, "deepstack"),
        ("qwen3_vl", {"vision": {"deepstack_visual_indexes": [1, 1]}}, "twice"),
        ("qwen3_vl_moe", {"text": {"mlp_only_layers": [7]}}, "mlp_only_layers"),
        ("qwen2_5_vl", {"vision": {"in_channels": 4}}, "in_channels is 4, vision_config.in_chans is 3"),
    ],
)
def test_contradictions_inside_a_config(kind, changes, says):
    with pytest.raises(CorruptError, match=says):
        read(tiny_config(kind, **changes))


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_moe", "qwen3_omni_moe", "qwen4_exp", "qwen3_vl_text", "llava"])
def test_other_models_are_refused_by_name(kind):
    with pytest.raises(UnsupportedError, match=f"'{kind}', which is not supported") as error:
        model_for({"model_type": kind})
    assert "qwen3_vl, qwen3_vl_moe, qwen2_5_vl" in error.value.hint


def test_no_model_type_and_quantised_weights():
    with pytest.raises(CorruptError, match="model_type is missing"):
        model_for({})
    with pytest.raises(UnsupportedError, match="quantised"):
        model_for(tiny_config() | {"quantization_config": {"quant_method": "fp8"}})


def test_hostile_names_are_escaped():
    with pytest.raises(VlconvError) as error:
        model_for({"model_type": "\x1b[31m" + "x" * 1000})
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("field", ["mtp_num_hidden_layers", "num_hidden_layers", "linear_num_key_heads"])
def test_only_patches_have_two_sides(field):
    config = tiny_config("qwen3_5")
    config["text_config"][field] = [1, 1]
    with pytest.raises(CorruptError, match=rf"text_config\.{field} is \[1, 1\], not an integer"):
        model_for(config).config(config)
