"""Channels are where they were planted, and a blind search finds them and little else."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import textbook
import torch

from th_utils import composition, nulls, recovery
from th_utils.composition import KINDS, OFFSETS
from th_utils.errors import CompanionError
from th_utils.planted import Channel, Noise, noise_weights, plant
from th_utils.recovery import PLAIN, Condition
from th_utils.search import CALCULATED, DETECTORS, dimensions, search
from th_utils.weights import Rotary

SMALL = Noise(layers=4, heads=4, d_model=64, d_head=8)
ROTARY = Rotary(base=10000.0, dims=8)
VARIANTS = {
    "plain": SMALL,
    "centred": replace(SMALL, centred=True),
    "rotary": replace(SMALL, rotary=ROTARY),
    "grouped": replace(SMALL, kv_heads=2),
    "llama": replace(SMALL, kv_heads=2, rotary=ROTARY),
}
MATRICES = ("W_Q", "W_K", "W_V", "W_O")
variants = pytest.mark.parametrize("noise", VARIANTS.values(), ids=VARIANTS)


# --- the generator


def planted_term(before, after, kind: str, layer: int, head: int, offset: int):
    """What was added to a head's matrix, and the matrix before, dense; "write" is the writer's OV.

    The coordinates given up are read off the weights: they span the rows of what changed.
    """
    name = {"Q": "W_Q", "K": "W_K", "V": "W_V", "write": "W_O"}[kind]
    held = getattr(after, name).shape[1]
    at = (layer, head // (after.n_heads // held))
    sides = [getattr(weights, name)[at] for weights in (before, after)]
    old, new = (side.T if kind == "write" else side for side in sides)
    _, S, Vh = torch.linalg.svd(new - old)
    E = Vh[: int((S > 1e-9).sum())].T
    kv_head = head // after.group
    turn = torch.eye(after.d_head).double()
    if after.rotary is not None and kind in "QK":
        turn = textbook.turn(after.rotary, offset, after.d_head)
    partner = {
        "Q": lambda: turn @ after.W_K[layer, kv_head].T,
        "K": lambda: turn.T @ after.W_Q[layer, head].T,
        "V": lambda: after.W_O[layer, head],
        "write": lambda: after.W_V[layer, kv_head].T,
    }[kind]()
    if kind == "write":
        original = textbook.ov(before, layer, head)
        changed = textbook.ov(after, layer, head).T
    else:
        original = textbook.reader(before, kind, layer, head, offset)
        changed = textbook.reader(after, kind, layer, head, offset)
    term = new @ E @ E.T @ partner
    left_over = old @ (torch.eye(after.d_head).double() - E @ E.T) @ partner
    torch.testing.assert_close(changed, term + left_over, rtol=0, atol=1e-10)
    return term, original


def rms(norms) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in norms) / len(norms))


@variants
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_terms_have_the_directions_and_strength_that_were_asked_for(noise, kind, rank):
    channel = Channel((0, 1), (2, 3), kind, strength=1.5, rank=rank, written=0.75)
    before = noise_weights(noise, seed=rank)
    after, (first, *others) = plant(noise, [channel], seed=rank)
    assert (first.writer, first.reader, first.kind) == ((0, 1), (2, 2), kind) or first.asked
    there = next(p for p in (first, *others) if p.asked)
    W = there.directions
    torch.testing.assert_close(W.T @ W, torch.eye(rank).double(), rtol=0, atol=1e-12)
    for side, (layer, head), strength, said in (
        ("write", channel.writer, 0.75, there.written),
        (kind, channel.reader, 1.5, there.read),
    ):
        offsets = OFFSETS if noise.rotary is not None and side in "QK" else (0,)
        pairs = [planted_term(before, after, side, layer, head, o) for o in offsets]
        for term, _ in pairs:
            assert torch.linalg.matrix_norm(term - W @ (W.T @ term)) < 1e-10
            assert torch.linalg.matrix_rank(term) == rank
        unit = rms([m.norm() for _, m in pairs]) / math.sqrt(noise.d_head)
        assert rms([term.norm() for term, _ in pairs]) / unit == pytest.approx(strength)
        assert said == pytest.approx(strength)
        # evenly divided among the directions
        each = [rms([(W[:, i] @ term).norm() for term, _ in pairs]) for i in range(rank)]
        assert each == pytest.approx([each[0]] * rank)


@variants
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_is_changed(noise, kind):
    before = noise_weights(noise, seed=5)
    after, _ = plant(noise, [Channel((1, 0), (3, 2), kind)], seed=5)
    changed = {}
    for name in MATRICES:
        same = (getattr(before, name) == getattr(after, name)).flatten(2).all(-1)
        changed[name] = [tuple(at) for at in (~same).nonzero().tolist()]
    group = noise.heads // noise.groups
    expected = {name: [] for name in MATRICES} | {"W_O": [(1, 0)]}
    expected[f"W_{kind}"] = [(3, 2 if kind == "Q" else 2 // group)]
    assert changed == expected


def test_a_planted_direction_scores_what_its_share_says():
    """With the noise's own score, which is that of any direction."""
    noise = Noise()
    weights, (there,) = plant(noise, [Channel((0, 0), (3, 3), "Q", strength=3.0)], seed=2)
    M = textbook.reader(weights, "Q", 3, 3)
    score2 = float((there.directions[:, 0] @ M).norm() ** 2 / M.norm() ** 2)
    share = 9 / (noise.d_head + 9)
    assert share == pytest.approx(score2, abs=0.03)


