"""A small install: `pip install --no-deps` and the few libraries that conversions use, nothing of the rest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_hf, write_reference
from small_install import environment, run, vlconv

from vlconv.converters.errors import MissingLibrary, naming_missing_libraries

SMALL = ("isal", "numpy", "pyyaml", "typer")
"""README's short list; hf2mcore, mcore2mcore and --dtype use torch besides."""

ABSENT = ("megatron", "transformers", "huggingface_hub", "safetensors", "psutil")

CONFIG = tiny(moe=True)
HF = random_hf_tensors(CONFIG)


class Inputs(NamedTuple):
    """One model in every form. No test changes it."""

    hf: Path
    torch_dist: Path
    torch: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    made = Inputs(
        write_hf(folder / "hf", CONFIG, HF),
        save(folder / "torch_dist" / "mcore", CONFIG, HF, Topology(tp=2), padded=True),
        save_legacy(folder / "torch" / "mcore", CONFIG, HF, Topology(tp=2, ep=2)),
    )
    for checkpoint in made[1:]:
        write_reference(checkpoint / "huggingface", CONFIG)
    # As Megatron-Bridge states what it saved.
    (made.torch_dist / "run_config.yaml").write_text(f"model:\n  num_layers: {CONFIG.text.layers}\n")
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("small") / "env", *SMALL)


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("with_torch") / "env", *SMALL, "torch")


def succeeds(python: Path, *arguments: object) -> None:
    ran = vlconv(python, *arguments)
    assert (ran.returncode, ran.stderr) == (0, "")


def fails(python: Path, *arguments: object, code: int, says: str, hint: str) -> None:
    """In one line, and a second with what to do."""
    ran = vlconv(python, *arguments)
    assert (ran.returncode, ran.stderr.splitlines()) == (code, [says, f"  {hint}"])


@pytest.mark.parametrize(("name", "absent"), [("small", (*ABSENT, "torch")), ("with_torch", ABSENT)])
def test_nothing_else_is_there(request: pytest.FixtureRequest, name: str, absent: tuple[str, ...]) -> None:
    code = f"from importlib.util import find_spec; print([n for n in {absent} if find_spec(n)])"
    assert run(request.getfixturevalue(name), "-c", code).stdout == "[]\n"


class TestWithoutTorch:
    @pytest.mark.parametrize("form", ["torch_dist", "torch"])
    def test_mcore2hf(self, small: Path, inputs: Inputs, tmp_path: Path, form: str) -> None:
        succeeds(small, "mcore2hf", getattr(inputs, form), tmp_path / "hf")
        assert differing(read_hf(tmp_path / "hf"), HF) == []

    @pytest.mark.parametrize("form", ["torch_dist", "torch"])
    def test_verify_two(self, small: Path, inputs: Inputs, form: str) -> None:
        succeeds(small, "verify", getattr(inputs, form), inputs.hf)

    @pytest.mark.parametrize("form", ["torch_dist", "torch", "hf"])
    def test_verify_one(self, small: Path, inputs: Inputs, form: str) -> None:
        succeeds(small, "verify", getattr(inputs, form))

    def test_what_needs_it_says_so(self, small: Path, inputs: Inputs, tmp_path: Path) -> None:
        fails(
            small,
            *("hf2mcore", inputs.hf, tmp_path / "mcore"),
            code=1,
            says="error: torch is not installed, and this needs it",
            hint="pip install torch",
        )
        assert not list(tmp_path.iterdir())
        fails(
            small,
            *("verify", inputs.hf, "--on-disk", tmp_path),
            code=3,
            says="not comparable: torch is not installed, and this needs it",
            hint="pip install torch",
        )


class TestWithTorch:
    @pytest.mark.parametrize("options", [("--format", "torch_dist"), ("--format", "torch", "--tp", "2")])
    def test_hf2mcore(self, with_torch: Path, inputs: Inputs, tmp_path: Path, options: tuple[str, ...]) -> None:
        succeeds(with_torch, "hf2mcore", inputs.hf, tmp_path / "mcore", *options)
        succeeds(with_torch, "mcore2hf", tmp_path / "mcore", tmp_path / "hf")
        assert differing(read_hf(tmp_path / "hf"), HF) == []

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("form", "options"),
        [("torch_dist", ("--format", "torch", "--ep", "2")), ("torch", ("--format", "torch_dist"))],
    )
    def test_mcore2mcore(
        self, with_torch: Path, inputs: Inputs, tmp_path: Path, form: str, options: tuple[str, ...]
    ) -> None:
        succeeds(with_torch, "mcore2mcore", getattr(inputs, form), tmp_path / "mcore", *options)
        succeeds(with_torch, "mcore2hf", tmp_path / "mcore", tmp_path / "hf")
        assert differing(read_hf(tmp_path / "hf"), HF) == []

    @pytest.mark.slow
    def test_another_dtype(self, with_torch: Path, inputs: Inputs, tmp_path: Path) -> None:
        succeeds(with_torch, "mcore2hf", inputs.torch_dist, tmp_path / "hf", "--dtype", "float32")
        assert differing(read_hf(tmp_path / "hf"), {name: tensor.float() for name, tensor in HF.items()}) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["torch_dist", "hf"])
    def test_verify_on_disk(self, with_torch: Path, inputs: Inputs, tmp_path: Path, form: str) -> None:
        succeeds(with_torch, "verify", getattr(inputs, form), "--on-disk", tmp_path)


class TestMissing:
    @pytest.mark.parametrize(("library", "form"), [("megatron-core", "torch_dist"), ("transformers", "hf")])
    def test_a_witness(self, small: Path, inputs: Inputs, library: str, form: str) -> None:
        fails(
            small,
            *("verify", getattr(inputs, form), "--witness", library),
            code=3,
            says=f"not comparable: {library} is not installed, so it cannot witness",
            hint=f"pip install {library}",
        )

    def test_the_hub(self, small: Path, inputs: Inputs, tmp_path: Path) -> None:
        fails(
            small,
            *("mcore2hf", inputs.torch_dist, tmp_path / "hf", "--reference", "Qwen/Qwen3-VL-2B-Instruct"),
            code=1,
            says="error: huggingface_hub is not installed, and this needs it",
            hint="pip install huggingface_hub",
        )
        assert not list(tmp_path.iterdir())

    def test_a_module_is_asked_for_by_the_name_that_pip_knows(self) -> None:
        with pytest.raises(MissingLibrary) as caught, naming_missing_libraries():
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml.reader")
        assert (caught.value.what, caught.value.hint) == (
            "pyyaml is not installed, and this needs it",
            "pip install pyyaml",
        )

    def test_a_file_of_ours_is_no_library(self) -> None:
        with pytest.raises(ModuleNotFoundError), naming_missing_libraries():
            import_module("vlconv.converters.nothing")
