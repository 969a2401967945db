"""A causal transformer as plain tensors: what the replay kernels compute with.

Three families are known: GPT-2 (LayerNorm, learned positions), GPT-NeoX (LayerNorm, rotary on a
part of each head, attention and MLP side by side) and Llama (RMSNorm, rotary, gated MLP, grouped
keys and values). `th_utils.engine` makes this value from a `TransformerBridge`.

All arithmetic is in the dtype of the weights; a model in float64 gives float64 results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from th_utils.errors import CompanionError
from th_utils.weights import Rotary


def gelu_tanh(x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """GELU with the hyperbolic tangent that GPT-2 uses (Hendrycks and Gimpel 2016, section 2).

    On the CPU torch's own kernel takes three times as long as the same function written with the
    logistic function, ``(1 + tanh u) / 2 = 1 / (1 + exp(-2 u))``; its gradient is torch's.

    >>> x = torch.linspace(-6, 6, 99)
    >>> with torch.no_grad():
    ...     found = gelu_tanh(x)
    >>> torch.allclose(found, functional.gelu(x, approximate="tanh"), atol=1e-6)
    True
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return functional.gelu(x, approximate="tanh")
    scale = 2 * math.sqrt(2 / math.pi)
    inner = x * x
    return inner.mul_(0.044715 * scale).add_(scale).mul_(x).sigmoid_().mul_(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": functional.silu,
    "relu": functional.relu,
}


@dataclass(frozen=True)
class Norm:
    """LayerNorm or RMSNorm; in compatibility mode gain and bias are folded away and None here."""

    eps: float
    rms: bool
    gain: Float[Tensor, " d_model"] | None = None
    bias: Float[Tensor, " d_model"] | None = None

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if self.rms:
            return functional.rms_norm(x, x.shape[-1:], self.gain, self.eps)
        return functional.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.eps)


@dataclass(frozen=True)
class Block:
    """One layer. Biases may be None; `W_gate` is None unless the MLP is gated."""

    norm_1: Norm
    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "kv_head d_model d_head"]
    W_V: Float[Tensor, "kv_head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"] | None
    b_K: Float[Tensor, "kv_head d_head"] | None
    b_V: Float[Tensor, "kv_head d_head"] | None
    b_O: Float[Tensor, " d_model"] | None
    norm_2: Norm
    W_in: Float[Tensor, "d_model d_mlp"]
    b_in: Float[Tensor, " d_mlp"] | None
    W_gate: Float[Tensor, "d_model d_mlp"] | None
    b_gate: Float[Tensor, " d_mlp"] | None
    W_out: Float[Tensor, "d_mlp d_model"]
    b_out: Float[Tensor, " d_model"] | None


@dataclass(frozen=True)
class Transformer:
    """All weights of a model, and the few settings that its forward pass needs."""

    W_E: Float[Tensor, "d_vocab d_model"]
    W_pos: Float[Tensor, "n_ctx d_model"] | None
    blocks: tuple[Block, ...]
    final_norm: Norm
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"] | None
    rotary: Rotary | None
    parallel: bool  # attention and MLP read the same residual, as in GPT-NeoX
    activation: str

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        return self.blocks[0].W_Q.shape[0]

    @property
    def n_kv_heads(self) -> int:
        return self.blocks[0].W_K.shape[0]

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.n_heads // self.n_kv_heads

    @property
    def d_model(self) -> int:
        return self.W_E.shape[1]

    @property
    def d_head(self) -> int:
        return self.blocks[0].W_Q.shape[2]

    @property
    def d_mlp(self) -> int:
        return self.blocks[0].W_in.shape[1]


def embed(
    model: Transformer, tokens: Int[Tensor, "prompt pos"]
) -> Float[Tensor, "prompt pos d_model"]:
    """The residual stream that enters the first block.

    >>> embed(random_transformer(), torch.tensor([[3, 1, 4]])).shape
    torch.Size([1, 3, 16])
    """
    x = model.W_E[tokens]
    return x if model.W_pos is None else x + model.W_pos[: tokens.shape[1]]


def project(
    x: Float[Tensor, "*batch d_model"],
    W: Float[Tensor, "head d_model d_head"],
    b: Float[Tensor, "head d_head"] | None,
) -> Float[Tensor, "*batch head d_head"]:
    """Queries, keys or values of all heads, as one matrix product.

    >>> block = random_transformer().blocks[0]
    >>> project(torch.ones(5, 16), block.W_Q, block.b_Q).shape
    torch.Size([5, 2, 8])
    """
    heads, d_model, d_head = W.shape
    joined = W.permute(1, 0, 2).reshape(d_model, heads * d_head)  # a view for bridged weights
    flat = x.reshape(-1, d_model)
    out = flat @ joined if b is None else torch.addmm(b.reshape(-1), flat, joined)
    return out.view(*x.shape[:-1], heads, d_head)


def write_out(
    block: Block, z: Float[Tensor, "*batch head d_head"]
) -> Float[Tensor, "*batch d_model"]:
    """What the attention of a block adds to the residual stream, its bias included.

    >>> write_out(random_transformer().blocks[0], torch.ones(5, 2, 8)).shape
    torch.Size([5, 16])
    """
    flat, W_O = z.reshape(-1, block.W_O.shape[0] * block.W_O.shape[1]), block.W_O.flatten(0, 1)
    out = flat @ W_O if block.b_O is None else torch.addmm(block.b_O, flat, W_O)
    return out.view(*z.shape[:-2], -1)


