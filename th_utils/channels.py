"""Channels between known pairs of heads, read from weights alone (chapter 02).

The paper studies three kinds of talk between heads, one per composition type: inhibition heads
into the movers' queries, duplicate-token heads into the inhibition heads' values, previous-token
heads into the induction heads' keys. `pair_table` asks how well a score tells the known senders
from all other earlier heads; `component_table` lists every component that could have written to
one reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import composition
from th_utils.errors import CompanionError
from th_utils.roles import Head, Roles, label, role_of
from th_utils.svd import HeadSVD, ov_svd
from th_utils.weights import AttentionWeights

# (sender role, reader role, composition kind)
KNOWN_PAIRS: tuple[tuple[str, str, composition.Kind], ...] = (
    ("inhibition", "mover", "Q"),
    ("duplicate-token", "inhibition", "V"),
    ("previous-token", "induction", "K"),
)


@dataclass(frozen=True)
class Scan:
    """Composition scores of a whole model."""

    svd: HeadSVD
    components: dict[str, Float[Tensor, "layer head component reader_layer reader_head"]]
    heads: dict[str, Float[Tensor, "layer head reader_layer reader_head"]]


def scan(weights: AttentionWeights, *, offsets: Sequence[int] = composition.OFFSETS) -> Scan:
    """All component and whole-matrix scores of a model, Q, K and V."""
    svd = ov_svd(weights)
    components = {
        kind: composition.component_scores(svd, composition.readers(weights, kind, offsets=offsets))
        for kind in composition.KINDS
    }
    heads = {kind: composition.head_scores(c, svd.S) for kind, c in components.items()}
    return Scan(svd, components, heads)


def sender_scores(
    scan: Scan, kind: composition.Kind, reader: Head
) -> dict[str, Float[Tensor, "layer head"]]:
    """Scores of every earlier head with one reader: whole matrix, and best single component."""
    layer, head = reader
    return {
        "whole": scan.heads[kind][:layer, :, layer, head],
        "component": scan.components[kind][:layer, :, :, layer, head].amax(-1),
    }


def pair_table(scan: Scan, roles: Roles, *, seed: int = 0, shuffles: int = 2000) -> dict[str, Any]:
    """How far known senders stand out among all earlier heads, per composition type and score.

    For every reader of a role the area under the curve is the probability that a known sender
    scores above another earlier head; readers are averaged. The null distribution gives the
    sender role to as many heads drawn at random among all that come before some reader: heads are
    exchanged, not scores, because one head's scores with several readers hang together.

    Returns:
        Columns: sender, reader, kind, score ("whole" or "component"), auc, p (one-sided, known
        senders score higher), null_low and null_high (95% of the null), auc_same_layer (known
        senders against the other heads of their own layer only, since scores grow with nearness),
        p_same_layer (of that, senders dealt out again within their layers), z and z_other
        (largest standard score with any reader, of a known sender and of any other head),
        senders, readers (numbers of heads). A random draw that leaves a reader without a sender
        before it is averaged over the other readers.
    """
    rows = []
    for sender, reader, kind in KNOWN_PAIRS:
        for score in ("whole", "component"):
            row = dict(sender=sender, reader=reader, kind=kind, score=score)
            rows.append(row | _pair_row(scan, roles, sender, reader, kind, score, seed, shuffles))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _pair_row(
    scan: Scan,
    roles: Roles,
    sender: str,
    reader: str,
    kind: composition.Kind,
    score: str,
    seed: int,
    shuffles: int,
) -> dict[str, Any]:
    senders = set(roles[sender])
    tables = []  # one array [layer, head] of scores per reader that some known sender precedes
    largest, others = [], []
    for head in roles[reader]:
        earlier = [s for s in senders if s[0] < head[0]]
        if earlier:
            tables.append(sender_scores(scan, kind, head)[score].double().cpu().numpy())
            z = composition.z_scores(_all_scores(scan, kind, head, score))
            best = z if score == "whole" else z.amax(-1)
            largest.append(max(float(best[s]) for s in earlier))
            unknown = torch.ones_like(best, dtype=torch.bool)
            unknown[tuple(torch.tensor(earlier).T)] = False
            if unknown.any():
                others.append(float(best[unknown].max()))
    if not tables:
        empty = (
            "auc",
            "p",
            "null_low",
            "null_high",
            "auc_same_layer",
            "p_same_layer",
            "z",
            "z_other",
        )
        return dict.fromkeys(empty) | dict(senders=0, readers=0)
    deepest = max(len(table) for table in tables)
    known = [s for s in senders if s[0] < deepest]
    pool = [(layer, head) for layer in range(deepest) for head in range(tables[0].shape[1])]
    measured = _mean_auc(tables, known)
    rng = np.random.default_rng(seed)
    null = np.array(
        [
            _mean_auc(tables, [pool[i] for i in rng.choice(len(pool), len(known), replace=False)])
            for _ in range(shuffles)
        ]
    )
    null = null[np.isfinite(null)]  # a draw may put every sender behind every reader
    within = _same_layer_auc(tables, known)
    within_null = np.array(
        [_same_layer_auc(tables, _within_layers(known, pool, rng)) for _ in range(shuffles)]
    )
    return dict(
        auc=measured,
        p=float((1 + (null >= measured).sum()) / (1 + len(null))),
        null_low=float(np.quantile(null, 0.025)),
        null_high=float(np.quantile(null, 0.975)),
        auc_same_layer=within,
        # counted so that an area that is not defined has a p-value of 1
        p_same_layer=float((1 + (~(within_null < within)).sum()) / (1 + len(within_null))),
        z=max(largest),
        z_other=max(others, default=float("nan")),
        senders=len(known),
        readers=len(tables),
    )


def _all_scores(scan: Scan, kind: composition.Kind, reader: Head, score: str) -> Tensor:
    """Every score of one reader: per head, or per head and component."""
    layer, head = reader
    if score == "whole":
        return scan.heads[kind][:layer, :, layer, head]
    return scan.components[kind][:layer, :, :, layer, head]


def _same_layer_auc(tables: list[np.ndarray], known: Sequence[Head]) -> float:
    """Area under the curve of each known head against the unknown heads of its own layer."""
    areas = []
    for table in tables:
        for layer, head in known:
            if layer < len(table):
                others = [h for h in range(table.shape[1]) if (layer, h) not in known]
                if others:
                    areas.append(auc(table[layer, [head]], table[layer, others]))
    return float(np.mean(areas)) if areas else float("nan")


def _within_layers(
    known: Sequence[Head], pool: Sequence[Head], rng: np.random.Generator
) -> list[Head]:
    """As many heads as are known in each layer, drawn at random from that layer."""
    drawn: list[Head] = []
    for layer in sorted({layer for layer, _ in known}):
        heads = [head for head in pool if head[0] == layer]
        count = sum(head[0] == layer for head in known)
        drawn += [heads[i] for i in rng.choice(len(heads), count, replace=False)]
    return drawn


def _mean_auc(tables: list[np.ndarray], known: Sequence[Head]) -> float:
    """Area under the curve of known heads against the rest, averaged over readers."""
    areas = []
    for table in tables:
        mask = np.zeros(table.shape, dtype=bool)
        for layer, head in known:
            if layer < len(table):
                mask[layer, head] = True
        if mask.any() and not mask.all():
            areas.append(auc(table[mask], table[~mask]))
    return float(np.mean(areas)) if areas else float("nan")


def auc(positive: Float[np.ndarray, " m"], negative: Float[np.ndarray, " n"]) -> float:
    """Probability that a positive scores above a negative, ties counted half.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(below.mean() / (2 * len(negative)))


