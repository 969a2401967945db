"""Replay against full forward passes of the same model, hooked by TransformerLens."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from th_utils import engine, models, sweeps
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay
from th_utils.transformer import random_transformer

FAMILIES = ("gpt2", "neox", "llama")
POSITIONS = 9


def draw(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def prompts(n: int = 3, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 500, (n, POSITIONS), generator=generator)


@pytest.fixture(scope="module")
def both(tiny_model):
    """Replay and full forward passes, with their clean runs read at different positions."""
    bridge = models.load(tiny_model)
    fast, full = engine.of(bridge), FullForward(bridge)
    assert isinstance(fast, Replay)
    read = torch.tensor([POSITIONS - 1, 5, 6])
    return fast, full, fast.trace(prompts(), read=read), full.trace(prompts(), read=read)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-4)


def test_the_clean_run_is_the_bridges(both):
    fast, full, base, expected = both
    assert close(base.z, expected.z) and close(base.resid, expected.resid)
    logits = full.bridge(base.tokens, return_type="logits")
    rows = torch.arange(3)
    assert close(fast.logits(base.final), logits[rows, base.read])
    assert close(expected.final, logits[rows, base.read])


@pytest.mark.parametrize("first, changed", [(0, POSITIONS), (4, 2), (6, 3), (8, 1), (0, 1)])
def test_what_is_written_is_replayed(both, first, changed):
    fast, full, base, clean = both
    for layer in range(fast.n_layers):
        delta = draw(4, 3, changed, base.final.shape[-1], seed=layer)
        found = fast.write(base, layer, delta, first)
        assert close(fast.logits(found), full.logits(full.write(clean, layer, delta, first)))


@pytest.mark.parametrize("first", [0, 4, 8])
def test_another_residual_stream_is_replayed(both, first):
    fast, full, base, clean = both
    for layer in range(fast.n_layers):
        resid = draw(4, 3, POSITIONS - first, base.final.shape[-1], seed=layer)
        found = fast.advance(base, layer, resid, first)
        assert close(fast.logits(found), full.logits(full.advance(clean, layer, resid, first)))
    found = fast.advance(base, fast.n_layers, resid, first)  # behind the last block
    for i, read in enumerate(base.read.tolist()):
        expected = resid[:, i, read - first] if read >= first else base.final[i]
        assert torch.equal(found[:, i], expected.expand(4, -1))


@pytest.mark.parametrize("window", [1, 3])
def test_each_prompt_from_a_position_of_its_own(both, window):
    """A window that ends at the position read, wherever that is."""
    fast, full, base, clean = both
    first = base.read - window + 1
    rows = torch.arange(3)[:, None]
    at = first[:, None] + torch.arange(window)
    for layer in range(fast.n_layers):
        resid = draw(4, 3, window, base.final.shape[-1], seed=layer)
        found = fast.advance(base, layer, resid, first)
        whole = base.resid[layer].expand(4, *base.resid[layer].shape).clone()
        whole[:, rows, at] = resid
        assert close(fast.logits(found), full.logits(full.advance(clean, layer, whole, 0)))


@pytest.mark.parametrize("place", ["end", "all"])
def test_a_listener_hears_the_attention_and_adds_to_it(both, place):
    """The patterns of a clean run are the bridge's; what it adds is added."""
    fast, full, base, clean = both
    _, cache = full.bridge.run_with_cache(base.tokens)
    heard = {}
    first = 0 if place == "all" else base.read
    resid = base.resid[1][None]
    if place == "end":
        resid = resid[:, torch.arange(3), base.read][:, :, None]

    def listener(layer, attention):
        heard[layer] = torch.stack([attention.pattern(h) for h in range(fast.n_heads)], dim=2)
        return torch.full_like(base.final, 0.5)[None, :, None] if layer == 2 else None

    found = fast.advance(base, 1, resid, first, listener=listener)
    expected = full.write(clean, 2, torch.full((1, 3, POSITIONS, found.shape[-1]), 0.5))
    assert close(fast.logits(found), full.logits(expected))
    assert sorted(heard) == [1, 2]
    for layer, pattern in heard.items():
        for i, read in enumerate(base.read.tolist()):
            expected = cache[f"blocks.{layer}.attn.hook_pattern"][i, :, read, : read + 1]
            if place == "end":  # its own key stands behind all others
                row = pattern[0, i, :, 0]
                row = torch.cat([row[:, :read], row[:, -1:]], dim=1)
            else:
                row = pattern[0, i, :, 0 if layer == 2 else read, : read + 1]
            assert torch.allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
