"""The tiny models are witnesses only if every one of their parameters shows in the logits.

And only if transformers and the lists by hand in trainers/hub.py agree on what their parameters are.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from logits import forward, load
from metamodel import hf_model_config
from tiny import tiny_config, tiny_shapes, tiny_weights, write_side_files, write_tiny_hf, write_weights
from tiny_fields import ARCHITECTURES, TEXTS, VISIONS
from trainers.hub import shapes as hub_shapes

LATER = [kind for kind in TEXTS if kind not in ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")]
"""Those of which trainers/hub.py has lists."""


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("qwen3_vl_moe", "qwen2") else pytest.param(kind, marks=pytest.mark.slow) for kind in TEXTS],
)
def test_every_parameter_moves_the_logits(tmp_path, kind):
    config = tiny_config(kind)
    shapes = hub_shapes(config) if kind in LATER else tiny_shapes(config)
    write_tiny_hf(tmp_path, config, tensors=tiny_weights(shapes))
    model = load(tmp_path)
    expected = forward(model, config)
    generator = torch.Generator().manual_seed(1)
    still = {}
    for name, parameter in model.named_parameters():
        before = parameter.detach().clone()
        parameter.data += 0.3 * before.std(correction=0) * torch.randn(before.shape, generator=generator)
        moved = (forward(model, config) - expected).abs().max().item()
        parameter.data.copy_(before)
        if moved < 1e-3:
            still[name] = moved
    assert still == {}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", LATER)
def test_transformers_has_the_same_parameters(kind, tied):
    """But for the experts, which it holds in two tensors, and for the head that it does not have."""
    config = tiny_config(kind, tied=tied)
    auto = transformers.AutoModelForImageTextToText if kind in VISIONS else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(hf_model_config(config))
    assert type(model).__name__ == ARCHITECTURES[kind]
    theirs = {name: tuple(p.shape) for name, p in model.named_parameters()}
    ours = {n: shape for n, shape in hub_shapes(config).items() if not n.startswith("mtp.")}
    apart = [n for n in ours if ".experts.0." in n]
    for name in apart:  # 24 wide, 4 of them: gate and up one below the other
        ours[name.replace(".0.gate_proj.weight", ".gate_up_proj")] = (4, 48, 64)
        ours[name.replace(".0.down_proj.weight", ".down_proj")] = (4, 64, 24)
    assert theirs == {n: shape for n, shape in ours.items() if not n.endswith("_proj.weight") or ".experts." not in n}
    assert len(apart) == (12 if kind in ("qwen3_moe", "qwen3_next") else 0)


@pytest.mark.parametrize(
    ("hidden", "more", "moe", "keys", "parameters", "mtp"),
    [  # as published, or measured on the Hub's files
        (1024, {"intermediate_size": 3584, "num_hidden_layers": 24, "num_attention_heads": 8, "values": 16}, False,
         473, 852_985_920, (15, 20_452_864)),
        (5120, {"intermediate_size": 17408, "num_hidden_layers": 64, "num_attention_heads": 24, "groups": 4,
                "values": 48}, False, 1184, 27_356_728_560, (15, 424_699_392)),
        (2048, {"num_hidden_layers": 40, "num_attention_heads": 16, "values": 32, "experts": 256}, True,
         1026, 35_107_181_936, (785, 844_640_768)),
    ],
    ids=["0.8B", "27B", "35B-A3B"],
)  # fmt: skip
def test_the_lists_by_hand_are_those_of_the_releases(hidden, more, moe, keys, parameters, mtp):
    text = {name: value for name, value in more.items() if name not in ("groups", "values", "experts")}
    text |= {"hidden_size": hidden, "vocab_size": 248320, "head_dim": 256, "num_key_value_heads": more.get("groups", 2)}
    text |= {"linear_num_key_heads": 16, "linear_num_value_heads": more["values"]}
    text |= {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
    if moe:
        text |= {"num_experts": more["experts"], "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}
    tower = {"depth": 12, "hidden_size": 768, "intermediate_size": 3072} if hidden == 1024 else {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304}  # fmt: skip
    tower |= {"num_position_embeddings": 2304, "patch_size": 16, "out_hidden_size": hidden}
    found = hub_shapes(tiny_config("qwen3_5_moe" if moe else "qwen3_5", tied=hidden == 1024, text=text, vision=tower))
    head = {n: torch.Size(shape).numel() for n, shape in found.items() if n.startswith("mtp.")}
    rest = {n: torch.Size(shape).numel() for n, shape in found.items() if n not in head}
    assert (len(rest), sum(rest.values())) == (keys, parameters)
    assert (len(head), sum(head.values())) == mtp


def test_a_head_that_predicts_further_is_the_only_thing_left_over(tmp_path):
    config = tiny_config("qwen3_5")
    tensors = write_tiny_hf(tmp_path, config, tensors=tiny_weights(hub_shapes(config)))
    assert sum(n.startswith("mtp.") for n in tensors) == 15
    load(tmp_path)
    write_weights(tmp_path, tensors | {"model.language_model.extra.weight": torch.ones(3)})
    with pytest.raises(AssertionError, match=r"extra\.weight"):
        load(tmp_path)
    del tensors["model.language_model.layers.3.self_attn.q_norm.weight"]
    write_weights(tmp_path, tensors)
    with pytest.raises(AssertionError, match="q_norm"):
        load(tmp_path)


def test_numbers_of_a_hybrid_model():
    """Norms are zero-centred but for the vision tower's and the Gated DeltaNet's own."""
    shapes = hub_shapes(tiny_config("qwen3_5"))
    tensors = tiny_weights(shapes)
    norms = {n: t.float().mean().item() for n, t in tensors.items() if "norm" in n and n.endswith("weight")}
    about_one = {n for n, mean in norms.items() if abs(mean - 1) < 0.1}
    assert about_one == {n for n in norms if "visual" in n or "linear_attn" in n} and len(about_one) == 12
    assert all(abs(mean) < 0.1 for n, mean in norms.items() if n not in about_one) and len(norms) == 30
    wide = {n for n, t in tensors.items() if t.dtype == torch.float32}
    assert wide == {
        f"model.language_model.layers.{i}.linear_attn.{n}" for i in range(3) for n in ("A_log", "norm.weight")
    }
    assert all(torch.equal(tensors[n], tensors[n].bfloat16().float()) for n in wide)
    fine = tiny_weights(shapes, fine=True)
    assert not any(torch.equal(fine[n], fine[n].bfloat16().float()) for n in wide)
    assert {t.dtype for t in tiny_weights(shapes, delta_dtype="bfloat16").values()} == {torch.bfloat16}
    assert {t.dtype for t in tiny_weights(hub_shapes(tiny_config("qwen3_next"))).values()} == {torch.bfloat16}


def test_experts_in_one_tensor_have_the_scale_of_their_inputs():
    """64 of gate and up, 24 of down, whichever axis they are on."""
    ours = tiny_weights(hub_shapes(tiny_config("qwen3_5_moe")))
    theirs = tiny_weights(tiny_shapes(tiny_config("qwen3_vl_moe")))
    for tensors in (ours, theirs):
        for name, inputs in (("gate_up_proj", 64), ("down_proj", 24)):
            scale = tensors[f"model.language_model.layers.1.mlp.experts.{name}"].float().std().item()
            assert scale == pytest.approx(inputs**-0.5, rel=0.05)


@pytest.mark.parametrize("kind", LATER)
def test_processors_lie_beside_what_sees(tmp_path, kind):
    write_side_files(tmp_path, tiny_config(kind))
    names = {path.name for path in tmp_path.iterdir()}
    processors = {"preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json"}
    assert names & processors == (processors if kind in VISIONS else set())
    assert names - processors == {
        "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json"
    }  # fmt: skip


def test_weights_depend_on_seed_and_name_alone():
    shapes = tiny_shapes(tiny_config())
    name, other = "model.visual.pos_embed.weight", "lm_head.weight"
    few = tiny_weights({name: shapes[name]}, seed=3)
    assert torch.equal(few[name], tiny_weights(shapes, seed=3)[name])
    assert not torch.equal(few[name], tiny_weights(shapes, seed=4)[name])
    assert tiny_weights({other: shapes[other]}, dtype="float32")[other].dtype == torch.float32


@pytest.mark.versions
def test_the_tokenizer_files_make_a_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    write_tiny_hf(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("the <|image_pad|> hides").input_ids
    assert ids.count(286) == 1
    assert tokenizer.decode(ids) == "the <|image_pad|> hides"