def component_table(
    scan: Scan, roles: Roles, kind: composition.Kind, reader: Head
) -> dict[str, Any]:
    """Every component of every earlier head with one reader, best first.

    Returns:
        Columns: head, component, score, z (over all components of all earlier heads), rank (from
        1), role (of the sender's head, first that applies, or "other").
    """
    layer, head = reader
    scores = scan.components[kind][:layer, :, :, layer, head]
    z = composition.z_scores(scores)
    order = torch.argsort(scores.flatten(), descending=True).tolist()
    where = [tuple(map(int, np.unravel_index(i, scores.shape))) for i in order]
    return dict(
        head=[label(at[:2]) for at in where],
        component=[at[2] for at in where],
        score=[float(scores[at]) for at in where],
        z=[float(z[at]) for at in where],
        rank=list(range(1, len(where) + 1)),
        role=[role_of(roles, at[:2]) for at in where],
    )


def distribution_table(scan: Scan, roles: Roles, *, bins: int = 60) -> tuple[dict, list[dict]]:
    """Standard scores of everything that could write to the known readers, as histograms.

    For each composition type the scores with every reader of the role are standardised reader by
    reader and pooled; known senders are listed one by one.

    Returns:
        Columns kind, score ("whole" or "component"), left, right, count of the histograms; and the
        known pairs: kind, score, sender, reader, component (None for whole matrices), z, rank
        among all scores with this reader (from 1), of (how many those are).
    """
    rows, known = [], []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        for score in ("whole", "component"):
            pooled = []
            for reader in roles[reader_role]:
                if reader[0] == 0:
                    continue  # nothing comes before the first layer
                values = _all_scores(scan, kind, reader, score)
                z = composition.z_scores(values)
                pooled.append(z.flatten())
                for sender in roles[sender_role]:
                    if sender[0] < reader[0]:
                        known.append(_known(kind, score, sender, reader, z))
            if not pooled:
                continue
            counts, edges = np.histogram(torch.cat(pooled).cpu().numpy(), bins=bins)
            for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
                rows.append((kind, score, float(left), float(right), int(count)))
    names = ("kind", "score", "left", "right", "count")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}, known


