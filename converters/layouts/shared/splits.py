"""How Megatron cuts each tensor of a layout among ranks.

By the module's name, as megatron-core's own parallel linear layers do.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...models.shared.traits import Traits
from ...tensors.sharding import GATED, REPLICATED, Split
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
    "eh_proj.weight": _ROWS,
    "linear_proj.weight": _COLUMNS,
    "linear_fc2.weight": _COLUMNS,
}
"""Column-parallel layers cut their output rows, row-parallel ones their input columns.

A row-parallel bias is whole on every rank.
"""


_ATTENTION = ".self_attention."

_GDN = {
    "in_proj.weight": _ROWS,
    "in_proj.bias": _ROWS,
    "in_proj_qkvz.weight": _ROWS,
    "in_proj_ba.weight": _ROWS,
    "conv1d.weight": _ROWS,
    "conv1d.bias": _ROWS,
    "A_log": _ROWS,
    "dt_bias": _ROWS,
    "out_proj.weight": _COLUMNS,
}
"""A Gated DeltaNet's tensors, by their names in the attention's place.

Its output norm is whole on every rank, and so is all of one that is Hugging Face's.
"""


def splits_of(names: Iterable[str], config: ModelConfig, layout: Layout) -> dict[str, Split]:
    """How each of a model's tensors is cut, by their names in the layout's table."""
    traits = model_of(config).traits
    return {name: split_of(name, layout, traits, config.text) for name in names}


def split_of(name: str, layout: Layout, traits: Traits, text: TextConfig | None = None) -> Split:
    """How the tensor of that name in the layout's table is cut.

    Args:
        name: in the layout's table.
        layout: the naming.
        traits: of the model.
        text: the model's integers, on which a Gated DeltaNet's sections hang. None: they are not known yet, and the
            split is good for shapes alone.
    """
    tower = bool(layout.tower) and name.startswith(layout.tower)
    if layout.replicated and tower:
        return REPLICATED
    if ".experts.experts." in name:
        gated = ".linear_fc1." in name
        return Split(axis=0, sections=GATED, expert=True) if gated else Split(axis=1, expert=True)
    inside = name.partition(_ATTENTION)[2]
    if inside in _GDN:
        return _gdn(inside, layout, text)
    found = _BY_NAME.get(".".join(name.split(".")[-2:]), REPLICATED)
    if layout.own_tp and tower:
        found = found._replace(tower=True)
    # A merger's linear_fc1 is not gated. Those of deepstack, which may lie in blocks, are of models whose blocks are
    # not.
    block = ".linear_fc1." in name and ".layers." in name
    return found._replace(sections=GATED) if block and (traits.gated_vision_mlp or not tower) else found


def _gdn(inside: str, layout: Layout, text: TextConfig | None) -> Split:
    """A Gated DeltaNet's tensor."""
    if layout.gdn == "replicated":
        return REPLICATED
    found = _GDN[inside]
    if layout.gdn == "grouped" or text is None or not text.key_width:
        return found
    keys, values, heads = text.key_width, text.value_width, text.value_heads
    sections = {"in_proj": (keys, keys, values, values, heads, heads), "conv1d": (keys, keys, values)}
    return found._replace(sections=sections.get(inside.partition(".")[0], ()))
