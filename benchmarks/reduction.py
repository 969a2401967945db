"""From what pytest-benchmark wrote to the one table that the book draws from.

The turns of one side of a job become one number; what was timed on a part is scaled; each job gets
its floor from the plain product and the plain copy that took turns with it.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import floors, memory
from th_utils.results import Results

TITLES = {
    "svd": "SVD of all OV matrices",
    "composition": "composition scores, all pairs of heads",
    "components": "composition scores, every component",
    "activation": "activation patching, head × position",
    "path-q": "path patching into queries",
    "path-k": "path patching into keys",
    "path-v": "path patching into values",
    "direct": "direct effects, Q, K and V",
    "attribution": "attribution patching",
}
YARDSTICKS = ("product", "copy")
# Others that ours is compared with, in the table's order: TransformerLens at its best; the dense
# decomposition; TransformerLens one component at a time; our own scores of whole heads.
PEERS = ("peer", "dense", "singly", "own")
BRIEF_S = 0.05  # shorter turns say nothing of how busy the machine was
BUSY = 1.1
AGREE = 1e-4  # of sweeps with the peer's numbers, in logits
# What the project set itself: job, what is measured, "least" or "most", how much.
TARGETS = (
    ("svd", "peer over ours", "least", 2),
    ("svd", "dense over ours", "least", 40),
    ("composition", "peer over ours", "least", 15),
    ("composition", "extra memory in MB", "most", 300),
    ("composition", "ours over plain product", "most", 1.4),
    ("components", "ours over whole heads", "most", 1.3),
    ("activation", "peer over ours", "least", 8),
    ("activation", "difference from peer", "most", AGREE),
    ("path-q", "peer over ours", "least", 6),
    ("path-q", "difference from peer", "most", AGREE),
    ("path-k", "peer over ours", "least", 6),
    ("path-k", "difference from peer", "most", AGREE),
    ("path-v", "peer over ours", "least", 6),
    ("path-v", "difference from peer", "most", AGREE),
    ("direct", "seconds", "most", 3),
)


def reduce(runs: Iterable[dict[str, Any]], said: dict[str, Any]) -> Results:
    """One row per job and peer; `said` describes machine and shape.

    Args:
        runs: contents of pytest-benchmark's JSON files, of one run of `python -m benchmarks`.
        said: see `machine`.
    """
    turns: dict[str, dict[str, list[dict]]] = {}
    for run in runs:
        for entry in run["benchmarks"]:
            info = entry["extra_info"]
            one = info | {"seconds": entry["stats"]["median"]}
            turns.setdefault(info["job"], {}).setdefault(info["side"], []).append(one)
    rows: list[dict[str, Any]] = []
    faithful: list[dict[str, Any]] = []
    for job in (job for job in TITLES if "ours" in turns.get(job, {})):
        rows += _rows(job, turns[job])
        faithful += _faithful(job, turns[job]["ours"])
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    shares = {
        job: [
            one["wall"] / one["processor"]
            for side in sides.values()
            for one in side
            if one.get("wall", 0) > BRIEF_S and one["processor"] > 0
        ]
        for job, sides in turns.items()
    }
    shares = {job: found for job, found in shares.items() if found}
    every = [share for found in shares.values() for share in found]
    busy = {"wall_over_processor": median(every) if every else None, "busiest": None}
    if shares:
        share, job = max((median(found), job) for job, found in shares.items())
        busy["busiest"] = {"title": TITLES.get(job, job), "wall_over_processor": share}
    meta = said | busy | {"targets": targets(rows), "faithful": faithful}
    return Results(columns, meta)


def _rows(job: str, sides: dict[str, list[dict]]) -> list[dict[str, Any]]:
    ours = _side(sides["ours"])
    found = {
        "job": job,
        "title": TITLES[job],
        "ours_s": ours["seconds"],
        "ours_turns": ours["turns"],
        "ours_part": ours["part"],
        "ours_scale": ours["scale"],
        "ours_mb": ours["mb"],
        "operations": ours["operations"],
        "bytes": ours["bytes"],
        "product_gflops": None,
        "copy_gbs": None,
        "floor_s": None,
        "floor_by": None,
        "over_floor": None,
    }
    if all(name in sides for name in YARDSTICKS):
        rate = median(one["operations"] / one["seconds"] for one in sides["product"])
        bandwidth = median(one["bytes"] / one["seconds"] for one in sides["copy"])
        floor = floors.seconds(ours["operations"], ours["bytes"], rate, bandwidth)
        by_operations = floor == ours["operations"] / rate
        found |= {
            "product_gflops": rate / 1e9,
            "copy_gbs": bandwidth / 1e9,
            "floor_s": floor,
            "floor_by": "operations" if by_operations else "bytes",
            "over_floor": ours["seconds"] / floor,
        }
    peers = [name for name in PEERS if name in sides]
    rows = []
    for name in peers or [None]:
        peer = _side(sides[name]) if name else {}
        rows.append(
            found
            | {
                "side": name,
                "peer": peer.get("label"),
                "peer_s": peer.get("seconds"),
                "peer_turns": peer.get("turns"),
                "peer_part": peer.get("part"),
                "peer_scale": peer.get("scale"),
                "peer_mb": peer.get("mb"),
                "ratio": peer["seconds"] / ours["seconds"] if peer else None,
                "agreement": _agreement(sides, name),
                "agreement_of": _last(sides, name, "agreement_of"),
            }
        )
    return rows


def _side(turns: list[dict]) -> dict[str, Any]:
    """The turns of one side as one.

    Turns on parts of the same size are as many measurements, of which the median counts; parts of
    different sizes are put together into one.
    """
    first = turns[0]
    scales = [one.get("scale", 1) for one in turns]
    counts = [one["count"] for one in turns if "count" in one]
    if len(set(scales)) == 1:
        scale = first.get("scale")
        seconds = median(one["seconds"] for one in turns) * (scale or 1)
        counts = counts[:1]
    else:
        scale = 1 / sum(1 / one for one in scales)
        seconds = sum(one["seconds"] for one in turns) * scale
    took = [one["memory"] for one in turns if one.get("memory") is not None]
    part = first.get("part")
    return {
        "seconds": seconds,
        "turns": len(turns),
        "part": part and part.format(count=" + ".join(map(str, counts))),
        "scale": scale,
        "label": first.get("label"),
        "mb": max(took) / 1e6 if took else None,
        "operations": first.get("operations"),
        "bytes": first.get("bytes"),
    }


def _agreement(sides: dict[str, list[dict]], peer: str | None) -> float | None:
    """The largest difference that any turn saw; ours looks back at the peer's turns before it."""
    found = [one.get("agreement") for one in sides.get(peer, []) if peer]
    if peer == "peer":
        found += [one.get("agreement") for one in sides["ours"]]
    return max((x for x in found if x is not None), default=None)


