"""vlconv inspect: what it prints on a terminal, in a pipe and as JSON, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_config, tiny_shapes, write_tiny_hf

from vlconv import __version__
from vlconv.blocks import tree
from vlconv.converters import Hf2McoreOptions, hf2mcore, inspect
from vlconv.sizes import count


def vlconv(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlconv", "inspect", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def on_a_terminal(*args: object, columns: int = 80) -> str:
    """What is shown on a terminal of that width, without colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "vlconv", "inspect", *map(str, args)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_tiny_hf(tmp_path / "a model")
    return tmp_path / "a model"


def test_in_a_pipe(model: Path) -> None:
    done = vlconv(model)
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in done.stdout.split("\n\n")[0].splitlines())
    assert facts["is"] == "Hugging Face safetensors"
    assert facts["model"].startswith("qwen3_vl: 4 layers of 64, 8/4 heads, vocabulary 300, untied embeddings; vision 4")
    assert facts["converts"] == "yes, by its metadata"
    assert re.search(r"^│  ├─ layers × 4 +\S+ k each  bfloat16$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(f"\n\nvlconv hf2mcore '{model}' 'a model-mcore'\n")


def test_on_a_terminal_no_line_but_the_command_is_wider(model: Path) -> None:
    lines = on_a_terminal(model).splitlines()
    assert any(line.split() == ["is", "Hugging", "Face", "safetensors"] for line in lines)
    assert [line for line in lines if len(line) > 80 and not line.startswith("vlconv ")] == []


@pytest.mark.parametrize("pattern", ["*.layers.3.*", "lm_head.weight", "nothing"])
def test_tensors_in_a_pipe(model: Path, pattern: str) -> None:
    rows = [line.split("\t") for line in vlconv(model, "--tensors", pattern).stdout.splitlines()]
    shapes = tiny_shapes(tiny_config())
    wanted = {n: s for n, s in shapes.items() if ".layers.3." in n or n == "lm_head.weight"}
    wanted = {n: s for n, s in wanted.items() if (".layers." in n) == pattern.startswith("*")}
    if pattern == "nothing":
        wanted = {}
    assert {name: (dtype, shape, nbytes) for name, dtype, shape, nbytes in rows} == {
        name: ("bfloat16", str(list(shape)), str(2 * torch.Size(shape).numel())) for name, shape in wanted.items()
    }


def test_tensors_on_a_terminal(model: Path) -> None:
    shown = on_a_terminal(model, "--tensors", "*.layers.3.*norm*")
    assert "4 of 116 tensors match" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_json(model: Path) -> None:
    done = vlconv(model, "--json")
    found = json.loads(done.stdout)
    shapes = tiny_shapes(tiny_config())
    assert (found["vlconv"], found["command"], found["converts"]) == (__version__, "inspect", True)
    assert found["parameters"] == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert found["dtypes"] == {"bfloat16": found["parameters"]}
    assert found["model"]["sizes"]["vision_config.depth"] == 4
    assert {t["name"]: t["shape"] for t in found["tensors"]} == {name: list(shape) for name, shape in shapes.items()}
    assert sum(block["parameters"] for block in found["blocks"]) == found["parameters"]
    few = json.loads(vlconv(model, "--json", "--tensors", "lm_head*").stdout)
    assert [tensor["name"] for tensor in few["tensors"]] == ["lm_head.weight"]
    assert few["parameters"] == found["parameters"]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = vlconv(tmp_path / "empty")
    assert done.returncode == 1
    assert done.stdout == "" and "no Megatron checkpoint" in done.stderr
    told = json.loads(vlconv(tmp_path / "nowhere", "--json").stdout)
    assert told["error"]["type"] == "NotACheckpoint"


def test_what_does_not_convert_is_a_finding(model: Path) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "llava"}))
    done = vlconv(model)
    assert done.returncode == 0
    assert "converts  no: config.json names model_type 'llava', which is not supported" in done.stdout


def test_names_of_a_stranger_do_not_act_on_the_terminal(tmp_path: Path) -> None:
    """Each way of showing it."""
    evil = "model.\x1b]0;owned\x07.layers.0\n.weight"
    save_file({evil: torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "\x1b[2Jx\nconverts  yes"}))
    for args in ((), ("--tensors", "*"), ("--json",)):
        done = vlconv(tmp_path, *args)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout and "\x07" not in done.stdout
        assert not [line for line in done.stdout.splitlines() if line.startswith("converts  yes")]
    assert len(vlconv(tmp_path, "--tensors", "*").stdout.splitlines()) == 1


def test_narrow_screens_keep_sizes_and_shorten_names(model: Path) -> None:
    lines = [line.plain for line in tree(inspect(model).blocks, 44)]
    assert max(map(len, lines)) <= 44
    assert all(line.endswith("bfloat16") for line in lines)
    assert any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0"), (999, "999"), (1000, "1.00 k"), (50_331_648, "50.3 M"), (999_600, "1.00 M")]
)
def test_counts(number: int, told: str) -> None:
    assert count(number) == told


def test_of_many_iterations_the_latest_and_the_trackers(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "saves", Hf2McoreOptions(as_iteration=3))
    for number in range(10, 30):
        (tmp_path / "saves" / f"iter_{number:07d}").mkdir()
        for path in (tmp_path / "saves" / "iter_0000003").iterdir():
            (tmp_path / "saves" / f"iter_{number:07d}" / path.name).hardlink_to(path)
    shown = vlconv(tmp_path / "saves").stdout.partition("layout")[0]
    listed = re.findall(r"iter_\d+", shown.partition("\niterations")[2])
    assert listed[0] == "iter_0000003"
    assert listed[1:] == ["iter_0000003", *(f"iter_{number:07d}" for number in range(22, 30))]
    assert "iter_0000003  (the tracker's, described here)" in shown
