"""Tiny configs with every trait of the real ones, and random Hugging Face tensors for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch

from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig

from .formulas import language_top, vision_top

# No two sizes that could be confused are equal: heads x head_dim differs from hidden, an expert is not square, 248 rows
# need padding to 256.
_TEXT: dict[str, Any] = {"layers": 4, "hidden": 64, "heads": 8, "groups": 4, "head_dim": 16, "ffn": 96, "vocab": 248}
_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden": 32,
    "heads": 4,
    "ffn": 80,
    "out_hidden": 64,
    "patch": 4,
    "temporal_patch": 2,
    "channels": 3,
    "merge": 2,
}


def tiny(tied: bool = False, moe: bool = False, dense_layers: Iterable[int] = (), **text: int) -> ModelConfig:
    """A tiny Qwen3-VL.

    Args:
        tied: whether the embedding is the output layer too.
        moe: Qwen3-VL-MoE: four experts, two chosen.
        dense_layers: layers without experts, of a MoE model; megatron-core then writes per-layer keys, whatever form is
            asked for.
        text: other sizes of the language model, by TextConfig's field names.
    """
    experts: dict[str, Any] = {"experts": 4, "moe_ffn": 24, "dense_layers": frozenset(dense_layers)} if moe else {}
    language = TextConfig(**{**_TEXT, "tied": tied, **experts, **text})
    vision = VisionConfig(**_VISION, positions=16, deepstack=(0, 2))
    return ModelConfig("qwen3_vl_moe" if moe else "qwen3_vl", language, vision)


def tiny_2_5(tied: bool = False) -> ModelConfig:
    """A tiny Qwen2.5-VL: heads x head_dim is hidden, as transformers has no other."""
    language = TextConfig(**{**_TEXT, "head_dim": 8, "tied": tied})
    return ModelConfig("qwen2_5_vl", language, VisionConfig(**_VISION))


def hf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face names, as on the Hub, and shapes."""
    old = config.model_type == "qwen2_5_vl"
    vision = _vision_2_5(config.vision, vision_top(config)) if old else _vision(config.vision, vision_top(config))
    shapes = {**dict(_language(config.text, language_top(config), old)), **dict(vision)}
    if not config.text.tied:
        shapes["lm_head.weight"] = (config.text.vocab, config.text.hidden)
    return shapes


def random_hf_tensors(
    config: ModelConfig, seed: int = 0, float32: Iterable[str] = (), scale: float = 1.0
) -> dict[str, torch.Tensor]:
    """Random bfloat16 tensors under the Hub's names.

    Args:
        config: the model.
        seed: of the numbers.
        float32: patterns (fnmatch) of names that become float32 instead. Stacked layers share one dtype, and so do q,
            k, v and gate, up: name all of them.
        scale: standard deviation; norms are around 1.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = tuple(float32)
    tensors = {}
    for name, shape in hf_shapes(config).items():
        values = torch.randn(shape, generator=generator) * scale
        values = values + 1 if len(shape) == 1 and not name.endswith("bias") else values
        tensors[name] = values if any(fnmatchcase(name, p) for p in patterns) else values.to(torch.bfloat16)
    return tensors


def _language(c: TextConfig, top: str, old: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{top}.embed_tokens.weight", (c.vocab, c.hidden)
    yield f"{top}.norm.weight", (c.hidden,)
    for layer in range(c.layers):
        at = f"{top}.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (c.hidden,)
        yield f"{at}.post_attention_layernorm.weight", (c.hidden,)
        for x, heads in (("q", c.heads), ("k", c.groups), ("v", c.groups)):
            yield f"{at}.self_attn.{x}_proj.weight", (heads * c.head_dim, c.hidden)
            if old:
                yield f"{at}.self_attn.{x}_proj.bias", (heads * c.head_dim,)
        yield f"{at}.self_attn.o_proj.weight", (c.hidden, c.heads * c.head_dim)
        if not old:
            yield f"{at}.self_attn.q_norm.weight", (c.head_dim,)
            yield f"{at}.self_attn.k_norm.weight", (c.head_dim,)
        if c.is_moe(layer):
            yield f"{at}.mlp.gate.weight", (c.experts, c.hidden)
            yield f"{at}.mlp.experts.gate_up_proj", (c.experts, c.hidden, 2 * c.moe_ffn)
            yield f"{at}.mlp.experts.down_proj", (c.experts, c.moe_ffn, c.hidden)
        else:
            yield f"{at}.mlp.gate_proj.weight", (c.ffn, c.hidden)
            yield f"{at}.mlp.up_proj.weight", (c.ffn, c.hidden)
            yield f"{at}.mlp.down_proj.weight", (c.hidden, c.ffn)


def _vision(c: VisionConfig, top: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _biased(f"{top}.patch_embed.proj", c.patch_shape)
    yield f"{top}.pos_embed.weight", (c.positions, c.hidden)
    for block in range(c.depth):
        at = f"{top}.blocks.{block}"
        yield from _biased(f"{at}.norm1", (c.hidden,))
        yield from _biased(f"{at}.norm2", (c.hidden,))
        yield from _biased(f"{at}.attn.qkv", (3 * c.hidden, c.hidden))
        yield from _biased(f"{at}.attn.proj", (c.hidden, c.hidden))
        yield from _biased(f"{at}.mlp.linear_fc1", (c.ffn, c.hidden))
        yield from _biased(f"{at}.mlp.linear_fc2", (c.hidden, c.ffn))
    mergers = {f"{top}.merger": c.hidden} | {
        f"{top}.deepstack_merger_list.{i}": c.merged for i in range(len(c.deepstack))
    }
    for at, width in mergers.items():
        yield from _biased(f"{at}.norm", (width,))
        yield from _biased(f"{at}.linear_fc1", (c.merged, c.merged))
        yield from _biased(f"{at}.linear_fc2", (c.out_hidden, c.merged))


def _vision_2_5(c: VisionConfig, top: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{top}.patch_embed.proj.weight", c.patch_shape
    for block in range(c.depth):
        at = f"{top}.blocks.{block}"
        yield f"{at}.norm1.weight", (c.hidden,)
        yield f"{at}.norm2.weight", (c.hidden,)
        yield from _biased(f"{at}.attn.qkv", (3 * c.hidden, c.hidden))
        yield from _biased(f"{at}.attn.proj", (c.hidden, c.hidden))
        yield from _biased(f"{at}.mlp.gate_proj", (c.ffn, c.hidden))
        yield from _biased(f"{at}.mlp.up_proj", (c.ffn, c.hidden))
        yield from _biased(f"{at}.mlp.down_proj", (c.hidden, c.ffn))
    yield f"{top}.merger.ln_q.weight", (c.hidden,)
    yield from _biased(f"{top}.merger.mlp.0", (c.merged, c.merged))
    yield from _biased(f"{top}.merger.mlp.2", (c.out_hidden, c.merged))


def _biased(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
