"""One list of versions: pyproject, lock and conda environment agree, and so does what is here."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from th_utils.build.layout import find_root

ROOT = find_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_LINES = (ROOT / "requirements.lock").read_text().splitlines()
LOCKED = {
    canonicalize_name(line.split("==")[0]): Version(line.split("==")[1])
    for line in LOCK_LINES
    if line and not line.startswith("#")
}
INSTALLERS = {"pip", "setuptools", "wheel"}  # what `pip freeze` leaves out
UNSAID = {"editables"}  # hatchling asks for it only while it installs this checkout
WANTED = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]


def test_the_lock_has_exact_public_versions_only():
    for line in LOCK_LINES:
        # A local version such as +cpu, or an address, could be installed nowhere else.
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9.]+", line), line


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_the_lock_satisfies_pyproject(wanted):
    locked = LOCKED.get(canonicalize_name(wanted.name))
    assert locked is not None, f"{wanted.name} is not in requirements.lock"
    assert wanted.specifier.contains(locked, prereleases=True)


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_requirement_has_an_upper_bound(wanted):
    if wanted.name == "packaging":
        return  # versions by the calendar: a major says nothing
    assert any(part.operator in ("<", "==") for part in wanted.specifier)


def needed_by(name: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What an installed package needs here, with the extras that it asks for."""
    found = set()
    for requirement in map(Requirement, metadata.requires(name) or []):
        environments = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            found.add((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def test_the_lock_has_all_that_is_needed_and_nothing_else():
    waiting = {(canonicalize_name(r.name), frozenset(r.extras)) for r in WANTED}
    reached = set()
    while waiting:
        one = waiting.pop()
        reached.add(one)
        waiting |= needed_by(*one) - reached
    names = {name for name, _ in reached} - INSTALLERS
    missing, idle = names - set(LOCKED), set(LOCKED) - names - UNSAID
    assert not missing, f"needed and not in requirements.lock: {sorted(missing)}"
    assert not idle, f"in requirements.lock and needed by nothing: {sorted(idle)}"


def test_conda_points_at_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = [item for item in environment["dependencies"] if str(item).startswith("python=")]
    assert (
        Version(python[0].split("=")[1]) in Requirement(f"x{PROJECT['requires-python']}").specifier
    )
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_the_environment_is_the_locked_one():
    """Differences would make results differ from those of other readers."""
    different = {}
    for wanted in WANTED:
        name = canonicalize_name(wanted.name)
        here = Version(metadata.version(name)).public
        if here != str(LOCKED[name]):
            different[name] = f"{here} here, {LOCKED[name]} locked"
    assert not different
