"""What trainers leave beside a checkpoint: run_config.yaml, args.json, mca_config.json, integrity.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from .case import Kind, Work, either, equal, refused

STATEMENTS = Kind("statements", every=2)
YAML = "run_config.yaml"
Content = bytes | Callable[[], bytes]


def _file(title: str, name: str, content: Content, *says: str, slow: bool = False) -> None:
    STATEMENTS.add(f"{name} {title}", "dist", partial(_written, name, content), refused(name, *says), slow=slow)


def _bounded(title: str, name: str, content: Content, *, slow: bool = False) -> None:
    """Read or refused, within time and memory."""
    STATEMENTS.add(f"{name} {title}", "dist", partial(_written, name, content), either(name), slow=slow)


def _harmless(title: str, name: str, content: Content) -> None:
    STATEMENTS.add(f"{name} {title}", "dist", partial(_written, name, content), either(name))


def _written(name: str, content: Content, work: Work) -> None:
    (work.data / name).write_bytes(content if isinstance(content, bytes) else content())


def _model(**fields: Any) -> bytes:
    return yaml.safe_dump({"model": fields}).encode()


_file("that is cut", YAML, b"model: {a: [}")
_file("that calls", YAML, b"model: !!python/object/apply:os.system ['touch canary/ran']")
_file("that makes an object", YAML, b"model: !!python/object/new:os.system ['touch canary/ran']")
_file("that names a module", YAML, b"model: {a: !!python/name:os.system}")
_file("that is no UTF-8", YAML, b"model: {a: \xff\xfe}")
_file("of zeros", YAML, bytes(1000))
_file("nested too deep", YAML, b"model: " + b"[" * 100_000 + b"]" * 100_000)
_file("of mappings nested too deep", YAML, b"model: " + b"{a: " * 50_000 + b"1" + b"}" * 50_000)
_bounded("with a date that is none", YAML, b"model: {num_layers: 2020-99-99}")
_file("with a number of 100,000 digits", YAML, b"model: {num_attention_heads: " + b"7" * 100_000 + b"}")
_file("with a number of 400 digits", YAML, b"model: {num_attention_heads: " + b"7" * 400 + b"}")
_file("with layers of another number", YAML, _model(num_layers=77), "num_layers")
_file("with heads of another number", YAML, _model(num_attention_heads=16))
_file("with an infinite rope", YAML, b"model: {rotary_base: .inf}")
_file("with a rope that is none", YAML, b"model: {rotary_base: .nan}")
_bounded("of 15 MB of ones", YAML, lambda: b"model: {a: [" + b"1," * 7_500_000 + b"1]}", slow=True)
_bounded("of 3 MB of ones", YAML, lambda: b"model: {a: [" + b"1," * 1_500_000 + b"1]}")
_bounded(
    "of 15 MB of lines", YAML, lambda: b"model:\n" + b"".join(b" k%d: 1\n" % i for i in range(1_300_000)), slow=True
)
_file("of 17 MB", YAML, lambda: b"model: {a: '" + b"x" * 17_000_000 + b"'}", slow=True)
_bounded(
    "of aliases",
    YAML,
    b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 108))
    + b"model: {k: *k}\n",
)
_bounded("with a key that is a list", YAML, b"model: {? [a, b] : 1}")
_bounded("merged into itself", YAML, b"model: &m {<<: *m}")
_harmless("with a mapping in itself", YAML, b"model: &m {a: *m}")
_harmless("that is empty", YAML, b"")
_harmless("that is a list", YAML, b"[1]")
_harmless("with a tag nobody knows", YAML, b"model: {a: !x y}")
_harmless("of two documents", YAML, b"model: {}\n---\nmodel: {}\n")

for _name in ("args.json", "mca_config.json"):
    _file("that is cut", _name, b"{")
    _file("that is a list", _name, b"[1]")
    _file("that is empty", _name, b"")
    _file("nested too deep", _name, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    _file("with NaN", _name, b'{"num_layers": NaN}')
    _file("with a key twice", _name, b'{"a": 1, "a": 2}')
    _file("with a number of 100,000 digits", _name, b'{"num_layers": ' + b"7" * 100_000 + b"}")
    _bounded("of 99 MB of ones", _name, lambda: b'{"a":[' + b"1," * 49_000_000 + b"1]}", slow=True)
_file("with another number of layers", "mca_config.json", b'{"num_hidden_layers": 77, "num_layers": 77}', "77")


def _integrity(work: Work, falsify: Callable[[dict[str, Any]], Any]) -> None:
    """As megatron-core 0.19 writes it with verify_integrity."""
    listed = [p for p in sorted(work.data.iterdir()) if p.name != "integrity.json"]
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in listed}
    falsify(sums)
    document = {"algorithm": "sha256", "version": 1, "files": sums}
    (work.data / "integrity.json").write_text(json.dumps(document, indent=2))


@STATEMENTS.case("dist", equal())
def a_true_integrity_json(work: Work) -> None:
    _integrity(work, lambda sums: None)


@STATEMENTS.case("dist", refused("integrity.json"))
def an_integrity_json_that_is_cut(work: Work) -> None:
    _integrity(work, lambda sums: None)
    path = work.data / "integrity.json"
    path.write_bytes(path.read_bytes()[:100])


@STATEMENTS.case("dist", refused("integrity.json", "__0_0.distcp"))
def an_integrity_json_of_another_sum(work: Work) -> None:
    _integrity(work, lambda sums: sums.update({"__0_0.distcp": "0" * 64}))


@STATEMENTS.case("dist", refused("__9_9.distcp"))
def an_integrity_json_of_a_file_that_is_gone(work: Work) -> None:
    _integrity(work, lambda sums: sums.update({"__9_9.distcp": "0" * 64}))


@STATEMENTS.case("dist", refused("integrity.json", "common.pt"))
def a_common_pt_changed_after_integrity_json(work: Work) -> None:
    import torch

    _integrity(work, lambda sums: None)
    torch.save({"args": None}, work.data / "common.pt")


@STATEMENTS.case("dist", refused("integrity.json"))
def an_integrity_json_of_a_path_outside(work: Work) -> None:
    _integrity(work, lambda sums: sums.update({"../../canary/alive": "0" * 64}))


# Megatron's own metadata.json


for _title, _content in {
    "empty": b"",
    "garbage": b"garbage",
    "a list": b"[]",
    "an empty object": b"{}",
    "zarr": b'{"sharded_backend": "zarr", "sharded_backend_version": 1}',
    "of another version": b'{"sharded_backend": "torch_dist", "sharded_backend_version": 99}',
    "of a list as backend": b'{"sharded_backend": ["torch_dist"], "sharded_backend_version": 1}',
    "of escape sequences": b'{"sharded_backend": "\\u001b[2J", "sharded_backend_version": 1}',
    "nested too deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}.items():
    STATEMENTS.add(
        f"metadata.json {_title}", "dist", partial(_written, "metadata.json", _content), refused("metadata.json")
    )


@STATEMENTS.case("dist", refused("metadata.json"))
def metadata_json_gone(work: Work) -> None:
    (work.data / "metadata.json").unlink()
