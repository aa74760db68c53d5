"""Rank files of a model with Gated DeltaNets and a multi-token-prediction head, made by hand, read and written.

Which names a rank has and how they are cut is what megatron-core 0.16's own modules show of themselves: on the last
stage the heads and a copy of the embedding; in a tied model an output layer beside it, which nothing fills.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import LAYERS, TEXT, Tensors, model, part, read, same, specs, splits, write
from torch import Tensor

from vlconv.converters.errors import CorruptError, MismatchError
from vlconv.converters.formats.legacy.read import open_legacy
from vlconv.converters.formats.legacy.write import LegacyModel, plan_legacy
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.parallel.model_chunk import WholeModel
from vlconv.converters.tensors.sharding import Topology

M = "language_model."
EMBEDDING, OUTPUT = f"{M}embedding.word_embeddings.weight", f"{M}output_layer.weight"
IN_PROJ = f"{M}decoder.layers.0.self_attention.in_proj.weight"
Files = dict[str, list[Tensors]]
"""A rank's folder -> the state dict of each of its model chunks."""


def rank_files(whole: Tensors, tp: int, pp: int = 1, vpp: int = 1) -> Files:
    """What every rank's file holds; layers in order, chunk by chunk over all stages."""
    files: Files = {}
    each = LAYERS // (pp * vpp)
    for rank in range(tp):
        for stage in range(pp):
            chunks: list[Tensors] = [{} for _ in range(vpp)]
            for name, tensor in whole.items():
                chunk, local = 0, name
                if ".decoder.layers." in name:
                    head, number, rest = name.split(".", 4)[:3], int(name.split(".")[3]), name.split(".", 4)[4]
                    at, layer = divmod(number, each)
                    chunk, here = divmod(at, pp)
                    local = ".".join([*head, str(layer), rest])
                elif name == EMBEDDING:
                    here = 0
                else:
                    chunk, here = vpp - 1, pp - 1
                if here == stage:
                    chunks[chunk][local] = part(name, tensor, tp, rank)
            if stage == pp - 1 > 0 and any(".mtp." in name for name in whole):
                chunks[-1][EMBEDDING] = part(EMBEDDING, whole[EMBEDDING], tp, rank)
            files[f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if pp > 1 else "")] = chunks
    return files


def saved(directory: Path, files: Files, **args: Any) -> Path:
    for folder, chunks in files.items():
        (directory / folder).mkdir(parents=True)
        named = {"model": chunks[0]} if len(chunks) == 1 else {f"model{i}": c for i, c in enumerate(chunks)}
        torch.save({**named, "args": Namespace(**args), "iteration": 1}, directory / folder / "model_optim_rng.pt")
    return directory


TOPOLOGIES = [(1, 1, 1), (2, 1, 1), (4, 1, 1), (1, 2, 1), (2, 2, 2), (2, 4, 1)]


@pytest.mark.parametrize(("tp", "pp", "vpp"), TOPOLOGIES)
@pytest.mark.parametrize("inner", ["transformer_layer", "mtp_model_layer"])
def test_read(tmp_path: Path, tp: int, pp: int, vpp: int, inner: str) -> None:
    whole = model(inner=inner)
    opened = open_legacy(saved(tmp_path, rank_files(whole, tp, pp, vpp)))
    assert opened.form == f"TP {tp}, PP {pp}, VPP {vpp}, EP 1"
    assert opened.specs.keys() == whole.keys()
    cut = splits(whole)
    assert opened.shapes(splits(whole, text=None)) == {name: tuple(t.shape) for name, t in whole.items()}
    assert same(read(opened, cut), whole) == []
    assert opened.warnings == []
    assert opened.sectioned == frozenset()


EXTRA = (
    f"{M}decoder.layers.0.self_attention.in_proj",
    f"{M}decoder.layers.0.self_attention.out_norm",
    f"{M}decoder.layers.0.self_attention.out_proj",
    f"{M}decoder.layers.3.self_attention.linear_qkv",
    f"{M}mtp.layers.0.enorm",
    f"{M}mtp.layers.0.transformer_layer.self_attention.linear_qkv",
)


