r"""A blind search for channels: from weights alone, every earlier head against every later one.

All detectors look at the same three things: the directions :math:`v_k` that a writer's components
write and their shares :math:`p_k = s_k^2 / \sum s^2`, and the reader's matrix M with its directions
:math:`u_j` and shares :math:`\lambda_j`. For each pair of heads and each way to be read (query,
key, value) a detector gives one number:

=================== ============================================================================
whole               composition score of the whole matrices, :math:`(\sum_k p_k CS_k^2)^{1/2}`
whole-z             its standard score among all that write to the reader
component           the best component score, :math:`\max_k CS_k`
component-z         its standard score among all components that write to the reader
component-chance    how improbable the best component's score is with this reader
ceiling             the best component score over the highest that the reader allows
weighted            :math:`\max_k p_k^{1/2} CS_k`: the component has to count in the writer
sums                how improbable the best one, two or three components are together
aligned             :math:`\max_{k,j} |v_k \cdot u_j|`: a component of one on one of the other
path                :math:`\max_{k,j} (p_k \lambda_j)^{1/2} |v_k \cdot u_j|`
=================== ============================================================================

For four of them chance can be calculated (`th_utils.nulls`): by how much a writer would do as well
that writes along directions drawn at random, against the reader as it is. The chance of a pair is
the sum of the chances of all that was tried on it (components, sets of components, pairs of
components), and a search raises an alarm where that, times the number of pairs and kinds, is no
more than the rate it allows itself: Bonferroni's bound on the chance of any false alarm in the
whole model, for one detector and as far as the chances are right. Rates of detectors that are used
together add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils import composition, nulls
from th_utils.errors import CompanionError
from th_utils.svd import HeadSVD, ov_svd
from th_utils.threads import one_thread
from th_utils.weights import AttentionWeights

DETECTORS = (
    "whole", "whole-z", "component", "component-z", "component-chance", "ceiling", "weighted",
    "sums", "aligned", "path",
)  # fmt: skip
CALCULATED = ("whole", "component", "sums", "aligned")
SUMMED = 3  # components that `sums` adds up at most


@dataclass(frozen=True)
class Search:
    """What a blind search found.

    Attributes:
        pairs: layer and head of the writer, layer and head of the reader.
        scores: per detector, for Q, K and V in this order; higher is more like a channel.
        chances: of those in `CALCULATED`: how likely chance alone does as well on this pair, summed
            over all that was tried on it; may exceed 1.
    """

    pairs: Int[Tensor, "pair 4"]
    scores: dict[str, Float[Tensor, "kind pair"]]
    chances: dict[str, Float[Tensor, "kind pair"]]

    def alarms(self, detector: str, rate: float) -> Bool[Tensor, "kind pair"]:
        """Where a detector raises an alarm.

        With a chance of at most `rate` of any false alarm in the model: by Bonferroni's bound, for
        this detector alone, and as far as its chances are right.

        Raises:
            CompanionError: chance cannot be calculated for this detector, or the rate is none.

        >>> from th_utils.planted import Noise, noise_weights
        >>> found = search(noise_weights(Noise(layers=2, heads=2, d_model=32, d_head=4), seed=0))
        >>> found.alarms("component", 0.05).shape, int(found.alarms("component", 0.05).sum())
        (torch.Size([3, 4]), 0)
        """
        if detector not in self.chances:
            raise CompanionError(
                f"detector {detector!r}: expected one whose chance can be calculated, "
                f"{', '.join(self.chances)}"
            )
        if not 0 < rate < 1:
            raise CompanionError(f"rate = {rate}: expected more than 0 and less than 1")
        chance = self.chances[detector]
        return chance * chance.numel() <= rate


@one_thread()
def search(weights: AttentionWeights) -> Search:
    """Compare everything that writes with everything that reads later, by all detectors.

    A head that reads or writes nothing has scores of 0 and a chance of 1 in everything tried on it.
    In a model of one layer there is no pair to compare, and the result is empty.

    >>> from th_utils.planted import Channel, Noise, plant
    >>> weights, _ = plant(Noise(), [Channel((0, 1), (1, 0), "Q", strength=4.0)], seed=0)
    >>> found = search(weights)
    >>> where = found.alarms("component", 0.05).nonzero().tolist()
    >>> [("QKV"[kind], found.pairs[pair].tolist()) for kind, pair in where]
    [('Q', [0, 1, 1, 0])]
    """
    layers, heads = weights.n_layers, weights.n_heads
    layer = torch.arange(layers, device=weights.W_O.device)
    later = (layer[:, None] < layer)[:, None, :, None].expand(layers, heads, layers, heads)
    svd = ov_svd(weights)
    parts = [_of_kind(weights, svd, kind, later) for kind in composition.KINDS]
    scores, chances = (
        {name: torch.stack([part[i][name] for part in parts]) for name in parts[0][i]}
        for i in (0, 1)
    )
    return Search(later.nonzero(), {name: scores[name] for name in DETECTORS}, chances)


def dimensions(weights: AttentionWeights) -> int:
    """How many dimensions heads write to: one less than d_model where all outputs sum to zero.

    >>> from th_utils.planted import Noise, noise_weights
    >>> [dimensions(noise_weights(Noise(layers=1, centred=c), seed=0)) for c in (False, True)]
    [128, 127]
    """
    total = weights.W_O.sum(-1).abs().max()
    centred = total <= 1e-4 * torch.linalg.vector_norm(weights.W_O, dim=-1).max()
    return weights.d_model - int(centred)


def _of_kind(
    weights: AttentionWeights, svd: HeadSVD, kind: composition.Kind, later: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores and chances of all pairs, for one way of reading."""
    reader = composition.readers(weights, kind)
    by_component = composition.component_scores(svd, reader)
    by_head = composition.head_scores(by_component, svd.S)
    room, d_head = dimensions(weights), weights.d_head
    writing = torch.arange(later[..., 0, 0].numel(), device=later.device)
    writing = writing.view(later.shape[:2])[..., None, None].expand(later.shape)[later]
    reading = torch.arange(later[0, 0].numel(), device=later.device)
    reading = reading.view(later.shape[2:]).expand(later.shape)[later]
    U, S, _ = torch.linalg.svd(reader, full_matrices=False)
    share, spectrum = (_shares(each).flatten(0, 1) for each in (svd.S, S))

    whole = by_head[later]
    parts = by_component.movedim(2, -1)[later]
    best = parts.amax(-1)
    summed = (parts**2).sort(-1, descending=True).values.cumsum(-1)[:, : min(SUMMED, d_head)]
    V, U = svd.V * _heard(svd.S)[..., None, :], U * _heard(S)[..., None, :]
    aligned, path = _overlaps(V, share, U, spectrum, later)

    single = nulls.score_tail(best, spectrum[reading], room) * d_head
    sums = [single]
    for n in range(2, summed.shape[1] + 1):
        score = (summed[:, n - 1] / n).sqrt()
        far = _far(score, spectrum[reading], 1 / n, room, deviations=4)
        chance = torch.ones_like(score, dtype=torch.float64)
        chance[far] = nulls.score_tail(score[far], spectrum[reading][far], room, directions=n)
        sums.append(chance * math.comb(d_head, n))
    several = torch.stack(sums).amin(0) * len(sums)
    one = torch.ones_like(best)[:, None]
    chances = {
        "whole": _whole_chance(whole, share[writing], spectrum[reading], room),
        "component": single,
        "sums": several,
        "aligned": nulls.score_tail(aligned, one, room) * d_head**2,
    }
    z, z_component = (_standardised(each)[later] for each in (by_head, by_component.movedim(2, -1)))
    scores = {
        "whole": whole,
        "whole-z": z,
        "component": best,
        "component-z": z_component.amax(-1),
        "component-chance": -single.clamp_min(1e-300).log10(),
        "ceiling": best / spectrum[reading, 0].where(spectrum[reading, 0] > 0, 1).sqrt(),
        "weighted": (parts * share[writing].sqrt()).amax(-1),
        "sums": -several.clamp_min(1e-300).log10(),
        "aligned": aligned,
        "path": path,
    }
    return {name: score.double() for name, score in scores.items()}, chances


