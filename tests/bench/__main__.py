"""python -m bench: what `make bench` runs."""

from __future__ import annotations

import sys

from . import checkout

checkout.put_first()

from .main import main  # noqa: E402 - what it imports is found only now

if __name__ == "__main__":
    sys.exit(main())
