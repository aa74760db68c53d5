"""Links in a Hugging Face directory: those that lead out of it are refused by name, but in a hub cache, and weights."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from refusing import refused
from tiny import write_tiny_hf

from vlconv.converters import Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.config.reference import find_reference, side_files
from vlconv.converters.errors import CorruptError, ReferenceFault

SECRET = "the canary sings"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hf/ in two shards, and mcore/ made of it with nothing beside it."""
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf", shards=2)
    hf2mcore(work / "hf", work / "mcore")
    shutil.rmtree(work / "mcore" / "huggingface")
    return work


@pytest.fixture
def work(tmp_path: Path, models: Path) -> Path:
    """A copy of both, and a file of this machine that is none of theirs."""
    shutil.copytree(models, tmp_path / "given")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_text(SECRET)
    return tmp_path


def link(path: Path, target: str | Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def named(work: Path) -> Mcore2HfOptions:
    return Mcore2HfOptions(reference=str(work / "given" / "hf"))


OUT = {
    "absolute": lambda work: work / "private" / "secret",
    "relative": lambda work: "../../private/secret",
    "through another link": lambda work: "inner",
    "this process": lambda work: "/proc/self/environ",
    "passwords": lambda work: "/etc/passwd",
    "the folder above": lambda work: "../hf2",
}


@pytest.mark.parametrize("name", ["merges.txt", "LICENSE", "tokenizer.json"])
@pytest.mark.parametrize("way", OUT)
def test_a_side_file_that_is_a_link_out(work: Path, name: str, way: str) -> None:
    hf = work / "given" / "hf"
    (work / "given" / "hf2").write_text(SECRET)  # its path begins with the folder's
    link(hf / ".inner", work / "private" / "secret")
    target = OUT[way](work)
    link(hf / name, ".inner" if target == "inner" else target)
    says, hint = (str(hf / name), "is a link that leads out of its directory"), "cp --remove-destination"
    refused(hf2mcore, hf, work / "out", fault=CorruptError, says=says, hint=hint)
    refused(mcore2hf, work / "given" / "mcore", work / "out", named(work), fault=CorruptError, says=says, hint=hint)


def test_beside_a_checkpoint_too(work: Path) -> None:
    (work / "given" / "hf").rename(work / "given" / "mcore" / "huggingface")
    link(work / "given" / "mcore" / "huggingface" / "vocab.json", "/etc/passwd")
    refused(
        mcore2hf, work / "given" / "mcore", work / "out", fault=CorruptError, says="huggingface/vocab.json is a link"
    )


def test_config_json(work: Path) -> None:
    hf = work / "given" / "hf"
    (hf / "config.json").rename(work / "private" / "config.json")
    link(hf / "config.json", "../../private/config.json")
    says = f"{hf}/config.json is a link that leads out of its directory, to {work.resolve()}/private/config.json"
    refused(hf2mcore, hf, work / "out", fault=CorruptError, says=says)
    refused(mcore2hf, work / "given" / "mcore", work / "out", named(work), fault=CorruptError, says=says)


def test_what_the_hint_says_helps(work: Path) -> None:
    hf = work / "given" / "hf"
    link(hf / "merges.txt", "../../private/secret")
    error = refused(hf2mcore, hf, work / "out", fault=CorruptError, says="merges.txt")
    assert os.system(error.hint.partition(": ")[2]) == 0
    assert hf2mcore(hf, work / "out").status == "done"
    assert (work / "out" / "huggingface" / "merges.txt").read_text() == SECRET


def cached(work: Path) -> Path:
    """The model as in a hub cache: a snapshot of links to blobs."""
    repository = work / "hub" / "models--A--B"
    snapshot = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((work / "given" / "hf").iterdir())):
        path.rename(repository / "blobs" / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


@pytest.mark.parametrize("by_link", [False, True])
def test_a_hub_cache(work: Path, by_link: bool) -> None:
    snapshot = cached(work)
    (work / "model").symlink_to(snapshot)
    source = work / "model" if by_link else snapshot
    assert hf2mcore(source, work / "out").status == "done"
    options = Mcore2HfOptions(reference=str(source))
    assert mcore2hf(work / "given" / "mcore", work / "back", options).status == "done"
    copied = work / "back" / "merges.txt"
    assert copied.read_text() == (snapshot / "merges.txt").read_text()
    assert not copied.is_symlink()


@pytest.mark.parametrize("way", ["another repository's blobs", "out of the blobs", "blobs that are a link", "no cache"])
def test_what_only_looks_like_a_hub_cache(work: Path, way: str) -> None:
    snapshot = cached(work)
    repository = snapshot.parent.parent
    if way == "another repository's blobs":
        (work / "hub" / "models--C" / "blobs").mkdir(parents=True)
        (work / "hub" / "models--C" / "blobs" / "x").write_text(SECRET)
        link(snapshot / "merges.txt", "../../../models--C/blobs/x")
    elif way == "out of the blobs":
        link(repository / "blobs" / "x", work / "private" / "secret")
        link(snapshot / "merges.txt", "../../blobs/x")
    elif way == "blobs that are a link":
        (repository / "blobs").rename(work / "blobs")
        link(repository / "blobs", work / "blobs")
    else:
        snapshot.parent.rename(repository / "snaps")
        snapshot = repository / "snaps" / "0123abcd"
    refused(hf2mcore, snapshot, work / "out", fault=CorruptError, says="is a link that leads out of its directory")


def test_links_that_stay_inside(work: Path) -> None:
    hf = work / "given" / "hf"
    (hf / "sub").mkdir()
    (hf / "merges.txt").rename(hf / "sub" / "m")
    link(hf / "merges.txt", "sub/m")
    link(hf / "NOTICE", hf / "vocab.json")
    assert hf2mcore(hf, work / "out").status == "done"
    assert {"merges.txt", "NOTICE"} <= {path.name for path in (work / "out" / "huggingface").iterdir()}


def test_weights_may_lie_anywhere(work: Path) -> None:
    hf = work / "given" / "hf"
    for path in list(hf.glob("model*")):
        path.rename(work / "private" / path.name)
        link(path, work / "private" / path.name)
    assert hf2mcore(hf, work / "out").status == "done"


@pytest.mark.parametrize("target", ["/dev/null", "/proc/self/environ", "..", "nowhere"])
def test_weights_that_lead_to_no_file_of_weights(work: Path, target: str) -> None:
    hf = work / "given" / "hf"
    name = "model-00001-of-00002.safetensors"
    link(hf / name, target)
    refused(hf2mcore, hf, work / "out", fault=CorruptError, says=name)


def test_what_is_no_file_is_left_behind(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it leads to is not read."""
    hf = work / "given" / "hf"
    os.mkfifo(hf / "fifo.txt")
    with socket.socket(socket.AF_UNIX) as served:
        monkeypatch.chdir(hf)  # a socket's path is short
        served.bind("socket.txt")
    for name, target in {
        "broken.txt": "nowhere",
        "round.txt": "round.txt",
        "folder.txt": "/etc",
        "code.py": "/etc/passwd",
    }.items():
        link(hf / name, target)
    report = hf2mcore(hf, work / "out")
    assert report.status == "done"
    left = {"fifo.txt", "socket.txt", "broken.txt", "round.txt", "code.py"}
    assert {name for name in left if any(w.startswith(f"{name} is not copied: ") for w in report.warnings)} == left
    assert not {path.name for path in (work / "out" / "huggingface").iterdir()} & (left | {"folder.txt"})


class TestTheFolderBesideACheckpoint:
    """`huggingface`, found without being named."""

    @pytest.mark.parametrize("place", ["mcore/huggingface", "mcore/release/huggingface", "huggingface"])
    def test_a_link_to_another_directory_of_this_machine(self, work: Path, place: str) -> None:
        (work / "given" / "hf").rename(work / "private" / "hf")
        link(work / "given" / place, work / "private" / "hf")
        refused(
            *(mcore2hf, work / "given" / "mcore", work / "out"),
            fault=ReferenceFault,
            says=(f"huggingface is a link that leads to {work.resolve()}/private/hf",),
            hint="--reference",
        )
        options = Mcore2HfOptions(reference=str(work / "private" / "hf"))
        assert mcore2hf(work / "given" / "mcore", work / "out", options).status == "done"

    @pytest.mark.parametrize("target", ["../huggingface", "hf", "../../huggingface"])
    def test_a_link_that_stays(self, work: Path, target: str) -> None:
        release = work / "given" / "mcore" / "release"
        (work / "given" / "hf").rename(release / target)
        link(release / "huggingface", target)
        assert mcore2hf(release, work / "out").status == "done"

    def test_by_a_checkpoint_that_is_a_link(self, work: Path) -> None:
        (work / "given" / "hf").rename(work / "given" / "mcore" / "huggingface")
        (work / "latest").symlink_to("given/mcore/release")
        assert mcore2hf(work / "latest", work / "out").status == "done"


def test_it_is_found_out_before_anything_is_read(tmp_path: Path) -> None:
    def at(name: str, target: str) -> Any:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").symlink_to(target)
        return tmp_path / name

    with pytest.raises(CorruptError, match="leads out of its directory, to /etc/passwd"):
        find_reference(at("a", "/etc/passwd"), None, tmp_path)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x\nerror: y").symlink_to("/etc/passwd")
    with pytest.raises(CorruptError) as caught:
        side_files(tmp_path / "c")
    assert "\n" not in caught.value.what + caught.value.hint
