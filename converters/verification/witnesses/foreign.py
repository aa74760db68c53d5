"""Manners for a foreign library that reads our files.

It says nothing by itself, and what goes wrong in it is one line of ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from ...errors import NotComparable, VlconvError, shown


def version(library: str) -> str:
    """The installed version of a distribution.

    Raises:
        NotComparable: it is not installed.
    """
    try:
        return installed(library)
    except PackageNotFoundError:
        raise NotComparable(f"{library} is not installed, and this check needs it", f"pip install {library}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: both libraries have some for every file that they read, and none that a user of ours could heed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def speaking_for(library: str, without: str = "--witness") -> Iterator[None]:
    """Within it only that library works: whatever it raises becomes NotComparable with the first line of its message.

    Args:
        library: its distribution.
        without: the option that calls it.

    Raises:
        NotComparable: the library failed, or cannot be imported.
    """
    try:
        yield
    except (VlconvError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        cause = _cause(error)
        if isinstance(cause, KeyboardInterrupt | SystemExit):
            raise cause from error
        what = "cannot be imported" if isinstance(error, ImportError) else "does not read this"
        hint = f"That is the library's word; without {without} vlconv reads by itself."
        if isinstance(error, ModuleNotFoundError) and error.name:
            module = shown(error.name.partition(".")[0])
            hint = f"Install what it imports: {module}. Without {without} vlconv reads by itself."
        raise NotComparable(f"{library} {version(library)} {what}: {_line(cause)}", hint) from error


def _cause(error: BaseException) -> BaseException:
    """What a rank raised, out of the exception that torch gathers from all ranks: rank -> (error, its frames)."""
    failures = getattr(error, "failures", None)
    if isinstance(failures, dict) and failures:
        first = next(iter(failures.values()))[0]
        return first if isinstance(first, BaseException) else error
    return error


def _line(error: BaseException) -> str:
    """The first line of an error's message, behind its type; the second too where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {shown(message, 300)}" if message else type(error).__name__
