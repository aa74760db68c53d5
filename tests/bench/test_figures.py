"""What is shown is what was measured: figures worked out by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bench.fit import line
from bench.summary import figures
from bench.table import plain


def run(seconds: float, **other: float) -> dict[str, float]:
    nothing = dict.fromkeys(("cpu", "anonymous", "own_cpu", "own_anonymous", "child_anonymous", "child_seconds"), 0.0)
    return {"seconds": seconds, **nothing, **other}


def entry(name: str, *runs: dict[str, float], rival: bool = False, failed: str | None = None) -> dict[str, Any]:
    return {"name": name, "threads": None, "rival": rival, "failed": failed, "runs": list(runs)}


COMPARISON = {
    "name": "mcore2hf",
    "cache": "cold",
    "cached_before_cold_runs": 0.25,
    "bytes": 4_000_000_000,
    "baseline": entry("cp", run(1), run(10), run(4)),
    "contenders": [
        entry("vlconv", run(3, cpu=2, anonymous=5e6), run(10, cpu=9, anonymous=9e6), run(2, cpu=6, anonymous=7e6)),
        entry("another", run(5, cpu=4, anonymous=3e9), rival=True),
        entry("a third", rival=True, failed="it died"),
    ],
}
MACHINE = {
    "cores": 2,
    "processor": "P",
    "memory": 24e9,
    "file_system": "ext4",
    "kernel": "6",
    "descendants": True,
    "python": "3",
    "vlconv": "0",
}
GROWN = [{"x": x, "runs": [run(1, cpu=cpu), run(9, cpu=99)]} for x, cpu in ((1000, 1.0), (2000, 1.5), (3000, 2.0))]
DOCUMENT = {
    "command": "c",
    "date": "d",
    "machine": {**MACHINE, "libraries": {"torch": None}},
    "left_out": {"load_plain_tensors": "megatron.core: not installed"},
    "comparisons": [COMPARISON],
    "curves": [{"name": "planning, chunks", "unit": "chunk", "points": GROWN}],
    "starts": [{"name": "vlconv --help", "runs": [run(0.5), run(0.1), run(0.2)]}],
    "planning": {
        "chunks": 300_000,
        "metadata_bytes": 44e6,
        "runs": [run(7, cpu=6, own_cpu=4.5, child_seconds=2, anonymous=9e7, own_anonymous=8e7, child_anonymous=5e7)],
    },
}


def test_a_ratio_is_of_two_runs_of_one_round() -> None:
    """The median of ratios, 3 and 1 and 0.5; that of seconds would make 3 / 4."""
    ours = figures(COMPARISON, COMPARISON["contenders"][0])
    assert (ours.ratio, ours.lowest, ours.highest) == (1, 0.5, 3)
    assert (ours.seconds, ours.cpu, ours.anonymous) == (3, 6, 9e6)
    assert (ours.cpu_per_gb, ours.gb_per_s) == (1.5, pytest.approx(4 / 3))


def test_a_program_of_the_first_round_is_held_against_that_round() -> None:
    assert figures(COMPARISON, COMPARISON["contenders"][1]).ratio == 5


def test_a_line_through_points_beside_it() -> None:
    """3 + 2 x, and 4, -6, 0, 2 beside it, in which is neither shift nor slope."""
    found = line([1, 2, 3, 4], [9, 1, 9, 13])
    assert found is not None
    assert (found.start, found.slope, found.residual) == pytest.approx((3, 2, 14**0.5))
    assert found.share == pytest.approx(14**0.5 / 6)
    assert line([2, 2], [1, 3]) is None


def test_the_table_says_all_of_it() -> None:
    page = Console(file=io.StringIO(), width=220)
    plain(DOCUMENT, markdown=True, console=page)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.file.getvalue().splitlines() if "|" in row]
    cold = "cold, 25 % cached"
    for row in (
        ["cp", cold, "1", "4.00", "1.00", "0.00", "0.00", "0"],
        ["vlconv mcore2hf", cold, "1.00 (0.50, 3.00)", "3.00", "1.33", "6.00", "1.50", "9"],
        ["another", cold, "5.00 (5.00, 5.00)", "5.00", "0.80", "4.00", "1.00", "3000"],
        ["a third", cold, "failed: it died", "", "", "", "", ""],
        ["vlconv --help", "0.20 (0.10, 0.50)", "0.00", "0"],
        ["parent", "5.00", "4.50", "80"],
        ["parsing child", "2.00", "1.50", "50"],
        [
            "planning, chunks",
            "1.00 at 1,000; 1.00 at 2,000; 1.00 at 3,000",
            "500 µs per chunk",
            "0 %",
            "0 µs per chunk",
            "0, 0",
        ],
    ):
        assert row in rows
    assert "left out: load_plain_tensors (megatron.core: not installed)" in page.file.getvalue()
