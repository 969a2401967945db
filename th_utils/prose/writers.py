"""Sentences of chapter 05."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from th_utils.bootstrap import Interval
from th_utils.roles import Head, Roles, label
from th_utils.width import Joint, needed
from th_utils.writer_effects import Channel
from th_utils.writers import CHANNELS

LEVELS = (0.5, 0.8)  # shares of the whole effect whose number of components is said
KNOWN = {"V": "the distance between the two orders", "K": "the attention"}
INPUT = {"V": "value", "K": "key"}


def _plural(role: str) -> str:
    return f"{role} heads"


def heads(roles: Roles, found: dict[str, int], leads: dict[Head, int]) -> str:
    """How many pairs of heads each channel has, and the inhibition heads' leading components."""
    parts = []
    for kind, number in found.items():
        writers, readers, _ = CHANNELS[kind]
        if number:
            parts.append(
                f"{number} pairs of a writer and a later reader by {INPUT[kind]}, from "
                f"{_plural(writers)} ({_listed(roles[writers])}) to {_plural(readers)} "
                f"({_listed(roles[readers])})"
            )
        else:
            parts.append(f"no {_plural(writers)} before {_plural(readers)}, so nothing by "
                         f"{INPUT[kind]}")  # fmt: skip
    components = ", ".join(f"{label(head)}.{k}" for head, k in leads.items()) or "none"
    return (
        f"This model has {'; and '.join(parts)}. Leading components of the inhibition heads: "
        f"{components}."
    )


def _listed(found: Sequence[Head]) -> str:
    return ", ".join(label(head) for head in found) or "none"


def absent(roles: Roles) -> str:
    """Why an edition without a forward pass shows scores only."""
    return (
        "Of this edition only the attention weights are here, so no prompt can be run: what "
        "follows are the composition scores alone, for the heads with "
        f"{roles.source} roles, and no claim of this chapter is judged. The component of an "
        "inhibition head that stands for its leading one is that with the highest composition "
        "score with the main mover's query."
    )


def panels(table: dict[str, list]) -> str:
    """Of each pair drawn the component with the largest effect and the one with the best score."""
    parts = []
    pairs = list(zip(table["writer"], table["reader"], strict=True))
    for writer, reader in dict.fromkeys(pairs):
        at = [i for i, pair in enumerate(pairs) if pair == (writer, reader)]
        best = max(at, key=lambda i: table["composition"][i])
        said = (
            f"from {writer} to {reader} component {table['component'][best]} has the highest "
            f"composition score ({table['composition'][best]:.2f})"
        )
        if table["effect"][at[0]] is not None:
            top = max(at, key=lambda i: table["effect"][i])
            said += (
                f" and component {table['component'][top]} the largest effect "
                f"({100 * table['effect'][top]:.1f})"
            )
        parts.append(said)
    return "; ".join(parts)


def share(kind: str, channel: Channel, joint: Joint, part: Interval) -> str:
    """What the leading components do of all that the writers do, and how much that is."""
    writers, readers, _ = CHANNELS[kind]
    numbers = len({e.pair.writer for e in channel.effects})
    if kind == "V":
        readers = f"the strongest of the {_plural(readers)}, {label(channel.reader)},"
    else:
        readers = f"the {_plural(readers)}"
    whole = joint.whole.mean() / joint.clean.mean()
    rest = (
        " Most of it is written by others, then."
        if whole < 0.5
        else " Without them next to nothing of it is left."
        if whole > 0.9
        else ""
    )
    return (
        f"All {numbers} {_plural(writers)} together, taken out of what {readers} read by "
        f"{INPUT[kind]}, "
        f"take away {whole:.0%} of {KNOWN[kind]}.{rest} Their two leading components alone do "
        f"{part.value:.0%} of that (95% interval {part.low:.0%} to {part.high:.0%}), as many "
        f"others drawn at random {abs(joint.others.mean()) / abs(joint.whole.mean()):.1%}."
    )


def through(numbers: dict[str, float], clean: float) -> str:
    """What of the mover's inhibition goes with the distance, through one component."""
    return (
        f"What the component no longer says reaches the main mover's query: its inhibition score "
        f"of {clean:.2f} falls by {numbers['leading']:.2f} for the leading components and by "
        f"{numbers['whole']:.2f} for all that these heads write, everything else held."
    )


def agreement(table: dict[str, list]) -> str:
    """How far score and effect agree over the components of each writer, pair by pair."""
    rho = np.array(table["rho"])
    first = int(np.argmax(table["strength"]))
    text = (
        f"{len(rho)} pairs of heads: rank correlations between {rho.min():.2f} and "
        f"{rho.max():.2f}, above chance (p < 0.05, components permuted) in "
        f"{sum(p < 0.05 for p in table['p'])}; {rho[first]:.2f} in the pair with the largest "
        f"effect, from {table['writer'][first]} to {table['reader'][first]}. The component with "
        f"the highest score is the one with the largest effect in {sum(table['coincide'])} of "
        "them. The mere order of the components, by singular value, correlates "
        f"{np.mean(table['order']):.2f} with the effect in the mean"
    )
    if table["facing"][0] is None:
        return text + "."
    return (
        f"{text}; the score of two components, $|v_k \\cdot u_j|$, {np.mean(table['facing']):.2f}."
    )


