"""A chapter computed twice on one machine: the same bytes, whatever the machine has besides.

Results, claims, and figures in every format, on one processor core and on two. Another machine adds
up in another order; that is imitated by keeping the libraries from this one's newer instructions,
and the numbers must then agree within the tolerance that the results files state.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy
from sameness import same

from th_utils import models
from th_utils.paths import cache_dir
from th_utils.results import TOLERANCE

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1800)]

CHAPTER = "03_components"  # roles, SVD, runs, bootstrap; claims that rest on ranks
OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
PINS = hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


def compute(folder: Path, cores: int, variables: dict[str, str] | None = None) -> Path:
    """Run the chapter in a copy of the project, with a cache of its own but for the model itself.

    Returns the folder of what was made. Nothing measured before can be taken from the cache.
    """
    root = folder / "project"
    leave = shutil.ignore_patterns("_build", ".git", ".venv", ".snakemake", "__pycache__")
    shutil.copytree(toy.ROOT, root, ignore=leave)
    cache = folder / "cache"
    cache.mkdir()
    (cache / "models").symlink_to(cache_dir() / "models")
    environment = toy.environment(root) | {"TALKING_HEADS_CACHE": str(cache)} | (variables or {})
    allowed = sorted(os.sched_getaffinity(0))[:cores] if PINS else None
    done = subprocess.run(
        [sys.executable, "-m", "th_utils.build.run", CHAPTER],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        preexec_fn=(lambda: os.sched_setaffinity(0, allowed)) if PINS else None,
    )
    assert done.returncode == 0, done.stderr
    return root / "_build" / "quick"


def files(folder: Path) -> dict[str, Path]:
    """The results and figures below a folder, by their path."""
    found = [*folder.glob("results/*/*"), *folder.glob("figures/*/*")]
    return {path.relative_to(folder).as_posix(): path for path in found}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    models.prepare(models.DEFAULT)
    return compute(tmp_path_factory.mktemp("once"), cores=1)


def test_again_on_two_cores_gives_the_same_bytes(once, tmp_path):
    again = compute(tmp_path, cores=2)
    made, remade = files(once), files(again)
    kinds = {Path(name).suffix for name in made}
    assert kinds == {".json", ".csv", ".svg", ".pdf", ".png"}
    assert set(made) == set(remade)
    other = [name for name in made if made[name].read_bytes() != remade[name].read_bytes()]
    assert other == []


def test_another_machine_agrees_within_the_tolerance(once, tmp_path):
    other = compute(tmp_path, cores=2, variables=OLDER)
    made, remade = files(once), files(other)
    assert set(made) == set(remade)
    tables = [name for name in made if name.endswith(".json")]
    assert any(made[name].read_bytes() != remade[name].read_bytes() for name in tables), (
        "nothing differed: the other instructions were not used, and nothing was tested"
    )
    for name in tables:
        said, found = (json.loads(path[name].read_text()) for path in (made, remade))
        assert said["tolerance"] == TOLERANCE
        if "claims" not in said:
            for part in ("columns", "rows", "meta"):
                same(found[part], said[part], f"{name}, {part}")
            continue
        for claim, one in zip(said["claims"], found["claims"], strict=True):
            numbers = [claim[key] for key in ("value", "low", "high") if claim[key] is not None]
            others = [one[key] for key in ("value", "low", "high") if one[key] is not None]
            assert others == pytest.approx(numbers, rel=0, abs=TOLERANCE["claims"]), claim["id"]
