"""Pairs gathered by what peft changes: a Linear, a router's weight, or one parameter that holds all experts of a layer.

Where several pairs change parts of one matrix (query, key and value rows of a vision tower's `attn.qkv`, gate and up of
an expert), peft has one pair of matrices for all of it: see factors.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...models import model_of
from ...models.shared.config import ModelConfig
from ..adapter import Adapter, Pair
from .matrices import Matrix, matrices

OUTER, INNER = "experts", "experts.base_layer"
"""Where peft puts the first and the second parameter of the experts' module that it wraps, the last one outermost."""


class Part(NamedTuple):
    """A pair, and which part of what peft changes it is.

    Attributes:
        pair: the change.
        expert: whose, of what holds all experts; 0 elsewhere.
        row: the first of its rows.
        slot: which part of one matrix it is, counted from its first row on.
    """

    pair: Pair
    expert: int
    row: int
    slot: int


@dataclass
class Target:
    """What has one lora_A and one lora_B.

    Attributes:
        module: where they lie, below `base_model.model.`.
        name: what peft calls it: in target_modules or, of a parameter, in target_parameters.
        parameter: it is a bare parameter, no Linear.
        shape: (out, in) of a matrix.
        experts: how many matrices it holds; 0: it is one.
        parts: the pairs.
    """

    module: str
    name: str
    parameter: bool
    shape: tuple[int, int]
    experts: int = 0
    parts: list[Part] = field(default_factory=list)


class Gathered(NamedTuple):
    """All targets of an adapter, in the model's order, and the pairs of modules that transformers does not have."""

    targets: list[Target]
    left: list[Pair]


def gather(adapter: Adapter, config: ModelConfig, *, packed: bool) -> Gathered:
    """The targets of an adapter.

    Args:
        adapter: whose pairs are those of the model's matrices.
        config: the model.
        packed: the experts of a layer are two parameters, as in transformers 5; else each of their matrices is a
            Linear.
    """
    known = matrices(config)
    targets: dict[str, Target] = {}
    left = []
    for pair in adapter.pairs:
        matrix = known[pair.module]
        if matrix.kind == "head":
            left.append(pair)
        elif matrix.kind == "expert" and packed:
            _add_expert(targets, pair, matrix, config)
        else:
            parameter = packed and (matrix.kind == "router" or _looks_like_an_experts(matrix, config))
            name = f"{matrix.path}.weight" if parameter else matrix.path
            target = targets.setdefault(name, Target(matrix.path, name, parameter, matrix.shape))
            row = pair.weight.offsets[0] if matrix.kind != "expert" else 0
            target.parts.append(Part(pair, 0, row, len(target.parts)))
    _name_experts(targets)
    return Gathered(list(targets.values()), left)


def _looks_like_an_experts(matrix: Matrix, config: ModelConfig) -> bool:
    """Whether peft takes a Linear for experts' by the end of its name: a shared expert's, or a dense layer's.

    Of models whose experts were modules before transformers 5 it takes each `gate_proj` in target_modules for that of
    all experts. As a parameter, by its weight's name, it is what it is.
    """
    once_modules = config.text.experts and model_of(config).traits.experts_on_hub == "per-expert"
    return bool(once_modules) and matrix.path.endswith((".gate_proj", ".up_proj", ".down_proj"))


def _add_expert(targets: dict[str, Target], pair: Pair, matrix: Matrix, config: ModelConfig) -> None:
    """The part of gate_up_proj or down_proj of all experts that one expert's matrix is."""
    rows, columns = matrix.shape
    part = pair.module.rpartition(".")[2]
    name = f"{matrix.experts}.{'down_proj' if part == 'down_proj' else 'gate_up_proj'}"
    shape = (rows, columns) if part == "down_proj" else (2 * rows, columns)
    target = targets.setdefault(name, Target("", name, True, shape, config.text.experts))
    slot = int(part == "up_proj")
    target.parts.append(Part(pair, matrix.expert, slot * rows, slot))


def _name_experts(targets: Mapping[str, Target]) -> None:
    """Where the two matrices of experts lie: down_proj is the module's last parameter, so it is wrapped last."""
    for target in targets.values():
        if target.experts:
            stem, _, part = target.name.rpartition(".")
            inner = part == "gate_up_proj" and f"{stem}.down_proj" in targets
            target.module = stem.removesuffix(OUTER) + (INNER if inner else OUTER)