def test_spectra_fall_as_said():
    for decay, low, high in ((1.0, 1.0, 6.0), (30.0, 10.0, 25.0), (300.0, 60.0, 250.0)):
        weights = noise_weights(Noise(decay=decay), seed=0)
        S = torch.linalg.svdvals(textbook.ov(weights, 2, 2))[: weights.d_head]
        assert low < float(S[0] / S[-1]) < high, decay


def test_the_same_seed_gives_the_same_model_and_another_another():
    channels = [Channel((0, 0), (1, 0), "Q"), Channel((0, 1), (2, 0), "V", rank=2)]
    (one, first), (two, second), (other, third) = (
        plant(SMALL, channels, seed=s) for s in (7, 7, 8)
    )
    for name in MATRICES:
        assert getattr(one, name).equal(getattr(two, name))
        assert not getattr(one, name).equal(getattr(other, name))
    for a, b, c in zip(first, second, third, strict=True):
        assert a.directions.equal(b.directions) and not a.directions.equal(c.directions)
        assert (a.written, a.read) == (b.written, b.read)
    assert not first[0].directions[:, 0].equal(first[1].directions[:, 0])


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    plant(SMALL, [Channel((0, 0), (1, 0), "Q")], seed=0)
    assert torch.rand(3).equal(expected)


@variants
def test_centred_or_not(noise):
    weights, there = plant(noise, [Channel((0, 0), (1, 0), k, rank=2) for k in KINDS], seed=1)
    means = [getattr(weights, n).mean(-1 if n == "W_O" else -2).abs().max() for n in MATRICES]
    means += [p.directions.mean(0).abs().max() for p in there]
    assert all(m < 1e-12 for m in means) == noise.centred
    assert dimensions(weights) == noise.d_model - noise.centred


def places(there) -> list:
    return sorted((p.writer, p.reader, p.kind, p.asked) for p in there)


def test_what_shares_a_direction_communicates():
    """Two writers and two readers of one direction: four channels, where layers allow it."""
    a, b, c, d = (0, 0), (1, 1), (1, 2), (3, 0)
    channels = [Channel(a, c, "Q", direction="x"), Channel(b, d, "K", direction="x"),
                Channel(a, d, "V")]  # fmt: skip
    _, there = plant(SMALL, channels, seed=0)
    assert places(there) == sorted(
        [(a, c, "Q", True), (a, d, "K", False), (b, d, "K", True), (a, d, "V", True)]
    )
    shared = [p for p in there if p.kind != "V"]
    assert all(p.directions.equal(shared[0].directions) for p in shared)
    assert all(p.read == pytest.approx(1) and p.written == pytest.approx(1) for p in there)


