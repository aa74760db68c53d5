"""Hostile pickles, each in every place of a checkpoint that is a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from refusing import edit_metadata

from .case import Expected, Kind, Work, either, equal, refused
from .files import MODEL, PROJECTION, edit_legacy, replace_item, rewrite_pickle, zip_members, zipped
from .payloads import PAYLOADS, Payload, call, name, pickled, shell, stacked, text

PICKLES = Kind("pickles", every=4)
SLOT = "a payload stands here"
NAMED = ("refers to", "no place in a checkpoint")


def filled(data: bytes, payload: bytes) -> bytes:
    """A pickle of protocol 2 with a payload where the text SLOT stood."""
    slot = text(SLOT)
    assert data.count(slot) == 1
    return data.replace(slot, payload)


def metadata_whole(payload: bytes, work: Work) -> None:
    """`.metadata` is the payload."""
    (work.data / ".metadata").write_bytes(pickled(payload))


def metadata_part(payload: bytes, work: Work) -> None:
    """The tables are good; what stands beside them in the same pickle is the payload."""
    path = work.data / ".metadata"
    value = pickle.loads(path.read_bytes())
    value.planner_data = SLOT
    path.write_bytes(filled(pickle.dumps(value, 2), payload))


def args_part(payload: bytes, work: Work) -> None:
    """common.pt is good, and one of its args is the payload."""
    path = work.data / "common.pt"
    value = torch.load(path, weights_only=False)
    value["args"].load = SLOT
    torch.save(value, path, pickle_protocol=2)
    rewrite_pickle(path, lambda data: filled(data, payload))


def common_whole(payload: bytes, work: Work) -> None:
    """common.pt is the payload."""
    rewrite_pickle(work.data / "common.pt", lambda _: pickled(payload, b"\x80\x02"))


def object_part(payload: bytes, work: Work) -> None:
    """The object that stands for common.pt among the items."""
    replace_item(work.data, "common_state/shard_0_1", lambda item: _with_pickle(item, pickled(payload)))


def tensor_part(payload: bytes, work: Work) -> None:
    """The data.pkl of a tensor."""
    replace_item(work.data, PROJECTION, lambda item: _with_pickle(item, pickled(payload, b"\x80\x02")))


def extra_state(payload: bytes, work: Work) -> None:
    """What Transformer Engine leaves beside weights, which nobody needs."""
    keys: list[str] = []
    edit_metadata(work.data, lambda m: keys.extend(k.fqn for k in m.storage_data if "_extra_state" in k.fqn))
    replace_item(work.data, keys[0], lambda item: _with_pickle(item, pickled(payload)))


def optimizer_item(payload: bytes, work: Work) -> None:
    """The data.pkl of an optimizer's state, which nobody needs."""
    keys: list[str] = []
    edit_metadata(work.data, lambda m: keys.extend(k.fqn for k in m.storage_data if k.fqn.startswith("optimizer")))
    replace_item(work.data, keys[0], lambda item: _with_pickle(item, pickled(payload)))


def legacy(where: Callable[[dict[str, Any]], Any], payload: bytes, work: Work) -> None:
    """Somewhere in a rank's file."""
    path = work.data / "mp_rank_01_000" / MODEL
    edit_legacy(path, where)
    rewrite_pickle(path, lambda data: filled(data, payload))


def _in_args(state: dict[str, Any]) -> None:
    state["args"].load = SLOT


def _in_optimizer(state: dict[str, Any]) -> None:
    state["optimizer"]["state"] = SLOT


def _in_extra_state(state: dict[str, Any]) -> None:
    state["model"]["language_model.decoder.layers.0.mlp.linear_fc1._extra_state"] = SLOT


def _with_pickle(item: bytes, data: bytes) -> bytes:
    members = zip_members(item)
    return zipped([(n, data if n.endswith("data.pkl") else content) for n, content in members])


def _damage(place: Callable[[bytes, Work], None], payload: Payload) -> Callable[[Work], None]:
    return lambda work: place(payload.opcodes(work.canary), work)


def _expected(kind: str, named: str, inert: Expected) -> Expected:
    return inert if kind == "inert" else refused(named, *(NAMED if kind == "denied" else ()))


def _beside(kind: str) -> Expected:
    """What nobody reads is unpickled, too, and not walked."""
    return either(".metadata") if kind == "deep" else _expected(kind, ".metadata", equal())