def _last(sides: dict[str, list[dict]], peer: str | None, key: str) -> str | None:
    return next((one[key] for one in reversed(sides.get(peer, [])) if one.get(key)), None)


def _faithful(job: str, turns: list[dict]) -> list[dict[str, Any]]:
    """How the estimates of a job agree with the exact numbers of another."""
    one = turns[-1]
    found = []
    for key in ("faithful", *(f"faithful_{kind}" for kind in "QKV")):
        if key in one:
            kind = key[-1].lower() if "_" in key else None
            exact = f"{one['faithful_to']}-{kind}" if kind else one["faithful_to"]
            found.append({"job": job, "exact": exact} | one[key])
    return found


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured; `met` is None where nothing was."""
    found = []
    for job, what, sense, bound in TARGETS:
        value = _measured(job, what, rows)
        met = None
        if value is not None:
            met = value >= bound if sense == "least" else value <= bound
        found.append(
            {"job": job, "what": what, "sense": sense, "bound": bound, "value": value, "met": met}
        )
    return found


def _measured(job: str, what: str, rows: list[dict[str, Any]]) -> float | None:
    sides = {row["side"]: row for row in rows if row["job"] == job}
    if not sides:
        return None
    any_row = next(iter(sides.values()))
    if what in ("extra memory in MB", "seconds", "ours over plain product"):
        key = {"extra memory in MB": "ours_mb", "seconds": "ours_s"}.get(what, "over_floor")
        return any_row[key]
    if what == "ours over whole heads":
        return 1 / sides["own"]["ratio"] if "own" in sides else None
    side = "dense" if what.startswith("dense") else "peer"
    key = "agreement" if what.startswith("difference") else "ratio"
    return sides[side][key] if side in sides else None


def clock(device: str, threads: int) -> str:
    """Which time counts: that of the processor for one thread, which other work on the machine
    disturbs less; else the time that passes."""
    return "processor" if device == "cpu" and threads == 1 else "wall"


def machine(device: str, threads: int, shape: floors.Shape, whole: bool) -> dict[str, Any]:
    """What the times depend on, and nothing that names the machine."""
    total = memory.total()
    said = {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(total / 2**30) if total else None,
        "python": platform.python_version(),
        "blas": blas(),
        "threads": threads,
        "device": device,
        "clock": clock(device, threads),
        "shape": vars(shape) | {"product": floors.product_size(shape)},
        "whole": whole,
    }
    if device.startswith("cuda"):
        said["gpu"] = torch.cuda.get_device_name()
        said["cuda"] = torch.version.cuda
    return said


def cpu() -> str:
    """The processor's name, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    level = torch.backends.cpu.get_cpu_capability()
    return f"{named[1].strip() if named else platform.machine()} ({level})"


