"""What peft can change of a model: its matrices, under the Hub's names and under those of transformers' modules.

peft goes by the modules of the model in memory. Their paths are the Hub's names, but for a model with later prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ...models import model_of
from ...models.shared.config import ModelConfig
from ...models.shared.experts import expert_boxes, expert_shapes, hf_experts
from ...models.shared.model import MTP
from ...tensors.spec import Box, Shape

Kind = Literal["linear", "router", "expert", "head"]
"""A Linear; the router of a MoE layer, which is a bare parameter; a matrix of one expert, which is part of one; a
matrix of a multi-token-prediction head, which transformers does not have."""

EXPERTS = ".mlp.experts."

NOT_ADAPTED = ("embed_tokens.weight", "pos_embed.weight")
"""Matrices that are no Linear's: looked up by row."""


class Matrix(NamedTuple):
    """One matrix [out, in] of a model.

    Attributes:
        module: its name on the Hub without `.weight`; each expert's are named one by one.
        path: of that module in transformers' model.
        kind: what it is there.
        weight: the box of the Hub's tensor that it is.
        transpose: the Hub holds that box as [in, out].
        shape: (out, in).
        experts: of an expert's matrix the path of the module that holds all of them; else "".
        expert: its number.
    """

    module: str
    path: str
    kind: Kind
    weight: Box
    transpose: bool
    shape: tuple[int, int]
    experts: str = ""
    expert: int = 0


def matrices(config: ModelConfig) -> dict[str, Matrix]:
    """Every matrix by its module, in the model's order."""
    found: dict[str, Matrix] = {}
    stems: set[str] = set()
    for name, shape in model_of(config).hf_tensors(config).items():
        stem, inside, _ = name.partition(EXPERTS)
        if inside and stem not in stems:
            stems.add(stem)
            found |= {matrix.module: matrix for matrix in _experts(config, (stem + inside).rstrip("."))}
        elif not inside and name.endswith(".weight") and len(shape) == 2 and not name.endswith(NOT_ADAPTED):
            module = name.removesuffix(".weight")
            kind: Kind = "router" if module.endswith(".mlp.gate") else "linear"
            found[module] = _place(config, module, kind, Box(name, (0, 0), shape), shape)
    return found


def _experts(config: ModelConfig, stem: str) -> Iterator[Matrix]:
    """Gate, up and down of each expert of a layer in turn."""
    form = "per-expert" if stem.startswith(MTP) else model_of(config).traits.experts_on_hub
    alone = expert_shapes(hf_experts(stem, "per-expert"), config.text)
    boxes = expert_boxes(hf_experts(stem, form), config.text)
    for number, ((name, shape), box) in enumerate(zip(alone.items(), boxes, strict=True)):
        matrix = _place(config, name.removesuffix(".weight"), "expert", box, shape)
        yield matrix._replace(transpose=form == "transposed", experts=path_of(config, stem), expert=number // 3)


def _place(config: ModelConfig, module: str, kind: Kind, weight: Box, shape: Shape) -> Matrix:
    out, columns = shape
    kind = "head" if module.startswith(MTP) else kind
    return Matrix(module, path_of(config, module), kind, weight, False, (out, columns))


def path_of(config: ModelConfig, module: str) -> str:
    """The path in transformers' model of a module by its name on the Hub."""
    model = model_of(config)
    later = model.traits.later_prefixes
    for ours, theirs in zip(model.prefixes, later or model.prefixes, strict=True):
        if ours and module.startswith(ours):
            return theirs + module.removeprefix(ours)
    return module
