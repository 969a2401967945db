"""Intervals and p-values: coverage and exactness where they are known, seeds, ties, errors."""

import itertools

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from th_utils.bootstrap import (
    bootstrap,
    crossed,
    crossed_mean,
    mean_interval,
    permutation_null,
    rank_correlation,
)


def test_mean_interval_of_a_normal_sample():
    x = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    value, low, high = mean_interval(x, seed=0)
    error = x.std(ddof=1) / np.sqrt(len(x))
    assert value == pytest.approx(x.mean(), abs=1e-12)
    assert low == pytest.approx(value - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.15 * error)


def test_mean_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        _, low, high = mean_interval(rng.exponential(size=80), seed=seed, n_boot=400, level=0.9)
        covered += low <= 1.0 <= high
    assert 0.84 <= covered / 300 <= 0.95


def test_same_seed_same_interval():
    x = np.arange(20.0)
    assert mean_interval(x, seed=5) == mean_interval(x, seed=5)
    assert mean_interval(x, seed=5) != mean_interval(x, seed=6)


def test_interval_moves_and_scales_with_the_data():
    x = np.random.default_rng(3).normal(size=50)
    plain, moved = mean_interval(x, seed=0), mean_interval(-2 * x + 1, seed=0)
    assert moved.value == pytest.approx(-2 * plain.value + 1)
    assert (moved.low, moved.high) == pytest.approx((-2 * plain.high + 1, -2 * plain.low + 1))


def test_higher_level_is_wider():
    x = np.random.default_rng(4).normal(size=50)
    narrow, wide = mean_interval(x, seed=0, level=0.5), mean_interval(x, seed=0, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_booleans_are_shares():
    value, low, high = mean_interval(np.array([True, False] * 50), seed=0)
    assert value == 0.5 and 0.35 < low < 0.45 and 0.55 < high < 0.65


def test_pairs_stay_together():
    x = np.random.default_rng(5).normal(size=(40, 3))
    result = bootstrap(lambda a, b: (a - b).sum(), [x, x + 1.0], seed=0, n_boot=50)
    assert result == pytest.approx((-120.0, -120.0, -120.0))


def test_batched_agrees_with_one_by_one():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30) + 5
    single = bootstrap(lambda a, b: a.mean() / b.mean(), [x, y], seed=7, n_boot=200)
    batched = bootstrap(
        lambda a, b: a.mean(axis=(1, 2)) / b.mean(axis=1), [x, y], seed=7, n_boot=200, batched=True
    )
    assert single == pytest.approx(batched)


def test_large_samples_are_resampled_in_blocks():
    x = np.ones(3_000_000)
    x[0] = 2.0
    assert mean_interval(x, seed=0, n_boot=3).value == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        ([], {}),
        ([1.0, np.nan], {}),
        ([1.0, np.inf], {}),
        ([1.0], {"level": 1.0}),
        ([1.0], {"level": 0.0}),
        ([1.0], {"n_boot": 0}),
        ([1.0], {"seed": -1}),
    ],
)
def test_what_has_no_interval_is_refused(x, options):
    with pytest.raises(ValueError):
        mean_interval(np.array(x), **{"seed": 0, **options})


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same length"):
        bootstrap(lambda a, b: 0.0, [np.zeros(3), np.zeros(4)], seed=0)


def test_shapes_are_checked():
    with pytest.raises(TypeCheckError):
        mean_interval(np.zeros((3, 2)), seed=0)


def crossed_over(x: np.ndarray, seed: int = 0, **options):
    return crossed(lambda *picked: crossed_mean(x, *picked), x.shape, seed=seed, **options)