def width(joints: Sequence[Joint], scores: Joint | None) -> str:
    """How many components of each writer are needed, channel by channel, in plain words."""
    lines = []
    names = {
        "Q": "inhibition heads into the main mover's query",
        "V": "duplicate-token heads into the inhibition head's value",
        "K": "previous-token heads into the induction heads' keys",
    }
    for joint in joints:
        half, most = (needed(joint, level) for level in LEVELS)
        lines.append(
            f"- {names[joint.kind]}: {half} of {joint.by_effect.shape[1]} components of each "
            f"writer for half of the whole effect, {most} for four fifths; the two leading ones "
            f"{_share(joint.leading, joint.whole):.0%}, the two with the highest composition "
            f"scores {_share(joint.by_score[:, 1], joint.whole):.0%}, two at random "
            f"{_share(joint.random[:, 1], joint.whole):.0%}."
        )
    text = "\n".join(lines)
    if scores is None:
        return text
    two = _share(scores.leading, scores.whole)
    bounded = next(joint for joint in joints if joint.kind == "K")
    seen = _share(bounded.leading, bounded.whole)
    text += (
        "\n\nAttention is bounded: once it is gone, removing more changes nothing, so that few "
        "components seem to do the work of all. Looked at afterwards (exploratory), on the "
        f"attention *score*, before the softmax, the two leading components carry {two:.0%} of "
        f"the whole effect instead of {seen:.0%}, and four fifths take {needed(scores, 0.8)} "
        "components of each writer. "
    )
    value = next((joint for joint in joints if joint.kind == "V"), None)
    if value is None:
        return text
    other = _share(value.leading, value.whole)
    return text + (
        f"By this measure the channel by key is {'wider' if two < other else 'no wider'} than the "
        f"one by value, where two carry {other:.0%}"
        + (", and two components are not the channel." if two < 0.5 else ".")
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.mean() / whole.mean())


def removal(table: dict[str, list]) -> str:
    """What is left of the mover's inhibition score and the logit difference, row by row."""
    score, logits = table["inhibition mean"], table["logit difference mean"]
    parts = [
        f"{logits[i]:.1f} nats and {score[i]:.2f} ({removed})"
        for i, removed in enumerate(table["removed"])
    ]
    return "Logit difference and inhibition score of the main mover: " + "; ".join(parts) + "."


def everyone(table: dict[str, list]) -> str:
    """Who contributes most to each input, and where the first head with the writers' role is."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        at = [i for i, k in enumerate(table["kind"]) if k == kind]
        first = max(at, key=lambda i: table["mean"][i])
        role = CHANNELS[kind][0]
        mine = [i for i in at if table["role"][i] == role]
        said = (
            f"the {INPUT[kind]} of {table['reader'][at[0]]} loses most of what is watched "
            f"({table['mean'][first]:.0%}) without {_named(table, first)}"
        )
        if first not in mine:
            said += (
                f" (the strongest {role} head, {table['name'][mine[0]]}, is number "
                f"{table['rank'][mine[0]]} of {table['of'][first]} in size "
                f"with {table['mean'][mine[0]]:.0%})"
                if mine
                else f" (no {role} head is among the first {len(at)} of {table['of'][first]})"
            )
        parts.append(said)
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _named(table: dict[str, list], i: int) -> str:
    role = table["role"][i]
    return table["name"][i] if role == "other" else f"{role} head {table['name'][i]}"


def instead(role: str, numbers: dict[str, float], others: dict[str, float]) -> str:
    """What heads of another role write into the same value, beside the duplicate-token heads."""
    return (
        f"The {_plural(role)} look from the second mention at the token after the first, and they "
        f"too come before the inhibition heads. Taken out of the same value, all that they write "
        f"takes away {numbers['distance whole']:.0%} of the distance between the two orders "
        f"(the duplicate-token heads' {others['distance whole']:.0%}), their two leading "
        f"components {numbers['distance leading']:.0%} ({others['distance leading']:.0%}); "
        f"through the component the mover's inhibition score falls by {numbers['whole']:.2f} "
        f"({others['whole']:.2f})."
    )


def draws(joint: Joint) -> str:
    """The largest effect of any single random draw of other components."""
    means = joint.others.mean(axis=0) / joint.leading.mean()
    return f"largest of {len(means)} single draws {np.abs(means).max():.2f} of the leading ones"


def width_alt(joints: Sequence[Joint]) -> str:
    """What the curves show, channel by channel."""
    parts = [
        f"{joint.kind}: two components {_share(joint.leading, joint.whole):.0%} of the whole "
        f"effect, four fifths with {needed(joint, LEVELS[1])}"
        for joint in joints
    ]
    return "Share of the whole effect by number of components of each writer; " + "; ".join(parts)


def spread(table: dict[str, list]) -> str:
    """How far the best component stands out of its head, by either score, over the pairs drawn."""
    pairs = list(zip(table["writer"], table["reader"], strict=True))
    said = []
    titles = {"composition": "composition score", "facing": "$|v_k \\cdot u_j|$"}
    for name, title in titles.items():
        if table[name][0] is None:
            continue
        times = []
        for one in dict.fromkeys(pairs):
            scores = [x for x, pair in zip(table[name], pairs, strict=True) if pair == one]
            times.append(max(scores) / np.median(scores))
        said.append(f"the highest {title} of a component is {np.mean(times):.1f} times the median")
    drawn = len(dict.fromkeys(pairs))
    return f"Over the {drawn} pairs drawn, {' and '.join(said)} of its head."
