"""Python's collector of cycles, paused while sides are opened.

A large model's tables are a million tuples that all stay and hold no cycle. The collector walks over them again and
again as they grow, which takes longer than making them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Without the collector, if it is on; as a decorator, too."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
