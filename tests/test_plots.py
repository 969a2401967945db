"""Every drawing of the chapters on made-up tables: pictures compared, texts readable and apart."""

from __future__ import annotations

import itertools

import matplotlib.text
import numpy as np
from pictures import pictures

from th_utils import figures
from th_utils.plots import channels, circuit, components, planted
from th_utils.results import Results
from th_utils.roles import ROLES, label

COMPONENTS = 64
HEADS = ["20.5", "18.7", "23.14"]  # as long as names get


def distributions() -> Results:
    """Two types with known pairs, one far out; one type with readers but without senders."""
    rng = np.random.default_rng(0)
    columns: dict = {name: [] for name in ("kind", "score", "left", "right", "count")}
    known = []
    for kind, score in itertools.product("QVK", ("whole", "component")):
        of = 300 if score == "whole" else 19200
        counts, edges = np.histogram(np.append(rng.gamma(4, 0.5, of) - 2, 6.5), bins=40)
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
            for name, value in zip(columns, (kind, score, left, right, count), strict=True):
                columns[name].append(value)
        pairs = () if kind == "K" else (("18.7", 6.4, 1), ("20.5", 2.2, 812), ("9.0", -0.5, 9000))
        for sender, z, rank in pairs:
            component = 12 if score == "component" else None
            known.append(
                dict(kind=kind, score=score, sender=sender, reader="23.14", component=component,
                     z=z, rank=rank, of=of)
            )  # fmt: skip
    return Results({n: [getattr(x, "item", lambda x=x: x)() for x in v]
                    for n, v in columns.items()}, {"known": known})  # fmt: skip


def areas(editions: tuple[str, ...]) -> Results:
    columns: dict = {n: [] for n in ("edition", "kind", "score", "auc", "null_low", "null_high")}
    values = iter([0.92, 0.97, 0.4, 0.55, None, None, 0.61, 0.99, 0.03, 1.0, 0.74, 0.71])
    for edition, kind, score in itertools.product(editions, "QVK", ("whole", "component")):
        auc = next(values)
        null = (None, None) if auc is None else (0.22, 0.78)
        for name, value in zip(columns, (edition, kind, score, auc, *null), strict=True):
            columns[name].append(value)
    return Results(columns)


def ranking() -> Results:
    roles = ["inhibition", "other", "induction", "duplicate-token", "previous-token"]
    n = 15
    return Results(
        dict(
            head=[f"{20 - i}.{14 - i}" for i in range(n)],
            component=[63 - 4 * i for i in range(n)],
            score=[0.31 - 0.012 * i for i in range(n)],
            z=[9.1 - 0.35 * i for i in range(n)],
            rank=list(range(1, n + 1)),
            role=[roles[i % 5] for i in range(n)],
        ),
        dict(reader="23.14", random_level=0.042),
    )


def rounding() -> Results:
    rng = np.random.default_rng(2)
    columns: dict = {n: [] for n in ("kind", "sender", "reader", "known", "exact", "rounded")}
    for kind, i in itertools.product("QVK", range(60)):
        exact = 0.05 + 0.02 * rng.gamma(2, 1) + 0.1 * (i % 20 == 0)
        row = (kind, f"18.{i}", "23.14", i % 20 == 0, exact, exact + 0.004 * rng.normal())
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    return Results(columns)


def scores(rng, outliers: tuple[int, ...]) -> np.ndarray:
    found = 0.04 + 0.01 * rng.random(COMPONENTS)
    for i, at in enumerate(outliers):
        found[at] = 0.4 - 0.05 * i
    return found


def per_component(heads: list[str] = HEADS) -> Results:
    rng = np.random.default_rng(3)
    found = [scores(rng, (5, 6)), scores(rng, (0, 63)), scores(rng, ()), scores(rng, (63,))]
    return Results(
        dict(
            head=[head for head in heads for _ in range(COMPONENTS)],
            component=[*range(COMPONENTS)] * len(heads),
            composition=np.concatenate(found[: len(heads)]).tolist(),
        ),
        dict(mover="23.14", random_level=0.042),
    )


