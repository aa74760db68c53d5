"""What --like says of a loader is what the loader does: transformers, on the same damaged directories."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Report, verify

spec = importlib.util.spec_from_file_location("like_cases", Path(__file__).parent / "test_like.py")
assert spec and spec.loader
cases = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = cases
spec.loader.exec_module(cases)

pytestmark = pytest.mark.slow

MADE_UP = ["lm_head dropped", "two layers dropped", "tower dropped", "one norm dropped", "norms dropped"]
STOPS = [
    "a file is gone",
    "no index",
    "index without metadata",
    "file cut off",
    "rows cut",
    "no config",
    "config is no JSON",
]


def damaged(tmp_path: Path, name: str) -> tuple[Path, Report]:
    write_tiny_hf(tmp_path / "reference", tiny_config("qwen3_vl"), shards=3)
    out = shutil.copytree(tmp_path / "reference", tmp_path / "out")
    cases.WRONG[name][0](out)
    return out, verify(out, like=tmp_path / "reference")


def loaded(directory: Path) -> dict[str, Any]:
    from transformers import AutoModelForImageTextToText

    return dict(AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True)[1])


@pytest.mark.parametrize("name", MADE_UP)
def test_what_is_made_up_is_what_is_missing(tmp_path: Path, name: str) -> None:
    out, report = damaged(tmp_path, name)
    missing = loaded(out)["missing_keys"]
    assert sum(f.count for f in report.findings if "random numbers" in f.load) == len(missing) > 0


@pytest.mark.parametrize("name", STOPS)
def test_where_it_is_said_to_stop_it_stops(tmp_path: Path, name: str) -> None:
    out, report = damaged(tmp_path, name)
    assert any("stop" in f.load for f in report.findings)
    with pytest.raises(Exception, match=r"\S"):
        loaded(out)


def test_surplus_is_ignored(tmp_path: Path) -> None:
    out, _ = damaged(tmp_path, "surplus")
    assert list(loaded(out)["unexpected_keys"]) == ["score.weight"]
