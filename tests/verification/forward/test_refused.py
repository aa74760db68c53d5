"""What --forward refuses before anything is read, and how it decides what fits."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from forward import here
from refusing import edit_config
from safetensors.torch import load_file
from tiny import tiny_config, write_tiny_hf

from vlconv import NotComparable, OptionError, VerifyOptions, verify
from vlconv.converters.verification.forward import sizes
from vlconv.converters.verification.forward.serving import save_logits

__all__ = ["here"]

pytestmark = pytest.mark.usefixtures("here")

LOGITS = 2 * (48 + 78) * 300 * 4
"""Bytes of two texts and two sequences with an image."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of enough rows for every layer to count."""
    folder = tmp_path_factory.mktemp("pair")
    config = tiny_config("qwen3", text={"intermediate_size": 10000, "num_hidden_layers": 6})
    write_tiny_hf(folder / "a", config)
    write_tiny_hf(folder / "b", config)
    return folder / "a", folder / "b"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"forward": True, "witness": "transformers"}, "--forward and --witness are two checks"),
        ({"forward": True, "on_disk": "d"}, "--forward and --on-disk are two checks"),
        ({"forward": True, "like": "m"}, "--forward and --like are two checks"),
        ({"layers": 2}, "--layers is about models that are run"),
        ({"device": "cuda"}, "--device is about models that are run"),
        ({"forward": True, "layers": 0}, "--layers 0 is no whole number from 1"),
        ({"forward": True, "device": "tpu"}, "--device 'tpu' is none of cpu, cuda"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)):
        VerifyOptions(**options)


def test_one_hugging_face_directory_has_nothing_to_be_compared_with(pair: tuple[Path, Path]) -> None:
    with pytest.raises(NotComparable, match="this is one Hugging Face directory\nGive the other one as B"):
        verify(pair[0], forward=True)


def test_an_embedding_model_has_no_logits(tmp_path: Path) -> None:
    config = tiny_config("qwen3")
    hf = write_tiny_hf(tmp_path / "a", config)
    for name in ("a", "b"):
        write_tiny_hf(tmp_path / name, config, tensors={n: t for n, t in hf.items() if n != "lm_head.weight"})
        (tmp_path / name / "modules.json").write_text("[]")
    with pytest.raises(NotComparable, match="has no output layer, so no logits"):
        verify(tmp_path / "a", tmp_path / "b", forward=True, no_output_layer=True)


def test_no_gpu(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotComparable, match="torch sees no GPU here\nLeave --device out"):
        verify(*pair, forward=True, device="cuda")


