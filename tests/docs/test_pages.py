"""Every command of a page under docs/ is run, from top to bottom, in a folder with what the page says lies there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def beside(name: str) -> ModuleType:
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


blocks, prepared = beside("blocks"), beside("prepared")
PAGES = {f"trainers/{name}": make for name, make in prepared.TRAINERS.items()} | {
    "inside-a-trainer": prepared.inside_a_trainer,
    "python": prepared.python,
    "faults": prepared.faults,
    "forward": prepared.forward,
    "fp8": prepared.fp8,
    "lora-peft": prepared.lora_peft,
    "lora": prepared.lora,
    "to-megatron": prepared.to_megatron,
    "../README": prepared.readme,
}


USUAL = ("python",)
"""Run by every `make test`; each of the others takes as long, most of it to load transformers, and is a slow one."""


@pytest.mark.parametrize(
    "page", [page if page in USUAL else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
)
def test_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    PAGES[page](tmp_path)
    blocks.run_page(blocks.DOCS / f"{page}.md", tmp_path)


def test_every_trainer_has_a_page_and_readme_names_it() -> None:
    pages = {path.stem for path in (blocks.DOCS / "trainers").glob("*.md")}
    assert pages == set(prepared.TRAINERS)
    assert set(re.findall(r"\]\(docs/trainers/([\w-]+)\.md\)", (blocks.ROOT / "README.md").read_text())) == pages


def test_links_lead_somewhere() -> None:
    for page in (*blocks.DOCS.rglob("*.md"), *blocks.ROOT.glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_block_that_fails_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```text\nfalse\n```\n\n```sh\ntrue\n```\n\n```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        blocks.run_page(page, tmp_path)
    page.write_text("```sh\nfalse\ntrue\n```\n")
    with pytest.raises(AssertionError, match="false"):
        blocks.run_page(page, tmp_path)
    page.write_text("nothing\n")
    with pytest.raises(AssertionError, match="nothing to run"):
        blocks.run_page(page, tmp_path)
