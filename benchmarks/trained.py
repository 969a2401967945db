"""How far two cheap estimates agree with the exact sweeps on the trained default model:
`python -m benchmarks.trained`, about twenty minutes of one thread.

Attribution patching is held against activation patching of every head at every position, direct
effects against path patching into the queries, keys and values of readers drawn at random, as many
from each third of the layers. Prompts name an indirect object; activations come from the same
prompts with fresh names (Wang et al. 2022); the answer is the logit of the indirect object minus
that of the subject, where the prompt ends.

Each exact part that is done is kept below `_build/bench/trained/`, and a run that was stopped goes
on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import agreement, reduction
from th_utils import attribution, edges, sweeps
from th_utils.paths import atomic_write

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "trained.json"
WORK = HERE.parent / "_build" / "bench" / "trained"
THIRDS = ("first", "second", "last")
SEED = 0
BATCH = 2  # prompts of activation patching that are lost at most when a run is stopped

Reader = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Prompts:
    """What is patched into, what is patched in, and which answers are compared where."""

    base: Tensor  # [prompt, pos], padded on the right
    source: Tensor
    read: Tensor  # the last position of each prompt
    right: Tensor
    wrong: Tensor

    def __len__(self) -> int:
        return len(self.base)

    def part(self, rows: slice) -> Prompts:
        """Some of the prompts."""
        return Prompts(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def draw_prompts(tokenizer: Any, count: int, seed: int = SEED) -> Prompts:
    """Prompts of the split ``find``, each of a draw of its own.

    The task draws pairs that differ only in the order of two names. Of each pair one is taken, in
    turns of either order, so that an interval over prompts is one over independent draws.
    """
    from th_utils.tasks import ioi

    pairs = ioi.prompts(tokenizer, 2 * count, seed=seed, split="find")
    fresh = ioi.with_fresh_names(pairs, tokenizer, seed=seed, split="find")
    rows = torch.tensor([2 * i + i % 2 for i in range(count)])
    read = pairs.positions["end"][rows]
    seen = slice(int(read.max()) + 1)
    return Prompts(pairs.tokens[rows, seen], fresh[rows, seen], read, pairs.io[rows], pairs.s[rows])


def thirds(layers: int) -> list[range]:
    """The layers in three runs, as equal as they can be."""
    ends = [round(layers * i / len(THIRDS)) for i in range(len(THIRDS) + 1)]
    return [range(*pair) for pair in itertools.pairwise(ends)]


def draw_readers(layers: int, heads: int, count: int, seed: int = SEED) -> list[list[Reader]]:
    """`count` heads from each third of the layers, each at most once; fewer are the first of more.

    The first layer has no senders before it and is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for third in thirds(layers):
        able = [(layer, head) for layer in third if layer > 0 for head in range(heads)]
        order = torch.randperm(len(able), generator=generator)[:count]
        found.append([able[i] for i in order.tolist()])
    return found


def has_effect(prompts: Prompts, layers: int) -> Tensor:
    """Where patching can change anything, [layer, pos, prompt].

    Not before the two prompts differ, not after the position read, and in the last layer nowhere
    else than there.
    """
    at = torch.arange(prompts.base.shape[1])[:, None]
    begun = (prompts.base != prompts.source).int().cumsum(1).T > 0
    seen = (begun & (at <= prompts.read)).expand(layers, -1, -1).clone()
    seen[-1] &= at == prompts.read
    return seen


def from_the_end(values: Tensor, read: Tensor) -> Tensor:
    """Positions [layer, pos, head, prompt] counted back from the one read, NaN where none is."""
    found = torch.full_like(values, torch.nan)
    positions = values.shape[1]
    for prompt, end in enumerate(read.tolist()):
        found[:, positions - 1 - end :, :, prompt] = values[:, : end + 1, :, prompt]
    return found


class Parts:
    """Exact effects with the processor time they took, each kept in a file when it is done."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder, self.total, self.done = folder, total, 0
        self.seconds: dict[str, float] = {}

    def get(self, kind: str, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, or gave in a run before."""
        path, self.done = self.folder / f"{kind}-{name}.npz", self.done + 1
        kept = path.exists()
        if not kept:
            started = time.process_time()
            effect = compute()
            took, buffer = time.process_time() - started, io.BytesIO()
            np.savez(buffer, effect=effect.cpu().numpy(), seconds=took)
            atomic_write(path, buffer.getvalue())
        with np.load(path) as file:
            effect, took = torch.from_numpy(file["effect"]), float(file["seconds"])
        self.seconds[kind] = self.seconds.get(kind, 0.0) + took
        before = ", done before" if kept else ""
        print(f"[{self.done}/{self.total}] {kind}, {name}: {took:.0f} s{before}", flush=True)
        return effect


