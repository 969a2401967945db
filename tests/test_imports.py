"""Kernel modules import where neither TransformerLens nor transformers can be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Add a module here when it is to run on a machine that has torch and little else.
KERNELS = (
    "checks",
    "composition",
    "errors",
    "rotary",
    "svd",
    "threads",
    "weights",
    "transformer",
    "replay",
    "sweeps",
    "edges",
    "attribution",
    "engine",
    "fullforward",
    "changes",
    "scan",
    "scan_store",
    "checkpoint",
    "planted",
    "search",
    "nulls",
    "recovery",
)
BLOCKED = ("transformer_lens", "transformers", "matplotlib", "gguf", "huggingface_hub")

IMPORT = """
import importlib, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
failed = {{}}
for module in {modules}:
    try:
        importlib.import_module("th_utils." + module)
    except ImportError as error:
        failed[module] = str(error)
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    return imports((*KERNELS, "bridge"))


def imports(modules: tuple[str, ...]) -> dict[str, str]:
    """What does not import in a fresh interpreter, and why."""
    code = IMPORT.format(blocked=BLOCKED, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", KERNELS)
def test_a_kernel_module_needs_torch_and_little_else(module, failed):
    assert module not in failed, failed[module]


def test_a_module_that_is_gone_would_be_noticed():
    assert "No module named 'th_utils.gone'" in imports(("gone",))["gone"]


def test_what_needs_transformers_is_caught(failed):
    assert "transformers is blocked" in failed["bridge"]
