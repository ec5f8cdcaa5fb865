"""Each optimisation in `visattn.fast` equals the plain code of VISATTN_FAST=0, forward and backward."""

import io
import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.nn import functional as F

from visattn.attention import AdditiveScore, MultiHeadAttention, MultiHeadSelfAttention
from visattn.explain import record
from visattn.fast.allocator import keep_freed_memory
from visattn.fast.bfloat16 import bfloat16_products
from visattn.fast.linear import linear, onednn_is_taken
from visattn.fast.png import encode_png
from visattn.models import LSTMDecoder, LuongDecoder, TransformerDecoder, VisionTransformer
from visattn.overlay import encode_figure

B, K, GRID, T, D, WORDS = 2, 3, (5, 7), 11, 13, 331  # K captions of each of B images
SIZES = {"hidden": 61, "embedding": 19}
DECODERS = {
    "Xu, additive": partial(LSTMDecoder, **SIZES),
    "Luong, multi-head": partial(LuongDecoder, **SIZES, attention=partial(MultiHeadAttention, heads=1)),
    "Transformer": partial(TransformerDecoder, size=20, layers=2, heads=5),
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03}  # of the norm


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def both(monkeypatch):
    """Runs a function with and without optimisations, with autocast; returns outputs and all gradients."""
    monkeypatch.setenv("VISATTN_ONEDNN", "1")

    def run(module, forward, dtype):
        results = []
        for switch in "10":
            monkeypatch.setenv("VISATTN_FAST", switch)
            module.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                out = forward(module)
            (out.float() * draw(*out.shape, seed=9)).sum().backward()
            results.append([out.detach(), *(p.grad for p in module.parameters() if p.grad is not None)])
        return results

    return run


