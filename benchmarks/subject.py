"""What is timed: a model of the shape of GPT-2 small with random weights, and random prompts.

Times of matrix products do not depend on the numbers in them, so nothing needs to be fetched. The
weights are larger than GPT-2's initial ones, so that attention is not uniform and an intervention
changes something; norms and biases are moved away from 1 and 0 for the same reason.

Where TransformerLens or transformers are not installed, as on many a GPU machine, the kernels run
on plain random tensors of the same shape, and there is no peer.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import Shape
from th_utils.replay import Replay
from th_utils.transformer import Transformer, random_transformer
from th_utils.weights import AttentionWeights

SHAPES = {
    "gpt2-small": Shape(12, 12, 768, 64, 3072, 50257, prompts=8, positions=16),
    # Seconds instead of minutes: to see that everything runs, never to be quoted.
    "tiny": Shape(3, 4, 32, 8, 128, 211, prompts=2, positions=5),
}
INITIAL = 0.04  # standard deviation of the weights; GPT-2 starts from 0.02


@dataclass(frozen=True)
class Subject:
    """A model in the forms that the kernels and the peer take."""

    shape: Shape
    weights: AttentionWeights
    engine: Any
    bridge: Any  # None where there is no TransformerLens
    base: Tensor  # tokens of the run that is patched into
    source: Tensor  # tokens of the run that activations come from
    right: Tensor  # tokens whose logits are compared
    wrong: Tensor

    @functools.cached_property
    def traces(self) -> tuple[Any, Any]:
        """Clean runs of both."""
        return self.engine.trace(self.base), self.engine.trace(self.source)

    @functools.cached_property
    def caches(self) -> tuple[Any, Any]:
        """The peer's clean runs of both: its base is "corrupted", its source "clean"."""
        return tuple(self.bridge.run_with_cache(x)[1] for x in (self.base, self.source))

    def metric(self, logits: Tensor) -> Tensor:
        """The readout for the peer, from logits of all positions."""
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, -1, self.right] - logits[rows, -1, self.wrong]


@torch.no_grad()
def make(shape: Shape, device: str = "cpu", seed: int = 0) -> Subject:
    """A random model of a shape on a device."""
    generator = torch.Generator().manual_seed(seed)
    try:
        bridge = _bridge(shape, device, generator)
    except ImportError:
        bridge, engine = None, Replay(_plain(shape, device, seed))
        parts = ("W_Q", "W_K", "W_V", "W_O")
        stacked = {n: torch.stack([getattr(b, n) for b in engine.model.blocks]) for n in parts}
        weights = AttentionWeights(**stacked)
    else:
        from th_utils import engine as engines
        from th_utils import weights as reading

        engine, weights = engines.of(bridge), reading.from_bridge(bridge)

    def draw(*size: int) -> Tensor:
        return torch.randint(shape.d_vocab, size, generator=generator).to(device)

    size = (shape.prompts, shape.positions)
    base, source = draw(*size), draw(*size)
    # Not one token in common, so that nothing can be saved on a common beginning.
    source = torch.where(source == base, (source + 1) % shape.d_vocab, source)
    return Subject(
        shape, weights, engine, bridge, base, source, draw(shape.prompts), draw(shape.prompts)
    )


def _bridge(shape: Shape, device: str, generator: torch.Generator) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    from th_utils.terminal import quiet

    config = GPT2Config(
        vocab_size=shape.d_vocab,
        n_positions=max(64, shape.positions),
        n_embd=shape.d_model,
        n_inner=shape.d_mlp,
        n_layer=shape.layers,
        n_head=shape.heads,
        initializer_range=INITIAL,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )
    with quiet(), tempfile.TemporaryDirectory() as folder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            model = GPT2LMHeadModel(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise)
        bridge = TransformerBridge.boot_transformers(
            "gpt2",
            hf_model=model.to(device).requires_grad_(False),
            tokenizer=_tokenizer(shape.d_vocab, folder),
            device=device,
            dtype=torch.float32,
        )
        bridge.enable_compatibility_mode(disable_warnings=True)
    return bridge.eval().requires_grad_(False)


def _tokenizer(d_vocab: int, folder: str) -> Any:
    """A tokenizer of the right size; the prompts are tokens already, so it says nothing.

    It goes through the disk because TransformerLens reloads a tokenizer by its path.
    """
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(d_vocab)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        bos_token="w0",
        eos_token="w0",
        pad_token="w0",
    ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _plain(shape: Shape, device: str, seed: int) -> Transformer:
    """A model of the shape without any of the libraries that load models."""
    model = random_transformer(
        layers=shape.layers,
        heads=shape.heads,
        d_model=shape.d_model,
        d_head=shape.d_head,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        n_ctx=max(64, shape.positions),
        seed=seed,
    )
    return _moved(model, device)


def _moved(value: Any, device: str) -> Any:
    """A value with all tensors in it, however deep, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    if is_dataclass(value):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device)
                                 for f in fields(value)})  # fmt: skip
    return value
