"""Qwen2.5-VL.

Its config.json, flat as on the Hub or with a text_config, and its tensors under the prefixes that every reader knows.
"""

from __future__ import annotations

from functools import partial

from ..errors import CorruptError
from .config import ModelConfig, VisionConfig
from .fields import Fields, Json
from .language import text_config, text_tensors
from .model import Model, Shapes
from .vision import blocks, linear, vision_config


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen2.5-VL config.json. It has no field for the head dimension.

    Hidden / heads in every version.
    """
    nested = hf_config.get("text_config") is not None
    text = Fields(hf_config["text_config"], "text_config") if nested else Fields(hf_config)
    hidden, heads = text.integer("hidden_size"), text.integer("num_attention_heads")
    if hidden % heads:
        raise CorruptError(
            f"config.json: {text.place('hidden_size')} {hidden} is not a multiple of {text.place('num_attention_heads')} {heads}"
        )
    return ModelConfig(
        "qwen2_5_vl", text_config(text, tied, head_dim=hidden // heads), vision_config(hf_config, qwen3=False)
    )


def vision_tensors(v: VisionConfig) -> Shapes:
    """Every tensor of the vision tower without its prefix.

    RMSNorm, a gated MLP with bias, no position table, no bias in the patch embedding.
    """
    norms: Shapes = {"norm1.weight": (v.hidden,), "norm2.weight": (v.hidden,)}
    attention = linear("attn.qkv", 3 * v.hidden, v.hidden) | linear("attn.proj", v.hidden, v.hidden)
    mlp = (
        linear("mlp.gate_proj", v.ffn, v.hidden)
        | linear("mlp.up_proj", v.ffn, v.hidden)
        | linear("mlp.down_proj", v.hidden, v.ffn)
    )
    tensors: Shapes = {"patch_embed.proj.weight": v.patch_shape}
    tensors |= blocks(v.depth, norms | attention | mlp)
    tensors["merger.ln_q.weight"] = (v.hidden,)
    return tensors | linear("merger.mlp.0", v.merged, v.merged) | linear("merger.mlp.2", v.out_hidden, v.merged)


QWEN2_5_VL = Model(
    model_type="qwen2_5_vl",
    architecture="Qwen2_5_VLForConditionalGeneration",
    text_prefix="model.",
    vision_prefix="visual.",
    read_config=read_config,
    read_text=partial(text_tensors, qkv_bias=True, qk_norm=False),
    read_vision=vision_tensors,
)
