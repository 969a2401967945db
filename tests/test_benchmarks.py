"""The benchmarks: counts, reduction and page on fixed numbers. Nothing is timed here."""

from __future__ import annotations

import doctest
import importlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import texts
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import agreement, floors, memory, reduction, subject
from th_utils import composition, edges, figures, sweeps
from th_utils.build import kernels
from th_utils.build.layout import find_root
from th_utils.plots import benchmarks as plots
from th_utils.results import Results, gather, read_table, save_table
from th_utils.svd import ov_svd

ROOT = find_root()

SMALL = subject.SHAPES["gpt2-small"]
MACHINE = {
    "cpu": "Some Processor (AVX2)",
    "cores": 2,
    "memory_gb": 24,
    "python": "3.11.4",
    "blas": "MKL 2024.2",
    "threads": 1,
    "device": "cpu",
    "clock": "processor",
    "shape": vars(SMALL) | {"product": 4480},
    "whole": False,
}


def turn(job: str, side: str, seconds: float, **info: Any) -> dict[str, Any]:
    """One entry of pytest-benchmark's file, as far as it is read."""
    return {
        "extra_info": {"job": job, "side": side, "processor": seconds, "wall": seconds, **info},
        "stats": {"median": seconds},
    }


def runs() -> list[dict[str, Any]]:
    """What a run leaves, with made-up times of the right size."""
    counts = {
        "svd": (floors.svd(SMALL), floors.svd_bytes(SMALL)),
        "composition": (floors.composition(SMALL), floors.composition_bytes(SMALL)),
        "components": (floors.composition(SMALL), floors.component_bytes(SMALL)),
        "activation": (floors.activation_patching(SMALL), 1),
        **{f"path-{k.lower()}": (floors.path_patching(SMALL, k), 1) for k in "QKV"},
        "direct": (floors.direct_effects(SMALL), 1),
        "attribution": (floors.attribution(SMALL), 1),
    }
    times = {
        "svd": [0.23, 0.21, 0.22], "composition": [2.3], "components": [2.2], "activation": [133.7],
        "path-q": [58.9], "path-k": [60.1], "path-v": [57.2], "direct": [0.61],
        "attribution": [1.52],
    }  # fmt: skip
    part = {"part": "{count} of 132 readers", "count": 11, "scale": 12}
    found = []
    for job, seconds in times.items():
        operations, size = counts[job]
        said = {"operations": operations, "bytes": size, **(part if job[:4] == "path" else {})}
        if job == "direct":
            said["faithful_to"] = "path"
            agree = {"correlation": 0.71, "rank_correlation": 0.68, "slope": 0.93, "count": 6336}
            said |= {f"faithful_{kind}": agree for kind in "QKV"}
        if job == "attribution":
            agree = {"correlation": 0.98, "rank_correlation": 0.97, "slope": 1.02, "count": 17000}
            said |= {"faithful_to": "activation", "faithful": agree}
        found += [turn(job, "ours", s, memory=113_000_000, **said) for s in seconds]
        found += [turn(job, "product", 1.93, operations=2 * 4480**3)] * 2
        found += [turn(job, "copy", 0.0215, bytes=2**29)] * 2
    found += [
        turn("svd", "peer", 0.48, label="`FactoredMatrix.svd`", agreement=1e-6,
             agreement_of="singular values"),
        turn("svd", "dense", 13.9, label="`torch.linalg.svd`", agreement=2e-6,
             agreement_of="singular values"),
        turn("composition", "peer", 41.6, label="`all_composition_scores`", memory=8_700_000_000,
             agreement=6e-8, agreement_of="scores, absolute"),
        turn("components", "own", 2.21, label="our scores of whole heads"),
        turn("components", "peer", 0.66, label="`composition_scores`, one pair of heads at a time",
             part="{count} of 28,512 pairs at random", count=100, scale=285.12, agreement=6e-8,
             agreement_of="scores, absolute"),
        turn("components", "singly", 0.46, label="`composition_scores`, one component at a time",
             part="{count} of 1,824,768 pairs at random", count=100, scale=18247.68, agreement=6e-8,
             agreement_of="scores, absolute"),
        turn("activation", "peer", 12.3, label="`get_act_patch_attn_head_out_by_pos`",
             part="{count} of 2,304 patches at random", count=24, scale=96, agreement=1.1e-6,
             agreement_of="logit difference of each prompt, absolute"),
    ]  # fmt: skip
    for kind in "qkv":
        found.append(
            turn(f"path-{kind}", "peer", 12.3, label="`get_act_patch_direct_path`",
                 part="{count} of 9,504 pairs", count=24, scale=396.0, agreement=8e-7,
                 agreement_of="mean logit difference, absolute")
        )  # fmt: skip
    return [{"benchmarks": found[::2]}, {"benchmarks": found[1::2]}]


