"""FP8 sources: a quantization_config that lies or is none, scales that are missing, damaged or another's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fp8 import compressed
from tiny import write_weights

from .bases import fp8_tensors
from .case import Expected, Kind, Words, Work, equal, refused
from .files import edit_json

FP8 = Kind("FP8", every=6)
FIELD = "quantization_config"
Q = "model.language_model.layers.0.self_attn.q_proj.weight"
SCALE = f"{Q}_scale_inv"


def _said(title: str, change: Callable[[dict[str, Any]], Any], *says: Words, expected: Expected | None = None) -> None:
    """Another quantization_config."""
    FP8.add(title, "fp8", partial(_edited, change), expected or refused(*(says or (FIELD,))))


def _edited(change: Callable[[dict[str, Any]], Any], work: Work) -> None:
    edit_json(work.source / "config.json", lambda config: change(config[FIELD]))


def _whole(value: Any, work: Work) -> None:
    edit_json(work.source / "config.json", lambda config: config.update({FIELD: value}))


def _weights(title: str, change: Callable[[dict[str, torch.Tensor]], Any], *says: Words) -> None:
    FP8.add(title, "fp8", partial(_changed, change), refused(*says))


def _changed(change: Callable[[dict[str, torch.Tensor]], Any], work: Work) -> None:
    tensors = fp8_tensors()
    change(tensors)
    write_weights(work.source, tensors)


for _title, _value in {
    "text": "fp8",
    "a list": ["fp8"],
    "true": True,
    "empty": {},
    "of no method": {"fmt": "e4m3"},
    "a method of escape sequences": {"quant_method": "\x1b[2J\nerror: x"},
    "a method of a list": {"quant_method": ["fp8"]},
    "a method of 100,000 characters": {"quant_method": "x" * 100_000},
    "AWQ": {"quant_method": "awq", "bits": 4},
    "NVFP4": compressed() | {"format": "nvfp4-pack-quantized"},
    "a format of escape sequences": compressed() | {"format": "\x1b[2J"},
    "of other scales": compressed(),
    "groups without end": compressed() | {"config_groups": {str(i): {} for i in range(10_000)}},
    "groups of text": compressed() | {"config_groups": "group_0"},
    "a group of nothing": compressed() | {"config_groups": {"group_0": None}},
}.items():
    FP8.add(f"{FIELD}: {_title}", "fp8", partial(_whole, _value), refused((FIELD, "weight_scale")))
FP8.add(f"{FIELD}: null", "fp8", partial(_whole, None), refused("float8_e4m3fn"))

for _title, _block in {
    "128 x 128": [128, 128],
    "of zeros": [0, 0],
    "negative": [-32, 16],
    "2^62": [1 << 62, 1 << 62],
    "of 400 digits": [10**400, 16],
    "of floats": [32.0, 16.0],
    "of true": [True, True],
    "of text": "32x16",
    "of one axis": [32],
    "of three axes": [1, 32, 16],
    "the other way round": [16, 32],
    "null": None,
    "of 100,000 sizes": [16] * 100_000,
}.items():
    _said(
        f"blocks: {_title}",
        lambda q, block=_block: q.update(weight_block_size=block),
        ("weight_block_size", SCALE[:20], "config.json"),
    )

_said("e5m2", lambda q: q.update(fmt="e5m2"), "e5m2")
_said("fmt of a list", lambda q: q.update(fmt=["e4m3"]), "fmt")
_said("static activations", lambda q: q.update(activation_scheme="static"), "static")
_said("names of text", lambda q: q.update(modules_to_not_convert="lm_head"), "modules_to_not_convert")
_said("names of numbers", lambda q: q.update(modules_to_not_convert=[1]), "modules_to_not_convert")
_said("names without letters", lambda q: q.update(modules_to_not_convert=[""]), "modules_to_not_convert")
_said("a name of what is FP8", lambda q: q["modules_to_not_convert"].append(Q.removesuffix(".weight")), Q)
_said("a name of all layers", lambda q: q["modules_to_not_convert"].append("model.language_model"), "layers.0")
_said(
    "100,000 names of nobody",
    lambda q: q.update(modules_to_not_convert=[f"x{i}" for i in range(100_000)]),
    expected=equal(),
)
_said("a field nobody knows", lambda q: q.update(some_later_field={"a": [1]}), expected=equal())

_weights("no scales", lambda t: t.pop(SCALE), Q, SCALE)
_weights("scales of nobody", lambda t: t.update({"x.weight_scale_inv": torch.ones(1, 1)}), "x.weight_scale_inv")
_weights("scales of another shape", lambda t: t.update({SCALE: t[SCALE][:-1].clone()}), SCALE)
_weights("scales of one axis", lambda t: t.update({SCALE: t[SCALE].reshape(-1)}), SCALE)
_weights("scales of no axis", lambda t: t.update({SCALE: t[SCALE][0, 0].clone()}), SCALE)
_weights("scales of float16", lambda t: t.update({SCALE: t[SCALE].half()}), SCALE, "float16")
_weights("scales of integers", lambda t: t.update({SCALE: t[SCALE].to(torch.int32)}), SCALE, "int32")
_weights("one tensor left plain", lambda t: (t.update({Q: t[Q].bfloat16()}), t.pop(SCALE)), Q)
_weights("one tensor of bytes", lambda t: t.update({Q: t[Q].view(torch.uint8)}), Q)
_weights("a vector of FP8", lambda t: t.update(x=torch.ones(4).to(torch.float8_e4m3fn)), ("x", "scales"))
for _title, _number in {"NaN": float("nan"), "infinite": float("inf"), "negative": -1.0, "too large": 3e38}.items():
    _weights(f"a scale that is {_title}", lambda t, number=_number: t[SCALE].__setitem__((1, 1), number), "q_proj")
