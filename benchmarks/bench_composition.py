"""Composition scores of whole heads, and of every component, with every later head."""

from __future__ import annotations

import pytest
import torch

from benchmarks import floors
from th_utils import composition, svd

PAIRS = 100  # of heads, or of a component and a head, that the peer is timed on in one turn


def component_scores(weights):
    """From the weights on: the decomposition and the reduced readers are part of the job."""
    parts = svd.ov_svd(weights)
    return torch.stack(
        [
            composition.component_scores(parts, composition.readers(weights, kind))
            for kind in composition.KINDS
        ]
    )


@pytest.mark.sequence("ours product copy peer ours product copy peer ours product copy peer")
def test_whole_heads(timed, yardstick, model, kept, side, turn):
    job, weights = "composition", model.weights
    if yardstick(job):
        return
    if side == "ours":
        kept["heads"] = timed(
            lambda: composition.composition_scores(weights),
            job,
            operations=floors.composition(model.shape),
            bytes=floors.composition_bytes(model.shape),
        )
        return
    label = "`all_composition_scores`, Q, K and V"
    found = timed(
        lambda: torch.stack([model.bridge.all_composition_scores(k).scores for k in "QKV"]),
        job,
        label=label,
        warm=False,
    )
    ours = kept["heads"].to(found)
    timed.info["agreement"] = float((found - ours)[~ours.isnan()].abs().max())
    timed.info["agreement_of"] = "scores, absolute"


@pytest.mark.sequence("ours own peer singly product copy " * 3)
def test_components(timed, yardstick, model, kept, side, turn):
    job, weights, shape = "components", model.weights, model.shape
    if yardstick(job):
        return
    if side == "ours":
        kept["components"] = timed(
            lambda: component_scores(weights),
            job,
            operations=floors.composition(shape),
            bytes=floors.component_bytes(shape),
        )
        return
    if side == "own":
        timed(
            lambda: composition.composition_scores(weights), job, label="our scores of whole heads"
        )
        return
    singly = side == "singly"
    every = 3 * shape.head_pairs * (shape.d_head if singly else 1)
    picked = draw(shape, PAIRS, turn)
    parts = svd.ov_svd(weights)
    found = timed(
        lambda: one_by_one(weights, parts, picked, singly),
        job,
        label="`composition_scores`, " + ("one component" if singly else "one pair of heads")
        + " at a time",
        part=f"{{count}} of {every:,} pairs at random",
        count=len(picked),
        scale=every / len(picked),
    )  # fmt: skip
    ours = kept["components"]
    expected = torch.stack(
        [ours[k, m, h, c if singly else slice(None), rm, rh] for k, m, h, c, rm, rh in picked]
    )
    timed.info["agreement"] = float((found - expected).abs().max())
    timed.info["agreement_of"] = "scores, absolute"


def draw(shape, count: int, seed: int) -> list[tuple[int, ...]]:
    """Random (kind, layer, head, component, reader layer, reader head), the reader later."""
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[int, ...]] = []
    sizes = (3, shape.layers, shape.heads, shape.d_head, shape.layers, shape.heads)
    while len(found) < count:
        one = tuple(int(torch.randint(n, (), generator=generator)) for n in sizes)
        if one[1] < one[4]:
            found.append(one)
    return found


def one_by_one(weights, parts, picked, singly: bool):
    """Component scores as a user of the peer can get them.

    One component at a time, or, which is much faster, all components of a head as a batch of
    matrices of rank one. Larger batches, such as all heads of a layer, are slower again.
    """
    from transformer_lens import FactoredMatrix
    from transformer_lens.utilities import composition_scores

    scores = []
    for kind, layer, head, component, reader_layer, reader_head in picked:
        at = reader_layer, reader_head
        if kind == 2:
            reader = FactoredMatrix(weights.W_V[at], weights.W_O[at])
        else:
            reader = FactoredMatrix(weights.W_Q[at], weights.W_K[at].mT)
            reader = reader.T if kind == 1 else reader
        which = component if singly else slice(None)
        u, v = ((x[layer, head].mT)[which] for x in (parts.U, parts.V))
        s = parts.S[layer, head, which]
        writer = FactoredMatrix((u * s[..., None])[..., None], v[..., None, :])
        scores.append(composition_scores(writer, reader))
    return torch.stack(scores)
