"""Gated DeltaNets and multi-token-prediction heads in distributed checkpoints: a key for each piece, or rows as
Megatron-FSDP's ranks have them. Made by hand, written by torch's own DCP.
"""

from __future__ import annotations

import json
import random
import warnings
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dcp
import pytest
import torch
from handmade import CONV1D, IN_PROJ, LAYERS, PIECES, TEXT, Tensors, model, part, read, same, specs, splits, write
from torch.distributed import checkpoint

from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError
from vlconv.converters.formats.chunks import Chunk
from vlconv.converters.formats.dcp.fsdp_order import in_order
from vlconv.converters.formats.dcp.plain import open_plain
from vlconv.converters.formats.dcp.torch_dist import open_torch_dist
from vlconv.converters.formats.dcp.write import plan_torch_dist
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.tensors.sharding import Split
from vlconv.converters.tensors.spec import TensorSpec

M = "language_model."
GDN = f"{M}decoder.layers.0.self_attention"
BACKEND = json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch"})


def in_pieces(whole: Tensors) -> Tensors:
    """As megatron-core names what it saves."""
    found: Tensors = {}
    for name, tensor in whole.items():
        sizes = IN_PROJ if name.endswith("in_proj.weight") else CONV1D if name.endswith("conv1d.weight") else ()
        pieces = zip(PIECES, tensor.split(sizes), strict=False) if sizes else ()
        found |= {f"{name}.{piece}": rows.clone() for piece, rows in pieces} or {name: tensor}
    return found


def saved(directory: Path, state: dict[str, Any], backend: str = "") -> Path:
    with warnings.catch_warnings(action="ignore"):
        checkpoint.save(state, storage_writer=checkpoint.FileSystemWriter(directory), no_dist=True)
    if backend:
        (directory / "metadata.json").write_text(backend)
    return directory


SECTIONED = {
    f"{M}decoder.layers.{i}.self_attention.{name}.weight" for i in range(LAYERS - 1) for name in ("in_proj", "conv1d")
}


class TestTorchDist:
    def test_read(self, tmp_path: Path) -> None:
        whole = model()
        opened = open_torch_dist(saved(tmp_path / "x", in_pieces(whole), BACKEND))
        assert opened.specs.keys() == whole.keys()
        assert opened.sectioned == SECTIONED
        assert same(read(opened, splits(whole)), whole) == []

    def test_rows_grouped_per_key_head_are_no_pieces(self, tmp_path: Path) -> None:
        whole = model()
        opened = open_torch_dist(saved(tmp_path / "x", whole, BACKEND))
        assert opened.sectioned == frozenset()
        assert same(read(opened, splits(whole, replace(LAYOUTS["mbridge"], gdn="grouped"))), whole) == []

    def test_a_piece_is_missing(self, tmp_path: Path) -> None:
        state = {name: t for name, t in in_pieces(model()).items() if name != f"{GDN}.in_proj.weight.beta"}
        with pytest.raises(CorruptError, match=rf"{GDN}\.in_proj\.weight: lacks its pieces beta"):
            open_torch_dist(saved(tmp_path / "x", state, BACKEND))

    @pytest.mark.parametrize("limit", [1 << 28, 40])
    def test_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        """In one chunk for each key, or in many."""
        monkeypatch.setattr("vlconv.converters.formats.dcp.write.CHUNK", limit)
        whole = model()
        sections = {name: split.sections for name, split in splits(whole).items() if name in SECTIONED}
        extra = (
            f"{GDN}.in_proj",
            f"{M}mtp.layers.0.enorm",
            f"{M}decoder.layers.3.self_attention.linear_qkv",
            f"{M}mtp.layers.0.transformer_layer.self_attention.linear_qkv",
        )
        write(tmp_path, plan_torch_dist(specs(whole), ("layers",), extra, 0, None, sections), whole)
        state = dcp.load(tmp_path)
        tensors = {name: t for name, t in state.items() if isinstance(t, torch.Tensor)}
        # Layers of two kinds: none is stacked, nor ever a head, though there is only one.
        assert same(tensors, in_pieces(whole)) == []
        core = f"{M}mtp.layers.0.transformer_layer.self_attention.core_attention"
        assert state.keys() - tensors.keys() == {f"{name}._extra_state/shard_0_1" for name in (*extra, core)}
        opened = open_torch_dist(tmp_path)
        assert opened.sectioned == SECTIONED
        assert same(read(opened, splits(whole)), whole) == []

    def test_written_stacked(self, tmp_path: Path) -> None:
        """Where all layers have one."""
        names = [f"a.layers.{i}.self_attention.conv1d.weight" for i in range(2)]
        whole = {name: torch.arange(40.0).reshape(40, 1, 1) + 100 * i for i, name in enumerate(names)}
        sections = dict.fromkeys(names, CONV1D)
        write(tmp_path, plan_torch_dist(specs(whole), ("layers",), (), 0, None, sections), whole)
        stacked = torch.stack(list(whole.values()))
        pieces = dict(zip(PIECES, stacked.split(CONV1D, dim=1), strict=False))
        assert (
            same(dcp.load(tmp_path), {f"a.layers.self_attention.conv1d.weight.{n}": t for n, t in pieces.items()}) == []
        )
        assert same(read(open_torch_dist(tmp_path), splits(whole, text=None)), whole) == []

    def test_written_without_sections(self, tmp_path: Path) -> None:
        whole = model()
        write(tmp_path, plan_torch_dist(specs(whole), ("layers",), (), 0), whole)
        assert same(dcp.load(tmp_path), whole) == []

    def test_other_rows_than_the_sections(self) -> None:
        whole = {f"{GDN}.in_proj.weight": torch.zeros(81, 6)}
        with pytest.raises(
            MismatchError, match=r"81 rows or columns of \S+in_proj\.weight \[81, 6\] do not come in sect"
        ):
            plan_torch_dist(specs(whole), (), (), 0, None, {f"{GDN}.in_proj.weight": IN_PROJ})


