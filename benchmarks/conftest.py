"""What the benchmarks share: the model, and a way to time one turn of one side.

The sides of a job (ours, the peer, the plain product) take turns, each turn a benchmark of its own
with a single round, so that a machine that grows slower does so for all of them.
"""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import floors, memory, subject
from th_utils.build.processes import die_with_parent

PLAIN = ("ours", "own", "dense", "product", "copy")  # sides that need no TransformerLens


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernels")
    group.addoption("--device", default="cpu", help="where the kernels run: cpu or cuda")
    group.addoption("--shape", default="gpt2-small", choices=list(subject.SHAPES))
    group.addoption("--whole", action="store_true", help="our side of path patching in full")
    group.addoption("--threads", type=int, default=1)
    group.addoption("--turns", type=int, default=100, help="of each side, at most")


def pytest_configure(config: pytest.Config) -> None:
    """A run that is killed leaves nothing behind that goes on computing."""
    if "TH_PARENT" in os.environ:
        die_with_parent(int(os.environ.pop("TH_PARENT")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("sequence")
    if marker is None:
        return
    seen: collections.Counter = collections.Counter()
    turns = []
    for side in marker.args[0].split():
        if seen[side] < metafunc.config.getoption("--turns"):
            turns.append((side, seen[side]))
        seen[side] += 1
    ids = [f"{side}-{turn + 1}" for side, turn in turns]
    metafunc.parametrize(("side", "turn"), turns, ids=ids)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    torch.set_num_threads(request.config.getoption("--threads"))
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--whole")


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, device: str) -> subject.Subject:
    made = subject.make(subject.SHAPES[request.config.getoption("--shape")], device)
    assert made.traces  # clean runs are made before anything is timed
    if made.bridge is not None:
        assert made.caches
    return made


@pytest.fixture(scope="module")
def kept() -> dict[Any, Any]:
    """Results of earlier turns, to compare with."""
    return {}


@pytest.fixture
def timed(benchmark, side: str, turn: int, model: subject.Subject, device: str) -> Callable:
    """Time one call of one side.

    The first turn also says how much memory the call takes: in a call of its own after the warm-up
    where there is one, else while it is timed. The time that passed and processor time are both
    noted: where they differ much, something else was running.
    """

    def run(function: Callable[[], Any], job: str, *, warm: bool = True, **said: Any) -> Any:
        info = benchmark.extra_info

        def call() -> Any:
            wall, processor = time.perf_counter(), time.process_time()
            result = function()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            info["processor"] = time.process_time() - processor
            info["wall"] = time.perf_counter() - wall
            return result

        def measured() -> Any:
            result, taken = memory.extra(call, device)
            if taken is not None:
                info["memory"] = taken
            return result

        if side not in PLAIN and model.bridge is None:
            pytest.skip("no TransformerLens here")
        benchmark.group = job
        info.update(said, job=job, side=side)
        with torch.no_grad():
            if warm and turn == 0:
                call()
                measured()
            timing = measured if turn == 0 and not warm else call
            return benchmark.pedantic(timing, rounds=1, iterations=1, warmup_rounds=0)

    run.info = benchmark.extra_info
    return run


@pytest.fixture
def yardstick(timed, side: str, model: subject.Subject, device: str) -> Callable[[str], bool]:
    """Time the plain product or the plain copy, if it is their turn; say whether it was."""

    def run(job: str) -> bool:
        if side == "product":
            n = floors.product_size(model.shape)
            a, b, out = (torch.rand(n, n, device=device) for _ in range(3))
            timed(lambda: torch.mm(a, b, out=out), job, operations=2 * n**3, size=n)
        elif side == "copy":
            # 256 MB in, 256 MB out: more than a cache holds.
            n = 2**26 if model.shape.d_model > 100 else 2**16
            a, out = torch.rand(n, device=device), torch.rand(n, device=device)
            timed(lambda: out.copy_(a), job, bytes=2 * n * a.element_size())
        return side in ("product", "copy")

    return run
