r"""Channels of a model of any size, from its checkpoint: `python -m th_utils.scan --help`.

Every rank-1 component of every head's OV matrix is scored against every head of every later layer,
by query, key and value, with the score of paper A (`th_utils.composition`)

.. math:: CS_k = \|v_k^T F\|_2 / \|F\|_F ,

where :math:`v_k` is the component's write direction and :math:`F` the reduced reader; what writes
or reads nothing scores zero. Of each reader and kind the strongest `k` writers are kept, with mean
and standard deviation over all of them. A model of 7 billion parameters has some 200 million
scores, one of 70 billion 5,000 million: they are never held together.

Each layer is read once. Its readers are multiplied with the write directions of all earlier
layers, which lie in a scratch folder, and then its own write directions are added there. So memory
is needed for a few matrices of one layer, and every step leaves something on the disk: a scan that
was stopped, by whatever means, continues where it was. For the same number of threads, the same
device and the same `memory` the result is bit-equal to that of a scan in one go; otherwise equal
to rounding.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import __version__, scan_store
from th_utils.checkpoint import Checkpoint, open_checkpoint
from th_utils.composition import KINDS, OFFSETS, readers, unit, write_directions
from th_utils.digest import closure_of_module, digest
from th_utils.errors import CompanionError
from th_utils.paths import file_lock
from th_utils.progress import track
from th_utils.scan_store import Scan, directions_file, empty, read_tensors, state_file
from th_utils.svd import ov_svd

SAVE_EVERY_S = 5.0  # seconds of work that may be lost; a state is small, but flushing it is slow
# Tensors of the size of one layer's W_Q that are alive at once: weights as stored and as folded,
# both sides of the SVD with what LAPACK copies, three readers, one writer.
_ALIVE = 14
_ALIVE_GROUPED = 4  # of these, W_K and W_V as stored and as folded: smaller where heads share them


def scan(
    path: Path | str,
    out: Path | str,
    *,
    k: int = 50,
    kinds: str = "QKV",
    offsets: Sequence[int] = OFFSETS,
    n_heads: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    memory: int = 2 * 2**30,
) -> Scan:
    """Find the strongest writers of every head of a checkpoint, layer by layer.

    Args:
        path: a safetensors checkpoint (`th_utils.weights.from_checkpoint`).
        out: the scan's own folder, made when absent. A scan that was stopped there continues, a
            finished one is returned as it is, and one that is running in another process is
            waited for.
        k: how many writers to keep for each reader and kind.
        kinds: "Q", "K", "V" or several of these, in any order.
        offsets: query position minus key position, in tokens; rotary models only
            (`th_utils.composition.readers`).
        n_heads: number of query heads, where no config.json says it.
        device: where the products are made.
        dtype: torch.float32 or torch.float64; stored weights are converted to it.
        memory: bytes that the tensors may take at once, on the device or on the CPU. The program
            itself comes on top, some 300 MB. The default is enough for models of 7 billion
            parameters; one of 70 billion needs about 3.2 GiB.

    Returns:
        The `Scan`, also written to `out` as scan.safetensors and scan.json.

    Raises:
        CompanionError: no usable checkpoint, an argument out of range, a folder that belongs to
            another scan, too little memory or disk.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> names = {"attn.c_attn.weight": (8, 24), "attn.c_proj.weight": (8, 8), "ln_1.weight": (8,)}
    >>> weights = {f"h.{i}.{n}": torch.randn(s) for i in range(3) for n, s in names.items()}
    >>> how = {"k": 5, "n_heads": 2}  # a folder with a config.json says the heads itself
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(weights, f"{folder}/model.safetensors")
    ...     found = scan(f"{folder}/model.safetensors", f"{folder}/scan", **how)
    >>> found.score.shape, found.writer_layer[0, :, 0, 0].tolist()[:2]
    (torch.Size([3, 3, 2, 5]), [-1, 0])
    """
    _check(k, kinds, offsets, dtype, memory)
    checkpoint = open_checkpoint(path, n_heads=n_heads)
    plan = _Plan(checkpoint, Path(out), k, kinds, tuple(offsets), device, dtype, memory)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise CompanionError(f"cannot make the folder {out} ({reason}): choose another") from error
    with file_lock(plan.out / ".lock"):
        said = plan.said()
        scan_store.begin(plan.out, said)
        if scan_store.is_finished(plan.out):
            return scan_store.load(plan.out)
        scan_store.need_room(plan.out, plan.scratch_bytes())
        with torch.inference_mode():
            for _ in track(plan.steps(), "pairs of layers", plan.n_pairs):
                pass
            found = plan.gather(said)
        scan_store.finish(plan.out, found)
    return found


def pair_scores(
    writers: Float[Tensor, "writer d_model"],
    joined: Float[Tensor, "d_model joined"],
    heads: int,
    *,
    rows: int,
) -> Float[Tensor, "writer head"]:
    """Scores of one layer's write directions with one layer's readers of norm one.

    Args:
        writers: write directions, of norm one (`th_utils.composition.write_directions`).
        joined: the reduced readers of all heads side by side (`th_utils.composition.unit`).
        heads: how many readers there are in `joined`.
        rows: how many writers are multiplied at once; the product has as many rows.

    >>> readers = unit(torch.eye(3, 2).expand(2, 3, 2)).permute(1, 0, 2).reshape(3, 4)
    >>> pair_scores(torch.eye(3), readers, 2, rows=2)
    tensor([[0.7071, 0.7071],
            [0.7071, 0.7071],
            [0.0000, 0.0000]])
    """
    parts = [
        torch.linalg.vector_norm((block @ joined).unflatten(1, (heads, -1)), dim=-1)
        for block in writers.split(rows)
    ]
    return torch.cat(parts)


def merge_top(
    score: Float[Tensor, "rank head"],
    writer: Int[Tensor, "rank head"],
    new: Float[Tensor, "writer head"],
    first: int,
) -> tuple[Float[Tensor, "rank head"], Int[Tensor, "rank head"]]:
    """The strongest of those kept and of new writers, which are numbered from `first` on.

    >>> kept, numbers = torch.tensor([[0.9], [0.2]]), torch.tensor([[3], [0]])
    >>> score, writer = merge_top(kept, numbers, torch.tensor([[0.1], [0.5]]), 7)
    >>> writer[:, 0].tolist()
    [3, 8]
    """
    best, at = new.topk(min(len(score), len(new)), dim=0)
    score, writer = torch.cat([score, best]), torch.cat([writer, at + first])
    # stable, so that of equal scores the earlier writer stays
    order = score.sort(dim=0, descending=True, stable=True).indices[: len(score) - len(best)]
    return score.gather(0, order), writer.gather(0, order)


def merge_moments(
    count: int,
    mean: Float[Tensor, " head"],
    squares: Float[Tensor, " head"],
    new: Float[Tensor, "writer head"],
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    """Mean and sum of squared deviations with `new` values beside the `count` before.

    Chan, Golub and LeVeque (1979): exact for any partition, in the dtype of `mean`.

    >>> none = torch.zeros(1)
    >>> mean, squares = merge_moments(0, none, none, torch.tensor([[1.0], [2.0]]))
    >>> merge_moments(2, mean, squares, torch.tensor([[6.0]]))
    (tensor([3.]), tensor([14.]))
    """
    new = new.to(mean.dtype)
    n, new_mean = len(new), new.mean(dim=0)
    difference, total = new_mean - mean, count + n
    squares = squares + (new - new_mean).square().sum(dim=0)
    squares = squares + difference.square() * (count * n / total)
    return mean + difference * (n / total), squares


class _Plan:
    """One scan: its sizes, and the work in its order."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        out: Path,
        k: int,
        kinds: str,
        offsets: tuple[int, ...],
        device: torch.device | str,
        dtype: torch.dtype,
        memory: int,
    ) -> None:
        self.checkpoint, self.out, self.kinds = checkpoint, out, kinds
        self.offsets, self.dtype = offsets, dtype
        self.device = _device(device)
        self.layers = checkpoint.n_layers
        if self.layers < 2:
            raise CompanionError(
                f"{checkpoint.path} has {self.layers} layer: no head reads what another has "
                "written, a scan needs two or more"
            )
        self.heads, self.kv_heads, self.d_model, self.d_head = checkpoint.sizes()
        self.per_layer = self.heads * self.d_head  # writers, and columns of the joined readers
        self.n_pairs = self.layers * (self.layers - 1) // 2
        self.k = min(k, self.per_layer * (self.layers - 1))
        self.rows = self._rows(memory)

    def _rows(self, memory: int) -> int:
        """How many writers to multiply at once, from what the tensors of a layer leave free."""
        item = self.dtype.itemsize
        shared = _ALIVE_GROUPED * self.kv_heads * self.d_head
        whole = (_ALIVE - _ALIVE_GROUPED) * self.per_layer
        fixed = (shared + whole) * self.d_model * item
        one = 2 * self.per_layer * item  # the product's row, and the scores' copies
        if fixed + one > memory:
            # enough for products of full height: with one row at a time it would crawl
            enough = math.ceil((fixed + one * self.per_layer) / 2**30 * 100) / 100
            raise CompanionError(
                f"memory={memory / 2**20:.0f} MiB is too little: one layer of "
                f"{self.checkpoint.path} needs {(fixed + one) / 2**20:.0f} MiB, give "
                f"memory={math.ceil(enough * 2**30)} (on the command line --memory {enough:.2f})"
            )
        return min(self.per_layer, (memory - fixed) // one)

    def said(self) -> dict[str, Any]:
        """What decides the result, in the types of JSON."""
        return {
            "shape": {
                "layers": self.layers,
                "heads": self.heads,
                "kv_heads": self.kv_heads,
                "d_model": self.d_model,
                "d_head": self.d_head,
            },
            "parameters": {
                "k": self.k,
                "kinds": self.kinds,
                "offsets": None if self.checkpoint.rotary is None else list(self.offsets),
                "dtype": str(self.dtype).removeprefix("torch."),
            },
            "checkpoint": self.checkpoint.fingerprint(),
            "sources": {
                "th_utils": __version__,
                "torch": torch.__version__.split("+")[0],
                "digest": _kernel_digest(),
            },
        }

    def scratch_bytes(self) -> int:
        """Bytes that are still to be written: write directions, states, and the result."""
        missing = sum(not directions_file(self.out, i).exists() for i in range(self.layers - 1))
        # one more for the copy under a temporary name
        directions = (missing + 1) * self.per_layer * (self.d_model + 1) * self.dtype.itemsize
        kept = len(self.kinds) * self.layers * self.heads * (self.k * 64 + 64)
        return directions + kept

    def steps(self) -> Iterator[None]:
        """Do the work; each yield ends a pair of layers, done now or found done."""
        for layer in range(self.layers):
            weights = None
            if layer:
                state = self._state(layer)
                if state["next"] < layer:
                    weights = self._weights(layer)
                yield from self._read(layer, weights, state)
            if layer < self.layers - 1 and not directions_file(self.out, layer).exists():
                self._write(layer, weights or self._weights(layer))

    def _weights(self, layer: int) -> Any:
        weights = self.checkpoint.layer(layer, dtype=self.dtype)
        expected = (1, self.heads, self.d_model, self.d_head)
        if tuple(weights.W_Q.shape) != expected or weights.W_K.shape[1] != self.kv_heads:
            raise CompanionError(
                f"{self.checkpoint.path}, layer {layer}: W_Q {tuple(weights.W_Q.shape)} and W_K "
                f"{tuple(weights.W_K.shape)} differ from those of the first layer"
            )
        return weights.to(self.device)

    def _write(self, layer: int, weights: Any) -> None:
        """Put a layer's write directions and singular values into the scratch folder."""
        svd = ov_svd(weights)
        parts = {"V": write_directions(svd)[0].reshape(-1, self.d_model), "S": svd.S[0]}
        scan_store.write_tensors(directions_file(self.out, layer), parts)

    def _read(self, layer: int, weights: Any, state: dict[str, Any]) -> Iterator[None]:
        """Score all earlier layers' writers with one layer's readers."""
        for _ in range(state["next"]):
            yield
        if weights is None:
            return
        joined = [self._joined(weights, kind) for kind in self.kinds]
        del weights
        saved = time.monotonic()
        for writer_layer in range(state["next"], layer):
            file = directions_file(self.out, writer_layer)
            writers = read_tensors(file, ["V"], self.device)["V"]
            first = writer_layer * self.per_layer
            for i, one in enumerate(joined):
                new = pair_scores(writers, one, self.heads, rows=self.rows)
                state["score"][i], state["writer"][i] = merge_top(
                    state["score"][i], state["writer"][i], new, first
                )
                state["mean"][i], state["squares"][i] = merge_moments(
                    first, state["mean"][i], state["squares"][i], new
                )
            state["next"] = writer_layer + 1
            if state["next"] == layer or time.monotonic() - saved >= SAVE_EVERY_S:
                said = {**state, "next": torch.tensor(state["next"])}
                scan_store.write_tensors(state_file(self.out, layer), said)
                saved = time.monotonic()
            yield

    def _joined(self, weights: Any, kind: Any) -> Float[Tensor, "d_model joined"]:
        reader = unit(readers(weights, kind, offsets=self.offsets)[0])
        return reader.permute(1, 0, 2).reshape(self.d_model, -1)

    def _state(self, layer: int) -> dict[str, Any]:
        """How far a reader layer has come; from the scratch folder if it has been begun."""
        file = state_file(self.out, layer)
        if file.exists():
            found: dict[str, Any] = read_tensors(file, device=self.device)
            return {**found, "next": int(found["next"])}
        n, kinds, device = self.k, len(self.kinds), self.device
        moments = torch.zeros(2, kinds, self.heads, dtype=torch.float64, device=device)
        score = torch.full((kinds, n, self.heads), -torch.inf, dtype=self.dtype, device=device)
        writer = torch.full((kinds, n, self.heads), -1, device=device)
        return {
            "score": score,
            "writer": writer,
            "mean": moments[0].clone(),
            "squares": moments[1].clone(),
            "next": 0,
        }

    def gather(self, said: Mapping[str, Any]) -> Scan:
        """The result, from the states of all reader layers."""
        kinds, d_head = len(self.kinds), self.d_head
        score = empty(kinds, self.layers, self.heads, self.k, dtype=self.dtype)
        writer = empty(kinds, self.layers, self.heads, self.k, dtype=torch.int64)
        mean = empty(kinds, self.layers, self.heads, dtype=torch.float64)
        std = mean.clone()
        S = empty(self.layers, self.heads, d_head, dtype=self.dtype)
        for layer in range(self.layers - 1):
            S[layer] = read_tensors(directions_file(self.out, layer), ["S"])["S"]
        for layer in range(1, self.layers):
            state = read_tensors(state_file(self.out, layer))
            score[:, layer] = state["score"].mT
            writer[:, layer] = state["writer"].mT
            mean[:, layer] = state["mean"]
            std[:, layer] = (state["squares"] / (layer * self.per_layer - 1)).sqrt()
        absent = ~torch.isfinite(score)
        score[absent], writer[absent] = torch.nan, -1
        apart = std.where(std != 0, 1)  # equal scores, such as a silent reader's, are at zero
        z = ((score - mean[..., None]) / apart[..., None]).to(self.dtype)
        return Scan(
            kinds=self.kinds,
            score=score,
            z=z,
            writer_layer=torch.where(absent, -1, writer // self.per_layer),
            writer_head=torch.where(absent, -1, writer // d_head % self.heads),
            component=torch.where(absent, -1, writer % d_head),
            mean=mean,
            std=std,
            S=S,
            said=said,
        )


def _check(k: Any, kinds: Any, offsets: Any, dtype: Any, memory: Any) -> None:
    if not _whole(k) or k < 1:
        raise CompanionError(f"k={k!r}: keep one writer or more for each reader, a whole number")
    if (
        not isinstance(kinds, str)
        or not kinds
        or len(set(kinds)) < len(kinds)
        or not set(kinds) <= set(KINDS)
    ):
        raise CompanionError(f"kinds={kinds!r}: some of the letters {''.join(KINDS)}, each once")
    if dtype not in (torch.float32, torch.float64):
        raise CompanionError(f"dtype={dtype}: torch.float32 or torch.float64")
    if not _whole(memory):
        raise CompanionError(f"memory={memory!r}: a whole number of bytes")
    offsets = tuple(offsets) if isinstance(offsets, Iterable) else (None,)
    if not offsets or not all(_whole(offset) and offset >= 0 for offset in offsets):
        raise CompanionError(
            f"offsets={offsets}: whole numbers of tokens, at least one of them, none negative"
        )


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CompanionError(f"device {str(device)!r} cannot be used ({reason})") from error
    if found.type == "meta":
        raise CompanionError(f"device {str(device)!r} cannot be used (it holds no values)")
    return found


def _kernel_digest() -> str:
    """Of the sources that compute a scan: half a scan by one version is not continued by another"""
    here = Path(__file__).parent
    files = {*closure_of_module("th_utils.composition"), here / "checkpoint.py", here / "scan.py"}
    return digest(sorted(files))


def operations(said: Mapping[str, int], kinds: int = 3) -> int:
    """Floating-point operations of the products in a scan: two for each multiply-add.

    Decompositions are left out: they grow with the layers, the products with their square.

    >>> operations({"layers": 2, "heads": 1, "d_model": 10, "d_head": 3}, kinds=1)
    180
    """
    width = said["heads"] * said["d_head"]
    pairs = said["layers"] * (said["layers"] - 1) // 2
    return 2 * kinds * pairs * width * width * said["d_model"]


def main(arguments: list[str] | None = None) -> int:
    """Command line; progress goes to the terminal, the strongest channels to standard output."""
    options = _parser().parse_args(arguments)
    try:
        found = _with_bar(options)
    except CompanionError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    for line in _summary(found, options):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m th_utils.scan",
        description="Find, for every attention head of a model, the components of earlier heads "
        "that write most into what its queries, keys and values read. Works layer by layer from a "
        "safetensors checkpoint of any size. Can be stopped at any time: the same command "
        "continues where it was.",
    )
    add = parser.add_argument
    add("checkpoint", help="folder with safetensors files and config.json, or one such file")
    add("--out", required=True, help="folder of this scan, made when absent")
    add("--top", type=int, default=50, metavar="K", help="writers to keep for each reader and kind")
    add("--kinds", default="QKV", help="queries, keys, values, or some of them (default QKV)")
    add(
        "--offsets",
        type=_offsets,
        default=OFFSETS,
        metavar="A-B",
        help="distances from query to key in tokens, a range or a list with commas; the scores of "
        "rotary models are averaged over them (default 1-32)",
    )
    add("--heads", type=int, help="number of query heads, where there is no config.json")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    add("--double", action="store_true", help="compute in float64")
    add(
        "--memory",
        type=_gib,
        default=2.0,
        metavar="GIB",
        help="memory for tensors; the program itself takes some 0.3 GiB besides (default 2, enough "
        "for a model of 7B parameters; one of 70B needs about 3.2, and what a model needs is said "
        "when it is too little)",
    )
    return parser


def _offsets(text: str) -> tuple[int, ...]:
    """Offsets as the command line says them.

    >>> _offsets("1-4"), _offsets("0,2,8")
    ((1, 2, 3, 4), (0, 2, 8))
    """
    first, dash, last = text.partition("-")
    try:
        if dash:
            return tuple(range(int(first), int(last) + 1))
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        wanted = "a range such as 1-32, or a list such as 0,1,2"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None


def _gib(text: str) -> float:
    """Memory as the command line says it.

    >>> _gib("2.5")
    2.5
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GiB, such as 2.5")
    return found


def _with_bar(options: argparse.Namespace) -> Scan:
    """Scan, and draw on the terminal what `track` reports."""
    from th_utils.build.display import Reporter  # the one bar that the project has

    class Bar(Reporter):
        """The bar with an estimate of the time that is left, which steps of equal size allow."""

        begun: tuple[float, int] | None = None

        def _newest(self) -> dict[str, Any] | None:
            state = super()._newest()
            if state is None or not state["n"]:
                return state
            now = time.monotonic()
            self.begun = self.begun or (now, state["n"])
            seconds, done = now - self.begun[0], state["n"] - self.begun[1]
            if done > 0:
                left = seconds / done * (state["total"] - state["n"])
                state["desc"] += f", {_duration(left)} left"
            return state

    with tempfile.TemporaryDirectory(prefix="scan-") as folder:
        progress = Path(folder) / "progress.jsonl"
        os.environ["TH_PROGRESS"] = str(progress)
        with Bar("scan", 0, progress):
            return scan(
                options.checkpoint,
                options.out,
                k=options.top,
                kinds=options.kinds.upper(),
                offsets=options.offsets,
                n_heads=options.heads,
                device=options.device,
                dtype=torch.float64 if options.double else torch.float32,
                memory=int(options.memory * 2**30),
            )


def _duration(seconds: float) -> str:
    """A duration as a person says it.

    >>> _duration(40.0), _duration(400.0), _duration(4e4)
    ('40 s', '7 min', '11 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _summary(found: Scan, options: argparse.Namespace, rows: int = 10) -> Iterator[str]:
    """Where the result is, and the channels that stand out most from their reader's writers."""
    kept = found.score.shape[-1]
    table = found.table()
    if kept < options.top:
        yield f"--top {options.top}: no reader has more than {kept} writers, all are kept"
    yield f"{len(table)} channels in {options.out}"
    strongest = table["z"].argsort(kind="stable")[::-1]
    yield "kind  reader  writer.component  score       z"
    for row in strongest[:rows]:
        said = {name: column[row] for name, column in table.columns.items()}
        reader = f"{said['reader_layer']}.{said['reader_head']}"
        writer = f"{said['writer_layer']}.{said['writer_head']}.{said['component']}"
        yield f"{said['kind']:4}  {reader:6}  {writer:16}  {said['score']:.3f}  {said['z']:6.1f}"


if __name__ == "__main__":
    sys.exit(main())
