"""Who could talk to whom in a whole model: the table behind the map to explore (chapter 09).

Millions of pairs are too many to turn over by hand, so some are kept, by rules that look at one
head at a time: for every head the components that it is most open to, for every head those of its
own components that a later head is most open to, and, where the pairs have been tested, for every
head the components whose removal moves it most. So each head shows its best connections however
weak they are beside those of others; the map says nothing of how many weaker ones were left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks, composition
from th_utils.channels import Scan
from th_utils.pairs import Pairs
from th_utils.results import Results
from th_utils.roles import Roles

READ = 8  # components kept of what each head could read, by score
FELT = 4  # and by effect
WRITTEN = 12  # of each head's components, those kept
MANY = 300  # in models with more heads than this fewer are kept of each
TEXTS = {"score": 4, "z": 2, "effect": 5}  # decimals, of what is meant to be looked at


def channel_map(
    scan: Scan, roles: Roles, effects: Mapping[str, Float[Tensor, " pair"]] | None = None
) -> Results:
    """The pairs of a model worth looking at, query, key and value readers in turn.

    Args:
        scan: composition scores of the whole model (`th_utils.channels.scan`).
        roles: of its heads.
        effects: of removing each component from each reader's input, by kind, in the order of
            `Pairs`; none where the model cannot be run.

    Returns:
        Columns: kind, writer_layer, writer_head, component, reader_layer, reader_head, score, z
        (standard score among all scores of the reader), effect (None where not measured). By kind
        and reader, the highest score first. Meta: layers, heads, rank (components of a head),
        random_level, roles (heads of each), source (of the roles), open (the head to begin with:
        the main mover, else the last head of the model), kept (how many of each sort).
    """
    effects = effects or {}
    pairs = Pairs(*scan.svd.S.shape)
    less = min(1.0, MANY / (pairs.layers * pairs.heads))
    kept = {
        name: max(1, round(n * less))
        for name, n in (("read", READ), ("felt", FELT), ("written", WRITTEN))
    }
    parts = []
    for kind, table in scan.components.items():
        score = pairs.flatten(table)
        effect = effects.get(kind)
        chosen = [most_of_readers(pairs, score, kept["read"]), _most_written(table, pairs, kept)]
        if effect is not None:
            checks.shape("effects", effect, (len(pairs),), "one for each pair")
            chosen.append(most_of_readers(pairs, effect, kept["felt"]))
        index = np.unique(np.concatenate(chosen))
        index = index[score[index].cpu().numpy() > 0]  # silent components talk to nobody
        parts.append(_columns(kind, pairs, index, score, effect))
    columns = {name: [x for part in parts for x in part[name]] for name in parts[0]}
    main = roles.main("mover") or (pairs.layers - 1, pairs.heads - 1)
    meta = dict(
        layers=pairs.layers,
        heads=pairs.heads,
        rank=pairs.rank,
        random_level=composition.random_level(scan.svd.V.shape[2]),
        roles={role: [list(head) for head in heads] for role, heads in roles.heads.items()},
        source=roles.source,
        open=list(main),
        kept=kept,
    )
    return Results(columns, meta)


def most_of_readers(
    pairs: Pairs, values: Float[Tensor, " pair"], n: int
) -> Int[np.ndarray, " kept"]:
    """Of what each head could read, the n pairs with the largest values.

    >>> most_of_readers(Pairs(2, 1, 3), torch.tensor([0.1, 0.3, 0.2]), 2)
    array([1, 2])
    """
    found = [
        place.start + torch.topk(values[place], min(n, place.stop - place.start)).indices
        for _, _, place in pairs.readers()
    ]
    return torch.cat(found).cpu().numpy()


def _most_written(
    table: Float[Tensor, "layer head component reader_layer reader_head"],
    pairs: Pairs,
    kept: dict[str, int],
) -> Int[np.ndarray, " kept"]:
    """Of each head's components those that some later head is most open to, with that head."""
    last = pairs.layers - 1  # nobody reads what its heads write
    best = table[:last].nan_to_num(-1.0).flatten(3).max(-1)
    top = torch.topk(best.values, min(kept["written"], pairs.rank), dim=-1).indices
    reader = best.indices.gather(-1, top).cpu().numpy()
    layer, head, _ = np.indices(reader.shape)
    later, other = np.divmod(reader, pairs.heads)
    # the same numbering as `Pairs.start`, for many readers at once
    before = later * (later - 1) // 2 * pairs.heads * pairs.heads * pairs.rank
    starts = before + other * later * pairs.heads * pairs.rank
    return (starts + (layer * pairs.heads + head) * pairs.rank + top.cpu().numpy()).ravel()


def _columns(
    kind: str,
    pairs: Pairs,
    index: Int[np.ndarray, " kept"],
    score: Float[Tensor, " pair"],
    effect: Float[Tensor, " pair"] | None,
) -> dict[str, list]:
    at = pairs.where(index)
    values = score[index].double().cpu().numpy()
    mean, spread = _moments(pairs, score)
    reader = pairs.reader(index)
    z = (values - mean[reader]) / np.where(spread[reader] > 0, spread[reader], 1)
    order = np.lexsort((-values, reader))
    felt = [None] * len(index) if effect is None else effect[index].double().cpu().numpy()
    rows = {"score": values, "z": z, "effect": felt}
    names = ("writer_layer", "writer_head", "component", "reader_layer", "reader_head")
    table = {"kind": [kind] * len(index)}
    table |= {name: at[order, i].tolist() for i, name in enumerate(names)}
    for name, column in rows.items():
        said = [column[i] for i in order]
        table[name] = [None if x is None else round(float(x), TEXTS[name]) for x in said]
    return table


def _moments(pairs: Pairs, score: Float[Tensor, " pair"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all scores of each reader, readers numbered by layer."""
    mean, spread = np.zeros((2, pairs.layers * pairs.heads))
    for layer, head, place in pairs.readers():
        own = score[place].double()
        mean[layer * pairs.heads + head] = float(own.mean())
        spread[layer * pairs.heads + head] = float(own.std()) if len(own) > 1 else 0.0
    return mean, spread
