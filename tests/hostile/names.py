"""Names that would act on a terminal, forge a line, or fill a screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from refusing import edit_metadata
from torch.distributed.checkpoint.metadata import MetadataIndex

from .case import Kind, Words, Work, refused
from .files import NORM, edit_header, edit_json, edit_legacy, header, write_raw_header

NAMES = Kind("names", every=2)

TRICKY: dict[str, tuple[str, Words]] = {
    "a line of its own": ("x\nerror: all weights are lost\n  Remove everything.", "x\\nerror"),
    "escape sequences": ("\x1b[2J\x1b[31mx\x1b]0;title\x07", "\\x1b[2J"),
    "a carriage return": ("bad\rgood", "bad\\rgood"),
    "text from right to left": ("weight\u202egnp.exe\u202c", ("\\u202e", "weight")),
    "a backspace": ("x\b\b\b\b", "x\\x08"),
    "100,000 characters": ("x" * 100_000, "xxxx"),
    "100,000 lines": ("x\n" * 50_000, "x\\n"),
    "lone surrogates": ("x\ud800", ("\\ud800", "surrogate", ".metadata", "x")),
    "a null": ("x\0y", "x\\x00y"),
    "markup": ("[bold red]x[/] [link=file:///]y", "[bold red]x"),
    "nothing": ("", ("not expected", "lacks", "dtype", ".metadata")),
}


def _renamed(name: str, work: Work) -> None:
    """A tensor of that name too many, in a distributed checkpoint."""

    def change(value: Any) -> None:
        key = next(
            k for k in value.state_dict_metadata if k.endswith(("final_layernorm.weight", "language_model.norm.weight"))
        )
        value.state_dict_metadata[name] = value.state_dict_metadata[key]
        for index, info in list(value.storage_data.items()):
            if index.fqn == key:
                value.storage_data[MetadataIndex(name, index.offset)] = info

    edit_metadata(work.data, change)


def _in_rank(name: str, work: Work) -> None:
    edit_legacy(
        work.data / "mp_rank_00_000" / "model_optim_rng.pt", lambda s: s["model"].update({name: torch.ones(3)}), 4
    )


def _in_header(name: str, work: Work) -> None:
    path = work.source / "model.safetensors"
    entries, body = header(path)
    entries[name] = {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}
    write_raw_header(path, json.dumps(entries).encode(), body)


def _of_dtype(name: str, work: Work) -> None:
    edit_header(
        work.source / "model.safetensors",
        lambda h: next(iter(v for k, v in h.items() if k != "__metadata__")).update(dtype=name),
    )


def _in_index(name: str, work: Work) -> None:
    edit_json(
        work.source / "model.safetensors.index.json",
        lambda i: i["weight_map"].update({name: "model-00001-of-00003.safetensors"}),
    )


def _of_shard(name: str, work: Work) -> None:
    edit_json(work.source / "model.safetensors.index.json", lambda i: i["weight_map"].update(x=name))


def _relative_path(name: str, work: Work) -> None:
    edit_metadata(work.data, lambda m: [setattr(i, "relative_path", name) for i in m.storage_data.values()])


def _chunk_of(name: str, work: Work) -> None:
    """A tensor whose chunk has too few axes, of a tricky name."""

    def change(value: Any) -> None:
        entry = value.state_dict_metadata.pop(NORM)
        entry.size = torch.Size([1, 2, 3])
        value.state_dict_metadata[name] = entry

    edit_metadata(work.data, change)


def _model_type(name: str, work: Work) -> None:
    edit_json(work.reference / "config.json", lambda c: c.update(model_type=name))


def _layout(name: str, work: Work) -> None:
    """In the message of a field that should be a number."""
    edit_json(work.reference / "config.json", lambda c: c["text_config"].update(num_hidden_layers=name))


def _folder(name: str, work: Work) -> None:
    """A source whose own path is tricky."""
    work.read = work.folder / name
    work.source.rename(work.read)
    work.source.mkdir()
    (work.read / "iter_0000010" / ".metadata").unlink()


_PLACES: dict[str, tuple[str, Callable[[str, Work], None]]] = {
    "a tensor in .metadata": ("dist", _renamed),
    "a tensor in .metadata, plain": ("plain", _renamed),
    "a chunk's tensor": ("dist", _chunk_of),
    "a data file": ("dist", _relative_path),
    "a tensor in a rank": ("legacy", _in_rank),
    "a tensor in a header": ("hf", _in_header),
    "a dtype": ("hf", _of_dtype),
    "a tensor in an index": ("sharded", _in_index),
    "a file in an index": ("sharded", _of_shard),
    "a model_type": ("hf", _model_type),
    "a number": ("hf", _layout),
}

for _place, (_base, _damage) in _PLACES.items():
    for _title, (_name, _shown) in TRICKY.items():
        _says: tuple[Words, ...] = (
            () if _place in ("a number", "a file in an index", "a data file", "a model_type") else (_shown,)
        )
        NAMES.add(
            f"{_place} with {_title}",
            _base,
            partial(_damage, _name),
            refused(*_says),
            slow=_title not in ("a line of its own", "100,000 characters", "lone surrogates")
            or _place == "a tensor in .metadata, plain",
        )

for _title in ("a line of its own", "escape sequences", "a carriage return"):
    NAMES.add(
        f"a folder with {_title}", "dist", partial(_folder, TRICKY[_title][0].replace("/", "_")), refused(".metadata")
    )
