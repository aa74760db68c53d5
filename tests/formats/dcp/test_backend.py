"""metadata.json of a distributed checkpoint: read and held, whatever the rest of the checkpoint is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mcore.sharded import save_fsdp
from mcore.tiny import random_hf_tensors, tiny
from references import differing, read_hf, write_reference
from refusing import refused
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError, UnsupportedError, VlconvError

UNTIL_0_18 = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
FROM_0_19 = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint: hf/ and mcore/."""
    work = tmp_path_factory.mktemp("model")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore", Hf2McoreOptions())
    return work


@pytest.fixture
def release(tmp_path: Path, model: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(model / "mcore", tmp_path / "mcore") / "release"


@pytest.mark.parametrize(
    "stated",
    [
        UNTIL_0_18,
        FROM_0_19,
        {"sharded_backend": "torch_dist"},  # the rest has defaults in every megatron-core
        {**UNTIL_0_18, "written_by": "somebody", "integrity": {"version": 7}},
    ],
    ids=lambda stated: "-".join(map(str, stated.values())),
)
def test_is_taken(tmp_path: Path, model: Path, release: Path, stated: dict[str, Any]) -> None:
    (release / "metadata.json").write_text(json.dumps(stated))
    mcore2hf(tmp_path / "mcore", tmp_path / "out")
    assert differing(read_hf(tmp_path / "out"), read_hf(model / "hf")) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not valid JSON"),
        (b"\0" * 145, "is not valid JSON"),
        (b"torch_dist", "is not valid JSON"),
        (b"[]", "holds no JSON object"),
        (b"{}", "names no sharded_backend"),
        (b'{"sharded_backend": null}', "names no sharded_backend"),
        (b'{"sharded_backend": ""}', "names no sharded_backend"),
        (b'{"sharded_backend": ["torch_dist"]}', "names no sharded_backend"),
        (b'{"sharded_backend": "torch_dist", "sharded_backend": "zarr"}', "'sharded_backend' is there twice"),
    ],
    ids=str,
)
def test_garbage(tmp_path: Path, release: Path, content: bytes, says: str) -> None:
    (release / "metadata.json").write_bytes(content)
    no(tmp_path, fault=CorruptError, says=("metadata.json", says))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sharded_backend": "zarr"}, "sharded_backend zarr"),
        ({"sharded_backend": "Torch_Dist"}, "sharded_backend Torch_Dist"),
        ({"sharded_backend": "\x1b[2Jtorch_dist"}, "sharded_backend \\x1b[2Jtorch_dist"),
        ({"sharded_backend_version": 2}, "sharded_backend_version 2"),
        ({"sharded_backend_version": True}, "sharded_backend_version True"),
        ({"sharded_backend_version": "1"}, "sharded_backend_version 1"),
        ({"sharded_backend_version": None}, "sharded_backend_version None"),
        ({"common_backend": "zarr"}, "common_backend zarr"),
        ({"common_backend_version": 0}, "common_backend_version 0"),
    ],
    ids=str,
)
def test_another_backend_or_version(tmp_path: Path, release: Path, change: dict[str, Any], says: str) -> None:
    (release / "metadata.json").write_text(json.dumps({**UNTIL_0_18, **change}))
    no(tmp_path, fault=UnsupportedError, says=("metadata.json states ", says), hint="--ckpt-format torch_dist")


def test_a_zarr_checkpoint(tmp_path: Path, release: Path) -> None:
    """It has no .metadata either, and is not called an interrupted save."""
    (release / ".metadata").unlink()
    (release / "metadata.json").write_text(json.dumps({**UNTIL_0_18, "sharded_backend": "zarr"}))
    no(tmp_path, fault=UnsupportedError, says="sharded_backend zarr")


def test_a_tool_of_megatron_leaves_one_beside_fsdp_dtensor(tmp_path: Path) -> None:
    hf = random_hf_tensors(tiny())
    source = save_fsdp(tmp_path / "ckpt", tiny(), hf, "module.")
    (source / "metadata.json").write_text(json.dumps({**FROM_0_19, "sharded_backend": "fsdp_dtensor"}))
    reference = write_reference(tmp_path / "reference", tiny())
    report = mcore2hf(source, tmp_path / "out", Mcore2HfOptions(reference=str(reference)))
    assert report.data["format"] == "fsdp_dtensor"
    assert differing(read_hf(tmp_path / "out"), hf) == []


def no(work: Path, *, fault: type[VlconvError], says: tuple[str, ...] | str, hint: str = "") -> None:
    refused(mcore2hf, work / "mcore", work / "out", fault=fault, says=says, hint=hint)
