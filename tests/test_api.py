"""vlconv as a library: `from vlconv import mcore2hf`, keywords for options, a function for the progress, no cost."""

from __future__ import annotations

import subprocess
import sys
import threading
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from references import differing, read_hf
from tiny import tiny_config, write_tiny_hf

import vlconv
from vlconv import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    OptionError,
    RepairOptions,
    Report,
    TargetError,
    VerifyOptions,
    VlconvError,
    converters,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    names,
    verify,
)
from vlconv.converters.options import keywords
from vlconv.converters.report import watching

KINDS = {
    "mcore2hf": (Mcore2HfOptions, keywords.Mcore2HfKeywords),
    "hf2mcore": (Hf2McoreOptions, keywords.Hf2McoreKeywords),
    "mcore2mcore": (Mcore2McoreOptions, keywords.Mcore2McoreKeywords),
    "repair": (RepairOptions, keywords.RepairKeywords),
    "verify": (VerifyOptions, keywords.VerifyKeywords),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hf`, and `mcore` made of it."""
    work = tmp_path_factory.mktemp("api")
    write_tiny_hf(work / "hf", tiny_config("qwen3_vl"))
    hf2mcore(str(work / "hf"), str(work / "mcore"))
    return work


def test_all_that_is_public_is_at_the_top() -> None:
    own = {"__version__"}
    assert set(vlconv.__all__) - own == set(converters.__all__) - {"Silent", "ranks", "scaled", "sized", "trainers"}
    for name in set(vlconv.__all__) - own:
        assert getattr(vlconv, name) is getattr(converters, name)
    assert set(vlconv.__all__) <= set(dir(vlconv))


def test_what_is_not_there_is_said_as_python_says_it() -> None:
    with pytest.raises(AttributeError, match="module 'vlconv' has no attribute 'mcore2safetensors'"):
        _ = vlconv.mcore2safetensors
    with pytest.raises(ImportError):
        exec("from vlconv import Silent")


def loaded(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_costs_nothing() -> None:
    assert loaded("import vlconv") <= {"vlconv", "__future__", "typing", *loaded("import typing")}


def test_a_name_brings_no_library_along() -> None:
    got = {name.partition(".")[0] for name in loaded("from vlconv import mcore2hf, verify, VlconvError")}
    assert "vlconv" in got
    assert not got & {"torch", "numpy", "transformers", "megatron", "huggingface_hub", "typer", "rich", "yaml"}


def test_paths_as_text_and_options_as_keywords(made: Path, tmp_path: Path) -> None:
    report = mcore2hf(str(made / "mcore"), str(tmp_path / "out"), dtype="float32", max_shard_size="100kB")
    assert report.status == "done"
    found = read_hf(tmp_path / "out")
    assert {str(t.dtype) for t in found.values()} == {"torch.float32"}
    assert differing({n: t.bfloat16() for n, t in found.items()}, read_hf(made / "hf")) == []
    assert len([*(tmp_path / "out").glob("*.safetensors")]) > 1


def test_every_function_takes_its_keywords(made: Path, tmp_path: Path) -> None:
    assert mcore2hf(made / "mcore", tmp_path / "a", dry_run=True).status == "planned"
    assert hf2mcore(made / "hf", tmp_path / "b", format="torch", tensor_model_parallel_size=2).status == "done"
    assert (tmp_path / "b" / "release" / "mp_rank_01").is_dir()
    assert mcore2mcore(made / "mcore", tmp_path / "c", as_iteration=7).status == "done"
    assert (tmp_path / "c" / "iter_0000007").is_dir()
    mcore2hf(made / "mcore", tmp_path / "wide", dtype="float32")
    assert verify(made / "hf", tmp_path / "wide").status == "different"
    assert verify(made / "hf", tmp_path / "wide", values=True).status == "same"
    assert "model.language_model.embed_tokens.weight" in {pair.hf for pair in names("mbridge", "qwen3_vl")}


def test_a_keyword_stands_before_the_object(made: Path, tmp_path: Path) -> None:
    given = Mcore2HfOptions(dtype="float32", dry_run=False)
    assert mcore2hf(made / "mcore", tmp_path / "out", given, dry_run=True).status == "planned"
    assert not (tmp_path / "out").exists() and given.dry_run is False
    mcore2hf(made / "mcore", tmp_path / "out", given, max_shard_size="100kB")
    assert len([*(tmp_path / "out").glob("*.safetensors")]) > 1
    assert {str(t.dtype) for t in read_hf(tmp_path / "out").values()} == {"torch.float32"}


@pytest.mark.parametrize(
    ("command", "given", "what", "hint"),
    [
        ("mcore2hf", {"dtyp": "x"}, "mcore2hf has no option dtyp", "Did you mean dtype?"),
        ("mcore2hf", {"--dry-run": True}, "mcore2hf has no option --dry-run", "Did you mean dry_run?"),
        ("mcore2hf", {"max-shard-size": 1}, "mcore2hf has no option max-shard-size", "Did you mean max_shard_size?"),
        ("hf2mcore", {"tp": 2}, "hf2mcore has no option tp", "Did you mean tensor_model_parallel_size?"),
        ("hf2mcore", {"etp": 2}, "hf2mcore has no option etp", "Did you mean expert_tensor_parallel_size?"),
        (
            "mcore2hf",
            {"tp": 2},
            "mcore2hf has no option tp",
            "Its options are: adapter, adapter_experts, base, carry, dry_run, ",
        ),
        ("mcore2mcore", {"as_layuot": "x"}, "mcore2mcore has no option as_layuot", "Did you mean as_layout?"),
        ("verify", {"reference": "x"}, "verify has no option reference", "Did you mean references?"),
        ("verify", {"\x1b[2J": 1}, "verify has no option \\x1b[2J", "Its options are: base, "),
    ],
)
def test_an_unknown_keyword_names_the_near_one(command: str, given: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(OptionError) as fault:
        getattr(vlconv, command)("nowhere", "out", **given)
    assert fault.value.what == what
    assert fault.value.hint.startswith(hint)


def test_a_value_that_cannot_be_is_refused_before_anything_is_read() -> None:
    with pytest.raises(OptionError, match="is none of bfloat16"):
        mcore2hf("nowhere", "out", dtype="int8")


@pytest.mark.parametrize("command", KINDS)
def test_keywords_are_the_fields(command: str) -> None:
    """Names, and types at least as wide, so that an object's values are values of keywords."""
    kind, typed = KINDS[command]
    said, own = typing.get_type_hints(typed), typing.get_type_hints(kind)
    assert set(said) == {field.name for field in fields(kind)}
    wider = {"carry", "references", "on_disk", "undo"}
    assert {name for name in said if said[name] != own[name]} == {name for name in wider if name in said}


class TestProgress:
    def test_a_function_is_enough(self, made: Path, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        mcore2hf(made / "mcore", tmp_path / "out", progress=lambda done, total: told.append((done, total)))
        weights = sum(t.numel() * t.element_size() for t in read_hf(made / "hf").values())
        assert any(done == total >= weights for done, total in told)
        assert all(0 <= done <= total for done, total in told)

    @pytest.mark.parametrize("command", ["mcore2hf", "hf2mcore", "mcore2mcore", "verify"])
    def test_every_function_takes_one(self, made: Path, tmp_path: Path, command: str) -> None:
        told: list[int] = []
        source = made / ("hf" if command == "hf2mcore" else "mcore")
        target = made / "hf" if command == "verify" else tmp_path / "out"
        getattr(vlconv, command)(source, target, progress=lambda done, total: told.append(done))
        assert told and max(told) > 0

    def test_threads_call_it_one_after_another(self) -> None:
        inside, most, lock = 0, 0, threading.Lock()

        def slow(done: int, total: int) -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.005)
            with lock:
                inside -= 1

        watch = watching(None, slow)
        threads = [threading.Thread(target=watch.progress, args=(n, 8)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    def test_what_it_raises_ends_the_run_and_leaves_nothing(self, made: Path, tmp_path: Path) -> None:
        def enough(done: int, total: int) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            mcore2hf(made / "mcore", tmp_path / "out", progress=enough)
        assert [*tmp_path.iterdir()] == []

    def test_an_observer_is_told_it_too_so_both_are_refused(self) -> None:
        with pytest.raises(OptionError, match="both observer and progress"):
            mcore2hf("nowhere", "out", observer=converters.Silent(), progress=lambda done, total: None)


def test_errors_are_caught_by_name(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(TargetError) as fault:
        mcore2hf(made / "mcore", tmp_path / "out")
    assert isinstance(fault.value, VlconvError) and fault.value.exit_code == 1 and "is not empty" in str(fault.value)
    assert isinstance(verify(made / "mcore"), Report)