@pytest.fixture(scope="module")
def table() -> Results:
    return reduction.reduce(runs(), MACHINE)


def cell(found: Results, job: str, side: str | None, name: str) -> Any:
    at = list(zip(found.columns["job"], found.columns["side"], strict=True)).index((job, side))
    return found.columns[name][at]


# --- the counts of operations -----------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> subject.Subject:
    """Heads as wide together as the model, as in GPT-2, and a few layers."""
    shape = floors.Shape(4, 6, 48, 8, 192, 101, prompts=2, positions=6)
    return subject.make(shape)


def counted(function) -> int:
    """Operations of matrix products; those of attention and of LAPACK are not counted."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


def test_products_of_the_decomposition(small):
    shape = small.shape
    lapack = 2 * floors.thin_qr(shape.d_model, shape.d_head) + floors.small_svd(shape.d_head)
    products = floors.svd(shape) - shape.layers * shape.heads * lapack
    assert counted(lambda: ov_svd(small.weights)) == pytest.approx(products)


def test_products_of_the_composition_scores(small):
    shape = small.shape
    # Four reductions of a matrix of each head to its core, which the floor leaves out.
    reductions = 4 * shape.layers * shape.heads * 2 * shape.d_model * shape.d_head**2
    found = counted(lambda: composition.composition_scores(small.weights))
    assert found == floors.composition(shape) + reductions
    real = subject.SHAPES["gpt2-small"]
    left_out = 4 * real.layers * real.heads * 2 * real.d_model * real.d_head**2
    assert left_out < 0.03 * floors.composition(real)


def test_operations_of_the_sweeps(small):
    """Attention, a hundredth of it, is in the floor and not in what is counted."""
    readout = small.engine.logit_difference(small.right, small.wrong)
    run = (small.engine, *small.traces, readout)
    found = counted(lambda: sweeps.activation_patching(*run))
    assert found == pytest.approx(floors.activation_patching(small.shape), rel=0.05)
    for kind in "QKV":
        found = counted(lambda kind=kind: sweeps.path_patching(*run, kind))
        assert found == pytest.approx(floors.path_patching(small.shape, kind), rel=0.05)


def test_operations_of_a_forward_pass(small):
    found = counted(lambda: small.engine.trace(small.base))
    assert found == pytest.approx(floors.forward(small.shape), rel=0.05)


def test_operations_of_direct_effects(small):
    run = (small.engine, *small.traces, small.right, small.wrong)
    found = counted(lambda: edges.direct_effects(*run))
    assert found == pytest.approx(floors.direct_effects(small.shape), rel=0.15)


def test_counts_of_pairs():
    layers, heads = SMALL.layers, SMALL.heads
    pairs = [(a, b) for a, b in itertools.product(range(layers), repeat=2) if a < b]
    assert SMALL.head_pairs == len(pairs) * heads**2
    assert floors.causal(SMALL, 0) == sum(at + 1 for at in range(SMALL.positions))
    last = SMALL.positions - 1
    assert floors.causal(SMALL, last) == SMALL.positions


@pytest.mark.parametrize("name", ["floors", "agreement"])
def test_examples_run(name):
    failed, tried = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert tried and not failed


# --- what is measured ---------------------------------------------------------------------------


def test_without_transformer_lens_the_kernels_run_on_plain_tensors(monkeypatch):
    def absent(*_):
        raise ImportError("no transformer_lens")

    monkeypatch.setattr(subject, "_bridge", absent)
    plain = subject.make(subject.SHAPES["tiny"])
    assert plain.bridge is None and not bool((plain.base == plain.source).any())
    shape = plain.shape
    expected = (shape.layers, shape.heads, shape.d_model, shape.d_head)
    assert tuple(ov_svd(plain.weights).V.shape) == expected
    readout = plain.engine.logit_difference(plain.right, plain.wrong)
    found = sweeps.activation_patching(plain.engine, *plain.traces, readout)
    assert tuple(found.shape) == (shape.layers, shape.positions, shape.heads, shape.prompts)


def test_extra_memory_is_what_was_taken_at_the_highest_point():
    result, taken = memory.extra(lambda: torch.ones(2**24).sum())  # 64 MB, gone at the end
    assert result == 2**24
    assert taken is None or 60e6 < taken < 90e6


def test_agreement_of_an_estimate():
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(500, generator=generator)
    estimate = 0.5 * exact.clone()
    estimate[3] = math.nan
    said = agreement.compare(exact, estimate)
    assert said["count"] == 499 and said["slope"] == pytest.approx(0.5)
    assert said["correlation"] == pytest.approx(1) == said["rank_correlation"]
    cubed = agreement.compare(exact, exact**3)
    assert cubed["rank_correlation"] == pytest.approx(1) and cubed["correlation"] < 0.95


# --- reduction ----------------------------------------------------------------------------------


def test_turns_become_medians_and_parts_are_scaled(table):
    assert cell(table, "svd", "peer", "ours_s") == 0.22
    assert cell(table, "path-q", "peer", "ours_s") == pytest.approx(12 * 58.9)
    assert cell(table, "path-q", "peer", "peer_s") == pytest.approx(396 * 12.3)
    ratio = 396 * 12.3 / (12 * 58.9)
    assert cell(table, "path-q", "peer", "ratio") == pytest.approx(ratio)
    assert list(table.columns["side"][:2]) == ["peer", "dense"]


def test_parts_of_different_sizes_are_put_together():
    sides = [
        turn("path-q", "ours", 60.0, operations=1.0, bytes=1, scale=12, part="{count}", count=11),
        turn("path-q", "peer", 20.0, scale=10.0, part="{count} of 100 pairs", count=10),
        turn("path-q", "peer", 70.0, scale=2.5, part="{count} of 100 pairs", count=40),
    ]
    found = reduction.reduce([{"benchmarks": sides}], MACHINE)
    assert cell(found, "path-q", "peer", "peer_s") == pytest.approx(180)
    assert cell(found, "path-q", "peer", "peer_scale") == pytest.approx(2)
    assert cell(found, "path-q", "peer", "peer_part") == "10 + 40 of 100 pairs"


def test_the_floor_comes_from_the_product_beside_the_job(table):
    rate = 2 * 4480**3 / 1.93
    expected = floors.composition(SMALL) / rate
    assert cell(table, "composition", "peer", "floor_s") == pytest.approx(expected)
    assert cell(table, "composition", "peer", "floor_by") == "operations"
    found = reduction.reduce(
        [{"benchmarks": [
            turn("svd", "ours", 2.0, operations=1e9, bytes=5e9),
            turn("svd", "product", 1.0, operations=1e9),
            turn("svd", "copy", 1.0, bytes=1e9),
        ]}], MACHINE,
    )  # fmt: skip
    assert cell(found, "svd", None, "floor_s") == 5 and found.columns["floor_by"] == ["bytes"]


def test_aims_are_judged_by_what_was_measured(table):
    assert all(one["met"] for one in table.meta["targets"])
    slow = [{"benchmarks": [e for run in runs() for e in run["benchmarks"]]}]
    for entry in slow[0]["benchmarks"]:
        if entry["extra_info"]["side"] == "ours" and entry["extra_info"]["job"] == "svd":
            entry["stats"]["median"] = 0.4
    slow[0]["benchmarks"] = [e for e in slow[0]["benchmarks"] if e["extra_info"]["job"] != "direct"]
    found = {
        (x["job"], x["what"]): x["met"] for x in reduction.reduce(slow, MACHINE).meta["targets"]
    }
    assert found["svd", "peer over ours"] is False and found["svd", "dense over ours"] is False
    assert found["direct", "seconds"] is None
    assert found["components", "ours over whole heads"] is True


def test_a_busy_machine_is_named():
    busy = runs()
    for run in busy:
        for entry in run["benchmarks"]:
            entry["extra_info"]["wall"] = entry["stats"]["median"] * 1.5
    assert "the machine was busy: 1.50 s" in reduction.text(reduction.reduce(busy, MACHINE))
    assert "busy" not in reduction.text(reduction.reduce(runs(), MACHINE))


def test_the_job_that_was_disturbed_most_is_named_though_the_others_were_not():
    one = runs()
    for run in one:
        for entry in run["benchmarks"]:
            if entry["extra_info"]["job"] == "svd":
                entry["extra_info"]["wall"] = entry["stats"]["median"] * 3
    found = reduction.reduce(one, MACHINE)
    assert found.meta["wall_over_processor"] == pytest.approx(1)
    assert "busiest during “SVD of all OV matrices”: 3 s" in kernels.machine(found)


def test_files_that_are_not_whole_are_passed_over(tmp_path):
    whole, part = tmp_path / "a.json", tmp_path / "b.json"
    whole.write_text(json.dumps(runs()[0]))
    part.write_text("{")
    assert reduction.read([whole, part, tmp_path / "absent.json"]) == [runs()[0]]


def test_the_machine_is_described_without_names_and_paths():
    import getpass
    import platform

    said = json.dumps(reduction.machine("cpu", 1, SMALL, whole=False))
    assert platform.node() not in said and "/" not in said.replace("W/", "")
    assert f'"{getpass.getuser()}"' not in said


# --- the command ------------------------------------------------------------------------------


def test_a_stopped_run_goes_on(tmp_path, monkeypatch, capsys):
    """Files that are done are not run again; the table is written when all are."""
    ran = []

    def run(number, name, target, options):
        ran.append(name)
        if name == command.FILES[1] and not (tmp_path / "mended").exists():
            return 2
        at = command.FILES.index(name)
        target.write_text(json.dumps(runs()[at] if at < 2 else {"benchmarks": []}))
        return 0

    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(command.os, "environ", dict(command.os.environ))
    asked = ["--shape", "tiny", "--output", str(tmp_path / "out"), "--work", str(tmp_path)]
    assert command.main(asked) == 2 and ran == list(command.FILES[:2])
    assert not (tmp_path / "out").exists()
    (tmp_path / "mended").touch()
    ran.clear()
    assert command.main([*asked, "--resume"]) == 0 and ran == list(command.FILES[1:])
    found = read_table(tmp_path / "out" / "tiny-cpu.json")
    assert found.meta["threads"] == 1 and "peer over ours at least 2" in capsys.readouterr().out
    assert found.provenance.checksum == "random"
    ran.clear()
    assert command.main([*asked, "--resume", "--whole"]) == 0, "asked for something else"
    assert ran == list(command.FILES)


def test_two_runs_do_not_disturb_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.os, "environ", dict(command.os.environ))
    with command._alone(tmp_path) as alone:
        assert alone
        assert command.main(["--shape", "tiny", "--work", str(tmp_path)]) == 1
    assert "another run is under way" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.os, "environ", dict(command.os.environ))
    kept = tmp_path / "tiny-cuda" / "bench_svd.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    assert command.main(["--device", "cuda", "--shape", "tiny", "--work", str(tmp_path)]) == 1
    assert "cuda cannot be used here" in capsys.readouterr().err and kept.exists()


@pytest.mark.slow
def test_every_benchmark_runs_on_a_tiny_model(tmp_path):
    """Ours and TransformerLens' numbers agree wherever both are computed."""
    target = tmp_path / "run.json"
    # pytest-benchmark times nothing where it takes itself for a worker of pytest-xdist
    kept = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "benchmarks/pytest.ini", "benchmarks", "-q",
         "--shape", "tiny", "--turns", "1", f"--benchmark-json={target}", "--benchmark-quiet"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=kept,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert "skipped" not in run.stdout
    found = reduction.reduce(reduction.read([target]), MACHINE)
    assert set(found.columns["job"]) == set(reduction.TITLES)
    compared = [x for x in found.columns["agreement"] if x is not None]
    assert len(compared) >= 8 and max(compared) < 2e-5
    assert {one["exact"] for one in found.meta["faithful"]} == {
        "activation", "path-q", "path-k", "path-v"
    }  # fmt: skip
    assert all(seconds > 0 for seconds in found.columns["ours_s"])


