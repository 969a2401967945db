"""Sentences of chapter 01."""

from __future__ import annotations

from th_utils.roles import CRITERIA, ROLES, Roles, label


def counted(some: int, of: int) -> str:
    """Some of so many, in words where it is all or none.

    >>> counted(3, 3), counted(0, 3), counted(2, 3)
    ('all 3', 'none of 3', '2 of 3')
    """
    return f"all {of}" if some == of else f"{some or 'none'} of {of}"


def task_message(table: dict[str, list]) -> str:
    """By how much the right name leads, and in how many templates and orders it does."""
    mean = table["mean"][0]
    each = [m > 0 for m, template in zip(table["mean"], table["template"], strict=True) if template]
    return (
        f"The logit of the right name lies {abs(mean):.1f} nats {'above' if mean > 0 else 'below'} "
        f"the other's on average, and above it in {counted(sum(each), len(each))} combinations of "
        "template and order."
    )


def task(table: dict[str, list]) -> str:
    """How well the task is solved, over all prompts and between templates."""
    each = [m for m, template in zip(table["mean"], table["template"], strict=True) if template]
    return (
        f"Over {table['prompts'][0]} held-out prompts the mean logit difference is "
        f"{table['mean'][0]:.1f} nats (95% interval {table['low'][0]:.1f} to "
        f"{table['high'][0]:.1f}), between {min(each):.1f} and {max(each):.1f} by template and "
        f"order; the indirect object beats the subject in {table['preferred'][0]:.0%} of the "
        f"prompts and is the top token of the whole vocabulary in {table['top'][0]:.0%}"
    )


def attribution(table: dict[str, list]) -> str:
    """The head that writes most for the right answer, and how many write next to nothing."""
    n, first = len(table["mean"]), max(range(len(table["mean"])), key=table["mean"].__getitem__)
    largest = table["mean"][first]
    if largest <= 0:
        return f"None of {n} heads writes for the indirect object"
    quiet = sum(abs(mean) < 0.1 * largest for mean in table["mean"])
    return (
        f"Head {table['name'][first]} writes most for the indirect object, {largest:.2f} nats; "
        f"{counted(quiet, n)} heads write less than a tenth of that either way"
    )


def attribution_alt(table: dict[str, list]) -> str:
    """The same, and the heads that the figure names."""
    strongest = sorted(range(len(table["mean"])), key=lambda i: -abs(table["mean"][i]))[:8]
    named = ", ".join(f"{table['name'][i]} {table['mean'][i]:+.2f}" for i in strongest)
    return f"{attribution(table)}. The strongest either way, in nats: {named}."


def shares(
    table: dict[str, list], found: Roles, share: tuple[float, float, float], figure: str
) -> str:
    """The movers' share of all that is written for the right answer, and who writes against it."""
    against = ", ".join(label(head) for head in found["negative-mover"])
    return (
        f"{attribution(table)} ({{numref}}`{figure}`). The movers, found below, write on average "
        f"{share[0]:.0%} of all that heads write directly for the indirect object. Negative movers "
        f"by the criterion below: {against or 'none'}."
    )


def attention_message(table: dict[str, list]) -> str:
    """Where the strongest mover and the strongest inhibition head look."""
    jobs = {
        "mover": ("end>IO", "the indirect object"),
        "inhibition": ("end>S2", "the repeated name"),
    }
    parts = [
        f"the strongest {role} head, {table['name'][at]}, gives {table[look][at]:.0%} to {what}"
        for role, (look, what) in jobs.items()
        if role in table["role"]
        for at in [table["role"].index(role)]
    ]
    if not parts:
        return "No mover and no inhibition head was found."
    return "Of its attention from the end, " + " and ".join(parts) + "."


def attention(table: dict[str, list]) -> str:
    """What the strongest head of each role gives to the position that its job is about."""
    looks = {
        "mover": "end>IO",
        "inhibition": "end>S2",
        "duplicate-token": "S2>S1",
        "previous-token": "S1+1>S1",
        "induction": "S2>S1+1",
    }
    parts = [
        f"{role} head {table['name'][at]} gives {table[look][at]:.0%} of its attention from "
        + look.replace(">", " to ")
        for role, look in looks.items()
        if role in table["role"]
        for at in [table["role"].index(role)]
    ]
    return "Mean attention of every head with a role; " + ", ".join(parts)


def roles_message(table: dict[str, list]) -> str:
    """How many heads have a role, and how many are found again on the other half."""
    task = [
        again
        for role, again in zip(table["role"], table["again"], strict=True)
        if role in ("mover", "negative-mover", "inhibition")
    ]
    return (
        f"{sum(table['again'])} of {len(table['again'])} heads with a role are found again on "
        f"the other half of templates and names, {sum(task)} of {len(task)} among those whose "
        "score depends on the task."
    )


def roles_map(table: dict[str, list]) -> str:
    """The same, and what the other scores depend on."""
    rest = " (the other scores are taken on random tokens)"
    return roles_message(table).removesuffix(".") + rest


def newcomers(found: Roles, again: Roles) -> str:
    """The heads that meet a criterion on the second half only."""
    new = [
        f"{label(head)} ({role})"
        for role in ROLES
        for head in again[role]
        if head not in found[role]
    ]
    return f"Found on the second half only: {', '.join(new) or 'none'}."


def roles_table(found: Roles) -> str:
    """The roles with their criteria, the heads found, their scores and the largest control."""
    lines = [
        "| role | criterion | heads found (score on half *find*) | largest control of any head |",
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
    where = "" if target == "IO" else f" and {looks['IO']:.0%} to IO"
    what = (
        "does its work by pushing the subject's logit down"
        if -table["s"][first] > table["io"][first]
        else "does its work by pushing the indirect object's logit up"
    )
    return (
        f"The strongest writer, head {name}, is no mover: it gives {looks[target]:.0%} of its "
        f"attention to {target}{where}, and it {what} "
        f"({table['s'][first]:+.2f} nats on S, {table['io'][first]:+.2f} on IO)."
    )
