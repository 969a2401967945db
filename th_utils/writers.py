r"""Who writes what a head reads by value or by key, component by component (chapter 05).

Two channels of the circuit end in an input other than the query. Duplicate-token heads write at
the second mention what the inhibition heads carry to the end as values, and previous-token heads
write behind the first mention the keys that the induction heads look for. In both a component of
an earlier head is taken out of *one* input of *one* later head at *one* position; that head's norm
is recomputed, everything else stays. What is then read is one number of the normalised residual:

.. math:: \Delta = \big(\mathrm{norm}(x + \delta) - \mathrm{norm}(x)\big) \cdot g,

V
    :math:`g = a \, s_j u_j`, with a the attention from the end to the second mention, and
    :math:`s_j u_j v_j^\top` the leading component of the inhibition head: :math:`\Delta` is the
    change of its coordinate at the end.
K
    :math:`g = W_K R^\top q / \sqrt{d_{head}}` with the query of the second mention, turned back by
    the key's position: :math:`\Delta` is the change of one attention score.

The paper's measure of these two channels is not known to us: *reconstruction*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import composition
from th_utils.attention import attention_to
from th_utils.components import direct_effects, leading, mover_score, scores_of
from th_utils.patching import direct_query, head_outputs
from th_utils.roles import Head, Roles, label
from th_utils.runs import CleanRun
from th_utils.sites import Sites, sites
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi
from th_utils.weights import AttentionWeights

Kind = Literal["V", "K"]
CASES = 16  # changes of one input at a time
# writers, readers, and where the writers write
CHANNELS: dict[str, tuple[str, str, str]] = {
    "V": ("duplicate-token", "inhibition", "S2"),
    "K": ("previous-token", "induction", "S1+1"),
}


# --- from the weights alone


@dataclass(frozen=True)
class Pair:
    """A writer and a later head that reads it, and what the weights say of them."""

    kind: Kind
    writer: Head
    reader: Head
    scores: Float[Tensor, " component"]  # composition score with the reader's value or key
    facing: Float[Tensor, " component"] | None  # |v_k . u_j|, j the reader's leading component; V


def known(roles: Roles, kind: Kind, writers: str | None = None) -> list[tuple[Head, Head]]:
    """Writers and later readers of a channel, strongest readers first, then strongest writers.

    Of inhibition heads those before the main mover count, as in chapter 03. `writers` puts the
    heads of another role in the writers' place.
    """
    usual, readers, _ = CHANNELS[kind]
    writers = writers or usual
    mover = roles.main("mover")
    found = [
        head for head in roles[readers] if kind != "V" or (mover is not None and head[0] < mover[0])
    ]
    return [(w, r) for r in found for w in roles[writers] if w[0] < r[0]]


def leads_by_weight(svd: HeadSVD, weights: AttentionWeights, roles: Roles) -> dict[Head, int]:
    """Of each inhibition head the component with the highest composition score with the main
    mover's query: what stands for the leading one where nothing can be run.
    """
    mover = roles.strongest("mover")
    reader = composition.unit(composition.readers(weights, "Q")[mover])
    written = composition.write_directions(svd)
    return {
        head: int(torch.linalg.vector_norm(written[head] @ reader, dim=-1).argmax())
        for head in roles["inhibition"]
        if head[0] < mover[0]
    }


def leads_by_effect(bridge: Any, run: CleanRun, svd: HeadSVD, roles: Roles) -> dict[Head, int]:
    """Of each inhibition head the component that inhibits the main mover most, as in chapter 03."""
    mover = roles.strongest("mover")
    return {
        head: leading(direct_effects(bridge, run, head, mover, svd.V[head].mT))[0]
        for head in roles["inhibition"]
        if head[0] < mover[0]
    }


def weigh(
    svd: HeadSVD,
    weights: AttentionWeights,
    roles: Roles,
    kind: Kind,
    leads: dict[Head, int],
    *,
    writers: str | None = None,
) -> list[Pair]:
    """The pairs that `known` gives, with the scores of the writers' components.

    ``|v_k^T M| / |M|_F`` with M the reader's OV matrix or the transpose of its QK matrix; and, by
    value, ``|v_k . u_j|``, the composition score of two components (paper A, section 3).
    """
    reader = composition.unit(composition.readers(weights, kind))
    written = composition.write_directions(svd)
    return [
        Pair(
            kind=kind,
            writer=w,
            reader=r,
            scores=torch.linalg.vector_norm(written[w] @ reader[r], dim=-1),
            facing=(written[w] @ svd.U[r][:, leads[r]]).abs() if kind == "V" else None,
        )
        for w, r in known(roles, kind, writers)
    ]


def name(pair: Pair) -> str:
    """Writer and reader as the figures name them."""
    return f"{label(pair.writer)} → {label(pair.reader)}"


# --- from runs


def halves(bridge: Any, roles: Roles, n: int, *, seed: int) -> tuple[Sites, Sites]:
    """`sites` of as many prompts of the split to choose on and of the split to report on.

    The stream is kept in front of the first layer with an inhibition head.
    """
    entering = min((head[0] for head in roles["inhibition"]), default=0)
    found, reported = (
        sites(bridge, ioi.prompts(bridge.tokenizer, n, seed=seed, split=split), entering=entering)
        for split in ("find", "report")
    )
    return found, reported


def outputs(bridge: Any, at: Sites, kind: Kind, writer: Head) -> Float[Tensor, "prompt d_model"]:
    """What a head writes to the residual stream where its channel is written."""
    z = at.z[CHANNELS[kind][2]][writer[0], :, writer[1]]
    return z @ bridge.blocks[writer[0]].attn.W_O[writer[1]].detach()


@dataclass(frozen=True)
class Input:
    """One input of one reader at one position, and how what is watched of it falls.

    `fall` and `score_fall` take what is added in front of the input, [prompt, case, d_model], and
    give falls [prompt, case]: of what is watched, and, by key, of the attention score, which no
    softmax bounds.
    """

    kind: str
    reader: Head
    clean: Float[Tensor, " prompt"]  # what is watched
    fall: Callable[[Tensor], Tensor]
    score_fall: Callable[[Tensor], Tensor] | None = None
    signs: Float[Tensor, " prompt"] | None = None  # by value: what makes a distance of coordinates


def order_sign(abba: Tensor) -> Float[Tensor, " prompt"]:
    """2 for ABBA and -2 for BABA: the mean over a pair of prompts is then their difference."""
    return torch.where(abba, 2.0, -2.0)


def line_sign(bridge: Any, run: CleanRun, svd: HeadSVD, reader: Head, lead: int) -> float:
    """1 if the coordinate of a component is larger for ABBA in the mean, else -1."""
    along = head_outputs(bridge, run, *reader) @ svd.V[reader][:, lead]
    return 1.0 if float((along * order_sign(run.prompts.abba)).mean()) >= 0 else -1.0


def value_input(
    bridge: Any, at: Sites, svd: HeadSVD, reader: Head, lead: int, sign: float
) -> Input:
    """An inhibition head's value at the second mention, and its leading component at the end.

    Watched is the distance between the two orders along that component: with the sign of the
    order, twice the coordinate of each prompt, so that the mean over a pair is its distance.
    """
    run, (layer, head) = at.run, reader
    signs = sign * order_sign(run.prompts.abba).to(at.stream)
    attention = attention_to(run.pattern["end"][layer], run.prompts.positions["S2"])[:, head]
    along = (signs * attention)[:, None] * svd.S[layer, head, lead] * svd.U[reader][:, lead]
    seen = _seen(bridge, at.resid["S2"][layer], layer, along)
    clean = signs * (head_outputs(bridge, run, *reader) @ svd.V[reader][:, lead])
    return Input("V", reader, clean, lambda delta: -seen(delta), signs=signs)


def key_input(bridge: Any, at: Sites, reader: Head) -> Input:
    """An induction head's key behind the first mention; its attention there is watched."""
    layer, head = reader
    attn = bridge.blocks[layer].attn
    query = at.query[layer, :, head]
    W_K = attn.W_K.detach()
    along = query @ W_K[head * len(W_K) // bridge.cfg.n_heads].mT / query.shape[-1] ** 0.5
    seen = _seen(bridge, at.resid["S1+1"][layer], layer, along)
    clean = at.attention[layer, :, head]

    def fall(delta: Tensor) -> Tensor:
        # one score among many changes: p e^s / (1 - p + p e^s), the other scores need not be known
        p = clean[:, None]
        return p - torch.sigmoid(torch.logit(p) + seen(delta))

    return Input("K", reader, clean, fall, score_fall=lambda delta: -seen(delta))


def query_input(bridge: Any, at: Sites, mover: Head) -> Input:
    """The main mover's query at the end; its inhibition score is watched, as in chapter 03."""
    clean = mover_score(at.run, mover)

    def fall(delta: Tensor) -> Tensor:
        return clean[:, None] - scores_of(at.run, direct_query(bridge, at.run, *mover, delta))

    return Input("Q", mover, clean, fall)


def _seen(
    bridge: Any,
    resid: Float[Tensor, "prompt d_model"],
    layer: int,
    along: Float[Tensor, "prompt d_model"],
) -> Callable[[Tensor], Tensor]:
    norm, x = bridge.blocks[layer].ln1, resid[:, None]
    clean = (norm(x) * along[:, None]).sum(-1)

    @torch.no_grad()
    def change(delta: Float[Tensor, "prompt case d_model"]) -> Float[Tensor, "prompt case"]:
        # a few cases at a time, so that what the norm makes stays small
        parts = [norm(x + part) @ along[..., None] for part in delta.split(CASES, dim=1)]
        return torch.cat(parts, dim=1)[..., 0] - clean

    return change
