"""The launcher on this host that has started this process: once it is gone, nobody ends the job or hears of its end."""

from __future__ import annotations

import os

from ..errors import RankError
from .place import Place


class Launcher:
    """What has started this process. To be made before anything else is done.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        self._parent = os.getppid() if place.launched else 0

    def gone(self) -> RankError | None:
        """What is wrong, if it has ended before this process."""
        if not self._parent or os.getppid() == self._parent:
            return None
        return RankError(
            "the launcher that has started this process is gone: it was killed, or had not enough memory",
            "See what its host says of it, and try again.",
        )
