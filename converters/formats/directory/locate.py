"""Which directory below a given one is the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ...errors import NotACheckpoint, shown_path
from ..open_files import children, is_dir, is_file, opened, status, unnoted
from .mistaken import taken_for_mcore
from .unfinished import check_finished, is_unfinished

TRACKER = "latest_checkpointed_iteration.txt"

_STEPS = ("iter_", "global_step_")
_SAVED = (*_STEPS, "release")
_KNOWN = ("release", "dist_ckpt", "dist_model", "actor", "critic", "policy", "model")
_LISTED = 20
"""Checkpoints, or iterations, that a message lists."""


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
        raise _no_directory(path, holds)
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
                f"The save is incomplete, or was pruned. {_there(path, _below(path, holds))}".rstrip(),
            )
    else:
        below = _below(path, holds)
        found = below if iteration is None else [f for f in below if iteration in _numbers(f.relative_to(path))]
        if not found:
            raise _none(path, holds, below, iteration)
    if len(found) == 1:
        return found[0]
    raise _several(path, found)


def one_or_more(holds: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """Whether a directory is a checkpoint, or one above several: with a tracker file, or with iterations.

    Args:
        holds: whether a directory itself is a checkpoint.
    """

    def of_several(path: Path) -> bool:
        return is_file(path / TRACKER) or any(
            _candidates(c, holds) for c in _children(path) if c.name.startswith(_SAVED)
        )

    return lambda path: is_dir(path) and (holds(path) or of_several(path))


def _no_directory(path: Path, holds: Callable[[Path], bool]) -> NotACheckpoint:
    hint = "Give the directory of a Megatron checkpoint."
    if not status(path):
        beside = _below(path.parent, holds) if _is_step(path.name) else []
        return NotACheckpoint(f"{shown_path(path)}: does not exist", f"{hint} {_there(path.parent, beside)}".rstrip())
    return taken_for_mcore(path, one_or_more(holds)) or NotACheckpoint(f"{shown_path(path)}: not a directory", hint)


def _none(path: Path, holds: Callable[[Path], bool], below: list[Path], iteration: int | None) -> NotACheckpoint:
    """Nothing fits: what is there instead.

    Raises:
        NotACheckpoint: one of the folders is an unfinished output of ours.
    """
    for child in _children(path):
        check_finished(child)
    asked = f" of iteration {iteration}" if iteration is not None else ""
    above, others = (path.parent, _below(path.parent, holds)) if not below and _is_step(path.name) else (path, below)
    return (not others and taken_for_mcore(path, one_or_more(holds))) or NotACheckpoint(
        f"{shown_path(path)}: no Megatron checkpoint{asked} there",
        _there(above, others)
        or "Looked for .metadata here, in iter_*, release, dist_ckpt, global_step_*, and for a tracker file.",
    )


def _several(path: Path, found: list[Path]) -> NotACheckpoint:
    listed = "\n".join([f"  {shown_path(f)}" for f in found[:_LISTED]] + _more(found))
    chosen = len({frozenset(_numbers(f.relative_to(path))) for f in found}) > 1
    if {"actor", "critic"} <= {part for f in found for part in f.relative_to(path).parts}:
        hint = "Give one of them; the actor is the model that was trained to answer."
    else:
        hint = "Give one of them, or --iteration N." if chosen else "Give one of them."
    return NotACheckpoint(f"{shown_path(path)}: holds several checkpoints:\n{listed}", hint)


def _there(path: Path, found: Iterable[Path]) -> str:
    """The iterations that are there, in a sentence; "" where there are none."""
    numbers = sorted({number for f in found for number in _numbers(f.relative_to(path))})
    if not numbers:
        return ""
    listed = ", ".join(f"{number:d}" for number in numbers[-_LISTED:])
    earlier = f"{len(numbers) - _LISTED} earlier ones and " if len(numbers) > _LISTED else ""
    return f"Iterations there: {earlier}{listed}."


def _more(found: list[Path]) -> list[str]:
    return [f"  … and {len(found) - _LISTED} more"] * (len(found) > _LISTED)


def tracker_word(directory: Path) -> str | None:
    """What a directory's tracker file says, unchecked: an iteration's number, or "release".

    None where there is none.
    """
    tracker = directory / TRACKER
    if not is_file(tracker):
        return None
    with unnoted(), opened(tracker) as file:  # beside a trainer at work it soon names the next iteration
        return file.read(64).decode("ascii", "replace").strip()


def below(path: Path, holds: Callable[[Path], bool]) -> list[Path]:
    """The checkpoints in the folders below a directory, in the order of their iterations; see `locate`."""
    found = _distinct([f for child in _children(path) for f in _candidates(child, holds)])
    numbered = {f: iteration_of(f) for f in found}
    return sorted(found, key=lambda f: (-1 if (number := numbered[f]) is None else number, f))


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


def _below(path: Path, holds: Callable[[Path], bool]) -> list[Path]:
    """All checkpoints in the folders of a directory."""
    return _distinct([f for child in _children(path) for f in _candidates(child, holds)])


def _distinct(found: list[Path]) -> list[Path]:
    """Every directory once, under its own name rather than a link's, in the order of their numbers."""
    named = {f.resolve(): f for f in sorted(found, key=Path.is_symlink, reverse=True)}
    return sorted(named.values(), key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A path's texts and numbers by turns: global_step_2 comes before global_step_10."""
    parts = re.split(r"(\d+)", str(path), flags=re.ASCII)
    return [(int(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)]


def _is_step(name: str) -> bool:
    return name.startswith(_STEPS)


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


def iteration_of(directory: Path) -> int | None:
    """The iteration that a checkpoint's directory, or one of the two above it, is called after, if one is."""
    numbers = _numbers(Path(*directory.absolute().parts[-3:]))
    return numbers.pop() if len(numbers) == 1 else None


def _agree(path: Path, iteration: int | None) -> None:
    numbers = _numbers(Path(*path.absolute().parts[-3:]))
    if iteration is not None and numbers and iteration not in numbers:
        raise NotACheckpoint(
            f"{shown_path(path)}: is not iteration {iteration}", "Leave --iteration out, or give the directory above."
        )
