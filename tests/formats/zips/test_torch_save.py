"""torch.save files of whole trees: their pickle is checked before it is believed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.zips.torch_save import read_torch_save


def saved(path: Path) -> Path:
    torch.save(
        {"iteration": 1234567, "model": {"layers.0.weight": torch.ones(3), "layers.1.weight": torch.zeros(3)}}, path
    )
    return path


def spoilt(path: Path, before: bytes, after: bytes) -> Path:
    """The same file with some bytes of its pickle exchanged, and the checksum as it was."""
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    return path


def test_what_was_saved(tmp_path: Path) -> None:
    found = read_torch_save(saved(tmp_path / "f"))
    assert found.tree["iteration"] == 1234567
    assert found.tensor(found.tree["model"]["layers.0.weight"]).shape == (3,)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1234567).to_bytes(4, "little"), (1234566).to_bytes(4, "little")),  # another number
        (b"layers.1.weight", b"layers.2.weight"),  # another tensor's name
    ],
    ids=["a number", "a name"],
)
def test_damage_that_still_is_a_pickle(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = spoilt(saved(tmp_path / "f"), before, after)
    with pytest.raises(CorruptError, match=r"/f is damaged: its checksum differs"):
        read_torch_save(path)


def test_a_pickle_without_a_checksum(tmp_path: Path) -> None:
    """torch can be told to write none."""
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "f")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("f/data.pkl").CRC == 0
    assert read_torch_save(path).tree["iteration"] == 1234567
