"""How a layer's norms are spelled: as modules of their own, or inside the linear layer behind them."""

from __future__ import annotations

_SPELLINGS = {
    "input_layernorm.": "input_norm.",
    "self_attention.linear_qkv.layer_norm_": "input_norm.",
    "self_attention.in_proj.layer_norm_": "input_norm.",
    "pre_mlp_layernorm.": "mlp_norm.",
    "mlp.linear_fc1.layer_norm_": "mlp_norm.",
}


def plain(kind: str) -> str:
    """A parameter's name within its layer, the norms spelled alike: input_norm.…, mlp_norm.…"""
    for spelled, name in _SPELLINGS.items():
        if kind.startswith(spelled):
            return name + kind[len(spelled) :]
    return kind
