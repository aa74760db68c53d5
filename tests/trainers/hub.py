"""Names and shapes of the text-only and the hybrid models as the Hub's files have them, by hand."""

from __future__ import annotations

from typing import Any

from .sizes import Sizes, sizes

Shapes = dict[str, tuple[int, ...]]


def shapes(config: dict[str, Any], *, packed_mtp: bool = False) -> Shapes:
    """Every tensor of a release.

    Args:
        config: config.json of a model without deepstack and without windows.
        packed_mtp: the multi-token-prediction head's experts in two tensors, as in Qwen3.6; else each by itself.
    """
    s, text = sizes(config), config.get("text_config", config)
    hidden, vocab = text["hidden_size"], text["vocab_size"]
    out: Shapes = {f"{s.text}embed_tokens.weight": (vocab, hidden), f"{s.text}norm.weight": (hidden,)}
    for i in range(s.layers):
        mixer = delta_net(s, hidden) if s.delta and (i + 1) % text["full_attention_interval"] else attention(s, text)
        out |= {f"{s.text}layers.{i}.{name}": shape for name, shape in (mixer | mlp(s, text)).items()}
    if not s.tied:
        out["lm_head.weight"] = (vocab, hidden)
    if text.get("mtp_num_hidden_layers"):
        out |= mtp(s, text, packed_mtp)
    return out | (tower(config["vision_config"], s.visual) if "vision_config" in config else {})


def attention(s: Sizes, text: dict[str, Any]) -> Shapes:
    """Queries have as many rows again where they are gated."""
    hidden, width = text["hidden_size"], text.get("head_dim", text["hidden_size"] // s.heads)
    rows = {"q": (2 if s.delta else 1) * s.heads * width, "k": s.groups * width, "v": s.groups * width}
    out: Shapes = {f"self_attn.{x}_proj.weight": (n, hidden) for x, n in rows.items()}
    if s.kind == "qwen2":
        out |= {f"self_attn.{x}_proj.bias": (n,) for x, n in rows.items()}
    else:
        out |= {"self_attn.q_norm.weight": (width,), "self_attn.k_norm.weight": (width,)}
    return out | {"self_attn.o_proj.weight": (hidden, s.heads * width)}


def delta_net(s: Sizes, hidden: int) -> Shapes:
    """A Gated DeltaNet: Qwen3-Next's projections are two, Qwen3.5's four."""
    keys, values, mixed = s.key_heads * s.key_dim, s.value_heads * s.value_dim, 2 * s.key_heads * s.key_dim
    if s.kind == "qwen3_next":
        rows = {"qkvz": mixed + 2 * values, "ba": 2 * s.value_heads}
    else:
        rows = {"qkv": mixed + values, "z": values, "b": s.value_heads, "a": s.value_heads}
    out: Shapes = {f"linear_attn.in_proj_{part}.weight": (n, hidden) for part, n in rows.items()}
    return out | {
        "linear_attn.conv1d.weight": (keys + keys + values, 1, s.kernel),
        "linear_attn.dt_bias": (s.value_heads,),
        "linear_attn.A_log": (s.value_heads,),
        "linear_attn.norm.weight": (s.value_dim,),
        "linear_attn.out_proj.weight": (hidden, values),
    }


def mlp(s: Sizes, text: dict[str, Any], packed: bool | None = None) -> Shapes:
    """What follows the attention, with both norms."""
    hidden = text["hidden_size"]
    norms: Shapes = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if not s.experts:
        return norms | gated("mlp.", hidden, text["intermediate_size"])
    inner, out = text["moe_intermediate_size"], norms | {"mlp.gate.weight": (s.experts, hidden)}
    if s.kind.startswith("qwen3_5") if packed is None else packed:
        out["mlp.experts.gate_up_proj"] = (s.experts, 2 * inner, hidden)
        out["mlp.experts.down_proj"] = (s.experts, hidden, inner)
    else:
        for e in range(s.experts):
            out |= gated(f"mlp.experts.{e}.", hidden, inner)
    if "shared_expert_intermediate_size" in text:
        out |= gated("mlp.shared_expert.", hidden, text["shared_expert_intermediate_size"])
        out["mlp.shared_expert_gate.weight"] = (1, hidden)
    return out


def gated(at: str, hidden: int, inner: int) -> Shapes:
    """Gate, up and down."""
    wide = (inner, hidden)
    return {f"{at}gate_proj.weight": wide, f"{at}up_proj.weight": wide, f"{at}down_proj.weight": (hidden, inner)}


def mtp(s: Sizes, text: dict[str, Any], packed: bool) -> Shapes:
    """The multi-token-prediction head: one layer of full attention."""
    hidden = text["hidden_size"]
    out: Shapes = {"mtp.fc.weight": (hidden, 2 * hidden)}
    out |= {f"mtp.{name}.weight": (hidden,) for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    layer = attention(s, text) | mlp(s, text, packed)
    return out | {f"mtp.layers.0.{name}": shape for name, shape in layer.items()}


def tower(vision: dict[str, Any], at: str) -> Shapes:
    """Qwen3-VL's vision tower without deepstack."""
    width, inner, merged = vision["hidden_size"], vision["intermediate_size"], 4 * vision["hidden_size"]
    modules: dict[str, tuple[int, ...]] = {
        "patch_embed.proj": (width, 3, 2, vision["patch_size"], vision["patch_size"]),
        "merger.norm": (width,),
        "merger.linear_fc1": (merged, merged),
        "merger.linear_fc2": (vision["out_hidden_size"], merged),
    }
    for i in range(vision["depth"]):
        modules |= {
            f"blocks.{i}.norm1": (width,),
            f"blocks.{i}.norm2": (width,),
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.mlp.linear_fc1": (inner, width),
            f"blocks.{i}.mlp.linear_fc2": (width, inner),
        }
    out: Shapes = {f"{at}pos_embed.weight": (vision["num_position_embeddings"], width)}
    for name, shape in modules.items():
        out |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
    return out
