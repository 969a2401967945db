"""The example in the README does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from th_utils import models

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.model
def test_the_example_runs(default_bridge, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setattr(models, "load", lambda name: default_bridge)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    layers, heads = default_bridge.cfg.n_layers, default_bridge.cfg.n_heads
    assert names["scores"].shape == (layers, heads, default_bridge.cfg.d_head, layers, heads)
    assert names["estimate"].shape == (layers, names["base"].n_positions, heads, 1)
    clean = names["readout"](names["base"].final)
    assert float(clean) > 0, "the model prefers the name that stood once"
    exact = names["exact"][:-1, :, -1]
    assert torch.isfinite(exact).all() and not torch.allclose(exact, clean, atol=1e-3)
    assert torch.isfinite(names["effects"]).any()