@pytest.mark.parametrize("first", [0, 4, 8])
def test_a_reader_alone_sees_the_change(both, kind, first):
    fast, full, base, clean = both
    for layer in range(fast.n_layers):
        delta = draw(2, 3, POSITIONS - first, base.final.shape[-1], seed=layer)
        found = fast.read(base, layer, kind, delta, first)
        assert close(found, full.read(clean, layer, kind, delta, first))
        whole = torch.cat(
            [torch.zeros_like(base.resid[layer][:, :first]).expand(2, -1, -1, -1), delta], dim=2
        )
        assert close(found, fast.read(base, layer, kind, whole)[:, :, first:])


def test_a_change_behind_the_position_read_is_not_seen(both):
    fast, _, base, _ = both
    delta = draw(2, 3, 2, base.final.shape[-1])
    found = fast.write(base, 0, delta, POSITIONS - 2)  # only the first prompt is read there
    assert torch.equal(found[:, 1:], base.final[1:].expand(2, -1, -1))
    assert not torch.allclose(found[:, 0], base.final[0])


def test_cases_do_not_touch_each_other(both):
    fast, _, base, _ = both
    delta = draw(5, 3, 3, base.final.shape[-1])
    together = fast.write(base, 0, delta, 2)
    alone = torch.cat([fast.write(base, 0, one[None], 2) for one in delta])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float64_to_the_last_digits(family):
    """Replay from each layer and position against the same change run from the first block on."""
    model = random_transformer(family, layers=3, d_model=24, heads=3, dtype=torch.float64)
    fast = Replay(model)
    tokens = torch.arange(14).view(2, 7)
    base = fast.trace(tokens)
    for layer in range(3):
        for first in (0, 3, 6):
            delta = draw(1, 2, 7 - first, 24, seed=first, dtype=torch.float64)
            expected = _by_hand(model, tokens, layer, delta[0], first)
            assert torch.allclose(fast.write(base, layer, delta, first)[0], expected, atol=1e-12)


def _by_hand(model, tokens, layer, delta, first):
    """The whole forward pass with a change, position by position and head by head."""
    from th_utils import transformer

    x = transformer.embed(model, tokens)
    at = torch.arange(tokens.shape[1])
    for i, block in enumerate(model.blocks):
        normed = block.norm_1(x)
        q, k, v = (
            torch.stack(
                [normed @ W[h] + (0 if b is None else b[h]) for h in range(len(W))],
                dim=2,
            )
            for W, b in ((block.W_Q, block.b_Q), (block.W_K, block.b_K), (block.W_V, block.b_V))
        )
        q, k = transformer.rotated(model, q, at), transformer.rotated(model, k, at)
        out = torch.zeros_like(x)
        for h in range(model.n_heads):
            g = h // model.group
            scores = q[:, :, h] @ k[:, :, g].mT / model.d_head**0.5
            scores = scores.masked_fill(at[None, :] > at[:, None], -torch.inf)
            out += scores.softmax(-1) @ v[:, :, g] @ block.W_O[h]
        out += 0 if block.b_O is None else block.b_O
        if i == layer:
            out[:, first : first + delta.shape[1]] += delta
        mid = x + out
        x = mid + transformer.mlp(model, block, x if model.parallel else mid)
    return x[:, -1]


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_grouped_heads_each_read_a_copy(kind):
    """Changing a shared key or value for all heads at once changes each as changing it alone."""
    fast = Replay(random_transformer("llama", heads=6, kv_heads=2, d_model=24))
    base = fast.trace(prompts() % 50)
    delta = draw(1, 3, POSITIONS, 24)
    z = fast.read(base, 1, kind, delta)
    assert z.shape == (1, 3, POSITIONS, 6, 4)
    assert not torch.allclose(z[0], base.z[1])


def test_batches_fit_into_the_memory_given():
    fast = Replay(random_transformer())
    base = fast.trace(prompts() % 50)
    one = next(iter(fast.chunks(base, 100, POSITIONS, 2**30)))
    assert one == slice(0, 100)
    with pytest.raises(
        CompanionError, match=r"one intervention on 3 prompts needs (\d+)"
    ) as caught:
        list(fast.chunks(base, 100, POSITIONS, 10))
    each = int(str(caught.value).rsplit(" ", 1)[1])
    parts = list(fast.chunks(base, 100, POSITIONS, 7 * each))
    assert [p.stop - p.start for p in parts] == [7] * 14 + [2]
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]


