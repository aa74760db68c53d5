"""What a run makes, of what, with which version: in one hash. A run of the same goes on with what an ended one left."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ... import __version__
from ..formats.output_file import OutFile
from ..options import WritingOptions
from .made import asked_for
from .plan import Plan


def fingerprint(plan: Plan, options: WritingOptions) -> str:
    """The hash: of version, command and options, of every source file's identity, and of the planned files."""
    document: dict[str, Any] = {
        "vlconv": __version__,
        "command": plan.report.command,
        "options": asked_for(options),
        # Not the number of the file system: it may be another after a restart.
        "source": [[seen.path, seen.ino, seen.size, seen.mtime_ns] for seen in plan.seen.entries()],
        "files": [_planned(file) for file in plan.files],
        "copied": {folder: [str(path) for path in paths] for folder, paths in plan.beside.items()},
    }
    return _hash(json.dumps(document, sort_keys=True).encode())


def _planned(file: OutFile) -> list[Any]:
    """A file's name, size, tensors and headers. What its seal adds depends on the tensors alone."""
    pieces = _hash(json.dumps([[*piece.box, piece.offset] for piece in file.pieces]).encode())
    return [file.name, file.size, pieces, _hash(*(b"%d:%s" % literal for literal in file.literals))]


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
