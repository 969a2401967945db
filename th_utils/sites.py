"""What prompts leave at the positions where two channels are written (chapter 05).

One forward pass gives both: a `CleanRun`, which knows the end position, and what stands at the
second mention (S2) and at the token after the first (S1+1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import transformer
from th_utils.engine import from_bridge
from th_utils.progress import track
from th_utils.replay import Replay, Trace
from th_utils.runs import BATCH, CleanRun
from th_utils.tasks import ioi
from th_utils.transformer import Transformer

SITES = ("S2", "S1+1")


@dataclass(frozen=True)
class Sites:
    """A clean run, and what it leaves at the two positions where the channels are written."""

    run: CleanRun
    resid: dict[str, Float[Tensor, "layer prompt d_model"]]  # entering each block, by position
    z: dict[str, Float[Tensor, "layer prompt head d_head"]]  # weighted values, before W_O
    query: Float[Tensor, "layer prompt head d_head"]  # at S2, turned back by the position S1+1
    attention: Float[Tensor, "layer prompt head"]  # from S2 to S1+1
    stream: Float[Tensor, "prompt pos d_model"]  # entering block `entering`, at all positions
    entering: int


@torch.no_grad()
def sites(bridge: Any, prompts: ioi.IOIPrompts, *, entering: int = 0) -> Sites:
    """Run prompts and keep what the two channels need.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        prompts: of the IOI task.
        entering: the block in front of which the residual stream is kept at all positions.

    Raises:
        CompanionError: a model that replay does not know.
    """
    model = from_bridge(bridge)
    engine, parts = Replay(model), []
    for batch in track(prompts.batches(BATCH), "batches of prompts"):
        at = batch.positions
        base = engine.trace(batch.tokens, read=at["end"])
        rows = torch.arange(len(batch), device=batch.tokens.device)
        found = {
            **{f"resid {site}": base.resid[:, rows, at[site]] for site in SITES},
            **{f"z {site}": base.z[:, rows, at[site]] for site in SITES},
            "query": transformer.rotated(model, base.query[:, rows, at["S2"]], -at["S1+1"]),
            "attention": _pattern(model, base, at["S2"])[:, rows, :, at["S1+1"]].transpose(0, 1),
            "stream": base.resid[entering][None],
        }
        parts.append(found | _at_the_end(engine, base, batch))
    kept = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
    return Sites(
        run=CleanRun(
            prompts=prompts,
            pattern={"end": kept["pattern"]},
            query=kept["query end"],
            **{name: kept[name] for name in ("resid", "keys", "values", "z")},
            **{name: kept[name][0] for name in ("final", "final_scale", "logits", "correct")},
        ),
        resid={site: kept[f"resid {site}"] for site in SITES},
        z={site: kept[f"z {site}"] for site in SITES},
        query=kept["query"],
        attention=kept["attention"],
        stream=kept["stream"][0],
        entering=entering,
    )


def _at_the_end(engine: Replay, base: Trace, batch: ioi.IOIPrompts) -> dict[str, Tensor]:
    """What `runs.clean_run` keeps of a batch; what has no layers gets an axis of one in front."""
    end = batch.positions["end"]
    rows = torch.arange(len(batch), device=end.device)
    logits = engine.logits(base.final)
    return {
        "resid": base.resid[:, rows, end],
        "keys": base.keys,
        "values": base.values,
        "query end": transformer.rotated(engine.model, base.query[:, rows, end], -end),
        "z": base.z[:, rows, end],
        "pattern": _pattern(engine.model, base, end),
        "final": base.final[None],
        "final_scale": _divisor(engine.model, base.final)[None],
        "logits": logits.gather(-1, batch.answers)[None],
        "correct": (logits.argmax(dim=-1) == batch.right)[None],
    }


def _pattern(
    model: Transformer, base: Trace, at: Int[Tensor, " prompt"]
) -> Float[Tensor, "layer prompt head pos"]:
    """Attention from one position of each prompt."""
    rows = torch.arange(len(at), device=at.device)
    keys = base.keys.repeat_interleave(model.group, dim=3)
    scores = torch.einsum("lnhd,lnphd->lnhp", base.query[:, rows, at], keys) / model.d_head**0.5
    future = torch.arange(scores.shape[-1], device=at.device) > at[:, None, None]
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def _divisor(
    model: Transformer, final: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, " prompt"]:
    """What the final norm divides by."""
    norm = model.final_norm
    x = final if norm.rms else final - final.mean(-1, keepdim=True)
    return (x.square().mean(-1) + norm.eps).sqrt()
