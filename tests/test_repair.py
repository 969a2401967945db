"""Repairs: the numbers of full forward passes, and searches that find what was put there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import list_trees, models, repair, text_loss, unaided
from th_utils import repair_gains as gains
from th_utils import repair_study as study
from th_utils import weight_repair as weights
from th_utils.errors import CompanionError
from th_utils.patching import ComponentEdit, Replayed, edited_weights, run_edited, scale
from th_utils.runs import clean_run
from th_utils.steering import component_axes, coordinates, random_axes
from th_utils.svd import ov_svd
from th_utils.tasks import ioi, lists
from th_utils.weights import from_bridge

WORDS = ["ring", "book", "ball", "bone", "kiss", "snack"]
LENGTH, LISTS = 3, 2
PICKS = [(0, 1, 0), (0, 1, 3), (1, 2, 1)]


@pytest.fixture(scope="module", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def bridge(request):
    return models.load(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def trees(bridge):
    return list_trees.tree_run(bridge, drawn(bridge, LISTS, LENGTH), layer=1)


@pytest.fixture(scope="module")
def run(trees):
    return trees.run


def drawn(bridge, count, length, **how):
    return lists.prompts(bridge.tokenizer, count, length, words=WORDS, **how)


def close(found, expected, atol=1e-4):
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def said(bridge, prompts, edits, positions=None):
    """Log probabilities at the end by a whole forward pass."""
    logits, _ = run_edited(bridge, prompts.tokens, edits, positions=positions)
    return logits[torch.arange(len(prompts)), prompts.positions["end"]]


# --- trees


def test_a_tree_has_each_beginning_once():
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 8], [5, 6, 7, 7]])
    found = list_trees.tree(tokens, torch.tensor([3, 3, 2]))
    assert found.tokens.tolist() == [5, 6, 7, 8, 9, 8, 7]
    assert found.tokens[found.paths].equal(tokens)
    assert found.depth[found.paths].tolist() == [[0, 1, 2, 3]] * 3
    assert found.ends.tolist() == [3, 5, 2]
    for path in found.paths.tolist():
        for at, node in enumerate(path):
            assert found.seen[node].nonzero().flatten().tolist() == path[: at + 1]


@pytest.mark.parametrize("order", ["list", "shuffled"])
def test_a_tree_run_is_the_clean_run(bridge, order):
    prompts = drawn(bridge, 2, 4, order=order)
    found = list_trees.tree_run(bridge, prompts, layer=2).run
    expected = clean_run(bridge, prompts)
    for name in ("resid", "query", "z", "final", "final_scale", "logits"):
        close(getattr(found, name), getattr(expected, name))
    close(found.pattern["end"], expected.pattern["end"], 1e-5)
    assert found.correct.equal(expected.correct)
    for row, end in enumerate(prompts.positions["end"].tolist()):
        for name in ("keys", "values"):
            close(*(getattr(x, name)[:, row, : end + 1] for x in (found, expected)))


def test_trees_refuse_what_they_cannot_hold(bridge):
    prompts = drawn(bridge, 2, 3)
    with pytest.raises(CompanionError, match="not lists of 3 items"):
        list_trees.tree_run(bridge, prompts[:4], layer=1)
    with pytest.raises(CompanionError, match="layer 7 is out of range"):
        list_trees.tree_run(bridge, prompts, layer=7)


def test_edited_answers_are_those_of_the_edited_model(bridge, svd, trees):
    edits = [scale(svd, 1, 0, [0, 2], 4.0), scale(svd, 2, 3, [1], 0.0)]
    found = list_trees.edited_answers(bridge, trees, edits)
    with edited_weights(bridge, edits):
        expected = clean_run(bridge, trees.prompts)
    close(found.logits, expected.logits)
    close(found.logits, said(bridge, trees.prompts, edits).gather(-1, trees.prompts.answers))
    assert (found.top == trees.prompts.right).equal(expected.correct)
    assert float((found.logits - trees.run.logits).abs().max()) > 1e-2
    close(list_trees.edited_answers(bridge, trees, []).logits, trees.run.logits)
    with pytest.raises(CompanionError, match="layer 0: the clean run was kept for layers from 1"):
        list_trees.edited_answers(bridge, trees, [scale(svd, 0, 0, [0], 2.0)])


# --- points


def test_margin_and_score_by_hand(run):
    logits = torch.zeros(LENGTH * LISTS, 2, LENGTH)
    rows = torch.arange(LENGTH * LISTS)
    logits[rows, 0, run.prompts.target] = 2.0
    logits[rows, 1, (run.prompts.target + 1) % LENGTH] = 3.0
    assert repair.margins(logits, run.prompts).tolist() == [[2.0, -3.0]] * LENGTH * LISTS
    top = torch.stack([run.prompts.right, run.prompts.right + 1], dim=1)
    found = repair.scores(Replayed(logits, {}, top), run.prompts)
    close(found[0], torch.tensor([1.8808, 0.0474]))


@pytest.mark.parametrize("how", ["replace", "add"])
def test_points_put_are_a_full_forward(bridge, run, svd, how):
    axes = component_axes(svd, PICKS[:2])
    points = 3 * torch.randn(1, len(run.prompts), 2, generator=torch.Generator().manual_seed(1))
    points[0, 0] = torch.nan
    found = repair.put(bridge, run, axes, points, how)
    natural = coordinates(bridge, run, axes)
    value = torch.where(points[0].isnan(), 0.0 if how == "add" else natural, points[0])
    value = value + natural if how == "add" else value
    edit = ComponentEdit(0, 1, axes.directions, value=value)
    expected = said(bridge, run.prompts, [edit], run.prompts.positions["end"])
    close(found.logits[:, 0], expected.gather(-1, run.prompts.answers))
    assert found.top[:, 0].equal(expected.argmax(-1))
    close(found.logits[0, 0], run.logits[0])


def test_a_search_scores_every_point_it_tries(bridge, run, svd):
    axes = component_axes(svd, PICKS)
    natural = coordinates(bridge, run, axes)
    far = repair.reach(natural, 3.0)
    assert far.tolist() == [float(3 * ((natural.amax(0) - natural.amin(0)) / 2).max())] * 3
    within = repair.region(natural, "replace", far)
    found = repair.search(bridge, run, axes, within, how="replace", points=5, rounds=2, seed=3)
    assert found.points.shape == (1 + 5 + 3 + 3, 3) and found.points[0].isnan().all()
    assert found.scores.shape == (LISTS, LENGTH, 12)
    away = (found.points[1:6] - within.centre).abs()
    assert bool((away <= far).all()) and bool((away > 0.5 * far).any())
    each = found.points[:, None].expand(-1, len(run.prompts), -1)
    again = repair.scores(repair.put(bridge, run, axes, each, "replace"), run.prompts)
    for number in range(LISTS):
        for place in range(LENGTH):
            row = number * LENGTH + place
            assert int(run.prompts.target[row]) == place
            close(found.scores[number, place], again[row])
    best = found.points[1 + int(found.scores.mean((0, 1))[1:6].argmax())]
    assert bool(((found.points[6:9] - best).abs() <= repair.SHRINK * far + 1e-5).all())
    with pytest.raises(CompanionError, match="give at least 2"):
        repair.search(bridge, run, axes, within, how="add", points=1, rounds=0, seed=0)


def test_places_are_told_apart_as_far_as_their_own_lists_count():
    one = torch.tensor([[0.0, 1.0, 0.6], [0.0, 0.0, 0.5]])  # place, case
    scores = torch.stack([one, one])
    close(repair.pooled(scores, 1.0), one)
    close(repair.pooled(scores, 0.0), torch.tensor([[0.0, 0.5, 0.55]] * 2))
    points = torch.tensor([[torch.nan], [1.0], [2.0]])
    searched = repair.Searched(points, scores)
    assert repair.choose(searched, 1.0).by_place.tolist() == [[1.0], [2.0]]
    assert repair.choose(searched, 0.0).by_place.tolist() == [[2.0], [2.0]]
    assert repair.choose(searched, 1.0).common.tolist() == [2.0]
    assert repair.left_out_score(scores, 1.0) == pytest.approx(0.75)
    assert repair.left_out_score(scores, 0.0) == pytest.approx(0.55)
    # what one list says of itself is not used: here the other list is always wrong
    torn = torch.stack([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
    assert repair.left_out_score(torn, 1.0) == 0.0
    assert repair.left_out_score(torn[:1], 1.0) == 1.0


def test_place_gradients_are_slopes(bridge, run, svd):
    found = repair.place_gradients(bridge, run, 1)
    v = svd.V[1, 2][:, :1].mT
    outputs = coordinates(bridge, run, component_axes(svd, [(1, 2, 0)]))
    slopes = []
    for sign in (1, -1):
        edit = ComponentEdit(1, 2, v, value=outputs + sign * 0.02)
        logits = said(bridge, run.prompts, [edit], run.prompts.positions["end"])
        slopes.append(logits.log_softmax(-1).gather(-1, run.prompts.right[:, None])[:, 0])
    slope = (slopes[0] - slopes[1]) / 0.04
    expected = repair.means_by_place(slope, run.prompts.target, LENGTH)
    close(found @ v[0], expected, 2e-3)
    assert float(expected.abs().max()) > 5e-3


def test_turned_axes_are_written_by_the_head(bridge, run, svd):
    axes = repair.turned_axes(bridge, [run], svd, (1, 2), 2)
    close(axes.directions @ axes.directions.mT, torch.eye(2))
    V = svd.V[1, 2]
    close(axes.directions @ V @ V.mT, axes.directions)
    moved = repair.place_gradients(bridge, run, 1)
    moved = (moved - moved.mean(0)) @ V @ V.mT
    drawn_axes = random_axes(svd, axes, seed=0).directions
    assert float((moved @ axes.directions.mT).norm()) > float((moved @ drawn_axes.mT).norm())
    close((moved @ axes.directions.mT).norm(), moved.norm(), 1e-4)  # three places, two dimensions
    with pytest.raises(CompanionError, match="give 1 to 3"):
        repair.turned_axes(bridge, [run], svd, (1, 2), 9)


# --- nothing told


def test_readings_are_counted_from_what_they_always_say():
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    bias = torch.tensor([9.0, 0.0, -9.0])
    signal = torch.nn.functional.one_hot(target, 3) + bias
    assert signal.argmax(-1).tolist() == [0] * 6
    assert unaided.freed(signal, signal).argmax(-1).equal(target)


def test_closeness_finds_the_place_in_units_of_the_spread():
    known = torch.tensor([[0.0, -50.0], [1.0, 60.0], [0.2, 70.0], [1.2, -40.0]])
    target = torch.tensor([0, 1, 0, 1])
    found = unaided.closeness(torch.tensor([[0.1, 5.0], [1.1, 10.0]]), known, target, 2)
    assert found.argmax(-1).tolist() == [0, 1], "the wide axis says little"


def test_a_list_is_read_by_what_the_others_teach(bridge, run):
    n = LENGTH * LISTS
    odd = torch.zeros(n, LENGTH)
    odd[:LENGTH, 0] = 5.0  # the first list always says the first item, the second never does
    found = unaided.guesses_left_out({"x": odd}, run.prompts)["x"]
    assert found[:LENGTH].tolist() == [0] * LENGTH, "not freed of what only it says"
    known = unaided.guesses({"x": odd[:LENGTH]}, {"x": odd[:LENGTH]}, run.prompts.target, LENGTH)
    assert known["x"].tolist() == [0] * LENGTH
    alone = unaided.guesses_left_out({"x": odd[:LENGTH]}, run.prompts[:LENGTH])["x"]
    assert len(alone) == LENGTH


def test_attention_to_items(run):
    found = unaided.item_attention(run, [(1, 0), (2, 1)])
    row, item = 2, 1
    at = run.prompts.items[row, item]
    pattern = run.pattern["end"]
    close(found[row, item], (pattern[1, row, 0, at] + pattern[2, row, 1, at]) / 2)


@pytest.mark.parametrize("how", ["replace", "add"])
def test_rules_set_points(how):
    natural = torch.tensor([[1.0], [3.0]])
    chosen = repair.Chosen(torch.tensor([[10.0], [20.0]]), torch.tensor([7.0]))
    rules = unaided.rules({"x": torch.tensor([1, 0])}, natural, natural.mean(0), chosen, how)
    assert rules["place from x"].tolist() == [[20.0], [10.0]]
    assert rules["one point for all places"].tolist() == [[7.0], [7.0]]
    assert rules["nothing set"].isnan().all()
    moved = rules["deviation times 3"] + (natural if how == "add" else 0)
    assert moved.tolist() == [[-1.0], [5.0]]


# --- weights


def factors(svd, changes):
    found = torch.ones_like(svd.S)
    for at, value in changes.items():
        found[at] = value
    return found


def test_scaled_at_the_end_is_a_full_forward(bridge, run, svd):
    cases = [{(1, 0, 2): 3.0, (1, 0, 5): 0.0, (2, 3, 1): 3.0}, {(2, 2, 0): 9.0}, {}]
    scales = torch.stack([factors(svd, case) for case in cases])
    found = weights.scaled_at_end(bridge, run, svd, scales, layer=1)
    for case, each in enumerate(scales):
        edits = weights.edits_of(svd, each)
        assert len(edits) == (3, 1, 0)[case]
        expected = said(bridge, run.prompts, edits, run.prompts.positions["end"])
        close(found.logits[:, case], expected.gather(-1, run.prompts.answers))
        assert found.top[:, case].equal(expected.argmax(-1))
    assert float((found.logits[:, 0] - run.logits).abs().max()) > 1e-2
    small = weights.scaled_at_end(bridge, run, svd, scales, layer=1, memory=2**18)
    close(small.logits, found.logits)
    with pytest.raises(CompanionError, match="before 1 differ"):
        weights.scaled_at_end(bridge, run, svd, factors(svd, {(0, 0, 0): 2.0})[None], layer=1)


def test_scale_gradients_are_slopes(bridge, run, svd):
    found = weights.scale_gradients(bridge, run, svd, torch.ones_like(svd.S), layer=1)
    assert not found[0].any() and found.shape == svd.S.shape
    for at in [(1, 1, 0), (2, 0, 1)]:
        ends = []
        for sign in (1, -1):
            edits = weights.edits_of(svd, factors(svd, {at: 1 + sign * 0.02}))
            logits = said(bridge, run.prompts, edits, run.prompts.positions["end"])
            right = logits.log_softmax(-1).gather(-1, run.prompts.right[:, None])
            ends.append(float(right.mean()))
        assert float(found[at]) == pytest.approx((ends[0] - ends[1]) / 0.04, abs=2e-4)
    assert float(found.abs().max()) > 1e-3


def test_candidates_go_where_the_order_points():
    order = torch.tensor([[[0.5, -3.0, 2.0, 0.1]]])
    found = weights.candidates(order, torch.ones(1, 1, 4), [1, 2], [0.5, 2.0])
    assert found[:, 0, 0].tolist() == [
        [1.0, 0.5, 1.0, 1.0],
        [1.0, 0.0, 1.0, 1.0],
        [1.0, 0.5, 1.5, 1.0],
        [1.0, 0.0, 3.0, 1.0],
    ]


@pytest.mark.parametrize("finalists", [1, 2])
def test_a_search_scales_what_it_may(bridge, trees, svd, finalists):
    among = torch.zeros(svd.S.shape[:2], dtype=torch.bool)
    among[2, 1] = True
    how = dict(counts=(1, 3), steps=(2.0, 8.0), finalists=finalists)
    found = weights.search_scales(bridge, [trees], svd, among, **how)
    layer, head, _ = (found.scales != 1).nonzero().unbind(1)
    assert set(layer.tolist()) == {2} and set(head.tolist()) == {1}
    assert found.changed in (1, 3) and found.tried == 4
    order = weights.scale_gradients(bridge, trees.run, svd, torch.ones_like(svd.S), layer=1)
    cases = weights.candidates(
        torch.where(among[..., None], order, 0), torch.ones_like(svd.S), (1, 3), (2.0, 8.0)
    )
    at_end = weights.scaled_at_end(bridge, trees.run, svd, cases, layer=1)
    scores = repair.scores(at_end, trees.prompts).mean(0)
    if finalists == 1:
        assert found.score == pytest.approx(float(scores.max()), abs=1e-5)
        close(found.scales, cases[int(scores.argmax())])
    else:
        said_by = list_trees.edited_answers(bridge, trees, weights.edits_of(svd, found.scales))
        after = Replayed(said_by.logits[:, None], {}, said_by.top[:, None])
        expected = float(repair.scores(after, trees.prompts).mean())
        assert found.score == pytest.approx(expected, abs=1e-5)
    drawn_order = weights.search_scales(bridge, [trees], svd, among, **how, random=0)
    assert set((drawn_order.scales != 1).nonzero()[:, 0].tolist()) == {2}
    with pytest.raises(CompanionError, match="no head"):
        weights.search_scales(bridge, [trees], svd, torch.zeros_like(among), **how)


# --- price


def test_losses_are_cross_entropy(bridge, svd):
    tokens = ioi.prompts(bridge.tokenizer, 4, seed=2).tokens[:, :9]
    edits = [scale(svd, 1, 1, [0], 5.0)]
    price = text_loss.on_text(bridge, tokens, edits)
    for found, edit in ((price.before, []), (price.after, edits)):
        logits, _ = run_edited(bridge, tokens, edit)
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].mT, tokens[:, 1:], reduction="none"
        ).mean(-1)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert np.abs(price.after - price.before).max() > 1e-3


def test_price_on_names(bridge, svd):
    prompts = ioi.prompts(bridge.tokenizer, 6, seed=2)
    edits = [scale(svd, 1, 1, [0], 5.0)]
    difference, right = text_loss.on_names(bridge, prompts, edits)
    clean = clean_run(bridge, prompts)
    np.testing.assert_allclose(difference.before, ioi.pair_means(clean.logit_difference))
    after = said(bridge, prompts, edits)
    expected = after.gather(-1, prompts.answers)
    np.testing.assert_allclose(
        difference.after, ioi.pair_means(expected[:, 0] - expected[:, 1]), atol=1e-4
    )
    np.testing.assert_allclose(right.after, ioi.pair_means((after.argmax(-1) == prompts.io) * 1.0))


def test_price_table_has_a_row_for_each_measurement():
    one, two = (
        text_loss.Price(np.array([1.0, 2.0]), np.array([3.0, 5.0])),
        text_loss.Price(np.array([7.0]), np.array([6.0])),
    )
    table = text_loss.price_table(
        {"a": ("weights", {"m": one, "n": two}), "b": ("control", {"n": two})}
    )
    assert table == {
        "measure": ["m", "m", "n", "n"],
        "variant": ["a", "a", "a", "b"],
        "kind": ["weights"] * 3 + ["control"],
        "before": [1.0, 2.0, 7.0, 7.0],
        "after": [3.0, 5.0, 6.0, 6.0],
    }


# --- compared


def hits(*values: float) -> gains.Hits:
    """Lists of two items, both right or none, to the values given."""
    return {2: torch.tensor(values).double().repeat_interleave(2)}


def test_gains_are_over_lists():
    before, after = hits(0, 0, 1, 0), hits(1, 0, 1, 1)
    assert gains.per_list(after).tolist() == [1, 0, 1, 1]
    found = gains.gain(after, before, seed=0)
    assert found.value == 0.5 and 0 <= found.low < 0.5 < found.high <= 1
    assert gains.gain(before, before, seed=0) == (0, 0, 0)
    share = gains.gain_share(hits(1, 0, 1, 0), after, before, seed=0)
    assert share.value == pytest.approx(0.5)
    assert gains.gain_share(after, before, before, seed=0).value == pytest.approx(0.5 / gains.LEAST)
    mean = gains.mean_hits([before, after])
    assert gains.per_list(mean).tolist() == [0.5, 0, 1, 0.5]


def test_controls_are_over_lists_and_draws():
    before, whole = hits(0, 0, 0, 0), hits(1, 1, 1, 1)
    all_, none = hits(1, 1, 1, 1), hits(0, 0, 0, 0)
    found = gains.gain_of_draws([all_, none], before, seed=0)
    assert found == (0.5, 0.0, 1.0), "lists are alike: only the draws leave anything open"
    assert gains.share_of_draws([all_, none], whole, before, seed=0) == (0.5, 0.0, 1.0)
    one = gains.gain_of_draws([hits(1, 0, 1, 0)], before, seed=0)
    assert one.value == 0.5 and 0 <= one.low < 0.5 < one.high <= 1
    small = gains.share_of_draws([all_], before, before, seed=0)
    assert small.value == pytest.approx(1 / gains.LEAST)


def test_tables(run):
    each = {LENGTH: (run.prompts.target == 1).double()}
    none = {LENGTH: torch.zeros(LENGTH * LISTS).double()}
    table = gains.gains_table({"a": ("steering", each), "b": ("control", none)}, none, seed=0)
    assert table["mean"] == [pytest.approx(1 / 3), 0] and table["kind"] == ["steering", "control"]
    half = gains.gains_table({"c": ("control", [each, none])}, none, seed=0)
    assert half["mean"] == [pytest.approx(1 / 6)]
    table = gains.lengths_table({"p": {"a": ("clean", each)}}, seed=0)
    assert table["length"] == [LENGTH] and table["panel"] == ["p"]
    table = gains.places_table({"a": ("clean", each)}, {LENGTH: run})
    assert table["place"] == [1, 2, 3] and table["accuracy"] == [0, 1, 0]


def test_a_study_from_search_to_gain(bridge, trees, run, svd):
    axes = component_axes(svd, PICKS)
    options = [study.Option(1, "add", 3.0), study.Option(3, "replace", 8.0)]
    found = study.search(bridge, {LENGTH: run}, axes, options, points=6, rounds=1, seed=0)
    assert set(found.scores) == set(options) and found.option in options
    assert found.scores[found.option] == max(found.scores.values())
    assert len(found.axes) == found.option.axes and found.own in study.OWN_WEIGHTS
    before = study.clean_hits({LENGTH: run})
    assert before[LENGTH].equal(run.correct.double())
    told = study.told(bridge, {LENGTH: run}, found)
    points = found.points[LENGTH].by_place[run.prompts.target][None]
    after = repair.put(bridge, run, found.axes, points, found.option.how)
    assert told[LENGTH].equal((after.top[:, 0] == run.prompts.right).double())
    rules, best = study.untold(bridge, {LENGTH: run}, {LENGTH: run}, found, [(2, 0), (2, 1)])
    assert best in rules and rules["nothing set"][LENGTH].equal(before[LENGTH])
    natural = study.natural_points(bridge, {LENGTH: run}, {LENGTH: run}, axes)
    assert natural[LENGTH].shape == told[LENGTH].shape
    among = study.among_items({LENGTH: run})[LENGTH]
    assert among == pytest.approx(
        float((run.logits.argmax(-1) == run.prompts.target).float().mean())
    )
    edits = [scale(svd, 1, 0, [0], 6.0)]
    edited = study.edited(bridge, {LENGTH: trees}, edits)
    top = said(bridge, run.prompts, edits).argmax(-1)
    assert edited[LENGTH].equal((top == run.prompts.right).double())


def test_random_directions_are_searched_as_far_out(bridge, run, svd):
    axes = component_axes(svd, PICKS)
    drawn_axes = random_axes(svd, axes, seed=1)
    option = [study.Option(3, "add", 5.0)]
    how = dict(points=16, rounds=0, seed=0)
    found = study.search(bridge, {LENGTH: run}, drawn_axes, option, **how, like=axes)
    far = float(study.reaches(bridge, {LENGTH: run}, axes, 5.0)[LENGTH])
    placed = found.points[LENGTH].by_place.nan_to_num(0).abs().max()
    assert 0.2 * far < float(placed) <= far
