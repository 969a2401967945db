"""Tables of chapter 12: the strongest channels of any model, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from th_utils import composition
from th_utils.channels import Scan
from th_utils.claims import load_claims, verdict
from th_utils.results import public
from th_utils.roles import Head, Roles, label, role_of


def strongest(scan: Scan, roles: Roles | None, n: int) -> dict[str, list]:
    """The strongest channels of a model: for each kind of composition the `n` pairs of heads with
    the highest component scores, each pair once, with its best component.

    Scores of different readers are compared as multiples of that of a random direction, so readers
    that are open to few directions come first.

    Returns:
        Columns: kind, sender, component, reader, score, ratio (to a random direction),
        sender_role, reader_role ("other" without a role, "unknown" where none were measured).
    """
    level = composition.random_level(scan.svd.V.shape[2])
    rows = []
    for kind in composition.KINDS:
        best, component = scan.components[kind].nan_to_num(-1).max(2)
        order = best.flatten().argsort(descending=True)[:n].tolist()
        for layer, head, reader_layer, reader_head in zip(
            *np.unravel_index(order, best.shape), strict=True
        ):
            at = (layer, head, reader_layer, reader_head)
            score = float(best[at])
            if score < 0:
                continue  # a model of one layer has no later reader
            pair: tuple[Head, Head] = (int(layer), int(head)), (int(reader_layer), int(reader_head))
            rows.append(
                (kind, label(pair[0]), int(component[at]), label(pair[1]), score, score / level,
                 *("unknown" if roles is None else role_of(roles, h) for h in pair))
            )  # fmt: skip
    names = ("kind", "sender", "component", "reader", "score", "ratio", "sender_role",
             "reader_role")  # fmt: skip
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def layer_table(scan: Scan) -> dict[str, list]:
    """The highest component score between any two layers, by kind of composition.

    Returns:
        Columns: kind, sender (layer), reader (layer), ratio (of the score to that of a random
        direction).
    """
    level = composition.random_level(scan.svd.V.shape[2])
    rows = []
    for kind in composition.KINDS:
        best = scan.components[kind].nan_to_num(-1).amax((1, 2, 4))
        for sender, reader in torch.triu_indices(*best.shape, offset=1).T.tolist():
            rows.append((kind, sender, reader, float(best[sender, reader]) / level))
    names = ("kind", "sender", "reader", "ratio")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def claims_table(
    edition: str,
    weights: Mapping[str, float],
    prompts: Mapping[str, Sequence[float]],
) -> dict[str, list]:
    """The claims that were measured on a model, with the verdict that the ledger's rule gives.

    Args:
        edition: the model.
        weights: claim id to value, of claims on weights.
        prompts: claim id to value, low and high, of claims on prompts.

    Returns:
        Columns: edition, claim, value, verdict, in the order of the ledger.
    """
    rows: list[tuple[Any, ...]] = []
    for id, claim in load_claims().items():
        if id in prompts:
            value, low, high = map(float, prompts[id])
            rows.append((public(edition), id, value, verdict(claim, value, low, high)))
        elif id in weights:
            rows.append((public(edition), id, weights[id], verdict(claim, weights[id])))
    names = ("edition", "claim", "value", "verdict")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
