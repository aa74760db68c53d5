"""Stages of a pipeline that lie in each other's folders, in checkpoints that megatron-core's modules saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcore.topology import Topology
from spoiled import Saved

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.legacy.held.ends import check_ends
from vlconv.converters.formats.legacy.layers import State


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def saved(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"), Topology(tp=2, pp=2), tied=request.param)


def test_exchanged(tmp_path: Path, saved: Saved) -> None:
    given = saved.given(tmp_path)
    for tp in ("00", "01"):
        first, second = given.directory / f"mp_rank_{tp}_000", given.directory / f"mp_rank_{tp}_001"
        first.rename(given.directory / "aside")
        second.rename(first)
        (given.directory / "aside").rename(second)
    given.refused(CorruptError, "_000 holds layers of language_model before its embedding", "_001")


def test_as_saved(tmp_path: Path, saved: Saved) -> None:
    saved.given(tmp_path).comes_back()


LAYER = "decoder.layers.0.mlp.linear_fc2.weight"
HEAD = "mtp.layers.0.transformer_layer.mlp.linear_fc2.weight"
FIRST, LAST = "embedding.word_embeddings.weight", "output_layer.weight"


def stage(number: int, chunk: int, *names: str) -> State:
    return State(number, chunk, f"iter/mp_rank_00_{number:03d}/model_optim_rng.pt", names)


@pytest.mark.parametrize(
    "states",
    [
        [stage(0, 0, FIRST, LAYER), stage(1, 0, LAYER, LAST)],
        [stage(0, 0, FIRST, LAYER), stage(1, 0, LAYER), stage(0, 1, LAYER), stage(1, 1, LAYER, LAST)],
        [stage(0, 0, "vision.decoder.layers.0.x"), stage(1, 0, FIRST, LAYER, LAST)],
        [stage(0, 0, f"text.{FIRST}"), stage(1, 0, f"text.{LAYER}"), stage(2, 0, f"text.{LAST}")],
        [stage(0, 0, LAYER), stage(1, 0, LAYER)],
        [stage(0, 0, FIRST, LAYER), stage(1, 0, LAYER), stage(2, 0, FIRST, LAYER, HEAD, LAST)],
        [stage(0, 0, FIRST, LAYER), stage(0, 1, LAYER), stage(1, 0, LAYER), stage(1, 1, FIRST, LAYER, HEAD)],
    ],
    ids=["two stages", "chunks", "a tower before", "ends without layers", "names of neither", "a head", "tied"],
)
def test_fine(states: list[State]) -> None:
    check_ends(states)
    check_ends(reversed(states))


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ([stage(0, 0, LAYER), stage(1, 0, FIRST, LAYER)], "mp_rank_00_000 holds layers of the model before its emb"),
        ([stage(0, 0, LAYER, LAST), stage(1, 0, LAYER)], "mp_rank_00_001 holds layers of the model behind its out"),
        ([stage(0, 0, FIRST, LAYER), stage(1, 0, LAYER, LAST), stage(0, 1, LAYER)], "000 holds layers .* behind"),
        (
            [stage(0, 0, FIRST, LAYER, HEAD), stage(1, 0, FIRST, LAYER)],
            "001 holds layers of the model behind its multi-token-prediction head, which is in mp_rank_00_000",
        ),
        (
            [stage(0, 0, LAYER), stage(1, 0, FIRST, LAYER), stage(2, 0, FIRST, LAYER, HEAD)],
            "000 holds .* before its emb",
        ),
        ([stage(0, 0, f"t.{LAYER}"), stage(1, 0, f"t.{FIRST}", f"t.{LAYER}")], "layers of t before"),
    ],
)
def test_refused(states: list[State], says: str) -> None:
    with pytest.raises(CorruptError, match=says):
        check_ends(states)
