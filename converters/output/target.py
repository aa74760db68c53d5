"""What is asked for: which kind of output, where, and what may go for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import TargetError, shown_path
from ..formats.directory.contents import is_iteration, is_save_directory
from .replaceable import CHECKPOINT, ITERATION, Copies, Existing, Kind, existing
from .staging.atomic_swap import Step


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an output goes.

    Attributes:
        path: the directory to write. With an iteration, where a save directory stands there, that iteration is written
            into it and everything else in it stays.
        kind: what it will be, which is also all that it may replace: HF_MODEL or CHECKPOINT.
        iteration: N of `iter_N`; None: the output is no iteration.
        set_latest: the save directory's tracker file is to name that iteration.
        overwrite: whether an earlier output may be replaced.
    """

    path: Path
    kind: Kind
    iteration: int | None = None
    set_latest: bool = False
    overwrite: bool = False

    @property
    def whole(self) -> Step:
        """The step in which the whole directory takes its place."""
        path = Path(os.path.realpath(self.path))
        return Step(path, path.parent / f"{path.name}.partial")

    @property
    def step(self) -> Step:
        """The step that is needed, as things stand: of the whole directory, or of an iteration in it."""
        whole = self.whole
        if self.iteration is None or not is_save_directory(whole.place):
            return whole
        name = f"iter_{self.iteration:07d}"
        # Trainers list iter_*: a hidden name keeps what is unfinished out of their sight.
        return Step(whole.place / name, whole.place / f".{name}.partial", name)

    def replaced(self, step: Step, copies: Copies) -> Existing | None:
        """What goes when the output takes its place; None where nothing is there.

        Raises:
            TargetError: it must not go.
        """
        place, kind = step.place, ITERATION if step.part else self.kind
        if not place.is_dir() or not list(place.iterdir()):
            return None
        if kind is CHECKPOINT and is_iteration(place):
            raise TargetError(
                f"{shown_path(place)} is itself an iteration, and a directory of iterations would be written",
                f"Name {shown_path(place.parent)} with --as-iteration N, or another target.",
            )
        if self.overwrite:
            return existing(place, kind, copies)
        if step.part:
            raise TargetError(
                f"{shown_path(place)} exists",
                "Give another number, or add --overwrite: that iteration alone is then replaced.",
            )
        raise TargetError(f"{shown_path(place)} exists and is not empty", _what_else(place, kind, copies))


def _what_else(place: Path, kind: Kind, copies: Copies) -> str:
    """What to do where something is; --overwrite is offered only where it helps."""
    try:
        existing(place, kind, copies)
    except TargetError as refusal:
        return refusal.hint
    return "Name another target, or add --overwrite: it is then replaced once the new one is complete."
