"""Weights by the formulas: into a rank's model, or the whole model under mcore names.

fill(chunk, place, config, hf)     every parameter of a model chunk of megatron-core's
whole(config, hf)                  {canonical mcore name: full tensor}, one for each layer
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from vlconv.converters.models.shared.config import ModelConfig

from .families import stands_alone
from .formulas import Tensors, expected
from .names import language_names, vision_names
from .topology import Place

if TYPE_CHECKING:
    from .model import Chunk

_LAYER = re.compile(r"(?:language_model\.)?decoder\.layers\.(\d+)\.")


def fill(chunk: Chunk, place: Place, config: ModelConfig, hf: Tensors) -> None:
    """Give every parameter of a model chunk its values, and their dtype."""
    for name, parameter in chunk.named_parameters():
        values = expected(name, place, layer_of(chunk, name), config, hf, parameter.shape[0])
        assert values.shape == parameter.shape, f"{name}: {tuple(values.shape)}, the model has {tuple(parameter.shape)}"
        parameter.data = values.clone()


def layer_of(chunk: Chunk, name: str) -> int:
    """The global number of a parameter's language layer; -1 for other parameters."""
    return chunk.layer_number(int(found[1])) if (found := _LAYER.match(name)) else -1


def whole(config: ModelConfig, hf: Tensors, te: bool = True, bare: bool | None = None) -> Tensors:
    """Every tensor of the model unsharded and unpadded, one for each layer, experts on a leading axis.

    Args:
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        te: whether norms are named as with Transformer Engine, or as megatron-core's local modules name them.
        bare: whether the language model's names have no prefix; None: as the family has it.
    """
    tensors = {}
    prefix = "" if stands_alone(config, bare) else "language_model."
    for name in [f"{prefix}{name}" for name in language_names(config, te)] + vision_names(config, te):
        layer = int(found[1]) if (found := _LAYER.match(name)) else -1
        if ".experts.experts." in name:
            each = [name.replace("experts.experts", f"experts.local_experts.{e}") for e in range(config.text.experts)]
            tensors[name] = torch.stack([expected(n, Place(), layer, config, hf, 0) for n in each])
        else:
            tensors[name] = expected(name, Place(), layer, config, hf, config.text.vocab).clone()
    return tensors