@pytest.mark.parametrize("kind", "KV")
def test_a_group_reads_together(kind):
    _, there = plant(VARIANTS["llama"], [Channel((0, 0), (2, 3), kind, strength=2.0)], seed=0)
    assert places(there) == [((0, 0), (2, 2), kind, False), ((0, 0), (2, 3), kind, True)]
    by_reader = {p.reader: p.read for p in there}
    assert by_reader[2, 3] == pytest.approx(2) and 0.5 < by_reader[2, 2] < 8
    _, there = plant(VARIANTS["llama"], [Channel((0, 0), (2, 3), "Q")], seed=0)
    assert len(there) == 1


def test_a_head_may_be_filled_to_the_last_coordinate():
    noise = replace(SMALL, d_head=3, d_model=32)
    weights, there = plant(noise, [Channel((0, 0), (1, 0), "V", rank=3)], seed=0)
    W = there[0].directions
    M = textbook.reader(weights, "V", 1, 0)
    torch.testing.assert_close(W @ (W.T @ M), M, rtol=0, atol=1e-12)


GOOD = Channel((0, 0), (1, 1), "Q")


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([replace(GOOD, reader=(0, 1))], r"channels\[0\]: reader \(0, 1\) is not in a later layer"),
        ([GOOD, replace(GOOD, writer=(2, 0))], r"channels\[1\]: reader \(1, 1\) is not in a later"),
        ([replace(GOOD, writer=(0, 4))], r"channels\[0\].writer: head 4 is out of range.* 0 to 3"),
        ([replace(GOOD, reader=(4, 0))], r"channels\[0\].reader: layer 4 is out of range"),
        ([replace(GOOD, reader=(1, -1))], r"channels\[0\].reader: head -1 is out of range"),
        ([replace(GOOD, rank=0)], r"channels\[0\].rank is 0: expected 1 to 3"),
        ([replace(GOOD, rank=4)], r"channels\[0\].rank is 4: expected 1 to 3"),
        ([replace(GOOD, strength=-1.0)], r"channels\[0\].strength is -1.0: expected a positive"),
        ([replace(GOOD, strength=0.0)], r"channels\[0\].strength is 0.0"),
        ([replace(GOOD, strength=math.nan)], r"channels\[0\].strength is nan"),
        ([replace(GOOD, written=math.inf)], r"channels\[0\].written is inf"),
        ([replace(GOOD, kind="O")], r"channels\[0\].kind is 'O': expected Q, K or V"),
        (
            [replace(GOOD, direction="x"), replace(GOOD, kind="V", rank=2, direction="x")],
            r"channels\[1\].rank is 2: expected 1, as of the other channels of direction 'x'",
        ),
        (
            [replace(GOOD, direction="x"), replace(GOOD, kind="V", written=2.0, direction="x")],
            r"channels\[1\] has strength 2.0 on a side that channels\[0\] .* gives 1.0",
        ),
        (
            [replace(GOOD, writer=(0, h % 4), rank=3) for h in range(3)],
            r"channels\[2\] does not fit: 9 directions at the queries and keys of head \(1, 1\)",
        ),
        (
            [replace(GOOD, reader=(1, h), rank=3) for h in range(3)],
            r"channels\[2\] does not fit: 9 .* values and outputs of head \(0, 0\), .* d_head = 8",
        ),
    ],
)  # fmt: skip
def test_channels_that_cannot_be_planted(channels, message):
    with pytest.raises(CompanionError, match=message):
        plant(SMALL, channels, seed=0)


def test_a_rank_above_d_head():
    with pytest.raises(CompanionError, match=r"rank is 3: expected 1 to 2"):
        plant(replace(SMALL, d_head=2), [replace(GOOD, rank=3)], seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(layers=0), "layers = 0: expected 1 or more"),
        (dict(kv_heads=0), "kv_heads = 0: expected 1 or more, or None"),
        (dict(kv_heads=-3), "kv_heads = -3: expected 1 or more, or None"),
        (dict(kv_heads=3), "kv_heads = 3: expected a divisor of heads = 8"),
        (dict(d_head=129), "d_head = 129: expected at most 128"),
        (dict(d_head=128, centred=True), "d_head = 128: expected at most 127"),
        (dict(decay=0.5), "decay = 0.5: expected a finite number of 1 or more"),
        (dict(decay=math.inf), "decay = inf"),
        (dict(rotary=Rotary(1e4, 18)), "rotary.dims = 18: expected at most d_head = 16"),
    ],
)
def test_noise_that_cannot_be(wrong, message):
    with pytest.raises(CompanionError, match=message):
        Noise(**wrong)


