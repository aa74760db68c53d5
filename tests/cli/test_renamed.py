"""One option, one meaning everywhere: `--layout` and `--iteration` read, `--as-layout` and `--as-iteration` write."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from vlconv.app import app


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("hf2mcore", "--layout", "--as-layout"),
        ("hf2mcore", "--iteration", "--as-iteration"),
        ("mcore2mcore", "--from-layout", "--layout"),
        ("mcore2mcore", "--from-iteration", "--iteration"),
    ],
)
@pytest.mark.parametrize("spelled", ["{} 5", "{}=5"])
def test_an_old_spelling_is_refused_with_the_new_name(command: str, old: str, new: str, spelled: str) -> None:
    shown = CliRunner().invoke(app, [command, "a", "b", *spelled.format(old).split()])
    assert shown.exit_code == 2
    assert f"{old} is called {new} here" in " ".join(shown.output.split())


@pytest.mark.parametrize("command", ["mcore2hf", "hf2mcore", "mcore2mcore", "verify"])
def test_who_reads_and_who_writes(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    reads, writes = command != "hf2mcore", command in ("hf2mcore", "mcore2mcore")
    for option in ("--layout", "--iteration"):
        assert (f" {option} " in shown) == reads
        assert (f" --as-{option.lstrip('-')} " in shown) == writes