def task() -> Results:
    columns: dict = {n: [] for n in ("template", "order", "mean", "low", "high")}
    means = [2.1, 3.4, 1.2, 0.3, -0.4, 2.2, 2.3, 4.6, 0.9, 2.0, 2.1, 1.4, 1.9, 3.3, 2.8]
    places = [(0, "both"), *itertools.product(range(1, 8), ("ABBA", "BABA"))]
    for i, ((template, order), mean) in enumerate(zip(places, means, strict=True)):
        half = 0.2 + 0.05 * (i % 5)
        row = (template, order, mean, mean - half, mean + 1.2 * half)
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    return Results(columns)


def attribution() -> Results:
    """30 layers of 9 heads; the strongest lie at the edges and beside one another."""
    at = [(layer, head) for layer in range(30) for head in range(9)]
    mean = 0.05 * np.random.default_rng(4).normal(size=len(at))
    strong = {(0, 0): 1, (29, 8): 2.2, (29, 0): -1, (20, 4): 2, (21, 4): -1.5, (19, 4): 1.2,
              (10, 8): 1.1, (10, 7): -0.9}  # fmt: skip
    for i, head in enumerate(at):
        mean[i] = strong.get(head, mean[i])
    return Results(
        dict(
            layer=[layer for layer, _ in at],
            head=[head for _, head in at],
            name=[label(head) for head in at],
            mean=mean.tolist(),
        )
    )


def attention() -> Results:
    rng = np.random.default_rng(5)
    roles = [role for role in ROLES for _ in range(2)]
    looks = ("end>IO", "end>S1", "end>S2", "S2>S1", "S2>S1+1", "S1+1>S1")
    return Results(
        dict(role=roles, name=[f"2{i}.{14 - i}" for i in range(10)] + ["0.1", "3.0"])
        | {look: rng.random(len(roles)).tolist() for look in looks}
    )


def roles_map() -> Results:
    """All roles; heads side by side, at every edge, and one head with two roles."""
    heads = [(23, 8), (24, 8), (29, 0), (20, 5), (20, 6), (21, 5), (0, 0), (0, 8), (4, 3), (4, 3)]
    roles = ["mover", "mover", "negative-mover", *["inhibition"] * 3, "duplicate-token",
             "previous-token", "previous-token", "induction"]  # fmt: skip
    return Results(
        dict(
            role=roles,
            name=[label(head) for head in heads],
            layer=[layer for layer, _ in heads],
            head=[head for _, head in heads],
            again=[i % 4 != 2 for i in range(len(heads))],
        ),
        dict(layers=30, heads=9),
    )


def panels() -> Results:
    rng = np.random.default_rng(6)
    columns: dict = dict(per_component().columns)
    effect = 0.01 * rng.normal(size=len(columns["head"]))
    picked = np.zeros(len(effect), dtype=bool)
    for i, (at, more) in enumerate(((5, 0.3), (6, 0.1), (64, 0.25), (127, -0.2), (140, 0.05))):
        effect[at] += more
        picked[at] = i < 3
    columns |= dict(
        inhibition=effect.tolist(),
        abba=(1.3 * effect).tolist(),
        baba=(0.7 * effect).tolist(),
        random_low=[-0.02] * len(effect),
        random_high=[0.02] * len(effect),
        picked=picked.tolist(),
    )
    return Results(columns, dict(mover="23.14", random_level=0.042))


def removal() -> Results:
    """A logit difference that ends below zero, and intervals from narrow to wide."""
    names = ["nothing", "20.5.5, 20.5.6", "18.7.0, 18.7.63", "23.14.12, 23.14.63",
             "all of these", "random others (20 draws)"]  # fmt: skip
    means = {"inhibition": [0.62, 0.45, 0.5, 0.6, 0.21, 0.6],
             "logit difference": [2.3, 1.4, 1.9, 2.2, -0.35, 2.2]}  # fmt: skip
    columns: dict = dict(removed=names, control=[False] * 5 + [True])
    for name, mean in means.items():
        half = [0.05 * max(mean) * (1 + i % 3) for i in range(6)]
        columns[f"{name} mean"] = mean
        columns[f"{name} low"] = [m - h for m, h in zip(mean, half, strict=True)]
        columns[f"{name} high"] = [m + h for m, h in zip(mean, half, strict=True)]
    return Results(columns)


