"""What the process that runs megatron-core makes of the tensors that come: each parameter is filled, once, or it says
which is not. Without megatron-core.
"""

from __future__ import annotations

import io
import json
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from vlconv.converters import NotComparable
from vlconv.converters.verification.forward.megatron import plain
from vlconv.converters.verification.forward.megatron.child import Place, fill

Told = tuple[str, int | None, torch.Tensor]


def places() -> dict[Place, torch.Tensor]:
    """The parameters of a model of three: one whole tensor, and two experts of another."""
    return {Place("a", None): torch.zeros(2, 3), Place("e", 0): torch.zeros(2), Place("e", 1): torch.zeros(2)}


def stream(*tensors: Told) -> io.BytesIO:
    data = b""
    for name, expert, tensor in tensors:
        raw = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())
        line = {
            "name": name,
            "expert": expert,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "nbytes": len(raw),
        }
        data += json.dumps(line).encode() + b"\n" + raw
    return io.BytesIO(data + b"\n")


ENDS = torch.tensor([0x0A0A0A0A, 0x0A0A0A0A], dtype=torch.int32).view(torch.float32)
A = ("a", None, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 10.0]], dtype=torch.bfloat16))
E0, E1 = ("e", 0, ENDS), ("e", 1, torch.tensor([0.5, 10.0], dtype=torch.float16))


def test_each_parameter_is_filled() -> None:
    """Bytes that are a line's end, too."""
    wanted = places()
    own = dict(wanted)
    fill(wanted, stream(E1, A, E0))
    assert not wanted
    assert own[Place("a", None)].tolist() == [[1, 2, 3], [4, 5, 10]]
    assert own[Place("e", 0)].tolist() == ENDS.tolist()
    assert own[Place("e", 1)].tolist() == [0.5, 10]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ((A, E0), "megatron-core's model has e, which the checkpoint lacks"),
        ((A, E0, E1, ("b", None, torch.zeros(2))), r"b is \[2\] in the checkpoint; megatron-core's model has no such"),
        ((A, E0, E1, E1), r"e is \[2\] in the checkpoint; megatron-core's model has no such tensor"),
        (
            (("a", None, torch.zeros(3, 2)), E0, E1),
            r"a is \[3, 2\] in the checkpoint; megatron-core's model has \[2, 3\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(tensors: tuple[Told, ...], words: str) -> None:
    with pytest.raises(NotComparable, match=words):
        fill(places(), stream(*tensors))


def test_a_stream_that_ends_early_fills_nothing_more() -> None:
    whole = stream(A, E0, E1).getvalue()
    with pytest.raises((NotComparable, RuntimeError, ValueError)):
        fill(places(), io.BytesIO(whole[:-20]))


def test_short_chunks_reach_a_model_that_is_made_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """megatron-core 0.16 looks its rule up at each call; in 0.19 a layer holds it."""

    def rule(chunk_size: int = 64) -> int:
        return chunk_size

    home: Any = ModuleType(plain.DELTA_NET)
    home.torch_chunk_gated_delta_rule, rule.__module__ = rule, plain.DELTA_NET
    monkeypatch.setitem(sys.modules, plain.DELTA_NET, home)
    later: Any = torch.nn.Identity()
    later.gated_delta_rule = rule
    plain.with_short_chunks(torch.nn.Sequential(torch.nn.Identity(), later))
    assert later.gated_delta_rule() == home.torch_chunk_gated_delta_rule() == 16
