"""How Megatron cuts each tensor of a layout among ranks.

By the module's name, as megatron-core's own parallel linear layers do.
"""

from __future__ import annotations

from ...models.shared.traits import Traits
from ...tensors.sharding import REPLICATED, Split
from ..layout import Layout

_ROWS = Split(axis=0)
_COLUMNS = Split(axis=1)

_BY_NAME = {
    "word_embeddings.weight": _ROWS,
    "output_layer.weight": _ROWS,
    "linear_qkv.weight": _ROWS,
    "linear_qkv.bias": _ROWS,
    "q_proj.weight": _ROWS,
    "q_proj.bias": _ROWS,
    "k_proj.weight": _ROWS,
    "k_proj.bias": _ROWS,
    "v_proj.weight": _ROWS,
    "v_proj.bias": _ROWS,
    "gate_proj.weight": _ROWS,
    "gate_proj.bias": _ROWS,
    "up_proj.weight": _ROWS,
    "up_proj.bias": _ROWS,
    "linear_fc1.weight": _ROWS,
    "linear_fc1.bias": _ROWS,
    "linear_proj.weight": _COLUMNS,
    "linear_fc2.weight": _COLUMNS,
}
"""Column-parallel layers cut their output rows, row-parallel ones their input columns.

A row-parallel bias is whole on every rank.
"""


def split_of(name: str, layout: Layout, traits: Traits) -> Split:
    """How the tensor of that name in the layout's table is cut."""
    tower = name.startswith(layout.tower)
    if layout.replicated and tower:
        return REPLICATED
    if ".experts.experts." in name:
        return Split(axis=0, gated=True, expert=True) if ".linear_fc1." in name else Split(axis=1, expert=True)
    found = _BY_NAME.get(".".join(name.split(".")[-2:]), REPLICATED)
    if layout.own_tp and tower:
        found = found._replace(tower=True)
    # A merger's linear_fc1 is not gated. Those of deepstack, which may lie in blocks, are of models whose blocks are
    # not.
    block = ".linear_fc1." in name and ".layers." in name
    return found._replace(gated=True) if block and (traits.gated_vision_mlp or not tower) else found