def test_processes_of_a_launcher(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from vlconv.converters.verification.forward import ready

    class Led:
        def get(self) -> bool:
            return True

    monkeypatch.setattr(ready, "led", Led())
    with pytest.raises(NotComparable, match="Start vlconv without torchrun"):
        verify(*pair, forward=True)


def free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    monkeypatch.setattr(sizes, "free_memory", lambda: nbytes)


def needed(pair: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = verify(*pair, forward=True, dry_run=True, **options).data["forward"]
    return found


class TestMemory:
    def test_weights_and_what_computes_them(self, pair: tuple[Path, Path]) -> None:
        numbers = 6 * (3 * 64 * 10000) + 300 * 64  # the attention is a thousandth of it
        told = needed(pair)
        assert told["dtype"] == "float32"
        assert 4 * numbers < told["memory_needed"] - (1 << 30) - 4 * LOGITS < 5 * numbers

    def test_the_weights_own_dtype_where_float32_is_too_large(
        self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free(monkeypatch, needed(pair)["memory_needed"] - 1)
        report = verify(*pair, forward=True, dry_run=True)
        assert report.data["forward"]["dtype"] == "bfloat16"
        assert any("no memory for float32: noise is larger" in warning for warning in report.warnings)

    def test_layers_that_fit_are_named(self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        sizes_of = [needed(pair, layers=count)["memory_needed"] for count in (2, 3)]
        free(monkeypatch, needed(pair)["memory_needed"] - 1)
        monkeypatch.setattr(sizes, "_narrow", lambda models: [])
        for fits, nbytes in ((2, sizes_of[1] - 1), (3, sizes_of[1])):
            free(monkeypatch, nbytes)
            with pytest.raises(
                NotComparable, match=rf"needs 1.* GB in float32 of memory, and .* free\n--layers {fits} "
            ):
                verify(*pair, forward=True)
        assert needed(pair, layers=3)["memory_needed"] == sizes_of[1]
        free(monkeypatch, 10**6)
        with pytest.raises(NotComparable, match="No part of it fits here"):
            verify(*pair, forward=True)

    def test_both_sizes_are_said(self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        free(monkeypatch, 10**9)
        with pytest.raises(NotComparable, match=r"needs 1\.\d+ GB in float32 or 1\.\d+ GB in bfloat16 of memory"):
            verify(*pair, forward=True)

    def test_files_in_memory_count(self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        before = needed(pair, layers=2)
        monkeypatch.setattr(sizes, "kind_of", lambda device: "tmpfs")
        assert needed(pair, layers=2)["memory_needed"] - before["memory_needed"] == before["copied"]["A"] > 10**6


def test_room_for_a_copy(pair: tuple[Path, Path], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    seen = []
    monkeypatch.setattr(sizes, "disk_usage", lambda place: seen.append(place) or Usage(2 * 10**6))
    with pytest.raises(
        NotComparable,
        match=r"a copy of the model and the logits need \d+.* MB in .*, and 2.00 MB are free there\nSet TMPDIR",
    ):
        verify(*pair, forward=True, layers=2)
    assert seen == [str(here)]
    assert needed(pair)["copied"] == {"A": 0, "B": 0}  # read where they are: room for logits alone
    monkeypatch.setattr(sizes, "disk_usage", lambda place: Usage(4 * LOGITS - 1))
    with pytest.raises(
        NotComparable, match=r"the logits need 1\.21 MB in .*\nSet TMPDIR to a directory with more room\.$"
    ):
        verify(*pair, forward=True)


@pytest.mark.parametrize(("by_megatron", "runs"), [([], 3 + 1), (["A"], 3 + 2 + 1), (["B"], 3 + 3 + 2)])
def test_room_for_every_run(monkeypatch: pytest.MonkeyPatch, by_megatron: list[str], runs: int) -> None:
    """A is run in three ways, and so is what megatron-core's logits are held against; those may be two."""
    models: Any = [SimpleNamespace(name=name, copied=0, logits=100) for name in "AB"]
    for free, fits in ((100 * runs, True), (100 * runs - 1, False)):
        monkeypatch.setattr(sizes, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        with nullcontext() if fits else pytest.raises(NotComparable, match="Set TMPDIR"):
            sizes.check_room(models, by_megatron)


def test_logits_that_find_no_room() -> None:
    with pytest.raises(NotComparable, match=r"logits cannot be written to /dev: .*\nSet TMPDIR"):
        save_logits(Path("/dev/full"), np.zeros(1 << 20))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda a: (a / INDEX).write_text(index_of(a)),
            "both model.safetensors and model.safetensors.index.json",
        ),
        (lambda a: (a / "adapter_config.json").write_text("{}"), "holds adapter_config.json beside the model"),
        (lambda a: edit_config(a, lambda c: c.update(transformers_weights="x.safetensors")), "names x.safetensors as"),
    ],
)
def test_a_directory_of_which_transformers_runs_other_files(
    pair: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    other = shutil.copytree(pair[0], tmp_path / "other")
    spoil(other)
    assert verify(pair[0], other).status == "same"
    with pytest.raises(NotComparable, match=says):
        verify(pair[0], other, forward=True)


INDEX = "model.safetensors.index.json"


def index_of(directory: Path) -> str:
    """One that places every tensor in a second file, which is made."""
    (directory / "weights.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    names = load_file(directory / "model.safetensors")
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "weights.safetensors")})


def test_nothing_is_installed(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from vlconv.converters.verification.witnesses import foreign

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(foreign, "installed", absent)
    with pytest.raises(NotComparable, match="torch is not installed"):
        verify(*pair, forward=True)


def test_the_report_is_json(pair: tuple[Path, Path]) -> None:
    report = verify(*pair, forward=True)
    document = json.loads(json.dumps(report.as_dict()))["forward"]
    assert set(document) == {
        *("library", "dtype", "device", "layers", "memory_needed", "memory_free", "copied", "config_from"),
        *("parts", "megatron_core", "faults"),
    }
    assert set(document["parts"]["text"]) == {
        *("verdict", "positions", "apart", "other_token", "max_abs", "spread", "noise", "nan", "equal", "relative"),
        *("unsure", "few", "bare"),
    }
