"""What all workflows have in common."""

from __future__ import annotations

import re

import pytest
import yaml

from th_utils.build.layout import find_root

FOLDER = find_root() / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
workflows = pytest.mark.parametrize("name", WORKFLOWS)


def steps(name):
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def test_an_action_has_one_version():
    used = {step["uses"] for name in WORKFLOWS for step in steps(name) if "uses" in step}
    names = [one.partition("@")[0] for one in used]
    assert used and len(set(names)) == len(names), sorted(used)


@workflows
def test_torch_comes_from_a_variable_or_there_is_room_for_the_other(name):
    """No address of an index is written down; where none is given, the large build has to fit."""
    assert not re.search(r"index-url\S* +\"?https?:", (FOLDER / name).read_text())
    for job in WORKFLOWS[name]["jobs"].values():
        assert job["env"]["TORCH_INDEX"] == "${{ vars.TORCH_INDEX }}"
        conditions = [step.get("if") for step in job["steps"]]
        room = conditions.index("env.TORCH_INDEX == ''")
        makes = [n for n, step in enumerate(job["steps"]) if "make env" in step.get("run", "")]
        assert room < makes[0] and "::warning::" in job["steps"][room]["run"]
