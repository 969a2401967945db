"""How places crowd: by hand, and with places planted."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import made_up

from th_utils import crowding
from th_utils.errors import CompanionError


def cloud(centres, noise, n=4000, seed=0) -> np.ndarray:
    centres = np.asarray(centres, dtype=float)
    rng = np.random.default_rng(seed)
    return centres + noise * rng.normal(size=(n, *centres.shape))


def test_discriminability_is_distance_over_spread():
    found = crowding.discriminability(cloud([[0, 0], [3, 4], [3, 4]], 2.0))
    spread = 2.0 * np.sqrt(2)  # two axes
    np.testing.assert_allclose(found, [5 / spread, 0], atol=0.05)


def test_discriminability_by_hand():
    """Two lists, two places, one axis: means 1 and 6, steps 4 and 6, variances 2 and 8."""
    found = crowding.discriminability(np.array([[[0.0], [4.0]], [[2.0], [8.0]]]))
    assert found.tolist() == pytest.approx([np.sqrt(25 - 2 / 2) / np.sqrt(5)])


def test_few_lists_do_not_look_apart():
    """Places that are one and the same: what sampling adds is taken off, on average."""
    squares = [
        (crowding.discriminability(cloud([[0, 0]] * 2, 1.0, n=4, seed=s)) ** 2).mean()
        for s in range(300)
    ]
    plain = [
        np.sum(np.diff(cloud([[0, 0]] * 2, 1.0, n=4, seed=s).mean(0), axis=0) ** 2) / 2
        for s in range(300)
    ]
    assert np.mean(squares) < 0.55 * np.mean(plain)


def test_noise_that_lists_share_takes_nothing_from_the_distance():
    """A shift of a whole list moves both places: the step between them is exact."""
    shift = np.random.default_rng(1).normal(size=(6, 1, 2))
    apart = crowding.discriminability(np.array([[0.0, 0], [1, 0]]) + shift)
    spread = np.sqrt(shift.var(axis=0, ddof=1).sum())
    assert apart.tolist() == pytest.approx([1 / spread])


def test_crowding_of_planted_places():
    short = cloud([[0, 0], [4, 0], [8, 0]], 1.0, n=60)
    long = cloud([[k, 0] for k in range(10)], 1.0, n=50, seed=1)
    found = crowding.crowding(short, long, seed=0)
    assert found.value == pytest.approx(0.25, abs=0.05)
    assert found.low < found.value < found.high < 0.4


def test_crowding_where_nothing_was_apart_is_no_crowding():
    one = np.zeros((4, 3, 2))
    one[:, :, 0] = np.arange(4)[:, None]  # lists differ, places do not
    found = crowding.crowding(one, cloud([[0, 0], [9, 0]], 1.0, n=8), seed=0)
    assert found == (crowding.MOST,) * 3
    with pytest.raises(CompanionError, match="1 lists of 3 items"):
        crowding.discriminability(one[:1])


def test_coordinate_table():
    coordinates = cloud([[0, 0, 5], [3, 4, 5]], 0.5, n=40)
    table = crowding.coordinate_table([made_up(coordinates)], ["a", "b", "c"], seed=0)
    assert table["place"] == [1, 1, 1, 2, 2, 2] and table["axis"] == [1, 2, 3] * 2
    assert table["name"] == ["a", "b", "c"] * 2 and table["length"] == [2] * 6
    assert table["mean"] == pytest.approx(coordinates.mean(0).ravel().tolist())
    low, high = np.quantile(coordinates, [0.25, 0.75], axis=0)
    assert table["low"] == pytest.approx(low.ravel().tolist())
    assert table["high"] == pytest.approx(high.ravel().tolist())
    (d,) = crowding.discriminability(coordinates[..., :2])
    assert table["d"] == [d] * 3 + [None] * 3, "the third axis is not in the plane"
    mean, low, high = (set(table[f"d {end}"]) for end in ("mean", "low", "high"))
    assert mean == {d} and min(low) < d < max(high) and len(low) == len(high) == 1


def test_mean_distance_is_over_all_pairs_of_neighbours():
    coordinates = cloud([[0, 0], [1, 0], [5, 0]], 0.5, n=30)
    table = crowding.coordinate_table([made_up(coordinates)], ["a", "b"], seed=0)
    assert table["d mean"] == pytest.approx([crowding.discriminability(coordinates).mean()] * 6)
