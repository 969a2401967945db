"""How well a blind search finds planted channels (chapter 11).

Every model here is random; places, directions and noise are drawn anew for each, from seeds that
calibration, curves and controls do not share. Along a curve the same models return with stronger
channels. Intervals are bootstrap intervals over models, since channels of one model share its
noise; shares near 0 or 1 have exact binomial ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils.bootstrap import Interval, bootstrap, mean_interval
from th_utils.composition import KINDS, Kind
from th_utils.errors import CompanionError
from th_utils.planted import Channel, Head, Noise, Planted, noise_weights, plant
from th_utils.progress import track
from th_utils.search import CALCULATED, DETECTORS, Search, search
from th_utils.svd import ov_svd
from th_utils.weights import AttentionWeights, Rotary

RATE = 0.05  # chance of any false alarm in a model
# From a term that carries next to nothing to one with half of the head's squared norm; half octaves
# from 1/4.
STRENGTHS = (1 / 16, 1 / 8, *(0.25 * 2 ** (i / 2) for i in range(9)))
# "component-chance" ranks by the chance that the alarms of "component" go by.
_CHANCE_OF = {"component-chance": "component"}
LEARNED = tuple(name for name in DETECTORS if name not in (*CALCULATED, *_CHANCE_OF))

_TRIES = 1000  # to find free places for a channel

_STREAMS = {"calibration": 1, "curve": 2, "control": 3, "picture": 4}


@dataclass(frozen=True)
class Condition:
    """What the planted channels, and the noise around them, are like.

    Attributes:
        name: for tables and figures.
        noise: what the channels are planted in.
        rank: directions of each channel.
        in_writer, in_reader: strength there, as a multiple of the strength asked for.
        sharing: "nothing", or pairs of channels with one "writer" or one "reader", or triples from
            one writer to one reader that differ in their "kinds" alone; all along one direction.
    """

    name: str
    noise: Noise = field(default_factory=Noise)
    rank: int = 1
    in_writer: float | int = 1.0
    in_reader: float | int = 1.0
    sharing: str = "nothing"


PLAIN = Condition("one direction")


def conditions() -> list[Condition]:
    """The plain condition, and what might make a channel harder to find, one thing at a time.

    >>> [condition.name for condition in conditions()][:3]
    ['one direction', 'two directions', 'three directions']
    """
    plain = PLAIN.noise
    grouped = Noise(kv_heads=plain.heads // 4, rotary=Rotary(base=10000.0, dims=plain.d_head))
    wide = Noise(d_model=plain.d_model * 3, d_head=plain.d_head * 3)
    return [
        PLAIN,
        Condition("two directions", rank=2),
        Condition("three directions", rank=3),
        Condition("a quarter of it in the writer", in_writer=0.25),
        Condition("a quarter of it in the reader", in_reader=0.25),
        Condition("one writer, two readers", sharing="writer"),
        Condition("two writers, one reader", sharing="reader"),
        Condition("one pair by Q, K and V", sharing="kinds"),
        Condition("noise: all components alike", noise=Noise(decay=1.0)),
        Condition("noise: steeper spectrum", noise=Noise(decay=300.0)),
        Condition("centred, as by LayerNorm", noise=Noise(centred=True)),
        Condition("grouped keys, rotary", noise=grouped),
        Condition("three times as wide", noise=wide),
    ]


def draw_channels(
    condition: Condition, strength: float, *, seed: int, kinds: Sequence[Kind] = KINDS
) -> list[Channel]:
    """Six channels at random places, as many of each kind; no head writes or reads for two.

    Where channels share a writer, a reader or both, they are two or three that hang together.

    Raises:
        CompanionError: an unknown way of sharing, or a model with too few heads or layers.

    >>> drawn = draw_channels(PLAIN, 1.0, seed=0)
    >>> [channel.kind for channel in drawn]
    ['Q', 'K', 'V', 'Q', 'K', 'V']
    """
    rng = np.random.default_rng(seed)
    noise = condition.noise
    heads = [(layer, head) for layer in range(noise.layers) for head in range(noise.heads)]
    shape = {"nothing": (1, 1, 1), "writer": (1, 2, 1), "reader": (2, 1, 1), "kinds": (1, 1, 3)}
    if condition.sharing not in shape:
        raise CompanionError(
            f"sharing is {condition.sharing!r}: expected one of {', '.join(shape)}"
        )
    n_writers, n_readers, n_kinds = shape[condition.sharing]
    found: list[Channel] = []
    busy: dict[str, set[Head]] = {"writer": set(), "reader": set()}
    for bundle in range(6 // (n_writers * n_readers * n_kinds)):
        for _ in range(_TRIES):
            if len(heads) < n_writers + n_readers:
                continue
            picked = [heads[i] for i in rng.choice(len(heads), n_writers + n_readers, False)]
            writers, readers = picked[:n_writers], picked[n_writers:]
            fits = max(writers)[0] < min(readers)[0]
            if fits and not busy["writer"] & {*writers} and not busy["reader"] & {*readers}:
                break
        else:
            raise CompanionError(
                f"{noise.layers} layers of {noise.heads} heads: expected room for six channels, "
                "none of whose heads writes or reads for two"
            )
        busy["writer"] |= {*writers}
        busy["reader"] |= {*readers}
        for kind in KINDS if n_kinds == 3 else (kinds[bundle % len(kinds)],):
            found += [
                Channel(
                    writer,
                    reader,
                    kind,
                    strength=strength * condition.in_reader,
                    rank=condition.rank,
                    written=strength * condition.in_writer,
                    direction=f"{bundle}",
                )
                for writer in writers
                for reader in readers
            ]
    return found


def model(
    condition: Condition, strength: float, *, seed: int
) -> tuple[AttentionWeights, list[Planted]]:
    """One random model with channels, in single precision as the models of the book are.

    >>> weights, there = model(PLAIN, 1.0, seed=0)
    >>> weights.W_Q.dtype, len(there)
    (torch.float32, 6)
    """
    weights, there = plant(
        condition.noise, draw_channels(condition, strength, seed=seed), seed=seed
    )
    return weights.to(torch.float32), there


def truth(found: Search, there: Iterable[Planted]) -> Bool[np.ndarray, "kind pair"]:
    """Which of the pairs that a search compared hold a channel.

    >>> tiny = Noise(layers=2, heads=2, d_model=32, d_head=4)
    >>> weights, there = plant(tiny, [Channel((0, 0), (1, 1), "K")], seed=0)
    >>> truth(search(weights), there).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    """
    at = {pair: i for i, pair in enumerate(map(tuple, found.pairs.tolist()))}
    mask = np.zeros((len(KINDS), len(at)), dtype=bool)
    for channel in there:
        mask[KINDS.index(channel.kind), at[*channel.writer, *channel.reader]] = True
    return mask


@dataclass(frozen=True)
class Outcome:
    """What one detector made of one model.

    Attributes:
        planted, hits: channels there, and those of them with an alarm; for Q, K and V.
        alarms: raised in all.
        first: planted channels among as many of the highest scores as there are channels.
        average_precision: mean, over the channels, of the precision of a list that ends there.
        learned: channels found at the threshold that models without channels taught; None where
            there is none.
    """

    planted: tuple[int, ...]
    hits: tuple[int, ...]
    alarms: int
    first: int
    average_precision: float
    learned: int | None = None


def outcome(
    scores: Float[np.ndarray, "kind pair"],
    alarms: Bool[np.ndarray, "kind pair"],
    planted: Bool[np.ndarray, "kind pair"],
) -> Outcome:
    """Compare one detector's scores and alarms with the truth.

    >>> scores = np.array([[0.9, 0.1, 0.8, 0.2]])
    >>> planted = np.array([[True, True, False, False]])
    >>> outcome(scores, scores > 0.5, planted)
    Outcome(planted=(2,), hits=(1,), alarms=2, first=1, average_precision=0.75, learned=None)
    """
    order = np.argsort(-scores.ravel(), kind="stable")
    right = planted.ravel()[order]
    n = int(right.sum())
    places = np.flatnonzero(right) + 1
    return Outcome(
        planted=tuple(int(x) for x in planted.sum(1)),
        hits=tuple(int(x) for x in (planted & alarms).sum(1)),
        alarms=int(alarms.sum()),
        first=int(right[:n].sum()),
        average_precision=float((np.arange(1, n + 1) / places).mean()) if n else float("nan"),
    )


def _examine(
    found: Search, there: Iterable[Planted], thresholds: dict[str, float]
) -> dict[str, Outcome]:
    """What every detector with a threshold, calculated or learned, made of one model."""
    planted = truth(found, there)
    results = {}
    for name, scores in found.scores.items():
        learned = None
        if name in thresholds:
            learned = (_alarming(found, name) > thresholds[name]).numpy()
        if name in LEARNED:
            alarms = learned
        else:
            alarms = found.alarms(_CHANCE_OF.get(name, name), RATE).numpy()
        if alarms is None:
            continue
        result = outcome(scores.numpy(), alarms, planted)
        hits = None if learned is None else int((planted & learned).sum())
        results[name] = replace(result, learned=hits)
    return results


def _alarming(found: Search, detector: str) -> Float[Tensor, "kind pair"]:
    """What alarms go by, higher for the more suspicious: chances where they are calculated."""
    name = _CHANCE_OF.get(detector, detector)
    return -found.chances[name] if name in CALCULATED else found.scores[name]


def calibrate(noise: Noise, models: int, *, seed: int, rate: float = RATE) -> dict[str, float]:
    """Thresholds for all detectors from models without channels.

    The highest score of each model is kept (minus the lowest chance, where chances are
    calculated); the threshold leaves `rate` of the models above it. Knowing what noise to expect is
    a help that the calculated thresholds do without. But those stay below their stated rate by
    different amounts: detectors are compared like with like at learned thresholds only.

    >>> tiny = Noise(layers=2, heads=2, d_model=32, d_head=4)
    >>> levels = calibrate(tiny, 2, seed=0)
    >>> tuple(levels) == DETECTORS, levels["component"] < 0 < levels["weighted"]
    (True, True)
    """
    highest = [
        [float(_alarming(found, name).max()) for name in DETECTORS]
        for found in _searches(noise, models, "calibration", seed)
    ]
    levels = np.quantile(np.array(highest), 1 - rate, axis=0)
    return dict(zip(DETECTORS, map(float, levels), strict=True))


@dataclass(frozen=True)
class Case:
    """What all detectors made of the models of one condition and strength, model by model."""

    condition: str
    strength: float
    outcomes: dict[str, list[Outcome]]


def measure(
    cases: Sequence[tuple[Condition, float]],
    models: int,
    thresholds: dict[str, float],
    *,
    seed: int,
) -> list[Case]:
    """Plant, search and compare: `models` models for each condition and strength.

    All conditions use the same seeds: where they share the noise, they share it model by model.

    >>> (case,) = measure([(PLAIN, 4.0)], 1, {}, seed=0)
    >>> case.outcomes["component"][0].hits
    (2, 2, 2)
    """
    found = []
    for condition, strength in track(cases, "planted channels"):
        outcomes: dict[str, list[Outcome]] = {}
        for one in _seeds("curve", seed, models):
            weights, there = model(condition, strength, seed=one)
            for name, result in _examine(search(weights), there, thresholds).items():
                outcomes.setdefault(name, []).append(result)
        found.append(Case(condition.name, strength, outcomes))
    return found


def curve_table(cases: Iterable[Case], *, seed: int) -> dict[str, list]:
    """Recall and precision of all detectors, with bootstrap intervals over models.

    Returns:
        Columns: condition, strength, detector; recall (at the threshold), precision (among as many
        of the highest scores as there are channels), ap (average precision), each with _low and
        _high; recall_Q, recall_K, recall_V; recall_learned (at the threshold that models without
        channels taught, None without one); alarms_right (share of alarms that are right, None
        without alarms), channels (number, in all models), models.

    >>> result = outcome(np.eye(3), np.eye(3) > 0, np.eye(3) > 0)
    >>> table = curve_table([Case("a", 1.0, {"whole": [result] * 2})], seed=0)
    >>> table["recall"], table["recall_low"], table["recall_learned"], table["channels"]
    ([1.0], [1.0], [None], [6])
    """
    rows = [
        dict(condition=case.condition, strength=case.strength, detector=name)
        | _summary(results, seed)
        for case in cases
        for name, results in case.outcomes.items()
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def gain(case: Case, detector: str, than: str, *, seed: int, learned: bool = False) -> Interval:
    """Recall of one detector less that of another on the same models.

    At calculated thresholds, or at learned ones, which the interval takes as known.

    >>> eye = np.eye(3) > 0
    >>> all_found, none_found = (outcome(np.eye(3), eye & found, eye) for found in (True, False))
    >>> case = Case("a", 1.0, {"component": [all_found] * 2, "whole": [none_found] * 2})
    >>> tuple(gain(case, "component", "whole", seed=0))
    (1.0, 1.0, 1.0)
    """
    hits, other = (
        np.array([r.learned if learned else sum(r.hits) for r in case.outcomes[name]])
        for name in (detector, than)
    )
    planted = np.array([sum(r.planted) for r in case.outcomes[than]])
    return _share(hits - other, planted, seed)


def half_found(table: dict[str, list], detector: str) -> float | None:
    """The strength from which half of the channels are found, on the logarithmic scale.

    Between two strengths of a curve the share is taken to rise evenly. None where it never falls
    below one half, or never reaches it.

    >>> table = dict(detector=["a"] * 3, strength=[0.5, 1.0, 2.0], recall=[0.0, 0.25, 0.75])
    >>> round(half_found(table, "a"), 3)
    1.414
    """
    at = [i for i, name in enumerate(table["detector"]) if name == detector]
    log = np.log([table["strength"][i] for i in at])
    share = np.array([table["recall"][i] for i in at])
    below = np.flatnonzero(share < 0.5)
    if not len(below) or below[-1] == len(at) - 1:
        return None
    i = below[-1]
    part = (0.5 - share[i]) / (share[i + 1] - share[i])
    return float(np.exp(log[i] + part * (log[i + 1] - log[i])))


def recall(case: Case, detector: str) -> Interval:
    """Share of the planted channels for which a detector raises its alarm, see `share_of`.

    >>> result = outcome(np.eye(3), np.eye(3) > 0, np.eye(3) > 0)
    >>> round(recall(Case("a", 1.0, {"whole": [result] * 2}), "whole").low, 3)
    0.541
    """
    results = case.outcomes[detector]
    return share_of(sum(sum(r.hits) for r in results), sum(sum(r.planted) for r in results))


def share_of(hits: int, trials: int, *, level: float = 0.95) -> Interval:
    """A share with its exact binomial interval (Clopper and Pearson 1934).

    For shares near 0 or 1: resampling what never failed says that it never will.

    Raises:
        CompanionError: no trials, or more hits than trials.

    >>> tuple(round(x, 3) for x in share_of(20, 20))
    (1.0, 0.832, 1.0)
    """
    if not 0 <= hits <= trials or trials == 0:
        raise CompanionError(f"hits = {hits} of trials = {trials}: expected 0 to trials, not none")
    log_ways = [math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
                for k in range(trials + 1)]  # fmt: skip

    def at_least(k: int, p: float) -> float:
        logs = [log_ways[j] + j * math.log(p) + (trials - j) * math.log1p(-p)
                for j in range(k, trials + 1)]  # fmt: skip
        return math.fsum(map(math.exp, logs))

    def level_of(k: int, chance: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if at_least(k, middle) < chance else (low, middle)
        return middle

    tail = (1 - level) / 2
    low = level_of(hits, tail) if hits else 0.0
    high = level_of(hits + 1, 1 - tail) if hits < trials else 1.0
    return Interval(hits / trials, low, high)


def _summary(results: Sequence[Outcome], seed: int) -> dict[str, Any]:
    planted, hits = (np.array([getattr(r, n) for r in results]) for n in ("planted", "hits"))
    first = np.array([r.first for r in results])
    alarms = sum(r.alarms for r in results)
    numbers: dict[str, Any] = {}
    for name, interval in (
        ("recall", _share(hits.sum(1), planted.sum(1), seed)),
        ("precision", _share(first, planted.sum(1), seed)),
        ("ap", mean_interval(np.array([r.average_precision for r in results]), seed=seed)),
    ):
        low, high = interval.low, interval.high
        numbers |= {name: interval.value, f"{name}_low": low, f"{name}_high": high}
    for i, kind in enumerate(KINDS):
        numbers[f"recall_{kind}"] = float(hits[:, i].sum() / planted[:, i].sum())
    found = [r.learned for r in results if r.learned is not None]
    numbers["recall_learned"] = float(sum(found) / planted.sum()) if found else None
    numbers["alarms_right"] = float(hits.sum() / alarms) if alarms else None
    return numbers | dict(channels=int(planted.sum()), models=len(results))


def _share(part: np.ndarray, whole: np.ndarray, seed: int) -> Interval:
    """Summed part over summed whole, with its interval over models."""
    return bootstrap(
        lambda a, b: a.sum(-1) / b.sum(-1),
        [part.astype(float), whole.astype(float)],
        seed=seed,
        batched=True,
    )


def false_alarms(
    noise: Noise, models: int, thresholds: dict[str, float], *, seed: int
) -> dict[str, list]:
    """What the search says of models in which nothing is planted.

    Returns:
        Columns: detector, model, chance (of the most improbable pair, times the number of pairs:
        the lowest rate at which the detector raises an alarm; None where it is not calculated),
        alarm (at the stated rate; for the others at the threshold they are given).

    >>> tiny = Noise(layers=2, heads=2, d_model=32, d_head=4)
    >>> table = false_alarms(tiny, 1, {}, seed=0)
    >>> table["detector"], table["alarm"][1]
    (['whole', 'component', 'sums', 'aligned'], False)
    """
    rows = []
    for i, found in enumerate(_searches(noise, models, "control", seed)):
        for name in CALCULATED:
            chance = float(found.chances[name].min()) * found.chances[name].numel()
            rows.append((name, i, min(chance, 1.0), chance <= RATE))
        for name in LEARNED:
            if name in thresholds:
                raised = bool(found.scores[name].max() > thresholds[name])
                rows.append((name, i, None, raised))
    names = ("detector", "model", "chance", "alarm")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def alarm_rate(table: dict[str, list], detector: str) -> Interval:
    """Share of the models of `false_alarms` in which a detector raises an alarm.

    >>> alarm_rate({"detector": ["whole"] * 4, "alarm": [True, False, False, False]}, "whole").value
    0.25
    """
    said = zip(table["detector"], table["alarm"], strict=True)
    raised = [alarm for name, alarm in said if name == detector]
    return share_of(sum(raised), len(raised))


def picture_table(strength: float, *, seed: int) -> dict[str, list]:
    """Every pair of one model with six channels into queries: scores, truth and alarms.

    Returns:
        Columns: writer, reader (counted through layers and heads), whole, component (scores),
        planted, whole_alarm, component_alarm.

    >>> table = picture_table(1.0, seed=0)
    >>> sum(table["planted"]), len(table["writer"])
    (6, 960)
    """
    (one,) = _seeds("picture", seed, 1)
    noise = PLAIN.noise
    channels = draw_channels(PLAIN, strength, seed=one, kinds=("Q",))
    weights, there = plant(noise, channels, seed=one)
    found = search(weights.to(torch.float32))
    layer, head, reader_layer, reader_head = found.pairs.T
    columns: dict[str, Any] = dict(
        writer=(layer * noise.heads + head).tolist(),
        reader=(reader_layer * noise.heads + reader_head).tolist(),
        planted=truth(found, there)[0].tolist(),
    )
    for name in ("whole", "component"):
        columns[name] = found.scores[name][0].tolist()
        columns[f"{name}_alarm"] = found.alarms(name, RATE)[0].tolist()
    return columns


def kept(strength: float, models: int, *, seed: int) -> tuple[float, float]:
    """How much of a planted direction the nearest component holds: medians in writer and reader.

    The squared overlap of the direction with the writer's component nearest to it, and the share of
    the planted term in the reader's squared norm.

    >>> held, share = kept(4.0, 1, seed=0)
    >>> held > 0.9, round(share, 3)
    (True, 0.5)
    """
    held, share = [], []
    for one in _seeds("curve", seed, models):
        weights, there = model(PLAIN, strength, seed=one)
        V = ov_svd(weights).V.double()
        for channel in there:
            overlaps = V[channel.writer].T @ channel.directions
            held.append(float((overlaps**2).max()))
            share.append(channel.read**2 / (weights.d_head + channel.read**2))
    return float(np.median(held)), float(np.median(share))


def _searches(noise: Noise, models: int, stream: str, seed: int) -> Iterable[Search]:
    for one in track(_seeds(stream, seed, models), f"models without channels: {stream}"):
        yield search(noise_weights(noise, seed=one).to(torch.float32))


def _seeds(stream: str, seed: int, models: int) -> list[int]:
    """Seeds of models; those of two streams have nothing in common."""
    state = np.random.SeedSequence([seed, _STREAMS[stream]]).generate_state(models)
    return [int(x) for x in state]
