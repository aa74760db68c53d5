"""metadata.json: which of Megatron-core's backends saved a checkpoint, and in which version of its form.

    {"sharded_backend": "torch_dist", "sharded_backend_version": 1,
     "common_backend": "torch", "common_backend_version": 1}

Megatron-core writes it last, up to 0.18 all of it, from 0.19 on the first two; it takes what is not there for this.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ...errors import CorruptError, UnsupportedError, shown
from ..json_file import read_json
from ..open_files import file_name

FILE = "metadata.json"

_OTHERS = {"sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}


def stated_backend(directory: Path, known: Collection[str]) -> str:
    """The backend that a checkpoint's metadata.json names.

    Args:
        directory: of the checkpoint.
        known: backends whose checkpoints are read.

    Raises:
        CorruptError: there is no such file, or it is no JSON object that names one.
        UnsupportedError: it names another backend than those, or another version.
        ReadError: the system does not let it be read.
    """
    path = directory / FILE
    stated = read_json(path)
    backend = stated.get("sharded_backend")
    if not isinstance(backend, str) or not backend:
        raise CorruptError(
            f"{file_name(path)} names no sharded_backend, as Megatron's does",
            "It is damaged or of another program: copy it again, or save the checkpoint again.",
        )
    wrong = "" if backend in known else f"sharded_backend {shown(backend)}"
    for name, value in _OTHERS.items():
        found = stated.get(name, value)
        if not wrong and (type(found) is not type(value) or found != value):
            wrong = f"{name} {shown(found)}"
    if wrong:
        raise UnsupportedError(
            f"{file_name(path)} states {wrong}; {' and '.join(sorted(known))} of version 1 are read",
            "Load it in the Megatron that saved it, and save it again with --ckpt-format torch_dist.",
        )
    return backend
