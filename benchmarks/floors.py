r"""How many operations each job needs at least, given the way in which it spares work.

An operation is one addition or multiplication in fp32, so a product of an m x k with a k x n matrix
counts 2 m k n. Counted are matrix products and decompositions; norms, activation functions and
softmax are not. The floor of a job is the larger of its operations at the rate of a plain matrix
product and its bytes (inputs and outputs, each once) at the rate of a plain copy, both measured
beside it.

Counts of decompositions are those of Golub and Van Loan (2013): Householder QR of an m x n matrix,
2 n^2 (m - n/3) operations for R and as many for the thin Q; the SVD of an n x n matrix with both
sets of vectors, 22 n^3.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shape:
    """Of a model with ungrouped heads and an ungated MLP, and of the prompts."""

    layers: int
    heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    prompts: int
    positions: int

    @property
    def width(self) -> int:
        """Of all heads of a layer together."""
        return self.heads * self.d_head

    @property
    def head_weights(self) -> int:
        """Numbers in one of the four attention matrices, over all heads."""
        return self.layers * self.width * self.d_model

    @property
    def earlier_pairs(self) -> int:
        """Pairs of layers of which one is later."""
        return self.layers * (self.layers - 1) // 2

    @property
    def head_pairs(self) -> int:
        """Pairs of heads of which one is in a later layer."""
        return self.earlier_pairs * self.heads**2

    @property
    def patches(self) -> int:
        """Heads times positions."""
        return self.layers * self.heads * self.positions


def thin_qr(rows: int, columns: int) -> float:
    """R and the thin Q of one matrix."""
    return 4 * columns**2 * (rows - columns / 3)


def small_svd(size: int) -> float:
    """All singular values and vectors of one square matrix."""
    return 22 * size**3


def svd(shape: Shape) -> float:
    """Factored SVD of every OV matrix: two thin QR, the core, its SVD, and both turned back."""
    d, h = shape.d_model, shape.d_head
    one = 2 * thin_qr(d, h) + 2 * h**3 + small_svd(h) + 2 * (2 * d * h**2)
    return shape.layers * shape.heads * one


def svd_bytes(shape: Shape) -> int:
    """W_V and W_O in; U, V and S out."""
    return FLOAT * (4 * shape.head_weights + shape.layers * shape.width)


def composition(shape: Shape, kinds: int = 3) -> float:
    """Every component of every head against every reduced reader of every later layer.

    The products alone: reducing the readers costs a hundredth of them.
    """
    return kinds * shape.earlier_pairs * 2 * shape.d_model * shape.width**2


def composition_bytes(shape: Shape, kinds: int = 3) -> int:
    """All attention matrices in; whole-head scores out."""
    return FLOAT * (4 * shape.head_weights + kinds * (shape.layers * shape.heads) ** 2)


def component_bytes(shape: Shape, kinds: int = 3) -> int:
    """All attention matrices in; a score for every component and later head out."""
    scores = (shape.layers * shape.heads) ** 2 * shape.d_head
    return FLOAT * (4 * shape.head_weights + kinds * scores)


def causal(shape: Shape, first: int) -> int:
    """Keys seen, added up over the queries from position `first` on."""
    return sum(range(first + 1, shape.positions + 1))


def mlp(shape: Shape) -> int:
    """The MLP of one block at one position."""
    return 4 * shape.d_model * shape.d_mlp


def block(shape: Shape, first: int) -> int:
    """One block at all positions from `first` on, earlier keys and values at hand."""
    window = shape.positions - first
    linear = 8 * shape.d_model * shape.width + mlp(shape)
    return window * linear + 4 * shape.width * causal(shape, first)


def last_block(shape: Shape, first: int) -> int:
    """The last block: keys and values at all changed positions, the rest at the one read out."""
    both = 4 * shape.d_model * shape.width
    keys = (shape.positions - first) * both
    return keys + both + mlp(shape) + 4 * shape.width * shape.positions


def after(shape: Shape, layer: int, first: int) -> int:
    """All blocks after `layer`, for one prompt that changes from position `first` on."""
    between = shape.layers - 2 - layer
    return between * block(shape, first) + last_block(shape, first) if between >= 0 else 0


def activation_patching(shape: Shape) -> float:
    """Every head at every position: the change written out, its block's MLP, the blocks after."""
    total = 0
    for layer in range(shape.layers):
        for at in range(shape.positions):
            if layer == shape.layers - 1 and at < shape.positions - 1:
                continue  # never read
            one = 2 * shape.d_head * shape.d_model + mlp(shape) + after(shape, layer, at)
            total += shape.heads * one
    return shape.prompts * total


def path_patching(shape: Shape, kind: str) -> float:
    """Every sender into one input of every later reader: the reader, its block's MLP, the rest."""
    d, h, n = shape.d_model, shape.d_head, shape.positions
    total = 0
    for layer in range(1, shape.layers):
        if layer == shape.layers - 1:  # only what the last position sees is read
            seen = 1 if kind == "Q" else n
            reader = seen * 2 * d * h + 4 * h * n + 2 * h * d
            one = reader + mlp(shape)
        else:
            reader = n * 2 * d * h + 4 * h * causal(shape, 0) + n * 2 * h * d
            one = reader + n * mlp(shape) + after(shape, layer, 0)
        total += layer * shape.heads**2 * one
    return shape.prompts * total


def direct_effects(shape: Shape) -> float:
    """Every sender against directions of every later reader, for each kind one per position.

    Per reader: a direction of each key and each value against what the sender writes at that
    position, and as many directions of queries at the last position. Besides, what each sender
    writes, and the directions themselves.
    """
    d, h, n = shape.d_model, shape.d_head, shape.positions
    products = 3 * n * 2 * d * shape.head_pairs
    writes = (shape.layers - 1) * shape.heads * n * 2 * h * d
    directions = (shape.layers - 1) * shape.heads * (2 * n + 1) * 2 * h * d
    return shape.prompts * (products + writes + directions)


def sweep_bytes(shape: Shape, cells: int) -> int:
    """All weights of the blocks in; one number per intervention and prompt out."""
    weights = 4 * shape.head_weights + 2 * shape.layers * shape.d_model * shape.d_mlp
    return FLOAT * (weights + cells * shape.prompts)


def forward(shape: Shape) -> int:
    """All blocks at all positions of all prompts; without the unembedding."""
    return shape.prompts * shape.layers * block(shape, 0)


def attribution(shape: Shape) -> float:
    """A forward pass, and a backward pass for activations alone, which costs as much again."""
    return 2 * forward(shape)


def seconds(operations: float, bytes: float, rate: float, bandwidth: float) -> float:
    """The floor: operations per second is `rate`, bytes per second `bandwidth`.

    >>> seconds(2e9, 1e9, rate=1e9, bandwidth=1e8)
    10.0
    """
    return max(operations / rate, bytes / bandwidth)


def product_size(shape: Shape) -> int:
    """Rows of a square product with as many operations as all composition scores together."""
    side = (composition(shape) / 2) ** (1 / 3)
    return max(64, round(side / 64) * 64)
