"""The process that a model runs in: what it says, and what becomes of it and of its files however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config, write_tiny_hf

from vlconv import NotComparable
from vlconv.converters.verification.forward.child import run_child
from vlconv.converters.verification.forward.serving import saying_what_takes_less
from vlconv.converters.verification.witnesses.foreign import speaking_for

PROGRAM = """
import os, signal, sys, time
from vlconv.converters.errors import NotComparable
from vlconv.converters.verification.forward.serving import serve

def work(asked, stdin):
    {body}

serve(work)
"""


def asked(folder: Path, body: str, feed: Callable[[Any], object] | None = None) -> dict[str, Any]:
    """What a module answers whose work is `body`."""
    (folder / "a_child.py").write_text(PROGRAM.replace("{body}", body))
    write = feed or (lambda stdin: stdin.write(json.dumps({"x": 2}).encode() + b"\nmore"))
    return run_child("a_child", write, does="counts", environment={"PYTHONPATH": str(folder)})


def test_it_answers(tmp_path: Path) -> None:
    body = 'print("noise"); os.system("echo louder noise"); return {"x": asked["x"] + 1, "more": stdin.read().decode()}'
    assert asked(tmp_path, body) == {"x": 3, "more": "more"}


def test_no_float32_is_cut_short_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's containers ask for TF32 by an environment variable."""
    names = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert asked(tmp_path, f"return {{n: os.environ[n] for n in {names}}}") == dict.fromkeys(names, "0")


def test_a_refusal_is_handed_on(tmp_path: Path) -> None:
    with pytest.raises(NotComparable) as fault:
        asked(tmp_path, 'raise NotComparable("it is \\x1b[31m wrong", "do that")')
    assert (fault.value.what, fault.value.hint) == ("it is \\x1b[31m wrong", "do that")


class OutOfMemoryError(RuntimeError):
    """As torch has it of a GPU."""


@pytest.mark.parametrize("fault", [MemoryError(), OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_memory_that_runs_out_says_what_takes_less(fault: Exception) -> None:
    with (
        pytest.raises(NotComparable, match=r"memory ran out while the model was run\nWith --layers N"),
        speaking_for("torch", "--forward"),
        saying_what_takes_less(),
    ):
        raise fault


def test_other_faults_stay_the_librarys() -> None:
    with (
        pytest.raises(NotComparable, match="does not read this: ValueError: no"),
        speaking_for("torch", "--forward"),
        saying_what_takes_less(),
    ):
        raise ValueError("no")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the process that counts was killed: the machine ran out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process that counts crashed: Segmentation fault"),
        ('raise ValueError("no \\x1b such")', r"ended with status 1: ValueError: no \x1b such"),
        ("os._exit(3)", "ended with status 3: it said nothing"),
        ("os._exit(0)", "ended with status 0: it said nothing"),
    ],
)
def test_its_death_is_an_error_of_a_few_lines(tmp_path: Path, body: str, says: str) -> None:
    with pytest.raises(NotComparable) as fault:
        asked(tmp_path, body)
    assert says in fault.value.what and "--layers N" in fault.value.hint


def test_it_may_die_while_it_is_fed(tmp_path: Path) -> None:
    def feed(stdin: Any) -> None:
        stdin.write(b"{}\n")
        for _ in range(1000):
            stdin.write(bytes(1 << 16))

    with pytest.raises(NotComparable, match="was killed"):
        asked(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", feed)


def test_what_it_says_before_it_fails_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "a_child.py").write_text('import sys; print("{}", flush=True); sys.exit(5)')
    with pytest.raises(NotComparable, match="ended with status 5"):
        run_child("a_child", lambda stdin: None, does="counts", environment={"PYTHONPATH": str(tmp_path)})


def test_what_interrupts_the_feeding_ends_it(tmp_path: Path) -> None:
    def feed(stdin: Any) -> None:
        stdin.write(b"{}\n")
        stdin.flush()
        wait_for((tmp_path / "pid").exists)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path, SLEEPS, feed)
    assert gone(int((tmp_path / "pid").read_text())) and time.monotonic() - begin < LONG / 2


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "a_child.py").write_text(PROGRAM.replace("{body}", SLEEPS))
    starts = (
        f"from {run_child.__module__} import run_child\n"
        'run_child("a_child", lambda stdin: (stdin.write(b"{}\\n"), stdin.flush()), does="")'
    )
    with subprocess.Popen([sys.executable, "-c", starts], env=os.environ | {"PYTHONPATH": str(tmp_path)}) as parent:
        wait_for((tmp_path / "pid").exists)
        parent.kill()
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())), LONG / 2)


LONG = 60
READY = "os.rename(f\"{os.environ['PYTHONPATH']}/new\", f\"{os.environ['PYTHONPATH']}/pid\")"


SLEEPS = f"""open(f"{{os.environ['PYTHONPATH']}}/new", "w").write(str(os.getpid())); {READY}; time.sleep({LONG})"""


def wait_for(done: Callable[[], bool], seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """It comes while the child loads transformers; after SIGKILL that ends, too, and the next run clears away."""
    config = tiny_config("qwen3", text={"num_hidden_layers": 1})
    for name in ("a", "b", "place"):
        write_tiny_hf(tmp_path / name, config) if name != "place" else (tmp_path / name).mkdir()
    place = tmp_path / "place"
    command = [sys.executable, "-m", "vlconv", "verify", tmp_path / "a", tmp_path / "b", "--forward"]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        wait_for(lambda: bool(children(run.pid)))
        [child] = children(run.pid)
        assert [path.name.startswith("vlconv-forward-") for path in place.iterdir()] == [True]
        run.send_signal(number)
        said, _ = run.communicate(timeout=60)
    assert run.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], said
    wait_for(lambda: gone(child))
    assert "Traceback" not in said
    assert bool([*place.iterdir()]) == (number == signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_the_command_line_runs_it_in_processes_of_its_own(tmp_path: Path) -> None:
    config = tiny_config("qwen3_vl")
    write_tiny_hf(tmp_path / "a", config)
    write_tiny_hf(tmp_path / "b", config)
    (tmp_path / "place").mkdir()
    config["text_config"]["rope_theta"] = 10000
    write_tiny_hf(tmp_path / "c", config)
    for other, code in (("b", 0), ("c", 1)):
        ran = subprocess.run(
            [sys.executable, "-m", "vlconv", "verify", tmp_path / "a", tmp_path / other, "--forward", "--json"],
            env=os.environ | {"TMPDIR": str(tmp_path / "place")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        parts = json.loads(ran.stdout)["forward"]["parts"]
        assert {part["verdict"] for part in parts.values()} == {"equal" if code == 0 else "different"}
        assert not [*(tmp_path / "place").iterdir()]