def in_turn(heads: list[str] = HEADS) -> Results:
    rng = np.random.default_rng(7)
    direct = 0.01 * rng.normal(size=(len(heads), COMPONENTS))
    full = direct + 0.005 * rng.normal(size=direct.shape)
    for i in range(len(heads)):
        direct[i, [5, 9 + i]] = 0.3, 0.28 - 0.1 * i
        full[i, [5, 9 + i]] = 0.22, 0.24 - 0.15 * i
    return Results(
        dict(
            head=[head for head in heads for _ in range(COMPONENTS)],
            component=[*range(COMPONENTS)] * len(heads),
            direct=direct.ravel().tolist(),
            full=full.ravel().tolist(),
            logit=(5 * full).ravel().tolist(),
        )
    )


def matrices(layers: int = 6, heads: int = 8) -> Results:
    """Every pair of heads; planted ones in corners, at edges and beside one another."""
    rng = np.random.default_rng(8)
    pairs = [(w, r) for w in range(layers * heads) for r in range(layers * heads)
             if w // heads < r // heads]  # fmt: skip
    special = {(0, 47): 1, (0, 8): 0, (39, 47): 1, (17, 25): 1, (17, 26): 0, (9, 40): 0}
    columns: dict = dict(writer=[w for w, _ in pairs], reader=[r for _, r in pairs])
    columns["planted"] = [pair in special for pair in pairs]
    for name, boost in (("whole", 0.02), ("component", 0.3)):
        noise = 0.1 + 0.01 * rng.normal(size=len(pairs))
        columns[name] = (noise + boost * np.array(columns["planted"])).tolist()
        columns[f"{name}_alarm"] = [bool(special.get(pair, 0)) or boost > 0.1 and pair in special
                                    for pair in pairs]  # fmt: skip
    return Results(columns, dict(heads=heads))


def recovery() -> Results:
    columns: dict = {n: [] for n in ("strength", "detector")}
    columns |= {f"{m}{end}": [] for m in ("recall", "precision") for end in ("", "_low", "_high")}
    for i, s in enumerate([1 / 16, 1 / 8, *(0.25 * 2 ** (i / 2) for i in range(9))]):
        for name, middle in (("whole", 8), ("component", 6.5), ("aligned", -3), ("path", 9)):
            share = 1 / (1 + np.exp(2.5 * (middle - i)))
            columns["strength"].append(s)
            columns["detector"].append(name)
            for m in ("recall", "precision"):
                columns[m].append(share)
                columns[f"{m}_low"].append(max(0.0, share - 0.07))
                columns[f"{m}_high"].append(min(1.0, share + 0.07))
    return Results(columns, dict(rate=0.05))


def conditions() -> Results:
    """As many conditions as the chapter has, with its longest name; all shares from 0 to 1."""
    names = ["a quarter of it in the writer", *(f"condition {c}" for c in "abcdefghijkl")]
    columns: dict = {n: [] for n in ("condition", "strength", "detector", "recall")}
    for i, (name, strength, j) in enumerate(itertools.product(names, (1.0, 2**0.5), range(5))):
        detector = ("whole", "component", "sums", "aligned", "component-chance")[j]
        for column, value in zip(columns, (name, strength, detector, (7 * i % 131) / 130),
                                 strict=True):  # fmt: skip
            columns[column].append(value)
    return Results(columns)


def false_alarms(models: int = 200) -> Results:
    """One detector as stated, two quieter that end side by side, one without calculated chance."""
    columns: dict = {n: [] for n in ("detector", "model", "chance", "alarm")}
    ends = {"whole": 4.0, "component": 1.2, "sums": 3.9, "aligned": 1.0, "path": None}
    for (name, factor), i in itertools.product(ends.items(), range(models)):
        chance = None if factor is None else min(1.0, factor * (i + 0.5) / models)
        for column, value in zip(columns, (name, i, chance, i == 0), strict=True):
            columns[column].append(value)
    return Results(columns)


LONG = "smollm2-135m-instruct-q4\nmeasured roles"
DRAWINGS = {
    "distributions": lambda: channels.distributions(distributions()),
    "areas": lambda: channels.areas(areas((LONG, "gpt2\npublished roles"))),
    "areas-one": lambda: channels.areas(areas((LONG,))),
    "ranking": lambda: channels.ranking(ranking()),
    "rounding": lambda: channels.rounding(rounding()),
    "per-component": lambda: channels.per_component(per_component([*HEADS, "8.6"])),
    "task": lambda: circuit.task(task()),
    "attribution": lambda: circuit.attribution(attribution()),
    "attention": lambda: circuit.attention(attention()),
    "roles-map": lambda: circuit.roles_map(roles_map()),
    "panels": lambda: components.panels(panels()),
    "removal": lambda: components.removal(removal()),
    "in-turn": lambda: components.in_turn(in_turn()),
    "in-turn-one": lambda: components.in_turn(in_turn(HEADS[:1])),
    "planted-matrices": lambda: planted.matrices(matrices()),
    "planted-recovery": lambda: planted.curves(recovery()),
    "planted-conditions": lambda: planted.conditions(conditions()),
    "planted-false-alarms": lambda: planted.false_alarms(false_alarms()),
}


globals().update(pictures(DRAWINGS))


def test_heads_not_found_again_are_open():
    """A small marker more or less is too little for the comparison of pictures."""
    table = roles_map()
    figure = circuit.roles_map(table)
    drawn = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() != "white" for line in drawn] == table.columns["again"]
    for line, role in zip(drawn, table.columns["role"], strict=True):
        assert line.get_markeredgecolor() == figures.PALETTE[role]


