"""How far a command is: which lines come when, and what they say of the time that is left. The clock is a false one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from vlconv import progress
from vlconv.progress import Bar, Lines, Meter, duration, line

GB = 10**9


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


class Log:
    """Lines, and what they wrote."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self.meter = Lines(Console(file=self._out, width=200))

    def new(self) -> list[str]:
        """What was written since this was asked last."""
        lines = self._out.getvalue().splitlines()
        self._out.seek(0)
        self._out.truncate()
        return lines


def going(clock: Clock, meter: Meter, seconds: float, done: Callable[[float], float], total: float) -> None:
    """Let time pass, and tell five times a second how far it is, in GB: `done` of the seconds that passed."""
    begin = clock.now
    for tick in range(1, round(5 * seconds) + 1):
        clock.now = begin + tick / 5
        meter.show(round(done(tick / 5) * GB), round(total * GB))


class TestLines:
    def test_one_when_a_phase_lasts_and_then_every_few_seconds(self, clock: Clock) -> None:
        log = Log()
        log.meter.begin("writing")
        log.meter.show(0, 20 * GB)
        going(clock, log.meter, 12, lambda seconds: seconds, 20)
        assert log.new() == [
            "writing: 1.0 GB of 20.0 GB (5 %), 1.0 GB/s, 19 s left",
            "writing: 6.0 GB of 20.0 GB (30 %), 1.0 GB/s, 14 s left",
            "writing: 11.0 GB of 20.0 GB (55 %), 1.0 GB/s, 9.0 s left",
        ]

    def test_none_of_a_phase_that_does_not_last(self, clock: Clock) -> None:
        log = Log()
        for phase in ("checking sums", "writing", "bringing to disk"):
            log.meter.begin(phase)
            log.meter.show(0, GB)
            going(clock, log.meter, 0.8, lambda seconds: seconds, 1)
        assert log.new() == []

    def test_what_is_left_is_of_the_last_seconds(self, clock: Clock) -> None:
        """An hour at 1 GB/s says nothing of a disk that has become slow."""
        log = Log()
        log.meter.show(0, 4000 * GB)
        going(clock, log.meter, 3600, lambda seconds: seconds, 4000)
        going(clock, log.meter, 20, lambda seconds: 3600 + seconds / 10, 4000)
        assert log.new()[-1] == "3.6 TB of 4.0 TB (90 %), 100.0 MB/s, 1 h 6 min left"

    def test_while_nothing_comes_it_says_for_how_long(self, clock: Clock) -> None:
        log = Log()
        log.meter.begin("bringing to disk")
        log.meter.show(0, 4 * GB)
        going(clock, log.meter, 90, lambda seconds: 0, 4)
        lines = log.new()
        assert lines[0] == "bringing to disk: 0 bytes of 4.0 GB (0 %) in 1.0 s"
        assert lines[-1] == "bringing to disk: 0 bytes of 4.0 GB (0 %) in 1 min 26 s"

    def test_after_a_stall_the_speed_is_that_of_now(self, clock: Clock) -> None:
        log = Log()
        log.meter.show(0, 100 * GB)
        going(clock, log.meter, 10, lambda seconds: seconds, 100)
        going(clock, log.meter, 60, lambda seconds: 10, 100)
        assert log.new()[-1] == "10.0 GB of 100.0 GB (10 %) in 1 min 6 s"
        going(clock, log.meter, 20, lambda seconds: 10 + seconds, 100)
        assert ", 1.0 GB/s, " in log.new()[-1]

    def test_a_stall_within_the_last_seconds_counts(self, clock: Clock) -> None:
        log = Log()
        log.meter.show(0, 100 * GB)
        going(clock, log.meter, 6, lambda seconds: seconds, 100)
        going(clock, log.meter, 6, lambda seconds: 6, 100)
        assert log.new()[-1] == "6.0 GB of 100.0 GB (6 %), 545.5 MB/s, 2 min 52 s left"  # 6 GB in 11 s

    def test_where_nobody_tells_for_long(self, clock: Clock) -> None:
        """A file that is read back is told when all of it is done."""
        log = Log()
        log.meter.show(0, 100 * GB)
        for done in (20, 40):
            clock.now += 50
            log.meter.show(done * GB, 100 * GB)
        assert log.new()[-1] == "40.0 GB of 100.0 GB (40 %), 400.0 MB/s, 2 min 30 s left"

    def test_a_second_pass_has_its_own_speed_and_line(self, clock: Clock) -> None:
        log = Log()
        log.meter.begin("comparing")
        log.meter.show(0, 4 * GB)
        going(clock, log.meter, 4, lambda seconds: seconds, 4)
        log.new()
        clock.now += 0.2
        log.meter.show(0, 20 * GB)
        going(clock, log.meter, 1, lambda seconds: 2 * seconds, 20)
        assert log.new() == ["comparing: 2.0 GB of 20.0 GB (10 %), 2.0 GB/s, 9.0 s left"]

    def test_a_new_phase_has_its_own_too(self, clock: Clock) -> None:
        """Also where it begins further on than the last one ended."""
        log = Log()
        log.meter.begin("writing")
        log.meter.show(0, GB)
        going(clock, log.meter, 4, lambda seconds: seconds / 4, 1)
        log.new()
        log.meter.begin("comparing")
        clock.now += 0.2
        log.meter.show(4 * GB, 20 * GB)
        going(clock, log.meter, 1, lambda seconds: 4 + 2 * seconds, 20)
        assert log.new() == ["comparing: 5.6 GB of 20.0 GB (28 %), 2.0 GB/s, 7.2 s left"]