def blas() -> str:
    """The library that multiplies matrices on the CPU, with its version where torch says it."""
    text = torch.__config__.show()
    named = re.search(r"Math Kernel Library Version ([\d.]+)", text)
    if named:
        return f"MKL {named[1]}"
    named = re.search(r"BLAS_INFO=(\w+)", text)
    return named[1] if named else "unknown"


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The files of a run that are whole; a run that was stopped leaves one that is not."""
    found = []
    for file in files:
        try:
            found.append(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


def text(results: Results) -> str:
    """The table as plain text, for the terminal."""
    head = f"{'job':<40} {'ours':>9} {'peer':>10} {'ratio':>7} {'floor':>9} {'x floor':>7}  agree"
    lines = [head, "-" * len(head)]
    rows = [dict(zip(results.columns, row, strict=True))
            for row in zip(*results.columns.values(), strict=True)]  # fmt: skip
    for row in rows:
        name = row["title"] + {"dense": " (dense)", "own": " (whole heads)",
                               "singly": " (singly)"}.get(row["side"], "")  # fmt: skip
        cells = [
            f"{name:<40.40}",
            _number(row["ours_s"], "~" if row["ours_scale"] else "") .rjust(9),
            _number(row["peer_s"], "~" if row["peer_scale"] else "").rjust(10),
            _number(row["ratio"]).rjust(7),
            _number(row["floor_s"]).rjust(9),
            _number(row["over_floor"]).rjust(7),
            "" if row["agreement"] is None else f" {row['agreement']:.0e}",
        ]  # fmt: skip
        lines.append(" ".join(cells))
    for one in results.meta["targets"]:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[one["met"]]
        value = "" if one["value"] is None else f": {one['value']:.3g}"
        lines.append(
            f"{verdict:<12} {one['job']}: {one['what']} at {one['sense']} {one['bound']:g}{value}"
        )
    lines.append(
        f"seconds of {results.meta['clock']} time; ~ scaled from a part; product "
        f"{results.meta['shape']['product']} square, {results.meta['threads']} thread(s)"
    )
    busy = results.meta.get("wall_over_processor")
    if busy is not None and busy > BUSY and results.meta["clock"] == "processor":
        lines.append(f"the machine was busy: {busy:.2f} s passed for each second of computing")
    return "\n".join(lines)


def _number(value: float | None, mark: str = "") -> str:
    return "" if value is None else f"{mark}{value:.3g}"
