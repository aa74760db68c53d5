"""The section `peft` of a run_config.yaml: which of Megatron-Bridge's classes makes an adapter, of which modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ..layouts.layout import Layout
from ..tensors.rules import Table
from .to_megatron import PARTS, Named

LORA = "megatron.bridge.peft.lora.LoRA"
CANONICAL = "megatron.bridge.peft.canonical_lora.CanonicalLoRA"

SPELLED = {"q": "linear_q", "k": "linear_k", "v": "linear_v", "gate": "linear_fc1_gate", "up": "linear_fc1_up"}
"""What CanonicalLoRA's target_modules call a part."""


class Dim(NamedTuple):
    """The rank as Megatron-Bridge has it.

    Attributes:
        dim: of all modules.
        normalized: but of experts: theirs is that divided by the experts per token.
    """

    dim: int
    normalized: bool = False


def dim_of(named: Named, topk: int) -> Dim | None:
    """The rank; None where there are several, for which it has no word. `topk`: experts per token; 0: none."""
    others, experts = ranks_of(named, experts=False), ranks_of(named, experts=True)
    if len(others | experts) == 1:
        return Dim(min(others | experts))
    if topk and len(others) == len(experts) == 1 and min(others) // topk == min(experts):
        return Dim(min(others), normalized=True)
    return None


def ranks_of(named: Named, *, experts: bool) -> set[int]:
    """The ranks of experts' modules, or of the others."""
    modules = [module for module in named.modules if bool(module.experts) == experts]
    return {pair.rank for module in modules for pair in module.pairs if pair}


def peft_section(named: Named, layout: Layout, table: Table, dim: Dim | None) -> dict[str, Any]:
    """The section; without `dim` where ranks are several.

    Args:
        named: the adapter.
        layout: in whose names.
        table: the layout's.
        dim: the rank, if it is one.
    """
    section: dict[str, Any] = {
        "_target_": CANONICAL if named.canonical else LORA,
        "target_modules": target_modules(named, layout, table),
        "alpha": int(named.alpha) if float(named.alpha).is_integer() else named.alpha,
        "dropout": 0.0,
    }
    if ranks_of(named, experts=True):
        section["share_expert_adapters"] = False
    if dim:
        section["dim"] = dim.dim
    if dim and dim.normalized:
        section["normalize_moe_lora"] = True
    return section


def target_modules(named: Named, layout: Layout, table: Table) -> list[str]:
    """The fewest names and patterns that mean these modules and no others: a bare one is any module called so."""
    everywhere = {_in_memory(name.removesuffix(".weight")) for name in table.left() if name.endswith(".weight")}
    found: list[str] = []
    for kind in dict.fromkeys(module.kind for module in named.modules):
        wanted = {_in_memory(module.name) for module in named.modules if module.kind == kind}
        alike = {name for name in everywhere if name.rpartition(".")[2] == kind}
        found += next(
            ([pattern] for pattern in _patterns(kind, layout) if set(_meant(pattern, kind, alike)) == wanted),
            sorted(wanted),
        )
    return [spelled for pattern in found for spelled in _spelled(pattern, canonical=named.canonical)]


def _patterns(kind: str, layout: Layout) -> Iterator[str]:
    yield kind
    for prefix in (layout.text, f"{layout.text}decoder.", layout.tower):
        if prefix:
            yield f"{prefix}*.{kind}"


def _meant(pattern: str, kind: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if pattern == kind or fnmatchcase(name, pattern)]


def _spelled(pattern: str, *, canonical: bool) -> Iterator[str]:
    """A pattern as its class takes it: CanonicalLoRA has one for each part."""
    kind = pattern.rpartition(".")[2]
    if not canonical or kind not in PARTS:
        yield pattern
    else:
        yield from (pattern.removesuffix(kind) + SPELLED[part] for part in PARTS[kind])


def _in_memory(module: str) -> str:
    """The path of a module in the model: what torch_dist calls experts.experts is one module there."""
    return module.replace(".experts.experts.", ".experts.")
