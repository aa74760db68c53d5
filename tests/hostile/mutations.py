"""Damage by chance: to bytes, and with a sense of what they mean.

Nothing here unpickles what may be hostile by now: opcodes are looked at, and tables are only read while they are good.
"""

from __future__ import annotations

import json
import os
import pickletools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .case import Work
from .files import header, places, replace_item, rewrite_pickle, write_raw_header
from .payloads import PAYLOADS
from .zips import STORAGE_TRICKS, TRICKS

Chance = random.Random
NUMBERS = (
    0,
    1,
    2,
    7,
    63,
    64,
    127,
    255,
    256,
    65535,
    1 << 31,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    1e300,
    1 << 62,
    10**400,
    "",
    "x",
    "\x1b[2J\nerror: x",
    "x" * 9999,
)
VALUES += ([], {}, [[]], [0] * 999, {"a": {"b": {}}}, "../canary/alive", "/dev/zero", "qwen3_vl_moe", "\ud800")
SIDE = ("token", "merges", "vocab", "chat", "processor", "preprocessor", "generation")
"""Files that come into the output as they are: what is changed in them is changed in it."""


def mutate(work: Work, chance: Chance, good: Path) -> list[str]:
    """Damage a source, made from a good one, in one to three ways; what was done."""
    return [_one(work, chance, good) for _ in range(chance.choice((1, 1, 1, 2, 3)))]


def _one(work: Work, chance: Chance, good: Path) -> str:
    files = [p for p in sorted(work.source.rglob("*")) if p.is_file() and not p.name.startswith(SIDE)]
    if not files:
        return "nothing"
    path = chance.choice(files)
    ways: list[Callable[[Path, Chance], str]] = [_bytes, _bytes, _whole_file]
    if path.suffix == ".json":
        ways += [_json, _json, _json]
    elif path.suffix == ".safetensors":
        ways += [_header, _header]
    elif path.name == ".metadata":
        ways += [_pickle, _pickle]
    elif path.suffix == ".pt":
        ways += [_zip, _pickle_in_zip, _pickle_in_zip]
    elif path.suffix == ".distcp" and _same(path.with_name(".metadata"), work.source, good):
        ways += [_item] * 4
    way = chance.choice(ways)
    try:
        return f"{path.relative_to(work.source)}: {way(path, chance)}"
    except Exception as fault:  # the second damage may not understand what the first has left
        return f"{path.relative_to(work.source)}: not {way.__name__} ({type(fault).__name__})"


def _same(path: Path, source: Path, good: Path) -> bool:
    """Whether a file is still the good one."""
    other = good / path.relative_to(source)
    return path.is_file() and other.is_file() and path.read_bytes() == other.read_bytes()


def _bytes(path: Path, chance: Chance) -> str:
    """Of a safetensors file only the header: its numbers have no sums."""
    data = bytearray(path.read_bytes())
    most = len(data)
    if path.suffix == ".safetensors":
        most = min(most, 8 + int.from_bytes(data[:8], "little"))
    if not most:
        return "empty already"
    at = chance.randrange(most)
    at = chance.choice((at, at, min(at, 200), max(0, most - 1 - chance.randrange(200))))
    how = chance.choice(("flip", "flip", "overwrite", "number", "insert", "delete", "cut", "zero", "splice"))
    size = min(chance.choice((1, 4, 8, 64, 4096)), most - at)
    if how == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif how == "overwrite":
        data[at : at + size] = chance.randbytes(size)
    elif how == "number":
        number = chance.choice(NUMBERS).to_bytes(8, "little")[: chance.choice((1, 2, 4, 8))]
        data[at : at + len(number)] = number
    elif how == "insert":
        data[at:at] = chance.randbytes(size)
    elif how == "delete":
        del data[at : at + size]
    elif how == "cut":
        del data[at:]
    elif how == "zero":
        data[at : at + size] = bytes(size)
    else:
        there = chance.randrange(most)
        data[at : at + size] = data[there : there + size]
    path.write_bytes(data)
    return f"{how} at {at}, {size}"


