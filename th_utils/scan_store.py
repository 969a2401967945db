"""The folder of a channel scan: what has been done so far, and its result.

`job.json` says what is scanned and how, and is compared before anything else is believed.
`scratch/` holds the write directions of each layer and the state of each reader layer, every file
absent or whole. `scan.safetensors` and `scan.json` are the result; then the scratch folder goes.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from th_utils.composition import unit
from th_utils.errors import CompanionError
from th_utils.paths import atomic_write
from th_utils.results import Results

JOB, SCRATCH, HEAD, TENSORS = "job.json", "scratch", "scan.json", "scan.safetensors"


@dataclass(frozen=True)
class Scan:
    """The strongest writers of every reader; rank 0 is the strongest.

    Where fewer writers stand before a reader than were asked for, the rest of a row is NaN and its
    writers are -1. What is zero scores zero, as in `th_utils.composition`: a silent component with
    every reader, and every component with a reader of norm zero, whose z are zero too and whose
    writers are any.

    Attributes:
        kinds: the kinds of composition, in the order of the first axis: "QKV" or some of these.
        score: component scores (`th_utils.composition`), in [0, 1].
        z: the score's distance from the reader's mean in its standard deviations.
        writer_layer, writer_head, component: which component of which head writes.
        mean, std: over all components of all heads of all earlier layers, one reader at a time.
        S: singular values of the writers' OV matrices; NaN in the last layer, to which nobody
            listens.
        said: shape, parameters and checkpoint, as in `job.json`.
    """

    kinds: str
    score: Float[Tensor, "kind layer head rank"]
    z: Float[Tensor, "kind layer head rank"]
    writer_layer: Int[Tensor, "kind layer head rank"]
    writer_head: Int[Tensor, "kind layer head rank"]
    component: Int[Tensor, "kind layer head rank"]
    mean: Float[Tensor, "kind layer head"]
    std: Float[Tensor, "kind layer head"]
    S: Float[Tensor, "layer head component"]
    said: Mapping[str, Any]

    def table(self) -> Results:
        """One row per channel kept: kind, reader, rank, writer, score and z.

        `share` is the part of the writing head's squared norm that the component carries, zero in
        a head that writes nothing.

        >>> at = (1, 2, 1, 1)  # one kind, two layers of one head, one writer kept
        >>> score, none = torch.full(at, 0.5), torch.full(at, -1)
        >>> writer = torch.tensor([-1, 0]).reshape(at)
        >>> moments, S = torch.zeros(at[:3]), torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
        >>> scan = Scan("Q", score, score, writer, writer, writer, moments, moments, S, {})
        >>> print(f"{scan.table().columns['share'][0]:.2f}")
        0.36
        """
        kind, layer, head, rank = (self.writer_layer >= 0).nonzero().unbind(1)
        at = (kind, layer, head, rank)
        writer = (self.writer_layer[at], self.writer_head[at], self.component[at])
        share = unit(self.S[..., None]).squeeze(-1) ** 2
        columns = {
            "kind": [self.kinds[k] for k in kind.tolist()],
            "reader_layer": layer.tolist(),
            "reader_head": head.tolist(),
            "rank": rank.tolist(),
            "writer_layer": writer[0].tolist(),
            "writer_head": writer[1].tolist(),
            "component": writer[2].tolist(),
            "score": self.score[at].tolist(),
            "z": self.z[at].tolist(),
            "share": share[writer].tolist(),
        }
        return Results(columns, dict(self.said))


def load(folder: Path | str) -> Scan:
    """Read the result of a finished scan.

    Raises:
        CompanionError: there is none, or its files are damaged.

    >>> load("nowhere")
    Traceback (most recent call last):
    th_utils.errors.CompanionError: there is no finished scan in nowhere: run th_utils.scan to its \
