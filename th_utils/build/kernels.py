"""The page of timed kernels: its figure, its table and every number in it, from the results files.

Nothing is timed when the book is built. What `make bench` and `python -m benchmarks.scan_7b` wrote
to `benchmarks/results/` is shown; where a file is missing, the page says so.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from th_utils import figures
from th_utils.build import agreement, pages
from th_utils.plots import benchmarks
from th_utils.plots.benchmarks import by_job, significant, unit, where
from th_utils.results import Results, read_table

NAME = "fig-kernels"
MISSING = "No measurement is recorded yet; `make bench` makes one."
NO_GPU = (
    "No GPU could be had so far: the table of a GPU is missing. `make bench DEVICE=cuda` makes it."
)
NO_SCAN = "No scan is recorded yet; `python -m benchmarks.scan_7b` makes one."
SIDES = {"dense": "dense", "singly": "one component at a time", "own": "beside whole heads"}


def parts(root: Path, figure: dict[str, Any] | None, links: str) -> dict[str, Callable[[], str]]:
    """The generated parts of the page by name.

    Args:
        root: of the project.
        figure: what `make_figure` returned.
        links: to the figure's files, as HTML.
    """
    cpu, gpu, scan = recorded(root, "cpu"), recorded(root, "cuda"), _folder(root) / "scan-7b.json"

    def of(part: Callable[[Results], str]) -> Callable[[], str]:
        return lambda: MISSING if cpu is None else part(cpu)

    return {
        "kernels_figure": lambda: MISSING if figure is None else f"{_block(figure)}\n\n{links}",
        "kernels_table": of(table),
        "kernels_targets": of(targets),
        "kernels_parts": of(scaled),
        "kernels_faithful": of(faithful),
        "kernels_trained": lambda: agreement.trained(_folder(root) / "trained.json"),
        "kernels_machine": of(machine),
        "kernels_gpu": lambda: NO_GPU if gpu is None else on_gpu(gpu),
        "kernels_scan": lambda: large(json.loads(scan.read_text())) if scan.exists() else NO_SCAN,
    }


def _folder(root: Path) -> Path:
    return root / "benchmarks" / "results"


def recorded(root: Path, kind: str) -> Results | None:
    """The table of a device, "cpu" or "cuda", if one was measured."""
    path = _folder(root) / f"kernels-{kind}.json"
    found = read_table(path) if path.exists() else None
    return found if found is not None and len(found) else None


def make_figure(root: Path, page: Path, extra: Path) -> tuple[dict[str, Any] | None, dict]:
    """Draw the figure, if there is what to draw.

    Args:
        root: of the project.
        page: the folder of the staged page, which gets the picture.
        extra: what is copied to the top of the site, which gets the files to take away.

    Returns:
        id, caption, alt text and width of the figure; and its files by name.
    """
    found = recorded(root, "cpu")
    if found is None:
        return None, {}
    with figures.style():
        drawn = benchmarks.kernels(found)
    place = extra / "figures" / "kernels"
    saved = figures.save(drawn, place / NAME)
    page.mkdir(parents=True, exist_ok=True)
    shutil.copy(saved["png"], page / f"{NAME}.png")
    for kind in ("csv", "json"):
        if (source := _folder(root) / f"kernels-cpu.{kind}").exists():
            saved[kind] = Path(shutil.copy(source, place / f"{NAME}.{kind}"))
    width = round(drawn.get_size_inches()[0] * 100)
    record = {"id": NAME, "caption": caption(found), "alt": alt(found), "width": width}
    return record, {f"figures/kernels/{NAME}.{kind}": path for kind, path in saved.items()}


def _block(figure: dict[str, Any]) -> str:
    return (
        f"```{{figure}} {NAME}.png\n:name: {NAME}\n:width: {figure['width']}px\n"
        f":alt: {figure['alt']}\n\n{figure['caption']}\n```"
    )


def caption(found: Results) -> str:
    """What the figure shows, its message first."""
    sides = set(found.columns["side"])
    text = (
        f"**{message(found)}** {unit(found.meta).capitalize()} for the shape of GPT-2 small on "
        f"{where(found.meta)}."
    )
    if sides - {None}:
        text += " The number beside a circle says how many times as long as ours."
    if any(x is not None for x in found.columns["floor_s"]):
        text += (
            " *Floor*: what the arithmetic alone would take, or the memory alone where that takes "
            "longer."
        )
    if "dense" in sides:
        text += " *Dense*: the decomposition of the matrices themselves."
    if "singly" in sides:
        text += " Where TransformerLens has two circles, the second is one component at a time."
    return text


def message(found: Results) -> str:
    """How much longer the same jobs take elsewhere, and how near ours come to the floor."""
    c, parts = found.columns, []
    if ratios := [x for x, side in zip(c["ratio"], c["side"], strict=True) if side == "peer"]:
        parts.append(
            f"TransformerLens takes {_least_to_most(ratios)} times as long as our kernels for the "
            "same job"
        )
    if above := [x for x in c["over_floor"] if x is not None]:
        ours = "ours" if parts else "our kernels"
        parts.append(f"{ours} take {_least_to_most(above)} times as long as the floor")
    if not parts:
        parts.append(f"Our kernels take {_least_to_most(c['ours_s'])} s a job")
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _least_to_most(values: list[float]) -> str:
    ends = significant(min(values), 2), significant(max(values), 2)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def alt(found: Results) -> str:
    """The figure in words, on one line."""
    said = []
    for rows in by_job(found):
        ours, floor = _clock(rows[0]["ours_s"]), rows[0]["floor_s"]
        text = f"{rows[0]['title']}: ours {ours}"
        if rows[0]["peer_s"] is not None:
            text += f", TransformerLens {_clock(rows[0]['peer_s'])}"
        said.append(text + (f", floor {_clock(floor)}" if floor is not None else ""))
    return html.escape("; ".join(said), quote=False) + "."


def table(found: Results) -> str:
    """One line for each job and peer."""
    head = ["Job", "Ours, s", "Peer, s", "Peer / ours", "Floor, s", "Ours / floor",
            "Largest difference"]  # fmt: skip
    body = []
    for rows in by_job(found):
        for row in rows:
            name = row["title"] + (f", {SIDES[row['side']]}" if row["side"] in SIDES else "")
            body.append(
                [
                    name,
                    _mark(row["ours_scale"]) + significant(row["ours_s"]),
                    _or_none(
                        row["peer_s"],
                        lambda s, row=row: _mark(row["peer_scale"]) + significant(s),
                    ),
                    _or_none(row["ratio"], lambda x: f"**{significant(x)}**"),
                    _or_none(row["floor_s"], significant),
                    _or_none(row["over_floor"], significant),
                    _or_none(row["agreement"], _power),
                ]
            )
    return pages.table(head, body)


def scaled(found: Results) -> str:
    """What was timed on a part, who the peers are, and how often everything was timed."""
    lines = []
    for rows in by_job(found):
        one = rows[0]
        said = f"ours {_turns(one['ours_turns'])}"
        if one["ours_part"]:
            said += f", on {one['ours_part']}, times {significant(one['ours_scale'], 5)}"
        if one["ours_mb"] is not None:
            said += f", {significant(one['ours_mb'])} MB over what was there"
        for row in rows:
            if not row["side"]:
                continue
            said += f"; {row['peer']} {_turns(row['peer_turns'])}"
            if row["peer_part"]:
                said += f", on {row['peer_part']}, times {significant(row['peer_scale'], 7)}"
            if row["peer_mb"] is not None and row["side"] == "peer" and not row["peer_part"]:
                said += f", {significant(row['peer_mb'])} MB"
            if row["agreement_of"]:
                said += f" (compared: {row['agreement_of']})"
        said += "; counted: " + _count(one["operations"])
        if one["product_gflops"] is not None:
            said += (
                f", beside a product at {significant(one['product_gflops'])} GFLOP/s and a copy at "
                f"{significant(one['copy_gbs'])} GB/s"
            )
        lines.append(f"- **{one['title']}**: {said}.")
    return "\n".join(lines)


def targets(found: Results) -> str:
    """Which of the aims that were set beforehand are met, and, first, which are not."""
    titles = {row["job"]: row["title"] for rows in by_job(found) for row in rows}
    judged = [one for one in found.meta["targets"] if one["met"] is not None]
    missed = [one for one in judged if not one["met"]]
    text = (
        f"Of the {len(judged)} aims set before anything was measured, all are met."
        if not missed
        else f"**Not met: {len(missed)} of the {len(judged)} aims** set before anything was "
        "measured. Of each job:"
    )
    body = [
        [
            titles[one["job"]],
            one["what"],
            f"at {one['sense']} {_amount(one['bound'])}",
            _amount(one["value"]),
            "yes" if one["met"] else "**no**",
        ]
        for one in sorted(judged, key=lambda one: one["met"])
    ]
    if len(judged) < len(found.meta["targets"]):
        text += f" {len(found.meta['targets']) - len(judged)} more were not measured in this run."
    return f"{text}\n\n{pages.table(['Job', 'What', 'Aim', 'Measured', 'Met'], body)}"


def faithful(found: Results) -> str:
    """How far the two estimates agree with what they are often taken for."""
    titles = {row["job"]: row["title"] for rows in by_job(found) for row in rows}
    judged = found.meta["faithful"]
    if not judged:
        return "The agreement of estimates and exact sweeps was not measured in this run."
    head = ["Estimate", "Exact", "Correlation", "of ranks", "Slope", "Pairs × prompts"]
    body = [
        [
            titles[one["job"]],
            titles.get(one["exact"], one["exact"]),
            *(f"{one[key]:.3f}" for key in ("correlation", "rank_correlation", "slope")),
            f"{one['count']:,}",
        ]
        for one in judged
    ]
    return pages.table(head, body)


def machine(found: Results) -> str:
    """The machine and the versions, in a sentence or two."""
    meta, packages = found.meta, found.provenance.packages if found.provenance else {}
    memory = f", {meta['memory_gb']} GiB of memory" if meta["memory_gb"] else ""
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "transformer-lens", "numpy")
        if name in packages
    )  # fmt: skip
    text = (
        f"Measured on {where(meta)} of {meta['cpu']}, {meta['cores']} cores{memory}; Python "
        f"{meta['python']}, {versions}, {meta['blas']}. Weights and prompts are random "
        f"({meta['shape']['prompts']} prompts of {meta['shape']['positions']} tokens); the plain "
        f"product is of square matrices of {meta['shape']['product']:,} rows."
    )
    busy = meta.get("wall_over_processor")
    if busy is not None:
        text += (
            f" Times are {unit(meta)}; for each second of computing {significant(busy)} s passed, "
            "and what is above 1 other work on the machine took."
        )
    if busiest := meta.get("busiest"):
        text += (
            f" The machine was busiest during “{busiest['title']}”: "
            f"{significant(busiest['wall_over_processor'])} s."
        )
    return text


def on_gpu(found: Results) -> str:
    """The table of a GPU: time, operations and the share of the measured product's peak."""
    meta = found.meta
    body = [
        [
            rows[0]["title"],
            _mark(rows[0]["ours_scale"]) + _clock(rows[0]["ours_s"]),
            _count(rows[0]["operations"]),
            _or_none(_share(rows[0]), lambda x: f"{significant(100 * x, 2)}%"),
        ]
        for rows in by_job(found)
    ]
    head = ["Job", "Time", "Operations", "Share of the product's rate"]
    return (
        f"On {meta.get('gpu', 'a GPU')}, in fp32, for the same shape:\n\n{pages.table(head, body)}"
    )


