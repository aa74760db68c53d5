"""A small install: `pip install --no-deps` and the few libraries that conversions use, nothing of the rest."""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_hf, write_reference
from small_install import ROOT, environment, run, vlconv

from vlconv.converters.errors import MissingLibrary, naming_missing_libraries

SMALL = ("isal", "numpy", "pyyaml", "typer")
"""README's short list."""

ABSENT = ("jinja2", "torch", "megatron", "transformers", "huggingface_hub", "safetensors", "psutil")

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


def fails(python: Path, *arguments: object, code: int, says: str, hint: str) -> None:
    """In one line, and a second with what to do."""
    ran = vlconv(python, *arguments)
    assert (ran.returncode, ran.stderr.splitlines()) == (code, [says, f"  {hint}"])


def test_nothing_else_is_there(small: Path) -> None:
    code = f"from importlib.util import find_spec; print([n for n in {ABSENT} if find_spec(n)])"
    assert run(small, "-c", code).stdout == "[]\n"


def test_make_dist_tries_the_same_list() -> None:
    (listed,) = re.findall(r"^SMALL := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(listed.split()) == sorted(SMALL)


COMMANDS = [
    "hf2mcore {hf} planned --dry-run",
    "hf2mcore {hf} td --sha256 --read-back",
    "hf2mcore {hf} ranks --format torch --tp 2 --ep 2",
    "hf2mcore {hf} td32 --dtype float32",
    "mcore2mcore {torch_dist} ranks_of_td --format torch --pp 2",
    "mcore2mcore {torch} td_of_ranks",
    "mcore2mcore {torch} td16 --dtype float16",
    "mcore2hf {torch_dist} hf_of_td",
    "mcore2hf {torch} hf_of_ranks",
    "mcore2hf ranks hf_of_our_ranks",
    "mcore2hf ranks_of_td hf_of_our_ranks_of_td",
    "mcore2hf td_of_ranks hf_of_our_td",
    "mcore2hf td32 hf_of_td32 --dtype bfloat16",
    "mcore2hf td16 hf16",
    "verify {torch_dist} {hf}",
    "verify {torch} td",
    "verify {torch}",
    "verify {hf}",
    "verify td --on-disk .",
]
"""What converts and compares, from and to every format. Every output that is called hf_… holds the model as it was."""

RUNNING = """
import json, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise RuntimeError("something imports torch")

sys.meta_path.insert(0, NoTorch())
from vlconv.app import app

codes = {}
for command in json.loads(sys.argv[1]):
    codes[command] = app([*command.split(), "--quiet"], standalone_mode=False)
print(json.dumps(codes))
"""
"""Commands in one process, in which even asking whether torch is there is a fault."""


def test_no_conversion_asks_for_torch(small: Path, inputs: Inputs, tmp_path: Path) -> None:
    commands = [command.format(**inputs._asdict()) for command in COMMANDS]
    ran = run(small, "-c", RUNNING, json.dumps(commands), cwd=tmp_path)
    assert ran.stderr == ""
    assert json.loads(ran.stdout) == dict.fromkeys(commands, 0)
    for directory in tmp_path.glob("hf_*"):
        assert differing(read_hf(directory), HF) == [], directory.name
    assert differing(read_hf(tmp_path / "hf16"), {name: tensor.half() for name, tensor in HF.items()}) == []
    assert not (tmp_path / "planned").exists()


class TestMissing:
    @pytest.mark.parametrize(("library", "form"), [("megatron-core", "torch_dist"), ("transformers", "hf")])
    def test_a_witness(self, small: Path, inputs: Inputs, library: str, form: str) -> None:
        fails(
            small,
            *("verify", getattr(inputs, form), "--witness", library),
            code=3,
            says=f"not comparable: {library} is not installed, and this check needs it",
            hint=f"pip install {library}",
        )

    def test_torch(self, inputs: Inputs, tmp_path: Path) -> None:
        fails(
            environment(tmp_path / "env", *SMALL, "transformers"),
            *("verify", inputs.hf, "--witness", "transformers"),
            code=3,
            says=f"not comparable: transformers {version('transformers')} cannot be imported: ModuleNotFoundError: "
            "No module named 'torch'",
            hint="Install what it imports: torch. Without --witness vlconv reads by itself.",
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

    def test_what_a_page_is_made_with_is_missed_before_the_work(
        self, small: Path, inputs: Inputs, tmp_path: Path
    ) -> None:
        fails(
            small,
            *("verify", tmp_path / "nowhere", inputs.hf, "--report", tmp_path / "page.html"),
            code=1,
            says="error: jinja2 is not installed, and --report needs it",
            hint="pip install jinja2",
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
