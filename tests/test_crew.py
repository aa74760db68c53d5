"""Jobs that several threads do: how many at a time, what ends them, and that nobody is at work afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from stepping import signal_at

from vlconv.converters.crew import Job, share
from vlconv.converters.signals import NUMBERS


class Broken(Exception):
    pass


def nothing() -> None:
    pass


def alone() -> bool:
    """Whether no thread of ours is left."""
    return threading.active_count() == 1


@pytest.fixture(autouse=True)
def nobody_stays() -> Iterator[None]:
    assert alone()
    yield
    assert alone()


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_each_is_done_once(threads: int) -> None:
    done: list[int] = []
    share((partial(done.append, n) for n in range(500)), threads, nothing)
    assert sorted(done) == list(range(500))


def test_so_many_at_a_time() -> None:
    """Each waits for the two others."""
    together = threading.Barrier(3, timeout=20)
    share([together.wait] * 6, 3, nothing)


def test_none_is_made_before_a_thread_is_free() -> None:
    made, begun = [0], [0]

    def jobs() -> Iterator[Job]:
        for _ in range(50):
            made[0] += 1
            yield job

    def job() -> None:
        begun[0] += 1
        assert made[0] <= begun[0] + 1

    share(jobs(), 2, nothing)
    assert made == begun == [50]


def test_they_are_made_one_after_the_other() -> None:
    """A generator runs in one thread at a time."""

    def jobs() -> Iterator[Job]:
        for _ in range(20):
            threading.Event().wait(0.001)
            yield nothing

    share(jobs(), 4, nothing)


def test_none_at_all() -> None:
    share([], 2, nothing)


def test_is_watched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlconv.converters.crew.EVERY", 0.001)
    seen, done, on = list[int](), list[int](), threading.Event()

    def watch() -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append(len(done))
        if len(seen) == 3:
            on.set()

    def job(number: int) -> None:
        assert on.wait(20)
        done.append(number)

    share((partial(job, n) for n in range(20)), 2, watch)
    assert seen[:3] == [0, 0, 0] and seen[-1] == 20


def test_what_was_done_since_it_was_watched_last_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads are gone before anybody looks."""
    monkeypatch.setattr(threading.Thread, "is_alive", lambda self: False)
    seen, done = list[int](), list[int]()
    share((partial(done.append, n) for n in range(20)), 2, lambda: seen.append(len(done)))
    assert seen == [20]


class TestEnded:
    """By whatever is raised: what was begun is over before, nothing is begun after."""

    def ended(self, fault: type[BaseException], jobs: Iterator[Job], watch: Job = nothing) -> None:
        with pytest.raises(fault):
            share(jobs, 2, watch)
        assert alone()

    def test_by_a_job(self) -> None:
        begun: list[int] = []
        other, over = threading.Event(), list[bool]()

        def slow() -> None:
            other.set()
            threading.Event().wait(0.05)
            over.append(True)

        def broken() -> None:
            other.wait(20)
            raise Broken

        self.ended(Broken, iter([slow, broken, *(partial(begun.append, n) for n in range(1000))]))
        assert over == [True] and not begun

    def test_by_what_makes_them(self) -> None:
        def jobs() -> Iterator[Job]:
            yield nothing
            raise Broken

        self.ended(Broken, jobs())

    def test_by_who_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vlconv.converters.crew.EVERY", 0.001)
        begun, forever = [0], threading.Event()

        def job() -> None:
            begun[0] += 1
            forever.wait(0.02)

        def watch() -> None:
            raise Broken

        self.ended(Broken, iter([job] * 10_000), watch)
        assert begun[0] < 100

    def test_by_a_thread_that_cannot_begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start, begun = threading.Thread.start, list[threading.Thread]()

        def limited(self: threading.Thread) -> None:
            if begun:
                raise RuntimeError("can't start new thread")
            begun.append(self)
            start(self)

        monkeypatch.setattr(threading.Thread, "start", limited)
        self.ended(RuntimeError, iter([nothing] * 10))

    def test_the_first_fault_is_told(self) -> None:
        second = threading.Event()

        def first() -> None:
            raise Broken

        def later() -> None:
            second.wait(0.05)
            raise KeyError

        self.ended(Broken, iter([later, first]))

    @pytest.mark.parametrize("number", NUMBERS)
    def test_by_a_signal(self, number: signal.Signals) -> None:
        """While all threads are busy."""

        def come(number: int, frame: object) -> None:
            raise Broken

        before = signal.signal(number, come)
        try:
            sent, forever = threading.Event(), threading.Event()

            def job() -> None:
                if not sent.is_set():
                    sent.set()
                    os.kill(os.getpid(), number)
                forever.wait(0.02)

            self.ended(Broken, iter([job] * 1000))
        finally:
            signal.signal(number, before)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # one that comes while an object is freed
def test_a_signal_at_any_step(every: int) -> None:
    def come(number: int, frame: object) -> None:
        raise Broken

    before, at, more, ended = signal.signal(signal.SIGTERM, come), 1, True, 0
    try:
        while more:
            try:
                more = signal_at(signal.SIGTERM, at, lambda: share([nothing] * 5, 2, nothing))
            except Broken:
                ended += 1
            for thread in threading.enumerate():  # one whose last moment it was is still on its way out
                if thread is not threading.main_thread():
                    thread.join(20)
            assert alone(), at
            at += every
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended > 50 // every