def measure(
    engine: Any, prompts: Prompts, readers: list[list[Reader]], work: Path, n_boot: int = 2000
) -> dict[str, Any]:
    """Both comparisons: their table, and what was counted and timed.

    Args:
        engine: `th_utils.engine.of(bridge)`, of a model that it knows.
        prompts: see `draw_prompts`.
        readers: of each third of the layers, see `draw_readers`.
        work: folder for the exact parts.
        n_boot: number of resamples.
    """
    base, source = (engine.trace(x, read=prompts.read) for x in (prompts.base, prompts.source))
    readout = engine.logit_difference(prompts.right, prompts.wrong)
    batches = [slice(at, at + BATCH) for at in range(0, len(prompts), BATCH)]
    wanted = [(third, reader) for third, some in enumerate(readers) for reader in some]
    parts = Parts(work, len(batches) + len(edges.KINDS) * len(wanted))

    exact = [
        parts.get(
            "activation patching",
            f"from {rows.start}",
            partial(_patched, engine, prompts.part(rows)),
        )
        for rows in batches
    ]
    started = time.process_time()
    estimate = attribution.attribution_patching(engine, base, source, readout)
    parts.seconds["attribution patching"] = time.process_time() - started
    nowhere = ~has_effect(prompts, engine.n_layers)[:, :, None]
    cells = [
        _by_prompt(from_the_end(effect.masked_fill(nowhere, torch.nan), prompts.read))
        for effect in (torch.cat(exact, dim=-1), estimate)
    ]
    rows = [_row("attribution patching", None, None, [cells], n_boot)]

    started = time.process_time()
    direct = edges.direct_effects(engine, base, source, prompts.right, prompts.wrong)
    parts.seconds["direct effects"] = time.process_time() - started
    pairs: dict[tuple[int, str], list] = {}
    for third, (layer, head) in wanted:
        for i, kind in enumerate(edges.KINDS):
            compute = partial(_path_patched, engine, base, source, readout, kind, layer, head)
            found = parts.get("path patching", f"{kind} {layer}.{head}", compute)
            both = [_by_prompt(x) for x in (found, direct[i, :layer, :, layer, head])]
            pairs.setdefault((third, kind), []).append(both)
    for third, kind in itertools.product((None, *range(len(THIRDS))), (None, *edges.KINDS)):
        some = [
            both
            for (its_third, its_kind), many in pairs.items()
            for both in many
            if third in (None, its_third) and kind in (None, its_kind)
        ]
        name = None if third is None else THIRDS[third]
        rows += [_row("direct effects", name, kind, some, n_boot)] if some else []
    return {
        "table": rows,
        "seconds": parts.seconds,
        "readers": [f"{layer}.{head}" for _, (layer, head) in wanted],
        "thirds": [[third[0], third[-1]] for third in thirds(engine.n_layers)],
        "all_readers": (engine.n_layers - 1) * engine.n_heads,
        "logit_difference": [float(readout(run.final).mean()) for run in (base, source)],
    }


def _patched(engine: Any, prompts: Prompts) -> Tensor:
    base, source = (engine.trace(x, read=prompts.read) for x in (prompts.base, prompts.source))
    readout = engine.logit_difference(prompts.right, prompts.wrong)
    return sweeps.activation_patching(engine, base, source, readout, site="z") - readout(base.final)


def _path_patched(
    engine: Any, base: Any, source: Any, readout: Any, kind: Any, layer: int, head: int
) -> Tensor:
    """Effects [sender_layer, sender_head, prompt] through one reader."""
    readers = [(layer, head)]
    values = sweeps.path_patching(engine, base, source, readout, kind, readers=readers)
    return values[:layer, :, layer, head] - readout(base.final)


def _by_prompt(effects: Tensor) -> np.ndarray:
    """Effects [..., prompt] as [prompt, cell]."""
    return effects.flatten(0, -2).T.double().cpu().numpy()


def _row(estimate: str, third: str | None, kind: str | None, pairs: list, n_boot: int) -> dict:
    exact, cheap = (np.concatenate([both[i] for both in pairs], axis=1) for i in range(2))
    found = agreement.over_prompts(exact, cheap, seed=SEED, n_boot=n_boot)
    return {"estimate": estimate, "third": third, "kind": kind, **found}


def text(found: dict[str, Any]) -> str:
    """The table for the terminal."""
    head = (
        f"{'estimate':<22}{'third':<8}{'kind':<6}{'cells':>6}  correlation, of ranks, slope, signs"
    )
    lines = [head, "-" * len(head)]
    for row in found["table"]:
        stats = (row[name] for name in ("correlation", "rank_correlation", "slope", "same_sign"))
        said = "  ".join("{:.2f} [{:.2f}, {:.2f}]".format(*values) for values in stats)
        name = f"{row['estimate']:<22}{row['third'] or 'all':<8}{row['kind'] or 'all':<6}"
        lines.append(f"{name}{row['cells']:>6}  {said}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trained", description=__doc__)
    add = parser.add_argument
    add("--prompts", type=int, default=8, help="fewer, to try it (default 8)")
    add("--readers", type=int, default=4, help="of each third of the layers (default 4)")
    add("--out", type=Path, default=RESULT, help="the JSON file to write")
    add("--work", type=Path, default=WORK, help="for exact parts; delete it to measure anew")
    options = parser.parse_args(arguments)
    from th_utils import engine as engines
    from th_utils import models
    from th_utils.results import gather

    torch.set_num_threads(1)
    bridge = models.load(models.DEFAULT)
    engine, checksum = engines.of(bridge), models.checksum(models.DEFAULT)
    prompts = draw_prompts(bridge.tokenizer, options.prompts)
    readers = draw_readers(engine.n_layers, engine.n_heads, options.readers)
    asked = [x.tolist() for x in vars(prompts).values()]
    folder = hashlib.sha256(json.dumps([checksum, asked]).encode()).hexdigest()[:16]
    found = measure(engine, prompts, readers, options.work / folder)
    parameters = {
        "prompts": options.prompts,
        "readers_of_each_third": options.readers,
        "seed": SEED,
        "split": "find",
        "largest": agreement.LARGEST,
        "level": 0.95,
        "threads": 1,
    }
    found["machine"] = {"cpu": reduction.cpu(), "cores": os.cpu_count(), "blas": reduction.blas()}
    found |= asdict(gather(models.DEFAULT, checksum, parameters, None))
    atomic_write(options.out, json.dumps(_rounded(found), indent=1, sort_keys=True) + "\n")
    print(text(found))
    print(options.out)
    return 0


def _rounded(value: Any) -> Any:
    """Six digits are more than any of this is sure of."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; exact parts that were done are kept", file=sys.stderr)
        sys.exit(130)
