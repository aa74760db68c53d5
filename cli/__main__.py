"""The console script, and `python -m vlconv`: signals are taken first, then the command line is loaded."""

from __future__ import annotations

from vlconv import ending


def main() -> None:
    """The whole process."""
    ending.begin()
    try:
        from vlconv import app  # takes a third of a second, in which Ctrl-C is met, too

        app.main()
    finally:
        ending.over()


if __name__ == "__main__":
    main()
