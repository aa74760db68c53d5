"""What the names and shapes of a Megatron checkpoint show of its model, whatever the layout."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isqrt
from typing import Any

from ..tensors.spec import Shape
from ..tensors.vocabulary import OUTPUT_LAYER

_EMBEDDING = "embedding.word_embeddings.weight"
_BLOCK = re.compile(
    r"(?:^|\.)(?:blocks\.layers|blocks|decoder\.layers)\.([0-9]{1,9})"
    r"\.(?:attn\.qkv|self_attention\.linear_qkv)\.weight$"
)
_FC2 = re.compile(r"(?:^|\.)(?:blocks\.layers|blocks|decoder\.layers)\.\d+\.mlp\.(?:linear_fc2|down_proj)\.weight$")
_MERGER = re.compile(
    r"(?:^|\.)(?:merger\.linear_fc2|merger\.mlp\.2|(?:projection|projector)\.encoder\.linear_fc2)\.weight$"
)
_DEEPSTACK = re.compile(r"deepstack_merger_list\.([0-9]{1,9})\.")
_DEEPSTACK_BLOCK = re.compile(r"blocks\.layers\.([0-9]{1,9})\.deepstack_layer\.")

_LINEAR = ".self_attention.in_proj."
"""In Megatron's words, the first projection of a Gated DeltaNet: of its weight, or of a part of it."""

_HUGGING_FACE = {
    "embed_tokens.weight": _EMBEDDING,
    "self_attn.o_proj.weight": "self_attention.linear_proj.weight",
    "self_attn.q_norm.weight": "self_attention.q_layernorm.weight",
    "self_attn.k_proj.weight": "self_attention.k_proj.weight",
    "mlp.down_proj.weight": "mlp.linear_fc2.weight",
    "mlp.shared_expert.down_proj.weight": "mlp.shared_experts.linear_fc2.weight",
    "mlp.gate.weight": "mlp.router.weight",
    "mlp.experts.down_proj": "mlp.experts.experts.linear_fc2.weight",
    "mlp.experts.0.down_proj.weight": "mlp.experts.0.linear_fc2.weight",
    "lm_head.weight": "output_layer.weight",
    **{
        f"{module}.{theirs}": f"self_attention.{ours}"
        for module in ("linear_attn", "self_attention.linear_attn", "self_attention")
        for theirs, ours in (
            ("in_proj_qkvz.weight", "in_proj.weight"),
            ("in_proj_qkv.weight", "in_proj.weight"),
            ("conv1d.weight", "conv1d.weight"),
            ("A_log", "A_log"),
            ("norm.weight", "out_norm.weight"),
        )
    },
}
"""The names of a checkpoint that keeps Hugging Face's, and what Megatron calls the same."""

Values = dict[str, Any]


def shape_facts(shapes: Mapping[str, Shape], tower: str, *, gated: bool = False) -> Values:
    """Every fact that shapes show, under the names of facts.py.

    Besides those: `rows` of the embedding, padding included; `q_width` and `kv_width`, the rows of all query heads and
    of all key heads, and `key_width`, those of all key heads of a Gated DeltaNet; `vision.mergers`, how many deepstack
    mergers there are.

    Args:
        shapes: names without wrappers' prefixes, one tensor per layer, experts on a leading axis.
        tower: what the names of the vision tower begin with; "" where there is none.
        gated: whether attention has a gate, so that linear_qkv has the rows of its queries twice.
    """
    towers = {name: shape for name, shape in shapes.items() if _of_tower(name, tower)}
    text = {_megatron(name): shape for name, shape in shapes.items() if name not in towers}
    facts = _text_facts(text, gated)
    if any("mtp.layers." in name for name in shapes):
        facts["mtp"] = 1
    return facts | ({f"vision.{name}": value for name, value in _vision_facts(towers).items()} if towers else {})


def _of_tower(name: str, tower: str) -> bool:
    """Whether a name is one of the vision tower's; `tower` "" where there is none."""
    return bool(tower) and name.startswith(tower)


def visible_traits(names: Collection[str], tower: str) -> dict[str, bool]:
    """The answers to models.shared.traits.VISIBLE that names show, whatever the layout.

    Args:
        names: without wrappers' prefixes, one tensor per layer.
        tower: what the names of the vision tower begin with; "" where there is none.
    """
    text = [_megatron(name) for name in names if not _of_tower(name, tower)]
    biases = (".self_attention.linear_qkv.bias", ".self_attention.q_proj.bias", ".self_attn.q_proj.bias")
    return {
        "tower": len(text) < len(names),
        "qkv_bias": any(name.endswith(biases) for name in text),
        "qk_norm": any(name.endswith(".self_attention.q_layernorm.weight") for name in text),
        "linear_attention": any(_LINEAR in f".{name}" for name in text),
        "experts": any(name.endswith(".mlp.router.weight") for name in text),
        "position_table": any(name.endswith(".pos_embed.weight") for name in names),
    }


def _megatron(name: str) -> str:
    """A name in Megatron's words.

    "language_model.layers.3.mlp.gate.weight" -> "language_model.decoder.layers.3.mlp.router.weight".
    """
    theirs = next((end for end in _HUGGING_FACE if name.endswith(end)), None)
    if theirs is None:
        return name
    before = name.removesuffix(theirs).removesuffix("self_attention.")
    return before.replace("decoder.layers.", "layers.").replace("layers.", "decoder.layers.") + _HUGGING_FACE[theirs]