# --- what chance does


def conditional_tail(t: float, spectrum: torch.Tensor, room: int, draws: int = 100_000) -> float:
    """P(score^2 > t) by simulation of all but the strongest direction, whose chance is exact."""
    generator = torch.Generator().manual_seed(0)
    n = len(spectrum)
    seen = torch.randn(draws, n - 1, generator=generator, dtype=torch.float64) ** 2
    normal = torch.randn(draws, room - n, generator=generator, dtype=torch.float64)
    lack = t * (normal**2).sum(1) - seen @ (spectrum[1:] - t)
    chance = torch.special.erfc((lack.clamp_min(0) / (2 * (spectrum[0] - t))).sqrt())
    return float(torch.where(lack > 0, chance, 1.0).mean())


@pytest.mark.parametrize("t", [0.02, 0.03, 0.04])
def test_tail_of_one_direction(t):
    """Down to a chance of one in 270,000, within a fifth."""
    spectrum = 30.0 ** -torch.linspace(0, 1, 16).double()
    expected = conditional_tail(t, spectrum / spectrum.sum(), 128)
    found = nulls.score_tail(torch.tensor([math.sqrt(t)]), spectrum[None], 128)
    assert float(found) == pytest.approx(expected, rel=0.2)


def test_tails_of_many_directions_err_on_the_quiet_side():
    generator = torch.Generator().manual_seed(0)
    spectrum = 30.0 ** -torch.linspace(0, 1, 16).double()
    share = spectrum / spectrum.sum()
    frames = torch.linalg.qr(torch.randn(20_000, 128, 16, generator=generator)).Q.double()
    squares = ((frames[:, :16] ** 2) * share[:, None]).sum(1)
    for drawn, options in (
        (squares @ share, dict(weights=spectrum[None])),
        (squares[:, :3].mean(1), dict(directions=3)),
    ):
        level = drawn.quantile(0.999)
        found = nulls.score_tail(level.sqrt()[None], spectrum[None], 128, **options)
        assert 0.9e-3 < float(found) < 2e-3


@pytest.mark.parametrize("t", [0.03, 0.1, 0.15, 0.3])
def test_tail_of_two_directions_where_it_is_known(t):
    """What a plane holds of one axis of R^d is Beta(1, d/2 - 1); down to a chance of 1e-26."""
    found = nulls.score_tail(torch.tensor([math.sqrt(t)]), torch.ones(1, 1), 128, directions=2)
    assert float(found) >= (1 - 2 * t) ** 63


def tilted_tail(t, spectrum, shares, tilts, room=128, draws=10_000) -> tuple[float, float]:
    """P(mean of squared scores > t) of random frames, with its standard error, far out.

    Importance sampling: each direction is drawn in the complement of those before with the
    covariance I + c u u^T, u being what the complement holds of the reader's first direction, and
    has the angular central Gaussian density |S|^(-1/2) (v^T S^-1 v)^(-dim/2) against the even one.
    """
    generator = torch.Generator().manual_seed(0)
    mean = log_weight = torch.zeros(draws, dtype=torch.float64)
    frame: list[torch.Tensor] = []
    for k, (share, c) in enumerate(zip(shares, tilts, strict=True)):
        x = torch.randn(draws, room, generator=generator, dtype=torch.float64)
        u = torch.zeros_like(x)
        u[:, 0] = 1
        for v in frame:
            x, u = (y - (y * v).sum(1, keepdim=True) * v for y in (x, u))
        x = x + math.sqrt(c) * torch.randn(draws, 1, generator=generator, dtype=torch.float64) * u
        v = x / x.norm(dim=1, keepdim=True)
        size = 1 + c * (u**2).sum(1)
        form = 1 - c * (v * u).sum(1) ** 2 / size
        log_weight = log_weight + size.log() / 2 + form.log() * (room - k) / 2
        mean = mean + share * (v[:, : len(spectrum)] ** 2 @ spectrum)
        frame.append(v)
    chance = torch.where(mean > t, log_weight.exp(), 0.0)
    return float(chance.mean()), float(chance.std()) / math.sqrt(draws)