def _share(row: dict[str, Any]) -> float | None:
    if row["product_gflops"] is None:
        return None
    return row["operations"] / row["ours_s"] / (row["product_gflops"] * 1e9)


def large(scan: dict[str, Any]) -> str:
    """What the scan of a checkpoint of 7B shape took, and what one of 70B would."""
    shape, estimate = scan["shape"], scan["estimate_70b"]
    stopped = [part for part in scan["parts"] if part["exit"]]
    text = (
        f"A checkpoint of {shape['layers']} layers, {shape['heads']} heads, $d_\\mathrm{{model}}$ "
        f"{shape['d_model']:,} and $d_\\mathrm{{head}}$ {shape['d_head']}, random weights as "
        f"sharded safetensors, was scanned from the disk, layer by layer: "
        f"{_count(scan['operations'])} in {significant(scan['wall_seconds'] / 3600)} hours "
        f"({significant(scan['cpu_seconds'] / 3600)} hours of processor time) on "
        f"{scan['threads']} thread{'s' if scan['threads'] > 1 else ''} of "
        f"{scan['machine']['cpu']}, with {significant(scan['peak_bytes'] / 2**30)} GiB of memory "
        f"at most and the {scan['top']} strongest writers of each reader kept. That is "
        f"{significant(100 * scan['share_of_product']['cpu'], 2)}% of the rate of a plain product "
        "measured before and after."
    )
    if stopped:
        text += " It was killed on the way and went on from where it was."
    large = estimate["shape"]
    text += (
        f"\n\nAt the same rate a model of 70B shape ({large['layers']} layers, {large['heads']} "
        f"heads, {large['kv_heads']} key/value heads, $d_\\mathrm{{model}}$ "
        f"{large['d_model']:,}) would take {_count(estimate['operations'])}, "
        f"{significant(estimate['cpu_hours'])} hours of processor time."
    )
    return text


def _clock(seconds: float | int) -> str:
    return f"{significant(seconds)} s"


def _mark(scale: float | int | None) -> str:
    return "~" if scale else ""


def _turns(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(operations: float | int) -> str:
    for size, name in ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if operations >= size:
            return f"{significant(operations / size)} {name}"
    return f"{significant(operations)} FLOP"


def _amount(value: float | int) -> str:
    return _power(value) if abs(value) < 1e-3 else significant(value)


def _power(value: float | int) -> str:
    """A small number as people write it.

    >>> _power(1.1e-6)
    '1.1 · 10⁻⁶'
    """
    if value == 0:
        return "0"
    digits, power = f"{value:.1e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} · 10{raised}"


def _or_none(value: Any, say: Callable[[Any], str]) -> str:
    return "" if value is None else say(value)