def legacy(whole: Tensors, tied: bool = False) -> LegacyModel:
    return LegacyModel(
        WholeModel(specs(whole), splits(whole), M, sequential=False, tied=tied), EXTRA, args={}, iteration=0
    )


@pytest.mark.parametrize(("tp", "pp", "vpp"), TOPOLOGIES)
def test_written(tmp_path: Path, tp: int, pp: int, vpp: int) -> None:
    whole = model()
    write(tmp_path, plan_legacy(legacy(whole), Topology(tp=tp, pp=pp, vpp=vpp)), whole)
    wanted = rank_files(whole, tp, pp, vpp)
    assert {path.name for path in tmp_path.iterdir()} == wanted.keys()
    for folder, chunks in wanted.items():
        state = torch.load(tmp_path / folder / "model_optim_rng.pt", weights_only=False)
        for number, chunk in enumerate(chunks):
            found = state["model" if vpp == 1 else f"model{number}"]
            weights = {name: t for name, t in found.items() if not name.endswith("_extra_state")}
            assert same(weights, chunk) == []
            extra = {name.removesuffix("._extra_state") for name in found.keys() - weights.keys()}
            assert {f"{name}.weight" for name in extra if "core_attention" not in name} <= chunk.keys()
            heads = {f"{M}mtp.layers.0.{name}" for name in ("enorm", "transformer_layer.self_attention.core_attention")}
            assert heads <= extra if f"{M}mtp.layers.0.enorm.weight" in chunk else not heads & extra
            deltas = {name.rpartition(".")[0] for name in extra if name.endswith(".in_proj")}
            assert not {f"{name}.core_attention" for name in deltas} & extra  # beside attention alone


def test_tied_and_a_head(tmp_path: Path) -> None:
    """megatron-core has both copies, and loads no file without."""
    whole = {name: tensor for name, tensor in model().items() if name != OUTPUT}
    write(tmp_path, plan_legacy(legacy(whole, tied=True), Topology(tp=2, pp=2)), whole)
    for rank in range(2):
        state = torch.load(tmp_path / f"mp_rank_{rank:02d}_001" / "model_optim_rng.pt", weights_only=False)["model"]
        copy = whole[EMBEDDING].chunk(2)[rank]
        assert torch.equal(state[EMBEDDING], copy) and torch.equal(state[OUTPUT], copy)
    assert same(read(open_legacy(tmp_path), splits(whole)), whole) == []


def test_a_single_stage_has_no_copies(tmp_path: Path) -> None:
    whole = {name: tensor for name, tensor in model().items() if name != OUTPUT}
    write(tmp_path, plan_legacy(legacy(whole, tied=True), Topology()), whole)
    state = torch.load(tmp_path / "mp_rank_00" / "model_optim_rng.pt", weights_only=False)["model"]
    assert {name for name in state if not name.endswith("_extra_state")} == whole.keys()


def test_without_heads_the_last_stage_has_no_copy(tmp_path: Path) -> None:
    whole = model(mtp=False)
    plain = replace(legacy(whole), extra_state=())
    write(tmp_path, plan_legacy(plain, Topology(pp=2)), whole)
    state = torch.load(tmp_path / "mp_rank_00_001" / "model_optim_rng.pt", weights_only=False)["model"]
    assert EMBEDDING not in state and OUTPUT in state


class TestCopiesOfTheEmbedding:
    def test_that_differ_are_told(self, tmp_path: Path) -> None:
        whole = model()
        files = rank_files(whole, 2, 2)
        files["mp_rank_01_001"][0][EMBEDDING][3, 2] += 0.5
        opened = open_legacy(saved(tmp_path, files))
        assert same(read(opened, splits(whole)), whole) == []
        assert opened.warnings == [
            f"{EMBEDDING} differs between mp_rank_01_000 (taken) and mp_rank_01_001: 1 of 48 elements, by at most 0.5"
        ]

    @pytest.mark.parametrize("pp", [2, 4])
    @pytest.mark.parametrize("without", ["", OUTPUT])
    def test_stages_that_were_exchanged(self, tmp_path: Path, pp: int, without: str) -> None:
        files = rank_files({name: t for name, t in model().items() if name != without}, 1, pp)
        first, last = "mp_rank_00_000", f"mp_rank_00_{pp - 1:03d}"
        files[first], files[last] = files[last], files[first]
        says = "multi-token-prediction head" if without else "output layer"
        with pytest.raises(
            CorruptError, match=f"holds layers of language_model behind its {says}, which is in {first}"
        ):
            open_legacy(saved(tmp_path, files))

    def test_a_middle_stage_in_the_place_of_the_first(self, tmp_path: Path) -> None:
        files = rank_files(model(), 1, 4)
        files["mp_rank_00_000"], files["mp_rank_00_001"] = files["mp_rank_00_001"], files["mp_rank_00_000"]
        with pytest.raises(CorruptError, match="mp_rank_00_000 holds layers of language_model before its embedding"):
            open_legacy(saved(tmp_path, files))


