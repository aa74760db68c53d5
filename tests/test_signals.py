"""Signals that wait: none is lost, and the handlers are as before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest
from stepping import signal_at

from vlconv.converters.signals import Waiting

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Came(BaseException):
    pass


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Each of the three raises, as Python's own handler of SIGINT does."""

    def come(number: int, frame: FrameType | None) -> None:
        raise Came(number)

    before = {number: signal.signal(number, come) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_one_that_comes_waits(number: signal.Signals) -> None:
    handlers, steps = [signal.getsignal(n) for n in NUMBERS], []
    with pytest.raises(Came) as caught, Waiting():
        signal.raise_signal(number)
        steps.append("first")
        signal.raise_signal(number)
        steps.append("second")
    assert caught.value.args == (number,)
    assert steps == ["first", "second"]
    assert [signal.getsignal(n) for n in NUMBERS] == handlers


def test_none_comes() -> None:
    handlers = [signal.getsignal(n) for n in NUMBERS]
    with Waiting():
        assert not {signal.getsignal(n) for n in NUMBERS} & set(handlers)
    assert [signal.getsignal(n) for n in NUMBERS] == handlers


def test_handlers_come_back_when_all_three_come() -> None:
    handlers = [signal.getsignal(n) for n in NUMBERS]
    with pytest.raises(Came), Waiting():
        for number in NUMBERS:
            signal.raise_signal(number)
    assert [signal.getsignal(n) for n in NUMBERS] == handlers


def test_a_fault_and_a_signal() -> None:
    with pytest.raises(Came) as caught, Waiting():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the fault")
    assert str(caught.value.__context__) == "the fault"


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_the_systems_own_handlers_stay(handler: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, handler)
    with Waiting():
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_another_thread_changes_no_handler() -> None:
    seen = []

    def work() -> None:
        with Waiting():
            seen.extend(signal.getsignal(n) for n in NUMBERS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(n) for n in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_one_at_every_step_of_the_way_in_and_out(number: signal.Signals) -> None:
    """Wherever it comes, it comes through once, the handlers are as before, and the block is whole or not begun."""
    handlers, blocks, at = [signal.getsignal(n) for n in NUMBERS], [], 0

    def run() -> None:
        with Waiting():
            blocks[-1].append("begun")
            blocks[-1].append("ended")

    more = True
    while more:
        at += 1
        blocks.append([])
        try:
            more = signal_at(number, at, run)
            assert not more, "lost"
        except Came:
            pass
        assert [signal.getsignal(n) for n in NUMBERS] == handlers
    assert at > 20
    assert {tuple(block) for block in blocks} == {(), ("begun", "ended")}
