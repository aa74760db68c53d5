"""The tiny models are witnesses only if every one of their parameters shows in the logits."""

from __future__ import annotations

import pytest
import torch
from logits import forward, load
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf


@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"])
def test_every_parameter_moves_the_logits(tmp_path, kind):
    config = tiny_config(kind)
    write_tiny_hf(tmp_path, config)
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
