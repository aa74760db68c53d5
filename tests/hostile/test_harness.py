"""The harness sees what it is there to see: planted faults, one of each kind; and good sources come out good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hostile.bases import BASES, PEFT
from hostile.case import Case, Work, equal, refused
from hostile.running import Corpus, Ran, arguments, environment, judge, snapshot, whole_process
from hostile.table import CASES


@pytest.mark.parametrize("base", [base for base in BASES if base != PEFT])  # whose own cases have a good one
def test_a_good_source_comes_out_good(corpus: Corpus, base: str) -> None:
    assert corpus.faults(Case("good", base, lambda work: None, equal())) == []


def test_there_are_many_cases_of_distinct_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 1000
    assert sum(not case.slow for case in CASES) > 150


class TestWholeProcesses:
    """A fork of a warm process behaves as an interpreter of its own does."""

    NAMES = (
        "pickles: posix.system beside the tables of .metadata (dist)",
        "zips: half of it, a tensor's item (dist)",
        "data files: gone (legacy)",
        "config.json: NaN (hf)",
        "directories: nothing (hf)",
    )

    @pytest.mark.parametrize("number", range(len(NAMES)))
    def test_says_the_same(self, corpus: Corpus, tmp_path: Path, number: int) -> None:
        wanted = self.NAMES[number].replace("config.json: NaN", "config.json: rope_theta: NaN")
        case = next(c for c in CASES if c.name == wanted)
        ran = []
        for run in (whole_process, corpus.nursery.run):
            shutil.rmtree(tmp_path / "work", ignore_errors=True)
            (tmp_path / "work").mkdir()
            work = corpus.bases.work(case.base, tmp_path / "work")
            case.damage(work)
            before = snapshot(work.source)
            ran.append(run(arguments(case, work), work))
            assert judge(ran[-1], work, case.base, case.expected, before) == []
        assert (ran[0].code, ran[0].stdout, ran[0].stderr) == (ran[1].code, ran[1].stdout, ran[1].stderr)


class TestPlanted:
    """Faults that a run might have, planted after a good refusal."""

    SAID = "error: x.pt is damaged\n  Take another copy.\n"

    def judged(self, corpus: Corpus, tmp_path: Path, plant: object, **ran: object) -> str:
        work = corpus.bases.work("hf", tmp_path)
        before = snapshot(work.source)
        if callable(plant):
            plant(work)
        come = Ran(
            **{"code": 1, "hung": False, "wall": 1, "cpu": 1, "memory": 0, "orphans": 0, "stderr": self.SAID, **ran}
        )
        return "\n".join(judge(come, work, "hf", refused("x.pt"), before))

    def test_nothing(self, corpus: Corpus, tmp_path: Path) -> None:
        assert self.judged(corpus, tmp_path, None) == ""

    @pytest.mark.parametrize(
        ("fault", "ran"),
        [
            ("hung: ", {"hung": True}),
            ("slow: ", {"cpu": 11}),
            ("memory: ", {"memory": 701 << 20}),
            ("orphans: 1", {"orphans": 1}),
            ("died: exit code -11", {"code": -11}),
            ("outcome: exit code 2", {"code": 2}),
            ("unsaid: 'x.pt'", {"stderr": "error: something\n  Do something.\n"}),
            ("text: no hint", {"stderr": "error: x.pt\n"}),
            ("text: 2 lines", {"stderr": "error: x.pt\nerror: y\n  z\n"}),
            ("text: acts on a terminal", {"stderr": "error: x.pt \x1b[2J\n  z\n"}),
            ("text: 30014 characters", {"stderr": "error: x.pt\n  " + "z" * 30_000}),
            ("traceback", {"stderr": SAID + "Traceback (most recent call last):\n  x"}),
            ("executed: the environment", {"stdout": "not-for-anyone-4711"}),
            ("outcome: done", {"code": 0}),
        ],
    )
    def test_is_seen_in_what_came(self, corpus: Corpus, tmp_path: Path, fault: str, ran: dict[str, object]) -> None:
        assert fault in self.judged(corpus, tmp_path, None, **ran)

    @pytest.mark.parametrize(
        ("fault", "plant"),
        [
            ("executed: the canary", lambda work: (work.canary / "ran").touch()),
            ("executed: the canary", lambda work: (work.canary / "alive").unlink()),
            ("leftover: ['x']", lambda work: (work.temporary / "x").touch()),
            ("leftover: ['out']", lambda work: work.out.mkdir()),
            ("leftover: ['.out.partial']", lambda work: (work.target / ".out.partial").mkdir()),
            ("source: changed", lambda work: (work.source / "config.json").touch()),
            ("source: changed", lambda work: (work.source / "new").touch()),
        ],
    )
    def test_is_seen_on_disk(self, corpus: Corpus, tmp_path: Path, fault: str, plant: object) -> None:
        assert fault in self.judged(corpus, tmp_path, plant)

    def test_another_model_is_seen(self, corpus: Corpus, tmp_path: Path) -> None:
        """The good output of one model is no output of another."""
        work = corpus.bases.work("hf", tmp_path)
        ran = corpus.nursery.run(["hf2mcore", str(work.source), str(work.out)], work)
        before = snapshot(work.source)
        assert judge(ran, work, "hf", equal(), before) == []
        assert "silent: " in "\n".join(judge(ran, work, "tied", equal(), before))
        with next((work.out / "release").glob("*.distcp")).open("r+b") as file:
            file.seek(100_000)
            byte = file.read(1)
            file.seek(100_000)
            file.write(bytes([byte[0] ^ 1]))
        assert "silent: " in "\n".join(judge(ran, work, "hf", equal(), before))


@pytest.mark.slow
class TestNursery:
    """What a command does to the machine is seen: a stand-in for the console script does it."""

    def ran(self, tmp_path: Path, code: str, wall: float = 60) -> Ran:
        from hostile.running import Nursery

        (tmp_path / "site").mkdir()
        planted = f"import vlconv.app\ndef main():\n    {code}\nvlconv.app.main = main\n"
        (tmp_path / "site" / "planted.py").write_text(planted)
        work = Work(tmp_path)
        start = "import sys; sys.path.insert(0, sys.argv[1]); import planted, hostile.nursery as n; n.main()"
        nursery = Nursery(["-c", start, str(tmp_path / "site")])
        try:
            return nursery.run([], work, wall)
        finally:
            nursery.stop()

    def test_memory_of_descendants(self, tmp_path: Path) -> None:
        eat = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytes(range(256)) * (4 << 20)'])"
        assert 500 << 20 < self.ran(tmp_path, eat).memory < 3 << 30

    def test_memory(self, tmp_path: Path) -> None:
        assert 900 << 20 < self.ran(tmp_path, "x = bytes(range(256)) * (4 << 20)").memory < 3 << 30

    def test_time_of_descendants(self, tmp_path: Path) -> None:
        work = "while time.process_time() < 1: pass"
        burn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time\\n{work}'])"
        assert self.ran(tmp_path, burn).cpu > 0.9

    def test_a_hang(self, tmp_path: Path) -> None:
        assert self.ran(tmp_path, "import time; time.sleep(60)", wall=2).hung

    def test_a_death(self, tmp_path: Path) -> None:
        assert self.ran(tmp_path, "import os; os.kill(os.getpid(), 11)").code == -11

    def test_a_process_left_behind(self, tmp_path: Path) -> None:
        left = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"
        assert self.ran(tmp_path, left).orphans == 1

    def test_what_it_prints_and_how_it_ends(self, tmp_path: Path) -> None:
        ran = self.ran(tmp_path, "import os, sys; print(os.environ['VLCONV_SECRET']); sys.exit(3)")
        assert (ran.code, ran.stdout.strip()) == (3, environment(Work(tmp_path))["VLCONV_SECRET"])
