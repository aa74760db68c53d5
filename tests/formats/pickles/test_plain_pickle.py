"""The data.pkl of rank files and common.pt: to the byte what torch saves, and loaded by torch."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as some
from opcodes import said
from properties import holds

from vlconv.converters.formats.pickles.plain_pickle import StoredTensor, plain_pickle
from vlconv.converters.formats.pickles.tensor_pickle import write_tensor_pickle
from vlconv.converters.formats.zips.items import saved
from vlconv.converters.tensors.dtypes import ITEMSIZE, TorchDtype

INTEGERS = [n + d for n in (0, 1 << 8, 1 << 16, 1 << 31, 1 << 40, 1 << 63) for d in (-1, 0, 1)]
OTHERS = [None, True, False, 0.0, -1e-6, float("inf"), "", "é\n🙂", "x" * 300, OrderedDict(a=1)]
TUPLES = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]
DTYPES = ["float64", "float32", "float16", "bfloat16", "uint8"]


def data_pkl(value: Any) -> bytes:
    """As torch saves it."""
    torch.save(value, buffer := io.BytesIO())
    with zipfile.ZipFile(buffer) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def values(ours: bool) -> dict[str, Any]:
    """All kinds of values, of either side's making."""
    bfloat16, float16 = (TorchDtype("bfloat16"), TorchDtype("float16")) if ours else (torch.bfloat16, torch.float16)
    return {
        "args": Namespace(dtype=bfloat16, again=bfloat16, other=float16, tuples=TUPLES),
        "integers": [*INTEGERS, *(-n for n in INTEGERS)],
        "others": OTHERS,
        "lists": [[], ["a"], ["a", "b"]],
        "dicts": [{}, {"a": {"b": "a"}}, {"a": 1, "b": 2}],
    }


def weights(ours: bool) -> OrderedDict[str, Any]:
    """Of all dtypes, of no axis up to five; more of them than the memo's short opcodes can count."""

    def tensor(key: int, dtype: str, *shape: int) -> Any:
        return StoredTensor(shape, dtype, key) if ours else torch.zeros(shape, dtype=getattr(torch, dtype))

    named = {
        sys.intern(f"layers.{n}.weight"): tensor(n, DTYPES[n % 5], *(300 + n, 3, 4, 5, 6)[: n % 6]) for n in range(60)
    }
    return OrderedDict({**named, "_extra_state": None, "empty": tensor(60, "uint8", 0)})


def test_as_torch_saves() -> None:
    ours = plain_pickle(values(ours=True) | {"model": weights(ours=True)})
    assert ours == data_pkl(values(ours=False) | {"model": weights(ours=False)})
    assert b"r\x00\x01\x00\x00" in ours  # LONG_BINPUT


def test_loaded_by_torch(tmp_path: Path) -> None:
    (tmp_path / "common.pt").write_bytes(saved(plain_pickle(values(ours=True))))
    with torch.serialization.safe_globals([Namespace]):
        assert torch.load(tmp_path / "common.pt", weights_only=True) == values(ours=False)
    with zipfile.ZipFile(tmp_path / "common.pt") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("shape", [(), (0,), (300,), (2, 3), (70000, 1), (2, 3, 4), (2, 3, 4, 5)], ids=str)
def test_one_tensor_as_torch_saves(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
    assert said(write_tensor_pickle(dtype, shape)) == said(data_pkl(tensor))
    assert said(write_tensor_pickle(dtype, shape, in_list=True)) == said(data_pkl([tensor]))


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000])
def test_thousands(count: int) -> None:
    ordered = OrderedDict.fromkeys(range(count))
    assert plain_pickle(ordered) == pickle.dumps(ordered, 2)
    tree = [dict(ordered), list(ordered)]
    assert pickle.loads(plain_pickle(tree)) == tree


@pytest.mark.parametrize("value", [10**700, -(10**700), "\ud800"], ids=["large", "small", "half a character"])
def test_what_weights_only_does_not_load(value: object) -> None:
    assert plain_pickle(value) == pickle.dumps(value, 2)


LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=3)
NAMED = some.sampled_from(["a", "b", "c"])


@holds(
    value=some.recursive(
        LEAVES,
        lambda inner: (
            some.lists(inner, max_size=4)
            | some.lists(inner, max_size=5).map(tuple)
            | some.dictionaries(some.text(max_size=2), inner, max_size=4)
            | some.dictionaries(some.text(max_size=2), inner, max_size=4).map(OrderedDict)
            | some.dictionaries(NAMED, inner, max_size=4).map(lambda found: Namespace(**found))
        ),
        max_leaves=25,
    )
)
def test_any_value_as_python_pickles_it(value: Any) -> None:
    assert said(plain_pickle(value)) == said(pickle.dumps(value, 2))


@pytest.mark.parametrize(
    "value",
    [b"bytes", {1}, object(), range(3), print, torch.float32, Namespace, 1j],
    ids=lambda value: type(value).__name__,
)
def test_nothing_else_is_written(value: object) -> None:
    with pytest.raises(TypeError, match="has no place in a checkpoint"):
        plain_pickle({"deep": [OrderedDict(x=value)]})


def test_no_other_name_is_written() -> None:
    with pytest.raises(ValueError, match="torch load has no place in a checkpoint"):
        plain_pickle(TorchDtype("load"))
