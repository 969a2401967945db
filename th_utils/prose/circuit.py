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


def writers(table: dict[str, list]) -> str:
    """The strongest writers as a table: what each adds to either name, and where it looks."""
    looks = [name for name in table if name.startswith("end>")]
    lines = [
        "| head | role | difference | to IO | to S | "
        + " | ".join(f"looks at {look.removeprefix('end>')}" for look in looks)
        + " |",
        "| --- " * (5 + len(looks)) + "|",
    ]
    for i, name in enumerate(table["name"]):
        numbers = [f"{table[column][i]:.2f}" for column in ("difference", "io", "s", *looks)]
        role = table["role"][i].replace("other", "none")
        lines.append(f"| {name} | {role} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def strongest_writer(table: dict[str, list]) -> str:
    """What the strongest writer without a role does, where it outdoes the strongest mover."""
    first = next((i for i, d in enumerate(table["difference"]) if d > 0), None)
    if first is None:
        return "No head writes for the indirect object."
    name, role = table["name"][first], table["role"][first]
    if role == "mover":
        return f"The strongest writer, head {name}, is a mover."
    looks = {n.removeprefix("end>"): table[n][first] for n in table if n.startswith("end>")}
    target = max(looks, key=looks.__getitem__)
    what = (
        "does its work by pushing the subject's logit down"
        if -table["s"][first] > table["io"][first]
        else "does its work by pushing the indirect object's logit up"
    )
    return (
        f"The strongest writer, head {name}, is no mover: it gives {looks[target]:.0%} of its "
        f"attention to {target} and {looks['IO']:.0%} to IO, and it {what} "
        f"({table['s'][first]:+.2f} nats on S, {table['io'][first]:+.2f} on IO)."
    )