# --- the figure ---------------------------------------------------------------------------------


def read_back(found: Results, folder: Path) -> Results:
    paths = save_table(found, "kernels-cpu", gather("gpt2-small-shape", "random", {}, None), folder)
    return read_table(paths["json"])


@pytest.mark.mpl_image_compare(
    filename="plot-kernels.png", baseline_dir="baseline", style=figures.STYLE, tolerance=2,
    savefig_kwargs={"dpi": 60},
)  # fmt: skip
def test_kernels_picture(table):
    return plots.kernels(table)


def test_texts_of_the_figure_are_readable_and_apart(table):
    with figures.style():
        figure = plots.kernels(table)
        found = texts(figure)
    assert figure.get_size_inches()[0] == figures.SINGLE
    page = figure.bbox
    for text, box in found:
        assert text.get_fontsize() >= 8
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
    for (one, a), (other, b) in itertools.combinations(found, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert not (wide > 1 and high > 3), f"{one.get_text()!r} lies on {other.get_text()!r}"


def test_what_was_scaled_is_open(table):
    with figures.style():
        axes = plots.kernels(table).axes[0]
    drawn = {
        round(float(line.get_xdata()[0]), 3): line.get_markerfacecolor() != "white"
        for line in axes.lines if line.get_marker() == "o"
    }  # fmt: skip
    assert drawn[0.22] and drawn[13.9] and drawn[41.6] and drawn[133.7]
    assert not drawn[round(12 * 58.9, 3)] and not drawn[round(96 * 12.3, 3)]


def test_a_figure_of_one_job_without_a_peer():
    only = [turn("direct", "ours", 0.6, operations=1e9, bytes=1)]
    with figures.style():
        plots.kernels(reduction.reduce([{"benchmarks": only}], MACHINE)).draw_without_rendering()


# --- the page -----------------------------------------------------------------------------------

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def numbers(value: Any) -> list[float]:
    """All numbers in a file, those in its texts among them."""
    if isinstance(value, dict):
        return [x for item in value.values() for x in numbers(item)]
    if isinstance(value, list):
        return [x for item in value for x in numbers(item)]
    if isinstance(value, str):
        return [float(x.replace(",", "")) for x in NUMBER.findall(value)]
    return [] if value is None or isinstance(value, bool) else [float(value)]


def stated(text: str) -> list[float]:
    """All numbers that a page states; powers of ten as their value."""
    text = re.sub(r"`[^`]*`|src=\S+|href=\S+|fig-\S+|:width: \S+", "", text)
    powers = re.findall(r"([\d.]+) · 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    found = [float(f"{digits}e{power.translate(RAISED)}") for digits, power in powers]
    text = re.sub(r"[\d.]+ · 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", "", text)
    return found + [float(x.replace(",", "")) for x in NUMBER.findall(text)]


def same(one: float, other: float) -> bool:
    """Whether `one` is `other` with as few digits as a page has, or in units of thousands."""
    return any(
        math.isclose(one, float(f"{other * unit:.{digits}g}"), rel_tol=1e-9)
        for digits in (2, 3, 4, 5, 7)
        for unit in (1, 1e-6, 1e-9, 1e-12, 100, 1 / 3600, 2**-30)
    ) or math.isclose(one, round(other, 3), rel_tol=1e-9)


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with the results of one run."""
    read_back(reduction.reduce(runs(), MACHINE), tmp_path / "benchmarks" / "results")
    return tmp_path


def page(root: Path) -> dict[str, str]:
    """Every generated part of the page."""
    figure, files = kernels.make_figure(root, root / "page", root / "extra")
    made = kernels.parts(root, figure, " ".join(files))
    return {name: part() for name, part in made.items()}


def test_every_number_of_the_page_is_in_the_file(project):
    made = page(project)
    folder = project / "benchmarks" / "results"
    known = numbers(json.loads((folder / "kernels-cpu.json").read_text()))
    known += [float(len([one for one in read_table(folder / "kernels-cpu.json").meta["targets"]]))]
    for name in ("figure", "table", "targets", "parts", "faithful", "machine"):
        for number in stated(made[f"kernels_{name}"]):
            assert any(same(number, other) for other in known), (name, number)


def test_the_page_says_what_was_scaled_and_what_was_missed(project):
    made = page(project)
    assert (
        "| activation patching, head × position | 134 | ~1,180 | **8.83** |"
        in (made["kernels_table"])
    )
    assert "on 24 of 2,304 patches at random, times 96" in made["kernels_parts"]
    assert "all are met" in made["kernels_targets"]
    slow = runs()
    for entry in (entry for run in slow for entry in run["benchmarks"]):
        if entry["extra_info"]["job"] == "direct" and entry["extra_info"]["side"] == "ours":
            entry["stats"]["median"] = 4.5
    read_back(reduction.reduce(slow, MACHINE), project / "benchmarks" / "results")
    made = page(project)
    assert "**Not met: 1 of the" in made["kernels_targets"]
    first = made["kernels_targets"].splitlines()[4]
    assert first == "| direct effects, Q, K and V | seconds | at most 3 | 4.5 | **no** |"


def test_the_files_of_the_figure_are_there_to_take(project):
    figure, files = kernels.make_figure(project, project / "page", project / "extra")
    assert (project / "page" / "fig-kernels.png").exists()
    assert {Path(name).suffix for name in files} == {".svg", ".pdf", ".png", ".csv", ".json"}
    for name, path in files.items():
        assert path == project / "extra" / name and path.exists()
    assert "\n" not in figure["alt"] and "\n" not in figure["caption"]


def test_the_caption_begins_with_what_was_found(table):
    said = kernels.message(table)
    (first, second) = said.removesuffix(".").split(", and ")
    ratios = [x for x, side in zip(*(table.columns[n] for n in ("ratio", "side")), strict=True)
              if side == "peer"]  # fmt: skip
    least, most = (plots.significant(end(ratios), 2) for end in (min, max))
    assert first == (
        f"TransformerLens takes {least} to {most} times as long as our kernels for the same job"
    )
    assert re.fullmatch(r"ours take [\d.]+ to [\d.]+ times as long as the floor", second)
    assert kernels.caption(table).startswith(f"**{said}** Seconds of processor time for")


def test_the_message_without_peers_and_without_a_floor():
    only = [turn("direct", "ours", 0.6, operations=1e9, bytes=1)]
    rates = [turn("direct", "product", 1.0, operations=5e9), turn("direct", "copy", 1.0, bytes=9)]
    alone = reduction.reduce([{"benchmarks": only}], MACHINE)
    beside = reduction.reduce([{"benchmarks": [*only, *rates]}], MACHINE)
    assert kernels.message(alone) == "Our kernels take 0.6 s a job."
    assert kernels.message(beside) == "Our kernels take 3 times as long as the floor."
    assert "floor" not in kernels.caption(alone).lower()
    assert "circle" not in kernels.caption(alone) and "*Floor*" in kernels.caption(beside)


def test_without_results_the_page_says_so(tmp_path):
    made = page(tmp_path)
    assert made["kernels_figure"] == made["kernels_table"] == kernels.MISSING
    assert "is missing" in made["kernels_gpu"] and "No scan" in made["kernels_scan"]


def test_the_table_of_a_gpu(project):
    assert page(project)["kernels_gpu"] == kernels.NO_GPU
    gpu = [
        turn("composition", "ours", 0.01, operations=floors.composition(SMALL), bytes=1),
        turn("composition", "product", 0.005, operations=2 * 4480**3),
        turn("composition", "copy", 0.005, bytes=2**29),
    ]
    said = MACHINE | {"device": "cuda", "clock": "wall", "gpu": "Some Accelerator"}
    found = reduction.reduce([{"benchmarks": gpu}], said)
    provenance = gather("gpt2-small-shape", "random", {}, None)
    save_table(found, "kernels-cuda", provenance, project / "benchmarks" / "results")
    text = page(project)["kernels_gpu"]
    assert "Some Accelerator" in text and "| 0.01 s | 179 GFLOP | 50% |" in text


def test_the_scan_of_a_large_checkpoint(project):
    from benchmarks.scan_7b import SHAPE_7B, summary

    parts = [
        {"wall_seconds": 900.0, "cpu_seconds": 850.0, "peak_bytes": 3 * 2**30, "exit": -9},
        {"wall_seconds": 1800.0, "cpu_seconds": 1700.0, "peak_bytes": 2 * 2**30, "exit": 0},
    ]
    scan = summary(SHAPE_7B, 50, parts, [{"wall": 1e11, "cpu": 1e11}] * 3)
    scan["machine"]["cpu"] = "Some Processor"
    (project / "benchmarks" / "results" / "scan-7b.json").write_text(json.dumps(scan))
    text = page(project)["kernels_scan"]
    assert "0.75 hours" in text and "3 GiB" in text and "went on from where it was" in text
    assert "70B" in text
    known = [*numbers(scan), 70.0]
    for number in stated(text):
        assert any(same(number, other) for other in known), number


def test_the_page_has_a_place_for_every_part():
    text = (ROOT / "book" / "kernels.md").read_text(encoding="utf-8")
    placed = set(re.findall(r"<!-- generated: (\w+) -->", text))
    assert placed == set(kernels.parts(ROOT, None, ""))
    assert "book/kernels" in (ROOT / "_toc.yml").read_text(encoding="utf-8")
