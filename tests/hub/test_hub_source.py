"""A Hugging Face source on the Hub: fetched into the cache, read there, and refused at once where neither has it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_stub import Files, Hub
from mcore.tiny import random_hf_tensors, tiny
from references import differing, read_hf, write_hf

SAMPLED = 2

CONFIG = tiny(moe=True)
HF = random_hf_tensors(CONFIG)
REPO = "Org/Model"
OFFLINE = {"HF_HUB_OFFLINE": "1"}
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}

pytestmark = pytest.mark.versions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A repository: a model, and what else may be in one."""
    directory = write_hf(tmp_path_factory.mktemp("model") / "hf", CONFIG, HF)
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    return {
        **files,
        "tokenizer.json": b"{}",
        "README.md": b"---\n---\n",
        "modeling.py": b"raise SystemExit(9)",
        "pytorch_model.bin": b"x",
        "onnx/model.safetensors": b"x",
    }


@pytest.fixture
def hub(model: Files) -> Iterator[Hub]:
    with Hub({REPO: {"main": dict(model), "v1": {**model, "tokenizer.json": b'{"v": 1}'}}}) as hub:
        yield hub


def vlconv(env: dict[str, str], cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlconv", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def fetched(hub: Hub) -> set[str]:
    return {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET") and "/resolve/" in line}


def test_an_adapter_and_the_config_of_its_base(model: Files, tmp_path: Path) -> None:
    """Two files of the one, and of the other what goes along: no weights."""
    from safetensors.torch import save

    attention = (CONFIG.text.hidden, CONFIG.text.heads * CONFIG.text.head_dim)
    name = "base_model.model.model.language_model.layers.0.self_attn.o_proj"
    halves = {
        f"{name}.lora_A.weight": torch.ones(4, attention[1]),
        f"{name}.lora_B.weight": torch.ones(attention[0], 4),
    }
    stated = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": REPO}
    adapter = {
        "adapter_config.json": json.dumps(stated).encode(),
        "adapter_model.safetensors": save(halves),
        "optimizer.pt": b"x",
    }
    with Hub({REPO: {"main": dict(model)}, "Org/Adapter": {"main": adapter}}) as hub:
        ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", "Org/Adapter", "mcore", "--adapter", "-q")
        assert ran.returncode == 0, ran.stderr
        assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= fetched(hub)
        assert not [file for file in fetched(hub) if file.startswith(("model", "optimizer"))]
        ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "mcore2hf", "mcore", "back", "--adapter", "--base", REPO)
        assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "back/adapter_config.json").read_text())["base_model_name_or_path"] == REPO
    assert (tmp_path / "back/adapter_model.safetensors").stat().st_size > 4 * 4 * sum(attention)


def test_is_fetched_once_and_converted(hub: Hub, model: Files, tmp_path: Path) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", REPO, "mcore", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "Org/Model of the Hub at " + hub.sha(REPO, "main")[:12] in json.loads(ran.stdout)["facts"]["source"]
    assert fetched(hub) == {
        name for name in model if name.endswith((".safetensors", ".json", ".txt")) and "/" not in name
    }
    assert (tmp_path / "mcore/huggingface/tokenizer.json").read_bytes() == b"{}"
    hub.asked.clear()
    env = hub.env(tmp_path / "cache", **OFFLINE)
    assert vlconv(env, tmp_path, "mcore2hf", "mcore", "back", "-q").returncode == 0
    assert differing(read_hf(tmp_path / "back"), HF) == []
    ran = vlconv(env, tmp_path, "verify", "mcore", REPO, "-q")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert hub.asked == []


def test_a_revision(hub: Hub, tmp_path: Path) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", f"{REPO}@v1", "mcore", "-q")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "mcore/huggingface/tokenizer.json").read_bytes() == b'{"v": 1}'


