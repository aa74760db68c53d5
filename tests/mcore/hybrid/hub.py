"""Names and shapes of hybrids on the Hub, and values that suit them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from vlconv.converters.models.shared.config import ModelConfig, TextConfig

Named = Iterator[tuple[str, tuple[int, ...]]]


def delta_net(config: ModelConfig, at: str) -> Named:
    """A Gated DeltaNet: flat rows of q, k, v; Qwen3-Next has rows of q, k, v, z and of b, a for each key head."""
    c = config.text
    qkv, values = 2 * c.key_width + c.value_width, c.value_width
    if config.model_type == "qwen3_next":
        yield f"{at}.in_proj_qkvz.weight", (qkv + values, c.hidden)
        yield f"{at}.in_proj_ba.weight", (2 * c.value_heads, c.hidden)
    else:
        yield f"{at}.in_proj_qkv.weight", (qkv, c.hidden)
        yield f"{at}.in_proj_z.weight", (values, c.hidden)
        yield f"{at}.in_proj_b.weight", (c.value_heads, c.hidden)
        yield f"{at}.in_proj_a.weight", (c.value_heads, c.hidden)
    yield f"{at}.conv1d.weight", (qkv, 1, c.kernel)
    yield f"{at}.dt_bias", (c.value_heads,)
    yield f"{at}.A_log", (c.value_heads,)
    yield f"{at}.norm.weight", (c.value_dim,)
    yield f"{at}.out_proj.weight", (c.hidden, values)


def mtp_ends(c: TextConfig) -> Named:
    """What the MTP head has besides its layers."""
    yield "mtp.fc.weight", (c.hidden, 2 * c.hidden)
    yield "mtp.pre_fc_norm_embedding.weight", (c.hidden,)
    yield "mtp.pre_fc_norm_hidden.weight", (c.hidden,)
    yield "mtp.norm.weight", (c.hidden,)


def values(name: str, shape: tuple[int, ...], generator: Generator, scale: float) -> Tensor:
    """Random values of a tensor of the language model or the MTP head.

    Norms are zero-centred but for the one of a Gated DeltaNet, from which 1 can be taken exactly in bfloat16. Decays
    are spread from almost none to almost all, so that no two heads of a Gated DeltaNet are alike, whatever the scale.
    """
    if name.endswith("linear_attn.norm.weight"):
        return torch.rand(shape, generator=generator) * 1.35 + 0.55
    if name.endswith("linear_attn.A_log"):
        return torch.rand(shape, generator=generator) * 4 - 3
    return torch.randn(shape, generator=generator) * (1 if name.endswith("linear_attn.dt_bias") else scale)
