"""Storages of a rank's file: a weight shares no byte with another tensor, however both are views of one buffer."""

from __future__ import annotations

import random
import re
import zipfile
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.topology import Topology
from spoiled import MODEL, Given, Saved

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.legacy.held import views
from vlconv.converters.formats.legacy.held.views import check_apart, view
from vlconv.converters.formats.pickles.closed_unpickler import TensorRef

LAYER = "language_model.decoder.layers.0"
Q_NORM, K_NORM = (f"{LAYER}.self_attention.{name}_layernorm.weight" for name in "qk")
EMBEDDING, OUTPUT = "language_model.embedding.word_embeddings.weight", "language_model.output_layer.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("dense"), Topology(tp=2))


@pytest.fixture
def given(tmp_path: Path, saved: Saved) -> Given:
    return saved.given(tmp_path)


def rewrite(path: Path, change: Any) -> None:
    """Change data.pkl, and every checksum with it."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, data in members.items():
            new.writestr(name, change(data) if name.endswith("/data.pkl") else data)


class TestKeys:
    def test_one_digit(self, given: Given) -> None:
        """Q's norm reads what is K's: of one shape, every checksum right."""

        def redirect(pickled: bytes) -> bytes:
            """The storage's key follows its type, as a text: X, four bytes of length, the digits."""
            at = pickled.index(Q_NORM.encode()), pickled.index(K_NORM.encode())
            first, second = (re.compile(rb"X\x02\x00\x00\x00(\d\d)").search(pickled, place) for place in at)
            assert first and second and first[1] != second[1]
            return pickled[: first.start(1)] + second[1] + pickled[first.end(1) :]

        rewrite(given.directory / "mp_rank_01" / MODEL, redirect)
        storage = "are the same bytes, of storage "
        given.refused(CorruptError, f"mp_rank_01/{MODEL}: model.", Q_NORM, K_NORM, storage, "copy the file again")

    def test_the_same_rewriting_changes_nothing(self, given: Given) -> None:
        for folder in given.folders:
            rewrite(given.directory / folder / MODEL, lambda pickled: pickled)
        assert "unclaimed" not in given.comes_back().data

    @pytest.mark.parametrize("where", ["optimizer", "model"])
    def test_what_nobody_reads_over_a_weight(self, given: Given, where: str) -> None:
        def share(state: dict[str, Any]) -> None:
            weight = state["model"][Q_NORM]
            if where == "optimizer":
                state["optimizer"] = {"state": [{"exp_avg": weight}]}
            else:
                state["model"][f"{LAYER}.mlp._extra_state"] = weight[3:]

        given.edit("mp_rank_00", share)
        given.refused(CorruptError, Q_NORM, "optimizer.state[0].exp_avg" if where == "optimizer" else "_extra_state")

    def test_what_nobody_reads_may_share(self, given: Given) -> None:
        def share(state: dict[str, Any]) -> None:
            step = torch.ones(5)
            state["optimizer"] = {"state": [{"step": step, "exp_avg": step[2:]}, {"step": step}]}

        given.edit_all(share)
        given.comes_back()

    def test_embedding_and_output_layer_of_an_untied_model(self, given: Given) -> None:
        given.edit_all(lambda state: state["model"].update({OUTPUT: state["model"][EMBEDDING]}))
        given.refused(CorruptError, "mp_rank_00", "embedding and output layer are the same bytes, and the model is not")

    def test_one_name_twice(self, given: Given) -> None:
        def again(state: dict[str, Any]) -> None:
            model = state["model"]
            model[f"{LAYER}.self_attention"] = {"q_layernorm.weight": model[Q_NORM] + 1}

        given.edit("mp_rank_00", again)
        given.refused(CorruptError, "mp_rank_00", Q_NORM, "twice")


class TestBuffers:
    def test_views_of_one_flat_buffer(self, given: Given) -> None:
        """As a distributed optimizer leaves the parameters, padding between them."""

        def flatten(state: dict[str, Any]) -> None:
            model = {name: t for name, t in state["model"].items() if torch.is_tensor(t) and t.dtype == torch.bfloat16}
            buffer, at = torch.zeros(sum(t.numel() + 64 for t in model.values()), dtype=torch.bfloat16), 0
            for name, t in model.items():
                state["model"][name] = buffer[at : at + t.numel()].view(t.shape).copy_(t)
                at += t.numel() + 64

        given.edit_all(flatten)
        assert "unclaimed" not in given.comes_back().data

    def test_halves_of_one_matrix(self, given: Given) -> None:
        """Two tensors that lie between one another, as columns of what was one, and never touch."""

        def together(state: dict[str, Any]) -> None:
            names = [f"{LAYER}.self_attention.linear_proj.weight", f"{LAYER}.mlp.linear_fc2.weight"]
            halves = [state["model"][name] for name in names]
            whole = torch.cat(halves, dim=1)
            state["model"] |= dict(zip(names, whole.split([half.shape[1] for half in halves], dim=1), strict=True))
            assert len({state["model"][name].untyped_storage().data_ptr() for name in names}) == 1

        given.edit_all(together)
        given.comes_back()


