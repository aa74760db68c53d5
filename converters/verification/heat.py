"""How far two sides are apart, layer by layer and module by module: what training has changed, or where a fault is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import nan

from ..report import Difference, HeatMap
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER

COLUMNS = (
    *("q", "k", "v", "qkv", "o", "q/k", "gdn", "gate", "up", "fc1", "fc2", "down"),
    *("router", "experts", "shared", "norms", "emb", "head", "other"),
)
"""In the order in which they are shown. q/k: their norms; gdn: a Gated DeltaNet."""

_BY_PART = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "q_norm": "q/k",
    "k_norm": "q/k",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "linear_fc1": "fc1",
    "linear_fc2": "fc2",
    "shared_expert_gate": "shared",
    "qkv": "qkv",
    "norm": "norms",
    "norm1": "norms",
    "norm2": "norms",
    "input_layernorm": "norms",
    "post_attention_layernorm": "norms",
}
"""Modules by the last word of their names on the Hub that is one of these."""


def heat_map(names: Sequence[str], differences: Sequence[Difference]) -> HeatMap | None:
    """The map of two sides; None where no number differs, or nothing is in a layer.

    Args:
        names: of all tensors that were compared, on the Hub.
        differences: with how far they are off.
    """
    if all(d.relative is None for d in differences):
        return None
    # A sample may miss what differs: that is not the same, and no number.
    apart = {d.tensor: d.relative or nan for d in differences if d.count or d.kind != "dtype"}
    cells: dict[tuple[str, str], float | None] = {}
    for name in names:
        at = _row(name), _column(name)
        cells[at] = HeatMap.worst([cells.get(at), apart.get(name, 0.0)])
    rows = sorted(dict.fromkeys(row for row, _ in cells), key=_place)
    columns = [column for column in COLUMNS if any((row, column) in cells for row in rows)]
    if rows == [""]:
        return None
    return HeatMap(rows, columns, [[cells.get((row, column)) for column in columns] for row in rows])


def _place(row: str) -> tuple[bool, bool, int]:
    """The decoder's layers, the tower's, and what is in none."""
    return row == "", row.startswith("vision"), int(row.split()[-1]) if row else 0


def _row(name: str) -> str:
    parts = name.split(".")
    for before, part in pairwise(parts):
        if before in ("layers", "blocks") and part.isdecimal() and len(part) < 6 and parts[0] != "mtp":
            return f"vision {int(part)}" if before == "blocks" else str(int(part))
    return ""


def _column(name: str) -> str:
    parts = name.split(".")
    if name.endswith(OUTPUT_LAYER):
        return "head"
    if name.endswith(EMBEDDING):
        return "emb"
    for word, column in (("linear_attn", "gdn"), ("shared_expert", "shared"), ("experts", "experts")):
        if word in parts:
            return column
    if parts[-3:-1] == ["mlp", "gate"]:
        return "router"
    if parts[-3:-1] == ["attn", "proj"]:
        return "o"
    return next((_BY_PART[part] for part in reversed(parts) if part in _BY_PART), "other")