class TestBar:
    def last(self, use: Callable[[Any], object]) -> str:
        """The bar as it is when it is taken away."""
        out = io.StringIO()
        bar = Bar(Console(file=out, width=120, force_terminal=True, color_system=None))
        use(bar)
        bar.stop()
        return [text for text in out.getvalue().replace("\r", "\n").splitlines() if "of 20.0 GB" in text][-1]

    def test_says_what_a_line_says(self, clock: Clock) -> None:
        def use(bar: Bar) -> None:
            bar.begin("bringing to disk")
            bar.show(0, 20 * GB)
            going(clock, bar, 11, lambda seconds: seconds, 20)

        shown = self.last(use)
        assert "bringing to disk ━" in shown and shown.rstrip().endswith(
            "11.0 GB of 20.0 GB (55 %), 1.0 GB/s, 9.0 s left"
        )

    @pytest.mark.parametrize(
        ("again", "first"), [(lambda bar: bar.begin("comparing"), 6), (lambda bar: None, 2)], ids=["phase", "pass"]
    )
    def test_a_phase_or_a_pass_has_its_own_speed(
        self, clock: Clock, again: Callable[[Bar], object], first: int
    ) -> None:
        def use(bar: Bar) -> None:
            bar.begin("writing")
            bar.show(0, 20 * GB)
            going(clock, bar, 4, lambda seconds: seconds, 20)
            again(bar)
            bar.show(first * GB, 20 * GB)
            going(clock, bar, 1, lambda seconds: first + 5 * seconds, 20)

        assert f"{first + 5}.0 GB of 20.0 GB" in self.last(use) and ", 5.0 GB/s, " in self.last(use)

    def test_of_half_a_second_there_is_no_speed(self, clock: Clock) -> None:
        def use(bar: Bar) -> None:
            bar.show(0, 20 * GB)
            going(clock, bar, 0.4, lambda seconds: seconds, 20)

        assert "400.0 MB of 20.0 GB (2 %) in 0.4 s" in self.last(use)

    @pytest.mark.parametrize("width", [40, 80])
    def test_says_what_it_is_of(self, width: int) -> None:
        """However narrow the terminal is, and before anybody said what comes."""
        out = io.StringIO()
        bar = Bar(Console(file=out, width=width, force_terminal=True, color_system=None))
        bar.show(0, 20 * GB)
        bar.begin("bringing to disk")
        bar.show(10 * GB, 20 * GB)
        bar.stop()
        first, *_, last = re.findall(r"working|bringing to disk", out.getvalue())
        assert (first, last) == ("working", "bringing to disk")

    def test_that_never_began_goes_as_well(self) -> None:
        Bar(Console(file=io.StringIO())).stop()


def test_nothing_done_says_nothing_of_what_is_left() -> None:
    assert line(0, 10, 0.0, 0.0) == "0 bytes of 10 bytes (0 %) in 0.0 s"
    assert line(0, 0, 2.0, 0.0) == "0 bytes of 0 bytes (0 %) in 2.0 s"


def test_not_all_is_not_said_to_be_all() -> None:
    assert "(99 %)" in line(9999, 10000, 1.0, 1.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (28.2, "28 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
