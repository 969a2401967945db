"""What single components of an inhibition head do to a mover (chapter 03).

Two readings of the same component are compared: its *composition score* with the mover's query,
from weights alone, and its *inhibition score*, the fall of the mover's preference for the right
name when the component is taken out of the mover's query at the end position. The paper's
definition of the second is not known to us in full: *reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.attention import inhibition_score
from th_utils.patching import (
    ComponentEdit,
    direct_query,
    end_attention,
    head_outputs,
    remove,
    replay,
    run_edited,
)
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD


def mover_score(run: CleanRun, mover: Head) -> Float[Tensor, " prompt"]:
    """The mover's inhibition score in the clean run."""
    at = run.prompts.positions
    return inhibition_score(run.pattern["end"][mover[0]], at["IO"], at["S1"])[:, mover[1]]


def scores_of(
    run: CleanRun, patterns: Float[Tensor, "prompt case pos"]
) -> Float[Tensor, "prompt case"]:
    """Inhibition scores of one head's patterns, case by case."""
    at = run.prompts.positions
    return inhibition_score(patterns, at["IO"], at["S1"])


def direct_effects(
    bridge: Any,
    run: CleanRun,
    sender: Head,
    mover: Head,
    directions: Float[Tensor, "case d_model"],
) -> Float[Tensor, "prompt case"]:
    """Fall of the mover's inhibition score when one direction of the sender leaves its query.

    For each direction (unit vectors), the part of the sender's output along it is removed from
    the input of the mover's query; norm and softmax are recomputed, the rest stays.
    """
    output = head_outputs(bridge, run, *sender)
    delta = -(output @ directions.mT)[..., None] * directions
    return _direct_fall(bridge, run, mover, delta)


def direct_fall(
    bridge: Any, run: CleanRun, sender: Head, mover: Head, edit: ComponentEdit | None = None
) -> Float[Tensor, " prompt"]:
    """The same for an edit of the sender's output; for its removal as a whole without one."""
    output = head_outputs(bridge, run, *sender)
    edited = torch.zeros_like(output) if edit is None else edit.apply(output)
    return _direct_fall(bridge, run, mover, (edited - output)[:, None])[:, 0]


def _direct_fall(
    bridge: Any, run: CleanRun, mover: Head, delta: Float[Tensor, "prompt case d_model"]
) -> Float[Tensor, "prompt case"]:
    patterns = direct_query(bridge, run, *mover, delta)
    clean = end_attention(run, *mover, run.query[mover[0], :, mover[1]][:, None], bridge)
    return scores_of(run, clean) - scores_of(run, patterns)


def leading(effects: Float[Tensor, "prompt component"], n: int = 2) -> list[int]:
    """The components with the largest mean effect, largest first."""
    return effects.mean(0).argsort(descending=True)[:n].tolist()


def removed_in_turn(
    bridge: Any, run: CleanRun, svd: HeadSVD, sender: Head, mover: Head
) -> dict[str, Float[Tensor, "prompt component"]]:
    """Each component removed at the end position, everything after it recomputed.

    Returns:
        Falls against the clean run of the mover's inhibition score ("inhibition") and of the
        logit difference ("logit difference", nats), per prompt and component.
    """
    directions = svd.V[sender[0], sender[1]].mT
    output = head_outputs(bridge, run, *sender)
    delta = -(output @ directions.mT)[..., None] * directions
    after = replay(bridge, run, sender[0], delta, watch=[mover])
    return {
        "inhibition": mover_score(run, mover)[:, None] - scores_of(run, after.patterns[mover]),
        "logit difference": run.logit_difference[:, None] - after.logit_difference,
    }


def removed_together(
    bridge: Any,
    run: CleanRun,
    mover: Head,
    edits: Sequence[ComponentEdit],
) -> dict[str, Float[Tensor, " prompt"]]:
    """Several heads edited at the end position at once, the whole model recomputed.

    Returns:
        Falls against the clean run, as in `removed_in_turn`, per prompt.
    """
    prompts = run.prompts
    name = f"blocks.{mover[0]}.attn.hook_pattern"
    falls: dict[str, list[Tensor]] = {"inhibition": [], "logit difference": []}
    clean, done = mover_score(run, mover), 0
    for batch in prompts.batches(32):
        end, n = batch.positions["end"], torch.arange(len(batch), device=batch.tokens.device)
        logits, kept = run_edited(bridge, batch.tokens, edits, positions=end, keep_hooks=[name])
        pattern = kept[name][n, mover[1], end][:, None]
        score = inhibition_score(pattern, batch.positions["IO"], batch.positions["S1"])[:, 0]
        rows = slice(done, done + len(batch))
        falls["inhibition"].append(clean[rows] - score)
        final = logits[n, end]
        falls["logit difference"].append(
            run.logit_difference[rows] - (final[n, batch.io] - final[n, batch.s])
        )
        done += len(batch)
    return {key: torch.cat(parts) for key, parts in falls.items()}


def random_components(
    svd: HeadSVD, picks: dict[Head, list[int]], *, seed: int
) -> list[ComponentEdit]:
    """Removal of as many other components of the same heads, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    edits = []
    for head, chosen in picks.items():
        others = [k for k in range(svd.S.shape[-1]) if k not in chosen]
        drawn = torch.randperm(len(others), generator=generator)[: len(chosen)]
        edits.append(remove(svd, *head, [others[i] for i in drawn.tolist()]))
    return edits


def random_directions(
    svd: HeadSVD, head: Head, n: int, *, seed: int
) -> Float[Tensor, "case d_model"]:
    """Unit vectors drawn at random from the space that a head can write to: a control."""
    V = svd.V[head[0], head[1]]
    drawn = torch.randn(V.shape[1], n, generator=torch.Generator().manual_seed(seed)).to(V)
    directions = (V @ drawn).mT
    return directions / directions.norm(dim=-1, keepdim=True)
