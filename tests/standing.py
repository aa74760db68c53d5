"""Things that stand where an output is to go: models and checkpoints, as far as their files' names go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.replaceable import CHECKPOINT, HF_MODEL, Kind
from vlconv.converters.output.target import Target

TRACKER = "latest_checkpointed_iteration.txt"


def files(folder: Path, *names: str, text: str = "old") -> Path:
    """Make files with their folders; a name that ends in / is a folder."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(text)
    return folder


def hf_model(folder: Path, text: str = "old") -> Path:
    """As mcore2hf writes one."""
    return files(folder, "config.json", "model.safetensors", "tokenizer.json", "merges.txt", text=text)


def iteration(folder: Path, text: str = "old") -> Path:
    """The directory of one torch_dist checkpoint."""
    return files(folder, ".metadata", "metadata.json", "common.pt", "__0_0.distcp", "__0_1.distcp", text=text)


def save_directory(folder: Path, *names: str, tracker: str | None) -> Path:
    """Iterations side by side, as a trainer leaves them."""
    for name in names:
        iteration(folder / name, text=name)
    if tracker is not None:
        (folder / TRACKER).write_text(tracker)
    return files(folder, "huggingface/config.json", "huggingface/tokenizer.json")


def content(folder: Path) -> dict[str, str]:
    """The text of every file below."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def inodes(folder: Path) -> dict[str, int]:
    """Every entry below."""
    return {str(p.relative_to(folder)): p.lstat().st_ino for p in sorted(folder.rglob("*"))}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def output(path: Path, kind: Kind = HF_MODEL, sources: Any = (), need: int = 0, **target: Any) -> OutputDirectory:
    """The output directory of some target."""
    return OutputDirectory(Target(path=path, kind=kind, **target), sources, need=need)


def write(path: Path, text: str = "new", **options: Any) -> None:
    """Write a model."""
    with output(path, **options) as new:
        hf_model(new, text)


def add(path: Path, number: int | None = 10, text: str = "new", **options: Any) -> OutputDirectory:
    """Write a checkpoint, as hf2mcore does: an iteration, its tracker, and `huggingface`."""
    folder = "release" if number is None else f"iter_{number:07d}"
    whole = output(path, CHECKPOINT, iteration=number, **options)
    with whole as new:
        iteration(new / folder, text)
        (new / TRACKER).write_text("release" if number is None else str(number))
        files(new, "huggingface/config.json", "huggingface/vocab.json", text=text)
    return whole
