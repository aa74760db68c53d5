"""Qwen3-VL, dense: its config.json and its tensors on the Hugging Face side."""

from __future__ import annotations

from functools import partial

from .config import ModelConfig, VisionConfig
from .fields import Fields, Json
from .language import text_config, text_tensors
from .model import Model, Shapes
from .vision import blocks, layer_norm, linear, vision_config


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-VL config.json."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_vl", text_config(text, tied), vision_config(hf_config, qwen3=True))


def vision_tensors(v: VisionConfig) -> Shapes:
    """Every tensor of the vision tower without its prefix.

    LayerNorm with bias, an ungated MLP, one merger after the last block and one for each deepstack index.
    """
    norms = layer_norm("norm1", v.hidden) | layer_norm("norm2", v.hidden)
    attention = linear("attn.qkv", 3 * v.hidden, v.hidden) | linear("attn.proj", v.hidden, v.hidden)
    mlp = linear("mlp.linear_fc1", v.ffn, v.hidden) | linear("mlp.linear_fc2", v.hidden, v.ffn)
    tensors: Shapes = {
        "patch_embed.proj.weight": v.patch_shape,
        "patch_embed.proj.bias": (v.hidden,),
        "pos_embed.weight": (v.positions, v.hidden),
    }
    tensors |= blocks(v.depth, norms | attention | mlp)
    # The last merger normalises before patches are laid side by side, the deepstack ones after.
    tensors |= _merger("merger", v, v.hidden)
    for index in range(len(v.deepstack)):
        tensors |= _merger(f"deepstack_merger_list.{index}", v, v.merged)
    return tensors


def _merger(name: str, v: VisionConfig, norm: int) -> Shapes:
    fc1, fc2 = linear(f"{name}.linear_fc1", v.merged, v.merged), linear(f"{name}.linear_fc2", v.out_hidden, v.merged)
    return layer_norm(f"{name}.norm", norm) | fc1 | fc2


QWEN3_VL = Model(
    model_type="qwen3_vl",
    architecture="Qwen3VLForConditionalGeneration",
    text_prefix="model.language_model.",
    vision_prefix="model.visual.",
    read_config=read_config,
    read_text=partial(text_tensors, qkv_bias=False, qk_norm=True),
    read_vision=vision_tensors,
)
