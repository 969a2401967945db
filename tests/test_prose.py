"""Sentences say what their tables say: other numbers, other words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.components import SenderEffects
from th_utils.prose import channels, circuit, components, planted
from th_utils.roles import CRITERIA, ROLES, Roles


def some_roles(source="measured", scores=None, controls=None, **heads) -> Roles:
    found = {r: heads.get(r.replace("-", "_"), []) for r in ROLES}
    return Roles(source, found, scores or {}, controls or {})


def changed(table: dict, column: str, row: int, value) -> dict:
    """The table with one number exchanged."""
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


# --- chapter 01


TASK = {
    "template": [0, 3, 3],
    "order": ["both", "ABBA", "BABA"],
    "prompts": [64, 32, 32],
    "mean": [2.14, 1.32, 3.48],
    "low": [1.87, 1.0, 3.0],
    "high": [2.51, 1.7, 4.0],
    "preferred": [0.93, 0.9, 0.96],
    "top": [0.61, 0.5, 0.7],
}


@pytest.mark.parametrize(
    "column, row, value, said",
    [
        ("prompts", 0, 128, "Over 128 held-out prompts"),
        ("mean", 0, 7.77, "difference is 7.8 nats"),
        ("low", 0, 0.55, "0.6 to 2.5"),
        ("high", 0, 9.91, "1.9 to 9.9"),
        ("mean", 1, -0.52, "between -0.5 and 3.5"),
        ("mean", 2, 6.66, "between 1.3 and 6.7"),
        ("preferred", 0, 0.28, "in 28% of the prompts"),
        ("top", 0, 0.05, "vocabulary in 5%"),
    ],
)
def test_task(column, row, value, said):
    text = circuit.task(TASK)
    assert said not in text
    assert said in circuit.task(changed(TASK, column, row, value))
    assert "difference is 2.1 nats (95% interval 1.9 to 2.5), between 1.3 and 3.5" in text


DLA = {"name": ["0.0", "0.1", "1.0", "1.1"], "mean": [0.04, 2.5, -3.0, -0.2]}


def test_attribution():
    text = circuit.attribution(DLA)
    assert text.startswith("Head 0.1 writes most for the indirect object, 2.50 nats; ")
    assert "2 of 4 heads write less than a tenth" in text, "a large negative head writes much"
    text = circuit.attribution(changed(DLA, "mean", 0, 5.0))
    assert text.startswith("Head 0.0 writes most for the indirect object, 5.00 nats; 1 of 4")


def test_shares():
    roles = some_roles(mover=[(0, 1)], negative_mover=[(1, 0)])
    text = circuit.shares(DLA, roles, (0.62, 0.5, 0.7), "fig-x")
    assert "{numref}`fig-x`" in text
    assert "write on average 62% of all that heads write directly for the indirect object" in text
    assert text.endswith("Negative movers by the criterion below: 1.0.")
    text = circuit.shares(DLA, some_roles(), (0.4, 0.3, 0.5), "fig-x")
    assert "write on average 40% of all" in text and text.endswith("criterion below: none.")


ATTENTION = {
    "role": ["mover", "mover", "induction"],
    "name": ["9.9", "9.6", "5.5"],
    "end>IO": [0.71, 0.5, 0.0],
    "end>S2": [0.01, 0.0, 0.0],
    "S2>S1+1": [0.0, 0.0, 0.83],
}


def test_attention_of_the_strongest_head_of_each_role():
    text = circuit.attention(ATTENTION)
    assert "mover head 9.9 gives 71% of its attention from end to IO" in text
    assert "induction head 5.5 gives 83% of its attention from S2 to S1+1" in text
    assert "9.6" not in text and "inhibition" not in text
    assert "9.9 gives 22%" in circuit.attention(changed(ATTENTION, "end>IO", 0, 0.22))


def test_roles_map():
    roles = ["mover", "negative-mover", "inhibition", "induction", "previous-token"]
    table = {"role": roles, "again": [True, False, True, False, True]}
    text = circuit.roles_map(table)
    assert text.startswith("3 of 5 heads with a role are found again")
    assert "2 of 3 among those whose score depends on the task" in text
    text = circuit.roles_map(changed(table, "again", 3, True))
    assert text.startswith("4 of 5 heads") and "2 of 3 among those" in text
    text = circuit.roles_map(changed(table, "again", 1, True))
    assert text.startswith("4 of 5 heads") and "3 of 3 among those" in text


def test_newcomers():
    found = some_roles(mover=[(9, 9), (9, 6)], inhibition=[(7, 3)])
    again = some_roles(mover=[(9, 9), (10, 0)], inhibition=[], induction=[(7, 3), (5, 5)])
    assert circuit.newcomers(found, again) == (
        "Found on the second half only: 10.0 (mover), 7.3 (induction), 5.5 (induction)."
    )
    assert circuit.newcomers(found, found) == "Found on the second half only: none."
    assert circuit.newcomers(found, some_roles()) == "Found on the second half only: none."


def test_roles_table_lists_heads_scores_and_controls():
    found = some_roles(
        scores={"mover": [2.5, 0.125]},
        controls={"mover": 0.0567},
        mover=[(9, 9), (10, 0)],
        induction=[(5, 5)],
    )
    lines = circuit.roles_table(found).splitlines()
    assert len(lines) == 2 + len(ROLES)
    for role, line in zip(ROLES, lines[2:], strict=True):
        assert line.startswith(f"| {role} | {CRITERIA[role]} |") and line.count("|") == 5
    by_role = dict(zip(ROLES, lines[2:], strict=True))
    assert "| 9.9 (2.50), 10.0 (0.12) | 0.057 |" in by_role["mover"]
    assert by_role["induction"].endswith("| 5.5 |  |"), "no score, no control"
    assert "| none |" in by_role["inhibition"]


def test_compared_with_literature():
    published = some_roles("published", mover=[(9, 9), (9, 6), (10, 0)], induction=[(5, 5)])
    found = some_roles(mover=[(9, 9), (10, 0), (11, 1)])
    text = circuit.compared_with_literature(found, published)
    assert "2 of 3 mover, 0 of 1 induction." in text and "inhibition" not in text
    assert circuit.compared_with_literature(found, some_roles()).startswith("No roles")


WRITERS = {
    "name": ["9.6", "8.1"],
    "role": ["mover", "other"],
    "difference": [2.0, -1.0],
    "io": [1.5, -0.75],
    "s": [-0.5, 0.25],
    "end>IO": [0.6, 0.1],
    "end>S1": [0.05, 0.2],
    "end>S2": [0.02, 0.3],
}


def test_writers():
    lines = circuit.writers(WRITERS).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "looks at IO | looks at S1 | looks at S2 |" in lines[0]
    assert lines[2] == "| 9.6 | mover | 2.00 | 1.50 | -0.50 | 0.60 | 0.05 | 0.02 |"
    assert lines[3].startswith("| 8.1 | none | -1.00 |")


def test_the_strongest_writer_is_a_mover():
    assert circuit.strongest_writer(WRITERS) == "The strongest writer, head 9.6, is a mover."


def test_the_strongest_writer_is_no_mover():
    """It raises one name or lowers the other, and looks somewhere; writers against it come last."""
    table = {name: values[::-1] for name, values in WRITERS.items()}  # the largest one is against
    table["role"] = ["negative-mover", "other"]
    text = circuit.strongest_writer(table)
    assert "head 9.6, is no mover: it gives 60% of its attention to IO, and it does" in text
    assert "pushing the indirect object's logit up (-0.50 nats on S, +1.50 on IO)" in text
    table["io"][1], table["s"][1], table["end>S2"][1] = 0.25, -1.75, 0.9
    text = circuit.strongest_writer(table)
    assert "90% of its attention to S2 and 60% to IO, and it does" in text
    assert "pushing the subject's logit down (-1.75 nats on S, +0.25 on IO)" in text


def test_no_writer_for_the_answer():
    table = WRITERS | {"difference": [-2.0, -1.0]}
    assert circuit.strongest_writer(table) == "No head writes for the indirect object."


# --- chapter 02


def pairs(**rows) -> dict[str, list]:
    """A table of areas; what is not given of a composition type is a pair that is not known."""
    names = (
        "kind", "score", "auc", "p", "z", "z_other", "auc_same_layer", "p_same_layer", "senders",
        "readers",
    )  # fmt: skip
    table: dict[str, list] = {name: [] for name in names}
    for kind in "QVK":
        for score, at in (("whole", 0), ("component", 1)):
            said = rows[kind][at] if kind in rows else (*[None] * 6, 0, 0)
            for name, value in zip(names, (kind, score, *said), strict=True):
                table[name].append(value)
    return table


KNOWN = pairs(
    Q=[
        (0.71, 0.021, 2.5, 3.1, 0.66, 0.12, 4, 3),
        (0.93, 0.0005, 7.5, 8.9, 0.81, 0.0004, 4, 3),
    ]
)


def test_reading():
    text = channels.reading(KNOWN, "fig-y")
    lines = text.splitlines()
    assert "{numref}`fig-y`" in lines[0] and len(lines) == 2 + 3
    assert lines[2].startswith(f"- {channels.NAMES['Q']}: ")
    assert "by its best component the furthest sender lies 7.5 standard deviations out" in lines[2]
    assert "the furthest other head 8.9; as wholes it is 2.5 and 3.1. The area" in lines[2]
    assert "0.93 by component (p < 0.001) and 0.71 as a whole (p = 0.021)." in lines[2]
    for line, kind in zip(lines[3:], "VK", strict=True):
        assert line == f"- {channels.NAMES[kind]}: this model has no such pair of heads."
    other = channels.reading(changed(KNOWN, "p", 1, 0.2), "fig-y")
    assert "0.93 by component (p = 0.200)" in other
    assert "3.3 standard deviations out" in channels.reading(changed(KNOWN, "z", 1, 3.3), "fig-y")
    assert "other head 6.6; as" in channels.reading(changed(KNOWN, "z_other", 1, 6.6), "fig-y")
    assert "it is 2.5 and 1.7." in channels.reading(changed(KNOWN, "z_other", 0, 1.7), "fig-y")


def test_outlier():
    assert channels.outlier(0.0321).endswith("a component this far out: p = 0.032")
    assert channels.outlier(0.0004).endswith("this far out: p < 0.001")
    assert channels.outlier(0.5).startswith("as many random heads have")


def test_note():
    rows = channels.rows(KNOWN)
    assert channels.note(rows[0]) == "p = 0.021, 4 senders, 3 readers"
    assert channels.note(rows[1]) == "p < 0.001, 4 senders, 3 readers"


def test_areas():
    assert channels.areas("mine", KNOWN) == (
        "mine: area under the curve Q whole 0.71, Q component 0.93"
    )
    assert channels.areas("mine", pairs()) == "mine: area under the curve not defined"


def test_furthest():
    known = [
        dict(kind="K", score=score, z=z)
        for score, z in (("whole", 1.25), ("whole", 3.12), ("component", 5.5))
    ]
    text = channels.furthest(known)
    assert text == (
        f"{channels.NAMES['K']}: 3.1 standard deviations at most for whole matrices, 5.5 for "
        "single components"
    )
    assert channels.furthest([]) == "no known pair of heads"


def test_why():
    text = channels.why(KNOWN)
    assert "| Q | whole matrices | 0.71 | 0.66 (p = 0.120) | 2.5 | 3.1 |" in text
    assert "| Q | single components | 0.93 | 0.81 (p < 0.001) | 7.5 | 8.9 |" in text
    lines = text.splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {7}, "no row without a pair"
    assert lines[0].endswith("| area, same layer | furthest sender | furthest other |")
    nearer = channels.why(changed(KNOWN, "z_other", 1, 2.0))
    assert "| 0.81 (p < 0.001) | 7.5 | 2.0 |" in nearer


ROUNDING = {
    "exact": [0.1, 0.2, 0.3, 0.4],
    "rounded": [0.12, 0.2, 0.3, 0.4],
    "known": [True, False, True, False],
    "exact_rank": [4, 3, 2, 1],
    "rounded_rank": [4, 3, 7, 1],
}


def test_rounding():
    text = channels.rounding(ROUNDING)
    assert text.startswith(channels.rounding_message(ROUNDING) + " Places are counted among")
    assert text.endswith("the mean absolute change of a score is 0.0050")
    text = channels.rounding(changed(changed(ROUNDING, "rounded", 0, 0.5), "rounded_rank", 2, 3))
    assert "score is 0.1000" in text and "1.000" not in text and "1 at most" in text


def test_rounding_message():
    assert channels.rounding_message(ROUNDING) == (
        "Scores before and after rounding to four bits have a rank correlation of 1.000; known "
        "senders move by 2.5 places in the median, 5 at most."
    )
    still = changed(changed(ROUNDING, "rounded_rank", 0, 5), "rounded_rank", 2, 3)
    text = channels.rounding_message(changed(still, "rounded", 3, 0.0))
    assert text.endswith("of -0.200; known senders move by 1 place in the median, 1 at most.")


def test_model(tiny_gpt2):
    from th_utils.weights import from_checkpoint

    weights = from_checkpoint(tiny_gpt2)
    text = channels.model(weights, some_roles("measured"))
    assert "3 layers of 4 heads with 8 components each" in text and "are measured, as" in text
    assert "published ones, not measured here" in channels.model(weights, some_roles("published"))


def test_best():
    row = dict(head="8.6", component=1, rank=3, score=0.25, z=7.25)
    text = channels.best(row, 6912, 0.036, 0.41)
    assert "8.6.1, is number 3 of 6,912 with a score of 0.25, 7.2 standard" in text
    assert "A random direction would score 0.04; no direction can score above 0.41 with" in text
    assert "above 0.55 with" in channels.best(row, 6912, 0.036, 0.55)
    assert channels.best(None, 5, 0.1, 0.4) == "No inhibition head comes before the main mover."


# --- chapter 03


def sender(effects: list[float], scores: list[float], head=(7, 9), picks=(0,), **other: float):
    """A head with these mean effects; `other` are means of its further fields."""
    means = dict(whole=0.5, picked=0.4, matched=0.01, norm_share=0.2) | other
    per_prompt = torch.tensor([effects, effects])
    totals = {name: torch.tensor([mean - 0.125, mean + 0.125]) for name, mean in means.items()}
    totals["matched"] = totals["matched"][:, None].expand(-1, len(effects))
    return SenderEffects(
        sender=head,
        picks=list(picks),
        effects=per_prompt,
        random=per_prompt,
        scores=torch.tensor(scores),
        **totals,
    )


def test_panels():
    one = sender([0.1, 0.375, -0.9], [0.5, 0.1, 0.2], picks=(1, 0))
    two = sender([0.25, 0.0, 0.5], [0.1, 0.1, 0.75], head=(8, 6), whole=0.75)
    text = components.panels([one, two])
    assert text.startswith("In head 7.9 component 1 was chosen first and inhibits by 0.38, where")
    assert "where the whole head does by 0.50; component 0 has the highest composition" in text
    assert "score (0.50); in head 8.6 component 0 was chosen first and inhibits by 0.25" in text, (
        "the one that was chosen, not the largest here"
    )
    assert "where the whole head does by 0.75" in text
    assert text.endswith("component 2 has the highest composition score (0.75).")


def test_agreement():
    table = {
        "head": ["7.9", "8.6"],
        "rho": [0.44, -0.12],
        "p": [0.0005, 0.81],
        "order": [0.66, -0.31],
        "partial": [0.17, -0.22],
        "best": [1, 5],
        "coincide": [True, False],
    }
    one, two = components.agreement(table).splitlines()
    assert one.startswith("- head 7.9: rank correlation 0.44 (p < 0.001, components permuted)")
    assert "the order of the components alone correlates 0.66 with their inhibition" in one
    assert "with the order held fixed 0.17 is left; the highest" in one
    assert "alone correlates -0.31" in two and "held fixed -0.22 is left" in two
    assert one.endswith("at component 1, one of the two that inhibit most")
    assert "8.6: rank correlation -0.12 (p = 0.810," in two
    assert two.endswith("at component 5, not one of the two that inhibit most")


TURN = {
    "head": ["7.9"] * 3 + ["8.6"] * 2,
    "component": [0, 1, 2, 0, 1],
    "first": [False, True, False, True, False],
    "direct": [0.1, 0.44, 0.0, 0.3, 0.2],
    "full": [0.02, 0.33, -0.04, 0.25, 0.06],
    "logit": [0.1, 1.24, 0.0, 0.8, 0.0],
}


def test_in_turn():
    text = components.in_turn(TURN)
    assert text.startswith("7.9.1 alone takes 0.44 from the mover's inhibition score in its query")
    assert "0.33 with everything recomputed, and 1.2 nats from the logit difference" in text
    assert "each other component of the head changes the inhibition score by 0.030 on" in text
    assert "everything recomputed; 8.6.0 alone takes 0.30" in text
    assert text.endswith("by 0.060 on average, whatever the sign, everything recomputed")
    text = components.in_turn(changed(TURN, "direct", 2, 0.9))
    assert text.startswith("7.9.1 alone takes 0.44"), "chosen first, not the largest here"
    moved = changed(changed(TURN, "first", 1, False), "first", 2, True)
    moved["direct"][2] = 0.9
    assert "7.9.2 alone takes 0.90" in components.in_turn(moved)


def test_share():
    one = sender([0.1, 0.375], [0.5, 0.1])
    text = components.share([one], Interval(0.72, 0.65, 0.81))
    assert text.startswith(components.panels([one]))
    assert "whole output: 80% in 7.9 (where they are 20% of the output's squared length" in text
    assert (
        "as what was removed change it by 0.010 in its place). Summed over the heads it is 72%"
        in text
    )
    assert "interval 65% to 81%" in text
    two = sender([0.1], [0.5], head=(8, 6), whole=1.0, picked=0.3, matched=-0.02, norm_share=0.6)
    text = components.share([one, two], Interval(0.4, 0.3, 0.5))
    assert "in its place), 30% in 8.6 (where they are 60% of" in text
    assert "removed change it by 0.020 in its place). Summed over the heads it is 40%" in text


def test_draws():
    """The largest mean over pairs of one draw, whatever its sign; single pairs do not count."""
    falls = np.array([[0.5, 0.01, -0.02], [-0.5, 0.03, -0.1]])
    assert components.draws(falls) == ("largest of 3 single draws 0.060 in the inhibition score")
    assert "largest of 2 single draws 0.020" in components.draws(falls[:, :2])


def test_removal():
    table = {
        "inhibition mean": [0.61, 0.5, 0.22, 0.58],
        "logit difference mean": [3.14, 3.0, 1.26, 2.95],
    }
    assert components.removal(table) == (
        "The main mover's inhibition score is 0.61, 0.22 without the leading components and 0.58 "
        "without as many random others; the logit difference is 3.1, 1.3 and 3.0 nats"
    )


# --- chapter 11


MATRICES = {
    "whole": [0.1, 0.3, 0.2, 0.4],
    "whole_alarm": [False, False, False, True],
    "component": [0.5, 0.1, 0.6, 0.9],
    "component_alarm": [True, False, True, True],
    "planted": [True, False, False, True],
}


def test_matrices():
    text = planted.matrices(MATRICES)
    assert text == (
        "By whole matrices 1 of 2 raise an alarm, and the lowest of them is number 4 of 4; by "
        "single components 2 of 2 raise an alarm, and the lowest of them is number 3 of 4"
    )
    assert "number 2 of 4" in planted.matrices(changed(MATRICES, "component", 0, 0.7))
    assert "components 1 of 2" in planted.matrices(changed(MATRICES, "component_alarm", 0, False))


def curve(**recalls) -> dict[str, list]:
    """A curve at strengths one half, one and two."""
    table: dict[str, list] = {
        n: [] for n in ("detector", "strength", "recall", "ap", "alarms_right", "recall_Q",
                        "recall_K", "recall_V", "channels", "recall_learned")
    }  # fmt: skip
    for name, shares in recalls.items():
        for strength, share in zip((0.5, 1.0, 2.0), shares, strict=True):
            right = None if share == 0 else 0.97
            said = (name.replace("_", "-"), strength, share, share / 2, right, share, share / 3,
                    share / 4, 48, share + 0.1)  # fmt: skip
            for column, value in zip(table, said, strict=True):
                table[column].append(value)
    return table


CURVE = curve(whole=(0.0, 0.2, 0.8), component=(0.0, 0.6, 1.0), aligned=(0.91, 1.0, 0.95))


def test_planted_recovery():
    text = planted.recovery(CURVE)
    assert text.startswith("Whole matrices find half of the channels from strength 1.4 on; single")
    assert "single components find half of the channels from strength 0.89 on; aligned" in text
    assert text.endswith("aligned components find at least 91% at every strength from 1/2 to 2")
    assert "at least 44%" not in text
    text = planted.recovery(curve(whole=(0, 0, 0.4), component=(0, 0, 1), aligned=(1, 1, 1)))
    assert text.startswith("Whole matrices find at most 40% at any strength up to 2; single")


def test_planted_kinds():
    text = planted.kinds(CURVE, 1.0)
    assert "At strength 1 single components find 60% of the channels into queries, 20% of" in text
    assert "into keys, 15% of those into values (16 of each)" in text
    assert text.endswith("at least 97% of the alarms are right")
    assert "at least 85% of" in planted.kinds(changed(CURVE, "alarms_right", 4, 0.85), 1.0)


def test_planted_detectors():
    table = curve(**{name.replace("-", "_"): (0.1, 0.25, 0.75) for name in planted.WHAT})
    lines = planted.detectors(table, (1.0, 2.0)).splitlines()
    assert "| found, 1 | found, 2 | precision, 1 | precision, 2 |" in lines[0]
    assert len(lines) == 2 + len(planted.WHAT) and {line.count("|") for line in lines} == {9}
    assert all(line.endswith("| 0.25 | 0.75 | 0.12 | 0.38 | 0.35 | 0.85 |") for line in lines[2:])


def test_planted_thresholds_alike():
    table = curve(component=(0, 0.27, 1), whole=(0, 0, 1), sums=(0, 0.19, 1))
    ahead, behind, level = Interval(0.2, 0.1, 0.3), Interval(-0.08, -0.15, -0.02), Interval(0, 0, 0)
    gains = [("component", "whole", ahead, ahead), ("sums", "component", behind, level)]
    assert planted.alike(table, 1.0, gains) == (
        "At strength 1, at equally strict thresholds, the channels found are: single components "
        "37% (at calculated ones 27%), whole matrices 10% (at calculated ones 0%), sums of "
        "components 29% (at calculated ones 19%). In points, with 95% intervals: single components "
        "less whole matrices +20 (+10 to +30), at calculated thresholds +20 (+10 to +30), so the "
        "order stays; sums of components less single components +0 (+0 to +0), at calculated "
        "thresholds -8 (-15 to -2), so neither is shown to find more any longer"
    )
    for before, after, said in (
        (behind, ahead, "the order turns round"),
        (level, ahead, "now one is shown to find more"),
        (level, level, "so neither is shown to find more"),
    ):
        assert planted.alike(table, 1.0, [("sums", "component", before, after)]).endswith(said)


def test_planted_excluded():
    rates = {"component": Interval(0.025, 0.005, 0.071), "path": Interval(0.2, 0.1, 0.3)}
    assert planted.excluded(dict(list(rates.items())[:1]), 0.05, 120) == (
        "Nothing here speaks against the stated rate of 5%. What 120 models exclude are rates "
        "above 7.1% (single components)"
    )
    assert planted.excluded(rates, 0.05, 120).startswith(
        "Against the stated rate of 5% speak “path”. What"
    )


def test_planted_row():
    assert planted.row(CURVE, detector="whole", strength=1.0)["recall"] == 0.2
    with pytest.raises(KeyError, match="no row"):
        planted.row(CURVE, detector="path")


def test_planted_kept():
    assert planted.kept([0.25, 4.0], [(0.625, 0.0039), (0.998, 0.5)]) == (
        "The median is 0.62 at strength 1/4 (where the planted term is 0.39% of the reader's "
        "squared norm), 1.00 at strength 4 (where the planted term is 50.00% of the reader's "
        "squared norm)"
    )


def test_planted_conditions():
    names = ["plain", "wide", "weak", "flat", "grouped"]
    table: dict[str, list] = {n: [] for n in ("condition", "strength", "detector", "recall")}
    shares = {"whole": [0, 0, 0, 0.3, 0], "component": [0.5, 0.25, 0.2, 1, 1],
              "sums": [0, 0, 0.1, 0.9, 0.4], "aligned": [1] * 5}  # fmt: skip
    for detector, found in shares.items():
        for name, share in zip(names, found, strict=True):
            for strength in (1.0, 2.0):
                said = (name, strength, detector, share if strength == 1 else 0.77)
                for column, value in zip(table, said, strict=True):
                    table[column].append(value)
    assert planted.conditions(table, 1.0) == (
        "At strength 1 whole matrices find between 0% (4 of 5 conditions) and 30%; single "
        "components find between 20% (“weak”) and 100%; sums of components find between 0% "
        "(“plain” and “wide”) and 90%; aligned components find 100% everywhere"
    )
    assert "whole matrices find 77% everywhere" in planted.conditions(table, 2.0)


def test_planted_false_alarms():
    rates = {"component": Interval(0.025, 0.0, 0.05), "path": Interval(0.06, 0.03, 0.1)}
    assert planted.false_alarms(rates, 0.05, 120) == (
        "Of 120 models without any channel, at a stated rate of 5%, with exact 95% intervals: "
        "single components 2.5% (0.0% to 5.0%), path 6.0% (3.0% to 10.0%)"
    )


def test_planted_difference():
    text = planted.difference("sums", "component", Interval(0.801, 0.7, 0.9))
    assert text == (
        "sums of components find 80 points more than single components (95% interval 70 to 90)"
    )