class TestATiedOutputLayer:
    """megatron-core makes room for one beside a head's embedding, and never fills it."""

    def given(self, directory: Path, **args: Any) -> tuple[Any, Tensors]:
        whole = {name: tensor for name, tensor in model().items() if name != OUTPUT}
        files = rank_files(whole, 1, 2)
        files["mp_rank_00_001"][0][OUTPUT] = torch.full((16, 6), 0.25)
        return open_legacy(saved(directory, files, **args)), whole

    def test_is_told(self, tmp_path: Path) -> None:
        opened, whole = self.given(tmp_path, untie_embeddings_and_output_weights=False)
        assert same(read(opened, splits(whole)), whole) == []
        (warning,) = opened.warnings
        assert warning.startswith(
            "the output layer in mp_rank_00_001 is no copy of the embedding, which is used for it"
        )

    @pytest.mark.parametrize("args", [{}, {"untie_embeddings_and_output_weights": True}])
    def test_is_refused_where_the_files_do_not_say_that_it_is_tied(self, tmp_path: Path, args: dict[str, Any]) -> None:
        opened, whole = self.given(tmp_path, **args)
        with pytest.raises(MismatchError, match="the output layer in mp_rank_00_001 is no copy of its embedding"):
            opened.assemble(splits(whole))


def test_another_model_has_other_sections(tmp_path: Path) -> None:
    whole = model()
    opened = open_legacy(saved(tmp_path, rank_files(whole, 2)))
    with pytest.raises(
        MismatchError, match=r"80 rows or columns of \S+in_proj\.weight \[80, 6\] do not come in"
    ) as found:
        opened.assemble(splits(whole, text=replace(TEXT, value_dim=4)))
    assert "another model" in found.value.hint


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    whole = model(mtp=False)
    with pytest.raises(MismatchError, match=rf"8 rows or columns of {IN_PROJ} \[80, 6\] do not divide .* size 16"):
        plan_legacy(legacy(whole), Topology(tp=16))


@pytest.mark.parametrize("name", ["in_proj.weight", "in_proj_qkvz.weight", "in_proj_ba.weight", "conv1d.weight"])
def test_rows_grouped_per_key_head_are_shards_as_they_are(tmp_path: Path, name: str) -> None:
    whole: Tensor = torch.arange(16 * 3.0).reshape(16, 3)
    full = f"{M}decoder.layers.0.self_attention.{name}"
    files: Files = {f"mp_rank_{r:02d}": [{full: whole[8 * r : 8 * r + 8].clone()}] for r in range(2)}
    cut = splits([full], replace(LAYOUTS["mbridge"], gdn="grouped"))
    assert same(read(open_legacy(saved(tmp_path, files)), cut), {full: whole}) == []


@pytest.mark.parametrize("name", ["linear_attn.in_proj_qkv.weight", "linear_attn.A_log", "in_proj_z.weight", "A_log"])
def test_a_hugging_face_module_is_whole_on_every_rank(tmp_path: Path, name: str) -> None:
    whole = torch.arange(16 * 3.0).reshape(16, 3)
    full = f"{M}decoder.layers.0.self_attention.{name}"
    opened = open_legacy(saved(tmp_path, {f"mp_rank_{r:02d}": [{full: whole.clone()}] for r in range(2)}))
    cut = splits([full], replace(LAYOUTS["mbridge"], gdn="replicated"))
    assert same(read(opened, cut), {full: whole}) == []