def _text_facts(shapes: Mapping[str, Shape], gated: bool) -> Values:
    embedding = next((name for name in shapes if name.endswith(_EMBEDDING)), "")
    prefix = embedding.removesuffix(_EMBEDDING)
    rows, hidden = _axes(shapes.get(embedding, ()), 2)
    layers = list(_layers(shapes, f"{prefix}decoder.layers."))
    facts: Values = {
        "rows": rows,
        "hidden": hidden,
        "layers": len(layers) or None,
        "tied": not any(name.endswith(OUTPUT_LAYER) for name in shapes),
    }
    if not layers:
        return _known(facts)
    linear = [i for i, layer in enumerate(layers) if any(f".{name}".startswith(_LINEAR) for name in layer)]
    attending: dict[str, Shape] = next((layer for i, layer in enumerate(layers) if i not in linear), {})
    facts["q_width"] = _axes(attending.get("self_attention.linear_proj.weight", ()), 2)[1]
    facts["kv_width"] = _kv_width(attending, facts["q_width"], gated)
    facts["head_dim"] = _axes(attending.get("self_attention.q_layernorm.weight", ()), 1)[0]
    if linear:
        facts |= _delta_net(layers[linear[0]]) | {"linear_layers": linear}
    facts["ffn"] = next(
        (_axes(layer["mlp.linear_fc2.weight"], 2)[1] for layer in layers if "mlp.linear_fc2.weight" in layer), None
    )
    sparse = [i for i, layer in enumerate(layers) if "mlp.router.weight" in layer]
    if sparse:
        facts["experts"] = _axes(layers[sparse[0]]["mlp.router.weight"], 2)[0]
        # [experts, hidden, width], or with the last two exchanged
        _, *sizes = _axes(layers[sparse[0]].get("mlp.experts.experts.linear_fc2.weight", ()), 3)
        facts["moe_ffn"] = next((size for size in sizes if size != hidden), hidden)
        if None in sizes:  # each expert by itself
            facts["moe_ffn"] = _axes(layers[sparse[0]].get("mlp.experts.0.linear_fc2.weight", ()), 2)[1]
        facts["shared_ffn"] = _axes(layers[sparse[0]].get("mlp.shared_experts.linear_fc2.weight", ()), 2)[1]
        facts["dense_layers"] = sorted(set(range(len(layers))) - set(sparse))
    return _known(facts)


def _layers(shapes: Mapping[str, Shape], prefix: str) -> Iterator[dict[str, Shape]]:
    """The tensors of each layer in order, without what is before them."""
    found: dict[int, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        number, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number.isascii() and number.isdigit() and len(number) < 6:
            found.setdefault(int(number), {})[rest] = shape
    if sorted(found) == list(range(len(found))):
        yield from (found[i] for i in range(len(found)))


def _delta_net(layer: Mapping[str, Shape]) -> Values:
    """Of a Gated DeltaNet: the convolution runs over all queries, all keys and all values."""
    value_heads = _axes(layer.get("self_attention.A_log", ()), 1)[0]
    value_dim = _axes(layer.get("self_attention.out_norm.weight", ()), 1)[0]
    rows, _, kernel = _axes(layer.get("self_attention.conv1d.weight", ()), 3)
    keys = (rows - value_heads * value_dim) // 2 if rows and value_heads and value_dim else 0
    return {
        "value_heads": value_heads,
        "value_dim": value_dim,
        "kernel": kernel,
        "key_width": keys if keys > 0 else None,
    }


def _kv_width(layer: Mapping[str, Shape], q_width: int | None, gated: bool) -> int | None:
    """Rows of the keys alone: linear_qkv holds those of queries, their gates, keys and values."""
    together = _axes(layer.get("self_attention.linear_qkv.weight", ()), 2)[0]
    if together is not None and q_width is not None:
        return (together - (2 if gated else 1) * q_width) // 2
    return _axes(layer.get("self_attention.k_proj.weight", ()), 2)[0]


def _vision_facts(shapes: Mapping[str, Shape]) -> Values:
    patch = next((shape for name, shape in shapes.items() if name.endswith("patch_embed.proj.weight")), ())
    hidden, channels, temporal, size, _ = _axes(patch, 5)
    out, merged = _axes(
        next((shape for name, shape in shapes.items() if _MERGER.search(name) and "deepstack" not in name), ()), 2
    )
    blocks, named = _numbers(_BLOCK, shapes), _numbers(_DEEPSTACK_BLOCK, shapes)
    facts: Values = {
        "depth": len(blocks) or None,
        "hidden": hidden,
        "ffn": _axes(next((shape for name, shape in shapes.items() if _FC2.search(name)), ()), 2)[1],
        "out_hidden": out,
        "patch": size,
        "temporal_patch": temporal,
        "channels": channels,
        "merge": isqrt(merged // hidden) if merged and hidden else None,
        "positions": _axes(next((shape for name, shape in shapes.items() if name.endswith("pos_embed.weight")), ()), 2)[
            0
        ],
        "mergers": len(_numbers(_DEEPSTACK, shapes) or named),
        "deepstack": sorted(named) or None,  # only MindSpeed-MM's names show which blocks they look at
    }
    return _known(facts)


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> set[int]:
    """The numbers that a pattern finds in names."""
    return {int(found[1]) for found in map(pattern.search, names) if found}


def _axes(shape: Shape, axes: int) -> tuple[int | None, ...]:
    """A shape of so many axes, or that many Nones: another shape shows nothing, and the shape check names it."""
    return shape if len(shape) == axes else (None,) * axes


def _known(facts: Values) -> Values:
    return {name: value for name, value in facts.items() if value is not None}
