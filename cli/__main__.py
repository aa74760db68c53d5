"""The console script, and `python -m vlconv`: signals are taken first, then the command line is loaded."""

from __future__ import annotations

import gc
import os

from vlconv import ending


def main() -> None:
    """The whole process."""
    ending.begin()
    # numpy starts a thread for each core to multiply matrices, which costs seconds of CPU time, and we multiply none.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from vlconv import app  # takes a third of a second, in which Ctrl-C is met, too

        app.main()
    finally:
        ending.over()
        gc.freeze()  # else the interpreter, before it ends, looks once more for cycles in all that there is


if __name__ == "__main__":
    main()