def test_importance_sampling_agrees_with_what_is_known():
    chance, error = tilted_tail(0.1, torch.ones(1).double(), [0.5, 0.5], [20.0, 20.0])
    assert abs(chance - 0.8**63) < 3 * error < 0.2 * chance


@pytest.mark.parametrize(
    ("t", "directions", "tilt"), [(0.02, 3, 8.0), (0.0275, 3, 8.0), (0.03, 2, 10.0), (0.015, 16, 5)]
)
def test_far_tails_err_on_the_quiet_side(t, directions, tilt):
    """At chances from 4e-5 to 3e-8, where alarms of sums and whole matrices are decided."""
    spectrum = 30.0 ** -torch.linspace(0, 1, 16).double()
    spectrum = spectrum / spectrum.sum()
    whole = directions == 16
    shares = spectrum if whole else torch.full((directions,), 1 / directions).double()
    tilts = torch.where(shares > 0.3 * shares[0], tilt * shares / shares[0], 0.0)
    options = dict(weights=shares[None]) if whole else dict(directions=directions)
    found = nulls.score_tail(torch.tensor([math.sqrt(t)]), spectrum[None], 128, **options)
    draws = 4000 if whole else 10_000
    chance, error = tilted_tail(t, spectrum, shares.tolist(), tilts.tolist(), draws=draws)
    assert 1e-8 < float(found) < 5e-5
    assert chance + error < float(found) < 20 * chance


def test_a_reader_that_reads_nothing_is_no_reason_for_an_alarm():
    nothing = nulls.score_tail(torch.zeros(2), torch.zeros(2, 3), 20)
    assert nothing.tolist() == [1, 1]


def test_tails_at_their_ends():
    spectrum = torch.tensor([[0.5, 0.3, 0.2]]).expand(4, 3)
    score = torch.tensor([0.0, 0.2, 0.71, 0.9])  # the mean square is 1 / 20, the largest 1 / 2
    assert nulls.score_tail(score, spectrum, 20).tolist() == [1, 1, 0, 0]
    scaled = [nulls.score_tail(torch.tensor([0.5]), f * spectrum[:1], 20) for f in (1.0, 100.0)]
    assert torch.allclose(*scaled, rtol=1e-6)
    rising = nulls.score_tail(torch.linspace(0.3, 0.7, 50), spectrum[:1].expand(50, 3), 20)
    assert bool((rising.diff() < 0).all())


# --- the search


@pytest.fixture(scope="module")
def found():
    weights, there = plant(SMALL, [Channel((0, 1), (3, 2), k, strength=3.0) for k in KINDS], seed=4)
    return weights, there, search(weights)


def test_every_later_reader_is_compared(found):
    _, _, result = found
    expected = [
        (i, h, j, k)
        for i, h, j, k in itertools.product(range(4), range(4), range(4), range(4))
        if i < j
    ]
    assert [tuple(pair) for pair in result.pairs.tolist()] == expected
    assert set(result.scores) == set(DETECTORS) and set(result.chances) == set(CALCULATED)
    for table in (*result.scores.values(), *result.chances.values()):
        assert table.shape == (3, len(expected)) and not table.isnan().any()


def test_silent_heads_raise_no_alarm():
    weights = noise_weights(SMALL, seed=3)
    weights.W_Q[2, 1] = 0  # reads nothing by query or key
    weights.W_V[3, 0] = 0  # neither reads by value nor writes
    weights.W_O[0, 2] = 0  # writes nothing
    result = search(weights)
    writer, reader = result.pairs[:, :2].tolist(), result.pairs[:, 2:].tolist()
    dumb = torch.tensor([w == [0, 2] for w in writer])
    silent = torch.stack([
        dumb | torch.tensor([r == deaf for r in reader]) for deaf in ([2, 1], [2, 1], [3, 0])
    ])  # fmt: skip
    for name in CALCULATED:
        assert bool((result.chances[name][silent] >= 1).all())
        assert not result.alarms(name, 0.5)[silent].any()
    for name, scores in result.scores.items():
        assert not scores.isnan().any()
        if name in ("component-chance", "sums"):
            assert bool((scores[silent] <= 0).all()), name
        elif name not in ("whole-z", "component-z"):
            assert bool((scores[silent] == 0).all()), name


