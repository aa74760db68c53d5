"""Asking for help, wrong usage in words and in JSON, and what a shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner, Result

from vlconv import __version__
from vlconv.app import app
from vlconv.converters.layouts import LAYOUTS

pytestmark = pytest.mark.versions

COMMANDS = ["inspect", "mcore2hf", "hf2mcore", "verify", "repair", "mcore2mcore", "push", "names"]


def invoke(*args: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, list(args), prog_name="vlconv", env={"COLUMNS": str(columns), "TERM": "dumb"})


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_of_a_command_is_its_help(self, command: str) -> None:
        shown = invoke("help", command)
        assert shown.exit_code == 0 and shown.output == invoke(command, "--help").output
        assert f"Usage: vlconv {command} " in shown.output

    def test_help_alone_is_that_of_vlconv(self) -> None:
        shown = invoke("help")
        assert shown.exit_code == 0 and shown.output == invoke("--help").output
        assert all(f" {command} " in shown.output for command in COMMANDS)

    @pytest.mark.parametrize("option", ["-V", "--version"])
    def test_the_version(self, option: str) -> None:
        assert invoke(option).output == f"vlconv {__version__}\n"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_at_80_columns_no_name_is_cut(self, command: str) -> None:
        shown = invoke(command, "--help").output
        assert "…" not in shown and max(map(len, shown.splitlines())) <= 80

    @pytest.mark.parametrize("command", ["hf2mcore", "mcore2mcore"])
    @pytest.mark.parametrize(
        "names",
        [
            "--tp --tensor-model-parallel-size",
            "--etp --expert-tensor-parallel-size",
            "--pp-first --decoder-first-pipeline-num-layers",
            "--pp-last --decoder-last-pipeline-num-layers",
        ],
    )
    def test_other_names_stand_whole_in_a_line(self, command: str, names: str) -> None:
        shown = [" ".join(line.split()) for line in invoke(command, "--help").output.splitlines()]
        assert names in shown

    @pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("push", "repair")])
    def test_layouts_are_listed_with_their_trainers(self, command: str) -> None:
        shown = words(invoke(command, "--help").output)
        assert all(f" {name} {layout.trainers}" in shown for name, layout in LAYOUTS.items())
        assert "listed below" in shown

    def test_who_has_one_name_has_no_other(self) -> None:
        assert "Other names" not in invoke("mcore2hf", "--help").output


class TestWrongUsage:
    def test_a_wrong_command_lists_the_commands_and_the_nearest(self) -> None:
        shown = invoke("mcore2fh", "a", "b")
        assert shown.exit_code == 2
        assert "Did you mean 'mcore2hf'" in words(shown.output)
        assert f"There are: {', '.join(COMMANDS)}." in words(shown.output)

    @pytest.mark.parametrize("args", ["nothing like it", "help nothing"])
    def test_where_none_is_near(self, args: str) -> None:
        shown = invoke(*args.split())
        assert shown.exit_code == 2 and f"There are: {', '.join(COMMANDS)}." in words(shown.output)

    @pytest.mark.parametrize(
        ("args", "command", "says"),
        [
            ("mcore2hf m --json", "mcore2hf", "Missing argument 'HF'"),
            ("mcore2hf --json m h --mtp no", "mcore2hf", "'no' is not one of"),
            ("hf2mcore h m --layout pai --json", "hf2mcore", "--layout is called --as-layout here"),
            ("verify a b c --json", "verify", "unexpected extra argument"),
            ("verify a --nothing --json", "verify", "No such option"),
            ("nothing --json", "vlconv", "There are: inspect, mcore2hf"),
            ("--json", "vlconv", "No such option"),
        ],
    )
    def test_under_json_it_is_one_document(self, args: str, command: str, says: str) -> None:
        shown = invoke(*args.split())
        assert shown.exit_code == 2
        document = json.loads(shown.stdout)
        assert (document["command"], document["status"]) == (command, "error")
        assert document["error"]["type"] == "UsageError" and says in document["error"]["what"]
        assert shown.stderr.startswith("error: ") and says in shown.stderr

    @pytest.mark.parametrize("args", ["mcore2hf m h --max-shard-size 2 --json", "mcore2hf m h --threads 0 --json"])
    def test_so_is_an_option_that_cannot_be(self, args: str) -> None:
        shown = invoke(*args.split())
        assert shown.exit_code == 2 and json.loads(shown.stdout)["error"]["type"] == "OptionError"

    def test_help_under_json_is_help(self) -> None:
        shown = invoke("mcore2hf", "--json", "--help")
        assert shown.exit_code == 0 and "Usage: vlconv mcore2hf" in shown.output

    def test_without_json_stdout_is_empty(self) -> None:
        shown = invoke("mcore2hf", "m")
        assert shown.exit_code == 2 and shown.stdout == "" and "Missing argument 'HF'" in shown.stderr


def completed(line: str, **env: str) -> str:
    """What a bash completes at the end of a line."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_VLCONV_COMPLETE": "complete_bash"}
    args = [sys.executable, "-m", "vlconv"]
    return subprocess.run(args, env=os.environ | asked | env, capture_output=True, text=True, check=True).stdout


class TestCompletion:
    @pytest.mark.parametrize("words", ["mcore2hf a b --layout", "hf2mcore a b --as-layout", "names --layout"])
    def test_layouts(self, words: str) -> None:
        expected = sorted(name for name in LAYOUTS if name.startswith("ms"))
        assert len(expected) > 2
        assert sorted(completed(f"vlconv {words} ms").split()) == expected

    def test_commands_and_choices(self) -> None:
        assert completed("vlconv mc").split() == ["mcore2hf", "mcore2mcore"]
        assert completed("vlconv mcore2hf --mtp ").split() == ["require", "carry", "drop"]

    def test_the_trainers_go_along_where_a_shell_shows_them(self) -> None:
        asked = {"_VLCONV_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "vlconv mcore2hf a b --layout pai"}
        assert "Pai-Megatron-Patch" in completed("", **asked)

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_of_a_shell(self, shell: str) -> None:
        assert "_VLCONV_COMPLETE" in invoke("--show-completion", shell).output or "_VLCONV_COMPLETE" in completed(
            "", _VLCONV_COMPLETE=f"source_{shell}"
        )

    def test_it_imports_nothing_heavy(self) -> None:
        code = """
        import os, sys
        from vlconv.app import main
        try:
            main()
        except SystemExit as end:
            assert end.code == 0
        heavy = {"torch", "numpy", "huggingface_hub", "megatron", "transformers", "safetensors", "isal", "yaml"}
        heavy &= set(sys.modules)
        assert not heavy, heavy
        """
        asked = {"COMP_WORDS": "vlconv mcore2hf --layout p", "COMP_CWORD": "3", "_VLCONV_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | asked,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "pai"), done.stderr
