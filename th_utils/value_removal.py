"""Writers taken out of the inhibition heads' values, and everything after recomputed (chapter 05).

A value at the second mention is read from every later position, so the blocks are run again from
there on, at all positions from the second mention to the end. With several inhibition heads the
later ones read the stream as the earlier ones left it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import Interval, mean_interval
from th_utils.components import mover_score, ratio, scores_of
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.patching import answer_logits, direct_query
from th_utils.progress import track
from th_utils.replay import Attention, Past, Replay
from th_utils.roles import Head, label
from th_utils.sites import Sites
from th_utils.tasks import ioi
from th_utils.width import Written, one_by_one
from th_utils.writers import Input

ROWS = 4096  # positions carried through the blocks at once, at least those of one case
Cut = Mapping[Head, Float[Tensor, "prompt d_model"]]  # reader: what is added before its value


@torch.no_grad()
def through_mover(
    bridge: Any,
    at: Sites,
    seen: Input,
    direction: Float[Tensor, " d_model"],
    falls: Float[Tensor, "prompt case"],
    mover: Head,
) -> Float[Tensor, "prompt case"]:
    """Fall of the mover's inhibition score that goes with falls along an inhibition component.

    The change of the component's coordinate at the end is put into the mover's query alone.

    Args:
        seen, falls: a value's input, and falls of what is watched of it.
        direction: what the component writes along.
    """
    moved = -falls / seen.signs[:, None]
    patterns = direct_query(bridge, at.run, *mover, moved[..., None] * direction)
    return mover_score(at.run, mover)[:, None] - scores_of(at.run, patterns)


def by_value_alone(
    bridge: Any,
    at: Sites,
    seen: Input,
    direction: Float[Tensor, " d_model"],
    written: Sequence[Written],
    mover: Head,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Two leading components of each writer, and all they write, out of one value alone.

    Returns:
        "leading" and "whole": mean falls of the mover's inhibition score through the component;
        "distance leading" and "distance whole": of the distance between the orders, as shares.
        Intervals over pairs of prompts.
    """
    cases = torch.stack(
        [sum(one_by_one(w, w.by_effect[:2])[:, -1] for w in written),
         -sum(w.output for w in written)], dim=1
    )  # fmt: skip
    falls = seen.fall(cases)
    scores = ioi.pair_means(through_mover(bridge, at, seen, direction, falls, mover))
    distances, clean = ioi.pair_means(falls), ioi.pair_means(seen.clean)
    found = {}
    for case, name in enumerate(("leading", "whole")):
        found[name] = mean_interval(scores[:, case], seed=seed)
        found[f"distance {name}"] = ratio(distances[:, case], clean, seed=seed)
    return found


