"""The command line: what is parsed, what is called, which code comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vlconv import __version__, converters
from vlconv.app import app

pytestmark = pytest.mark.versions


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), prog_name="vlconv", env={"COLUMNS": "120", "TERM": "dumb"})


def vlconv(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vlconv", *args], capture_output=True, text=True, check=False)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Puts a recorder in place of the three functions: (name, *paths, options) of each call."""
    calls: list[Any] = []

    def record(name: str) -> Callable[..., converters.Report]:
        def function(*args: Any) -> converters.Report:
            calls.append((name, *args[:-1]))
            print("a library talks")
            return converters.Report(
                name,
                "planned" if args[-2].dry_run else "same" if name == "verify" else "done",
                [converters.Fact("model", "Qwen3-VL")],
            )

        return function

    for name in ("mcore2hf", "hf2mcore", "verify"):
        monkeypatch.setattr(converters, name, record(name))
    return calls


def stub(monkeypatch: pytest.MonkeyPatch, outcome: converters.Report | BaseException) -> None:
    def function(*args: Any) -> converters.Report:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    for name in ("mcore2hf", "hf2mcore", "verify"):
        monkeypatch.setattr(converters, name, function)


class TestStart:
    def test_help_imports_nothing_heavy(self) -> None:
        code = """
        import sys
        from vlconv.app import main
        for args in ([], ["mcore2hf"], ["hf2mcore"], ["verify"]):
            sys.argv = ["vlconv", *args, "--help"]
            try:
                main()
            except SystemExit as end:
                assert end.code == 0
        heavy = {"torch", "numpy", "huggingface_hub", "megatron", "transformers", "safetensors", "isal", "yaml"}
        heavy &= set(sys.modules)
        assert not heavy, heavy
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def test_the_public_api_imports_nothing_heavy(self) -> None:
        heavy = "{'torch', 'numpy', 'megatron', 'transformers'} & set(sys.modules)"
        code = f"import sys, vlconv.converters; heavy = {heavy}; assert not heavy, heavy"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_as_a_module_and_as_a_script(self) -> None:
        assert vlconv("--version").stdout == f"vlconv {__version__}\n"
        script = Path(sys.executable).with_name("vlconv")
        assert (
            subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
            == f"vlconv {__version__}\n"
        )

    def test_no_arguments_show_the_help(self) -> None:
        shown = invoke()
        assert "mcore2hf" in shown.output
        assert shown.exit_code in (0, 2)

    @pytest.mark.parametrize("command", ["mcore2hf", "hf2mcore", "verify"])
    def test_every_option_is_legible_in_80_columns(self, command: str) -> None:
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
        assert shown.exit_code == 0
        assert "--make-vocab-size-divisible-by" in shown.output
        assert "Examples" in shown.output
        assert max(map(len, shown.output.splitlines())) <= 80

    def test_paragraphs_are_folded_to_the_terminal(self) -> None:
        """Not where a source line happens to end."""
        shown = CliRunner().invoke(app, ["hf2mcore", "--help"], env={"COLUMNS": "80", "TERM": "dumb"}).output
        assert "so that the way back needs no --reference." in shown


class TestParsed:
    def test_defaults_are_those_of_the_options(self, called: list[Any]) -> None:
        invoke("mcore2hf", "m", "h")
        invoke("hf2mcore", "h", "m")
        invoke("verify", "a")
        assert called == [
            ("mcore2hf", Path("m"), Path("h"), converters.Mcore2HfOptions()),
            ("hf2mcore", "h", Path("m"), converters.Hf2McoreOptions()),
            ("verify", "a", None, converters.VerifyOptions()),
        ]

    def test_what_a_checkpoint_does_not_hold(self, called: list[Any]) -> None:
        invoke("mcore2hf", "m", "h", "--mtp", "carry", "--carry", "model.visual.", "--carry", "talker.")
        invoke("verify", "m", "h", "--mtp", "drop", "--carry", "talker.")
        invoke("hf2mcore", "h", "m", "--mtp", "require")
        assert [call[-1] for call in called] == [
            converters.Mcore2HfOptions(mtp="carry", carry=("model.visual.", "talker.")),
            converters.VerifyOptions(mtp="drop", carry=("talker.",)),
            converters.Hf2McoreOptions(mtp="require"),
        ]
        refused = invoke("hf2mcore", "h", "m", "--mtp", "carry")
        assert refused.exit_code == 2 and len(called) == 3

    def test_mcore2hf(self, called: list[Any]) -> None:
        text = "mcore2hf m h --reference r --revision v --iteration 0 --layout pai --dtype BF16"
        text += " --make-vocab-size-divisible-by 8 --max-shard-size 2GiB"
        invoke(
            *text.split(),
            *[
                "--trust-reference",
                "--experts",
                "per-expert",
                "--hf-names",
                "new",
                "--overwrite",
                "--dry-run",
                "--strict",
                "--threads",
                "3",
            ],
        )
        assert called[0][-1] == converters.Mcore2HfOptions(
            reference="r",
            revision="v",
            iteration=0,
            layout="pai",
            dtype="bfloat16",
            make_vocab_size_divisible_by=8,
            max_shard_size=2 << 30,
            trust_reference=True,
            experts="per-expert",
            hf_names="new",
            overwrite=True,
            dry_run=True,
            strict=True,
            threads=3,
        )

    def test_hf2mcore(self, called: list[Any]) -> None:
        text = "hf2mcore h m --as-layout pai --make-vocab-size-divisible-by 8 --dtype float32 --as-iteration 7"
        text += " --experts-form transformers-5 --overwrite"
        invoke(*text.split(), *["--dry-run", "--strict", "--threads", "1"])
        assert called[0][-1] == converters.Hf2McoreOptions(
            as_layout="pai",
            make_vocab_size_divisible_by=8,
            dtype="float32",
            as_iteration=7,
            experts_form="transformers-5",
            overwrite=True,
            dry_run=True,
            strict=True,
            threads=1,
        )

    def test_verify(self, called: list[Any]) -> None:
        text = "verify a b --reference r --reference s --revision v --iteration 1 --layout pai"
        text += " --make-vocab-size-divisible-by 8 --experts-form hub"
        invoke(
            *text.split(),
            *[
                "--witness",
                "transformers",
                "--on-disk",
                "d",
                "--values",
                "--trust-reference",
                "--dry-run",
                "--threads",
                "2",
            ],
        )
        assert called[0][1:] == (
            "a",
            "b",
            converters.VerifyOptions(
                references=("r", "s"),
                revision="v",
                iteration=1,
                layout="pai",
                make_vocab_size_divisible_by=8,
                experts_form="hub",
                witness="transformers",
                on_disk=Path("d"),
                values=True,
                trust_reference=True,
                dry_run=True,
                threads=2,
            ),
        )

    @pytest.mark.parametrize("args", ["a --on-disk", "a --on-disk --values", "--on-disk --values a"])
    def test_on_disk_without_a_directory_is_beside_a(self, called: list[Any], args: str) -> None:
        assert invoke("verify", *args.split()).exit_code == 0
        assert called[0][-1].on_disk == Path.cwd()

    @pytest.mark.parametrize(
        ("text", "size"), [("5GB", 5 * 10**9), ("500mb", 5 * 10**8), ("1.5 kB", 1500), ("1000B", 1000), ("1KiB", 1024)]
    )
    def test_sizes(self, called: list[Any], text: str, size: int) -> None:
        invoke("mcore2hf", "m", "h", "--max-shard-size", text)
        assert called[0][-1].max_shard_size == size

    @pytest.mark.parametrize(
        "args",
        [
            "mcore2hf m",
            "mcore2hf m h x",
            "mcore2hf m h --dtype int8",
            "mcore2hf m h --max-shard-size 5XB",
            "mcore2hf m h --max-shard-size 0",
            "mcore2hf m h --max-shard-size 2",
            "mcore2hf m h --memory 2",
            "mcore2hf m h --experts stacked",
            "mcore2hf m h --threads 0",
            "mcore2hf m h --iteration -1",
            "hf2mcore h m --make-vocab-size-divisible-by none",
            "verify a --witness me",
            "verify --on-disk a",
            "examine a",
        ],
    )
    def test_wrong_usage_is_2_and_calls_nothing(self, called: list[Any], args: str) -> None:
        assert invoke(*args.split()).exit_code == 2
        assert called == []


class TestExit:
    @pytest.mark.parametrize(
        ("status", "code"), [("done", 0), ("planned", 0), ("same", 0), ("different", 1), ("not comparable", 3)]
    )
    def test_of_a_report(self, monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
        stub(monkeypatch, converters.Report("verify", status))
        shown = invoke("verify", "a", "--json")
        assert shown.exit_code == code
        assert json.loads(shown.stdout)["status"] == status

    @pytest.mark.parametrize(
        ("fault", "code", "status"),
        [
            (converters.VlconvError("it is broken", "mend it"), 1, "error"),
            (converters.errors.NotComparable("apples and pears", "compare apples"), 3, "not comparable"),
            (PermissionError(13, "Permission denied", "weights"), 1, "error"),
            (MemoryError(), 1, "error"),
            (KeyError("surprise"), 1, "error"),
            (KeyboardInterrupt(), 130, "interrupted"),
        ],
    )
    def test_of_a_fault(self, monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int, status: str) -> None:
        stub(monkeypatch, fault)
        shown = invoke("verify", "a", "--json")
        assert shown.exit_code == code
        assert json.loads(shown.stdout)["status"] == status
        assert shown.stderr.startswith(f"{status}: ")
        assert "Traceback" not in shown.stderr

    def test_a_refusal_is_two_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stub(monkeypatch, converters.VlconvError("it is broken", "mend it"))
        shown = invoke("mcore2hf", "m", "h")
        assert (shown.stdout, shown.stderr) == ("", "error: it is broken\n  mend it\n")

    def test_debug_shows_where(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stub(monkeypatch, KeyError("surprise"))
        assert "Traceback" in invoke("mcore2hf", "m", "h", "--debug").stderr

    def test_an_os_error_names_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stub(monkeypatch, PermissionError(13, "Permission denied", "weights"))
        assert "weights: Permission denied" in invoke("mcore2hf", "m", "h").stderr

    def test_an_os_error_that_knows_no_file_is_no_fault_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stub(monkeypatch, OSError(5, "Input/output error"))
        said = invoke("mcore2hf", "m", "h").stderr
        assert "the system reports: Input/output error" in said and "dmesg" in said and "fault of vlconv" not in said


class TestStreams:
    def test_json_is_all_of_stdout(self, called: list[Any]) -> None:
        shown = invoke("mcore2hf", "m", "h", "--json")
        assert json.loads(shown.stdout)["facts"] == {"model": "Qwen3-VL"}
        assert "a library talks" in shown.stderr

    def test_people_read_stdout(self, called: list[Any]) -> None:
        shown = invoke("mcore2hf", "m", "h")
        assert "mcore2hf: done" in shown.stdout
        assert "Qwen3-VL" in shown.stdout

    def test_quiet_is_quiet(self, called: list[Any]) -> None:
        assert invoke("mcore2hf", "m", "h", "--quiet").stdout == ""


WRITER = """
import sys, time
from pathlib import Path
from vlconv import __main__, converters
from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.replaceable import HF_MODEL
from vlconv.converters.output.target import Target