def test_components_that_write_nothing_point_nowhere():
    """The decomposition fills up its directions; they are none that a head writes or reads."""
    weights = noise_weights(SMALL, seed=3)
    weights.W_O[0, 0, 4:] = 0
    weights.W_V[1, 1, :, :] = 0
    weights.W_V[1, 1, 0, 0] = 1
    aligned = search(weights).scores["aligned"]
    i = search(weights).pairs.tolist().index([0, 0, 1, 1])
    V = torch.linalg.svd(textbook.ov(weights, 0, 0)).Vh[:4]
    assert float(aligned[2, i]) == pytest.approx(float(V[:, 0].abs().max()))


def test_one_layer_has_no_pairs():
    result = search(noise_weights(replace(SMALL, layers=1), seed=0))
    assert result.pairs.shape == (0, 4)
    for name in CALCULATED:
        assert result.alarms(name, 0.05).shape == (3, 0)


def test_one_writer_has_no_standard_score():
    result = search(noise_weights(replace(SMALL, layers=2, heads=1), seed=0))
    assert result.scores["whole-z"].tolist() == [[0], [0], [0]]


def test_scores_are_those_of_dense_matrices(found):
    weights, _, result = found
    d_head = weights.d_head
    for i in (0, 37, len(result.pairs) - 1):
        layer, head, *reader = result.pairs[i].tolist()
        W = textbook.ov(weights, layer, head)
        _, S, Vh = torch.linalg.svd(W)
        share = (S[:d_head] ** 2 / (S**2).sum()).sqrt()
        for k, kind in enumerate(KINDS):
            M = textbook.reader(weights, kind, *reader)
            U, T, _ = torch.linalg.svd(M)
            parts = (Vh[:d_head] @ M).norm(dim=1) / M.norm()
            overlap = (Vh[:d_head] @ U[:, :d_head]).abs()
            strongest = T[:d_head] / M.norm()
            expected = {
                "whole": textbook.composition(W, M),
                "component": parts.max(),
                "ceiling": parts.max() / strongest[0],
                "weighted": (parts * share).max(),
                "aligned": overlap.max(),
                "path": (overlap * share[:, None] * strongest).max(),
            }
            for name, value in expected.items():
                assert float(result.scores[name][k, i]) == pytest.approx(float(value)), name


def test_standard_scores_are_per_reader(found):
    weights, _, result = found
    svd_scores = composition.head_scores(*by_component(weights, "K"))
    for reader in ((1, 0), (3, 2)):
        at = (result.pairs[:, 2:] == torch.tensor(reader)).all(1)
        z = composition.z_scores(svd_scores[: reader[0], :, *reader])
        torch.testing.assert_close(result.scores["whole-z"][1, at], z.flatten())


def by_component(weights, kind):
    from th_utils.svd import ov_svd

    svd = ov_svd(weights)
    return composition.component_scores(svd, composition.readers(weights, kind)), svd.S


def test_chances_order_the_pairs_of_one_reader_as_their_scores_do(found):
    _, _, result = found
    at = (result.pairs[:, 2:] == torch.tensor([3, 2])).all(1)
    score, chance = (table["component"][0, at] for table in (result.scores, result.chances))
    order = score.argsort()
    assert bool((chance[order].diff() <= 1e-12).all())
    best = -result.chances["component"].clamp_min(1e-300).log10()
    torch.testing.assert_close(result.scores["component-chance"], best)


def test_what_an_alarm_can_be_asked(found):
    _, _, result = found
    assert result.alarms("whole", 0.5).sum() >= result.alarms("whole", 0.001).sum()
    with pytest.raises(CompanionError, match="detector 'path': expected one whose chance"):
        result.alarms("path", 0.05)
    with pytest.raises(CompanionError, match="rate = 1.5: expected more than 0 and less than 1"):
        result.alarms("whole", 1.5)


STRONG = 6.0


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_a_strong_plant_is_always_found(variant, rank, seed):
    """Six channels a model, all kinds, by component scores and by sums of them."""
    wide = dict(layers=5, heads=4, d_model=96, d_head=12)
    rotary = Rotary(base=10000.0, dims=12) if VARIANTS[variant].rotary else None
    noise = replace(VARIANTS[variant], **wide, rotary=rotary)
    weights, there = recovery.model(Condition("strong", noise, rank), STRONG, seed=100 + seed)
    result = search(weights)
    planted = recovery.truth(result, [p for p in there if p.asked])
    assert planted.sum() == 6
    for name in ("component", "sums"):
        assert result.alarms(name, 0.05).numpy()[planted].all(), name


