"""Gated DeltaNets and multi-token-prediction heads: sizes and layers that cannot be, too few pieces or too many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from refusing import edit_metadata
from torch.distributed.checkpoint.metadata import MetadataIndex

from .bases import HYBRIDS
from .case import Expected, Kind, Words, Work, equal, refused
from .files import edit_json

HYBRID = Kind("hybrid models", every=8)
LAYER = "language_model.decoder.layers.1.self_attention."
IN_PROJ, CONV1D = f"{LAYER}in_proj.weight", f"{LAYER}conv1d.weight"
HEAD = "mtp_num_hidden_layers"
LINEAR, FULL = "linear_attention", "full_attention"


def _field(title: str, name: str, value: Any, *says: Words, expected: Expected | None = None) -> None:
    """A field of the language model, on either side."""
    HYBRID.add(title, HYBRIDS, partial(_set, name, value), expected or refused(*(says or (name,))))


def _set(name: str, value: Any, work: Work) -> None:
    edit_json(work.reference / "config.json", lambda config: config["text_config"].update({name: value}))


for _title, _kinds in {
    "one too few": [LINEAR] * 3,
    "one too many": [LINEAR] * 4 + [FULL],
    "none": [],
    "a million": [LINEAR] * 100_000,
    "of another kind": [LINEAR] * 3 + ["mamba"],
    "of a kind with escape sequences": [LINEAR] * 3 + ["\x1b[2J\nerror: x"],
    "of numbers": [0, 0, 0, 1],
    "of lists": [[LINEAR]] * 4,
    "of objects": [{LINEAR: 1}] * 4,
}.items():
    _field(f"layer_types: {_title}", "layer_types", _kinds)
_field("layer_types of text", "layer_types", LINEAR)
_field("layer_types of a number", "layer_types", 4)
_field("layer_types of null: by the interval", "layer_types", None, expected=equal())
_field("attention first", "layer_types", [FULL, LINEAR, LINEAR, LINEAR], ("layers.0", "linear_attn", "in_proj"))
_field("attention alone", "layer_types", [FULL] * 4, ("layers with linear attention", "reference"))
_field("no attention", "layer_types", [LINEAR] * 4, ("layers.3", "linear_qkv", "q_proj"))

for _name in (
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
):
    for _value in (0, -4, 2**31 - 1, 2**62, 10**400, 4.5, True, "4", None):
        _field(f"{_name}: {str(_value)[:12]}", _name, _value, (_name, "linear_num_value_heads", "config.json"))
    _field(f"{_name}: 32", _name, 32, (_name, "linear_num_value_heads", "in_proj", "conv1d", "out_proj", "A_log"))

for _value in (10**9, 2, -1, 1.5, True, "1", [1, 2], 2**62):
    _field(f"{HEAD}: {_value}", HEAD, _value)
_field(f"{HEAD}: 0, and there is a head", HEAD, 0, "promises none")
_field(f"{HEAD}: null, and there is a head", HEAD, None, expected=equal())

for _value in (0, 3, 8, 2**16, 10**9, -1, "4"):
    _field(f"num_experts: {_value}", "num_experts", _value, ("num_experts", "expert", "intermediate_size"))
_field("another word for experts, otherwise", "num_local_experts", 8, "num_local_experts")
for _value in (0, 80, 2**31 - 1, None):
    _field(f"the shared expert: {_value}", "shared_expert_intermediate_size", _value, "shared_expert")
for _value in (0, -1, 2**62, "4"):
    HYBRID.add(
        f"no layer_types and an interval of {_value}",
        HYBRIDS,
        lambda work, value=_value: (_set("layer_types", None, work), _set("full_attention_interval", value, work)),
        refused(("full_attention_interval", "linear_qkv", "q_proj")),
    )


def _tables(title: str, change: Callable[[Any], object], *says: Words) -> None:
    """Of the tables of a torch_dist checkpoint."""
    HYBRID.add(title, "hybrid", lambda work: edit_metadata(work.data, change), refused(*says))


def _without(ends: str, value: Any) -> None:
    keys = [key for key in value.state_dict_metadata if key.endswith(ends)]
    assert keys
    for key in keys:
        del value.state_dict_metadata[key]
    for index in [index for index in value.storage_data if index.fqn in keys]:
        del value.storage_data[index]


def _twice(old: str, new: str, value: Any) -> None:
    """One more of another name, with the same bytes."""
    value.state_dict_metadata[new] = value.state_dict_metadata[old]
    for index, info in list(value.storage_data.items()):
        if index.fqn == old:
            value.storage_data[MetadataIndex(new, index.offset)] = info


def _renamed(old: str, new: str, value: Any) -> None:
    _twice(old, new, value)
    _without(old, value)


def _shape(key: str, shape: tuple[int, ...], value: Any) -> None:
    value.state_dict_metadata[key].size = torch.Size(shape)


for _piece in ("query", "z", "alpha"):
    _tables(
        f"no {_piece} in a projection", partial(_without, f"layers.1.self_attention.in_proj.weight.{_piece}"), _piece
    )
    _tables(f"no {_piece} in any", partial(_without, f"in_proj.weight.{_piece}"), _piece)
_tables("no key in a convolution", partial(_without, "layers.1.self_attention.conv1d.weight.key"), "conv1d")
_tables("no projection", lambda value: _without("in_proj.weight.query", value) or None, "in_proj")
for _name in ("A_log", "dt_bias", "out_norm.weight", "out_proj.weight", "in_proj.layer_norm_weight"):
    _tables(f"no {_name}", partial(_without, f"layers.1.self_attention.{_name}"), _name)
for _name in ("omega", "", "query.query", "0", "x\x1b[2J", "weight"):
    _tables(f"a piece {_name!r} more", partial(_twice, f"{IN_PROJ}.query", f"{IN_PROJ}.{_name}"), "in_proj.weight")
_tables("a piece under another's name", partial(_renamed, f"{IN_PROJ}.beta", f"{IN_PROJ}.gamma"), "in_proj.weight")
_tables("a whole one beside its pieces", partial(_twice, f"{IN_PROJ}.query", IN_PROJ), "in_proj.weight")
_tables("pieces of a whole layer's number", partial(_twice, f"{IN_PROJ}.z", f"{IN_PROJ}.z.1"), "in_proj.weight")
_tables("a piece of more rows", partial(_shape, f"{IN_PROJ}.query", (48, 64)), "in_proj.weight")
_tables("a piece of 2^62 rows", partial(_shape, f"{IN_PROJ}.query", (2**62, 64)), ("in_proj.weight", ".metadata"))
_tables("a piece of other columns", partial(_shape, f"{IN_PROJ}.query", (32, 32)), "in_proj.weight")
_tables("a piece without an axis", partial(_shape, f"{CONV1D}.query", (32,)), "conv1d.weight")
_tables("a piece of three axes", partial(_shape, f"{IN_PROJ}.query", (32, 64, 1)), "in_proj.weight")
_tables(
    "a second head",
    partial(_twice, "language_model.mtp.layers.0.enorm.weight", "language_model.mtp.layers.1.enorm.weight"),
    ("mtp.layers.1", "multi-token"),
)
_tables(
    "a head of number 999999999",
    partial(_twice, "language_model.mtp.layers.0.enorm.weight", "language_model.mtp.layers.999999999.enorm.weight"),
    ("mtp.layers.999999999", "multi-token"),
)
_tables("no norm in the head", partial(_without, "mtp.layers.0.enorm.weight"), "enorm")
