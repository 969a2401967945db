"""Fixtures that several test modules share.

The small models are real architectures with random weights, saved the way the hub saves them
(config, safetensors, tokenizer), so that a test walks the same path as a pretrained model
without any download. Their norms and biases are moved away from their initial 1 and 0: folding
a LayerNorm whose gain is one would change nothing, and a wrong fold would pass unseen.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# What the small tokenizer has seen. Every word here becomes one token, with and without the
# space before it, so that the task modules find names, places and objects in it.
WORDS = (
    "Then When After While the and went to gave a an at in of for it was were They had with "
    "Mary John Anna Paul James Lisa Sarah Tom Alice Kate Mark Luke Emma Jack Jane Peter Rose "
    "store school garden office house station hospital restaurant drink ring book ball apple "
    "basket bone kiss snack computer necklace long argument said got lot fun working decided "
    "give wanted friends found thinking about lunch afterwards , ."
).split()


def _save_tokenizer(directory: Path) -> int:
    """Write a byte-level BPE tokenizer, which adds no BOS, and return its vocabulary's size.

    It goes through the disk on purpose: TransformerLens reloads a tokenizer by its path.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,  # more than the words need: every word is merged to the end
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [f"{word} {word}" for word in WORDS]
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    fast.save_pretrained(directory)
    return len(fast)


def _perturb(model, generator) -> None:
    """Move every norm gain to about 1 +- 0.3 and every bias to about 0 +- 0.2, in place."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim != 1:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(1.0 + 0.3 * noise)


def _save_model(directory: Path, build, seed: int) -> Path:
    """Save a random model and its tokenizer; `build(vocab_size)` returns the model."""
    import torch

    vocab_size = _save_tokenizer(directory)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(vocab_size)
    _perturb(model, torch.Generator().manual_seed(seed + 1))
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory) -> Path:
    """GPT-2: LayerNorm, Conv1D, learned positions, tied embeddings. 3 layers of 4 heads of 8."""

    def build(vocab_size: int):
        from transformers import GPT2Config, GPT2LMHeadModel

        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=128,
                n_embd=32,
                n_layer=3,
                n_head=4,
                initializer_range=0.15,
                bos_token_id=0,
                eos_token_id=0,
            )
        )

    return _save_model(tmp_path_factory.mktemp("tiny_gpt2"), build, seed=10)


@pytest.fixture(scope="session")
def tiny_neox(tmp_path_factory) -> Path:
    """GPT-NeoX: fused query-key-value, rotary on a quarter of each head, parallel residual.

    3 layers of 4 heads of 8.
    """

    def build(vocab_size: int):
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        return GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=vocab_size,
                max_position_embeddings=128,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                rotary_pct=0.25,
                initializer_range=0.15,
                bos_token_id=0,
                eos_token_id=0,
            )
        )

    return _save_model(tmp_path_factory.mktemp("tiny_neox"), build, seed=20)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """Llama: RMSNorm, rotary, grouped keys and values, tied embeddings.

    3 layers of 6 heads of 8, three query heads to each of the 2 key/value heads.
    """

    def build(vocab_size: int):
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                max_position_embeddings=128,
                hidden_size=48,
                intermediate_size=80,
                num_hidden_layers=3,
                num_attention_heads=6,
                num_key_value_heads=2,
                tie_word_embeddings=True,
                initializer_range=0.15,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=0,
            )
        )

    return _save_model(tmp_path_factory.mktemp("tiny_llama"), build, seed=30)


@pytest.fixture(scope="session", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def tiny_model(request) -> Path:
    """The directory of each small model in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def default_bridge():
    """The default edition's model, loaded once; tests must leave it as they found it."""
    from th_utils import models

    return models.load(models.DEFAULT)


@pytest.fixture(scope="module")
def bridge(tiny_model):
    """Each small model in turn, for modules whose tests leave it as they found it."""
    from th_utils import models

    return models.load(tiny_model)


@pytest.fixture(scope="module")
def weights(bridge):
    """Attention weights of `bridge`."""
    from th_utils.weights import from_bridge

    return from_bridge(bridge)


@pytest.fixture(scope="module")
def svd(weights):
    """SVD of the OV matrices of `bridge`."""
    from th_utils.svd import ov_svd

    return ov_svd(weights)


@pytest.fixture
def tiny_bridge(tiny_model):
    """Each small model in turn as a TransformerBridge in compatibility mode.

    Fresh for each test, so that a test which edits weights cannot spoil the next one.
    """
    from th_utils import models

    return models.load(tiny_model)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The book of the committed notebooks, rendered strictly: once, for all workers of a run.

    TH_SITE names a folder of HTML to look at instead, such as that of a whole build.
    """
    from filelock import FileLock
    from htmlcheck import Site

    from th_utils.build.layout import Layout, find_root
    from th_utils.build.render import build_html
    from th_utils.build.stage import stage

    if given := os.environ.get("TH_SITE"):
        return Site(Path(given).resolve())
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    work = shared / "book"
    done = work / "done"
    with FileLock(shared / "book.lock"):
        if not done.exists():
            # A layout of a build that never ran: no files of figures lie beside the notebooks.
            here = Layout(find_root(), size="committed")
            stage(here, here.root / "notebooks", work / "stage")
            done.write_text(str(build_html(work / "stage", work / "html", work / "book.log")))
    return Site(Path(done.read_text()))


@pytest.fixture(scope="session")
def browser():
    """A Chromium of this machine, driven by playwright. Mark the tests `chromium`."""
    from browsing import executable
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        opened = playwright.chromium.launch(executable_path=executable(), args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def book_page(browser, site):
    """Open a page of the book: `page = book_page("notebooks/03_components.html", dark=True)`.

    Returns a playwright `Page`; see `browsing.Reader.open` for the options. When the test is over,
    it fails if a page said an error or a warning, or asked for anything outside the book.
    """
    from browsing import Reader

    reader = Reader(browser, site.folder)
    yield reader.open
    reader.close()
    assert reader.wrong == []
