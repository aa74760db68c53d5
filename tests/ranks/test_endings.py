"""A process that fails, is killed or is sent a signal: all end within seconds, one says why, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from at_work import Work, nothing, soon
from killing import kill_when_finished, tree
from processes import Prepare, run
from refusing import flip

from vlconv.converters import Mcore2HfOptions, mcore2hf
from vlconv.converters.output.writing import shares
from vlconv.converters.ranks.line import Line
from vlconv.converters.ranks.words import Failed, Signalled

SAMPLED = 2

HOST = socket.gethostname()


def only(rank: int, what: Callable[[], object]) -> Prepare:
    """What happens in one process alone."""
    return lambda number: what() if number == rank else None


class TestKilled:
    def test_it_is_named_by_the_first_process_alone(self, work: Work) -> None:
        job = work.begin(4)
        job.kill(2)
        ended = soon(job)
        said = f"error: rank 2 on {HOST} ended without a word: it was killed, or had not enough memory\n"
        assert said in ended[0].said and ended[0].said.count("error") == 1
        assert [one.code for one in ended] == [1, 1, -9, 1]
        assert [one.said for one in ended[1:]] == [""] * 3
        assert work.left() == []

    @pytest.mark.parametrize("first", [0, 1])
    def test_also_where_the_launcher_then_ends_all(self, work: Work, first: int) -> None:
        """As torchrun does, within a tenth of a second."""
        job = work.begin(3)
        job.kill(2)
        for rank in (first, 1 - first):
            job.kill(rank, signal.SIGTERM)
        ended = soon(job)
        assert f"error: rank 2 on {HOST} ended without a word" in ended[0].said and "SIGTERM" not in ended[0].said
        assert ended[0].code == 1 and ended[1].code and ended[1].said == ""
        assert work.left() == []

    def test_the_first_process(self, work: Work) -> None:
        """Nobody clears away, as after any kill; the next run does."""
        job = work.begin(3)
        job.kill(0)
        ended = soon(job)
        assert [one.code for one in ended] == [-9, 1, 1]
        assert ended[1].said == f"error: rank 1: rank 0 on {HOST} is gone, and all stop\n"
        assert ended[2].said == ""
        assert work.left() == ["out.partial"]
        mcore2hf(work.source, work.target)
        assert work.left() == ["out"]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_what_has_started_one(self, work: Work, rank: int) -> None:
        """It would work on, without anyone to hear how it ends."""
        parent = os.getpid()

        def orphaned() -> None:
            os.getppid = lambda: 1 if work.begun() else parent

        ended = soon(work.begin(2, only(rank, orphaned), TORCHELASTIC_RUN_ID="none"))
        assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
        assert "error: the launcher that has started this process is gone: it was killed" in ended[0].said
        assert (f"That was rank 1 on {HOST}." in ended[0].said) == bool(rank)
        assert work.left() == []


class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
    def test_to_all(self, work: Work, number: signal.Signals, code: int) -> None:
        """Ctrl-C in a terminal, or a scheduler."""
        job = work.begin(3)
        for rank in (1, 2, 0):
            job.kill(rank, number)
        ended = soon(job)
        assert ended[0].code == code and all(one.code for one in ended)
        word = {signal.SIGINT: "Ctrl-C ended it", signal.SIGTERM: "SIGTERM ended it"}[number]
        assert f"interrupted: {word}\n  Nothing was left behind.\n" in ended[0].said
        assert [one.said for one in ended[1:]] == [""] * 2
        assert work.left() == []

    def test_to_the_first_process(self, work: Work) -> None:
        job = work.begin(2)
        job.kill(0, signal.SIGTERM)
        ended = soon(job)
        assert [one.code for one in ended] == [143, 1]
        assert "interrupted: SIGTERM ended it" in ended[0].said and ended[1].said == ""
        assert work.left() == []

    def test_to_another(self, work: Work) -> None:
        job = work.begin(2)
        job.kill(1, signal.SIGTERM)
        ended = soon(job)
        assert ended[0].code == 1 and ended[1].code
        assert f"error: rank 1 on {HOST} was ended by SIGTERM\n" in ended[0].said and ended[1].said == ""
        assert work.left() == []


def failing(name: str, code: int) -> None:
    """From now on a call of the system fails once the process does its share."""
    look = shares.Fill._look

    def looking(self: Any) -> None:
        look(self)
        setattr(os, name, partial(_fail, code))

    shares.Fill._look = looking  # type: ignore[method-assign]


def _fail(code: int, *args: object) -> Any:
    raise OSError(code, os.strerror(code))


def refused(work: Work, prepare: Prepare = nothing) -> str:
    """What a run says that all end for an error of one of them."""
    ended = work.run(2, prepare)
    assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
    assert work.left() == []
    assert ended[0].said.count("error: ") == 1 and "Traceback" not in ended[0].said
    return ended[0].said[ended[0].said.index("error: ") :]


def killed_at(kind: type[Signalled] | type[Failed], *, midst: bool = False) -> None:
    """This process is killed as soon as rank 0 has such a word of it, or half of it."""
    import torch.distributed.distributed_c10d as inside

    send, send_part = Line.send, inside.send

    def sending(self: Line, to: int, message: object) -> None:
        if midst and isinstance(message, kind):
            inside.send = lambda *args, **how: (send_part(*args, **how), os.kill(os.getpid(), signal.SIGKILL))
        send(self, to, message)
        if isinstance(message, kind):
            os.kill(os.getpid(), signal.SIGKILL)

    Line.send = sending  # type: ignore[method-assign]


class TestKilledOnceItHasSaidWhy:
    """As launchers do that wait but a moment."""

    @pytest.mark.parametrize("midst", [False, True])
    def test_of_a_signal_to_it(self, work: Work, midst: bool) -> None:
        job = work.begin(3, only(2, lambda: killed_at(Signalled, midst=midst)))
        job.kill(2, signal.SIGTERM)
        ended = soon(job)
        assert [one.code for one in ended] == [1, 1, -9] and ended[1].said == ""
        how = "ended without a word: it was killed, or had not enough memory" if midst else "was ended by SIGTERM"
        assert f"error: rank 2 on {HOST} {how}\n" in ended[0].said and ended[0].said.count("error") == 1
        assert work.left() == []

    @pytest.mark.parametrize("order", [(0, 2), (2, 0)])
    def test_of_a_signal_to_all(self, work: Work, order: tuple[int, int]) -> None:
        job = work.begin(3, only(2, lambda: killed_at(Signalled)))
        for rank in (*order, 1):
            job.kill(rank, signal.SIGTERM)
        ended = soon(job)
        assert (ended[0].code, ended[2].code) == (143, -9) and ended[1].code
        assert "interrupted: SIGTERM ended it\n  Nothing was left behind.\n" in ended[0].said
        assert [one.said for one in ended[1:]] == ["", ""]
        assert work.left() == []

    def test_of_an_error(self, work: Work) -> None:
        def both() -> None:
            failing("preadv", errno.EIO)
            killed_at(Failed)

        ended = work.run(2, only(1, both))
        assert [one.code for one in ended] == [1, -9]
        assert "__0_0.distcp cannot be read: Input/output error\n" in ended[0].said
        assert f"That was rank 1 on {HOST}." in ended[0].said and ended[0].said.count("error: ") == 1
        assert work.left() == []


class TestErrors:
    def test_a_source_that_cannot_be_read_on_one_host(self, work: Work) -> None:
        said = refused(work, only(1, lambda: failing("preadv", errno.EIO)))
        assert f"{work.source}/release/__0_0.distcp cannot be read: Input/output error\n" in said
        assert f"see dmesg, and copy the file elsewhere. That was rank 1 on {HOST}.\n" in said

    def test_a_disk_that_is_full_for_one(self, work: Work) -> None:
        said = refused(work, only(1, lambda: failing("pwrite", errno.ENOSPC)))
        assert f"{work.target} cannot be written: the disk is full\n" in said and "Free some room" in said

    def test_what_was_written_cannot_be_brought_to_disk(self, work: Work) -> None:
        said = refused(work, only(1, lambda: failing("fsync", errno.EIO)))
        assert "model.safetensors cannot be written: Input/output error\n" in said and f"rank 1 on {HOST}" in said

    def test_a_fault_of_the_program(self, work: Work) -> None:
        def broken(*args: object) -> None:
            raise ZeroDivisionError("by nothing")

        def breaks() -> None:
            shares.Fill._look = broken  # type: ignore[method-assign,assignment]

        said = refused(work, only(1, breaks))
        assert "error: RuntimeError: ZeroDivisionError: by nothing\n" in said and "This is a fault of vlconv." in said

    def test_a_file_system_that_one_host_does_not_share(self, work: Work) -> None:
        is_dir = Path.is_dir

        def blind() -> None:
            Path.is_dir = lambda self, **how: self.name != "new" and is_dir(self, **how)  # type: ignore[assignment,method-assign]

        said = refused(work, only(1, blind))
        assert "out.partial/new, which rank 0 has made, is not there\n" in said
        assert f"on a file system that all hosts share, under the same paths. That was rank 1 on {HOST}." in said

    def test_a_source_that_changes(self, work: Work, tmp_path: Path, source: Path) -> None:
        work.source = Path(shutil.copytree(source, tmp_path / "changing"))
        data = work.source / "release/__0_0.distcp"
        look = shares.Fill._look

        def looking(self: Any) -> None:
            look(self)
            with data.open("ab") as file:
                file.write(b"more")

        def changes() -> None:
            shares.Fill._look = looking  # type: ignore[method-assign]

        said = refused(work, only(1, changes))
        assert f"{data} changed while it was read: it has" in said

    def test_damage_is_told_of_what_several_have_read(self, work: Work, tmp_path: Path, source: Path) -> None:
        work.source = Path(shutil.copytree(source, tmp_path / "damaged"))
        flip(work.source / "release/__0_0.distcp", 8 * 200_000)
        assert "__0_0.distcp" in (said := refused(work)) and "are damaged: CRC-32" in said


def test_the_next_run_goes_on_with_what_was_finished(source: Path, tmp_path: Path) -> None:
    """Files that are sealed when the first process is killed are kept, whichever way the next run goes."""
    args = ["mcore2hf", source, tmp_path / "out", "--max-shard-size", "60kB", "--threads", "2"]

    def killed(rank: int) -> None:
        kill_when_finished(4)

    for size in (2, 3):
        assert run(args, size, killed)[0].code == -9
    ended = run(args, 2)
    assert ended[0].code == 0 and "resumes" in ended[0].said and "8 files" in ended[0].said
    mcore2hf(source, tmp_path / "whole", Mcore2HfOptions(max_shard_size=60_000))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
