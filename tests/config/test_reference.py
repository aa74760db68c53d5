"""Where the reference comes from, and which files go beside converted weights."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from tiny import tiny_config, write_side_files, write_tiny_hf

from vlconv.converters.config.reference import find_reference, side_files
from vlconv.converters.errors import CorruptError, ReferenceFault

FIND = """
from pathlib import Path
from vlconv.converters.config.reference import find_reference
print(find_reference("Qwen/Qwen3-VL-2B-Instruct", None, Path(".")))
"""


@pytest.fixture
def checkpoint(tmp_path):
    directory = tmp_path / "run/iter_0000010/dist"
    directory.mkdir(parents=True)
    return directory


def put_config(directory, text='{"model_type": "qwen3_vl"}'):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(text)
    return directory


@pytest.mark.parametrize("place", ["huggingface", "../huggingface", "../../huggingface"])
def test_found_beside_the_checkpoint(checkpoint, place):
    put_config(checkpoint / place)
    found = find_reference(None, None, checkpoint)
    assert found.directory == (checkpoint / place).resolve()
    assert found.said == f"{place} beside the checkpoint"
    assert found.config == {"model_type": "qwen3_vl"}


def test_the_nearest_with_a_config_wins(checkpoint):
    (checkpoint / "huggingface").mkdir()  # without a config.json
    put_config(checkpoint / "../huggingface")
    put_config(checkpoint / "../../huggingface")
    assert find_reference(None, None, checkpoint).said.startswith("../huggingface")


ALL = [
    "tokenizer",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
    "chat template",
]


def test_none_found(checkpoint):
    assert find_reference(None, None, checkpoint) is None
    assert side_files(None) == ([], [], ALL)


def test_an_existing_path_wins_over_a_hub_id(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_config(tmp_path / "Qwen/Qwen3-VL-2B-Instruct")
    assert find_reference("Qwen/Qwen3-VL-2B-Instruct", None, checkpoint).said == "given as --reference"


@pytest.mark.parametrize("inside", [".", "run"])
def test_its_config_json_stands_for_the_directory(checkpoint, tmp_path, monkeypatch, inside):
    put_config(tmp_path / "hf")
    (tmp_path / "run").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / inside)
    for option in (tmp_path / "hf/config.json", f"{'..' if inside == 'run' else '.'}/hf/config.json"):
        found = find_reference(option, None, checkpoint)
        assert found.directory.resolve() == tmp_path / "hf" and found.said == "given as --reference"
    monkeypatch.chdir(tmp_path / "hf")
    assert find_reference("config.json", None, checkpoint).directory.resolve() == tmp_path / "hf"


def test_another_file_is_no_reference(checkpoint, tmp_path):
    put_config(tmp_path / "hf")
    (tmp_path / "hf/model.safetensors").touch()
    with pytest.raises(ReferenceFault, match="is a file"):
        find_reference(tmp_path / "hf/model.safetensors", None, checkpoint)


@pytest.mark.parametrize(
    ("option", "revision", "says"),
    [
        ("/no/such/directory", None, "does not exist"),
        ("a/b/c", None, "does not exist"),
        ("empty", None, "has no config.json"),
        ("full", "main", "--revision goes with a hub id"),
        (None, "main", "--revision names a revision"),
    ],
)
def test_faults(checkpoint, tmp_path, monkeypatch, option, revision, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    put_config(tmp_path / "full")
    with pytest.raises(ReferenceFault, match=says):
        find_reference(option, revision, checkpoint)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', '{"a": NaN}', "\xff", "[" * 100000])
def test_a_config_that_is_no_json_object(checkpoint, tmp_path, text):
    (put_config(tmp_path / "hf") / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptError, match=r"config.json"):
        find_reference(str(tmp_path / "hf"), None, checkpoint)


@pytest.mark.versions
@pytest.mark.parametrize("offline", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_out_of_reach_fails_at_once(tmp_path, offline):
    """In a process of its own: huggingface_hub reads these variables once."""
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", FIND],
        env={**os.environ, "HF_HOME": str(tmp_path), **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        "ReferenceFault: the reference Qwen/Qwen3-VL-2B-Instruct is not a directory here, not in the local cache"
        in run.stderr
    )
    assert time.monotonic() - start < 10


@pytest.mark.versions
def test_out_of_reach_but_in_the_cache(tmp_path):
    """HF_HOME is honoured."""
    repository = tmp_path / "hub/models--Qwen--Qwen3-VL-2B-Instruct"
    put_config(repository / "snapshots/0123456789abcdef0123456789abcdef01234567")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123456789abcdef0123456789abcdef01234567")
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", FIND], env=env, capture_output=True, text=True, check=True)
    assert "said='hub id Qwen/Qwen3-VL-2B-Instruct'" in run.stdout
    assert "'model_type': 'qwen3_vl'" in run.stdout


def test_only_config_and_side_files_are_fetched(checkpoint, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}
    sizes = {
        "config.json": 9,
        "tokenizer.json": 9,
        "[a].txt": 9,
        "model.safetensors": 9,
        "model.safetensors.index.json": 9,
        "sub/vocab.json": 9,
        ".gitattributes": 9,
    }
    sizes |= {"README.md": 9, "modeling.py": 9, "huge.json": 10**9, "pytorch_model.bin": 9}

    class Api:
        def model_info(self, repo_id, **how):
            assert how["revision"] == "v1"
            return SimpleNamespace(
                siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
            )

    def snapshot_download(repo_id, **how):
        asked.update(how, repo_id=repo_id)
        return str(put_config(tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = find_reference("Qwen/Some", "v1", checkpoint)
    assert found.said == "hub id Qwen/Some, revision v1"
    assert sorted(asked["allow_patterns"]) == ["[[]a].txt", "config.json", "tokenizer.json"]
    at = find_reference("Qwen/Some@v1", None, checkpoint)
    assert at == found
    with pytest.raises(ReferenceFault, match=r"Qwen/Some@v1 names a revision, and --revision another"):
        find_reference("Qwen/Some@v1", "v2", checkpoint)
    assert (asked["repo_id"], asked["revision"]) == ("Qwen/Some", "v1")


def test_the_files_of_a_release_are_all_carried_over(tmp_path):
    write_tiny_hf(tmp_path, shards=2)
    found = side_files(tmp_path)
    names = [p.name for p in found.copy]
    assert names == [
        "chat_template.json", "generation_config.json", "merges.txt", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json",
    ]  # fmt: skip
    assert (found.skipped, found.missing) == ([], [])


def test_what_is_left_behind(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    hf = put_config(tmp_path / "hf")
    write_side_files(hf, tiny_config())
    endings = [
        "safetensors",
        "bin",
        "pt",
        "pth",
        "ckpt",
        "distcp",
        "gguf",
        "onnx",
        "h5",
        "msgpack",
        "SAFETENSORS",
        "index.json",
    ]
    silent = [f"x.{ending}" for ending in endings] + ["README.md", "vlconv.json", "args.json", ".gitattributes"]
    for name in [*silent, "modeling_x.py", "LICENSE"]:
        (hf / name).write_text("x")
    (hf / "folder").mkdir()
    (hf / "linked.txt").symlink_to(hf / "merges.txt")
    (hf / "broken.txt").symlink_to(hf / "nowhere")
    os.mkfifo(hf / "pipe.json")
    with open(hf / "large.json", "wb") as file:
        file.truncate(100_000_001)
    with open(hf / "just.json", "wb") as file:
        file.truncate(100_000_000)
    found = side_files(hf)
    names = {p.name for p in found.copy}
    assert {"LICENSE", "linked.txt", "just.json", "tokenizer.json"} <= names
    assert not names & {*silent, "config.json", "folder", "modeling_x.py", "pipe.json", "large.json", "broken.txt"}
    assert found.skipped == [
        ("broken.txt", "a broken link"),
        ("large.json", "larger than 100 MB"),
        ("modeling_x.py", "remote code is not carried over"),
        ("pipe.json", "not a regular file"),
    ]


def test_what_a_user_would_miss(tmp_path):
    put_config(tmp_path)
    assert side_files(tmp_path).missing == ALL
    assert side_files(tmp_path, sees=False).missing == ["tokenizer", "generation_config.json", "chat template"]
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert side_files(tmp_path).missing == [name for name in ALL if name != "preprocessor_config.json"]
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (tmp_path / "processor_config.json").write_text("{}")
    assert side_files(tmp_path).missing == []
