"""vlconv.json of real outputs, held against zlib, hashlib, and readers that are none of ours."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from safetensors.torch import load_file
from tiny import write_tiny_hf
from transformers import AutoModelForImageTextToText

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    OptionError,
    Report,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
)
from vlconv.converters.errors import TargetError, sized
from vlconv.converters.options import OutputOptions
from vlconv.converters.output.writing import read_back

Command = Callable[[Path, Path, Any], Report]
TORCH = {"format": "torch", "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
FORMS: dict[str, tuple[Command, str, OutputOptions]] = {
    "HF": (mcore2hf, "mcore", Mcore2HfOptions()),
    "HF shards": (mcore2hf, "mcore", Mcore2HfOptions(max_shard_size=100_000, dtype="float32")),
    "torch_dist": (hf2mcore, "hf", Hf2McoreOptions()),
    "iteration": (hf2mcore, "hf", Hf2McoreOptions(as_iteration=7, make_vocab_size_divisible_by=128)),
    "torch": (hf2mcore, "hf", Hf2McoreOptions(**TORCH)),
    "mcore2mcore": (mcore2mcore, "mcore", Mcore2McoreOptions(as_layout="pai")),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore")
    return work


def manifest(root: Path) -> dict[str, Any]:
    document = json.loads((root / "vlconv.json").read_text())
    assert isinstance(document, dict)
    return document


def below(root: Path) -> list[str]:
    """Every file, those behind links not."""
    return sorted(
        str(p.relative_to(root))
        for p in root.rglob("*")
        if p.is_file() and not any(q.is_symlink() for q in (p, *p.parents))
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_file_and_tensor_is_listed_with_its_sum(models: Path, tmp_path: Path, form: str) -> None:
    command, source, options = FORMS[form]
    command(models / source, tmp_path / "out", options)
    document = manifest(tmp_path / "out")
    tracker = [] if form.startswith("HF") else ["latest_checkpointed_iteration.txt"]
    assert sorted([*document["files"], "vlconv.json", *tracker]) == below(tmp_path / "out")
    data = {name: (tmp_path / "out" / name).read_bytes() for name in document["files"]}
    for name, said in document["files"].items():
        assert said == {"bytes": len(data[name]), "crc32": f"{zlib.crc32(data[name]):08x}"}, name
    for part in document["tensors"]:
        piece = data[part["file"]][part["offset"] : part["offset"] + part["bytes"]]
        assert len(piece) == part["bytes"] and part["crc32"] == f"{zlib.crc32(piece):08x}", part


@pytest.mark.parametrize("form", ["HF", "HF shards"])
def test_tensors_are_where_it_says(models: Path, tmp_path: Path, form: str) -> None:
    """safetensors' own reader gives the bytes that the sum of each tensor is of."""
    command, source, options = FORMS[form]
    command(models / source, tmp_path / "out", options)
    tensors = {n: t for f in (tmp_path / "out").glob("*.safetensors") for n, t in load_file(f).items()}
    parts = {part["name"]: part for part in manifest(tmp_path / "out")["tensors"]}
    assert parts.keys() == tensors.keys()
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        assert (parts[name]["shape"], parts[name]["crc32"]) == (list(tensor.shape), f"{zlib.crc32(raw):08x}")


def test_what_it_says_of_the_making(models: Path, tmp_path: Path) -> None:
    command, source, options = FORMS["HF shards"]
    command(models / source, tmp_path / "out", options)
    document = manifest(tmp_path / "out")
    assert document["command"] == "mcore2hf"
    assert document["options"] == {"dtype": "float32", "max_shard_size": 100_000}
    assert document["source"]["given"] == str(models / "mcore")
    assert document["source"]["directory"] == str(models / "mcore" / "release")
    assert (document["source"]["format"], document["source"]["layout"]) == ("torch_dist", "mbridge")
    assert document["changes"]["cast_to"] == "float32"
    assert "tokenizer.json" in document["changes"]["copied"]


def test_what_was_padded_and_cut(models: Path, tmp_path: Path) -> None:
    command, source, options = FORMS["iteration"]
    command(models / source, tmp_path / "mc", options)
    assert manifest(tmp_path / "mc")["changes"]["padding_rows_added"] == 84  # 300 rows and 84 are 3 x 128
    mcore2hf(tmp_path / "mc", tmp_path / "hf")
    assert manifest(tmp_path / "hf")["changes"]["padding_rows_cut"] == 84


