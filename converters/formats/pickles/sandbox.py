"""Reads the pickles of a checkpoint in a child process of bounded memory and time, and hands back plain data.

`.metadata`, common.pt and model_optim_rng.pt are pickles of strangers. Loading runs nothing (closed_unpickler.py); and
a pickle that eats memory or crashes the
interpreter takes only the child with it. The child is started by exec, without site-packages, in some twenty
milliseconds; and it ends with this process, however that ends: it watches the other end of its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ...errors import CorruptError, ReadError, UnsupportedError, shown
from ...signals import Waiting
from .closed_unpickler import TensorRef

if TYPE_CHECKING:
    from ...tensors.spec import Array

Plain = Any
"""None, bool, int, float, str, bytes, list, tuple, dict, Instance, TensorRef."""

START = """
import sys
package = sys.modules["pickles"] = type(sys)("pickles")
package.__path__ = [sys.argv.pop(1)]
from pickles import sandbox_child
sandbox_child.main()
"""
"""What the child runs: its package is this folder, without vlconv around it."""

CHILD = ("-I", "-S", "-c", START, str(Path(__file__).parent))
LARGEST = 512 << 20
"""Bytes of the largest pickle that is read: some millions of items.

The child's memory is bounded by 32 times the size.
"""

BLOCK = 1 << 20
"""Bytes of an answer that are taken at a time: room for all that it may be is not asked for."""


class Instance(NamedTuple):
    """An object of any class, as data: what it was called with, its attributes, and what was appended or set in it.

    An enum's value is its first argument.
    """

    class_name: str
    arguments: tuple[Plain, ...]
    attributes: dict[Plain, Plain]
    items: tuple[Plain, ...] = ()


def plain_dict(value: Plain) -> dict[str, Any]:
    """A namespace or dict (the `args` of Megatron) as JSON-like values by name.

    Enums become their value, tuples lists, and what has no such form the name of its class. Anything else than a
    namespace or dict gives {}.
    """
    if isinstance(value, Instance):
        value = value.attributes
    return {str(k): _json(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _json(value: Plain) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, TensorRef):
        return f"tensor {list(value.shape)}"
    if isinstance(value, Instance):
        if len(value.arguments) == 1 and not value.attributes and not value.items:
            return _json(value.arguments[0])
        return plain_dict(value.attributes) if value.attributes else value.class_name
    if isinstance(value, dict):
        return plain_dict(value)
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    return type(value).__name__


def ask(
    kind: str, file: BinaryIO, offset: int, length: int, crc: int | None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The child's answer about a slice of a file: header and int64 columns. Errors have no file name yet.

    Raises:
        CorruptError: hostile or damaged.
        UnsupportedError: too large.
        ReadError: the child cannot be started.
        OSError: the system does not let the file be read.
    """
    if length > LARGEST:
        raise UnsupportedError(
            f"describes its content in {length} bytes; at most {LARGEST} are read",
            "No checkpoint of a model needs that many.",
        )
    most = (16 << 20) + 16 * length
    fd = file.fileno()
    request = [kind, *map(str, (fd, offset, length, -1 if crc is None else crc))]
    header, columns = _unpacked(_run([sys.executable, *CHILD, *request], fd, most))
    if type(code := header.get("errno")) is int:
        raise OSError(code, os.strerror(code))
    if "refused" in header:
        raise CorruptError(shown(header["refused"], 400), f"Nothing in the file was run. {CorruptError.usual_hint}")
    return header, columns


def _run(command: list[str], fd: int, most: int) -> bytearray:
    """What a child that inherits `fd` writes to stdout, at most `most` bytes."""
    child = None
    try:
        with Waiting():  # a signal between the start and the assignment would leave it alone
            child = _started(command, fd)
        assert child.stdout is not None
        data = bytearray()
        while block := child.stdout.read(BLOCK):
            data += block
            if len(data) > most:
                raise CorruptError("unpacks to far more than its size explains")
    except BaseException:
        if child is not None:
            child.kill()
        raise
    finally:
        if child is not None:
            with child:  # closes its pipes and waits
                pass
    if child.returncode:
        raise CorruptError(f"cannot be read: {_death(-child.returncode)}")
    return data


def _started(command: list[str], fd: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[fd]
        )
    except OSError as fault:
        raise ReadError(
            f"cannot be read: the process that reads it cannot be started: {fault.strerror}",
            "The machine lacks memory, processes or open files: try again when it has some.",
        ) from None


def _death(signal_number: int) -> str:
    if signal_number in (signal.SIGXCPU, signal.SIGKILL):
        return "it takes more time or memory than its size explains"
    if signal_number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        return "it is nested so deep, or so damaged, that the process reading it crashed"
    return f"the process reading it ended with status {-signal_number}"


def _unpacked(data: bytes | bytearray) -> tuple[dict[str, Any], dict[str, Array]]:
    """Splits an answer (sandbox_child.send) after checking that its lengths add up."""
    import numpy as np

    start = 16 + int.from_bytes(data[8:16], "little")
    try:
        if data[:8] != b"vlconv01" or start > len(data):
            raise ValueError
        header = json.loads(data[16:start])
        sizes = header["columns"]
        if min(sizes.values(), default=0) < 0 or start + 8 * sum(sizes.values()) != len(data):
            raise ValueError
        columns = {}
        for name, size in sizes.items():
            columns[name] = np.frombuffer(data, "<i8", size, start)
            start += 8 * size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptError("cannot be read: the process reading it gave no proper answer") from None
    return header, columns


def decoded(node: Any) -> Plain:
    """The value of a JSON node (sandbox_child.Tree)."""
    if not isinstance(node, list):
        return node
    kind, *rest = node
    if kind == "l":
        return [decoded(n) for n in rest[0]]
    if kind == "t":
        return tuple(decoded(n) for n in rest[0])
    if kind == "d":
        return _pairs(rest[0])
    if kind == "T":
        key, dtype, numel, offset, shape, stride = rest
        return TensorRef(key, dtype, numel, offset, tuple(shape), tuple(stride))
    if kind == "b":
        return b64decode(rest[0])
    name, arguments, attributes, items = rest
    return Instance(name, tuple(map(decoded, arguments)), _pairs(attributes), tuple(map(decoded, items)))


def _pairs(nodes: list[Any]) -> dict[Plain, Plain]:
    return {_key(decoded(key)): decoded(value) for key, value in nodes}


def _key(key: Plain) -> Plain:
    """A dict's key; one that cannot be hashed as data (a record, a list in a tuple) becomes its text."""
    try:
        hash(key)
    except TypeError:
        return repr(key)
    return key
