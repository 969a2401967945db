"""Tables of chapter 01: how well the task is solved, by which heads, looking where."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.attention import attention_to, name_attribution
from th_utils.bootstrap import mean_interval
from th_utils.roles import ROLES, Roles, label, looks, role_of
from th_utils.runs import CleanRun
from th_utils.tasks import ioi


def task_table(run: CleanRun, *, seed: int) -> dict[str, Any]:
    """Logit difference (nats) and accuracy by template and order of the names, and overall.

    Returns:
        Columns: template (number from 1, or 0 for all), order, prompts, mean, low, high (bootstrap
        over prompts; over all templates, over pairs that differ in the order of the names only),
        preferred (share with the larger logit on the indirect object), top (share with the
        indirect object as top token of the vocabulary).
    """
    prompts = run.prompts
    groups = [(0, "both", torch.ones(len(prompts), dtype=torch.bool))]
    for template in sorted(set(prompts.template.tolist())):
        for order, abba in (("ABBA", True), ("BABA", False)):
            mask = (prompts.template == template) & (prompts.abba == abba)
            groups.append((template + 1, order, mask))
    rows = []
    for template, order, mask in groups:
        difference = run.logit_difference[mask].double()
        draws = ioi.pair_means(difference) if order == "both" else difference.cpu().numpy()
        mean, low, high = mean_interval(draws, seed=seed)
        rows.append(
            dict(
                template=template,
                order=order,
                prompts=int(mask.sum()),
                mean=mean,
                low=low,
                high=high,
                preferred=float((difference > 0).double().mean()),
                top=float(run.correct[mask].float().mean()),
            )
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def attribution_table(
    dla: Float[Tensor, "layer prompt head"], roles: Roles, *, seed: int
) -> dict[str, Any]:
    """Direct logit attribution of every head, with bootstrap intervals over prompts (nats).

    Returns:
        Columns: layer, head, name, role, mean, low, high.
    """
    rows = []
    for layer in range(dla.shape[0]):
        for head in range(dla.shape[2]):
            mean, low, high = mean_interval(ioi.pair_means(dla[layer, :, head]), seed=seed)
            rows.append(
                dict(
                    layer=layer,
                    head=head,
                    name=label((layer, head)),
                    role=role_of(roles, (layer, head)),
                    mean=mean,
                    low=low,
                    high=high,
                )
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def movers_share(dla: Float[Tensor, "layer prompt head"], roles: Roles) -> Float[Tensor, " prompt"]:
    """Per prompt: the movers' share of all positive direct logit attribution of heads."""
    positive = dla.clamp(min=0)
    movers = sum(positive[layer, :, head] for layer, head in roles["mover"])
    return movers / positive.sum(dim=(0, 2))


def attention_table(run: CleanRun, roles: Roles) -> dict[str, Any]:
    """Mean attention of every head with a role between the labelled positions of the task.

    `run` needs the rows "end", "S2" and "S1+1".

    Returns:
        Columns: role, name, and one per pair of `th_utils.roles.LOOKS` ("end>IO", ...).
    """
    pairs = [(role, head) for role in ROLES for head in roles[role]]
    return {
        "role": [role for role, _ in pairs],
        "name": [label(head) for _, head in pairs],
        **{look: [float(mean[head]) for _, head in pairs] for look, mean in looks(run).items()},
    }


def roles_table(found: Roles, again: Roles) -> dict[str, Any]:
    """Heads found on one split, and whether the same criterion picks them on the other.

    Returns:
        Columns: role, name, layer, head, score, again (bool).
    """
    rows = [
        dict(
            role=role,
            name=label(head),
            layer=head[0],
            head=head[1],
            score=score,
            again=head in again[role],
        )
        for role in ROLES
        for head, score in zip(found[role], found.scores.get(role) or [], strict=False)
    ]
    names = ("role", "name", "layer", "head", "score", "again")
    return {name: [row[name] for row in rows] for name in names}


def writers_table(bridge: Any, run: CleanRun, roles: Roles, *, n: int = 8) -> dict[str, Any]:
    """The heads with the largest direct logit attribution, what they write and where they look.

    Returns:
        Columns: name, role, difference (attribution to the logit difference, nats), io and s
        (to the two names' logits, from the mean over the vocabulary), and mean attention from the
        end to IO, S1, S2, start and end.
    """
    io, s = (share.mean(1) for share in name_attribution(bridge, run))
    strongest = (io - s).abs().flatten().argsort(descending=True)[:n].tolist()
    heads = [divmod(i, io.shape[1]) for i in strongest]
    to = ("IO", "S1", "S2", "start", "end")
    looks = {p: attention_to(run.pattern["end"], run.prompts.positions[p]).mean(1) for p in to}
    return {
        "name": [label(head) for head in heads],
        "role": [role_of(roles, head) for head in heads],
        "difference": [float((io - s)[head]) for head in heads],
        "io": [float(io[head]) for head in heads],
        "s": [float(s[head]) for head in heads],
        **{f"end>{p}": [float(mean[head]) for head in heads] for p, mean in looks.items()},
    }
