"""Time the kernels: `python -m benchmarks` (or `make bench`), about a quarter of an hour.

Each file of benchmarks runs in a process of its own and leaves its times below `_build/bench`. A
run that was stopped goes on with the next file when `--resume` is given. When the last one is done,
the table is written to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from th_utils.digest import closure_of_module, digest

HERE = Path(__file__).resolve().parent
TIMED = tuple(f"th_utils.{name}" for name in ("composition", "sweeps", "edges", "attribution"))
FILES = ("bench_svd.py", "bench_composition.py", "bench_activations.py", "bench_paths.py")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks, reduce what they wrote, print the table and where it lies."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="gpt2-small", help="or tiny, to try it out")
    parser.add_argument("--whole", action="store_true", help="our path patching in full: half an "
                        "hour more")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="keep what a stopped run has timed")
    parser.add_argument("--only", help="files whose name contains this; writes no table")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="of the table")
    parser.add_argument("--work", type=Path, default=HERE.parent / "_build" / "bench", help="for "
                        "what is timed, until the table is written")  # fmt: skip
    options = parser.parse_args(arguments)
    kind = options.device.split(":")[0]
    work = options.work / f"{options.shape}-{kind}"
    # Before torch is imported here: the processes below inherit it, and so does the machine's note.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ["TQDM_DISABLE"] = "1"  # the peer's bars
    if kind != "cpu" and not _usable(options.device):
        print(f"{options.device} cannot be used here: choose cpu (make bench)", file=sys.stderr)
        return 1
    with _alone(options.work) as alone:
        if not alone:
            print("another run is under way: two would disturb each other", file=sys.stderr)
            return 1
        return _all(work, kind, options)


def _all(work: Path, kind: str, options: argparse.Namespace) -> int:
    # What is put together has to come from one code under one version of torch.
    asked = json.dumps(
        {
            "threads": options.threads,
            "whole": options.whole,
            "code": digest({file for name in TIMED for file in closure_of_module(name)}),
            "torch": version("torch"),
        }
    )
    note = work / "asked.txt"
    same = note.exists() and note.read_text() == asked
    if not options.only and not (options.resume and same):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    if not options.only:
        note.write_text(asked)
    for number, name in enumerate(FILES, 1):
        target = work / f"{Path(name).stem}.json"
        if options.only and options.only not in name:
            continue
        if options.resume and target.exists() and not options.only:
            print(f"[{number}/{len(FILES)}] {name}: done before", flush=True)
            continue
        status = _run(number, name, target, options)
        if status:
            print(f"{name} failed; what was timed before it is kept: go on with --resume")
            return status
    if options.only:
        return 0
    return _write(work, kind, options)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold a lock, which ends with the process however it ends; False where another has it."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is locked
        yield True
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _usable(device: str) -> bool:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


def _run(number: int, name: str, target: Path, options: argparse.Namespace) -> int:
    from benchmarks.reduction import clock

    print(f"[{number}/{len(FILES)}] {name}", flush=True)
    started = time.monotonic()
    part = target.with_suffix(".part")
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), str(HERE / name)]
    command += ["-v", "--no-header", "--benchmark-quiet", f"--benchmark-json={part}"]
    timers = {"processor": "time.process_time", "wall": "time.perf_counter"}
    timer = timers[clock(options.device, options.threads)]
    command += ["--device", options.device, "--threads", str(options.threads)]
    command += [f"--benchmark-timer={timer}"]
    command += ["--shape", options.shape, *(["--whole"] if options.whole else [])]
    environment = os.environ | {"TH_PARENT": str(os.getpid())}
    status = subprocess.run(command, cwd=HERE.parent, env=environment, check=False).returncode
    if status == 0:
        part.replace(target)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return status


def _write(work: Path, kind: str, options: argparse.Namespace) -> int:
    from benchmarks import reduction, subject
    from th_utils.results import gather, save_table

    shape = subject.SHAPES[options.shape]
    said = reduction.machine(options.device, options.threads, shape, options.whole)
    runs = reduction.read(work / f"{Path(name).stem}.json" for name in FILES)
    results = reduction.reduce(runs, said)
    parameters = {"device": kind, "threads": options.threads, "whole": options.whole, "seed": 0}
    provenance = gather(f"{options.shape}-shape", "random", parameters, None)
    name = f"kernels-{kind}" if options.shape == "gpt2-small" else f"{options.shape}-{kind}"
    paths = save_table(results, name, provenance, options.output)
    print(reduction.text(results))
    print("\n".join(str(path) for path in paths.values()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; files that were done are kept, go on with --resume", file=sys.stderr)
        sys.exit(130)