def test_areas_of_whole_matrices_are_open():
    drawn = [line for line in channels.areas(areas(("one",))).axes[0].lines
             if line.get_marker() == "o"]  # fmt: skip
    assert [line.get_markerfacecolor() == "white" for line in drawn] == [True, False] * 2
    assert [line.get_xdata()[0] for line in drawn] == [0.92, 0.97, 0.4, 0.55]


def test_names_of_attribution_lie_on_no_named_cell():
    """Where heads stand in a row, and where they stand in a corner."""
    table = attribution()
    axes = circuit.attribution(table).axes[0]
    named = {tuple(map(int, text.get_text().split("."))) for text in axes.texts}
    assert len(named) == 8
    axes.figure.draw_without_rendering()
    for text in axes.texts:
        box = matplotlib.text.Text.get_window_extent(text)
        for layer, head in named:
            corner, other = axes.transData.transform(
                [(layer - 0.45, head - 0.45), (layer + 0.45, head + 0.45)]
            )
            apart = box.x1 <= corner[0] or other[0] <= box.x0
            assert apart or box.y1 <= corner[1] or other[1] <= box.y0, text.get_text()


def test_rings_say_what_was_found():
    table = matrices()
    axes = planted.matrices(table).axes
    for panel, name in zip(axes, ("whole", "component"), strict=True):
        rings = [line for line in panel.lines if line.get_markersize() == 9]
        at = {(line.get_ydata()[0], line.get_xdata()[0]): line.get_markeredgecolor()
              for line in rings}  # fmt: skip
        c = table.columns
        expected = {
            (w, r): planted.FOUND if alarm else planted.MISSED
            for w, r, is_planted, alarm in zip(
                c["writer"], c["reader"], c["planted"], c[f"{name}_alarm"], strict=True
            )
            if is_planted
        }
        assert at == expected and len(at) == 6
    assert (axes[0].get_title("left") or axes[0].get_title()).endswith("3 of 6 found")
    assert (axes[1].get_title("left") or axes[1].get_title()).endswith("6 of 6 found")


def test_conditions_show_their_numbers():
    table = conditions()
    c = table.columns
    for axes, strength in zip(planted.conditions(table).axes, (1.0, 2**0.5), strict=True):
        for text in axes.texts:
            j, i = text.get_position()
            names = list(dict.fromkeys(c["condition"]))
            (value,) = [
                c["recall"][n]
                for n in range(len(c["recall"]))
                if c["condition"][n] == names[int(i)]
                and c["strength"][n] == strength
                and c["detector"][n] == list(planted.NAMES)[int(j)]
            ]
            assert text.get_text() == f"{100 * value:.0f}"
        assert len(axes.texts) == 13 * 4
