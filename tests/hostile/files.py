"""Changing the files of a checkpoint: items, zips, rank files, safetensors headers. Nothing here is vlconv's."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MODEL = "model_optim_rng.pt"
EMBEDDING = "language_model.embedding.word_embeddings.weight"
PROJECTION = "language_model.decoder.layers.self_attention.linear_proj.weight"
NORM = "language_model.decoder.final_layernorm.weight"
FC1 = "language_model.decoder.layers.mlp.linear_fc1.weight"
INPUT_NORM = "language_model.decoder.layers.self_attention.linear_qkv.layer_norm_weight"
MLP_NORM = "language_model.decoder.layers.mlp.linear_fc1.layer_norm_weight"

Members = list[tuple[str, bytes]]


def metadata(directory: Path) -> Any:
    """What `.metadata` unpickles to; of files made here."""
    return pickle.loads((directory / ".metadata").read_bytes())


def write_metadata(directory: Path, value: Any) -> None:
    """The same, written."""
    (directory / ".metadata").write_bytes(pickle.dumps(value))


def places(directory: Path, key: str) -> list[Any]:
    """Where a key's items lie, in order of their chunks."""
    found = [(index.offset or (), info) for index, info in metadata(directory).storage_data.items() if index.fqn == key]
    return [info for _, info in sorted(found, key=lambda pair: tuple(pair[0]))]


def item_bytes(directory: Path, key: str, number: int = 0) -> bytes:
    """An item."""
    place = places(directory, key)[number]
    with (directory / place.relative_path).open("rb") as file:
        file.seek(place.offset)
        return file.read(place.length)


def replace_item(directory: Path, key: str, change: Callable[[bytes], bytes], number: int = 0) -> None:
    """Put another item in the place of one: at the end of its file, the metadata following."""
    value = metadata(directory)
    listed = [(index, info) for index, info in value.storage_data.items() if index.fqn == key]
    _, info = sorted(listed, key=lambda pair: tuple(pair[0].offset or ()))[number]
    item = change(item_bytes(directory, key, number))
    with (directory / info.relative_path).open("ab") as file:
        info.offset, info.length = file.tell(), len(item)
        file.write(item)
    write_metadata(directory, value)


def zip_members(data: bytes) -> Members:
    """Names and bytes of a zip's members, as they lie."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of them, stored."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:  # a name twice is warned of
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def rewrite_zip(path: Path, change: Callable[[Members], Members]) -> None:
    """Change a zip's members, sums with them."""
    path.write_bytes(zipped(change(zip_members(path.read_bytes()))))


def rewrite_pickle(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the data.pkl of a torch.save file."""
    rewrite_zip(path, lambda members: [(n, change(d) if n.endswith("/data.pkl") else d) for n, d in members])


def edit_legacy(path: Path, change: Callable[[dict[str, Any]], Any], protocol: int = 2) -> None:
    """Load a rank's file (made here), change it, save it."""
    state = torch.load(path, weights_only=False)
    change(state)
    torch.save(state, path, pickle_protocol=protocol)


def every_rank(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same with every rank's file."""
    for folder in sorted(directory.iterdir()):
        edit_legacy(folder / MODEL, change)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON object."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and the bytes behind it."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:begin]), data[begin:]


def write_raw_header(path: Path, text: bytes, body: bytes) -> None:
    """A safetensors file of any header."""
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a safetensors header."""
    entries, body = header(path)
    change(entries)
    write_raw_header(path, json.dumps(entries).encode(), body)


def flip(path: Path, at: int, bit: int = 2) -> None:
    """Flip a bit of a byte; counted from the end when negative."""
    with path.open("r+b") as file:
        at %= os.fstat(file.fileno()).st_size
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
