"""The numbers behind a figure: one table per figure, with where it comes from.

A table is written as `<id>.json`, and as `<id>.csv` when its cells are single values. The same
numbers from the same sources give the same bytes: floats are rounded to 7 significant digits, keys
are sorted, and nothing says when or where or by which commit. Another machine adds up in another
order; how far its numbers may then lie from these, each file says under `tolerance`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from th_utils import __version__
from th_utils.errors import CompanionError
from th_utils.paths import atomic_write, edition_folder, output_dir

DIGITS = 7
# Of numbers computed again on another machine: |new - old| is at most the larger of `absolute` and
# `relative` times |old|. Where two scores differ in their last digits, a rank or a count may move
# by one (`counts`), and what is made of ranks a little (`claims`, absolute, of the claims' values).
TOLERANCE = {"absolute": 1e-5, "relative": 1e-5, "counts": 1, "claims": 1e-3}
PACKAGES = ("matplotlib", "numpy", "torch", "transformer-lens", "transformers")
_NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")


@dataclass(frozen=True)
class Provenance:
    """What a table was computed from.

    Attributes:
        edition: name of the model; of a local directory, its last part.
        checksum: SHA-256 of the model's weights, or "random".
        parameters: what the chapter was asked for (edition, size, seed, ...).
        packages: versions of what computes and draws.
        digest: of the sources and data that the chapter depends on (`th_utils.digest`).
    """

    edition: str
    checksum: str
    parameters: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    digest: str | None = None


@dataclass(frozen=True)
class Results:
    """A table and what goes with it.

    Attributes:
        columns: name to list, all of one length.
        meta: further values, nested as JSON allows.
        provenance: None until it is saved.

    >>> table = Results({"head": ["0.1", "0.2"], "score": [0.5, None]}, {"level": 0.04})
    >>> table["score"], len(table)
    (array([0.5, nan]), 2)
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __getitem__(self, name: str) -> np.ndarray:
        """One column as an array; missing numbers are nan."""
        column = self.columns[name]
        numbers = [cell for cell in column if cell is not None]
        if numbers and all(isinstance(cell, int | float) for cell in numbers):
            column = [math.nan if cell is None else cell for cell in column]
        return np.array(column)

    def frame(self) -> Any:
        """The columns as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.columns)


def gather(
    edition: str, checksum: str, parameters: Mapping[str, Any], digest: str | None
) -> Provenance:
    """The `Provenance` of what is computed here and now, with the versions installed.

    Local paths among `edition` and `parameters` are cut to their last part: they say something of
    the machine, nothing of the result.
    """
    packages = {"th_utils": __version__}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    said = {name: public(value) for name, value in parameters.items()}
    return Provenance(public(edition), checksum, said, packages, digest)


def as_results(table: Any) -> Results:
    """Whatever a chapter hands over, as `Results` of plain, rounded values.

    Args:
        table: `Results`; a pandas DataFrame; a mapping of column names to equally long lists or
            arrays; `{"table": <any of these>, "extra": {...}}`; or `{"columns": ..., "meta": ...}`.

    Raises:
        TypeError: it is none of these, or holds what JSON cannot say.
        ValueError: columns of different lengths.
    """
    if isinstance(table, Results):
        return Results(_columns(table.columns), _plain(table.meta), table.provenance)
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        return Results(_columns({str(name): table[name].tolist() for name in table.columns}))
    if not isinstance(table, Mapping):
        raise TypeError(f"a table is Results, a DataFrame or a mapping, not {type(table).__name__}")
    for inner, meta in (("table", "extra"), ("columns", "meta")):
        if inner in table and set(table) <= {inner, meta}:
            found = as_results(table[inner])
            return Results(found.columns, found.meta | _plain(dict(table.get(meta) or {})))
    return Results(_columns(table))


def save_table(
    table: Any, name: str, provenance: Provenance, folder: str | os.PathLike[str] | None = None
) -> dict[str, Path]:
    """Write a table; return the paths by kind, "json" and, for a flat table, "csv".

    Args:
        table: see `as_results`.
        name: permanent name of the figure: lower case, digits and hyphens.
        provenance: what it was computed from.
        folder: where to; `results/<edition>` of the output folder when None.

    Raises:
        CompanionError: the name is no file name, or the files cannot be written.
    """
    results = as_results(table)
    target = _folder(folder, provenance.edition) / check_name(name)
    columns = results.columns
    rows = list(zip(*columns.values(), strict=True))
    flat = bool(columns) and not any(isinstance(cell, list | dict) for row in rows for cell in row)
    head = {
        "columns": list(columns),
        "id": name,
        "meta": results.meta,
        "provenance": _plain(asdict(provenance)),
        "tolerance": TOLERANCE,
    }
    # One row per line: a table that a person can read and a diff can show.
    text = json.dumps(head, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) for row in rows]
    body = ",\n".join(f"  {line}" for line in lines)
    content = text[:-2] + ',\n "rows": [' + (f"\n{body}\n ]" if lines else "]") + "\n}\n"
    csv_path = target.with_name(f"{name}.csv")
    if not flat:
        csv_path.unlink(missing_ok=True)
        return {"json": atomic_write(target.with_name(f"{name}.json"), content)}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return {
        "json": atomic_write(target.with_name(f"{name}.json"), content),
        "csv": atomic_write(csv_path, stream.getvalue()),
    }


def load_table(
    name: str, edition: str | None = None, folder: str | os.PathLike[str] | None = None
) -> Results:
    """Read a table that `save_table` wrote.

    Args:
        name: of the figure.
        edition: whose; needed when no folder is given.
        folder: where it lies; `results/<edition>` of the output folder when None.

    Raises:
        CompanionError: there is no such table, or its file is not whole.
    """
    if folder is None and edition is None:
        raise TypeError("load_table needs an edition or a folder")
    path = _folder(folder, edition or "") / f"{check_name(name)}.json"
    return read_table(path)


def read_table(path: str | os.PathLike[str]) -> Results:
    """Read the table in a file, see `load_table`."""
    path = Path(path)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        names, rows = said["columns"], said["rows"]
        if any(len(row) != len(names) for row in rows):
            raise ValueError("rows of different lengths")
        columns = {column: [row[i] for row in rows] for i, column in enumerate(names)}
        return Results(columns, said["meta"], Provenance(**said["provenance"]))
    except FileNotFoundError as error:
        raise CompanionError(f"there is no table {path}: run the chapter that makes it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompanionError(
            f"{path} is not a whole table ({error}): remove it and run its chapter again"
        ) from error


def rounded(value: float | int) -> float:
    """A float as results hold it, with 7 significant digits.

    >>> rounded(2 / 3), rounded(-0.0)
    (0.6666667, 0.0)
    """
    # Adding zero turns -0.0 into 0.0: they are equal, but would be told apart in a file.
    return float(f"{value:.{DIGITS}g}") + 0.0


def check_name(name: str) -> str:
    """Return a figure's name if it can be a file name and an anchor, else say what can."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CompanionError(
            f"{name!r} cannot name a figure: use lower-case letters, digits and hyphens"
        )
    return name


def _folder(folder: str | os.PathLike[str] | None, edition: str) -> Path:
    if folder is not None:
        return Path(folder)
    return output_dir() / "results" / edition_folder(edition)


def _columns(columns: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    found = {}
    for name, column in columns.items():
        plain = _plain(column)
        if not isinstance(name, str) or not isinstance(plain, list):
            raise TypeError(f"column {name!r} is not a list of values under a name")
        found[name] = plain
    return found


def _plain(value: Any) -> Any:
    """`value` in the types of JSON, floats rounded; what is not finite becomes None."""
    if value is None or isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return rounded(value) if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} does not belong into a table of results")


def public(value: Any) -> Any:
    """`value`, a local path cut to its last part.

    >>> public("/home/someone/models/mine"), public("EleutherAI/pythia-160m"), public(3)
    ('mine', 'EleutherAI/pythia-160m', 3)
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if text.startswith((".", "/", "~", os.sep)):
            return Path(text).expanduser().name or text
        return text
    return value
