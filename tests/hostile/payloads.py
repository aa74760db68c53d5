"""Pieces of pickles that would run something, or eat the machine. Each leaves one object on the stack.

They are made of opcodes by hand, so that nothing here ever holds the dangerous object itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

Fragment = Callable[[Path], bytes]
"""Given the canary's folder: opcodes."""


class Payload(NamedTuple):
    """A piece of a pickle.

    Attributes:
        opcodes: of it.
        kind: "denied" is refused wherever it is read; so is "bomb", for what it needs or for being no pickle; "deep" is
            harmless until someone walks it; "inert" is a name that means nothing to a reader that imports nothing, read
            as a record and left alone.
    """

    opcodes: Fragment
    kind: Literal["denied", "bomb", "deep", "inert"]


def text(value: str | bytes) -> bytes:
    """A string."""
    data = value.encode() if isinstance(value, str) else value
    return b"X" + len(data).to_bytes(4, "little") + data


def name(module: str, attribute: str) -> bytes:
    """A global, protocol 0 to 3."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def stacked(module: str, attribute: str) -> bytes:
    """A global, protocol 4 on; the attribute may be dotted."""
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    """A call."""
    return function + b"(" + b"".join(arguments) + b"tR"


def shell(canary: Path) -> str:
    """A command that leaves traces and shows a secret."""
    return f"touch {canary}/ran; env | grep VLCONV > {canary}/env; env >&2"


def code(canary: Path) -> str:
    """The same in Python."""
    return f"__import__('os').system({shell(canary)!r})"


def _calls(module: str, attribute: str, argument: Callable[[Path], str] = shell) -> Fragment:
    return lambda canary: call(name(module, attribute), text(argument(canary)))


def _file(canary: Path) -> str:
    return str(canary / "ran")


def _grown(levels: int, each: int) -> bytes:
    """A list of lists of lists …, each of the same one below it: memo numbers above those of a usual pickle."""
    rounds = b"".join(
        b"("
        + (b"j" + (1 << 20 | i).to_bytes(4, "little")) * each
        + b"lr"
        + (1 << 20 | i + 1).to_bytes(4, "little")
        + b"0"
        for i in range(levels)
    )
    return b"]r" + (1 << 20).to_bytes(4, "little") + b"0" + rounds + b"j" + (1 << 20 | levels).to_bytes(4, "little")


_PARTIAL = name("torch._utils", "_rebuild_tensor_v2")
_STATE = b"}" + b"(" + text("__reduce__") + text("x") + b"u"

PAYLOADS: dict[str, Payload] = {
    # would run something, by a name that says so
    "posix.system": Payload(_calls("posix", "system"), "denied"),
    "os.system": Payload(_calls("os", "system"), "denied"),
    "nt.system": Payload(_calls("nt", "system"), "denied"),
    "os.system, STACK_GLOBAL": Payload(lambda c: call(stacked("os", "system"), text(shell(c))), "denied"),
    "posix.system, INST": Payload(lambda c: b"(" + text(shell(c)) + b"iposix\nsystem\n", "denied"),
    "posix.system, OBJ": Payload(lambda c: b"(" + name("posix", "system") + text(shell(c)) + b"o", "denied"),
    "posix.system, NEWOBJ": Payload(lambda c: name("posix", "system") + text(shell(c)) + b"\x85\x81", "denied"),
    "posix.system, NEWOBJ_EX": Payload(lambda c: name("posix", "system") + text(shell(c)) + b"\x85}\x92", "denied"),
    "os.popen": Payload(_calls("os", "popen"), "denied"),
    "subprocess.getoutput": Payload(_calls("subprocess", "getoutput"), "denied"),
    "pty.spawn": Payload(_calls("pty", "spawn"), "denied"),
    "eval": Payload(_calls("builtins", "eval", code), "denied"),
    "exec": Payload(_calls("builtins", "exec", code), "denied"),
    "eval of Python 2": Payload(_calls("__builtin__", "eval", code), "denied"),
    "compile": Payload(lambda c: call(name("builtins", "compile"), text(code(c)), text("x"), text("exec")), "denied"),
    "open": Payload(lambda c: call(name("builtins", "open"), text(_file(c)), text("w")), "denied"),
    "__import__": Payload(_calls("builtins", "__import__", lambda c: "antigravity"), "denied"),
    "getattr of an import": Payload(
        lambda c: call(
            call(
                name("builtins", "getattr"),
                call(name("builtins", "__import__"), text("os")),
                text("system"),
            ),
            text(shell(c)),
        ),
        "denied",
    ),
    "getattr of a class": Payload(
        lambda c: call(call(name("builtins", "getattr"), name("builtins", "dict"), text("__base__")), b""), "denied"
    ),
    "globals": Payload(lambda c: call(name("builtins", "globals")), "denied"),
    "setattr": Payload(
        lambda c: call(name("builtins", "setattr"), name("torch", "Size"), text("x"), text("y")), "denied"
    ),
    "a module in a dotted name": Payload(
        lambda c: call(stacked("torch", "serialization.os.system"), text(shell(c))), "denied"
    ),
    "importlib": Payload(_calls("importlib", "import_module", lambda c: "antigravity"), "denied"),
    "runpy": Payload(_calls("runpy", "run_path", _file), "denied"),
    "pickle.loads": Payload(lambda c: call(name("pickle", "loads"), text(b"cos\nsystem\n.")), "denied"),
    "marshal": Payload(_calls("marshal", "loads"), "denied"),
    "ctypes": Payload(_calls("ctypes", "CDLL", lambda c: "libc.so.6"), "denied"),
    "shutil.rmtree": Payload(_calls("shutil", "rmtree", str), "denied"),
    "timeit": Payload(_calls("timeit", "timeit", code), "denied"),
    "sys.exit": Payload(lambda c: call(name("sys", "exit"), b"K\x00"), "denied"),
    "webbrowser": Payload(_calls("webbrowser", "open", lambda c: "file:///"), "denied"),
    # would run something, by a name that nobody keeps a list of
    "torch.load": Payload(_calls("torch", "load", _file), "inert"),
    "torch.storage._load_from_bytes": Payload(_calls("torch.storage", "_load_from_bytes"), "inert"),
    "functools.partial": Payload(
        lambda c: call(call(name("functools", "partial"), name("torch", "eval"), text(code(c)))), "bomb"
    ),
    "operator.methodcaller": Payload(lambda c: call(name("operator", "methodcaller"), text("system")), "inert"),
    "numpy runstring": Payload(
        lambda c: call(name("numpy.testing._private.utils", "runstring"), text(code(c)), b"}"), "inert"
    ),
    "cProfile.run": Payload(_calls("cProfile", "run", code), "inert"),
    "code.InteractiveInterpreter": Payload(lambda c: call(name("code", "InteractiveInterpreter")), "inert"),
    "logging.config": Payload(lambda c: call(name("logging.config", "dictConfig"), b"}"), "inert"),
    "torch.jit": Payload(_calls("torch.jit.unsupported_tensor_ops", "execWrapper", code), "inert"),
    "types.FunctionType": Payload(lambda c: name("types", "FunctionType"), "inert"),
    "vlconv itself": Payload(lambda c: call(name("vlconv.app", "main")), "inert"),
    "a class with a state": Payload(
        lambda c: call(name("argparse", "Namespace")) + b"}(" + text("__class__") + text("x") + b"ub", "inert"
    ),
    # meddle with the reader
    "BUILD on a function": Payload(lambda c: _PARTIAL + _STATE + b"b", "bomb"),
    "BUILD on a class": Payload(lambda c: name("collections", "OrderedDict") + _STATE + b"b", "bomb"),
    "BUILD on a record's class": Payload(lambda c: name("torch.x", "Metadata") + _STATE + b"b", "bomb"),
    "BUILD on a storage class": Payload(lambda c: name("torch", "FloatStorage") + _STATE + b"b", "bomb"),
    "BUILD on a number": Payload(lambda c: b"K\x01" + _STATE + b"b", "bomb"),
    "extension code 1": Payload(lambda c: b"\x82\x01", "bomb"),
    "extension code 2": Payload(lambda c: b"\x83\x01\x01", "bomb"),
    "extension code 4": Payload(lambda c: b"\x84\x01\x01\x01\x01", "bomb"),
    "persistent id of text": Payload(lambda c: b"Pos.system\n", "bomb"),
    "persistent id of another form": Payload(lambda c: text("x") + b"\x85Q", "bomb"),
    "a buffer out of band": Payload(lambda c: b"\x97", "bomb"),
    "a memo that is not there": Payload(lambda c: b"j\xff\xff\xff\x7f", "bomb"),
    "an unknown opcode": Payload(lambda c: b"\xff", "bomb"),
    "an empty stack": Payload(lambda c: b"0" * 50, "bomb"),
    "a frame that lies": Payload(lambda c: b"\x95" + (1 << 60).to_bytes(8, "little") + b"N", "bomb"),
    "a call of a number": Payload(lambda c: b"K\x01)R", "bomb"),
    "a set of lists": Payload(lambda c: b"\x8f(]\x90", "bomb"),
    # eat memory, time or the interpreter
    "a memo of two thousand million": Payload(lambda c: b"Nr\xff\xff\xff\x7f", "bomb"),
    "a million nested tuples": Payload(lambda c: b")" + b"\x85" * 1_000_000, "deep"),
    "half a million nested lists": Payload(lambda c: b"]" * 500_000 + b"a" * 499_999, "deep"),
    "a deep hash": Payload(lambda c: b"})" + b"\x85" * 400_000 + b"Ns", "bomb"),
    "a thousand nested dicts": Payload(lambda c: _dicts(1000), "deep"),
    "a bytearray of 64 GB": Payload(lambda c: b"\x96" + (1 << 36).to_bytes(8, "little"), "bomb"),
    "bytes of 64 GB": Payload(lambda c: b"\x8e" + (1 << 36).to_bytes(8, "little"), "bomb"),
    "text of 4 exabytes": Payload(lambda c: b"\x8d" + (1 << 62).to_bytes(8, "little"), "bomb"),
    "text of a negative length": Payload(lambda c: b"T" + (0xFFFFFFFF).to_bytes(4, "little"), "bomb"),
    "an integer of 2 GB": Payload(lambda c: b"\x8b\xff\xff\xff\x7f", "bomb"),
    "an integer of a negative length": Payload(lambda c: b"\x8b\xff\xff\xff\xff", "bomb"),
    "an integer of a million digits": Payload(lambda c: b"L" + b"7" * 1_000_000 + b"L\n", "bomb"),
    "an integer of a million bytes": Payload(
        lambda c: b"\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6, "inert"
    ),
    "ten thousand million laughs": Payload(lambda c: _grown(10, 10), "deep"),
    "lone surrogates": Payload(lambda c: text(b"\xed\xa0\x80"), "inert"),
    "a megabyte of text": Payload(lambda c: text("x" * (1 << 20)), "inert"),
}


def _dicts(depth: int) -> bytes:
    return (b"}" + text("k")) * depth + b"N" + b"s" * depth


WHOLE = b"\x80\x04"


def pickled(payload: bytes, head: bytes = WHOLE) -> bytes:
    """A pickle of it alone."""
    return head + payload + b"."
