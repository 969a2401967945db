"""Every channel that a model could have, scored without looking and then tested (chapter 09).

Three tasks: indirect objects (on the split for choosing and on that for reporting), lists, and
random tokens of which some are said twice. In each, removals act at the end position for queries;
for keys and values at the second mention of something, which the end reads, and at the token after
its first mention, which the second mention reads: where the known channels act. Effects at these
two places are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils import blind, composition, corrections
from th_utils.corrections import Correction, Sizes
from th_utils.edge_removal import Effects, removal_effects
from th_utils.edge_sites import Site, sites
from th_utils.pairs import Pairs
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi, lists
from th_utils.tasks.ioi import Split
from th_utils.transformer import Transformer

LIST_LENGTH = 3
BLOCK, AGAIN = 12, 9  # random tokens, and how many of them are said a second time

FIND, IOI, LISTS, RANDOM = "indirect objects, to choose", "indirect objects", "lists", "random"
TASKS = (FIND, IOI, LISTS, RANDOM)


@dataclass(frozen=True)
class Task:
    """Prompts, and where removals act in them."""

    name: str
    tokens: Int[Tensor, "prompt pos"]
    end: Int[Tensor, " prompt"]
    second: Int[Tensor, " prompt"]  # second mention of something
    after: Int[Tensor, " prompt"]  # the token after its first mention
    unit: int  # consecutive prompts that are one independent draw

    @property
    def places(self) -> list[tuple[Tensor, Tensor]]:
        """Where writes are removed, and the rows that read them: for queries, then for others."""
        return [(self.end, self.end), (self.second, self.end), (self.after, self.second)]


def ioi_task(tokenizer: Any, n: int, *, seed: int, split: Split = "report") -> Task:
    """Indirect objects: the subject is what is mentioned twice. Pairs of prompts are one draw."""
    prompts = ioi.prompts(tokenizer, n, seed=seed, split=split)
    at = prompts.positions
    name = FIND if split == "find" else IOI
    return Task(name, prompts.tokens, at["end"], at["S2"], at["S1+1"], 2)


def list_task(tokenizer: Any, n: int, *, seed: int, split: Split = "report") -> Task:
    """Short lists, one prompt of each: which item is left out takes turns.

    The item mentioned twice is drawn at random among those mentioned again.
    """
    drawn = lists.prompts(tokenizer, n, LIST_LENGTH, seed=seed, split=split)
    one = torch.arange(n) * LIST_LENGTH + torch.arange(n) % LIST_LENGTH
    again, items = drawn.again[one], drawn.items[one]
    key = torch.rand(again.shape, generator=torch.Generator().manual_seed(seed))
    item = key.masked_fill(again < 0, -1).argmax(1, keepdim=True)
    second, first = (x.gather(1, item)[:, 0] for x in (again, items))
    return Task(LISTS, drawn.tokens[one], drawn.positions["end"][one], second, first + 1, 1)


def random_tokens(
    bridge: Any, n: int, *, seed: int, block: int = BLOCK, again: int = AGAIN
) -> Int[Tensor, "prompt pos"]:
    """Blocks of distinct random tokens, followed by their beginnings."""
    generator = torch.Generator().manual_seed(seed)
    special = set(bridge.tokenizer.all_special_ids)
    known = torch.tensor(sorted(set(range(bridge.cfg.d_vocab)) - special))
    rows = torch.stack(
        [known[torch.randperm(len(known), generator=generator)[:block]] for _ in range(n)]
    )
    return torch.cat([rows, rows[:, :again]], dim=1).to(bridge.cfg.device)


def random_task(bridge: Any, n: int, *, seed: int) -> Task:
    """Random tokens said twice: a token amid the repetition is the one mentioned again."""
    tokens = random_tokens(bridge, n, seed=seed)
    middle = torch.full((n,), AGAIN // 2, device=tokens.device)
    end = torch.full_like(middle, tokens.shape[1] - 1)
    return Task(RANDOM, tokens, end, BLOCK + middle, middle + 1, 1)


def tasks(bridge: Any, n: int, *, seed: int) -> list[Task]:
    """All of `TASKS`: n prompts of those that are reported, half as many of the others.

    Those are for choosing, and for random tokens, which are no claim's task.
    """
    tokenizer, half = bridge.tokenizer, n // 4 * 2
    return [
        ioi_task(tokenizer, half, seed=seed, split="find"),
        ioi_task(tokenizer, n, seed=seed),
        list_task(tokenizer, n, seed=seed),
        random_task(bridge, half, seed=seed + 1),  # other tokens than those that sizes are taken on
    ]


@dataclass(frozen=True)
class Measured:
    """Effects of every pair of one kind on one task."""

    effect: Float[Tensor, " pair"]  # of first interest: pattern for Q and K, output for V
    other: Float[Tensor, " pair"] | None  # output for Q and K, where it was measured
    units: Float[Tensor, "unit pair"] | None
    hit: Bool[Tensor, " pair"]


@dataclass(frozen=True)
class KindSurvey:
    """All scores and effects of one composition kind."""

    kind: composition.Kind
    pairs: Pairs
    factors: dict[str, Float[Tensor, " pair"]]
    on_task: dict[str, Float[Tensor, " pair"]]  # how strongly components write, by task
    measured: dict[str, Measured]  # by task

    def score(self, correction: Correction, task: str = FIND) -> Float[Tensor, " pair"]:
        """A corrected score; one that needs a task's activations takes them there."""
        own = {"on task": self.on_task[task]} if "on task" in correction.factors else {}
        return corrections.corrected(correction, self.factors | own)


