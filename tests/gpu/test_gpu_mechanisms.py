"""Every mechanism on the device, forward and backward, is that of the CPU in float32."""

import copy

import pytest
import torch
from support.gpu import DEVICE, MARKS, apart
from test_own_classes import MECHANISMS

from visattn.attention import HardAttention, MultiHeadSelfAttention

pytestmark = MARKS

LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.05}
# Rounding moves what is at the edge of a support or a window in or out, and with it a part of the gradients.
ROUGH = {"sparsemax": 0.4, "entmax": 0.4, "local-p": 0.1, "local-m": 0.1}


def run(attention, query, values, dtype, device):
    """Context, weights, and the gradients of everything; of hard attention without its context, which is drawn."""
    attention = copy.deepcopy(attention).to(device).eval()
    query, values = (part.detach().clone().to(device).requires_grad_() for part in (query, values))
    draw = torch.Generator().manual_seed(3)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        glimpse = attention(query, attention.prepare(values, (5, 7)), 1)
    drawn = isinstance(attention, HardAttention) and attention.evaluation != "expected"
    parts = {"weights": glimpse.weights} if drawn else {"context": glimpse.context, "weights": glimpse.weights}
    losses = [(x.float() * torch.randn(x.shape, generator=draw).to(device)).sum() for x in parts.values()]
    torch.autograd.backward([loss for loss in losses if loss.requires_grad])
    tensors = {"query": query, "values": values, **dict(attention.named_parameters())}
    return {**parts, **{f"gradient of {name}": t.grad for name, t in tensors.items() if t.grad is not None}}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_on_the_device_is_that_of_the_cpu(name, dtype):
    torch.manual_seed(0)
    make, options = MECHANISMS[name]
    size = options.get("query_size", 28)
    attention, query, values = make(size, 44), torch.randn(6, size), torch.randn(2, 35, 44)
    expected = run(attention, query, values, torch.float32, torch.device("cpu"))
    found = run(attention, query, values, dtype, DEVICE)
    assert found.keys() == expected.keys()
    assert found["weights"].dtype == torch.float32
    off = {part: apart(found[part], expected[part]) for part in expected}
    rough = ROUGH.get(name, 0) if dtype == torch.bfloat16 else 0
    for part, distance in off.items():
        assert distance < (max(rough, LIMITS[dtype]) if part.startswith("gradient") else LIMITS[dtype]), off


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_on_the_device_is_that_of_the_cpu(causal, dtype):
    torch.manual_seed(0)
    own, x = MultiHeadSelfAttention(96, 3, causal=causal), torch.randn(5, 37, 96)

    def outputs(device, dtype):
        attention, tokens = copy.deepcopy(own).to(device), x.detach().clone().to(device).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            fused, (plain, weights), first = attention(tokens), attention.with_weights(tokens), attention.first(tokens)
        fused.float().square().mean().backward()
        parts = {"fused": fused, "plain": plain, "weights": weights, "first": first, "gradient": tokens.grad}
        return {**parts, "gradient of qkv": attention.qkv.weight.grad}

    expected, found = outputs(torch.device("cpu"), torch.float32), outputs(DEVICE, dtype)
    off = {name: apart(found[name], expected[name]) for name in expected}
    assert max(off.values()) < LIMITS[dtype], off
