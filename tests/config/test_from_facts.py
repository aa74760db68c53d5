"""A config.json without a reference: what shapes show in every layout, what suffices, and what is missing by name."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import pytest
from logits import logits
from metamodel import meta_shapes
from tiny import IDS, tiny_config, write_tiny_hf

from vlconv.converters.config import from_facts
from vlconv.converters.config.hf_config import config_json
from vlconv.converters.config.shape_facts import shape_facts, visible_traits
from vlconv.converters.errors import CorruptError, MismatchError, ReferenceFault
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS, RELEASES, model_for, model_with
from vlconv.converters.tensors.rules import table


def config_from_facts(shapes, statements, tower="vision_model.", **how):
    return from_facts.config_from_facts(shapes, statements, tower=tower, **how)


BY_NAME = {release.name: release for release in RELEASES}
PAIRS = [(r, layout) for r in RELEASES for layout in LAYOUTS.values() if r.config.model_type in layout.models]
each_pair = pytest.mark.parametrize(("release", "layout"), PAIRS, ids=lambda x: x.name)


@cache
def shapes_of(config, layout="mbridge", rows=None):
    return table(LAYOUTS[layout].rules(config, rows or config.text.vocab)).left()


def geometry(hf_config):
    return model_for(hf_config).config(hf_config)


@each_pair
def test_shapes_show_the_same_in_every_layout(release, layout):
    config = release.config
    shapes = shapes_of(config, layout.name)
    assert model_with(visible_traits(shapes, layout.tower)).model_type == config.model_type
    text, vision = config.text, config.vision
    expected = {"rows": text.vocab, "hidden": text.hidden, "layers": text.layers, "tied": text.tied}
    expected |= {"q_width": text.heads * 128, "kv_width": text.groups * 128}
    expected |= {} if config.model_type == "qwen2_5_vl" else {"head_dim": 128, "vision.positions": 2304}
    expected |= (
        {"experts": text.experts, "moe_ffn": text.moe_ffn, "dense_layers": []} if text.experts else {"ffn": text.ffn}
    )
    names = ("depth", "hidden", "ffn", "out_hidden", "patch", "temporal_patch", "channels", "merge")
    expected |= {f"vision.{name}": getattr(vision, name) for name in names} | {"vision.mergers": len(vision.deepstack)}
    found = shape_facts(shapes, layout.tower)
    found.pop("vision.deepstack", None)  # in MindSpeed-MM's names alone
    assert found == expected


@each_pair
def test_a_release_is_known_by_its_shapes(release, layout):
    args = [] if release.rms_norm_eps else [("args", {"norm_epsilon": 1e-6})]
    made = config_from_facts(shapes_of(release.config, layout.name), args, layout.tower)
    assert geometry(made.hf_config) == release.config
    assert made.hf_config.get("text_config", made.hf_config)["rms_norm_eps"] == 1e-6
    assert f"{release.name}, the one release that fits" in made.sources
    assert "text_config.num_hidden_layers" in made.sources["the tensors' shapes"]


def test_transformers_agrees_with_a_made_config():
    release = BY_NAME["Qwen3-VL-30B-A3B"]
    made = config_from_facts(shapes_of(release.config), [])
    assert meta_shapes(made.hf_config) == MODELS["qwen3_vl_moe"].hf_tensors(release.config)


def test_the_disputed_epsilon_is_asked_for():
    with pytest.raises(ReferenceFault, match=r"does not say itself: text_config.rms_norm_eps\n"):
        config_from_facts(shapes_of(BY_NAME["Qwen2.5-VL-72B"].config, "mbridge-qwen2_5"), [])


@pytest.mark.parametrize(
    ("rows", "fits"), [(152_064, True), (151_936, True), (153_600, True), (151_937, False), (151_000, False)]
)
def test_padding_has_to_be_explained(rows, fits):
    shapes = shapes_of(BY_NAME["Qwen3-VL-8B"].config, rows=rows) if rows >= 151_936 else {}
    if not shapes:
        shapes = {
            name: (rows, *s[1:]) if s[:1] == (151_936,) else s
            for name, s in shapes_of(BY_NAME["Qwen3-VL-8B"].config).items()
        }
    if fits:
        assert geometry(config_from_facts(shapes, []).hf_config) == BY_NAME["Qwen3-VL-8B"].config
    else:
        with pytest.raises(ReferenceFault, match=r"text_config.vocab_size"):
            config_from_facts(shapes, [])


def test_a_release_made_untied_is_not_that_release():
    config = BY_NAME["Qwen3-VL-2B"].config
    untied = dataclasses.replace(config, text=dataclasses.replace(config.text, tied=False))
    with pytest.raises(ReferenceFault):
        config_from_facts(shapes_of(untied), [])


def test_args_that_contradict_the_release_or_the_shapes():
    shapes = shapes_of(BY_NAME["Qwen3-VL-8B"].config)
    with pytest.raises(MismatchError, match=r"rope_theta is 10000 by rotary_base in args, but 5000000 by Qwen3-VL-8B"):
        config_from_facts(shapes, [("args", {"rotary_base": 10000})])
    with pytest.raises(
        MismatchError, match=r"num_hidden_layers is 36 by the tensors' shapes, but 35 by num_layers in args"
    ):
        config_from_facts(shapes, [("args", {"num_layers": 35})])


def statement(hf_config):
    """What Megatron-Bridge's run_config says of a model, in its names."""
    text = hf_config.get("text_config", hf_config)
    model = {
        "num_layers": text["num_hidden_layers"],
        "num_attention_heads": text["num_attention_heads"],
        "num_query_groups": text["num_key_value_heads"],
        "vocab_size": text["vocab_size"],
        "rotary_base": text["rope_theta"],
        "layernorm_epsilon": text["rms_norm_eps"],
        "mrope_section": text["rope_scaling"]["mrope_section"],
        "share_embeddings_and_output_weights": hf_config["tie_word_embeddings"],
        "vision_config": {
            "_target_": "transformers.Config.from_dict",
            "_call_": True,
            "config_dict": hf_config["vision_config"],
        },
        **{name: token for name, token in IDS.items() if name.endswith("_id")},
    }
    if "num_experts" in text:
        model |= {
            "num_moe_experts": text["num_experts"],
            "moe_router_topk": text["num_experts_per_tok"],
            "ffn_hidden_size": 24,
        }
        model |= {"moe_ffn_hidden_size": text["moe_intermediate_size"], "moe_layer_freq": 1}
    return model