def slow(source, target, options, observer):
    with OutputDirectory(Target(path=target, kind=HF_MODEL), [source]) as new:
        (new / "half").touch()
        print("ready", flush=True)
        time.sleep(60)

converters.mcore2hf = slow
sys.argv = ["vlconv", "mcore2hf", "m", sys.argv[1]]
__main__.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out")], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stderr is not None
    assert run.stderr.readline() == "ready\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]
    run.send_signal(number)
    _, said = run.communicate(timeout=30)
    assert run.returncode == code
    assert list(tmp_path.iterdir()) == []
    word = "Ctrl-C" if number == signal.SIGINT else number.name
    assert said.startswith(f"interrupted: {word} ended it\n") and said.count("interrupted") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(("quiet", "bars"), [([], None), (["-q"], "1")])
def test_quiet_takes_the_bars_of_downloads_away(
    monkeypatch: pytest.MonkeyPatch, quiet: list[str], bars: str | None
) -> None:
    seen: list[str | None] = []

    def function(*args: Any) -> converters.Report:
        seen.append(os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"))
        return converters.Report("hf2mcore", "done")

    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")  # set back after the test
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    monkeypatch.setattr(converters, "hf2mcore", function)
    invoke("hf2mcore", "Org/Model", "out", *quiet)
    assert seen == [bars]