class TestUnclaimed:
    def test_a_storage_of_nobody(self, given: Given) -> None:
        with zipfile.ZipFile(given.directory / "mp_rank_01" / MODEL, "a") as file:
            folder = file.namelist()[0].split("/")[0]
            file.writestr(f"{folder}/data/999", bytes(4321))
        report = given.comes_back()
        assert report.data["unclaimed"] == {f"mp_rank_01/{MODEL}": 4321}
        assert report.told["unclaimed"].endswith(f"describes: 4.32 kB in mp_rank_01/{MODEL}")

    def test_a_bare_storage_and_a_tensor_in_an_object(self, given: Given) -> None:
        """What is no state dict's tensor is claimed all the same."""

        def keep(state: dict[str, Any]) -> None:
            state["storage"] = torch.arange(9).untyped_storage()
            state["args"].table = OrderedDict(inner=[torch.arange(7)])

        given.edit_all(keep)
        assert "unclaimed" not in given.comes_back().data


def reference(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, dtype: str = "bfloat16") -> TensorRef:
    return TensorRef("0", dtype, 1 << 20, offset, shape, stride)


def touched(ref: TensorRef) -> set[int]:
    """Every byte of a view, one by one."""
    size = {"bfloat16": 2, "float32": 4, "uint8": 1}[ref.dtype]
    places = (
        ref.offset + sum(i * s for i, s in zip(at, ref.stride, strict=True)) for at in product(*map(range, ref.shape))
    )
    return {place * size + byte for place in places for byte in range(size)}


def apart(one: TensorRef, other: TensorRef, *, weights: tuple[bool, bool] = (True, True)) -> bool:
    try:
        check_apart("file", "0", [view("a", weights[0], one), view("b", weights[1], other)])
    except CorruptError:
        return False
    return True


def test_byte_by_byte() -> None:
    """No two that share a byte are ever taken, and dense ones that share none always."""
    dice = random.Random(7)
    taken = told_apart = 0
    for _ in range(4000):
        one, other = (
            reference(
                shape := tuple(dice.randrange(0 if dice.random() < 0.1 else 1, 5) for _ in range(dice.randrange(4))),
                tuple(dice.choice([0, 1, 1, 2, 3, 4, 8, 12, 16]) for _ in shape),
                dice.randrange(40),
                dice.choice(["bfloat16", "float32", "uint8"]),
            )
            for _ in range(2)
        )
        bytes_of = touched(one), touched(other)
        shared = bool(bytes_of[0] & bytes_of[1])
        assert not (apart(one, other) and shared), (one, other)
        ranges = all(len(b) == max(b) - min(b) + 1 for b in bytes_of if b)
        if ranges and not shared:
            assert apart(one, other), (one, other)
        taken += shared
        told_apart += apart(one, other)
    assert taken > 500 and told_apart > 500


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (reference((10, 64), (128, 1), 0), reference((10, 64), (128, 1), 64)),
        (reference((64, 10), (1, 128), 0), reference((64, 10), (1, 128), 64)),  # the same, transposed
        (reference((4, 6, 8), (96, 8, 1), 0), reference((4, 6, 8), (96, 8, 1), 48)),  # [gate; up] of stacked experts
        (reference((50,), (2,), 0), reference((50,), (2,), 1)),
        (reference((10, 64), (128, 1), 0), reference((3, 64), (256, 1), 64)),
        (reference((10, 64), (128, 1), 0), reference((5,), (1,), 64 + 3)),
        (reference((0, 5), (5, 1), 2), reference((20,), (1,), 0)),
    ],
)
def test_between_one_another(one: TensorRef, other: TensorRef) -> None:
    assert not touched(one) & touched(other)
    assert apart(one, other) and apart(other, one)


def test_only_a_weight_matters() -> None:
    one = reference((10,), (1,), 0)
    assert [apart(one, one, weights=(a, b)) for a, b in product([False, True], repeat=2)] == [True, False, False, False]


def test_a_tied_copy() -> None:
    """The output layer may be the embedding, all of it and nothing else; whether it should, the config says."""
    table, part = reference((10, 4), (4, 1), 8), reference((9, 4), (4, 1), 8)
    named = [view(f"model.{EMBEDDING}", True, table), view(f"model.{OUTPUT}", True, table)]
    check_apart("file", "0", named)
    check_apart("file", "0", named[::-1])
    for others in ([named[0], view(f"model.{OUTPUT}", True, part)], [*named, view("model.x", True, part)]):
        with pytest.raises(CorruptError, match="are the same bytes"):
            check_apart("file", "0", others)


def test_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours cost nothing; what lies between one another is looked at only so often."""
    neighbours = [view(f"{i}", True, reference((100,), (1,), 100 * i)) for i in range(20_000)]
    check_apart("file", "0", neighbours)
    monkeypatch.setattr(views, "MOST", 100)
    columns = [view(f"{i}", True, reference((10,), (20,), i)) for i in range(20)]
    with pytest.raises(CorruptError):
        check_apart("file", "0", columns)