end
    """
    folder = Path(folder)
    if not is_finished(folder):
        raise CompanionError(f"there is no finished scan in {folder}: run th_utils.scan to its end")
    said = _read_json(folder / HEAD)
    parts = read_tensors(folder / TENSORS)
    return Scan(kinds=said["parameters"]["kinds"], said=said, **parts)


def finish(folder: Path, scan: Scan) -> None:
    """Write the result, its head last, and remove the scratch folder.

    >>> import tempfile
    >>> said, score = {"parameters": {"kinds": "Q"}}, torch.zeros(2, 1, 2, 1, 1)
    >>> moments, S = torch.zeros(2, 1, 2, 1), torch.zeros(2, 1, 1)
    >>> writer = torch.zeros(3, 1, 2, 1, 1, dtype=torch.int64)
    >>> found = Scan("Q", *score, *writer, *moments, S, said)
    >>> with tempfile.TemporaryDirectory() as name:
    ...     finish(Path(name), found)
    ...     load(name).said == said
    True
    """
    names = "score z writer_layer writer_head component mean std S".split()
    write_tensors(folder / TENSORS, {name: getattr(scan, name) for name in names})
    atomic_write(folder / HEAD, json.dumps(scan.said, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def begin(folder: Path, said: Mapping[str, Any]) -> None:
    """Take a folder for the scan that `said` describes, or find it taken for the same one.

    Raises:
        CompanionError: the folder belongs to another scan; the message says what differs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     begin(Path(name), {"parameters": {"k": 5}})
    ...     sorted(path.name for path in Path(name).iterdir())
    ['job.json', 'scratch']
    """
    job, scratch = folder / JOB, folder / SCRATCH
    for left in (*folder.glob(".scan.*"), *scratch.glob(".*")):
        left.unlink()  # what a killed process was writing
    if job.is_file() and (is_finished(folder) or any(scratch.glob("*"))):
        differing = _differences(_read_json(job), json.loads(json.dumps(said)))
        if differing:
            raise CompanionError(
                f"{folder} holds a scan with another {', '.join(differing)}: choose another "
                "folder, or remove this one"
            )
    else:
        atomic_write(job, json.dumps(said, indent=1, sort_keys=True) + "\n")
    if is_finished(folder):
        shutil.rmtree(scratch, ignore_errors=True)  # of a process killed at its very end
    else:
        scratch.mkdir(exist_ok=True)


def is_finished(folder: Path) -> bool:
    """Whether the result is there; its head is written last.

    >>> is_finished(Path("nowhere"))
    False
    """
    return (folder / HEAD).is_file()


def need_room(folder: Path, n_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        CompanionError: fewer than `n_bytes` are free.

    >>> need_room(Path("."), 0)
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise CompanionError(
            f"not enough disk: the scan needs {n_bytes / 1e6:.0f} MB under {folder} and "
            f"{free / 1e6:.0f} MB are free; make room or choose a folder on another disk"
        )


def directions_file(folder: Path, layer: int) -> Path:
    """Where the write directions of a layer lie.

    >>> directions_file(Path("scan"), 7).as_posix()
    'scan/scratch/writers-007.safetensors'
    """
    return folder / SCRATCH / f"writers-{layer:03}.safetensors"


def state_file(folder: Path, layer: int) -> Path:
    """Where the state of a reader layer lies.

    >>> state_file(Path("scan"), 7).as_posix()
    'scan/scratch/readers-007.safetensors'
    """
    return folder / SCRATCH / f"readers-{layer:03}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file that is at every moment absent, old or new.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     write_tensors(Path(name) / "x.safetensors", {"S": torch.ones(2), "V": torch.ones(3)})
    ...     read_tensors(Path(name) / "x.safetensors", ["S"])
    {'S': tensor([1., 1.])}
    """
    atomic_write(path, save({name: t.contiguous().cpu() for name, t in tensors.items()}))


def read_tensors(
    path: Path, names: Sequence[str] | None = None, device: Any = "cpu"
) -> dict[str, Tensor]:
    """Tensors of a safetensors file, all or those of `names`, as copies: nothing stays mapped.

    Raises:
        CompanionError: the file is missing or damaged.

    >>> read_tensors(Path("nowhere.safetensors"))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: nowhere.safetensors is missing or damaged (...
    """
    try:
        with safe_open(path, framework="pt") as handle:
            return {
                name: handle.get_tensor(name).to(device, copy=True)
                for name in (handle.keys() if names is None else names)
            }
    except (SafetensorError, OSError) as error:
        raise CompanionError(
            f"{path} is missing or damaged ({error}): remove its folder and scan again"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompanionError(
            f"{path} is damaged ({error}): remove its folder and scan again"
        ) from error


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two jobs, in words; of the checkpoint's files only that they do."""
    found = []
    for part in sorted({*there, *here}):
        old, new = there.get(part), here.get(part)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    found.append(f"{name} ({old.get(name)} there, {new.get(name)} here)")
        else:
            found.append(part)
    return found


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor of NaN, or of -1 where NaN is not to be had.

    >>> empty(2, dtype=torch.float32), empty(2, dtype=torch.int64)
    (tensor([nan, nan]), tensor([-1, -1]))
    """
    return torch.full(shape, math.nan if dtype.is_floating_point else -1, dtype=dtype)
