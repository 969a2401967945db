"""What the captions of chapters 01 to 03 begin with: other numbers, other words."""

from __future__ import annotations

import pytest
from tables import changed

from th_utils.prose import channels, circuit, components

# --- chapter 01


TASK = {"template": [0, 3, 3], "mean": [2.14, 1.32, 3.48]}


@pytest.mark.parametrize(
    "row, value, said",
    [
        (0, 2.14, "name lies 2.1 nats above the other's on average, and above it in all 2 comb"),
        (0, -0.52, "name lies 0.5 nats below the other's on average, and above it in all 2"),
        (1, -0.1, "2.1 nats above the other's on average, and above it in 1 of 2 combinations of"),
    ],
)
def test_task(row, value, said):
    text = circuit.task_message(changed(TASK, "mean", row, value))
    assert said in text and text.endswith(" combinations of template and order.")


def test_task_that_is_not_done():
    table = TASK | {"mean": [-2.0, -1.0, -3.0]}
    assert "and above it in none of 2 combinations" in circuit.task_message(table)


DLA = {"name": ["0.0", "0.1", "1.0", "1.1"], "mean": [0.04, 2.5, -3.0, -0.2]}


def test_attribution_names_the_strongest_either_way():
    text = circuit.attribution_alt(DLA)
    assert text.startswith(circuit.attribution(DLA) + ". The strongest")
    assert text.endswith("in nats: 1.0 -3.00, 0.1 +2.50, 1.1 -0.20, 0.0 +0.04.")
    many = {"name": [f"0.{i}" for i in range(9)], "mean": [float(i) for i in range(1, 10)]}
    assert "0.1 +2.00" in circuit.attribution_alt(many)
    assert "0.0 " not in circuit.attribution_alt(many), "the figure names eight"


def test_attribution_without_a_writer():
    table = DLA | {"mean": [-0.1, -2.5, 0.0, -0.2]}
    assert circuit.attribution(table) == "None of 4 heads writes for the indirect object"


LOOKS = {
    "role": ["mover", "mover", "inhibition"],
    "name": ["9.9", "9.6", "8.6"],
    "end>IO": [0.71, 0.5, 0.0],
    "end>S2": [0.01, 0.0, 0.44],
}


def test_attention():
    assert circuit.attention_message(LOOKS) == (
        "Of its attention from the end, the strongest mover head, 9.9, gives 71% to the indirect "
        "object and the strongest inhibition head, 8.6, gives 44% to the repeated name."
    )
    text = circuit.attention_message(LOOKS | {"role": ["mover", "mover", "induction"]})
    assert text.endswith("9.9, gives 71% to the indirect object.")
    text = circuit.attention_message(LOOKS | {"role": ["induction"] * 3})
    assert text == "No mover and no inhibition head was found."


def test_roles():
    table = {"role": ["mover", "inhibition", "induction"], "again": [True, False, True]}
    text = circuit.roles_message(table)
    assert text == (
        "2 of 3 heads with a role are found again on the other half of templates and names, 1 of 2 "
        "among those whose score depends on the task."
    )
    assert circuit.roles_map(table) == text[:-1] + " (the other scores are taken on random tokens)"


# --- chapter 02


def known(kind: str, score: str, rank: int, of: int, z: float) -> dict:
    return dict(kind=kind, score=score, rank=rank, of=of, z=z)


def test_known():
    pairs = [
        known("Q", "whole", 9, 207, 2.0),
        known("Q", "whole", 4, 207, 2.5),
        known("Q", "component", 3, 12345, 8.0),
        known("Q", "component", 1, 13248, 7.9),  # a higher rank, for a reader with a wider spread
        known("K", "whole", 8, 153, 1.0),
        known("K", "component", 20, 9792, 3.0),
    ]
    assert channels.known_message(pairs) == (
        "The known senders furthest out rank 3 of 12,345 components into queries and 20 of 9,792 "
        "into keys, and 4 of 207 and 8 of 153 as whole matrices."
    )
    assert channels.known_message(pairs[:4]) == (
        "The known senders furthest out rank 3 of 12,345 components into queries, and 4 of 207 as "
        "whole matrices."
    )
    assert channels.known_message([]) == "This model has no known pair of heads."


def areas(**found: tuple[float | None, float | None]) -> dict[str, list]:
    """Areas as wholes and by component, kind by kind; chance ends at 0.7."""
    table: dict[str, list] = {name: [] for name in ("kind", "score", "auc", "null_high")}
    for kind, both in found.items():
        for score, auc in zip(channels.SCORES, both, strict=True):
            row = (kind, score, auc, None if auc is None else 0.7)
            for name, value in zip(table, row, strict=True):
                table[name].append(value)
    return table


def test_areas():
    mine = areas(Q=(0.6, 0.9), V=(0.71, 0.9), K=(None, None))
    other = areas(Q=(0.6, 0.7), V=(0.9, 0.1), K=(0.2, 0.8))
    none = areas(Q=(None, None))
    start = "By whole matrices, known senders stand out beyond chance in 1 of 2 kinds of talk in "
    here = start + "mine; by single components, in 2 of 2"
    assert channels.areas_message({"/a/path/mine\nroles": mine}) == here + "."
    assert channels.areas_message({"mine\nroles": mine, "gpt2\nroles": other}) == (
        start + "mine and in 1 of 3 in gpt2; by single components, in 2 of 2 and in 1 of 3."
    )
    assert channels.areas_message({"mine\nroles": mine, "gpt2\nroles": none}) == (
        here + "; there is no known pair of heads in gpt2."
    )
    assert channels.areas_message({"mine\nroles": none}) == (
        "There is no known pair of heads in mine."
    )


