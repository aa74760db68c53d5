"""The tiny models are witnesses only if every one of their parameters shows in the logits."""

from __future__ import annotations

import pytest
import torch
from logits import inputs, load, logits
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf


@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_moves_the_logits(tmp_path, kind, tied):
    config = tiny_config(kind, tied=tied)
    write_tiny_hf(tmp_path, config)
    model = load(tmp_path)
    expected = logits(tmp_path)
    generator = torch.Generator().manual_seed(1)
    batch = inputs(config)
    if not hasattr(model.config.text_config, "rope_parameters"):
        del batch["mm_token_type_ids"]
    still = {}
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            before = parameter.clone()
            parameter += 0.3 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
            moved = (model(**batch).logits - expected).abs().max().item()
            parameter.copy_(before)
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
