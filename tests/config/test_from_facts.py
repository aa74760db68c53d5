"""A config.json without a reference: what shapes show in every layout, what suffices, and what is missing by name."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import pytest
from logits import logits
from megatron_shapes import decoder, with_hugging_face_inside
from metamodel import meta_shapes
from tiny import IDS, tiny_config, write_tiny_hf

from vlconv.converters.config import from_facts
from vlconv.converters.config.hf_config import config_json
from vlconv.converters.config.shape_facts import shape_facts, visible_traits
from vlconv.converters.errors import CorruptError, MismatchError, ReferenceFault
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS, RELEASES, model_for
from vlconv.converters.models.shared.traits import VISIBLE
from vlconv.converters.tensors.rules import table

SAMPLED = 2


def config_from_facts(shapes, statements, tower="vision_model.", **how):
    return from_facts.config_from_facts(shapes, statements, tower=tower, **how)


BY_NAME = {release.name: release for release in RELEASES}
PAIRS = [
    (r, layout)
    for r in RELEASES
    for layout in LAYOUTS.values()
    if r.config.model_type in layout.models and (layout.tower or not r.config.vision)
]
FIRST = {
    (model.family.releases[0].name, layout) for model in MODELS.values() if model.family.releases for layout in LAYOUTS
}
each_pair = pytest.mark.parametrize(
    ("release", "layout"),
    [
        pytest.param(
            r, layout, marks=() if (r.name, layout.name) in FIRST else pytest.mark.slow, id=f"{r.name}-{layout.name}"
        )
        for r, layout in PAIRS
    ],
)
"""The first release of each model in every layout in `make test`, the others with the slow tests."""


@cache
def shapes_of(config, layout="mbridge", rows=None):
    return table(LAYOUTS[layout].rules(config, rows or config.text.vocab)).left()


def geometry(hf_config):
    return model_for(hf_config).config(hf_config)


@each_pair
def test_shapes_show_the_same_in_every_layout(release, layout):
    config = release.config
    shapes = shapes_of(config, layout.name)
    seen = visible_traits(shapes, layout.tower)
    assert seen == {name: getattr(MODELS[config.model_type].traits, name) for name in VISIBLE}
    text, vision = config.text, config.vision
    expected = {"rows": text.vocab, "hidden": text.hidden, "layers": text.layers, "tied": text.tied}
    width = 256 if text.linear_layers else 64 if release.name == "Qwen2.5-0.5B" else 128
    expected |= {"q_width": text.heads * width, "kv_width": text.groups * width}
    expected |= {} if config.model_type in ("qwen2_5_vl", "qwen2") else {"head_dim": width}
    expected |= (
        {"experts": text.experts, "moe_ffn": text.moe_ffn, "dense_layers": []} if text.experts else {"ffn": text.ffn}
    )
    if text.shared_ffn:
        expected["shared_ffn"] = text.shared_ffn
    if text.linear_layers:
        expected |= {"linear_layers": sorted(text.linear_layers), "kernel": 4, "key_width": 2048, "value_dim": 128}
        expected |= {"value_heads": text.value_heads} | ({"mtp": 1} if text.mtp else {})
    if vision:
        names = ("depth", "hidden", "ffn", "out_hidden", "patch", "temporal_patch", "channels", "merge")
        expected |= {f"vision.{name}": getattr(vision, name) for name in names}
        expected |= {"vision.mergers": len(vision.deepstack)}
        expected |= {"vision.positions": 2304} if vision.positions else {}
    found = shape_facts(shapes, layout.tower, gated=bool(text.linear_layers))
    found.pop("vision.deepstack", None)  # in MindSpeed-MM's names alone
    assert found == expected


DISPUTED = [("args", {"norm_epsilon": 1e-6, "rotary_base": 1000000})]
"""What releases of some shapes do not have alike."""

AMBIGUOUS = ("qwen3_5_moe_text", "qwen3_next")


def disputed(release):
    values = {"norm_epsilon": 1e-6} if not release.rms_norm_eps else {}
    if MODELS[release.config.model_type].family.rope_theta is None:
        values["rotary_base"] = 1000000
    return [("args", values)] if values else []


@each_pair
def test_a_release_is_known_by_its_shapes(release, layout):
    shapes = shapes_of(release.config, layout.name)
    if release.config.model_type in AMBIGUOUS:
        with pytest.raises(ReferenceFault, match="qwen3_5_moe_text and of qwen3_next: no name tells them apart"):
            config_from_facts(shapes, disputed(release), layout.tower)
        return
    made = config_from_facts(shapes, disputed(release), layout.tower)
    assert geometry(made.hf_config) == release.config
    assert made.hf_config.get("text_config", made.hf_config)["rms_norm_eps"] == 1e-6
    assert f"{release.name}, the one release that fits" in made.sources
    place = "text_config.num_hidden_layers" if "text_config" in made.hf_config else "num_hidden_layers"
    assert place in made.sources["the tensors' shapes"]


TEXT_ONLY = [r for r in RELEASES if not r.config.vision]
each_text_only = pytest.mark.parametrize("release", TEXT_ONLY, ids=lambda r: r.name)


def decoder_of(release, **changes):
    text = dataclasses.replace(release.config.text, **changes)
    old = release.config.model_type == "qwen2"
    return decoder(text, gate=bool(text.linear_layers), bias=old, norms=not old)


@each_text_only
def test_what_megatron_cores_decoder_shows(release):
    text, shapes = release.config.text, decoder_of(release)
    seen = visible_traits(shapes, "")
    assert seen == {name: getattr(MODELS[release.config.model_type].traits, name) for name in VISIBLE}
    assert not seen["tower"]
    found = shape_facts(shapes, "", gated=bool(text.linear_layers))
    assert not [name for name in found if name.startswith("vision.")]
    assert found["layers"] == text.layers
    assert (found["q_width"], found["kv_width"]) == (text.heads * text.head_dim, text.groups * text.head_dim)
    assert found.get("linear_layers", []) == sorted(text.linear_layers)
    if text.linear_layers:
        assert (found["key_width"], found["value_heads"], found["value_dim"]) == (2048, text.value_heads, 128)
        assert (found["kernel"], found["shared_ffn"], found.get("mtp", 0)) == (4, text.shared_ffn, text.mtp)
        assert not found.keys() & {"key_heads", "key_dim"}  # only their product


@pytest.mark.parametrize(("module", "renamed"), [("self_attention.", 2), ("self_attention.linear_attn.", 6)])
def test_hugging_faces_module_shows_the_same(module, renamed):
    shapes = decoder_of(BY_NAME["Qwen3-Next-80B-A3B"])
    inside = with_hugging_face_inside(shapes, module)
    assert len(inside.keys() - shapes.keys()) == renamed * 36
    assert shape_facts(inside, "", gated=True) == shape_facts(shapes, "", gated=True)
    assert visible_traits(inside, "") == visible_traits(shapes, "")


@pytest.mark.parametrize("name", ["Qwen3.5-0.8B", "Qwen3.5-35B-A3B", "Qwen3-Next-80B-A3B", "Qwen3-30B-A3B"])
def test_hugging_faces_names_show_the_same(name):
    """Of a distributed checkpoint that keeps them; linear_qkv is three there."""
    config = BY_NAME[name].config
    model = MODELS[config.model_type]
    shapes = {
        name: shape
        for name, shape in model.hf_tensors(config).items()
        if not name.startswith(model.vision_prefix or "-")
    }
    old = decoder_of(BY_NAME[name])
    assert shape_facts(shapes, "", gated=model.traits.gated_attention) == shape_facts(
        old, "", gated=model.traits.gated_attention
    )
    assert visible_traits(shapes, "") == visible_traits(old, "")


@each_text_only
def test_a_text_only_release_is_known_by_its_decoder(release):
    shapes = decoder_of(release)
    if release.config.model_type in AMBIGUOUS:
        with pytest.raises(ReferenceFault, match="qwen3_5_moe_text and of qwen3_next: no name tells them apart"):
            config_from_facts(shapes, DISPUTED, "")
        return
    made = config_from_facts(shapes, DISPUTED, "")
    assert geometry(made.hf_config) == release.config
    assert made.release == f"{release.name}, the one release that fits" or not made.release
    assert (made.hf_config["rope_theta"], made.hf_config["rope_scaling"]) == (1000000, None)
    with pytest.raises(ReferenceFault, match=r"does not say itself: rope_theta(, rms_norm_eps)?\n"):
        config_from_facts(shapes, [], "")


@pytest.mark.parametrize(
    ("name", "other"),
    [("Qwen3-VL-2B", "Qwen3-1.7B"), ("Qwen2.5-VL-7B", "Qwen2.5-7B"), ("Qwen3-VL-30B-A3B", "Qwen3-30B-A3B")],
)
def test_a_decoder_is_not_taken_for_that_of_a_model_with_a_tower(name, other):
    """They have the same shapes, and other ropes."""
    whole, alone = BY_NAME[name], BY_NAME[other]
    assert whole.config.text == alone.config.text
    shapes = shapes_of(whole.config, MODELS[whole.config.model_type].default_layout)
    decoder_alone = {n: s for n, s in shapes.items() if n.startswith("language_model.")}
    with pytest.raises(ReferenceFault, match=r"does not say itself: rope_theta(, rms_norm_eps)?\n"):
        config_from_facts(decoder_alone, [], "")
    made = config_from_facts(shapes, disputed(whole), "vision_model.")
    assert made.hf_config["model_type"] == whole.config.model_type


HYBRID_ARGS = {
    "num_layers": 4,
    "num_attention_heads": 8,
    "num_query_groups": 2,
    "vocab_size": 300,
    "rotary_base": 10000000,
    "rotary_percent": 0.25,
    "norm_epsilon": 1e-6,
    "linear_attention_freq": 4,
    "linear_num_key_heads": 4,
    "bos_token_id": 280,
    "eos_token_id": 282,
}
"""Of the tiny text-only Qwen3.5, which is no release."""


def hybrid_shapes(**changes):
    config = geometry(tiny_config("qwen3_5_text", text=changes))
    return config, decoder(config.text, gate=True)


def test_a_hybrid_is_made_of_its_args():
    config, shapes = hybrid_shapes()
    made = config_from_facts(shapes, [("args", HYBRID_ARGS | {"mtp_num_layers": None})], "")
    assert geometry(made.hf_config) == config
    assert made.hf_config["rope_parameters"] == {
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
    }
    assert made.hf_config["layer_types"] == ["linear_attention"] * 3 + ["full_attention"]
    assert not made.hf_config.keys() & {"rope_theta", "rope_scaling", "vision_config", "text_config"}
    shown = made.sources["the tensors' shapes"]
    assert {"layer_types", "linear_num_value_heads", "linear_key_head_dim", "mtp_num_hidden_layers"} <= set(shown)
    assert made.sources["rotary_percent in args"] == ["rope_parameters.partial_rotary_factor"]


@pytest.mark.parametrize("dim", [{"linear_key_head_dim": 8}, {"linear_num_key_heads": 4}])
def test_key_heads_and_their_width_give_one_another(dim):
    config, shapes = hybrid_shapes()
    args = {name: value for name, value in HYBRID_ARGS.items() if name != "linear_num_key_heads"}
    assert geometry(config_from_facts(shapes, [("args", args | dim)], "").hf_config) == config
    with pytest.raises(ReferenceFault, match=r"does not say itself: linear_num_key_heads, linear_key_head_dim\n"):
        config_from_facts(shapes, [("args", args)], "")
    with pytest.raises(MismatchError, match=r"linear_key_head_dim is 9 by linear_key_head_dim in args, but 8 by"):
        config_from_facts(shapes, [("args", args | dim | {"linear_num_key_heads": 4, "linear_key_head_dim": 9})], "")


@pytest.mark.parametrize(("shown", "stated", "heads"), [(1, None, 1), (1, 0, 1), (0, None, 0), (0, 1, 1), (0, 0, 0)])
def test_who_says_that_there_is_a_head_for_the_next_but_one_token(shown, stated, heads):
    config, shapes = hybrid_shapes(mtp_num_hidden_layers=shown)
    assert config.text.mtp == shown
    made = config_from_facts(shapes, [("args", HYBRID_ARGS | {"mtp_num_layers": stated})], "")
    assert made.hf_config["mtp_num_hidden_layers"] == heads


def test_a_release_without_its_head_is_that_release():
    release = BY_NAME["Qwen3.5-0.8B"]
    text = dataclasses.replace(release.config.text, mtp=0)
    shapes = decoder(text, "language_model.", gate=True)
    vision = {n: s for n, s in MODELS["qwen3_5"].hf_tensors(release.config).items() if n.startswith("model.visual.")}
    renamed = {n.replace("model.visual.", "vision_model."): s for n, s in vision.items()}
    renamed = {n.replace(".attn.qkv.", ".self_attention.linear_qkv."): s for n, s in renamed.items()}
    made = config_from_facts(shapes | renamed, [])
    assert made.release == "Qwen3.5-0.8B, the one release that fits"
    assert geometry(made.hf_config) == dataclasses.replace(release.config, text=text)
    assert made.hf_config["text_config"]["rope_parameters"] == {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "rope_type": "default",
        "rope_theta": 10000000,
        "partial_rotary_factor": 0.25,
    }


def test_an_irregular_hybrid_has_no_interval():
    kinds = ["full_attention", "linear_attention"] * 2
    config, shapes = hybrid_shapes(layer_types=kinds)
    made = config_from_facts(shapes, [("args", HYBRID_ARGS | {"linear_attention_freq": [0, 1, 0, 1]})], "")
    assert geometry(made.hf_config) == config
    assert (made.hf_config["layer_types"], made.hf_config["full_attention_interval"]) == (kinds, None)
    with pytest.raises(MismatchError, match=r"layer_types is \[1, 3\] by the tensors' shapes, but \[0, 1, 2\] by"):
        config_from_facts(shapes, [("args", HYBRID_ARGS)], "")


def test_transformers_agrees_with_a_made_config():
    release = BY_NAME["Qwen3-VL-30B-A3B"]
    made = config_from_facts(shapes_of(release.config), [])
    assert meta_shapes(made.hf_config) == MODELS["qwen3_vl_moe"].hf_tensors(release.config)


def test_the_disputed_epsilon_is_asked_for():
    with pytest.raises(ReferenceFault, match=r"does not say itself: rms_norm_eps\n"):
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
        ReferenceFault, match=r"does not say itself: num_attention_heads, num_key_value_heads, head_dim\n"
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
                "vision_model.patch_embed.proj.weight": (2, 2),
            },
            [],
        )