MODELS = 120


def most_alarms(models: int, rate: float) -> int:
    """The smallest number that a binomial count exceeds with a chance below 1 in 1000."""
    beyond = 1.0
    for k in range(models + 1):
        beyond -= math.comb(models, k) * rate**k * (1 - rate) ** (models - k)
        if beyond < 1e-3:
            return k
    raise AssertionError


def test_the_bound_on_false_alarms():
    assert most_alarms(120, 0.05) == 14


def test_nothing_planted_raises_no_more_alarms_than_stated():
    """Were each model to alarm with a chance of 0.05, more than 14 of 120 would be a thousandth."""
    table = recovery.false_alarms(SMALL, MODELS, {}, seed=0)
    for name in CALCULATED:
        raised = sum(a for d, a in zip(table["detector"], table["alarm"], strict=True) if d == name)
        assert raised <= most_alarms(MODELS, recovery.RATE), name
    chance = np.array(
        [c for d, c in zip(table["detector"], table["chance"], strict=True) if d == "component"]
    )
    # and for single components the statement is not empty either: at a rate of one half, too
    assert 0.25 < (chance <= 0.5).mean() < 0.65


# --- the experiment


@pytest.mark.parametrize("sharing", ["nothing", "writer", "reader", "kinds"])
def test_six_channels_and_no_head_busy_twice(sharing):
    condition = Condition("x", sharing=sharing, rank=2, in_writer=0.5, in_reader=2.0)
    for seed in range(5):
        drawn = recovery.draw_channels(condition, 1.0, seed=seed)
        assert len(drawn) == 6 and {c.kind for c in drawn} == set(KINDS)
        assert all((c.rank, c.strength, c.written) == (2, 2.0, 0.5) for c in drawn)
        bundles = {}
        for c in drawn:
            bundles.setdefault(c.direction, []).append(c)
        size = {"nothing": 1, "writer": 2, "reader": 2, "kinds": 3}[sharing]
        assert {len(b) for b in bundles.values()} == {size}
        for end in ("writer", "reader"):
            heads = [h for b in bundles.values() for h in {getattr(c, end) for c in b}]
            assert len(heads) == len(set(heads))
        _, there = plant(condition.noise, drawn, seed=seed)
        assert len(there) == 6
    assert drawn == recovery.draw_channels(condition, 1.0, seed=4)


def test_an_unknown_way_of_sharing():
    with pytest.raises(CompanionError, match="sharing is 'all': expected one of nothing, writer"):
        recovery.draw_channels(Condition("x", sharing="all"), 1.0, seed=0)


@pytest.mark.parametrize(
    "wrong", [dict(layers=1), dict(heads=1, layers=2), dict(layers=1, heads=1)]
)
def test_no_room_for_six_channels(wrong):
    with pytest.raises(CompanionError, match="layers of .* heads: expected room for six channels"):
        recovery.draw_channels(Condition("x", replace(SMALL, **wrong)), 1.0, seed=0)


def test_conditions_change_one_thing_at_a_time():
    for condition in recovery.conditions():
        assert condition.noise.layers == PLAIN.noise.layers
        assert condition.noise.heads == PLAIN.noise.heads


def test_conditions_have_names_of_their_own():
    names = [condition.name for condition in recovery.conditions()]
    assert names[0] == PLAIN.name and len(set(names)) == len(names)


def test_outcomes():
    scores = np.array([[0.9, 0.1, 0.8], [0.7, 0.2, 0.3]])
    planted = np.array([[True, False, False], [True, False, False]])
    result = recovery.outcome(scores, scores > 0.75, planted)
    assert (result.planted, result.hits, result.alarms, result.first) == ((1, 1), (1, 0), 2, 1)
    assert result.average_precision == pytest.approx((1 + 2 / 3) / 2)
    perfect = recovery.outcome(planted.astype(float), planted, planted)
    assert (perfect.first, perfect.average_precision, perfect.hits) == (2, 1.0, (1, 1))
    assert math.isnan(recovery.outcome(scores, scores > 1, scores > 1).average_precision)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (3, 120, 0.0052, 0.0713), (5, 10, 0.1871, 0.8129), (48, 48, 0.926, 1)],
)
def test_exact_intervals(hits, trials, low, high):
    """Clopper and Pearson's tables."""
    found = recovery.share_of(hits, trials)
    assert found == pytest.approx((hits / trials, low, high), abs=1e-4)