def wrapped(tensors: Tensors) -> Tensors:
    return {f"model.module.{name}": tensor for name, tensor in tensors.items()}


def fsdp(directory: Path, whole: Tensors, ranks: int, *, pieces: bool = False, **args: Any) -> Path:
    """As Megatron-FSDP saves: fc1 in halves, of a Gated DeltaNet one rank's rows behind the other's, or the pieces."""
    state: Tensors = {}
    for name, tensor in whole.items():
        if name.endswith("linear_fc1.weight"):
            state |= {f"{name}_w": tensor[:8].clone(), f"{name}_v": tensor[8:].clone()}
        elif pieces and name in SECTIONED:
            state |= in_pieces({name: tensor})
        elif name in SECTIONED:
            state[name] = torch.cat([part(name, tensor, ranks, rank) for rank in range(ranks)])
        else:
            state[name] = tensor
    return saved(directory / "x", {**wrapped(state), **({"args": Namespace(**args)} if args else {})})


class TestMegatronFsdp:
    @pytest.mark.parametrize("ranks", [1, 2, 4])
    @pytest.mark.parametrize("inner", ["transformer_layer", "mtp_model_layer"])
    def test_rank_by_rank(self, tmp_path: Path, ranks: int, inner: str) -> None:
        whole = model(inner=inner)
        opened = open_plain(fsdp(tmp_path, whole, ranks, tensor_model_parallel_size=ranks))
        assert (opened.format, opened.specs.keys()) == ("fsdp_dtensor", wrapped(whole).keys())
        assert opened.sectioned == frozenset()
        assert same(read(opened, splits(opened.specs)), wrapped(whole)) == []

    def test_the_order_matters(self, tmp_path: Path) -> None:
        """Without sections rows stay as they are, which for two ranks is another order."""
        whole = model()
        opened = open_plain(fsdp(tmp_path, whole, 2, tensor_model_parallel_size=2))
        found = read(opened, splits(opened.specs, replace(LAYOUTS["mbridge"], gdn="grouped")))
        assert same(found, wrapped(whole)) == sorted(f"model.module.{name}" for name in SECTIONED)

    @pytest.mark.parametrize("args", [{}, {"tensor_model_parallel_size": 3}])
    def test_in_pieces(self, tmp_path: Path, args: dict[str, int]) -> None:
        """These have no order that hangs on ranks."""
        whole = wrapped(model())
        opened = open_plain(fsdp(tmp_path, model(), 2, pieces=True, **args))
        assert opened.sectioned == {f"model.module.{name}" for name in SECTIONED}
        assert same(read(opened, splits(whole)), whole) == []

    @pytest.mark.parametrize("stated", [None, "2", True, 0, -2, 3, 16, 10**30])
    def test_without_a_size_that_can_be(self, tmp_path: Path, stated: Any) -> None:
        opened = open_plain(fsdp(tmp_path, model(), 2, tensor_model_parallel_size=stated))
        says = rf"{GDN}\.in_proj\.weight \[80, 6\] is saved as rows of 6 sections, .*_size {stated}\n"
        with pytest.raises(UnsupportedError, match=says) as caught:
            opened.assemble(splits(opened.specs))
        assert "torch_dist" in caught.value.hint

    def test_of_another_model(self, tmp_path: Path) -> None:
        opened = open_plain(fsdp(tmp_path, model(), 2, tensor_model_parallel_size=2))
        with pytest.raises(MismatchError, match=r"80 rows or columns of \S+in_proj\.weight \[80, 6\] do not come in"):
            opened.assemble(splits(opened.specs, text=replace(TEXT, value_dim=4)))


def test_chunks_that_begin_anywhere() -> None:
    """Megatron-FSDP cuts rows where its flat buffer happens to end; two ranks of [a 2 | b 4], two columns each."""
    spec = TensorSpec("x", (12, 2), "float32")
    there = [0, 1, 4, 5, 6, 7, 2, 3, 8, 9, 10, 11]  # rank 0: a0 a1 b0..b3, rank 1: a2 a3 b4..b7, in the file's order
    for seed in range(20):
        cuts = [0, *sorted(random.Random(seed).choices(range(13), k=3)), 12]
        chunks = [Chunk((a, 0), (b - a, 2), n) for n, (a, b) in enumerate(pairwise(cuts)) if b > a]
        ordered = in_order({"x": spec}, {"x": chunks}, (), (), {"x": Split(axis=0, sections=(4, 8))}, lambda: 2)["x"]
        found = {}
        for chunk in ordered:
            for row in range(chunk.lengths[0]):
                found[chunk.offsets[0] + row] = cuts[chunk.item] + (chunk.start + 2 * row) // 2
        assert {there[at]: at for at in range(12)} == found
        assert all(chunk.strides in (None, (2, 1)) and chunk.offsets[1:] == (0,) for chunk in ordered)
