"""What is told first and last of a conversion: the result in a line, what to do next, and what is still missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, hf2mcore, mcore2hf
from vlconv.converters.conversion.outcome import origin_of
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.report import Report


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `hf` in it and `run`, the same as iteration 1000 of a save directory."""
    monkeypatch.chdir(tmp_path)
    write_tiny_hf(Path("hf"))
    hf2mcore(Path("hf"), Path("run"), Hf2McoreOptions(as_iteration=1000))
    return tmp_path


def steps(report: Report) -> list[tuple[str, str]]:
    return [(step.name, step.command) for step in report.steps]


def test_to_hugging_face(work: Path) -> None:
    report = mcore2hf(Path("run"), Path("out 1"), Mcore2HfOptions())
    assert report.result == (
        f"out 1: {report.data['tensors']} tensors, 653 kB, a qwen3_vl of no release's sizes, from iteration 1000 of run"
    )
    assert steps(report) == [
        ("serve", "vllm serve 'out 1'"),
        ("upload", "hf upload USER/'out 1' 'out 1'"),
        ("verify", "vlconv verify run/iter_0001000 'out 1'"),
    ]
    assert report.last == ""


def test_to_megatron(work: Path) -> None:
    report = hf2mcore(Path("hf"), Path("new"), Hf2McoreOptions())
    assert report.result.startswith(f"new: {report.data['tensors']} tensors, ")
    assert report.result.endswith(" of no release's sizes, from hf")
    assert steps(report) == [
        ("load", "checkpoint.pretrained_checkpoint=new  (Megatron-Bridge)"),
        ("load", "actor_rollout_ref.actor.megatron.dist_checkpointing_path=new/release  (verl)"),
        ("load", "dist_checkpointing.load(…, new/release)  (AReaL, mbridge)"),
        ("verify", "vlconv verify hf new"),
    ]


def test_an_iteration_is_verified_as_itself(work: Path) -> None:
    report = hf2mcore(Path("hf"), Path("new"), Hf2McoreOptions(as_iteration=7))
    assert steps(report)[-1] == ("verify", "vlconv verify hf new/iter_0000007")


@pytest.mark.parametrize(
    ("options", "load"),
    [
        ({"format": "torch"}, [("load", "--load new")]),
        ({"as_layout": "ms-swift", "as_iteration": 1}, [("load", "--mcore_model new  (ms-swift)")]),
        ({"as_layout": "roll"}, []),
        ({"as_layout": "pai"}, [("load", "--load new")]),
    ],
)
def test_each_trainer_has_its_way(work: Path, options: dict[str, Any], load: list[tuple[str, str]]) -> None:
    report = hf2mcore(Path("hf"), Path("new"), Hf2McoreOptions(**options))
    assert [step for step in steps(report) if step[0] == "load"] == load


def test_each_way_names_the_directory() -> None:
    for layout in LAYOUTS.values():
        assert all("{0}" in way for _, way in layout.load), layout.name


def test_what_was_cast_is_not_verified(work: Path) -> None:
    report = mcore2hf(Path("run"), Path("out"), Mcore2HfOptions(dtype="float16"))
    assert [name for name, _ in steps(report)] == ["serve", "upload"]
    assert "verify" not in [n for n, _ in steps(hf2mcore(Path("hf"), Path("new"), Hf2McoreOptions(dtype="float16")))]


def test_a_verify_reads_as_the_conversion_did(work: Path) -> None:
    options = Mcore2HfOptions(layout="mbridge", make_vocab_size_divisible_by=4, dry_run=True)
    command = "vlconv verify run/iter_0001000 out --layout mbridge --make-vocab-size-divisible-by 4"
    assert steps(mcore2hf(Path("run"), Path("out"), options))[-1] == ("verify", command)


def test_without_a_tokenizer_nothing_is_served(work: Path) -> None:
    bare = work / "bare"
    bare.mkdir()
    shutil.copy(work / "hf" / "config.json", bare)
    report = mcore2hf(Path("run"), Path("out"), Mcore2HfOptions(reference="bare"))
    assert report.last == (
        "vLLM and AutoProcessor cannot load out until these are copied into it: tokenizer, preprocessor_config.json, "
        "video_preprocessor_config.json; Qwen/Qwen3-VL-2B-Instruct on the Hub has them"
    )
    assert report.last in report.warnings
    assert [name for name, _ in steps(report)] == ["verify"]


def test_the_brief_form(work: Path) -> None:
    """What a user must know stays, what goes without saying goes."""
    report = mcore2hf(Path("run"), Path("out"), Mcore2HfOptions(reference="hf"))
    brief = {fact.name: fact.text if fact.brief is None else fact.brief for fact in report.facts}
    assert {name: text for name, text in brief.items() if text} == {
        "source": "run/iter_0001000: Megatron torch_dist, layers stacked",
        "layout": "mbridge (mbridge, Megatron-Bridge >= 0.4, AReaL, verl)",
        "model": "qwen3_vl: 4 layers of 64, 8/4 heads, vocabulary 300; vision 4 blocks of 32",
        "config_from": "hf (given as --reference)",
        "not_provable": "1 fact rests on hf alone: rope_type; --verbose lists them",
        "embeddings": "not tied",
        "dtypes": "bfloat16",
        "written": f"every element once; {report.data['checksums']['checked']} checksums right; no NaN, no infinity",
    }


def test_numbers_are_numbers(work: Path) -> None:
    data = mcore2hf(Path("run"), Path("out"), Mcore2HfOptions()).as_dict()
    assert (data["iteration"], data["release"]) == (1000, None)
    assert (data["sizes"]["text"]["layers"], data["sizes"]["text"]["hidden"]) == (4, 64)
    assert data["sizes"]["vision"]["depth"] == 4
    assert {type(n) for part in data["sizes"].values() for n in part.values()} == {int}
    made = hf2mcore(Path("hf"), Path("new"), Hf2McoreOptions(as_iteration=7)).as_dict()
    assert made["target_iteration"] == 7


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("run/iter_0001000", "iteration 1000 of run"),
        ("run/global_step_20/actor/dist_ckpt", "iteration 20 of run"),
        ("run/global_step_20/actor", "iteration 20 of run"),
        ("run/release", "run/release"),
        ("hf", "hf"),
    ],
)
def test_the_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin_of(Path(directory)) == words