RANKING = {
    "head": ["3.0", "7.9", "8.6"],
    "component": [5, 1, 0],
    "score": [0.31, 0.222, 0.1],
    "rank": [1, 2, 3],
    "role": ["other", "inhibition", "inhibition"],
}


def test_ranking():
    some = "of the 3 components that the query of mover 9.9 is most open to"
    assert channels.ranking_message(RANKING, "inhibition", "9.9") == (
        f"2 {some} belong to inhibition heads, the first of them 7.9.1, at rank 2."
    )
    one = changed(RANKING, "role", 1, "other")
    assert channels.ranking_message(one, "inhibition", "9.9") == (
        f"One {some} belongs to an inhibition head, 8.6.0, at rank 3."
    )
    none = f"None {some} belongs to an induction head."
    assert channels.ranking_message(RANKING, "induction", "9.9") == none
    assert channels.ranking_alt(RANKING, "induction", "9.9") == (
        f"{none} In order, with their scores: 3.0.5 0.31, 7.9.1 0.22 (inhibition), 8.6.0 0.10 "
        "(inhibition)."
    )
    assert channels.of_gpt2(none) == f"In GPT-2 small, n{none[1:]}"


SCORED = {
    "head": ["7.9"] * 3 + ["8.6"] * 3,
    "composition": [0.1, 0.4, 0.2, 0.5, 0.1, 0.3],
}


def test_heads():
    both = channels.heads_message(SCORED, "9.9", 0.1)
    assert both == (
        "With the query of mover 9.9 the best component of an inhibition head scores 4.0 to 5.0 "
        "times as high as a random direction, the median component 2.0 to 3.0 times."
    )
    assert channels.heads_alt(SCORED, "9.9", 0.1) == (
        both + " The two highest scores: in head 7.9 components 1 (0.40) and 2 (0.20); in head 8.6 "
        "components 0 (0.50) and 2 (0.30)."
    )
    one = {name: values[:3] for name, values in SCORED.items()}
    assert "scores 2.0 times as high as" in channels.heads_message(one, "9.9", 0.2)
    none: dict[str, list] = {name: [] for name in SCORED}
    assert channels.heads_alt(none, "9.9", 0.1) == (
        "This model has no inhibition head before the main mover."
    )


# --- chapter 03


PANELS = {
    "head": ["7.9", "7.9", "8.6", "8.6"],
    "component": [0, 1, 0, 1],
    "inhibition": [0.1, 0.375, 0.25, 0.0],
    "composition": [0.2, 0.5, 0.1, 0.4],
}


def test_panels():
    assert components.panels_message(PANELS, "9.9") == (
        "Removing component 7.9.1 lowers the preference of mover 9.9 for the right name most, by "
        "0.38 in attention; in 1 of 2 inhibition heads the component with the largest effect has "
        "the highest composition score."
    )
    text = components.panels_message(changed(PANELS, "inhibition", 2, 0.9), "9.9")
    assert "component 8.6.0 lowers" in text and "by 0.90 in attention; in 1 of 2" in text
    text = components.panels_message(changed(PANELS, "composition", 2, 0.9), "9.9")
    assert "component 7.9.1 lowers" in text and "in 2 of 2 inhibition heads" in text


IN_TURN = {
    "head": ["7.9", "7.9", "8.6", "8.6"],
    "component": [0, 1, 0, 1],
    "first": [False, True, True, False],
    "direct": [0.01, 0.43, 0.1, 0.02],
    "full": [0.03, 0.23, 0.05, -0.15],
}


def test_in_turn():
    assert components.in_turn_message(IN_TURN) == (
        "Without component 7.9.1 in its query the mover's preference for the right name falls by "
        "0.43 in attention, and with everything recomputed it falls by 0.23; any other component "
        "moves it by 0.15 at most."
    )
    text = components.in_turn_message(changed(IN_TURN, "full", 1, -0.02))
    assert "with everything recomputed it rises by 0.02;" in text
    text = components.in_turn_message(changed(IN_TURN, "direct", 2, 0.5))
    assert text.startswith("Without component 8.6.0") and text.endswith("by 0.43 at most.")
    text = components.in_turn_message(changed(IN_TURN, "direct", 3, 0.9))
    assert text.startswith("Without component 7.9.1"), "the one that was chosen"


REMOVAL = {
    "inhibition mean": [0.5, 0.3, 0.1, 0.45],
    "logit difference mean": [4.0, 3.0, 3.0, 4.04],
}


def test_removal():
    assert components.removal_message(REMOVAL) == (
        "Without the leading components of the inhibition heads 20% of the mover's preference for "
        "the right name and 75% of the model's are left, without as many random others 90% and "
        "101%."
    )
    text = components.removal_message(changed(REMOVAL, "logit difference mean", 2, -1.0))
    assert "20% of the mover's preference for the right name and -25% of the model's" in text
    for quantity in REMOVAL:
        nothing = changed(REMOVAL, quantity, 0, -0.1)
        assert components.removal_message(nothing) == components.removal(nothing) + ".", (
            "no share of a preference that is not there"
        )
