"""What a weight edit costs elsewhere: on ordinary text, and on indirect-object prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.patching import ComponentEdit, edited_weights
from th_utils.progress import track
from th_utils.runs import clean_run
from th_utils.tasks import ioi

BATCH = 8  # texts; the logits of all their tokens are the largest tensor


class Price(NamedTuple):
    """One measurement without and with an edit, aligned."""

    before: Float[np.ndarray, " unit"]
    after: Float[np.ndarray, " unit"]


@torch.no_grad()
def losses(bridge: Any, tokens: Int[Tensor, "text pos"]) -> Float[np.ndarray, " text"]:
    """Mean loss per token of each text, in nats; the first token is not predicted."""
    checks.shape("tokens", tokens, 2, "text, position")
    parts = []
    for batch in track(tokens.split(BATCH), "texts"):
        said = bridge(batch, return_type="logits")[:, :-1].log_softmax(-1)
        right = said.gather(-1, batch[:, 1:, None])[..., 0]
        parts.append(-right.double().mean(-1))
    return torch.cat(parts).cpu().numpy()


def on_text(bridge: Any, tokens: Int[Tensor, "text pos"], edits: Sequence[ComponentEdit]) -> Price:
    """Loss per token of texts."""
    before = losses(bridge, tokens)
    with edited_weights(bridge, edits):
        return Price(before, losses(bridge, tokens))


def on_names(
    bridge: Any, prompts: ioi.IOIPrompts, edits: Sequence[ComponentEdit]
) -> tuple[Price, Price]:
    """Logit difference, nats, and accuracy over the vocabulary, of pairs of prompts."""
    runs = [clean_run(bridge, prompts)]
    with edited_weights(bridge, edits):
        runs.append(clean_run(bridge, prompts))
    return (
        Price(*(ioi.pair_means(run.logit_difference) for run in runs)),
        Price(*(ioi.pair_means(run.correct.double()) for run in runs)),
    )


def price_table(
    prices: Mapping[str, tuple[str, Mapping[str, Price]]],
) -> dict[str, list]:
    """Each measurement of each edit.

    Args:
        prices: kind ("weights" or "control"), and measurements by what was measured, for each edit
            by name.

    Returns:
        Columns: measure, variant, kind, before, after; one row to a text or pair of prompts.
    """
    rows = [
        (measure, variant, kind, float(before), float(after))
        for variant, (kind, measured) in prices.items()
        for measure, price in measured.items()
        for before, after in zip(*price, strict=True)
    ]
    names = ("measure", "variant", "kind", "before", "after")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
