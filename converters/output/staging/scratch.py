"""A directory for as long as a run lasts, marked as ours: what a killed run left of it is found, and goes."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ...errors import TargetError
from ...formats.directory.unfinished import WORK
from ...signals import Waiting
from .atomic_swap import remove
from .claim import Claim


class Scratch:
    """A new directory in another one, removed with all that is in it.

        scratch = Scratch(Path("."), "vlconv-verify")
        try:
            with scratch as folder:
                ...  # vlconv-verify-1f2e3d4c.partial/work
        finally:
            scratch.remove()  # a signal may have come before the end of the block had begun

    It is named as every unfinished output is, and carries the same marker and lock.

    Raises:
        TargetError: it cannot be made there.
    """

    def __init__(self, place: Path, name: str) -> None:
        self._place, self._name = place, name
        self._folder = place / f"{name}-{secrets.token_hex(4)}.partial"
        self._claim: Claim | None = None

    def __enter__(self) -> Path:
        self._clear()
        with Waiting():
            self._claim = Claim.new(self._folder)
            self._folder.chmod(0o700)
        work = self._folder / WORK
        work.mkdir()
        return work

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
        if fault and os.path.lexists(self._folder):
            fault.add_note(f"{self._folder} was left behind: the next run that needs such a one there removes it.")

    def remove(self) -> None:
        """Remove it; once it is gone, nothing happens."""
        with Waiting():
            if self._claim is not None:
                remove(self._folder)
                self._claim.release()
                self._claim = None

    def _clear(self) -> None:
        """Remove what killed runs left here."""
        for folder in self._place.glob(f"{self._name}-*.partial"):
            with suppress(TargetError):  # of a run that is at work, or of somebody else
                if not folder.is_symlink() and (claim := Claim.take(folder)) is not None:
                    remove(folder)
                    claim.release()
