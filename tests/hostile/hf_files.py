"""safetensors headers and indexes that lie."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .case import Kind, Work, either, equal, refused
from .files import edit_header, edit_json, header, write_raw_header

HF_FILES = Kind("Hugging Face files", "hf", "sharded", every=3)
SINGLE, INDEX, SHARD = "model.safetensors", "model.safetensors.index.json", "model-00002-of-00003.safetensors"
NORM, OTHER = "model.language_model.norm.weight", "model.language_model.layers.0.input_layernorm.weight"


def _header(title: str, change: Callable[[dict[str, Any]], Any], *says: str | tuple[str, ...]) -> None:
    HF_FILES.add(title, "hf", partial(_changed, change), refused(*(says or (SINGLE, NORM))))


def _changed(change: Callable[[dict[str, Any]], Any], work: Work) -> None:
    edit_header(work.source / SINGLE, change)


def _raw(title: str, make: Callable[[bytes, bytes], tuple[bytes, bytes]], *says: str) -> None:
    HF_FILES.add(title, "hf", partial(_rewritten, make), refused(SINGLE, *says))


def _rewritten(make: Callable[[bytes, bytes], tuple[bytes, bytes]], work: Work) -> None:
    path = work.source / SINGLE
    entries, body = header(path)
    write_raw_header(path, *make(json.dumps(entries).encode(), body))


def _entry(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda h: h[NORM].update(fields)


def _offsets(change: Callable[[int, int], list[Any]]) -> Callable[[dict[str, Any]], Any]:
    return lambda h: h[NORM].update(data_offsets=change(*h[NORM]["data_offsets"]))


_header("a header entry of a list", lambda h: h.update({NORM: [1, 2]}))
_header("a header entry of nothing", lambda h: h.update({NORM: {}}))
_header("negative offsets", _offsets(lambda a, b: [-128, 0]))
_header("offsets the wrong way round", _offsets(lambda a, b: [b, a]))
_header("offsets beyond the file", _offsets(lambda a, b: [1 << 40, (1 << 40) + 128]), SINGLE)
_header("offsets beyond 64 bits", _offsets(lambda a, b: [1 << 64, (1 << 64) + 128]))
_header("offsets of floats", _offsets(lambda a, b: [float(a), float(b)]))
_header("offsets of true", _offsets(lambda a, b: [False, True]))
_header("three offsets", _offsets(lambda a, b: [a, b, b]))
_header("offsets one byte on", _offsets(lambda a, b: [a + 1, b + 1]), SINGLE)
_header("two tensors on one place", lambda h: h[NORM].update(data_offsets=h[OTHER]["data_offsets"]), SINGLE)
_header(
    "two tensors that overlap",
    lambda h: h[NORM].update(data_offsets=[n + 64 for n in h[OTHER]["data_offsets"]]),
    SINGLE,
)
_header("a shape that overflows to what is there", _entry(shape=[1 << 32, 1 << 32, 64]))
_header("a shape of zeros and 2^62", _entry(shape=[0, 1 << 62, 1 << 62]))
_header("a negative shape", _entry(shape=[-1, -64]))
_header("a shape of text", _entry(shape="64"))
_header("a shape of 100,000 axes", _entry(shape=[1] * 100_000))
_header("a shape with an axis more", _entry(shape=[1, 64]), NORM)
_header("a dtype of another width", _entry(dtype="F32"))
_header("a dtype of the same width", _entry(dtype="I16"), NORM)
_header("a dtype nobody knows", _entry(dtype="F4_E2M1"))
_header("a dtype that is a list", _entry(dtype=["BF16"]))
_header("a dtype of escape sequences", _entry(dtype="\x1b[2J\x1b]0;x\x07"))
_header("a tensor less", lambda h: h.pop(NORM), SINGLE)
_header("a name less, the bytes with another", lambda h: h.update({NORM + "x": h.pop(NORM)}), NORM)
_header(
    "a tensor more, of no bytes",
    lambda h: h.update(more={"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}),
    "more",
)
_raw(
    "a header with a name twice",
    lambda h, b: (h[:-1] + b"," + json.dumps(NORM).encode() + b":" + _value(h) + b"}", b),
    NORM,
)
_raw("a header that is a list", lambda h, b: (b"[" + h + b"]", b))
_raw("a header that is a number", lambda h, b: (b"1", b))
_raw("a header that is cut", lambda h, b: (h[: len(h) // 2], b))
_raw("a header that is no UTF-8", lambda h, b: (h.replace(b"norm", b"n\xffrm"), b))
_raw("a header in UTF-16", lambda h, b: (h.decode().encode("utf-16"), b))
_raw("a header of a pickle", lambda h, b: (b"\x80\x04cos\nsystem\n.", b))
_raw("a header of NaN", lambda h, b: (h.replace(b"[64]", b"[NaN]"), b))
_raw("a header nested too deep", lambda h, b: (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b))
_raw("a header of a number of a million digits", lambda h, b: (h.replace(b"[64]", b"[" + b"6" * 1_000_000 + b"]"), b))
_raw("a body less", lambda h, b: (h, b""))
_raw("a body too short", lambda h, b: (h, b[:-1]))
_raw("a body too long", lambda h, b: (h, b + b"x"))


def _value(text: bytes) -> bytes:
    return json.dumps(json.loads(text)[NORM]).encode()


def _length(value: int, work: Work) -> None:
    path = work.source / SINGLE
    path.write_bytes(value.to_bytes(8, "little") + path.read_bytes()[8:])


for _title, _bytes in {"0": 0, "1": 1, "2^63": 1 << 63, "2^64 - 1": (1 << 64) - 1, "99 MB": 99_000_000}.items():
    HF_FILES.add(f"a header length of {_title}", "hf", partial(_length, _bytes), refused(SINGLE))


@HF_FILES.case("hf", refused(SINGLE), slow=True)
def a_header_of_99_megabytes_of_names(work: Work) -> None:
    entry = {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}
    text = "{" + ",".join(f'"{i}":{json.dumps(entry)}' for i in range(1_500_000)) + "}"
    write_raw_header(work.source / SINGLE, text.encode(), b"")


@HF_FILES.case("hf", refused(SINGLE), slow=True)
def a_header_of_99_megabytes_of_ones(work: Work) -> None:
    write_raw_header(work.source / SINGLE, b'{"a":[' + b"1," * 49_000_000 + b"1]}", b"")


@HF_FILES.case("hf", refused(SINGLE))
def a_sparse_file_of_a_terabyte(work: Work) -> None:
    os.truncate(work.source / SINGLE, 1 << 40)


@HF_FILES.case("hf", equal())
def a_header_with_spaces_and_metadata(work: Work) -> None:
    path = work.source / SINGLE
    entries, body = header(path)
    entries["__metadata__"] = {"format": "pt", "x": "y" * 1000}
    write_raw_header(path, json.dumps(entries, indent=3).encode() + b" " * 999, body)


# the index


def _index(title: str, change: Callable[[dict[str, Any]], Any], *says: str | tuple[str, ...]) -> None:
    HF_FILES.add(title, "sharded", partial(_edited, change), refused(*says))


def _edited(change: Callable[[dict[str, Any]], Any], work: Work) -> None:
    edit_json(work.source / INDEX, change)


def _to(file: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda i: i["weight_map"].update({NORM: file})


_index("an index without a tensor", lambda i: i["weight_map"].pop(NORM), NORM)
_index("an index with a tensor more", lambda i: i["weight_map"].update(more=SHARD), "more")
_index("an index to another shard", _to("model-00003-of-00003.safetensors"), NORM)
_index("an index to a file above", _to("../canary/alive"), "../canary/alive")
_index("an index to the system", _to("/etc/passwd"), "/etc/passwd")
_index("an index to a device", _to("/dev/zero"), "/dev/zero")
_index("an index to the folder", _to("."), INDEX)
_index("an index to nothing", _to(""), INDEX)
_index("an index to a null", _to("a\0b"), INDEX)
_index("an index to a config", _to("config.json"), "config.json")
_index("an index to a number", _to(7), INDEX)
_index("an index to escape sequences", _to("\x1b[2J\nerror: all is lost"), ("missing", INDEX))
_index("an index to 100,000 characters", _to("x" * 100_000), "xxx")
_index("an index of a list", lambda i: i.update(weight_map=list(i["weight_map"])), INDEX)
_index("an index of nothing", lambda i: i.update(weight_map={}), INDEX)
_index("an index without a map", lambda i: i.pop("weight_map"), INDEX)


@HF_FILES.case("sharded", refused(NORM, INDEX))
def an_index_with_a_name_twice(work: Work) -> None:
    path = work.source / INDEX
    path.write_text(path.read_text().replace(f'"{NORM}"', f'"{NORM}": "{SHARD}", "{NORM}"'))


@HF_FILES.case("sharded", refused(SHARD))
def a_shard_in_the_place_of_another(work: Work) -> None:
    shutil.copyfile(work.source / SHARD.replace("2-of", "1-of"), work.source / SHARD)


@HF_FILES.case("sharded", either(INDEX))
def an_index_and_a_whole_file(work: Work) -> None:
    shutil.copyfile(work.source / SHARD, work.source / SINGLE)


@HF_FILES.case("hf", equal())
def pickles_beside_the_weights(work: Work) -> None:
    (work.source / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    (work.source / "modeling_evil.py").write_text(f"open({str(work.canary / 'ran')!r}, 'w')")


@HF_FILES.case("hf", refused("safetensors"))
def only_pickles(work: Work) -> None:
    (work.source / SINGLE).rename(work.source / "pytorch_model.bin")


def _tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor], work: Work) -> None:
    from safetensors.torch import load_file, save_file

    path = work.source / SINGLE
    tensors = load_file(path)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


for _title, _change in {
    "a tensor that is turned": lambda t: t.T,
    "a tensor too narrow": lambda t: t[:, :-1],
    "a tensor too short": lambda t: t[:-1],
    "a tensor twice as high": lambda t: torch.cat([t, t]),
    "a tensor of one axis": lambda t: t.reshape(-1),
    "a tensor of integers": lambda t: t.to(torch.int32),
    "a tensor of float8": lambda t: t.to(torch.float8_e4m3fn),
}.items():
    _down = "model.language_model.layers.1.mlp.down_proj.weight"
    HF_FILES.add(_title, "hf", partial(_tensor, _down, _change), refused("layers.1.mlp.down_proj.weight"))
