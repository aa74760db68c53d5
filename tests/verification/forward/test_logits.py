"""How far logits are apart, and what is noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlconv.converters.verification.forward.logits import Gap, Noise, gap, larger, measured_noise

SHAPE = (2, 5, 7)


def logits() -> Any:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def held(tmp_path: Path, a: Any, b: Any, noise: float = 1e-4) -> Gap:
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    return gap(tmp_path / "a.npy", tmp_path / "b.npy", Noise(noise, np.full(SHAPE[:2], noise)))


def test_equal_is_of_bits(tmp_path: Path) -> None:
    a = logits()
    found = held(tmp_path, a, a.copy())
    assert found.verdict == "equal" and (found.positions, found.apart, found.other_token) == (10, 0, 0)
    a[0, 0, 0], b = 0.0, a.copy()
    b[0, 0, 0] = -0.0
    assert held(tmp_path, a, b).verdict == "noise"


@pytest.mark.parametrize(("by", "verdict"), [(5e-4, "noise"), (5e-3, "different")])
def test_ten_times_the_noise_is_the_border(tmp_path: Path, by: float, verdict: str) -> None:
    a, b = logits(), logits()
    b[1, 2, 3] += by
    found = held(tmp_path, a, b)
    assert found.verdict == verdict and found.apart == (verdict == "different")
    assert found.max_abs == pytest.approx(by, rel=1e-3)
    assert found.spread == pytest.approx(a.std()) and found.relative == pytest.approx(by / a.std(), rel=1e-3)


def test_last_places_are_noise_where_none_was_measured(tmp_path: Path) -> None:
    a, b = logits(), logits()
    b[0, 0, 0] = np.nextafter(b[0, 0, 0], np.float32(9))
    assert held(tmp_path, a, b, 0.0).verdict == "noise"
    b[0, 0, 0] += 1e-4
    assert held(tmp_path, a, b, 0.0).verdict == "different"


def test_positions_of_another_token_are_counted(tmp_path: Path) -> None:
    a, b = logits(), logits()
    for at in ((0, 1), (1, 4)):
        b[at][int(a[at].argmin())] = 20
    found = held(tmp_path, a, b)
    assert (found.other_token, found.apart) == (2, 2)


def test_numbers_on_one_side_alone_differ(tmp_path: Path) -> None:
    a, b = logits(), logits()
    b[0, 0, 0] = math.nan
    found = held(tmp_path, a, b)
    assert found.verdict == "different" and found.max_abs == math.inf and found.nan == 1
    a[0, 0, 0] = math.nan
    assert held(tmp_path, a, b).verdict == "equal"
    a[1, 0, 0], b[1, 0, 0] = math.inf, -math.inf
    assert held(tmp_path, a, b).verdict == "different"


def test_of_two_vocabularies_the_common_rows(tmp_path: Path) -> None:
    a = logits()
    assert held(tmp_path, a, a[..., :5]).verdict == "equal"


def saved(tmp_path: Path, *changes: Any) -> list[Path]:
    """The same logits again and again, each time with something added at [1, 1, 1] and at [0, 0, 0]."""
    paths = [tmp_path / f"{n}.npy" for n in range(len(changes))]
    for path, (one, other) in zip(paths, changes, strict=True):
        made = logits()
        made[1, 1, 1] += one
        made[0, 0, 0] += other
        np.save(path, made)
    return paths


def test_noise_is_the_largest_difference_from_itself(tmp_path: Path) -> None:
    paths = saved(tmp_path, (0, 0), (0.25, 0), (0.5, 0.125))
    found = measured_noise(paths[0], paths[1:])
    assert found.usual == pytest.approx(0.5, rel=1e-5)
    assert found.by_position[1, 1] == pytest.approx(0.5) and found.by_position[0, 0] == pytest.approx(0.125)
    assert np.count_nonzero(found.by_position) == 2
    assert measured_noise(paths[0], []).usual == 0


def test_numbers_that_are_none_are_no_noise(tmp_path: Path) -> None:
    paths = saved(tmp_path, (0, 0), (math.nan, 0.125))
    assert measured_noise(paths[0], paths[1:]).usual == pytest.approx(0.125)


def test_another_expert_is_no_noise(tmp_path: Path) -> None:
    """Where the model itself takes another one, nothing is said of it; elsewhere noise is as small as it is."""
    paths = saved(tmp_path, (0, 0), (0.25, 0), (0.25, 0.25))
    measured = measured_noise(paths[0], paths[1:2], experts=True)
    assert measured.usual == 0
    found = gap(paths[0], paths[2], measured)
    assert (found.unsure, found.apart, found.verdict) == (1, 1, "different")
    found = gap(paths[0], paths[1], measured)
    assert (found.unsure, found.apart, found.verdict) == (1, 0, "noise")


@pytest.mark.parametrize(("apart", "verdict"), [(1, "few"), (2, "different")])
def test_two_programs_take_other_experts_at_few_positions(tmp_path: Path, apart: int, verdict: str) -> None:
    """A tenth of the ten positions."""
    a, b = logits(), logits()
    b[0, :apart, 0] += 0.1
    assert held(tmp_path, a, b).verdict == "different"
    found = gap(tmp_path / "a.npy", tmp_path / "b.npy", Noise(1e-4, np.zeros(SHAPE[:2])), picks=True)
    assert (found.verdict, found.apart) == (verdict, apart)


def test_infinite_is_equal_to_itself(tmp_path: Path) -> None:
    a, b = logits(), logits()
    a[0, 0, 0] = b[0, 0, 0] = math.nan
    a[0, 0, 1] = b[0, 0, 1] = math.inf
    b[1, 1, 1] = np.nextafter(b[1, 1, 1], np.float32(9))
    assert held(tmp_path, a, b).verdict == "noise"


@pytest.mark.parametrize("other", [False, True])
def test_where_nothing_is_a_number_nothing_is_compared(tmp_path: Path, other: bool) -> None:
    a = np.full(SHAPE, math.nan, np.float32)
    b = a.copy()
    b[0, 0, 0] = -math.inf if other else math.nan
    a[0, 0, 0] = b[0, 0, 0]
    b.view(np.uint32)[1, 1, 1] ^= other  # another NaN
    found = held(tmp_path, a, b)
    assert (found.verdict, found.bare, found.nan, found.spread, found.relative) == ("nothing", 10, 10, 0, 0)


def test_what_is_a_number_is_compared(tmp_path: Path) -> None:
    """Of a model with NaN in one row of its output layer."""
    a, b = logits(), logits()
    a[..., 3] = b[..., 3] = math.nan
    found = held(tmp_path, a, b)
    assert (found.verdict, found.bare, found.nan) == ("equal", 0, 10)
    assert found.spread == pytest.approx(np.delete(a, 3, -1).std(), rel=1e-5)
    b[1, 2, 4] += 1
    assert held(tmp_path, a, b).verdict == "different"


@pytest.mark.parametrize(("noise", "loud"), [(1e-4, False), (0.005, False), (0.02, True)])
def test_noise_as_large_as_a_fault_is_loud(tmp_path: Path, noise: float, loud: bool) -> None:
    a, b = logits(), logits()
    b[0, 0, 0] += 1e-4
    assert held(tmp_path, a, b, noise).loud == loud


def test_of_two_computations_the_larger_noise() -> None:
    """At each position, and in all."""
    a, b = Noise(1.0, np.array([[1.0, 0.0]])), Noise(2.0, np.array([[0.5, 2.0]]))
    for found in (larger(a, b), larger(b, a)):
        assert found.usual == 2 and found.by_position.tolist() == [[1, 2]]
