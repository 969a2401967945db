"""The channel scan of a checkpoint of 7B shape, timed: `python -m benchmarks.scan_7b --help`.

Random weights are written as a sharded safetensors checkpoint with Llama's names: the attention
matrices and the norms in front of them, which is all that a scan reads, in bf16, 4.3 GB. The scan
runs in a process of its own. A plain product of the same size, measured before and after it, says
how fast the machine multiplies; the operations of the scan are counted, and those of a 70B model
at the same rate say what that would cost.

Times of matrix products do not depend on the numbers in them, so random weights will do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from th_utils import __version__
from th_utils.paths import atomic_write
from th_utils.scan import operations
from th_utils.scan_store import load

SHAPE_7B = {"layers": 32, "heads": 32, "kv_heads": 32, "d_model": 4096, "d_head": 128}
SHAPE_70B = {"layers": 80, "heads": 64, "kv_heads": 8, "d_model": 8192, "d_head": 128}
NOTE = (
    "Rates by CPU time are what the kernels do; wall time includes waiting for whatever else the "
    "machine did. A part that ended with -9 was killed on purpose, and the next one continued it."
)
RESULT = Path(__file__).parent / "results" / "scan-7b.json"


def write_checkpoint(
    folder: Path,
    *,
    layers: int,
    heads: int,
    kv_heads: int,
    d_model: int,
    d_head: int,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write random attention weights with Llama's names, one layer to a shard; return `folder`.

    Never more than one layer is in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "self_attn.q_proj": (heads * d_head, d_model),
        "self_attn.k_proj": (kv_heads * d_head, d_model),
        "self_attn.v_proj": (kv_heads * d_head, d_model),
        "self_attn.o_proj": (d_model, heads * d_head),
    }
    where: dict[str, str] = {}
    for layer in range(layers):
        shard = {
            f"model.layers.{layer}.{name}.weight": (
                0.02 * torch.randn(size, generator=generator)
            ).to(dtype)
            for name, size in sizes.items()
        }
        gain = 1 + 0.2 * torch.randn(d_model, generator=generator)
        shard[f"model.layers.{layer}.input_layernorm.weight"] = gain.to(dtype)
        name = f"model-{layer + 1:05}-of-{layers:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, name))
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    config = {
        "model_type": "llama",
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d_head,
        "rope_theta": 10000.0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def product_rate(width: int, d_model: int, rounds: int = 5) -> list[dict[str, float]]:
    """Operations a second of plain fp32 products of the scan's size, by wall and by CPU time."""
    left, right = torch.randn(width, d_model), torch.randn(d_model, width)
    left @ right  # the first product also makes ready what later ones find
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        left @ right
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        count = 2 * width * width * d_model
        found.append({"wall": count / wall, "cpu": count / cpu})
    return found


def run_scan(checkpoint: Path, out: Path, k: int, kill_after: float | None) -> dict[str, Any]:
    """Run the command in a process of its own; time, CPU time and peak memory of that process.

    The peak is at least that of this process when it starts the other; see getrusage(2).
    """
    command = [sys.executable, "-m", "th_utils.scan", str(checkpoint), "--out", str(out)]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--top", str(k)]) as process:
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "wall_seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "exit": process.returncode,
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on, and nothing that names a machine."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        (model, *_) = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)
    except (OSError, ValueError):
        model = "unknown"
    return {"cpu": model, "cores": os.cpu_count(), "memory_bytes": _memory()}


def _memory() -> int | None:
    """Bytes of memory in this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def summary(
    shape: dict[str, int], k: int, parts: list[dict[str, Any]], rates: list[dict[str, float]]
) -> dict[str, Any]:
    """The figures to report, from what was measured."""
    total = operations(shape)
    wall = sum(part["wall_seconds"] for part in parts)
    cpu = sum(part["cpu_seconds"] for part in parts)
    product = {by: statistics.median(rate[by] for rate in rates) for by in ("wall", "cpu")}
    large = operations(SHAPE_70B)
    return {
        "shape": shape,
        "top": k,
        "machine": machine(),
        "versions": {
            "th_utils": __version__,
            "torch": torch.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "threads": torch.get_num_threads(),
        "note": NOTE,
        "parts": parts,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "peak_bytes": max(part["peak_bytes"] for part in parts),
        "operations": total,
        "operations_per_second": {"wall": total / wall, "cpu": total / cpu},
        "product_operations_per_second": {"median": product, "all": rates},
        "share_of_product": {
            "wall": total / wall / product["wall"],
            "cpu": total / cpu / product["cpu"],
        },
        "estimate_70b": {
            "shape": SHAPE_70B,
            "operations": large,
            "cpu_hours": large / (total / cpu) / 3600,
            "assumes": "the same rate by CPU time, on as many threads as here",
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_7b", description=__doc__)
    add = parser.add_argument
    add("--layers", type=int, default=SHAPE_7B["layers"], help="fewer, to try it (default 32)")
    add("--top", type=int, default=50)
    add("--folder", type=Path, help="for weights and scan, 7 GB; kept (default: a temporary one)")
    add("--kill-after", type=float, metavar="S", help="kill the scan after S seconds, then resume")
    add("--out", type=Path, default=RESULT, help="the JSON file to write")
    options = parser.parse_args(arguments)
    shape = {**SHAPE_7B, "layers": options.layers}
    width = shape["heads"] * shape["d_head"]
    with tempfile.TemporaryDirectory(prefix="scan-7b-") as temporary:
        folder = options.folder or Path(temporary)
        checkpoint = folder / f"checkpoint-{options.layers}"
        if not (checkpoint / "config.json").exists():
            write_checkpoint(checkpoint, **shape)
        rates = product_rate(width, shape["d_model"])
        ends = [options.kill_after, None] if options.kill_after else [None]
        out = folder / f"scan-{options.layers}"
        parts = [run_scan(checkpoint, out, options.top, end) for end in ends]
        if parts[-1]["exit"]:
            return 1
        rates += product_rate(width, shape["d_model"])
        found = load(out)
    if not torch.isfinite(found.score[:, 1:]).all():
        raise AssertionError("scores are missing from the result")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary(shape, options.top, parts, rates), indent=1, sort_keys=True)
    atomic_write(options.out, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
