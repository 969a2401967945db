r"""One component of an inhibition head on ordinary text: where it is active, what it does there.

Chapter 08. At each position the head's output has the coordinate :math:`o \cdot v` along the write
direction of the component. *Active* means far from the origin, in either direction. The paper looks
at its components on free text in an appendix whose definitions are not known to us:
*reconstruction*.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from th_utils import transformer
from th_utils.bootstrap import Interval, bootstrap
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.replay import Replay, Trace, causal_mask
from th_utils.roles import Head, label

BATCH = 8  # texts at once; what is kept of a run is some 100 MB at this
ACTIVE = 0.01  # share of positions that are called most active


@dataclass(frozen=True)
class Seen:
    """What a component does at each position of texts, and what one reader does without it.

    Rises are of the reader's attention when the component leaves its query; `random` when an
    equally long random vector does.
    """

    coordinate: Float[Tensor, "text pos"]  # in residual-stream units
    looked: Int[Tensor, "text pos"]  # the position that the head looks at most
    weight: Float[Tensor, "text pos"]  # and with how much of its attention
    reader: Float[Tensor, "text pos"]  # the reader's attention to that position
    rise: Float[Tensor, "text pos"]  # of it
    rise_mentions: Float[Tensor, "text pos"]  # rise to all mentions of the token looked at
    random: Float[Tensor, "draw text pos"]


@torch.no_grad()
def observe(
    bridge: Any,
    tokens: Int[Tensor, "text pos"],
    sender: Head,
    reader: Head,
    direction: Float[Tensor, " d_model"],
    controls: Float[Tensor, "draw d_model"],
) -> Seen:
    """Run texts and look at one component of a head, and at one later head that reads it.

    The component is taken out of the residual stream in front of the reader's query at each
    position in turn; the reader's norm and softmax are recomputed, all else is as it was.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        tokens: texts of equal length, or padded on the right.
        sender: the head that has the component.
        reader: a head in a later layer.
        direction: the component's write direction, of length 1.
        controls: unit vectors for the control.

    Raises:
        CompanionError: the reader is not after the sender, or a model that `th_utils.engine` does
            not know.
    """
    if not sender[0] < reader[0]:
        raise CompanionError(
            f"head {label(reader)} is not in a layer after {label(sender)}: it cannot read it"
        )
    model = from_bridge(bridge)
    # what comes after the reader is not asked for
    engine = Replay(replace(model, blocks=model.blocks[: reader[0] + 1]))
    parts = [
        _observe(engine, batch, sender, reader, direction, controls)
        for batch in track(tokens.split(BATCH), "batches of texts")
    ]
    return Seen(*(torch.cat([getattr(p, f.name) for p in parts], dim=-2) for f in fields(Seen)))


def _observe(
    engine: Replay,
    tokens: Tensor,
    sender: Head,
    reader: Head,
    direction: Tensor,
    controls: Tensor,
) -> Seen:
    base = engine.trace(tokens)
    layer, head = sender
    weight, looked = _pattern(base, sender, base.query[layer][:, :, head]).max(-1)
    coordinate = base.z[layer][:, :, head] @ (engine.W_O(layer)[head] @ direction)
    same = tokens[:, None] == tokens.gather(1, looked)[..., None]

    def attention(query: Tensor) -> tuple[Tensor, Tensor]:
        pattern = _pattern(base, reader, query)
        return pattern.gather(-1, looked[..., None])[..., 0], (pattern * same).sum(-1)

    def without(removed: Tensor) -> tuple[Tensor, Tensor]:
        return attention(_query(engine, reader, base.resid[reader[0]] - removed))

    clean, clean_mentions = attention(base.query[reader[0]][:, :, reader[1]])
    after, after_mentions = without(coordinate[..., None] * direction)
    random = [without(coordinate.abs()[..., None] * control)[0] - clean for control in controls]
    return Seen(
        coordinate=coordinate,
        looked=looked,
        weight=weight,
        reader=clean,
        rise=after - clean,
        rise_mentions=after_mentions - clean_mentions,
        random=torch.stack(random) if random else clean.new_zeros(0, *clean.shape),
    )


def _query(
    engine: Replay, reader: Head, resid: Float[Tensor, "text pos d_model"]
) -> Float[Tensor, "text pos d_head"]:
    """One head's queries, turned where the model turns them, of what enters its layer."""
    block, one = engine.model.blocks[reader[0]], slice(reader[1], reader[1] + 1)
    bias = None if block.b_Q is None else block.b_Q[one]
    query = transformer.project(block.norm_1(resid), block.W_Q[one], bias)
    positions = torch.arange(resid.shape[1], device=resid.device)
    return transformer.rotated(engine.model, query, positions)[:, :, 0]


