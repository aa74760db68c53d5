"""The output directory: absent or complete, never half done.

Everything is written in a staging directory beside it and takes its place at the very end (atomic_swap.py). A run that
is killed leaves a staging directory whose marker tells the next run what to do with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..errors import TargetError, VlconvError
from ..formats.directory.locate import tracker_word
from ..report import Report
from .atomic_swap import Step, conclude, recover, remove, swap
from .claim import Claim, Note
from .faults import sync, sync_tree, told, unwritable
from .place import check_apart, check_place, check_removable, check_room, check_staging
from .replaceable import Copies, Existing
from .save_directory import check_addition, describe_addition, gather
from .target import Target


class OutputDirectory:
    """A directory that comes into being as a whole, or an iteration in a save directory.

        target = Target(path=Path("Qwen3-VL-mine"), kind=HF_MODEL, overwrite=True)
        with OutputDirectory(target, sources=[source], need=nbytes) as new:
            ...  # write below `new` what shall be below `target`

    On success the target is there; `leftover` then says where a replaced one still lies, if it could not be removed.
    On any exception, Ctrl-C among them, what was written is removed and an existing target is as it was.

    Args:
        target: what is to be written, and where.
        sources: directories the output is made from; what is written must not touch them.
        need: bytes that will be written; the room is checked before the first.
        copies: which files come into the target byte for byte.

    Raises:
        TargetError: it cannot be written there; also in place of every OSError, whose file it names.
    """

    def __init__(
        self, target: Target, sources: Sequence[Path] = (), *, need: int = 0, copies: Copies | None = None
    ) -> None:
        self._target = target
        self._sources = [Path(os.path.realpath(s)) for s in sources]
        self._need = need
        self._copies = copies or {}
        self._step = target.whole
        self._existing: Existing | None = None
        self._claim: Claim | None = None
        self.leftover: Path | None = None

    @property
    def place(self) -> Path:
        """The directory that appears: the target, or the iteration in it."""
        return self._step.place

    def check(self) -> str:
        """Refuse a target that cannot be written, without touching anything.

        Returns:
            what a lack of room would be refused with; "" when there is enough. A plan is worth seeing on a small disk,
            too.
        """
        with told(self._target.whole.place):
            self._look()
        try:
            check_room(self._step.place.parent, self._need)
        except TargetError as error:
            return error.what
        return ""

    def describe(self, report: Report) -> None:
        """Tell what is replaced, and what an iteration is added to: after `check`, or before anything is written."""
        if found := self._existing:
            report.fact(
                "replaces",
                f"{self.place}: {found}; it is removed once the new one is complete",
                replaces={"path": str(self.place), "files": found.files, "bytes": found.nbytes},
            )
        if self._step.part:
            describe_addition(report, self._target, self._step)

    def __enter__(self) -> Path:
        with told(self._target.whole.place):
            recover(self._target.whole)
            recover(self._target.step)
            self._look()
            check_room(self._step.place.parent, self._need)
            self._claim = Claim.new(self._step.staging)
            try:
                self._step.new.mkdir()
            except BaseException:
                self._give_up(self._claim)
                self._claim.release()
                raise
        return self._step.new

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claim is not None
        try:
            late = fault or self._install(self._claim)
            if late is not None:
                self._give_up(self._claim)
        finally:
            self._claim.release()
        if isinstance(late, OSError):
            raise unwritable(late, self._step.place) from late
        if late is not fault and late is not None:
            raise late

    def _look(self) -> None:
        """Settle which step it is and what it replaces, and refuse what cannot be."""
        self._step = step = self._target.step
        check_place(step.place)
        check_apart(step.place, self._sources)
        check_staging(step.staging)
        if step.part:
            check_addition(step)
        self._existing = self._target.replaced(step, self._copies)
        if self._existing:
            check_removable(step.place)

    def _install(self, claim: Claim) -> BaseException | None:
        step = self._step
        try:
            if step.part:
                gather(step)
            sync_tree(step.new)
            sync(step.staging)
            replaces = self._existing is not None and self._unchanged()
            claim.note = self._note(step)
            swap(step, replaces=replaces)
            conclude(step, claim)
            remove(step.staging)
            self.leftover = step.staging if replaces and step.staging.exists() else None
        except BaseException as late:
            return late
        return None

    def _unchanged(self) -> bool:
        """What is replaced is still what it was; False where it is no more."""
        now = self._target.replaced(self._step, self._copies)
        if now not in (None, self._existing):
            raise TargetError(
                f"{self._step.place} was changed while the new one was written, and is not replaced",
                "See what changed it, and name another target.",
            )
        return now is not None

    def _note(self, step: Step) -> Note:
        sets = bool(step.part) and self._target.set_latest
        return Note(step.written.stat().st_ino, sets, tracker_word(step.place.parent) if sets else None)

    def _give_up(self, claim: Claim) -> None:
        """Leave everything as it was; an iteration that is in its place already is finished."""
        with suppress(OSError, VlconvError):
            conclude(self._step, claim)
            remove(self._step.staging)