def test_shares_of_nothing():
    for hits, trials in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(CompanionError, match=f"hits = {hits} of trials = {trials}"):
            recovery.share_of(hits, trials)


def test_thresholds_come_from_models_of_their_own():
    noise = replace(SMALL, layers=3)
    levels = recovery.calibrate(noise, 8, seed=0, rate=0.25)
    assert set(levels) == set(DETECTORS)
    assert levels["component-chance"] == levels["component"]
    assert levels == recovery.calibrate(noise, 8, seed=0, rate=0.25)
    streams = {s: recovery._seeds(s, 0, 50) for s in recovery._STREAMS}
    assert len({x for seeds in streams.values() for x in seeds}) == 50 * len(streams)
    table = recovery.false_alarms(noise, 4, levels, seed=0)
    assert len(table["alarm"]) == 4 * (len(CALCULATED) + len(recovery.LEARNED))
    for name, chance in zip(table["detector"], table["chance"], strict=True):
        assert (chance is None) == (name in recovery.LEARNED)


def test_a_curve_rises():
    condition = Condition("small", SMALL)
    cases = recovery.measure([(condition, s) for s in (0.1, 6.0)], 3, {"path": 0.2}, seed=0)
    table = recovery.curve_table(cases, seed=0)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    by = {(row["detector"], row["strength"]): row for row in rows}
    assert {d for d, _ in by} == {*CALCULATED, "component-chance", "path"}
    for name in ("component", "whole", "sums"):
        weak, strong = by[name, 0.1], by[name, 6.0]
        assert weak["recall"] < 0.3 and strong["recall"] == 1 and strong["precision"] >= 0.9
        assert strong["recall_low"] <= strong["recall"] <= strong["recall_high"]
        assert strong["channels"] == 18 and strong["models"] == 3
        exact = recovery.recall(cases[1], name)
        assert strong["recall"] == exact.value and exact.low == pytest.approx(0.025 ** (1 / 18))
    difference = recovery.gain(cases[1], "component", "whole", seed=0)
    assert tuple(difference) == (0, 0, 0)


def test_learned_thresholds_beside_calculated_ones():
    """A threshold at the calculated one finds what that finds; none is missed at the lowest."""
    pairs = 3 * 4 * 4 * 6
    condition = Condition("small", SMALL)
    same = {name: -recovery.RATE / pairs * (1 + 1e-9) for name in CALCULATED}
    for levels, expected in ((same, None), ({name: -math.inf for name in CALCULATED}, 6)):
        (case,) = recovery.measure([(condition, 2.5)], 2, levels, seed=0)
        for name in CALCULATED:
            for result in case.outcomes[name]:
                assert result.learned == (expected or sum(result.hits))
    gain = recovery.gain(case, "whole", "component", seed=0, learned=True)
    assert tuple(gain) == (0, 0, 0)
    assert recovery.curve_table([case], seed=0)["recall_learned"][0] == 1


def test_the_picture_knows_all_pairs():
    table = recovery.picture_table(4.0, seed=0)
    noise = PLAIN.noise
    pairs = noise.heads**2 * math.comb(noise.layers, 2)
    assert {len(column) for column in table.values()} == {pairs}
    assert sum(table["planted"]) == 6
    assert all(w // noise.heads < r // noise.heads
               for w, r in zip(table["writer"], table["reader"], strict=True))  # fmt: skip


def test_more_of_a_direction_is_kept_in_a_stronger_term():
    (weak, little), (strong, much) = (recovery.kept(s, 2, seed=0) for s in (0.5, 4.0))
    assert weak < strong <= 1 and strong > 0.9
    assert little == pytest.approx(0.25 / 16.25) and much == pytest.approx(0.5)