@pytest.mark.parametrize("form", FORMS)
def test_the_same_input_gives_the_same_text(models: Path, tmp_path: Path, form: str) -> None:
    command, source, options = FORMS[form]
    for name in ("one", "two"):
        command(models / source, tmp_path / name, options)
    assert (tmp_path / "one/vlconv.json").read_bytes() == (tmp_path / "two/vlconv.json").read_bytes()


def test_an_iteration_that_is_added_has_its_own(models: Path, tmp_path: Path) -> None:
    hf2mcore(models / "hf", tmp_path / "save", Hf2McoreOptions(as_iteration=1))
    first = (tmp_path / "save/vlconv.json").read_bytes()
    hf2mcore(models / "hf", tmp_path / "save", Hf2McoreOptions(as_iteration=2, set_latest=True))
    assert (tmp_path / "save/vlconv.json").read_bytes() == first
    added = tmp_path / "save/iter_0000002"
    assert sorted([*manifest(added)["files"], "vlconv.json"]) == below(added)
    assert "huggingface/config.json" in manifest(added)["files"]


def test_sha256(models: Path, tmp_path: Path) -> None:
    mcore2hf(models / "mcore", tmp_path / "out", Mcore2HfOptions(sha256=True))
    for name, said in manifest(tmp_path / "out")["files"].items():
        assert said["sha256"] == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()


def test_none_where_it_is_not_wanted(models: Path, tmp_path: Path) -> None:
    mcore2hf(models / "mcore", tmp_path / "out", Mcore2HfOptions(manifest=False))
    assert not (tmp_path / "out/vlconv.json").exists()
    with pytest.raises(OptionError, match="sha256"):
        Mcore2HfOptions(manifest=False, sha256=True)


def test_it_is_not_carried_over_and_an_output_that_has_it_can_be_replaced(models: Path, tmp_path: Path) -> None:
    mcore2hf(models / "mcore", tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mc")
    assert [n for n in below(tmp_path / "mc") if n.endswith("vlconv.json")] == ["vlconv.json"]
    hf2mcore(tmp_path / "hf", tmp_path / "mc", Hf2McoreOptions(overwrite=True))
    mcore2hf(tmp_path / "mc", tmp_path / "hf2")
    mcore2hf(tmp_path / "mc", tmp_path / "hf2", Mcore2HfOptions(overwrite=True))


def test_other_readers_do_not_mind_it(models: Path, tmp_path: Path) -> None:
    """transformers and torch's own DCP reader; strict loads by megatron-core are in test_hf2mcore.py."""
    mcore2hf(models / "mcore", tmp_path / "out")
    _, told = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values())
    hf2mcore(models / "hf", tmp_path / "mc", Hf2McoreOptions(as_iteration=1))
    hf2mcore(models / "hf", tmp_path / "mc", Hf2McoreOptions(as_iteration=2))
    assert (tmp_path / "mc/iter_0000002/vlconv.json").exists()
    assert dcp.load(tmp_path / "mc/iter_0000002").keys() == dcp.load(tmp_path / "mc/iter_0000001").keys()


def test_read_back(models: Path, tmp_path: Path) -> None:
    report = hf2mcore(models / "hf", tmp_path / "out", Hf2McoreOptions(read_back=True))
    nbytes = sum((tmp_path / "out" / name).stat().st_size for name in below(tmp_path / "out"))
    assert report.told["read_back"].startswith(f"{sized(nbytes)} read again from the disk: every checksum is right")


@pytest.mark.parametrize("what", ["weights", "manifest", "copy"])
def test_read_back_finds_a_disk_that_lies(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A byte is changed between what is written and what is read again."""
    name = {"weights": "model.safetensors", "manifest": "vlconv.json", "copy": "tokenizer.json"}[what]

    def lying(path: Path) -> None:
        if path.name == name:
            data = bytearray(path.read_bytes())
            data[-3] ^= 1
            path.write_bytes(data)

    monkeypatch.setattr(read_back, "sync", lying)
    mcore2hf(models / "mcore", tmp_path / "without")
    with pytest.raises(TargetError, match=f"{name}: other bytes came back"):
        mcore2hf(models / "mcore", tmp_path / "out", Mcore2HfOptions(read_back=True))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