@torch.no_grad()
def cut_values(
    bridge: Any, at: Sites, cuts: Sequence[Cut], mover: Head
) -> dict[str, Float[Tensor, "prompt case"]]:
    """Inhibition heads' values at the second mention see a change; everything after is recomputed.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        at: of the prompts, with the stream kept in front of the first of these heads.
        cuts: one a case: what is added to the residual stream in front of the value of each head.
        mover: whose inhibition score is followed; after the first of these heads.

    Returns:
        Falls against the clean run of the mover's inhibition score ("inhibition") and of the
        logit difference ("logit difference", nats).

    Raises:
        CompanionError: the heads do not fit what was kept or the mover, or a model that replay
            does not know.
    """
    layers = sorted({head[0] for cut in cuts for head in cut})
    if not layers or layers[0] != at.entering or mover[0] <= layers[0]:
        raise CompanionError(
            f"values of layers {layers}, the stream kept before layer {at.entering}, mover "
            f"{label(mover)}: the first of the layers must be that one, and before the mover"
        )
    engine = Replay(from_bridge(bridge))
    first, end = (at.run.prompts.positions[role] for role in ("S2", "end"))
    window = int((end - first).max()) + 1
    size = max(1, ROWS // (len(first) * window))
    chunks = [slice(start, start + size) for start in range(0, len(cuts), size)]
    parts = [_cut(engine, at, cuts[chunk], layers, window, mover)
             for chunk in track(chunks, "removals from values")]  # fmt: skip
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


def _cut(
    engine: Replay, at: Sites, cuts: Sequence[Cut], layers: list[int], window: int, mover: Head
) -> dict[str, Float[Tensor, "prompt case"]]:
    run, model = at.run, engine.model
    first, end = (run.prompts.positions[role] for role in ("S2", "end"))
    rows = torch.arange(len(first), device=first.device)
    index = first[:, None] + torch.arange(window, device=first.device)
    resid = at.stream[rows[:, None], index.clamp(max=at.stream.shape[1] - 1)]
    resid = resid.expand(len(cuts), *resid.shape)
    entering = {layers[0]: resid[:, :, 0]}  # what each of the layers gets at the second mention
    found: dict[str, Tensor] = {}

    def listener(layer: int, attention: Attention) -> Tensor | None:
        if layer == mover[0]:
            pattern = attention.pattern(mover[1])
            last = torch.zeros_like(end) if pattern.shape[2] == 1 else end - first
            found["scores"] = scores_of(run, pattern[:, rows, last].transpose(0, 1))
        return _added(engine, cuts, layer, entering.get(layer), attention, run.past.n_positions)

    for layer in layers[1:]:
        below = Replay(replace(model, blocks=model.blocks[:layer]))
        past = Past(
            run.prompts.tokens,
            first,
            run.keys[:layer],
            run.values[:layer],
            at.resid["S2"][layer],
        )
        entering[layer] = below.advance(
            past, at.entering, resid, first, listener=listener, check=False
        )
    final = engine.advance(run.past, at.entering, resid, first, listener=listener, check=False)
    logits = answer_logits(model, run, final)
    return {
        "inhibition": mover_score(run, mover)[:, None] - found["scores"],
        "logit difference": run.logit_difference[:, None] - (logits[..., 0] - logits[..., 1]),
    }


def _added(
    engine: Replay,
    cuts: Sequence[Cut],
    layer: int,
    x: Float[Tensor, "case prompt d_model"] | None,
    attention: Attention,
    own: int,
) -> Float[Tensor, "case prompt window d_model"] | None:
    """What the heads of one layer write more because their values saw the cuts.

    `x` enters the layer at the second mention, whose key is number `own`.
    """
    if x is None:
        return None
    model, block = engine.model, engine.model.blocks[layer]
    change = attention.query.new_zeros(*attention.query.shape[:3], model.d_model)
    for head in dict.fromkeys(head for cut in cuts for head in cut if head[0] == layer):
        read = attention.pattern(head[1])[..., own, None]
        W_V, W_O = block.W_V[head[1] // model.group], block.W_O[head[1]]
        for case, cut in enumerate(cuts):
            if head in cut:
                moved = block.norm_1(x[case] + cut[head]) - block.norm_1(x[case])
                change[case] += read[case] * (moved @ W_V @ W_O)[:, None]
    return change


@dataclass(frozen=True)
class Removal:
    """Writers removed from the values of all inhibition heads, fully recomputed."""

    table: dict[str, list]
    clean: Float[np.ndarray, " pair"]  # the main mover's inhibition score
    leading: Float[np.ndarray, " pair"]  # its fall without the writers' leading components
    whole: Float[np.ndarray, " pair"]  # without all that they write
    others: Float[np.ndarray, "pair draw"]  # without as many random other components


def remove_from_values(
    bridge: Any,
    at: Sites,
    readers: Mapping[Head, Sequence[Written]],
    mover: Head,
    *,
    draws: int,
    seed: int,
    also: Mapping[str, Mapping[Head, Sequence[Written]]] | None = None,
    name: str = "duplicate-token",
) -> Removal:
    """Leading components of all writers leave all readers' values; everything after recomputed.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        at: of the split reported.
        readers: inhibition heads, with what their writers write at the second mention.
        mover: whose inhibition score is followed.
        draws: of random other components, as many as the leading ones.
        seed: of those, and of the bootstrap.
        also: further writers of the same readers, by name, for the table alone.
        name: of the writers.

    Returns:
        The table has columns removed, control (bool), and mean, low, high of what is left of the
        mover's inhibition score and of the logit difference ("inhibition mean", ...), and of what
        they lose ("inhibition fall mean", ...).
    """
    generator = torch.Generator().manual_seed(seed)

    def cut(of: Callable[[Written], Tensor], readers: Mapping = readers) -> Cut:
        return {reader: sum(of(w) for w in written) for reader, written in readers.items()}

    def first_two(written: Written, order: Sequence[int]) -> Tensor:
        return one_by_one(written, order[:2])[:, -1]

    def leading(written: Written) -> Tensor:
        return first_two(written, written.by_effect)

    def whole(written: Written) -> Tensor:
        return -written.output

    def spare(written: Written) -> Tensor:
        drawn = torch.randperm(len(written.directions), generator=generator).tolist()
        return first_two(written, [k for k in drawn if k not in written.by_effect[:2]])

    cuts = {f"{name}, leading two": cut(leading), f"{name}, all": cut(whole)}
    for other, theirs in (also or {}).items():
        cuts[f"{other}, leading two"] = cut(leading, theirs)
        cuts[f"{other}, all"] = cut(whole, theirs)
    if also:
        everything = [cut(whole, theirs) for theirs in (readers, *also.values())]
        cuts["all of these, all"] = _joined(everything)
    fixed = len(cuts)
    falls = {
        quantity: ioi.pair_means(values)
        for quantity, values in cut_values(
            bridge, at, [*cuts.values(), *(cut(spare) for _ in range(draws))], mover
        ).items()
    }
    clean = {
        "inhibition": ioi.pair_means(mover_score(at.run, mover)),
        "logit difference": ioi.pair_means(at.run.logit_difference),
    }
    left = {"nothing": clean} | {
        removed: {q: clean[q] - falls[q][:, i] for q in clean} for i, removed in enumerate(cuts)
    }
    control = f"{name}, random others"
    left[control] = {q: clean[q] - falls[q][:, fixed:].mean(1) for q in clean}
    table: dict[str, list] = {
        "removed": list(left),
        "control": [removed == control for removed in left],
    }
    for quantity in clean:
        kept = [values[quantity] for values in left.values()]
        lost = [clean[quantity] - values for values in kept]
        for name, rows in ((quantity, kept), (f"{quantity} fall", lost)):
            intervals = [mean_interval(values, seed=seed) for values in rows]
            for end, i in (("mean", 0), ("low", 1), ("high", 2)):
                table[f"{name} {end}"] = [interval[i] for interval in intervals]
    inhibition = falls["inhibition"]
    return Removal(
        table, clean["inhibition"], inhibition[:, 0], inhibition[:, 1], inhibition[:, fixed:]
    )


def _joined(cuts: Sequence[Cut]) -> Cut:
    """Several cuts at once."""
    readers = dict.fromkeys(reader for cut in cuts for reader in cut)
    return {reader: sum(cut[reader] for cut in cuts if reader in cut) for reader in readers}