TINY = [
    ("qwen3_vl", "mbridge"),
    ("qwen3_vl", "pai"),
    ("qwen3_vl", "megatron-bridge-0.3"),
    ("qwen3_vl", "mindspeed-mm"),
    ("qwen3_vl_moe", "mbridge"),
]
TINY += [
    ("qwen3_vl_moe", "roll"),
    ("qwen2_5_vl", "mbridge-qwen2_5"),
    ("qwen2_5_vl", "megatron-bridge-qwen2_5"),
    ("qwen2_5_vl", "ms-swift"),
]


@pytest.mark.versions
@pytest.mark.parametrize(("kind", "layout"), TINY)
@pytest.mark.parametrize("tied", [False, True])
def test_what_the_checkpoint_states_suffices(tmp_path, kind, layout, tied):
    hf_config = tiny_config(kind, tied=tied)
    write_tiny_hf(tmp_path, hf_config)
    expected = logits(tmp_path)
    made = config_from_facts(
        shapes_of(geometry(hf_config), layout, rows=384),
        [("run_config.yaml", statement(hf_config))],
        LAYOUTS[layout].tower,
    )
    assert made.hf_config["tie_word_embeddings"] is tied
    assert "vision_config.num_heads" in made.sources["vision_config.num_heads in run_config.yaml"]
    (tmp_path / "config.json").write_bytes(config_json(made.hf_config))
    assert (logits(tmp_path) == expected).all()


def test_what_is_missing_is_listed_exactly():
    hf_config = tiny_config("qwen3_vl")
    said = statement(hf_config)
    del said["rotary_base"], said["vision_config"], said["vocab_size"]
    with pytest.raises(ReferenceFault) as error:
        config_from_facts(shapes_of(geometry(hf_config)), [("run_config.yaml", said)])
    missing = [
        "text_config.vocab_size",
        "text_config.rope_theta",
        "vision_config.num_heads",
        "vision_config.deepstack_visual_indexes",
    ]
    assert error.value.what.endswith(f"does not say itself: {', '.join(missing)}")
    assert "--reference" in error.value.hint


def test_token_ids_beyond_the_vocabulary_are_missing():
    hf_config = tiny_config("qwen3_vl")
    said = {
        name: value for name, value in statement(hf_config).items() if name not in ("image_token_id", "eos_token_id")
    }
    with pytest.raises(ReferenceFault, match=r"does not say itself: image_token_id, eos_token_id\n"):
        config_from_facts(shapes_of(geometry(hf_config)), [("run_config.yaml", said)])


def test_the_head_dimension_of_qwen2_5_comes_from_its_heads():
    hf_config = tiny_config("qwen2_5_vl")
    said = statement(hf_config)
    made = config_from_facts(shapes_of(geometry(hf_config), "ms-swift"), [("args.json", said)], "visual.visual.")
    assert geometry(made.hf_config) == geometry(hf_config)
    with pytest.raises(
        ReferenceFault, match=r"num_attention_heads, text_config.num_key_value_heads, text_config.head_dim\n"
    ):
        config_from_facts(
            shapes_of(geometry(hf_config), "ms-swift"),
            [("args.json", {n: v for n, v in said.items() if n not in ("num_attention_heads", "num_query_groups")})],
            "visual.visual.",
        )


def test_a_config_inside_a_config():
    hf_config = tiny_config("qwen3_vl")
    made = config_from_facts(
        shapes_of(geometry(hf_config), "roll"), [("mca_config.json", {"hf_config_json": json.dumps(hf_config)})]
    )
    assert made.hf_config == hf_config
    assert made.sources == {"hf_config_json in mca_config.json": ["all of it"]}
    with pytest.raises(CorruptError, match=r"hf_config_json in mca_config.json is not valid JSON"):
        config_from_facts({}, [("mca_config.json", {"hf_config_json": "{"})])


def test_names_that_show_nothing():
    with pytest.raises(ReferenceFault, match=r"text_config.num_hidden_layers, text_config.hidden_size"):
        config_from_facts(
            {
                "x.self_attention.q_layernorm.weight": (1,),
                "x.pos_embed.weight": (1,),
                "language_model.embedding.word_embeddings.weight": (1,),
                "visual.patch_embed.proj.weight": (2, 2),
            },
            [],
        )
