"""The statistics that need no more than weights, on several models side by side (chapter 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import composition
from th_utils.channels import CLAIMS, KNOWN_PAIRS, Scan, best_of, component_table
from th_utils.claims import load_claims, verdict
from th_utils.roles import Head, Roles, label

HIGHEST = 0.01  # of a reader's scores, see the claim on the blind search


def rank_table(scan: Scan, roles: Roles) -> dict[str, list]:
    """Where each known pair stands among all that the reader could hear.

    For each reader of a role, the best component of each known sender is ranked among all
    components of all earlier heads.

    Returns:
        Columns: kind, sender, reader, component (the sender's best), score, rank (from 1), of (how
        many components there are), share (rank / of), ratio (score over that of a random
        direction).
    """
    rows = []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        for reader in roles[reader_role]:
            scores = scan.components[kind][: reader[0], :, :, reader[0], reader[1]]
            level = composition.random_level(scan.svd.V.shape[2])
            for sender in roles[sender_role]:
                if sender[0] >= reader[0]:
                    continue
                own = scores[sender]
                best = int(own.argmax())
                rank = 1 + int((scores > own[best]).sum())
                rows.append(
                    (kind, label(sender), label(reader), best, float(own[best]), rank,
                     scores.numel(), rank / scores.numel(), float(own[best]) / level)
                )  # fmt: skip
    names = ("kind", "sender", "reader", "component", "score", "rank", "of", "share", "ratio")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def rank_controls(scan: Scan, roles: Roles) -> dict[str, list]:
    """The same share for every head that is no known sender: what a head's best component reaches.

    Returns:
        Columns: kind, low, middle, high (2.5%, 50% and 97.5% over other heads and readers), heads.
    """
    rows = []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        shares: list[float] = []
        for reader in roles[reader_role]:
            if reader[0] == 0:
                continue  # nothing comes before the first layer
            scores = scan.components[kind][: reader[0], :, :, reader[0], reader[1]]
            order = scores.flatten().sort().values
            best = scores.amax(-1)
            above = order.numel() - torch.searchsorted(order, best.flatten(), right=True)
            share = ((1 + above) / order.numel()).view_as(best)
            shares += [
                float(share[sender])
                for sender in np.ndindex(*best.shape)
                if sender not in roles[sender_role]
            ]
        if shares:
            rows.append((kind, *np.quantile(shares, [0.025, 0.5, 0.975]).tolist(), len(shares)))
    names = ("kind", "low", "middle", "high", "heads")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def concentration(
    scan: Scan, kind: composition.Kind, sender: Head, reader: Head
) -> Float[Tensor, " component"]:
    """How much of the whole-head score one, two, ... components make up, largest first.

    The squared whole-head score is ``sum_k s_k^2 CS_k^2 / sum_k s_k^2``; here are the partial sums
    of its terms in descending order, as shares of the total. It says how low-rank the way from one
    head to the other is, by weights.
    """
    scores = scan.components[kind][sender][:, reader[0], reader[1]].double()
    terms = ((scan.svd.S[sender].double() * scores) ** 2).sort(descending=True).values
    return terms.cumsum(0) / terms.sum()


def width_table(
    scan: Scan, roles: Roles, *, seed: int = 0, controls: int = 200, upto: int = 8
) -> dict[str, list]:
    """Share of the whole-head score in the leading components, known pairs and random pairs.

    The control takes heads at random in the senders' place, each before the reader.

    Returns:
        Columns: kind, components (1 to `upto`), known (mean over known pairs), low and high (the
        middle 95% of single random pairs), random (their mean), pairs.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        pairs = [(s, r) for r in roles[reader_role] for s in roles[sender_role] if s[0] < r[0]]
        if not pairs:
            continue
        heads = scan.svd.S.shape[1]
        readers = [pair[1] for pair in pairs]
        drawn = []
        for at in rng.integers(len(readers), size=controls):
            reader = readers[at]
            sender = (int(rng.integers(reader[0])), int(rng.integers(heads)))
            if sender not in roles[sender_role]:
                drawn.append((sender, reader))
        known, random = (
            np.stack([concentration(scan, kind, *pair).cpu().numpy()[:upto] for pair in chosen])
            for chosen in (pairs, drawn)
        )
        low, high = np.quantile(random, [0.025, 0.975], axis=0)
        for k in range(known.shape[1]):
            rows.append(
                (kind, k + 1, float(known[:, k].mean()), float(low[k]), float(high[k]),
                 float(random[:, k].mean()), len(pairs))
            )  # fmt: skip
    names = ("kind", "components", "known", "low", "high", "random", "pairs")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def claims_table(measured: dict[str, dict[str, float]]) -> dict[str, list]:
    """Claims on weights, edition by edition, with the verdict that the ledger's rule gives.

    Args:
        measured: edition to claim id to value.

    Returns:
        Columns: edition, claim, value, verdict, in the order of the ledger; claims that no edition
        has measured are left out.
    """
    rows = []
    for id, claim in load_claims().items():
        for edition, values in measured.items():
            if id in values:
                rows.append((edition, id, values[id], verdict(claim, values[id], None, None)))
    names = ("edition", "claim", "value", "verdict")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def agreement(table: dict[str, list], one: str, other: str) -> tuple[float, int] | None:
    """Share of the claims measured on both of two editions that have the same verdict.

    Returns:
        The share and the number of claims; None where there is none.
    """
    said: dict[str, dict[str, str]] = {}
    for edition, claim, found in zip(
        table["edition"], table["claim"], table["verdict"], strict=True
    ):
        said.setdefault(claim, {})[edition] = found
    same = [found[one] == found[other] for found in said.values() if {one, other} <= set(found)]
    return (sum(same) / len(same), len(same)) if same else None


def measured_values(
    scan: Scan, roles: Roles, pairs: dict[str, list], ranked: dict[str, list]
) -> dict[str, float]:
    """Values of the claims that rest on weights alone, by id, as their chapters measure them.

    Args:
        scan, roles: of the model.
        pairs: `th_utils.channels.pair_table` of them.
        ranked: `rank_table` of them.
    """
    found = {
        CLAIMS[kind, score]: auc
        for kind, score, auc in zip(pairs["kind"], pairs["score"], pairs["auc"], strict=True)
        if auc is not None
    }
    if roles["mover"]:
        best = best_of(component_table(scan, roles, "Q", roles.strongest("mover")), "inhibition")
        if best:
            found["inhibition-component-is-an-outlier"] = best["z"]
    if ranked["share"]:
        among = np.mean(np.array(ranked["share"]) <= HIGHEST)
        found["blind-search-finds-the-known"] = float(among)
    return found


def recorded_values(claims: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Values of recorded claims that rest on weights alone, by id."""
    ledger = load_claims()
    return {
        said["id"]: said["value"]
        for said in claims
        if said["id"] in ledger and ledger[said["id"]].needs == "weights"
    }