def _known(kind: str, score: str, sender: Head, reader: Head, z: Tensor) -> dict[str, Any]:
    """A known pair's largest standard score, and its rank among all scores with the reader."""
    own = z[sender]
    best = float(own.max())
    return dict(
        kind=kind,
        score=score,
        sender=label(sender),
        reader=label(reader),
        component=int(own.argmax()) if score == "component" else None,
        z=best,
        rank=1 + int((z > best).sum()),
        of=z.numel(),
    )


def rounding_table(exact: Scan, rounded: Scan, roles: Roles) -> dict[str, Any]:
    """Best component score of every earlier head with every known reader, exact and rounded.

    Components of the two decompositions are not matched: a head's best component is compared with
    its best component.

    Returns:
        Columns: kind, sender, reader, known (bool), exact, rounded, exact_rank, rounded_rank
        (among the heads before the reader, from 1).
    """
    rows = []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        for reader in roles[reader_role]:
            before, after = (sender_scores(s, kind, reader)["component"] for s in (exact, rounded))
            for sender in np.ndindex(*before.shape):
                pair = [float(scores[sender]) for scores in (before, after)]
                ranks = [1 + int((scores > scores[sender]).sum()) for scores in (before, after)]
                known = sender in roles[sender_role]
                rows.append((kind, label(sender), label(reader), known, *pair, *ranks))
    names = (
        "kind", "sender", "reader", "known", "exact", "rounded", "exact_rank", "rounded_rank"
    )  # fmt: skip
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


# The claim that each row of `pair_table` tests.
CLAIMS = {
    (kind, score): f"{prefix}-{pair}"
    for kind, pair in (
        ("Q", "inhibition-to-mover"),
        ("V", "duplicate-to-inhibition"),
        ("K", "previous-to-induction"),
    )
    for score, prefix in (("whole", "whole-scores-miss"), ("component", "components-find"))
}


def side_by_side(tables: dict[str, dict[str, list]]) -> dict[str, list]:
    """Tables of several editions in one, with a column that says whose row it is."""
    names = next(iter(tables.values()))
    return {
        "edition": [title for title, table in tables.items() for _ in table["kind"]],
        **{name: [x for table in tables.values() for x in table[name]] for name in names},
    }


def one_edition(table: dict[str, list]) -> dict[str, list]:
    """The first edition's rows of a table made by `side_by_side`, without that column."""
    keep = [i for i, edition in enumerate(table["edition"]) if edition == table["edition"][0]]
    return {n: [x[i] for i in keep] for n, x in table.items() if n != "edition"}


def first(table: dict[str, list], n: int) -> dict[str, list]:
    """The first n rows of a table."""
    return {name: values[:n] for name, values in table.items()}


def best_of(table: dict[str, list], role: str) -> dict[str, Any] | None:
    """The first row of `component_table` whose sender has this role, None without one."""
    if role not in table["role"]:
        return None
    at = table["role"].index(role)
    return {name: values[at] for name, values in table.items()}


def outlier_p(
    table: dict[str, list], senders: Sequence[Head], *, seed: int, shuffles: int = 2000
) -> float:
    """How often as many heads drawn at random have a component as far out as the senders' best.

    `table` is that of `component_table`; the draw is among all heads in it.

    Raises:
        CompanionError: none of the senders comes before the reader.
    """
    best: dict[str, float] = {}
    for head, z in zip(table["head"], table["z"], strict=True):
        best[head] = max(z, best.get(head, -np.inf))
    values = np.array(list(best.values()))
    known = [best[label(head)] for head in senders if label(head) in best]
    if not known:
        raise CompanionError("none of these heads comes before the reader")
    rng = np.random.default_rng(seed)
    null = np.array([rng.choice(values, len(known), replace=False).max() for _ in range(shuffles)])
    return float((1 + (null >= max(known)).sum()) / (1 + shuffles))


def reader_table(
    scan: Scan, kind: composition.Kind, senders: Sequence[Head], reader: Head
) -> dict[str, list]:
    """Scores of every component of some heads with one reader, in the order of the components.

    Returns:
        Columns: head, component, composition.
    """
    scores = [
        (label(sender), k, float(score))
        for sender in senders
        if sender[0] < reader[0]
        for k, score in enumerate(scan.components[kind][sender][:, reader[0], reader[1]])
    ]
    names = ("head", "component", "composition")
    return {name: [row[i] for row in scores] for i, name in enumerate(names)}
