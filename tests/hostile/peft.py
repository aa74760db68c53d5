"""PEFT directories: adapter_config.json that says what cannot be, tensors that are no adapter's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .case import Damage, Expected, Kind, Words, Work, equal, refused
from .files import edit_header, edit_json

PEFT = Kind("peft", every=4)
BASE = "peft"
ASKED = ("--adapter", "--base", "{work.source}/huggingface")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FIRST = "base_model.model.model.language_model.layers.0.self_attn.o_proj"


def _add(title: str, damage: Damage, expected: Expected, *options: str) -> None:
    PEFT.add(title, BASE, damage, expected, *(options or ASKED))


def _text(title: str, content: bytes, *says: str) -> None:
    _add(f"config: {title}", lambda work: (work.source / CONFIG).write_bytes(content), refused(CONFIG, *says))


def _say(title: str, expected: Expected, **fields: Any) -> None:
    _add(title, partial(_said, fields), expected)


def _said(fields: dict[str, Any], work: Work) -> None:
    edit_json(work.source / CONFIG, lambda config: config.update(fields))


def _header(title: str, change: Callable[[dict[str, Any]], object], *says: Words) -> None:
    _add(title, lambda work: edit_header(work.source / WEIGHTS, change), refused(*says))


def _rename(new: str, end: str = ".lora_A.weight") -> Callable[[dict[str, Any]], object]:
    return lambda header: header.update({new: header.pop(FIRST + end)})


_text("empty", b"")
_text("a list", b"[]")
_text("nested too deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
_text("an infinite alpha", b'{"peft_type": "LORA", "r": 4, "lora_alpha": 1e999}')
_text("r twice", b'{"peft_type": "LORA", "r": 4, "r": 5, "lora_alpha": 1}')
_text("nothing said", b"{}", "peft_type")

_say("another kind of escape sequences", refused("peft_type"), peft_type="\x1b[2J\nerror: x")
for _value in (0, -4, 2**62, 10**400, 4.5, True, "4", [4], None):
    _say(f"r: {str(_value)[:20]}", refused(CONFIG, ("r is", "integer of")), r=_value)
    _say(
        f"lora_alpha: {str(_value)[:20]}",
        equal() if _value == 4.5 else refused(CONFIG, ("lora_alpha", "integer of")),
        lora_alpha=_value,
    )
_say("another rank", refused("_proj.lora_A", "rank"), r=5)
_say("a pattern that never ends", refused("rank_pattern"), rank_pattern={"(.*.*.*.*)*x": 4})
_say("a pattern of escape sequences", refused("alpha_pattern"), alpha_pattern={"\x1b[2J": 4})
_say("100,000 patterns", refused("alpha_pattern"), alpha_pattern={f"layers.{n}.x": 4 for n in range(40_000)})
_say("a pattern of no module", refused("lm_head"), alpha_pattern={"lm_head": 4})
_say("patterns that are a list", refused("rank_pattern"), rank_pattern=["o_proj"])
_say("DoRA", refused("use_dora"), use_dora=True)
_say("modules trained whole", refused("modules_to_save"), modules_to_save=["lm_head"])
_say("biases", refused("bias"), bias="all")
_say("PiSSA", refused("init_lora_weights"), init_lora_weights="pissa")
_say("a field of escape sequences", refused("not known here"), **{"\x1b[2J": "\x1b[2J"})
_say("nothing under any name", equal(), new_thing=None, other_thing=False)
_add(
    "a base that is nowhere",
    partial(_said, {"base_model_name_or_path": "no/where\x1b[2J"}),
    refused("no/where"),
    "--adapter",
)
_add("no base but that beside it", partial(_said, {"base_model_name_or_path": None}), equal(), "--adapter")
_add("a model asked for", lambda work: None, refused("PEFT adapter", "--adapter"), "--dry-run")

_header("no lora_A", lambda header: header.pop(FIRST + ".lora_A.weight"), WEIGHTS)
_header("a half", _rename(f"{FIRST}x.lora_A.weight"), ("one of lora_A and lora_B", "o_proj"))
_header(
    "no module",
    lambda h: [_rename(f"base_model.model.x{end}", end)(h) for end in (".lora_A.weight", ".lora_B.weight")],
    "no module",
)
_header("a name of escape sequences", _rename("\x1b[2J.lora_A.weight"), "no name that peft gives")
_header("a name of 100,000 characters", _rename(f"base_model.model.{'x' * 100_000}.lora_A.weight"), "lora_A")
_header("an embedding", _rename("base_model.model.model.language_model.embed_tokens.lora_embedding_A"), "embedding")
_header("a magnitude", _rename(f"{FIRST}.lora_magnitude_vector"), "DoRA")
_header("A of three axes", lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[4, 1, 128]), "no matrix of floats")
_header("A of no axes", lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[]), ("bytes", "matrix"))
_header("A of integers", lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="I16"), "no matrix of floats")
_header("A turned", lambda h: h[f"{FIRST}.lora_A.weight"].update(shape=[128, 4]), "o_proj.lora_A")
_header(
    "A as bytes of float8",
    lambda h: h[f"{FIRST}.lora_A.weight"].update(dtype="F8_E4M3", shape=[8, 128]),
    "no matrix of floats",
)


@PEFT.case(BASE, refused(WEIGHTS), *ASKED)
def truncated_weights(work: Work) -> None:
    path = work.source / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


@PEFT.case(BASE, refused(WEIGHTS), *ASKED)
def no_weights(work: Work) -> None:
    (work.source / WEIGHTS).unlink()


@PEFT.case(BASE, refused("adapter_model.bin"), *ASKED)
def pickled_weights(work: Work) -> None:
    (work.source / WEIGHTS).rename(work.source / "adapter_model.bin")


@PEFT.case(BASE, refused("adapters in folders"), *ASKED)
def two_adapters(work: Work) -> None:
    for name in ("one", "two"):
        (work.source / name).mkdir()
        (work.source / name / CONFIG).write_bytes((work.source / CONFIG).read_bytes())
    (work.source / CONFIG).unlink()
