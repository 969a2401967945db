"""Singular value decomposition of every head's OV matrix."""

from __future__ import annotations

import pytest
import torch

from benchmarks import floors
from th_utils import svd

TURN = " ours peer product copy "


@pytest.mark.sequence(TURN * 5 + " dense" + TURN + "dense" + TURN + "dense")
def test_svd(timed, yardstick, model, kept, side):
    job, weights = "svd", model.weights
    if yardstick(job):
        return
    if side == "ours":
        kept["S"] = timed(
            lambda: svd.ov_svd(weights).S,
            job,
            operations=floors.svd(model.shape),
            bytes=floors.svd_bytes(model.shape),
        )
        return
    if side == "peer":
        label = "`FactoredMatrix.svd`, all heads in one batch"
        # Made anew each time: it keeps its decomposition.
        S = timed(lambda: factored(weights).svd()[1], job, label=label)
    else:
        label = "`torch.linalg.svd` of the dense matrices"
        S = timed(lambda: dense(weights), job, label=label, warm=False)
    off = (S - kept["S"]).abs() / kept["S"][..., :1]
    timed.info["agreement"] = float(off.max())
    timed.info["agreement_of"] = "singular values, relative to the largest of the head"


def factored(weights):
    from transformer_lens import FactoredMatrix

    return FactoredMatrix(weights.W_V, weights.W_O)


def dense(weights):
    """Head by head: the products of all heads at once would take 340 MB, and no less time."""
    rank = weights.d_head
    found = [
        torch.linalg.svd(W_V @ W_O, full_matrices=False)[1][:rank]
        for W_V, W_O in zip(weights.W_V.flatten(0, 1), weights.W_O.flatten(0, 1), strict=True)
    ]
    return torch.stack(found).view(*weights.W_V.shape[:2], rank)
