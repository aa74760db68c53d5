"""Names and shapes of a decoder as megatron-core has them, in the canonical form that formats give: a tensor per layer,
experts on a leading axis, a Gated DeltaNet's first projection in one tensor.

Restated from megatron-core's modules, for models whose layouts are tested elsewhere.
"""

from __future__ import annotations

from vlconv.converters.models.shared.config import TextConfig

Shapes = dict[str, tuple[int, ...]]


def decoder(c: TextConfig, prefix: str = "", *, gate: bool = False, bias: bool = False, norms: bool = True) -> Shapes:
    """A decoder with its embedding and, where it is not tied, its output layer.

    Args:
        c: its integers.
        prefix: what stands before all names.
        gate: attention has one.
        bias: queries, keys and values have one.
        norms: queries and keys are normalised.
    """
    shapes: Shapes = {"embedding.word_embeddings.weight": (c.vocab, c.hidden)}
    if not c.tied:
        shapes["output_layer.weight"] = (c.vocab, c.hidden)
    for i in range(c.layers):
        mixer = delta_net(c) if i in c.linear_layers else attention(c, gate, bias, norms)
        shapes |= {f"decoder.layers.{i}.{name}": shape for name, shape in (mixer | mlp(c, i)).items()}
    if c.mtp:
        shapes |= {f"mtp.layers.0.{name}.weight": (c.hidden,) for name in ("enorm", "hnorm", "final_layernorm")}
        shapes["mtp.layers.0.eh_proj.weight"] = (c.hidden, 2 * c.hidden)
        inner = attention(c, gate, bias, norms) | mlp(c, c.layers - 1)
        shapes |= {f"mtp.layers.0.transformer_layer.{name}": shape for name, shape in inner.items()}
    return {prefix + name: shape for name, shape in shapes.items()} | {"decoder.final_layernorm.weight": (c.hidden,)}


def attention(c: TextConfig, gate: bool, bias: bool, norms: bool) -> Shapes:
    rows = ((2 if gate else 1) * c.heads + 2 * c.groups) * c.head_dim
    shapes: Shapes = {
        "self_attention.linear_qkv.weight": (rows, c.hidden),
        "self_attention.linear_proj.weight": (c.hidden, c.heads * c.head_dim),
    }
    if bias:
        shapes["self_attention.linear_qkv.bias"] = (rows,)
    if norms:
        shapes |= {f"self_attention.{name}_layernorm.weight": (c.head_dim,) for name in "qk"}
    return shapes


def delta_net(c: TextConfig) -> Shapes:
    keys, values = c.key_heads * c.key_dim, c.value_heads * c.value_dim
    return {
        "self_attention.in_proj.weight": (2 * keys + 2 * values + 2 * c.value_heads, c.hidden),
        "self_attention.conv1d.weight": (2 * keys + values, 1, c.kernel),
        "self_attention.A_log": (c.value_heads,),
        "self_attention.dt_bias": (c.value_heads,),
        "self_attention.out_norm.weight": (c.value_dim,),
        "self_attention.out_proj.weight": (c.hidden, values),
    }


def mlp(c: TextConfig, layer: int) -> Shapes:
    if not c.experts or layer in c.dense_layers:
        return {"mlp.linear_fc1.weight": (2 * c.ffn, c.hidden), "mlp.linear_fc2.weight": (c.hidden, c.ffn)}
    shapes: Shapes = {
        "mlp.router.weight": (c.experts, c.hidden),
        "mlp.experts.experts.linear_fc1.weight": (c.experts, 2 * c.moe_ffn, c.hidden),
        "mlp.experts.experts.linear_fc2.weight": (c.experts, c.hidden, c.moe_ffn),
    }
    if c.shared_ffn:
        shapes["mlp.shared_experts.linear_fc1.weight"] = (2 * c.shared_ffn, c.hidden)
        shapes["mlp.shared_experts.linear_fc2.weight"] = (c.hidden, c.shared_ffn)
        shapes["mlp.shared_experts.gate_weight"] = (1, c.hidden)
    return shapes


HUGGING_FACE_INSIDE = {
    "self_attention.in_proj.weight": "in_proj_qkv.weight",
    "self_attention.conv1d.weight": "conv1d.weight",
    "self_attention.A_log": "A_log",
    "self_attention.dt_bias": "dt_bias",
    "self_attention.out_norm.weight": "norm.weight",
    "self_attention.out_proj.weight": "out_proj.weight",
}
"""The same where a trainer keeps Hugging Face's module in the place of Megatron's."""


def with_hugging_face_inside(shapes: Shapes, module: str) -> Shapes:
    """With Hugging Face's Gated DeltaNet as `module`: "self_attention." or "self_attention.linear_attn."."""
    found: Shapes = {}
    for name, shape in shapes.items():
        end = next((end for end in HUGGING_FACE_INSIDE if name.endswith(f".{end}")), None)
        found[name if end is None else name.removesuffix(end) + module + HUGGING_FACE_INSIDE[end]] = shape
    return found
