"""The formulas of vision towers made of megatron-core's modules, as mbridge has them."""

from __future__ import annotations

from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from .families import old_tower, vision_top
from .norms import plain
from .slices import Tensors, columns, gated, rows
from .topology import Place


def vision(rest: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """The values of a local parameter of the tower.

    Args:
        rest: its name behind `vision_model.`.
        place: where the rank stands.
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
    """
    top = vision_top(config)
    if rest.startswith("decoder.layers."):
        block, kind = rest.split(".", 3)[2:]
        return _block(plain(kind), f"{top}.blocks.{block}", place, config, hf)
    # Qwen3-VL's mergers; Qwen2.5-VL's merger is the decoder's last norm and a projection.
    theirs = rest.removeprefix("decoder.").replace("patch_norm", "norm")
    theirs = theirs.replace("final_layernorm", "merger.ln_q").replace("projection.encoder.linear_fc1", "merger.mlp.0")
    theirs = theirs.replace("projection.encoder.linear_fc2", "merger.mlp.2")
    return _linear(rest, hf[f"{top}.{theirs}"], place)


def _block(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    module, _, last = kind.rpartition(".")
    if module == "self_attention.linear_qkv":
        qkv = hf[f"{h}.attn.qkv.{last}"]
        # [3, heads, head_dim, …] -> [heads, 3, head_dim, …]: every head with its own q, k, v.
        per_head = qkv.reshape(3, config.tower.heads, -1, *qkv.shape[1:]).transpose(0, 1)
        return rows(per_head, place.tp, place.tp_rank).reshape(-1, *qkv.shape[1:])
    if old_tower(config) and module.startswith("mlp."):
        return gated(module.removeprefix("mlp."), last, f"{h}.mlp", place, hf)
    theirs = {"input_norm": "norm1", "mlp_norm": "norm2", "self_attention.linear_proj": "attn.proj"}
    return _linear(kind, hf[f"{h}.{theirs.get(module, module)}.{last}"], place)


def _linear(kind: str, tensor: Tensor, place: Place) -> Tensor:
    """A part of what is not gated: fc1 by rows, with its bias; proj and fc2 by columns, their bias whole.

    All else whole.
    """
    if kind.endswith(("linear_fc1.weight", "linear_fc1.bias")):
        return rows(tensor, place.tp, place.tp_rank)
    if kind.endswith(("linear_fc2.weight", "linear_proj.weight")):
        return columns(tensor, place.tp, place.tp_rank)
    return tensor
