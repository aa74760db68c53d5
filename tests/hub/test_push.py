"""An output uploaded to the Hub: one commit, or none, and the output stands either way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stub import Hub
from mcore.tiny import random_hf_tensors, tiny
from references import differing, read_hf, write_hf

from vlconv.converters import Mcore2HfOptions, OptionError, hf2mcore

SAMPLED = 2

CONFIG = tiny(moe=True)
HF = random_hf_tensors(CONFIG)
REPO = "Org/Mine"

pytestmark = pytest.mark.versions


@pytest.fixture(scope="module")
def mcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("mcore")
    hf2mcore(write_hf(work / "hf", CONFIG, HF), work / "mcore")
    return work / "mcore"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def vlconv(env: dict[str, str], cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlconv", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def published(hub: Hub, directory: Path) -> set[str]:
    """Names on the main branch; each file is what lies here."""
    files = {name: data for name, data in hub.repos[REPO]["main"].items() if name != ".gitattributes"}
    for name, data in files.items():
        assert (directory / name).read_bytes() == data, name
    return set(files)


def test_an_output_and_all_of_it(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "mcore2hf", mcore, "hf", "--push", REPO, "--json")
    assert ran.returncode == 0, ran.stderr
    assert published(hub, tmp_path / "hf") == {path.name for path in (tmp_path / "hf").iterdir()}
    assert len(hub.commits) == 1
    assert hub.private == {REPO: True}
    document = json.loads(ran.stdout)
    assert document["status"] == "done"
    assert document["uploaded"] == {
        "repo": REPO,
        "commit": hub.sha(REPO, "main"),
        "url": f"{hub.url}/{REPO}",
        "private": False,  # the stub's model_info says nothing of it
        "deleted": [],
    }
    (tmp_path / "back").mkdir()
    for name, data in hub.repos[REPO]["main"].items():
        (tmp_path / "back" / name).write_bytes(data)
    assert differing(read_hf(tmp_path / "back"), HF) == []


def test_weights_of_an_earlier_model_go_in_the_same_commit(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    old = {
        "model.safetensors": b"x",
        "model-00001-of-00009.safetensors": b"x",
        "model.safetensors.index.json": b"{}",
        "vlconv.json": b"{}",
        "README.md": b"mine",
    }
    hub.repos[REPO] = {"main": {**old, "sub/model.safetensors": b"x"}}
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "mcore2hf", mcore, "hf", "--push", REPO, "-q")
    assert ran.returncode == 0, ran.stderr
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert set(hub.repos[REPO]["main"]) == {*names, "README.md", "sub/model.safetensors"}
    assert [deleted for _, deleted in hub.commits] == [sorted(old.keys() - names - {"README.md"})]


def test_a_model_of_somebody_else_stays(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    """It is told before the work, and where it came there meanwhile, before the upload."""
    theirs = {"model-00001-of-00009.safetensors": b"x", "README.md": b"theirs"}
    env = hub.env(tmp_path / "cache")
    assert vlconv(env, tmp_path, "mcore2hf", mcore, "hf", "-q").returncode == 0
    hub.repos[REPO] = {"main": dict(theirs)}
    said = f"error: {REPO} on the Hub holds a model that vlconv did not write: model-00001-of-00009.safetensors"
    for command in (("mcore2hf", mcore, "again", "--push", REPO), ("push", "hf", REPO)):
        ran = vlconv(env, tmp_path, *command, "-q")
        assert ran.returncode == 1 and ran.stderr.startswith(said)
    assert (hub.repos[REPO]["main"], hub.commits) == (theirs, [])
    assert not (tmp_path / "again").exists()


def test_a_model_of_somebody_else_that_came_meanwhile(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO] = {"main": {"pytorch_model.bin": b"theirs"}}
    (tmp_path / "model.safetensors").write_bytes(b"ours")
    code = f"""
    from pathlib import Path
    from vlconv.converters.hub.push import push
    push(Path("."), ["model.safetensors"], "{REPO}", "ours")
    """
    command, env = [sys.executable, "-c", textwrap.dedent(code)], hub.env(tmp_path / "cache")
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "holds a model that vlconv did not write: pytorch_model.bin" in ran.stderr
    assert hub.commits == []


def test_a_megatron_output_is_no_model(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "push", mcore, REPO, "-q")
    assert ran.returncode == 1 and "was made by hf2mcore: it is no Hugging Face model" in ran.stderr
    assert hub.repos == {}


@pytest.mark.parametrize("refused", ["POST /api/repos/create", "POST .*/objects/batch", "PUT /lfs/", "POST .*/commit/"])
def test_what_fails_leaves_the_output_and_the_branch(hub: Hub, mcore: Path, tmp_path: Path, refused: str) -> None:
    before = {"README.md": b"mine"}
    if "create" not in refused:
        hub.repos[REPO] = {"main": dict(before)}
    hub.refuse = refused
    env = hub.env(tmp_path / "cache")
    ran = vlconv(env, tmp_path, "mcore2hf", mcore, "my hf", "--push", REPO, "-q")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: my hf was not uploaded to {REPO}: ")
    assert f"The output stands in my hf. Upload it with: vlconv push 'my hf' {REPO}" in ran.stderr
    assert (hub.repos.get(REPO, {"main": before})["main"], hub.commits) == (before, [])
    assert differing(read_hf(tmp_path / "my hf"), HF) == []
    hub.refuse, sent = "", len([line for line in hub.asked if line.startswith("PUT")])
    ran = vlconv(env, tmp_path, "push", "my hf", REPO, "-q")
    assert ran.returncode == 0, ran.stderr
    hub.repos[REPO]["main"].pop("README.md", None)
    assert published(hub, tmp_path / "my hf") == {path.name for path in (tmp_path / "my hf").iterdir()}
    if "commit" in refused:  # all was sent before, and is not sent again
        assert len([line for line in hub.asked if line.startswith("PUT")]) == sent > 0


@pytest.mark.parametrize("reach", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_TOKEN": ""}])
def test_out_of_reach_is_said_before_the_work(hub: Hub, mcore: Path, tmp_path: Path, reach: dict[str, str]) -> None:
    begin = time.monotonic()
    ran = vlconv(hub.env(tmp_path / "cache", **reach), tmp_path, "mcore2hf", mcore, "hf", "--push", REPO, "-q")
    assert time.monotonic() - begin < 20
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: nothing can be uploaded to {REPO}: ")
    assert not (tmp_path / "hf").exists()


def test_another_commit_in_between_stays(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    """What was listed is what would have been replaced."""
    hub.repos[REPO], hub.meanwhile = {"main": {}}, {"model-00001-of-00002.safetensors": b"theirs"}
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "mcore2hf", mcore, "hf", "--push", REPO, "-q")
    assert ran.returncode == 1
    assert f"error: hf was not uploaded to {REPO}: " in ran.stderr
    assert (hub.repos[REPO]["main"], hub.commits) == (hub.meanwhile, [])


def test_a_dry_run_uploads_nothing(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    env = hub.env(tmp_path / "cache")
    assert vlconv(env, tmp_path, "mcore2hf", mcore, "hf", "--push", REPO, "--dry-run", "-q").returncode == 0
    assert vlconv(env, tmp_path, "mcore2hf", mcore, "hf", "-q").returncode == 0
    assert vlconv(env, tmp_path, "push", "hf", REPO, "--dry-run", "-q").returncode == 0
    assert not [line for line in hub.asked if line.startswith(("POST", "PUT"))]
    assert "GET /api/whoami-v2" in hub.asked


def test_what_was_changed_is_not_uploaded(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    env = hub.env(tmp_path / "cache")
    assert vlconv(env, tmp_path, "mcore2hf", mcore, "hf", "-q").returncode == 0
    with (tmp_path / "hf/model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    ran = vlconv(env, tmp_path, "push", "hf", REPO, "-q")
    assert ran.returncode == 1
    assert f"hf is not what was written, and was not uploaded to {REPO}" in ran.stderr
    (tmp_path / "hf/vlconv.json").unlink()
    ran = vlconv(env, tmp_path, "push", "hf", REPO, "-q")
    assert ran.stderr.startswith("error: hf has no vlconv.json, so nothing shows that it is complete")
    assert hub.repos == {}


def test_ctrl_c_while_it_uploads(hub: Hub, mcore: Path, tmp_path: Path) -> None:
    """The output stands by then, and signals count again."""
    hub.stop_at = "POST .*/preupload"
    command = [sys.executable, "-m", "vlconv", "mcore2hf", str(mcore), "hf", "--push", REPO, "-q"]
    with subprocess.Popen(
        command, env=hub.env(tmp_path / "cache"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert hub.stopped.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        hub.go_on.set()
    assert (process.returncode, said.count("interrupted")) == (130, 1)
    assert f"Upload it with: vlconv push hf {REPO}" in said
    assert hub.commits == []
    assert differing(read_hf(tmp_path / "hf"), HF) == []


@pytest.mark.parametrize("repo", ["Mine", "Org/Mine@v1", "Org/Mine/x", "", "Org/My Model"])
def test_what_is_no_repository(hub: Hub, tmp_path: Path, repo: str) -> None:
    with pytest.raises(OptionError, match="is no repository such as"):
        Mcore2HfOptions(push=repo)
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "push", "hf", repo, "-q")
    assert (ran.returncode, hub.asked) == (2, [])


def test_without_a_manifest_nothing_is_uploaded() -> None:
    with pytest.raises(OptionError, match="--no-manifest"):
        Mcore2HfOptions(push=REPO, manifest=False)