def test_crossed_resamples_units_and_draws():
    """Of a mean of independent effects, the variances over units and draws add up."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (40, 1)) + rng.normal(0, 1, (1, 10))
    found = crossed_over(x, n_boot=20_000)
    assert found.value == pytest.approx(x.mean())
    sd = np.sqrt(x.mean(1).var() / 40 + x.mean(0).var() / 10)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(sd, rel=0.08)
    assert crossed_over(x, seed=3) == crossed_over(x, seed=3) != crossed_over(x, seed=4)


def test_crossed_with_one_draw_is_over_units():
    x = np.random.default_rng(2).normal(size=(30, 1))
    one, plain = crossed_over(x, n_boot=20_000), mean_interval(x[:, 0], seed=0, n_boot=20_000)
    assert one == pytest.approx(plain, abs=0.02)


@pytest.mark.parametrize("shape, options", [((0, 2), {}), ((2, 0), {}), ((2, 2), {"level": 1.0})])
def test_crossed_needs_units_and_draws(shape, options):
    with pytest.raises(ValueError, match="must be positive"):
        crossed(lambda u, d: u.sum(-1), shape, seed=0, **options)


def test_permutation_p_approaches_the_exact_one():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 6.5])
    labels = np.array([0, 0, 0, 0, 1, 1, 1])

    def difference(labels):
        return x[labels == 1].mean() - x[labels == 0].mean()

    observed = difference(labels)
    exact = [difference(np.array(order)) for order in set(itertools.permutations(labels))]
    share = np.mean(np.array(exact) >= observed - 1e-12)
    assert len(exact) == 35
    test = permutation_null(difference, labels, seed=0, n=20000)
    assert test.value == observed
    assert test.p == pytest.approx(share, abs=0.005)
    assert len(test.null) == 20000


def test_p_is_never_zero_and_ties_count():
    x = np.arange(30.0)
    assert permutation_null(lambda label: (x * label).sum(), x, seed=0, n=99).p == 0.01
    assert permutation_null(lambda label: label.sum(), x, seed=0, n=99).p == 1.0
    # The same numbers summed in another order differ in the last bit: ties all the same.
    ragged = np.random.default_rng(8).normal(size=1000)
    assert permutation_null(lambda label: label.sum(), ragged, seed=0, n=99).p == 1.0


def test_alternatives():
    x = np.arange(12.0)
    p = {
        side: permutation_null(lambda y: (x * y).sum(), -x, seed=0, n=999, alternative=side).p
        for side in ("greater", "less", "two-sided")
    }
    assert p["greater"] == 1.0 and p["less"] == 0.001 and p["two-sided"] == 0.001


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(9)
    ps = []
    for seed in range(200):
        x, y = rng.normal(size=(2, 25))
        ps.append(
            permutation_null(
                lambda labels, x=x: rank_correlation(x, labels), y, seed=seed, n=199, batched=True,
                alternative="two-sided",
            ).p
        )  # fmt: skip
    assert 0.4 < np.mean(ps) < 0.6
    assert np.mean(np.array(ps) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_batched_permutations_agree_with_one_by_one():
    x = np.random.default_rng(10).normal(size=15)
    y = np.arange(15.0)
    single = permutation_null(lambda label: float(x @ label), y, seed=3, n=50)
    batched = permutation_null(lambda label: label @ x, y, seed=3, n=50, batched=True)
    assert single.p == batched.p
    np.testing.assert_allclose(single.null, batched.null)


def test_permutation_within_groups_moves_nothing_between_them():
    groups = np.array([0, 0, 1, 1, 1, 2])
    labels = np.array([10, 11, 20, 21, 22, 30])
    seen = []
    permutation_null(
        lambda label: seen.append(label.copy()) or 0.0, labels, seed=0, n=40, within=groups
    )
    for label in seen:
        assert (label // 10 - 1 == groups).all()
    assert len({tuple(label) for label in seen}) > 6


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"within": np.array([1, 2])}, {"seed": -3}], ids=["n", "groups", "seed"]
)
def test_impossible_permutation_tests_are_refused(options):
    with pytest.raises((ValueError, TypeCheckError)):
        permutation_null(np.sum, np.arange(3), **{"seed": 0, **options})


def test_rank_correlation_agrees_with_pandas():
    import pandas

    rng = np.random.default_rng(11)
    x, y = rng.integers(0, 6, size=(2, 40)).astype(float)
    expected = pandas.Series(x).rank().corr(pandas.Series(y).rank())
    assert rank_correlation(x, y) == pytest.approx(expected)


def test_rank_correlation_sees_order_only_and_broadcasts():
    x = np.random.default_rng(12).normal(size=9)
    many = np.stack([np.exp(x), -x, np.zeros(9)])
    correlations = rank_correlation(x, many)
    np.testing.assert_allclose(correlations[:2], [1.0, -1.0])
    assert np.isnan(correlations[2])
