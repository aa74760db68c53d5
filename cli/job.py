"""A command in several processes, as torchrun starts them: rank 0 runs it and talks, the others do shares of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from vlconv import ending
from vlconv.converters import RankError, ranks
from vlconv.render import message


def mute() -> None:
    """Of several processes only the first one says what is wrong with the command line, or what its help is."""
    with suppress(RankError):  # which all of them meet
        if (place := ranks.place_of(os.environ)) and place.rank:
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 # to the end


class Job:
    """The processes of which this one may be the first."""

    def __init__(self) -> None:
        self._lead: ranks.Lead | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Within it a command runs in all processes that the environment speaks of. All but the first never return.

        Where it speaks of none, this one may be forked.

        Raises:
            RankError: they do not come together.
        """
        place = ranks.place_of(os.environ)
        if place is None:
            with ranks.allowed():
                yield
            return
        if place.rank:
            ranks.serve(place, _leave, ending.came)
        self._lead = ranks.join(place)
        with self._lead.in_force():
            yield

    def check(self) -> None:
        """Raise what went wrong in another process."""
        if self._lead:
            self._lead.check()

    def cause(self, fault: BaseException) -> BaseException:
        """What it comes from: a signal may be the launcher's answer to the end of another process."""
        return self._lead.cause(fault) if self._lead else fault

    def end(self, code: int) -> None:
        """The others leave with this exit code, too."""
        if self._lead:
            self._lead.end(code)


def _leave(code: int, words: str) -> NoReturn:
    """End the process at once: the library that connects processes may wait in a thread of it."""
    if words:
        with suppress(OSError, AttributeError):  # there may be no stderr
            os.write(2, f"error: {message(words)}\n".encode(errors="backslashreplace"))
    os._exit(code)
