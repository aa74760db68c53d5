"""FORMATS: a checkpoint of each, told from the others by its files and called by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mcore.formulas import Tensors
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.sharded import save_fsdp, save_plain
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology

from vlconv.converters.errors import NotACheckpoint
from vlconv.converters.formats import FORMATS, is_mcore, open_mcore

Save = Callable[[Path, Tensors], Path]

SAVED: dict[str, Save] = {
    "torch_dist": lambda place, hf: save(place, tiny(), hf, Topology(tp=2)),
    "fsdp_dtensor": lambda place, hf: save_fsdp(place, tiny(), hf, "module."),
    "dcp": lambda place, hf: save_plain(place, hf),
    "torch": lambda place, hf: save_legacy(place, tiny(), hf, Topology(tp=2)),
}
"""Each format, as its own library writes it."""

ALIKE = {"fsdp_dtensor": ["fsdp_dtensor", "dcp"], "dcp": ["fsdp_dtensor", "dcp"]}
"""Those that only their metadata tell apart."""


def test_each_is_written_here() -> None:
    assert SAVED.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    directory = SAVED[name](tmp_path / "ckpt", random_hf_tensors(tiny()))
    holding = [other for other, found in FORMATS.items() if found.holds(directory)]
    assert holding == ALIKE.get(name, [name])
    opened = open_mcore(directory)
    assert (opened.format, opened.unclaimed) == (name, {})
    assert [FORMATS[other].open(directory).format for other in holding] == [name] * len(holding)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (["__0_0.distcp"], ".metadata"),
        (["metadata.json"], ".metadata"),
        (["metadata.json", "__0_0.distcp"], ".metadata"),
    ],
    ids=str,
)
def test_an_unfinished_one_is_held_and_refused(tmp_path: Path, files: list[str], missing: str) -> None:
    for file in files:
        (tmp_path / file).write_text('{"sharded_backend": "torch_dist"}' if file == "metadata.json" else "")
    assert is_mcore(tmp_path)
    with pytest.raises(NotACheckpoint) as caught:
        open_mcore(tmp_path)
    assert caught.value.what == f"{tmp_path}: {missing} is missing"
    assert "interrupted" in caught.value.hint


def test_other_directories_are_none(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert [name for name, found in FORMATS.items() if found.holds(tmp_path)] == []