def _shares(S: Float[Tensor, "*head component"]) -> Float[Tensor, "*head component"]:
    """Squared singular values over their sum; zeros where all are zero."""
    total = (S**2).sum(-1, keepdim=True)
    return S**2 / total.where(total > 0, 1)


def _heard(S: Float[Tensor, "*head component"]) -> Bool[Tensor, "*head component"]:
    """Which components are more than rounding; the directions of the others mean nothing."""
    return torch.finfo(S.dtype).eps * S.shape[-1] * S.amax(-1, keepdim=True) < S


def _overlaps(
    V: Tensor, share: Tensor, U: Tensor, spectrum: Tensor, later: Tensor
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Largest overlap of a writer's with a reader's component, plain and weighted by the shares."""
    layers, heads, d_model, n = U.shape
    known = U.permute(2, 0, 1, 3).reshape(d_model, -1)
    plain, weighted = [V.new_zeros(0)], [V.new_zeros(0)]
    for layer in range(layers - 1):
        after = known[:, (layer + 1) * heads * n :]
        overlap = (V[layer].mT.reshape(-1, d_model) @ after).abs().view(heads, -1, after.shape[1])
        of_writer = share[layer * heads : (layer + 1) * heads].sqrt()[:, :, None]
        of_reader = spectrum[(layer + 1) * heads :].sqrt().flatten()
        for kept, values in ((plain, overlap), (weighted, overlap * of_writer * of_reader)):
            kept.append(values.view(heads, values.shape[1], -1, n).amax((1, 3)).flatten())
    return torch.cat(plain), torch.cat(weighted)


def _whole_chance(
    score: Float[Tensor, " pair"],
    share: Float[Tensor, "pair component"],
    spectrum: Float[Tensor, "pair component"],
    room: int,
) -> Float[Tensor, " pair"]:
    """Chance of a whole-head score; 1 for those too near the mean to matter."""
    far = _far(score, spectrum, (share**2).sum(-1), room, deviations=2)
    chance = torch.ones_like(score, dtype=torch.float64)
    chance[far] = nulls.score_tail(score[far], spectrum[far], room, weights=share[far])
    return chance


def _far(
    score: Float[Tensor, " pair"],
    spectrum: Float[Tensor, "pair component"],
    concentration: Float[Tensor, " pair"] | float,
    room: int,
    *,
    deviations: int,
) -> Bool[Tensor, " pair"]:
    """Where a score lies so far out that its chance is worth the calculation.

    In standard deviations of the squared score of random directions whose weights have this sum of
    squares. An alarm lies far beyond either number that is used here.
    """
    variance = 2 * concentration * ((spectrum**2).sum(-1) - 1 / room) / room**2
    return score**2 - 1 / room > deviations * variance.clamp_min(0).sqrt()


def _standardised(scores: Float[Tensor, "layer head reader_layer reader_head *part"]) -> Tensor:
    """`composition.z_scores` of all readers in one go; zeros where only one head writes.

    NaN where the reader is not in a later layer.
    """
    writers = (0, 1, *range(4, scores.ndim))
    known = torch.isfinite(scores)
    number = known.sum(writers, keepdim=True)
    mean = scores.nansum(writers, keepdim=True) / number
    squares = ((scores - mean) ** 2).nansum(writers, keepdim=True)
    deviation = (squares / (number - 1).clamp_min(1)).sqrt()
    return (scores - mean) / deviation.where(deviation > 0, 1)
