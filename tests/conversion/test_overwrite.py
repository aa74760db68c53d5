"""--overwrite on real outputs: each command replaces its own earlier one, and nothing that is more than that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refusing import refused, snapshot
from standing import TRACKER, files, hf_model, save_directory
from tiny import write_tiny_hf

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
)
from vlconv.converters.errors import TargetError
from vlconv.converters.options import OutputOptions

Command = Callable[[Path, Path, Any], Report]

FORMS: list[tuple[Command, str, OutputOptions]] = [
    (mcore2hf, "mcore", Mcore2HfOptions()),
    (mcore2hf, "mcore", Mcore2HfOptions(max_shard_size=100_000, hf_names="old")),
    (hf2mcore, "hf", Hf2McoreOptions()),
    (hf2mcore, "hf", Hf2McoreOptions(per_layer=True)),
    (
        hf2mcore,
        "hf",
        Hf2McoreOptions(format="torch", tensor_model_parallel_size=2, pipeline_model_parallel_size=2),
    ),
    (mcore2mcore, "mcore", Mcore2McoreOptions()),
    (mcore2mcore, "mcore", Mcore2McoreOptions(format="torch")),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf")
    (work / "hf" / "glossary.dat").write_text("a side file with a name of its own")
    hf2mcore(work / "hf", work / "mcore")
    return work


@pytest.mark.parametrize(("command", "source", "options"), FORMS)
def test_each_command_replaces_its_own_output(
    models: Path, tmp_path: Path, command: Command, source: str, options: OutputOptions
) -> None:
    command(models / source, tmp_path / "out", options)
    before = snapshot(tmp_path)
    held = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    replaces = {"path": str(tmp_path / "out"), "files": len(held), "bytes": sum(p.stat().st_size for p in held)}
    planned = command(models / source, tmp_path / "out", replace(options, overwrite=True, dry_run=True))
    assert planned.data["replaces"] == replaces and snapshot(tmp_path) == before
    done = command(models / source, tmp_path / "out", replace(options, overwrite=True))
    assert done.data["replaces"] == replaces and done.status == "done"
    assert f"in {len(held)} files; it is removed once" in done.told["replaces"]
    after = snapshot(tmp_path)
    assert after.keys() == before.keys() and after["out"] != before["out"]


def thesis(folder: Path) -> tuple[str, str]:
    files(folder, "thesis.pdf", "chapters/1.tex")
    return ("chapters, thesis.pdf",) * 2


def two_models(folder: Path) -> tuple[str, str]:
    write_tiny_hf(folder / "one")
    write_tiny_hf(folder / "two")
    return ("one, two",) * 2


def five_iterations(folder: Path) -> tuple[str, str]:
    five = [f"iter_000000{n}" for n in range(1, 6)]
    save_directory(folder, *five, tracker="5")
    return f"huggingface, {', '.join(five[:4])} and 2 more", ", ".join(five)


def beside_a_model(folder: Path) -> tuple[str, str]:
    files(hf_model(folder), "notes.txt")
    return "notes.txt", "config.json, merges.txt, model.safetensors, notes.txt, tokenizer.json"


def beside_a_checkpoint(folder: Path) -> tuple[str, str]:
    files(save_directory(folder, "release", tracker="release"), "notes.txt")
    return f"huggingface, {TRACKER}, notes.txt, release", "notes.txt"


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("stand", [thesis, two_models, five_iterations, beside_a_model, beside_a_checkpoint])
@pytest.mark.parametrize(("command", "source", "options"), [FORMS[0], FORMS[2], FORMS[5]])
def test_nothing_else_is_replaced(
    models: Path,
    tmp_path: Path,
    command: Command,
    source: str,
    options: OutputOptions,
    stand: Callable[[Path], tuple[str, str]],
    dry_run: bool,
) -> None:
    of_models, of_checkpoints = stand(tmp_path / "out")
    held = of_models if command is mcore2hf else of_checkpoints
    given = replace(options, overwrite=True, dry_run=dry_run)
    error = refused(command, models / source, tmp_path / "out", given, fault=TargetError, says="is not replaced")
    assert error.what.endswith(f" and nothing else: it holds {held}")


def test_the_other_kind_is_not_replaced(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    refused(
        mcore2hf,
        models / "mcore",
        tmp_path / "mcore",
        Mcore2HfOptions(overwrite=True),
        fault=TargetError,
        says=("is not one Hugging Face model and nothing else", TRACKER),
    )
    refused(
        hf2mcore,
        models / "hf",
        tmp_path / "hf",
        Hf2McoreOptions(overwrite=True),
        fault=TargetError,
        says=("is not one Megatron checkpoint and nothing else", "config.json"),
    )


def test_a_side_file_that_comes_again_is_no_stranger_but_a_changed_one_is(models: Path, tmp_path: Path) -> None:
    for command, source, options in (FORMS[0], FORMS[2]):
        out = tmp_path / source
        command(models / source, out, options)
        mine = next(out.rglob("glossary.dat"))
        mine.write_text("mine")
        refused(
            command,
            models / source,
            out,
            replace(options, overwrite=True),
            fault=TargetError,
            says=f"it holds {os.path.relpath(mine, out)}",
        )
