"""Which directory below a given one is the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import NotACheckpoint, shown_path
from ..open_files import children, is_dir, is_file, opened, status, unnoted
from .unfinished import check_finished, is_unfinished

TRACKER = "latest_checkpointed_iteration.txt"

_STEPS = ("iter_", "global_step_")
_KNOWN = ("release", "dist_ckpt", "dist_model", "actor", "policy", "model")


def locate(path: Path, holds: Callable[[Path], bool], iteration: int | None = None) -> Path:
    """The checkpoint directory at or below `path`.

    That is the path itself, else what a tracker file names, else the only child that holds one. Unfinished outputs of
    ours are passed over.

    Args:
        path: what the user gave.
        holds: whether a directory itself is a checkpoint.
        iteration: which of several; None: the tracker's, or the only one.

    Raises:
        NotACheckpoint: none, or several (with the list), or an unfinished output of ours.
        ReadError: the system does not let a folder or the tracker file be read.
    """
    if not is_dir(path):
        raise NotACheckpoint(
            f"{shown_path(path)}: {'not a directory' if status(path) else 'does not exist'}",
            "Give the directory of a Megatron checkpoint.",
        )
    check_finished(path)
    if holds(path):
        _agree(path, iteration)
        return path
    named = _tracked(path, iteration)
    if named is not None:
        found = _candidates(named, holds)
        if not found:
            check_finished(named)
            lacks = "holds no checkpoint" if is_dir(named) else "is missing"
            raise NotACheckpoint(
                f"{shown_path(named)}: {lacks}, though {_why(path, iteration)}",
                "The save is incomplete, or was pruned.",
            )
    else:
        found = [f for child in _children(path) for f in _candidates(child, holds)]
        if iteration is not None:
            found = [f for f in found if iteration in _numbers(f.relative_to(path))]
        found = _distinct(found)
    if len(found) == 1:
        return found[0]
    if not found:
        for child in _children(path):
            check_finished(child)
        asked = f" of iteration {iteration}" if iteration is not None else ""
        raise NotACheckpoint(
            f"{shown_path(path)}: no Megatron checkpoint{asked} there",
            "Looked for .metadata here, in iter_*, release, dist_ckpt, global_step_*, and for a tracker file.",
        )
    listed = "\n".join(f"  {shown_path(f)}" for f in found[:20])
    raise NotACheckpoint(
        f"{shown_path(path)}: holds several checkpoints:\n{listed}", "Give one of them, or --iteration N."
    )


def tracker_word(directory: Path) -> str | None:
    """What a directory's tracker file says, unchecked: an iteration's number, or "release".

    None where there is none.
    """
    tracker = directory / TRACKER
    if not is_file(tracker):
        return None
    with unnoted(), opened(tracker) as file:  # beside a trainer at work it soon names the next iteration
        return file.read(64).decode("ascii", "replace").strip()


def _candidates(path: Path, holds: Callable[[Path], bool], depth: int = 2) -> list[Path]:
    """The checkpoints at `path` or in folders below it that trainers are known to put between.

    None where there is no such folder.
    """
    if not is_dir(path) or is_unfinished(path):
        return []
    if holds(path):
        return [path]
    if depth == 0:
        return []
    known = [child for child in _children(path) if child.name in _KNOWN or child.name.startswith(_STEPS)]
    return [f for child in known for f in _candidates(child, holds, depth - 1)]


def _distinct(found: list[Path]) -> list[Path]:
    """Every directory once, under its own name rather than a link's."""
    named = {f.resolve(): f for f in sorted(found, key=Path.is_symlink, reverse=True)}
    return sorted(named.values())


def _children(path: Path) -> list[Path]:
    return [child for child in children(path) if is_dir(child)] if is_dir(path) else []


def _tracked(path: Path, iteration: int | None) -> Path | None:
    """The folder that --iteration or the tracker file names; None where neither says anything."""
    word = str(iteration) if iteration is not None else tracker_word(path)
    if word is None:
        return None
    if iteration is None and word != "release" and not (word.isdigit() and len(word) < 12):
        raise NotACheckpoint(
            f"{shown_path(path / TRACKER)}: holds neither a number nor 'release'",
            "The tracker file is damaged: give the iteration's own directory.",
        )
    if word == "release":
        return path / "release"
    folders = [path / f"iter_{int(word):07d}", path / f"global_step_{int(word)}"]
    there = next((f for f in folders if is_dir(f)), None)
    # With --iteration and no such folder here, look further below; a tracker that names nothing is an error.
    return there if there is not None or iteration is not None else folders[0]


def _why(path: Path, iteration: int | None) -> str:
    return f"--iteration {iteration} asks for it" if iteration is not None else f"{shown_path(path / TRACKER)} names it"


def _numbers(path: Path) -> set[int]:
    """The iterations that a path's parts name."""
    tails = (part.removeprefix(step) for part in path.parts for step in _STEPS if part.startswith(step))
    return {int(t) for t in tails if t.isascii() and t.isdigit()}


def _agree(path: Path, iteration: int | None) -> None:
    numbers = _numbers(Path(*path.absolute().parts[-3:]))
    if iteration is not None and numbers and iteration not in numbers:
        raise NotACheckpoint(
            f"{shown_path(path)}: is not iteration {iteration}", "Leave --iteration out, or give the directory above."
        )