class Live(TorchDispatchMode):
    """Bytes of all storages made within, as long as they live."""

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def storages(tree):
            leaves = torch.utils._pytree.tree_leaves(tree)
            return [x.untyped_storage() for x in leaves if isinstance(x, torch.Tensor)]

        given = {storage._cdata for storage in storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in storages(out):
            key = storage._cdata
            if key not in given and key not in self.sizes:
                weakref.finalize(storage, self.sizes.pop, key, None)
                self.sizes[key] = storage.nbytes()
        self.peak = max(self.peak, sum(self.sizes.values()))
        return out


@pytest.mark.parametrize("first", [0, 5, POSITIONS - 1])
def test_a_batch_really_stays_within_its_memory(first):
    """Live activations at any moment, counted storage by storage, stay below the bound."""
    fast = Replay(random_transformer(layers=3, d_model=64, heads=4))
    base = fast.trace(prompts() % 50)
    memory, window = 2**21, POSITIONS - first
    delta = draw(1000, 3, window, 64)
    with Live() as live, torch.no_grad():
        for part in fast.chunks(base, len(delta), window, memory):
            fast.write(base, 0, delta[part], first)
    assert memory / 3 < live.peak < memory


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("same", [0, 4, POSITIONS - 1])
def test_path_patching_stays_within_its_memory(family, same):
    """Also where the prompts differ late, and many senders fit into a batch."""
    fast = Replay(random_transformer(family, layers=4, d_model=64, heads=8))
    base, other = prompts() % 50, prompts(seed=2) % 50
    other[:, :same] = base[:, :same]
    base, source = fast.trace(base), fast.trace(other)
    readout = fast.logit_difference(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
    memory = 2**19
    with Live() as live:
        found = sweeps.path_patching(fast, base, source, readout, "K", memory=memory)
    kept = found.nbytes + 2 * base.z.nbytes  # the result, and what differs between the runs
    assert live.peak - kept < memory


class TestBadInput:
    fast = Replay(random_transformer())
    base = fast.trace(prompts() % 50)

    def change(self, *shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype)

    @pytest.mark.parametrize(
        "shape, layer, first, said",
        [
            ((1, 3, 2, 16), 2, 0, "layer 2 is out of range: expected 0 to 1"),
            ((1, 3, 2, 16), -1, 0, "layer -1 is out of range"),
            (
                (1, 2, 2, 16),
                0,
                0,
                r"shape \(1, 2, 2, 16\), expected \(any, 3, any, 16\)",
            ),
            ((1, 3, 2, 8), 0, 0, r"shape \(1, 3, 2, 8\), expected"),
            ((0, 3, 2, 16), 0, 0, r"the change of shape \(0, 3, 2, 16\) is empty"),
            ((1, 3, 2, 16), 0, 8, "positions 8 to 9, expected 0 to 8"),
            ((1, 3, 2, 16), 0, -1, "positions -1 to 0, expected 0 to 8"),
        ],
    )
    def test_changes_that_do_not_fit(self, shape, layer, first, said):
        with pytest.raises(CompanionError, match=said):
            self.fast.write(self.base, layer, self.change(*shape), first)

    def test_a_window_that_ends_before_the_position_read(self):
        first = torch.tensor([0, 1, 2])
        with pytest.raises(CompanionError, match="as many as reach the position read"):
            self.fast.advance(self.base, 0, self.change(1, 3, 2, 16), first)

    @pytest.mark.parametrize("first", [[0, 1], [0, -1, 2], [0, 1, 9]])
    def test_windows_that_begin_nowhere(self, first):
        with pytest.raises(CompanionError, match="first has shape|expected 0 to 8"):
            self.fast.advance(self.base, 0, self.change(1, 3, 9, 16), torch.tensor(first))

    def test_another_dtype(self):
        with pytest.raises(CompanionError, match="is torch.float64, expected one dtype"):
            self.fast.write(self.base, 0, self.change(1, 3, 2, 16, dtype=torch.float64), 0)

    def test_another_device(self):
        with pytest.raises(CompanionError, match="is on meta, expected one device"):
            self.fast.write(self.base, 0, self.change(1, 3, 2, 16).to("meta"), 0)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("into", ["write", "advance", "read"])
    def test_values_that_are_not_finite(self, into, value):
        change = self.change(1, 3, POSITIONS, 16)
        change[0, 1, 2, 3] = value
        calls = {
            "write": lambda: self.fast.write(self.base, 0, change),
            "advance": lambda: self.fast.advance(self.base, 0, change, 0),
            "read": lambda: self.fast.read(self.base, 0, "Q", change),
        }
        with pytest.raises(CompanionError, match=r"change contains NaN or infinite values: 1 of"):
            calls[into]()

    def test_a_reader_is_shown_all_positions_to_the_end(self):
        with pytest.raises(CompanionError, match="2 positions from 0 on, expected 9"):
            self.fast.read(self.base, 0, "V", self.change(1, 3, 2, 16))

    @pytest.mark.parametrize(
        "right, wrong, said",
        [
            ([50, 1, 1], [2, 2, 2], "tokens from 1 to 50, expected 0 to 49"),
            ([1, 1, 1], [-1, 2, 2], "tokens from -1 to 2"),
            ([], [], r"right of shape \(0,\) is empty"),
        ],
    )
    def test_answers_that_are_not_tokens(self, right, wrong, said):
        right, wrong = (torch.tensor(t, dtype=torch.long) for t in (right, wrong))
        with pytest.raises(CompanionError, match=said):
            self.fast.logit_difference(right, wrong)

    def test_a_residual_stream_that_ends_early(self):
        with pytest.raises(CompanionError, match="resid has 2 positions from 3 on, expected 6"):
            self.fast.advance(self.base, 0, self.change(1, 3, 2, 16), 3)

    @pytest.mark.parametrize(
        "tokens, said",
        [
            (torch.zeros(0, 4, dtype=torch.long), r"tokens of shape \(0, 4\) is empty"),
            (torch.zeros(2, 0, dtype=torch.long), r"tokens of shape \(2, 0\) is empty"),
            (torch.full((1, 3), 50), "tokens run from 50 to 50, expected 0 to 49"),
            (torch.full((1, 3), -1), "tokens run from -1"),
            (torch.zeros(1, 33, dtype=torch.long), "this model takes 32 positions"),
        ],
    )
    def test_tokens_that_cannot_be_run(self, tokens, said):
        with pytest.raises(CompanionError, match=said):
            self.fast.trace(tokens)

    @pytest.mark.parametrize(
        "read, said",
        [
            (torch.tensor([1]), r"read has shape \(1,\), expected \(3,\)"),
            (torch.tensor([1, 2, 9]), "read runs from 1 to 9, expected 0 to 8"),
        ],
    )
    def test_positions_that_cannot_be_read(self, read, said):
        with pytest.raises(CompanionError, match=said):
            self.fast.trace(prompts() % 50, read=read)


@pytest.fixture(scope="module")
def bridge(tiny_gpt2):
    return models.load(tiny_gpt2)


def test_an_unknown_model_runs_all_the_same_and_says_so(bridge, monkeypatch):
    known = engine.of(bridge)
    monkeypatch.setattr(bridge.cfg, "act_fn", "mish")
    with pytest.warns(UserWarning, match="'mish'; each intervention is a full forward pass"):
        slow = engine.of(bridge)
    assert isinstance(slow, FullForward)
    base, clean = slow.trace(prompts()), known.trace(prompts())
    delta = draw(2, 3, 1, clean.final.shape[-1])
    assert close(slow.write(base, 1, delta, 4), known.logits(known.write(clean, 1, delta, 4)))


def test_a_model_whose_logits_differ_is_unknown(bridge, monkeypatch):
    """Settings can look right and a model still compute something else."""
    monkeypatch.setattr(bridge.cfg, "act_fn", "gelu")
    monkeypatch.setattr(engine, "_compared", set())  # another test may have looked at it before
    with pytest.warns(UserWarning, match="its logits come out"):
        assert isinstance(engine.of(bridge), FullForward)


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("normalization_type", "Dyt", "its normalisation is 'Dyt'"),
        ("positional_embedding_type", "alibi", "its positions are 'alibi'"),
        ("use_qk_norm", True, "its queries and keys are normalised"),
        ("attn_scores_soft_cap", 50.0, "its attention scores or logits are capped"),
        ("window_size", 128, "attend to a window only"),
        ("num_experts", 8, "mixtures of experts"),
    ],
)
def test_what_stands_against_a_model_is_said(bridge, monkeypatch, field, value, said):
    monkeypatch.setattr(bridge.cfg, field, value, raising=False)
    with pytest.raises(CompanionError, match=said):
        engine.from_bridge(bridge)


def test_weights_are_views_of_the_bridges(bridge):
    model = engine.from_bridge(bridge)
    assert model.blocks[1].W_O.data_ptr() == bridge.blocks[1].attn.W_O.data_ptr()
    assert model.blocks[1].W_in.data_ptr() == bridge.blocks[1].mlp.W_in.data_ptr()
