"""Components of several writers removed together: sums by hand, shares of made-up effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from th_utils import composition, models, sites, width, writer_effects, writers
from th_utils.components import direct_effects, direct_fall, leading
from th_utils.errors import CompanionError
from th_utils.patching import head_outputs, remove
from th_utils.roles import ROLES, Roles
from th_utils.tasks import ioi
from th_utils.weights import from_bridge
from th_utils.width import Joint, Written, one_by_one

MOVER = (2, 1)
HEADS = {
    "mover": [MOVER], "inhibition": [(1, 2)], "duplicate-token": [(0, 1), (0, 2)],
    "induction": [(2, 3), (1, 3)], "previous-token": [(0, 0), (1, 1)],
}  # fmt: skip


def close(found: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written(seed: int, n: int = 6, d_model: int = 10) -> Written:
    directions = torch.linalg.qr(draw(d_model, n, seed=seed)).Q.T
    output = draw(4, n, seed=seed + 1) @ directions
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return Written(output, directions, by_effect=order, by_score=order[::-1])


def linear(kind: str = "V", seed: int = 9) -> writers.Input:
    """What is watched falls by minus its product with one direction."""
    along = draw(10, seed=seed)
    return writers.Input(kind, (3, 0), torch.ones(4), lambda delta: -(delta @ along))


def test_one_by_one_takes_components_out_in_order():
    w = written(1)
    found = one_by_one(w, w.by_effect)
    left = w.output[:, None] + found
    for n in range(6):
        coefficients = left[:, n] @ w.directions.T
        gone, kept = w.by_effect[: n + 1], w.by_effect[n + 1 :]
        close(coefficients[:, gone], torch.zeros(4, n + 1))
        close(coefficients[:, kept], (w.output @ w.directions.T)[:, kept])
    close(left[:, -1], torch.zeros(4, 10))


def test_joint_removal_of_a_linear_reader():
    one, two, seen = written(1), written(2), linear()
    joint = width.remove_jointly([(seen, [one, two])], draws=4, seed=0)
    both = (one, two)
    parts = [-seen.fall((w.output @ w.directions.T)[..., None] * w.directions) for w in both]
    for n in range(6):
        expected = sum(p[:, w.by_effect[: n + 1]].sum(1) for p, w in zip(parts, both, strict=True))
        np.testing.assert_allclose(joint.by_effect[:, n], -ioi.pair_means(-expected), atol=1e-5)
    by_score = sum(p[:, w.by_score[:2]].sum(1) for p, w in zip(parts, both, strict=True))
    np.testing.assert_allclose(joint.by_score[:, 1], ioi.pair_means(by_score), atol=1e-5)
    for curve in (joint.by_effect, joint.by_score, joint.random):
        np.testing.assert_allclose(curve[:, -1], joint.whole, atol=1e-5)
    np.testing.assert_array_equal(joint.leading, joint.by_effect[:, 1])
    assert joint.others.shape == (2, 4) and joint.kind == "V"
    again = width.remove_jointly([(seen, [one, two])], draws=4, seed=0)
    np.testing.assert_array_equal(joint.others, again.others)
    other = width.remove_jointly([(seen, [one, two])], draws=4, seed=1)
    assert not np.allclose(joint.others, other.others)


def test_others_are_two_that_do_not_lead():
    """Only the two leading components do anything: others do nothing at all."""
    w = written(3)
    along = w.directions[w.by_effect[:2]].sum(0)
    seen = writers.Input("V", (3, 0), torch.ones(4), lambda delta: -(delta @ along))
    joint = width.remove_jointly([(seen, [w])], draws=10, seed=0)
    np.testing.assert_allclose(joint.others, 0, atol=1e-6)
    np.testing.assert_allclose(joint.leading, joint.whole, atol=1e-5)
    assert np.abs(joint.whole).max() > 0.1
    # and where all but these do something, two others do less than all, but not nothing
    rest = w.directions.sum(0) - along
    seen = writers.Input("V", (3, 0), torch.ones(4), lambda delta: -(delta @ rest))
    joint = width.remove_jointly([(seen, [w])], draws=10, seed=0)
    np.testing.assert_allclose(joint.leading, 0, atol=1e-5)
    parts = np.asarray(ioi.pair_means((w.output @ w.directions.T)[:, w.by_effect[2:]]))
    sums = {tuple(np.round(parts[:, i] + parts[:, j], 4)) for i in range(4) for j in range(i)}
    assert {tuple(np.round(draw, 4)) for draw in joint.others.T} <= sums


def test_several_readers_are_averaged():
    one, two = (linear(seed=seed) for seed in (9, 10))
    a, b = written(1), written(2)
    both = width.remove_jointly([(one, [a]), (two, [b])], draws=2, seed=0)
    alone = [width.remove_jointly([pair], draws=2, seed=0) for pair in ((one, [a]), (two, [b]))]
    for name in ("by_effect", "by_score", "whole", "clean"):
        expected = np.mean([getattr(j, name) for j in alone], axis=0)
        np.testing.assert_allclose(getattr(both, name), expected, atol=1e-6)


def test_scores_are_followed_where_there_are_any():
    along, w = draw(10, seed=9), written(1)
    seen = writers.Input(
        "K", (3, 0), torch.ones(4), lambda d: torch.zeros(d.shape[:2]), lambda d: -(d @ along)
    )
    joint = width.remove_jointly([(seen, [w])], draws=1, seed=0, scores=True)
    np.testing.assert_allclose(joint.whole, ioi.pair_means(w.output @ along), atol=1e-5)
    assert np.all(width.remove_jointly([(seen, [w])], draws=1, seed=0).whole == 0)
    with pytest.raises(CompanionError, match="'V' has no attention score"):
        width.remove_jointly([(linear(), [w])], draws=1, seed=0, scores=True)


# --- of a model


@pytest.fixture(scope="module")
def bridge(tiny_llama):
    return models.load(tiny_llama)


@pytest.fixture(scope="module")
def roles() -> Roles:
    return Roles("measured", {role: HEADS.get(role, []) for role in ROLES})


@pytest.fixture(scope="module")
def halves(bridge, roles) -> tuple[sites.Sites, sites.Sites]:
    return writers.halves(bridge, roles, 8, seed=3)


def test_writers_of_each_reader(bridge, roles, svd, halves):
    pairs = writers.weigh(svd, from_bridge(bridge), roles, "K", {})
    channel = writer_effects.measure(bridge, pairs, *halves, svd, {}, n_random=2, seed=0)
    readers = width.of_pairs(bridge, halves[1], svd, channel.effects)
    assert {reader: len(w) for reader, w in readers.items()} == {(2, 3): 2, (1, 3): 1}
    flat = [w for of_reader in readers.values() for w in of_reader]
    for e, w in zip(channel.effects, flat, strict=True):
        close(w.output, writers.outputs(bridge, halves[1], "K", e.pair.writer))
        close(w.directions, svd.V[e.pair.writer].mT)
        assert w.by_effect == e.order
        assert w.by_score[0] == int(e.pair.scores.argmax())
        assert sorted(w.by_score) == list(range(len(e.order)))
    seen = channel.inputs[(2, 3)]
    joint = width.remove_jointly([(seen, readers[(2, 3)])], draws=1, seed=0)
    together = seen.fall(-sum(w.output for w in readers[(2, 3)])[:, None])[:, 0]
    np.testing.assert_allclose(joint.whole, ioi.pair_means(together), atol=1e-5)


def test_inhibition_heads_into_the_query(bridge, roles, svd, halves):
    found, reported = halves
    reader = composition.unit(composition.readers(from_bridge(bridge), "Q")[MOVER])
    sender = (1, 2)
    (w,) = width.of_inhibition(bridge, found, reported, svd, [sender], MOVER, reader)
    effects = direct_effects(bridge, found.run, sender, MOVER, svd.V[sender].mT)
    assert w.by_effect == leading(effects, effects.shape[1])
    close(w.output, head_outputs(bridge, reported.run, *sender))
    seen = writers.query_input(bridge, reported, MOVER)
    joint = width.remove_jointly([(seen, [w])], draws=1, seed=0)
    edit = remove(svd, *sender, w.by_effect[:2])
    fall = direct_fall(bridge, reported.run, sender, MOVER, edit)
    np.testing.assert_allclose(joint.leading, ioi.pair_means(fall), atol=1e-5)


# --- shares


def joint_of(kind: str, shares: list[float], n: int = 40, seed: int = 0) -> Joint:
    """Effects of which the first 1, 2, ... components carry these shares, noise apart."""
    rng = np.random.default_rng(seed)
    whole = rng.normal(2.0, 0.2, n)
    by_effect = np.outer(whole, shares) + rng.normal(0, 0.01, (n, len(shares)))
    return Joint(kind, by_effect, by_effect / 2, by_effect / 10, by_effect[:, :3] / 50,
                 whole, 4 * whole)  # fmt: skip


def test_components_needed():
    joint = joint_of("V", [0.3, 0.55, 0.7, 0.85, 1.0])
    assert [width.needed(joint, level) for level in (0.2, 0.5, 0.8)] == [1, 2, 4]
    assert width.needed(joint, 1.5) == 5, "never enough: all of them"


def test_difference_of_shares():
    one, other = joint_of("V", [0.4, 0.7, 1.0]), joint_of("K", [0.2, 0.45, 1.0], seed=1)
    found = width.difference(one, other, seed=0)
    expected = one.leading.mean() / one.whole.mean() - other.leading.mean() / other.whole.mean()
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high and 0.24 < found.low and found.high < 0.26
    turned = width.difference(other, one, seed=0)
    assert turned.value == pytest.approx(-found.value)
    assert width.difference(one, one, seed=0) == pytest.approx((0, 0, 0))


def test_curves_table():
    one, scores = joint_of("V", [0.4, 0.7, 1.0]), joint_of("K", [0.1, 0.2, 1.0], seed=1)
    table = width.curves_table([one], seed=0, scores=scores)
    assert list(table) == ["kind", "order", "components", "share", "low", "high"]
    assert table["kind"] == ["V"] * 9 + ["K"] * 3
    assert list(dict.fromkeys(table["order"])) == [
        "by effect", "by score", "at random", "by effect, score",
    ]  # fmt: skip
    assert table["components"] == [1, 2, 3] * 4
    curves = [one.by_effect, one.by_score, one.random, scores.by_effect]
    wholes = [one.whole] * 3 + [scores.whole]
    expected = np.concatenate([c.mean(0) / w.mean() for c, w in zip(curves, wholes, strict=True)])
    np.testing.assert_allclose(table["share"], expected)
    low, share, high = (np.array(table[name]) for name in ("low", "share", "high"))
    assert (low <= share).all() and (share <= high).all() and (low < high).any()
    assert "by effect, score" not in width.curves_table([one], seed=0)["order"]
