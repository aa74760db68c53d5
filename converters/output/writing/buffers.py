"""The memory that windows are filled in: one buffer for each thread, used again and again.

Fresh memory is the dear thing: touching a page for the first time costs many times what writing to it costs.
"""

from __future__ import annotations

import mmap
import threading

PAGE = 4096
"""Bytes to whose multiples places in memory and in files must fit where the system's own memory is passed by."""


class Buffers:
    """Buffers of the threads that ask for them.

    Attributes:
        nbytes: of each, and of a window; a buffer grows for a single row that is larger.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._own = threading.local()

    def at(self, offset: int, nbytes: int) -> memoryview:
        """Memory for the bytes of a file from `offset` on: a page of the file is a page of memory.

        It holds until the thread asks again.
        """
        first = offset % PAGE
        held: memoryview | None = getattr(self._own, "held", None)
        if held is None or len(held) < first + nbytes:
            self._own.held = None  # first let go of what is too small
            size = max(first + nbytes, self.nbytes + PAGE)
            held = self._own.held = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return held[first : first + nbytes]
