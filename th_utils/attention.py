"""Where heads look and what they say: attention to labelled positions, direct logit attribution,
and the inhibition score.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils.runs import CleanRun


def attention_to(
    pattern: Float[Tensor, "*head_axes prompt head pos"], position: Int[Tensor, " prompt"]
) -> Float[Tensor, "*head_axes prompt head"]:
    """Attention probability that each head gives to one labelled position of each prompt.

    >>> pattern = torch.eye(3)[None, None].expand(1, 2, 3, 3)[:, :, 1].unsqueeze(2)
    >>> attention_to(pattern, torch.tensor([1, 2])).flatten().tolist()
    [1.0, 0.0]
    """
    index = position.view(-1, 1, 1).expand(*pattern.shape[:-1], 1)
    return torch.gather(pattern, -1, index).squeeze(-1)


def inhibition_score(
    pattern: Float[Tensor, "*head_axes prompt head pos"],
    io: Int[Tensor, " prompt"],
    s1: Int[Tensor, " prompt"],
) -> Float[Tensor, "*head_axes prompt head"]:
    """How much a head prefers the indirect object: attention end->IO minus attention end->S1.

    Both names stand once before the repetition and would be equally good to copy; what makes a
    mover prefer one of them is the inhibition of the other. The paper's exact definition is not
    known to us: *reconstruction*.

    Args:
        pattern: attention from the end position.
        io: position of the indirect object.
        s1: position of the first mention of the subject.

    Returns:
        Scores in [-1, 1].
    """
    return attention_to(pattern, io) - attention_to(pattern, s1)


def readout(bridge: Any, run: CleanRun) -> Float[Tensor, "prompt d_model"]:
    """The residual-stream direction that the logit difference reads, with the final norm frozen.

    The dot product with a vector written to the residual stream at the end position is what that
    vector adds to the logit difference, apart from its effect on the norm's divisor.
    """
    W_U = bridge.W_U.detach()
    return _normed(bridge, run, (W_U[:, run.prompts.io] - W_U[:, run.prompts.s]).T)


def _normed(
    bridge: Any, run: CleanRun, direction: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "prompt d_model"]:
    """A readout direction as seen through the final norm with its divisor frozen."""
    if bridge.cfg.normalization_type.startswith("LN"):  # the final norm removes the mean it reads
        direction = direction - direction.mean(dim=-1, keepdim=True)
    return direction / run.final_scale[:, None]


def name_attribution(
    bridge: Any, run: CleanRun
) -> tuple[Float[Tensor, "layer prompt head"], Float[Tensor, "layer prompt head"]]:
    """Direct attribution to the logits of the indirect object and of the subject, separately.

    Logits count from their mean over the vocabulary. The difference of the two is the direct
    logit attribution.
    """
    W_O, W_U = bridge.W_O.detach(), bridge.W_U.detach()
    shares = []
    for name in (run.prompts.io, run.prompts.s):
        direction = (W_U[:, name] - W_U.mean(dim=1, keepdim=True)).T
        read = torch.einsum("lhed,nd->lnhe", W_O, _normed(bridge, run, direction))
        shares.append((run.z * read).sum(dim=-1))
    return shares[0], shares[1]


def direct_logit_attribution(bridge: Any, run: CleanRun) -> Float[Tensor, "layer prompt head"]:
    """What each head's output at the end position adds directly to the logit difference, in nats.

    The final norm's divisor is held at its value in the clean run.
    """
    W_O = bridge.W_O.detach()
    read = torch.einsum("lhed,nd->lnhe", W_O, readout(bridge, run))
    return (run.z * read).sum(dim=-1)