def _everywhere() -> None:
    """Every payload at every place. `make test` tries them all at the first, and some at the others."""
    few = {"posix.system", "getattr of an import", "torch.load"}
    few |= {"a memo of two thousand million", "a million nested tuples"}
    for title, payload in PAYLOADS.items():
        kind, rare = payload.kind, title not in few
        places = [
            ("beside the tables of .metadata", "dist", metadata_part, _beside(kind), kind == "inert" and rare),
            ("in the args of common.pt", "dist", args_part, _expected(kind, "common.pt", either("common.pt")), rare),
            ("as .metadata", "dist", metadata_whole, refused(".metadata"), rare),
            ("as .metadata", "fsdp", metadata_whole, refused(".metadata"), rare),
            ("beside the tables of .metadata", "plain", metadata_part, _beside(kind), rare),
            ("as common.pt", "dist", common_whole, _expected(kind, "common.pt", either("common.pt")), rare),
            ("as the object of args", "object", object_part, _expected(kind, ".distcp", either(".distcp")), rare),
            ("as a tensor's data.pkl", "dist", tensor_part, refused(PROJECTION), rare),
            ("as a tensor's data.pkl", "fsdp", partial(_fsdp_tensor), refused("linear_proj.weight"), rare),
            ("as an _extra_state", "dist", extra_state, equal(), rare),
            ("as an optimizer's state", "dist", optimizer_item, equal(), rare),
            ("in a rank's args", "legacy", partial(legacy, _in_args), _rank(kind), rare),
            ("in a rank's optimizer", "legacy", partial(legacy, _in_optimizer), _rank(kind), rare),
            ("in a rank's _extra_state", "legacy", partial(legacy, _in_extra_state), _rank(kind), rare),
        ]
        for where, base, place, expected, slow in places:
            PICKLES.add(f"{title} {where}", base, _damage(place, payload), expected, slow=slow)


def _rank(kind: str) -> Expected:
    return _expected(kind, "mp_rank_01_000/model_optim_rng.pt", either("mp_rank_01_000"))


def _fsdp_tensor(payload: bytes, work: Work) -> None:
    key = "model.module.language_model.decoder.layers.1.self_attention.linear_proj.weight"
    replace_item(work.data, key, lambda item: _with_pickle(item, pickled(payload, b"\x80\x02")))


def _protocols() -> None:
    """One call as each protocol writes it."""
    heads = {
        0: lambda c: b"cposix\nsystem\np0\n(V" + shell(c).encode() + b"\np1\ntp2\nRp3\n",
        1: lambda c: b"cposix\nsystem\nq\x00(X" + _sized(shell(c), 4) + b"q\x01tq\x02Rq\x03",
        2: lambda c: b"\x80\x02" + name("posix", "system") + text(shell(c)) + b"\x85R",
        3: lambda c: b"\x80\x03" + name("posix", "system") + text(shell(c)) + b"\x85R",
        4: lambda c: b"\x80\x04" + call(stacked("posix", "system"), text(shell(c))),
        5: lambda c: b"\x80\x05" + call(stacked("posix", "system"), text(shell(c))),
    }
    for protocol, data in heads.items():
        damage = partial(_written, lambda c, data=data: data(c) + b".")
        PICKLES.add(f"posix.system in protocol {protocol}", "dist", damage, refused(".metadata", *NAMED))
        PICKLES.add(f"posix.system in protocol {protocol}", "plain", damage, refused(".metadata", *NAMED), slow=True)
    damage = partial(_written, lambda c: b"\x80\x63N.")
    PICKLES.add("protocol 99", "dist", damage, refused(".metadata"))


def _written(data: Callable[[Path], bytes], work: Work) -> None:
    (work.data / ".metadata").write_bytes(data(work.canary))


def _sized(value: str, width: int) -> bytes:
    return len(value).to_bytes(width, "little") + value.encode()


_everywhere()
_protocols()


@PICKLES.case("dist", refused(".metadata"))
def two_pickles_one_behind_the_other(work: Work) -> None:
    path = work.data / ".metadata"
    path.write_bytes(pickled(b"N") + path.read_bytes())


@PICKLES.case("dist", equal())
def garbage_behind_the_pickle(work: Work) -> None:
    with (work.data / ".metadata").open("ab") as file:
        file.write(b"cos\nsystem\n(S'true'\ntR.")


@PICKLES.case("dist", refused("common.pt", "before torch 1.6"))
def common_pt_as_torch_before_1_6(work: Work) -> None:
    (work.data / "common.pt").write_bytes(pickle.dumps({"args": 1}, 2) + b"x")


@PICKLES.case(("legacy",), refused("mp_rank_01_001"))
def a_rank_file_that_is_a_bare_pickle(work: Work) -> None:
    (work.data / "mp_rank_01_001" / MODEL).write_bytes(pickled(PAYLOADS["posix.system"].opcodes(work.canary)))