def assert_same(fast, plain, dtype):
    assert len(fast) == len(plain) > 1
    for one, other in zip(fast, plain, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= TOLERANCE[dtype] * other.norm() + 1e-5


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_is_the_same_without_them(name, dtype, both):
    torch.manual_seed(1)
    decoder = DECODERS[name](WORDS, D).eval()
    values = nn.Parameter(draw(B, GRID[0] * GRID[1], D))
    decoder.register_parameter("values", values)
    tokens = torch.randint(4, WORDS, (B * K, T), generator=torch.Generator().manual_seed(2))
    assert_same(*both(decoder, lambda d: d(d.prepare(values, GRID), tokens)[0], dtype), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_additive_score_without_a_tanh(dtype, both):
    torch.manual_seed(1)
    score, query, values = AdditiveScore(17, D, hidden=23), draw(B, K, 17), draw(B, 37, D, seed=3)
    score.query.weight.data *= 3
    seen = []

    def forward(score):
        seen.append(score.keys(values))
        return score(query, seen[-1])

    assert_same(*both(score, forward, dtype), dtype)
    torch.testing.assert_close(seen[0].float(), (2 * seen[1].float()).exp(), rtol=TOLERANCE[dtype], atol=0)
    torch.testing.assert_close(seen[1].float(), score.key(values), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_hand_in_bfloat16(causal, both):
    torch.manual_seed(1)
    attention = MultiHeadSelfAttention(30, 5, causal=causal)
    fast, plain = both(attention, lambda a: a(draw(B, 7, 30)), torch.bfloat16)
    assert_same(fast, plain, torch.bfloat16)
    assert not torch.equal(fast[0], plain[0])  # its scores are rounded


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_vision_transformers_last_block_for_its_class_token_alone(dtype, both):
    torch.manual_seed(1)
    model = VisionTransformer(7, (8, 12), size=30, depth=2, heads=5)
    nn.init.normal_(model.head.weight)
    assert_same(*both(model, lambda m: m(draw(B, 3, 8, 12)), dtype), dtype)


def test_linear_layers_and_the_allocator_are_switched_off(monkeypatch):
    monkeypatch.setenv("VISATTN_ONEDNN", "1")
    monkeypatch.delenv("VISATTN_KEEP_FREED_MEMORY", raising=False)
    x, weight = draw(127, 257), draw(131, 257, seed=1)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    monkeypatch.setenv("VISATTN_FAST", "0")
    assert not onednn_is_taken()
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not keep_freed_memory()


PROCESS = """
import sys, torch
from visattn.models import LSTMDecoder
torch.manual_seed(0)
decoder = LSTMDecoder(331, 13, hidden=61, embedding=19, dropout=0.0)
logits, glimpse = decoder(decoder.prepare(torch.randn(2, 35, 13), (5, 7)), torch.randint(4, 331, (6, 11)))
logits.square().mean().backward()
torch.save([logits.detach(), glimpse.weights.detach(), *(p.grad for p in decoder.parameters())], sys.argv[1])
"""


def test_processes_with_and_without_them_train_alike(tmp_path):
    results = []
    for switch in "10":
        environment = {**os.environ, "VISATTN_FAST": switch, "VISATTN_ONEDNN": "1"}
        subprocess.run([sys.executable, "-c", PROCESS, tmp_path / switch], env=environment, check=True, timeout=120)
        results.append(torch.load(tmp_path / switch))
    assert_same(*results, torch.float32)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (61, 1), (61, 43)])
def test_a_png_file_has_the_pixels_and_the_resolution(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)[..., :3]  # a view, as of a canvas
    plain = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(plain, format="png", dpi=(137, 137))
    with Image.open(io.BytesIO(encode_png(pixels, 137))) as fast, Image.open(plain) as expected:
        fast.load()  # checks the sums of every part
        assert (fast.mode, fast.format, fast.info) == (expected.mode, expected.format, expected.info)
        assert np.array_equal(np.asarray(fast), pixels)


def test_a_drawing_is_the_same_without_them(monkeypatch):
    figure = Figure(figsize=(2, 1), dpi=71)
    figure.text(0.1, 0.4, "a dog")
    found = []
    for switch in "10":
        monkeypatch.setenv("VISATTN_FAST", switch)
        with Image.open(io.BytesIO(encode_figure(figure))) as image:
            found.append((np.asarray(image), image.info))
    assert found[0][0].min() < 128
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_products_of_bfloat16_numbers_are_exact_in_float32():
    """And PyTorch's switch is set back, and left alone beside another thread."""
    left, right = draw(3, 61, 47).bfloat16().float(), draw(3, 47, 53, seed=1).bfloat16().float()
    exact = left.double() @ right.double()
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    with bfloat16_products(left, torch.bfloat16):
        inside, found = switch.fp32_precision, torch.bmm(left, right)
    assert inside == ("bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else before)
    assert switch.fp32_precision == before
    torch.testing.assert_close(found, exact.float(), rtol=0, atol=2e-5)
    with bfloat16_products(left, torch.float32):
        assert switch.fp32_precision == before
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    with bfloat16_products(left, torch.bfloat16):
        assert switch.fp32_precision == before
    done.set()
    other.join()


def test_recorded_weights_are_the_same_without_them(monkeypatch):
    torch.manual_seed(0)
    sizes = {"img_size": (80, 112), "embed_dim": 42, "depth": 2, "num_heads": 3}  # 14^-1/2 is no power of two
    model = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)
    with torch.autocast("cpu", torch.bfloat16), record(model) as attention:
        model(draw(7, 3, 80, 112))
    found = []
    for switch in "10":
        monkeypatch.setenv("VISATTN_FAST", switch)
        found.append([entry.weights() for entry in attention])
    assert attention[0]._call.out.dtype == torch.bfloat16
    for fast, plain in zip(*found, strict=True):
        assert fast.shape == (7, 3, 36, 36)
        torch.testing.assert_close(fast.sum(-1), torch.ones(7, 3, 36), rtol=0, atol=1e-5)
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-6)
