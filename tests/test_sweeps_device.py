"""Replay and sweeps on another device, and what they ask of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from roundtrips import RoundTrips

from th_utils import sweeps
from th_utils.attribution import attribution_patching
from th_utils.edges import direct_effects
from th_utils.replay import Replay
from th_utils.transformer import Transformer, random_transformer

FAMILIES = ("gpt2", "neox", "llama")


def moved(model: Transformer, device: str) -> Transformer:
    """The same model on another device."""

    def move(value):
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, tuple):
            return tuple(move(v) for v in value)
        if dataclasses.is_dataclass(value):
            fields = {f.name: move(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return type(value)(**fields)
        return value

    return move(model)


def results(family: str, device: str) -> list[torch.Tensor]:
    fast = Replay(moved(random_transformer(family, layers=3, d_model=32, heads=4), device))
    tokens = torch.arange(24, device=device).view(2, 2, 6)
    base, source = fast.trace(tokens[0]), fast.trace(tokens[1])
    answers = torch.tensor([1, 2], device=device)
    readout = fast.logit_difference(answers, answers + 7)
    out = [sweeps.activation_patching(fast, base, source, readout)]
    out += [sweeps.path_patching(fast, base, source, readout, kind) for kind in "QKV"]
    out.append(direct_effects(fast, base, source, answers, answers + 7))
    out.append(attribution_patching(fast, base, source, readout))
    return out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_and_the_cpu_agree(family):
    for found, expected in zip(results(family, "cuda"), results(family, "cpu"), strict=True):
        assert found.device.type == "cuda"
        assert torch.allclose(found.cpu(), expected, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("layers", [2, 5])
def test_the_host_waits_at_the_door_only(layers):
    """The number of waits does not grow with the number of interventions."""
    fast = Replay(random_transformer(layers=layers))
    tokens = torch.arange(24).view(2, 2, 6)
    base, source = fast.trace(tokens[0]), fast.trace(tokens[1])
    readout = fast.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
    for kernel in (
        lambda: sweeps.activation_patching(fast, base, source, readout),
        lambda: sweeps.path_patching(fast, base, source, readout, "K"),
    ):
        with RoundTrips() as trips:
            kernel()
        assert trips.n == 2  # are the runs finite? where do they differ first?


@pytest.mark.parametrize("layers", [2, 5])
def test_estimates_wait_no_more_often_in_deeper_models(layers):
    fast = Replay(random_transformer(layers=layers))
    tokens = torch.arange(24).view(2, 2, 6)
    base, source = fast.trace(tokens[0]), fast.trace(tokens[1])
    right, wrong = torch.tensor([1, 2]), torch.tensor([3, 4])
    readout = fast.logit_difference(right, wrong)
    with RoundTrips() as trips:
        direct_effects(fast, base, source, right, wrong)
    assert trips.n <= 3  # are the runs finite? are the answers tokens?
    with RoundTrips() as trips:
        attribution_patching(fast, base, source, readout)
    assert trips.n <= 3  # and are the prompts tokens?