def _whole_file(path: Path, chance: Chance) -> str:
    makers: dict[str, Callable[[Path], object]] = {
        "gone": lambda p: None,
        "empty": lambda p: p.write_bytes(b""),
        "a folder": Path.mkdir,
        "a fifo": os.mkfifo,
        "a broken link": lambda p: p.symlink_to("nowhere"),
        "a device": lambda p: p.symlink_to(chance.choice(("/dev/zero", "/dev/null", "/dev/tty"))),
        "garbage": lambda p: p.write_bytes(chance.randbytes(1000)),
    }
    what = chance.choice(sorted(makers))
    path.unlink()
    makers[what](path)
    return what


def _json(path: Path, chance: Chance) -> str:
    document = json.loads(path.read_text())
    where = _changed(document, chance)
    path.write_text(json.dumps(document))
    return where


def _changed(document: Any, chance: Chance, kept: tuple[str, ...] = ()) -> str:
    """Change one value somewhere in it, but for those of the keys to keep."""
    inner, way = document, ""
    while True:
        keys = [k for k in (inner if isinstance(inner, dict) else range(len(inner))) if k not in kept]
        if not keys:
            return "nothing"
        key = chance.choice(keys)
        way += f".{key}"
        if isinstance(inner[key], (dict, list)) and inner[key] and chance.random() < 0.8:
            inner = inner[key]
            continue
        how = chance.choice(("value", "value", "gone", "near"))
        if how == "gone":
            del inner[key]
        elif how == "near" and type(inner[key]) is int:
            inner[key] += chance.choice((-1, 1, 64))
        else:
            inner[key] = chance.choice(VALUES)
        return f"{how} {way[:200]}"


def _header(path: Path, chance: Chance) -> str:
    """Not its dtypes: that bfloat16 is float16 no reader can see."""
    entries, body = header(path)
    where = _changed(entries, chance, kept=("dtype", "__metadata__"))
    write_raw_header(path, json.dumps(entries).encode(), body)
    return where


def _pickle(path: Path, chance: Chance) -> str:
    data, what = _other_pickle(path.read_bytes(), chance, path.parents[2] / "canary")
    path.write_bytes(data)
    return what


def _pickle_in_zip(path: Path, chance: Chance) -> str:
    said: list[str] = []

    def change(data: bytes) -> bytes:
        data, what = _other_pickle(data, chance, Path("canary"))
        said.append(what)
        return data

    rewrite_pickle(path, change)
    return said[0]


def _other_pickle(data: bytes, chance: Chance, canary: Path) -> tuple[bytes, str]:
    """One opcode lost, doubled, exchanged with another, or followed by a payload."""
    starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    number = chance.randrange(1, len(starts))
    first, end = starts[number], starts[number + 1] if number + 1 < len(starts) else len(data)
    how = chance.choice(("lose", "double", "other", "payload", "payload", "number"))
    op, insert = data[first:end], b""
    if how == "double":
        insert = op + op
    elif how == "other":
        other = chance.randrange(len(starts) - 1)
        insert = data[starts[other] : starts[other + 1]]
    elif how == "payload":
        title = chance.choice(sorted(PAYLOADS))
        insert, how = PAYLOADS[title].opcodes(canary), f"payload {title}"
    elif how == "number":
        insert = b"\x8a\x09" + chance.choice(NUMBERS).to_bytes(9, "little")
    return data[:first] + insert + data[end:], f"{how} in place of opcode {number}, byte {first}"


def _zip(path: Path, chance: Chance) -> str:
    title, trick = chance.choice(sorted((TRICKS | STORAGE_TRICKS).items(), key=lambda pair: pair[0]))
    path.write_bytes(trick(path.read_bytes()))
    return title


def _item(path: Path, chance: Chance) -> str:
    """Of any tensor, in whichever file."""
    from .files import metadata

    keys = sorted(k for k in metadata(path.parent).state_dict_metadata if places(path.parent, k))
    key = chance.choice(keys)
    if chance.random() < 0.5:
        title, trick = chance.choice(sorted((TRICKS | STORAGE_TRICKS).items(), key=lambda pair: pair[0]))
        replace_item(path.parent, key, trick)
        return f"{title}, item of {key}"
    place = chance.choice(places(path.parent, key))
    data = bytearray(path.parent.joinpath(place.relative_path).read_bytes())
    at = place.offset + chance.choice((chance.randrange(place.length), chance.randrange(min(300, place.length))))
    data[at] ^= 1 << chance.randrange(8)
    path.parent.joinpath(place.relative_path).write_bytes(data)
    return f"flip at {at}, item of {key}"
