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

from ..errors import TargetError, VlconvError, shown_path
from ..formats.directory.locate import tracker_word
from ..report import Observer, Report, Silent, tell_written
from ..signals import Waiting
from .faults import sync, told, unwritable
from .place import check_apart, check_place, check_removable, check_room, check_staging
from .replaceable import Copies, Existing
from .save_directory import check_addition, describe_addition, gather
from .staging.atomic_swap import Step, conclude, recover, remove, swap
from .staging.claim import Claim, Note
from .staging.ended import describe_ended
from .staging.journal import JOURNAL, Journal, keep_only
from .target import Target
from .to_disk import bring_to_disk


class OutputDirectory:
    """A directory that comes into being as a whole, or an iteration in a save directory.

        target = Target(path=Path("Qwen3-VL-mine"), kind=HF_MODEL, overwrite=True)
        with OutputDirectory(target, sources=[source], need=nbytes) as new:
            ...  # write below `new` what shall be below `target`

    On success the target is there; `replaced` then says whether an earlier one was, and `leftover` where that, or the
    folder of the writing, still lies, if it could not be removed.
    On any exception, Ctrl-C among them, what was written is removed and an existing target is as it was.

    Args:
        target: what is to be written, and where.
        sources: directories the output is made from, the source first, then the reference's; what is written must not
            touch them.
        need: bytes that will be written; the room is checked before the first.
        copies: which files come into the target byte for byte.
        fingerprint: what is written, of what, with which version.
        resume: what an ended run with the same fingerprint has finished is kept; see journal.py.
        observer: told how what was written is brought to disk; and once it has taken its place, before any signal that
            waited is given to its handler.

    Raises:
        TargetError: it cannot be written there; also in place of every OSError, whose file it names.
    """

    def __init__(
        self,
        target: Target,
        sources: Sequence[Path] = (),
        *,
        need: int = 0,
        copies: Copies | None = None,
        fingerprint: str = "",
        resume: bool = True,
        observer: Observer | None = None,
    ) -> None:
        self._target = target
        self._sources = [Path(os.path.realpath(s)) for s in sources]
        self._need = need
        self._copies = copies or {}
        self._fingerprint, self._resume = fingerprint, resume
        self._observer = observer or Silent()
        self._step = target.whole
        self._existing: Existing | None = None
        self._claim: Claim | None = None
        self._journal: Journal | None = None
        self._ended: Journal | None = None  # of an ended run, before it is gone on with or removed
        self.leftover: Path | None = None
        self.replaced = False

    @property
    def place(self) -> Path:
        """The directory that appears: the target, or the iteration in it."""
        return self._step.place

    @property
    def staging(self) -> Path:
        """Where it is written at first."""
        return self._step.staging

    @property
    def part(self) -> str:
        """The folder of what is written that takes the place as an iteration; "": all of it does."""
        return self._step.part

    @property
    def journal(self) -> Journal:
        """What is finished of the output; inside the context."""
        assert self._journal is not None
        return self._journal

    def check(self) -> str:
        """Refuse a target that cannot be written, without touching anything.

        Returns:
            what a lack of room would be refused with; "" when there is enough. A plan is worth seeing on a small disk,
            too.
        """
        with told(self._target.whole.place):
            self._look()
            self._goes_on(self._step)
        try:
            self._check_room()
        except TargetError as error:
            return error.what
        return ""

    def describe(self, report: Report) -> None:
        """Tell what is gone on with, what is replaced, and what an iteration is added to.

        After `check`, or before anything is written.
        """
        if self._ended is not None:
            describe_ended(report, self._step.staging, self._ended, same=self._same(self._ended))
        if found := self._existing:
            report.fact(
                "replaces",
                f"{shown_path(self.place)}: {found}; it is removed once the new one is complete",
                replaces={"path": str(self.place), "files": found.files, "bytes": found.nbytes},
            )
        if self._step.part:
            describe_addition(report, self._target, self._step)

    def __enter__(self) -> Path:
        try:
            with told(self._target.whole.place):
                whole = self._target.whole
                self._claim = recover(whole, self._goes_on)
                if self._claim is None and self._target.step != whole:
                    self._claim = recover(self._target.step, self._goes_on)
                self._look()
                self._check_room()
                self._begin()
            return self._step.new
        except BaseException as fault:
            if self._journal is not None:
                self.abandon(fault)
            else:  # what an ended run has left stays for the next one
                self._release()
                if not isinstance(fault, VlconvError):
                    self._name_left(fault)
            raise

    def _begin(self) -> None:
        """Go on with what an ended run has left, or make a staging directory."""
        step = self._step
        if self._claim is not None and self._ended is not None:
            self._journal = self._ended
            keep_only(step.new, list(self._ended.finished))
            return
        with Waiting():
            self._claim = Claim.new(step.staging)
            self._journal = Journal(step.staging / JOURNAL, self._fingerprint)
            self._journal.begin()
            step.new.mkdir()

    def _goes_on(self, step: Step) -> bool:
        """Whether what an ended run has left of that step is of use for this one."""
        self._ended = Journal.read(step.staging / JOURNAL)
        return self._ended is not None and self._same(self._ended) and step == self._target.step

    def _same(self, ended: Journal) -> bool:
        return self._resume and bool(self._fingerprint) and ended.fingerprint == self._fingerprint

    def _check_room(self) -> None:
        kept = self._ended.nbytes if self._ended is not None and self._same(self._ended) else 0
        check_room(self._step.place.parent, max(0, self._need - kept))

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        late = fault or self._install()
        if late is None:
            self._release()
            return
        self.abandon(late)
        if isinstance(late, OSError):
            raise unwritable(late, self._step.place, getattr(late, "__notes__", [])) from late
        if late is not fault:
            raise late

    def abandon(self, fault: BaseException) -> None:
        """Leave everything as it was; an output that is in its place already is finished.

        Whoever uses the directory calls this once more at any exception: a signal's may come before the end of the
        `with` block has begun. When there is nothing to do any more, nothing is done.

        Args:
            fault: why; what is left behind is put into its notes.
        """
        if self._claim is None:
            return
        with Waiting():
            stands = False
            with suppress(OSError, VlconvError):
                stands = conclude(self._step, self._claim)
                remove(self._step.staging)
            if stands:
                fault.add_note(f"{self._step.place} is in its place, complete.")
            self._name_left(fault)
            self._release()

    def _name_left(self, fault: BaseException) -> None:
        if os.path.lexists(self._step.staging):
            fault.add_note(
                f"{self._step.staging} was left behind: the next run to that target goes on with it or removes it."
            )

    def _release(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

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

    def _install(self) -> BaseException | None:
        step, claim = self._step, self._claim
        assert claim is not None
        try:
            if step.part:
                gather(step)
            bring_to_disk(step.new, self._observer)
            sync(step.staging)
            replaces = self._existing is not None and self._unchanged()
            with Waiting():
                claim.note = self._note(step)
                swap(step, replaces=replaces)
                conclude(step, claim)
                tell_written(self._observer, self.place)
                remove(step.staging)  # shutil.rmtree may close a file twice when it is interrupted, and say no more
            self.leftover, self.replaced = step.staging if step.staging.exists() else None, replaces
        except BaseException as late:
            return late
        return None

    def _unchanged(self) -> bool:
        """What is replaced is still what it was; False where it is no more."""
        now = self._target.replaced(self._step, self._copies)
        if now not in (None, self._existing):
            raise TargetError(
                f"{shown_path(self._step.place)} was changed while the new one was written, and is not replaced",
                "See what changed it, and name another target.",
            )
        return now is not None

    def _note(self, step: Step) -> Note:
        sets = bool(step.part) and self._target.set_latest
        return Note(step.written.stat().st_ino, sets, tracker_word(step.place.parent) if sets else None)