@pytest.mark.parametrize(
    ("spelled", "says"),
    [
        (f"{REPO}@v2", "the Hub has no revision of that name"),
        ("Org/Other", "the Hub has no repository of that name, or it is private"),
    ],
)
def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path, spelled: str, says: str) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", spelled, "mcore", "-q")
    assert ran.returncode == 1
    assert f"error: the source {spelled} is not a directory here, and the Hub has no" in ran.stderr
    assert says in ran.stderr
    assert "Check the name, the revision and HF_TOKEN." in ran.stderr
    assert not (tmp_path / "mcore").exists()


@pytest.mark.parametrize("reach", [OFFLINE, NOWHERE], ids=["offline", "no network"])
@pytest.mark.parametrize("command", ["hf2mcore Org/Other mcore", "verify Org/Other"])
def test_out_of_reach_is_said_at_once(hub: Hub, tmp_path: Path, reach: dict[str, str], command: str) -> None:
    for name in ("A--One", "B--Two"):
        (tmp_path / f"cache/hub/models--{name}/snapshots/{'0' * 40}").mkdir(parents=True)
    begin = time.monotonic()
    ran = vlconv(hub.env(tmp_path / "cache", **reach), tmp_path, *command.split(), "-q")
    assert time.monotonic() - begin < 20
    assert ran.returncode == (3 if command.startswith("verify") else 1)
    assert "the source Org/Other is not a directory here, not in the local cache, and the Hub cannot be" in ran.stderr
    assert f"The cache {tmp_path}/cache/hub has A/One, B/Two." in ran.stderr


def test_a_hub_that_is_ill_is_asked_once(hub: Hub, tmp_path: Path) -> None:
    hub.refuse = "/models/"
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", REPO, "mcore", "-q")
    assert "the Hub cannot be reached: 403" in ran.stderr
    assert len([line for line in hub.asked if "/models/" in line]) == 1


@pytest.mark.parametrize("reach", [OFFLINE, NOWHERE], ids=["offline", "no network"])
def test_what_was_fetched_as_a_reference_is_no_source(hub: Hub, tmp_path: Path, reach: dict[str, str]) -> None:
    """Its config.json and tokenizer are in the cache, and no weights."""
    cache = tmp_path / "cache"
    vlconv(hub.env(cache), tmp_path, "hf2mcore", REPO, "mcore", "-q")
    vlconv(hub.env(tmp_path / "other"), tmp_path, "mcore2hf", "mcore", "hf", "--reference", f"{REPO}@v1", "-q")
    assert (tmp_path / "hf/tokenizer.json").read_bytes() == b'{"v": 1}'
    hub.asked.clear()
    ran = vlconv(hub.env(tmp_path / "other", **reach), tmp_path, "hf2mcore", f"{REPO}@v1", "second", "-q")
    assert ran.returncode == 1
    assert f"error: of the source {REPO}@v1 there is no model.safetensors" in ran.stderr
    assert f"The cache {tmp_path}/other/hub has of {REPO}: v1." in ran.stderr


def test_a_local_path_of_that_name_wins(hub: Hub, tmp_path: Path) -> None:
    write_hf(tmp_path / REPO, CONFIG, HF)
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", REPO, "mcore", "-q")
    assert (ran.returncode, hub.asked) == (0, [])
    (tmp_path / "Org/Broken").symlink_to("nowhere")
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", "Org/Broken", "second", "-q")
    assert (ran.returncode, hub.asked) == (1, [])


@pytest.mark.parametrize("spelled", ["./Org/Model", "a/b/c", "Model", "Org/Model@", "Org/Model@a b", "/Org/Model"])
def test_what_cannot_be_on_the_hub_is_not_asked_for(hub: Hub, tmp_path: Path, spelled: str) -> None:
    ran = vlconv(hub.env(tmp_path / "cache"), tmp_path, "hf2mcore", spelled, "mcore", "-q")
    assert (ran.returncode, hub.asked) == (1, [])
