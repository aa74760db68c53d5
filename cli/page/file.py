"""The file that a page is written to: refused before the work begins, or written whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from vlconv.page.html import as_html, template
from vlconv.text import one_line

if TYPE_CHECKING:
    from vlconv.converters import Report

BEGINNING = (
    b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="vlconv '
)
"""Of each page; it tells one from a file that is somebody's own."""


class Page:
    """A page that will be written.

    Args:
        path: of the file.
        a, b: what is held against what, as it was asked for.
        read: directories that the run reads, or what else was given for one.

    Raises:
        TargetError: it cannot be written there, or something else would be lost.
        MissingLibrary: jinja2 is not installed.
    """

    def __init__(self, path: Path, a: str, b: str | None, read: Iterable[str | Path | None]) -> None:
        self._path, self._a, self._b = path, a, b or ""
        self._inside = [side for given in (a, b, *read) if given for side in _directories(str(given))]
        self._check()
        template()

    def write(self, report: Report) -> None:
        """Write it, in one step.

        Raises:
            TargetError: it cannot be written there, or what lies there was not written by vlconv.
        """
        from vlconv.converters import TargetError

        page = as_html(report, a=self._a, b=self._b).encode()
        self._check()
        partial = self._path.with_name(f".vlconv-{token_hex(6)}.partial")
        try:
            try:
                _filled(partial, page)
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as fault:
            raise TargetError(
                f"the report cannot be written to {one_line(self._path)}: {fault.strerror}",
                "What was found is told all the same; for the page give a file somewhere else, and run it again.",
            ) from fault

    def _check(self) -> None:
        """Raises: TargetError."""
        from vlconv.converters import TargetError

        shown, folder = one_line(self._path), self._path.absolute().parent
        if self._path.suffix.lower() not in (".html", ".htm"):
            raise TargetError(f"--report {shown}: that is no name of a page", "Give a name that ends in .html.")
        if not folder.is_dir():
            raise TargetError(f"--report {shown}: its directory is not there", "Make the directory first.")
        for side in self._inside:
            if folder.resolve().is_relative_to(side):
                raise TargetError(
                    f"--report {shown} lies in {one_line(side)}, which is read",
                    "Give a file outside of what is compared.",
                )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise TargetError(f"--report {shown}: its directory cannot be written to", "Give a file somewhere else.")
        if not _free(self._path):
            raise TargetError(
                f"--report {shown}: what lies there is no page of vlconv, and would be lost",
                "Give another name, or remove it first.",
            )


def _directories(given: str) -> list[Path]:
    """The directory that is meant, without an iteration behind it: SAVE:100."""
    sides = [Path(name) for name in (given, given.rpartition(":")[0]) if name]
    return [side.resolve() for side in sides if side.is_dir()]


def _free(path: Path) -> bool:
    """Whether nothing lies there, or an earlier page: a regular file, no link."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _filled(path: Path, page: bytes) -> None:
    with open(path, "xb") as file:
        file.write(page)
        file.flush()
        os.fsync(file.fileno())