def mlp(
    model: Transformer, block: Block, x: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch d_model"]:
    """What the MLP of a block adds to the residual stream, given its input `x` before the norm.

    >>> model = random_transformer("llama")
    >>> mlp(model, model.blocks[0], torch.ones(5, 16)).shape
    torch.Size([5, 16])
    """

    def linear(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        return x @ W if b is None else torch.addmm(b, x, W)

    flat = block.norm_2(x).reshape(-1, x.shape[-1])
    act = ACTIVATIONS[model.activation]
    hidden = linear(flat, block.W_in, block.b_in)
    if block.W_gate is None:
        hidden = act(hidden)
    else:
        hidden = act(linear(flat, block.W_gate, block.b_gate)) * hidden
    return linear(hidden, block.W_out, block.b_out).view_as(x)


def rotated(
    model: Transformer,
    x: Float[Tensor, "*batch pos head d_head"],
    positions: Int[Tensor, "*#batch pos"],
) -> Float[Tensor, "*batch pos head d_head"]:
    """Queries or keys turned by the rotary embedding of their positions (see `Rotary`).

    Su et al. (2021), equation 34, with the coordinates paired half the turned width apart.

    >>> model, x = random_transformer("llama"), torch.ones(1, 2, 8)
    >>> rotated(model, x, torch.tensor([0])).equal(x), rotated(model, x, torch.tensor([7])).equal(x)
    (True, False)
    """
    if model.rotary is None:
        return x
    half = model.rotary.dims // 2
    power = torch.arange(half, dtype=torch.float64, device=x.device) * (-2 / model.rotary.dims)
    angle = positions[..., None].double() * torch.pow(model.rotary.base, power)
    cos, sin = angle.cos().to(x.dtype)[..., None, :], angle.sin().to(x.dtype)[..., None, :]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = (first * cos - second * sin, second * cos + first * sin, x[..., 2 * half :])
    return torch.cat(turned, dim=-1)


def random_transformer(
    family: str = "gpt2",
    *,
    layers: int = 2,
    heads: int = 2,
    kv_heads: int | None = None,
    d_model: int = 16,
    d_head: int | None = None,
    d_mlp: int | None = None,
    d_vocab: int = 50,
    n_ctx: int = 32,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A transformer with Gaussian weights, for examples, tests and timings.

    Args:
        family: "gpt2", "neox" or "llama", whose parts it is made of; only the last groups
            keys and values.
        layers, heads, kv_heads, d_model, d_head, d_mlp, d_vocab, n_ctx: the shape; `d_head` is
            d_model / heads and `d_mlp` four times d_model where they are not said.
        seed: of the weights.
        dtype: of the weights.

    >>> random_transformer("llama", heads=4, kv_heads=2).group
    2
    """
    if family not in ("gpt2", "neox", "llama"):
        raise CompanionError(f"family {family!r} is unknown: 'gpt2', 'neox' or 'llama'")
    if kv_heads is not None and (family != "llama" or heads % kv_heads):
        raise CompanionError(
            f"kv_heads = {kv_heads} does not fit {heads} heads of a {family} model"
        )
    llama, kv_heads = family == "llama", kv_heads or heads
    d_head, d_mlp = d_head or d_model // heads, d_mlp or 4 * d_model
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, fan_in: int = 1) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (drawn / math.sqrt(fan_in)).to(dtype)

    def bias(*shape: int) -> Tensor | None:
        return None if llama else 0.2 * draw(*shape)

    norm = Norm(eps=1e-5, rms=llama)

    def block() -> Block:
        return Block(
            norm_1=norm,
            W_Q=draw(heads, d_model, d_head, fan_in=d_model),
            W_K=draw(kv_heads, d_model, d_head, fan_in=d_model),
            W_V=draw(kv_heads, d_model, d_head, fan_in=d_model),
            W_O=draw(heads, d_head, d_model, fan_in=heads * d_head),
            b_Q=bias(heads, d_head),
            b_K=bias(kv_heads, d_head),
            b_V=bias(kv_heads, d_head),
            b_O=bias(d_model),
            norm_2=norm,
            W_in=draw(d_model, d_mlp, fan_in=d_model),
            b_in=bias(d_mlp),
            W_gate=draw(d_model, d_mlp, fan_in=d_model) if llama else None,
            b_gate=None,
            W_out=draw(d_mlp, d_model, fan_in=d_mlp),
            b_out=bias(d_model),
        )

    share = {"gpt2": 0, "neox": 4, "llama": 1}[family]  # NeoX turns a quarter of each head
    return Transformer(
        W_E=draw(d_vocab, d_model),
        W_pos=draw(n_ctx, d_model) if family == "gpt2" else None,
        blocks=tuple(block() for _ in range(layers)),
        final_norm=norm,
        W_U=draw(d_model, d_vocab, fan_in=d_model),
        b_U=bias(d_vocab),
        rotary=Rotary(base=10000.0, dims=d_head // share // 2 * 2) if share else None,
        parallel=family == "neox",
        activation={"gpt2": "gelu_new", "neox": "gelu", "llama": "silu"}[family],
    )