def _pattern(
    base: Trace, head: Head, query: Float[Tensor, "text pos d_head"]
) -> Float[Tensor, "text pos key"]:
    """A head's attention from every position."""
    group = base.query.shape[3] // base.keys.shape[3]
    keys = base.keys[head[0]][:, :, head[1] // group]
    scores = query @ keys.mT / query.shape[-1] ** 0.5
    seen = causal_mask(scores.shape[-2], scores.shape[-1], scores.device)
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def said_before(tokens: Int[Tensor, "text pos"]) -> Bool[Tensor, "text pos"]:
    """Whether each token had occurred before in its text.

    >>> said_before(torch.tensor([[7, 8, 7, 7]])).tolist()
    [[False, False, True, True]]
    """
    same = tokens[:, None] == tokens[..., None]
    return (same & ~causal_mask(*same.shape[-2:], tokens.device).mT).any(-1)


def repetition(
    tokens: Int[Tensor, "text pos"], looked: Int[Tensor, "text pos"]
) -> Bool[Tensor, "text pos"]:
    """Whether the token that a head mostly looks at had occurred before it was looked at there.

    In the task the inhibition heads look at the second mention of a name: that is one.
    """
    return said_before(tokens).gather(1, looked)


def most_active(
    activity: Float[np.ndarray, "*rep text pos"], share: float = ACTIVE
) -> Bool[np.ndarray, "*rep text pos"]:
    """The share of all positions, at least one, at which the activity is largest."""
    flat = activity.reshape(*activity.shape[:-2], -1)
    n = max(1, round(share * flat.shape[-1]))
    order = np.argpartition(-flat, n - 1, axis=-1)[..., :n]
    found = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(found, order, True, axis=-1)
    return found.reshape(activity.shape)


def mean_among(
    activity: Float[np.ndarray, "text pos"],
    values: Shaped[np.ndarray, "text pos"],
    *,
    seed: int,
    share: float = ACTIVE,
    above: float = 0.0,
) -> Interval:
    """Mean of values among the most active positions; of flags, their share. Interval over texts.

    Which positions are the most active is decided anew in each resample.

    Args:
        activity, values: of each position.
        seed: of the resampling.
        share: of all positions, the most active ones.
        above: share of all positions, the most active of those, that are left out.
    """

    def mean(a: np.ndarray, v: np.ndarray) -> np.ndarray:
        return _mean(v, between(a, share, above))

    return bootstrap(mean, [activity, values], seed=seed, batched=True)


def between(
    activity: Float[np.ndarray, "*rep text pos"], share: float, above: float
) -> Bool[np.ndarray, "*rep text pos"]:
    """The most active `share` of all positions without the most active `above`."""
    found = most_active(activity, share)
    return found & ~most_active(activity, above) if above else found


def lift(
    activity: Float[np.ndarray, "text pos"],
    flag: Bool[np.ndarray, "text pos"],
    *,
    seed: int,
    share: float = ACTIVE,
) -> Interval:
    """Share of the most active positions that are flagged, over the share of all positions.

    Zero where nothing at all is flagged. Interval over texts.
    """

    def ratio(a: np.ndarray, f: np.ndarray) -> np.ndarray:
        base = f.mean(axis=(1, 2))
        active = _mean(f, most_active(a, share))
        return np.divide(active, base, out=np.zeros_like(active), where=base > 0)

    return bootstrap(ratio, [activity, flag], seed=seed, batched=True)


def _mean(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Mean over the chosen positions, per replicate; zero where there are none."""
    n = among.sum(axis=(1, 2))
    total = np.where(among, values, 0).sum(axis=(1, 2))
    return np.divide(total, n, out=np.zeros(len(n)), where=n > 0)
