"""What vouches for an adapter's bytes is asked wherever it is read, whatever its base is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from lora import names
from lora.making import Made, make
from lora.saved import base, written

from vlconv.converters import CorruptError, NotComparable, hf2mcore, mcore2hf, verify

ALPHA = 6


@pytest.fixture(scope="module")
def made() -> Made:
    return make("qwen3", "megatron-lm", lambda module: module.endswith("linear_proj"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, made: Made) -> Path:
    root = tmp_path_factory.mktemp("bases")
    hf2mcore(base(root / "hf", made), root / "mcore")
    return root


def listed(folder: Path, **others: str) -> None:
    """Write an integrity.json of a checkpoint's files."""
    beside = [file for file in folder.iterdir() if file.name != "integrity.json"]
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in beside}
    (folder / "integrity.json").write_text(json.dumps({"algorithm": "sha256", "files": files | others}))


@pytest.mark.parametrize("kind", ["hf", "mcore"])
def test_integrity_json_of_an_adapter(tmp_path: Path, made: Made, bases: Path, kind: str) -> None:
    adapter = written(tmp_path / "adapter", made, names.bridge(made), alpha=ALPHA)
    listed(adapter / "iter_0000007")
    report = mcore2hf(adapter, tmp_path / "out", base=bases / kind)
    assert report.data["integrity"]["agree"] and "__0_0.distcp" in report.data["integrity"]["vouched"]
    assert verify(adapter, tmp_path / "out", base=bases / kind).data["a"]["integrity"]["agree"]
    listed(adapter / "iter_0000007", **{"__0_0.distcp": "0" * 64})
    with pytest.raises(CorruptError, match=r"adapter/iter_0000007/__0_0.distcp is not the file that was saved"):
        mcore2hf(adapter, tmp_path / "again", base=bases / kind)
    assert not (tmp_path / "again").exists()
    with pytest.raises(NotComparable, match=r"adapter/iter_0000007/__0_0.distcp is not the file that was saved"):
        verify(adapter, tmp_path / "out", base=bases / kind)


def test_of_adapter_and_base(tmp_path: Path, made: Made, bases: Path) -> None:
    adapter = written(tmp_path / "adapter", made, names.bridge(made), alpha=ALPHA)
    hf2mcore(bases / "hf", tmp_path / "mcore", manifest=False)
    listed(adapter / "iter_0000007")
    listed(tmp_path / "mcore" / "release")
    report = mcore2hf(adapter, tmp_path / "out", base=tmp_path / "mcore")
    assert report.data["integrity"]["vouched"].count(".metadata") == 2


@pytest.mark.parametrize("kind", ["hf", "mcore"])
def test_items_of_an_adapter_without_checksums(tmp_path: Path, made: Made, bases: Path, kind: str) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        adapter = written(tmp_path / "adapter", made, names.bridge(made), alpha=ALPHA)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(CorruptError, match=r"of \d+ items state no checksum"):
        mcore2hf(adapter, tmp_path / "out", base=bases / kind, strict=True)
    report = mcore2hf(adapter, tmp_path / "out", base=bases / kind)
    assert any("items state no checksum" in warning for warning in report.warnings)
    assert report.data["checksums"]["none_stated"] > 0
