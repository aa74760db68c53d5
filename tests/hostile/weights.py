"""Numbers that are none, sums that are none, and what a checkpoint says of them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .case import Kind, Work, refused, warned
from .files import EMBEDDING, MODEL, PROJECTION, edit_legacy, replace_item, zip_members, zipped

WEIGHTS = Kind("weights")


def _tensor(change: Callable[[torch.Tensor], Any], item: bytes) -> bytes:
    """An item of the same tensor, changed, sums and all."""
    tensor = torch.load(io.BytesIO(item), weights_only=True)
    change(tensor)
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def _some(value: float) -> Callable[[torch.Tensor], Any]:
    return lambda t: t.view(-1)[3:5].fill_(value)


def _in_dist(value: float, work: Work) -> None:
    replace_item(work.data, PROJECTION, partial(_tensor, _some(value)))


def _in_fsdp(value: float, work: Work) -> None:
    key = "model.module.language_model.decoder.layers.1.self_attention.linear_proj.weight"
    replace_item(work.data, key, partial(_tensor, _some(value)))


def _in_legacy(value: float, work: Work) -> None:
    name = "language_model.decoder.layers.0.self_attention.linear_proj.weight"
    edit_legacy(work.data / "mp_rank_01_000" / MODEL, lambda s: _some(value)(s["model"][name]))


def _in_hf(value: float, work: Work) -> None:
    from safetensors.torch import load_file, save_file

    path = work.source / "model.safetensors"
    tensors = load_file(path)
    _some(value)(tensors["model.language_model.layers.0.self_attn.o_proj.weight"])
    save_file(tensors, path, metadata={"format": "pt"})


for _base, _damage in {"dist": _in_dist, "fsdp": _in_fsdp, "legacy": _in_legacy, "hf": _in_hf}.items():
    _named = ("linear_proj.weight", "o_proj.weight")
    for _title, _value in {"NaN": float("nan"), "infinity": float("inf")}.items():
        _words = ("NaN", "not finite", "non-finite", "infinite")
        WEIGHTS.add(_title, _base, partial(_damage, _value), warned(_named, _words, differs=True))
        WEIGHTS.add(f"{_title}, strict", _base, partial(_damage, _value), refused(_named, _words), "--strict")


def _no_sums(item: bytes) -> bytes:
    """As torch writes it when it is told not to compute sums: 0 for the storage, in both headers."""
    out = bytearray(zipped(zip_members(item)))
    at = out.rindex(b"PK\x01\x02") if b"/data/" in out[out.rindex(b"PK\x01\x02") :][:80] else _record(out)
    header = struct.unpack_from("<I", out, at + 42)[0]
    struct.pack_into("<I", out, at + 16, 0)
    struct.pack_into("<I", out, header + 14, 0)
    return bytes(out)


def _record(data: bytearray) -> int:
    """The central record of the storage."""
    at = -1
    while (at := data.index(b"PK\x01\x02", at + 1)) >= 0:
        length = struct.unpack_from("<H", data, at + 28)[0]
        if b"/data/" in data[at + 46 : at + 46 + length]:
            return at
    raise AssertionError


@WEIGHTS.case("dist", warned(("CRC", "checksum")))
def an_item_without_a_sum(work: Work) -> None:
    replace_item(work.data, PROJECTION, _no_sums)


@WEIGHTS.case("dist", refused(("CRC", "checksum")), "--strict")
def an_item_without_a_sum_strict(work: Work) -> None:
    replace_item(work.data, PROJECTION, _no_sums)


@WEIGHTS.case("legacy", warned(("CRC", "checksum")))
def a_rank_without_sums(work: Work) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        edit_legacy(work.data / "mp_rank_01_000" / MODEL, lambda s: None)
    finally:
        torch.serialization.set_crc32_options(True)


@WEIGHTS.case("dist", refused("CRC", ".distcp"))
def a_sum_that_is_wrong(work: Work) -> None:
    def change(item: bytes) -> bytes:
        out = bytearray(zipped(zip_members(item)))
        at = _record(out)
        header = struct.unpack_from("<I", out, at + 42)[0]
        struct.pack_into("<I", out, at + 16, 0x1234)
        struct.pack_into("<I", out, header + 14, 0x1234)
        return bytes(out)

    replace_item(work.data, PROJECTION, change)


@WEIGHTS.case("dist", refused("CRC", ".distcp"))
def a_flipped_bit_in_padding_rows(work: Work) -> None:
    """Rows that no output holds, but that a sum covers."""

    def change(item: bytes) -> bytes:
        (name, data), *_ = [(n, d) for n, d in zip_members(item) if "/data/" in n]
        at = item.index(data) + len(data) - 1
        assert name
        return item[:at] + bytes([item[at] ^ 1]) + item[at + 1 :]

    replace_item(work.data, EMBEDDING, change, number=1)
