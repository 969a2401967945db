"""The weekly run with the newest versions does what it says, as far as can be seen from here."""

from __future__ import annotations

import re
import subprocess
import tomllib

import yaml

from th_utils.build.layout import find_root

ROOT = find_root()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "newest.yml").read_text())
JOB = WORKFLOW["jobs"]["rerun"]
SCRIPTS = [step["run"] for step in JOB["steps"] if "run" in step]


def test_runs_by_itself_and_may_open_issues():
    assert WORKFLOW[True]["schedule"]  # YAML takes the key `on` for a truth
    assert WORKFLOW["permissions"] == {"contents": "read", "issues": "write"}


def test_runs_every_chapter_with_the_newest_versions():
    (script,) = [script for script in SCRIPTS if "make test-rerun" in script]
    assert "NEWEST=1" in script and "CHAPTERS" not in script
    assert "pipefail" in script  # else tee would hide that it failed


def test_renders_the_whole_book_with_the_newest_versions():
    (script,) = [script for script in SCRIPTS if "th_utils.build book" in script]
    assert "--upgrade-strategy eager" in script and ".[book]" in script
    assert "requirements.lock" not in script and "pipefail" in script
    (step,) = [step for step in JOB["steps"] if step.get("run") == script]
    assert "!cancelled()" in step["if"], "also where a chapter failed"
    order = ["make test-rerun", "th_utils.build book", "gh issue"]
    text = "\n".join(SCRIPTS)
    assert sorted(order, key=text.index) == order
    assert set(re.findall(r"tee (\w+\.log)", text)) == set(
        re.findall(r"\w+\.log(?=[ ;])", SCRIPTS[-1])
    )


def test_on_the_versions_of_python_that_we_speak_of():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    versions = [c.rpartition(" ")[2] for c in said if "Python :: 3." in c]
    assert JOB["strategy"]["matrix"]["python"] == versions


def test_its_targets_exist_and_its_scripts_parse():
    makefile = (ROOT / "Makefile").read_text()
    for script in SCRIPTS:
        for target in re.findall(r"make ([a-z-]+)", script):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        subprocess.run(["bash", "-n"], input=plain, text=True, check=True)


def test_an_issue_that_is_open_gets_a_comment():
    (script,) = [script for script in SCRIPTS if "gh issue" in script]
    assert "gh issue comment" in script and "gh issue create" in script
    (step,) = [step for step in JOB["steps"] if step.get("run") == script]
    assert "failure()" in step["if"]
    # Else gh asks the checkout, of which a failed step may have left none.
    assert step["env"]["GH_REPO"] == "${{ github.repository }}"