@dataclass(frozen=True)
class Runs:
    """Clean runs of a task, at the places where removals act."""

    task: Task
    at: list[Site]  # in the order of `Task.places`

    def of(self, kind: str, prompts: int | None = None) -> list[Site]:
        """Where components are removed from queries, or from keys and values."""
        return [site[:prompts] for site in (self.at[:1] if kind == "Q" else self.at[1:])]


def runs(model: Transformer, at: Sequence[Task]) -> list[Runs]:
    """Run some tasks."""
    return [Runs(task, sites(model, task.tokens, task.places)) for task in at]


def survey(
    model: Transformer,
    svd: HeadSVD,
    kind: composition.Kind,
    reader: Float[Tensor, "layer head d_model d_head"],
    scores: Float[Tensor, "layer head component reader_layer reader_head"],
    typical: Sizes,
    at: Sequence[Runs],
    *,
    prompts: int | None = None,
    outputs: Sequence[str] = (),
    units: Sequence[str] = (),
) -> KindSurvey:
    """Score and test all pairs of one kind.

    Args:
        model: the tensors of a model.
        svd: SVD of its OV matrices.
        kind: of composition.
        reader, scores: reduced readers and component scores of this kind (`composition`).
        typical: sizes on random tokens.
        at: runs of the tasks.
        prompts: how many of each are used; all when None.
        outputs: tasks on which the second effect is measured too.
        units: tasks whose effects are kept draw by draw.
    """
    pairs = Pairs(*svd.S.shape)
    directions = composition.write_directions(svd)
    factors = corrections.weight_factors(pairs, svd, reader, scores)
    factors |= corrections.run_factors(pairs, typical)
    flat = [(run.task, site) for run in at for site in run.of(kind, prompts)]
    found = iter(
        removal_effects(
            model,
            directions,
            kind,
            [site for _, site in flat],
            output=[task.name in outputs for task, _ in flat],
            units=[task.unit if task.name in units else None for task, _ in flat],
        )
    )
    measured, on_task = {}, {}
    for run in at:
        each, name = run.of(kind, prompts), run.task.name
        measured[name] = _joined(kind, [next(found) for _ in each])
        on_task[name] = corrections.task_factor(pairs, model, directions, each)
    return KindSurvey(kind, pairs, factors, on_task, measured)


def _joined(kind: composition.Kind, found: Sequence[Effects]) -> Measured:
    """The effects at the places of a task, averaged."""

    def mean(tables: list[Tensor | None]) -> Tensor | None:
        if tables[0] is None or len(tables) == 1:
            return tables[0]
        return sum(tables[1:], tables[0]) / len(tables)

    pattern, output, units = (mean(list(tables)) for tables in zip(*found, strict=True))
    effect, other = (output, None) if kind == "V" else (pattern, output)
    return Measured(effect, other, units, blind.hits(effect))
