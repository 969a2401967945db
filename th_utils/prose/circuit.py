"""Sentences of chapter 01."""

from __future__ import annotations

from th_utils.roles import CRITERIA, ROLES, Roles, label


def roles_table(found: Roles) -> str:
    """The roles with their criteria, the heads found, their scores and the largest control."""
    lines = [
        "| role | criterion | heads found (score) | largest control |",
        "| --- | --- | --- | --- |",
    ]
    for role in ROLES:
        scores = found.scores.get(role) or [None] * len(found[role])
        heads = ", ".join(
            label(head) + ("" if score is None else f" ({score:.2f})")
            for head, score in zip(found[role], scores, strict=True)
        )
        control = found.controls.get(role)
        lines.append(
            f"| {role} | {CRITERIA[role]} | {heads or 'none'} | "
            f"{'' if control is None else f'{control:.3f}'} |"
        )
    return "\n".join(lines)


def compared_with_literature(found: Roles, published: Roles) -> str:
    """How many of the published heads of each role were found, where a model has published ones."""
    parts = [
        f"{sum(head in found[role] for head in published[role])} of {len(published[role])} {role}"
        for role in ROLES
        if published[role]
    ]
    if not parts:
        return "No roles of this model's heads have been published that they could be compared to."
    return "Of the heads that the literature gives for this model, these were found: " + (
        ", ".join(parts) + "."
    )
