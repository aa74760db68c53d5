"""Names and shapes of Hugging Face checkpoints, as on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig

from .families import biased, hybrid, language_top, old_tower, vision_top
from .hybrid import hub as hybrids

Named = Iterator[tuple[str, tuple[int, ...]]]
Form = Literal["one by one", "packed", "transposed"]
"""How experts are held: a tensor each, or on an axis; [E, 2M, H] and [E, H, M], or [E, H, 2M] and [E, M, H]."""


def hf_shapes(config: ModelConfig, packed_mtp: bool = False) -> dict[str, tuple[int, ...]]:
    """Hugging Face names, as on the Hub, and shapes.

    Args:
        config: the model.
        packed_mtp: whether the MTP head's experts are packed, as Qwen3.6 has them, or one by one, as Qwen3.5.
    """
    c, top = config.text, language_top(config)
    shapes = {f"{top}.embed_tokens.weight": (c.vocab, c.hidden), f"{top}.norm.weight": (c.hidden,)}
    for layer in range(c.layers):
        at = f"{top}.layers.{layer}"
        mixer = hybrids.delta_net(config, f"{at}.linear_attn") if c.is_linear(layer) else _attention(config, at)
        shapes |= dict(_layer(config, at, mixer, c.is_moe(layer), _experts_form(config)))
    for layer in range(c.mtp):
        at = f"mtp.layers.{layer}"
        form = "packed" if packed_mtp else "one by one"
        shapes |= dict(_layer(config, at, _attention(config, at), c.experts > 0, form)) | dict(hybrids.mtp_ends(c))
    if config.vision:
        tower = _vision_2_5 if old_tower(config) else _vision
        shapes |= dict(tower(config.vision, vision_top(config)))
    if not config.text.tied:
        shapes["lm_head.weight"] = (c.vocab, c.hidden)
    return shapes


def _experts_form(config: ModelConfig) -> Form:
    forms: dict[str, Form] = {"qwen3_vl_moe": "transposed", "qwen3_5_moe": "packed", "qwen3_5_moe_text": "packed"}
    return forms.get(config.model_type, "one by one")


def _layer(config: ModelConfig, at: str, mixer: Named, moe: bool, form: Form) -> Named:
    c = config.text
    yield f"{at}.input_layernorm.weight", (c.hidden,)
    yield f"{at}.post_attention_layernorm.weight", (c.hidden,)
    yield from mixer
    if not moe:
        yield from _mlp(f"{at}.mlp", c.hidden, c.ffn)
        return
    yield f"{at}.mlp.gate.weight", (c.experts, c.hidden)
    yield from _experts(f"{at}.mlp.experts", c, form)
    if c.shared_ffn:
        yield from _mlp(f"{at}.mlp.shared_expert", c.hidden, c.shared_ffn)
        yield f"{at}.mlp.shared_expert_gate.weight", (1, c.hidden)


def _attention(config: ModelConfig, layer: str) -> Named:
    c, at = config.text, f"{layer}.self_attn"
    # A hybrid's query head has its gate behind it.
    for x, heads in (("q", c.heads * (1 + hybrid(config))), ("k", c.groups), ("v", c.groups)):
        yield f"{at}.{x}_proj.weight", (heads * c.head_dim, c.hidden)
        if biased(config):
            yield f"{at}.{x}_proj.bias", (heads * c.head_dim,)
    yield f"{at}.o_proj.weight", (c.hidden, c.heads * c.head_dim)
    if not biased(config):
        yield f"{at}.q_norm.weight", (c.head_dim,)
        yield f"{at}.k_norm.weight", (c.head_dim,)


def _experts(at: str, c: TextConfig, form: Form) -> Named:
    if form == "one by one":
        for expert in range(c.experts):
            yield from _mlp(f"{at}.{expert}", c.hidden, c.moe_ffn)
        return
    fc1, fc2 = (2 * c.moe_ffn, c.hidden), (c.hidden, c.moe_ffn)
    yield f"{at}.gate_up_proj", (c.experts, *(fc1 if form == "packed" else reversed(fc1)))
    yield f"{at}.down_proj", (c.experts, *(fc2 if form == "packed" else reversed(fc2)))


def _mlp(at: str, hidden: int, ffn: int) -> Named:
    """A gated MLP."""
    yield f"{at}.gate_proj.weight", (ffn, hidden)
    yield f"{at}.up_proj.weight", (ffn, hidden)
    yield f"{at}.down_proj.weight", (hidden, ffn)


def _vision(c: VisionConfig, top: str) -> Named:
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


def _vision_2_5(c: VisionConfig, top: str) -> Named:
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


def _biased(name: str, shape: tuple[int, ...]) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
