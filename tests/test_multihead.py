"""Multi-head attention: the fused path, the explained one and the cached one are one function, and it is PyTorch's."""

import copy

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from visattn.attention import MultiHeadAttention, MultiHeadSelfAttention
from visattn.errors import InputError

B, N, T, H, W, HEADS, Q, D, A = 2, 7, 5, 3, 11, 5, 13, 17, 30


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def causal():
    torch.manual_seed(1)
    return MultiHeadSelfAttention(A, HEADS, causal=True)


def cross(query_size=Q, value_size=D, heads=HEADS, size=A):
    torch.manual_seed(2)
    return MultiHeadAttention(query_size, value_size, heads, size)


def remember(attention, masked=False):
    mask = torch.rand(B, H * W, generator=torch.Generator().manual_seed(4)) < 0.6 if masked else None
    return attention.prepare(draw(B, H * W, D, seed=3), (H, W), mask)


def test_causal_weights_explain_the_fused_output():
    attention, x = causal(), draw(B, N, A)
    weights = attention.weights(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, N))
    assert torch.all(weights.triu(1) == 0)
    value = attention.qkv(x)[..., 2 * A :].unflatten(-1, (HEADS, -1)).transpose(1, 2)
    torch.testing.assert_close(attention.proj((weights @ value).transpose(1, 2).flatten(2)), attention(x))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_first_token_alone_and_with_weights_are_what_forward_has(ordered, bias):
    torch.manual_seed(1)
    attention, x = MultiHeadSelfAttention(A, HEADS, bias, causal=ordered), draw(B, N, A)
    torch.testing.assert_close(attention.first(x), attention(x)[:, 0])
    out, weights = attention.with_weights(x)
    torch.testing.assert_close(out, attention(x))
    torch.testing.assert_close(weights, attention.weights(x))


@pytest.mark.parametrize("ordered", [True, False])
def test_in_bfloat16_the_way_by_hand_is_the_exact_one_but_for_rounding(ordered):
    """Forward and backward, with and without a recorder, which makes it call PyTorch's kernel."""
    exact, x = MultiHeadSelfAttention(A, HEADS, causal=ordered), draw(B, N, A)
    torch.manual_seed(6)
    for parameter in exact.parameters():
        parameter.data.normal_(std=0.3)
    heard = []

    class Listener(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            heard.extend([function] * (function is nn.functional.scaled_dot_product_attention))
            return function(*args, **(kwargs or {}))

    def run(dtype):
        attention, tokens = copy.deepcopy(exact).to(dtype), x.to(dtype).requires_grad_()
        out = attention(tokens)
        (out.double() * draw(B, N, A, seed=7).double()).sum().backward()
        return out.double(), tokens.grad.double()

    with Listener():
        fused = run(torch.bfloat16)
    assert len(heard) == 1
    truth, by_hand = run(torch.float64), run(torch.bfloat16)
    for exactly, kernel, hand in zip(truth, fused, by_hand, strict=True):
        off = (hand - exactly).norm() / exactly.norm()
        assert off < 0.02
        assert off < 2 * (kernel - exactly).norm() / exactly.norm()


def test_a_later_token_changes_nothing_before_it():
    attention, x = causal(), draw(B, N, A)
    other = x.clone()
    other[:, 4] = 9.0
    assert torch.equal(attention(other)[:, :4], attention(x)[:, :4])
    assert not torch.isclose(attention(other)[:, 4:], attention(x)[:, 4:]).all(dim=-1).any()


def test_step_equals_forward_and_keeps_what_it_had():
    attention, x = causal(), draw(B, N, A)
    cache = (torch.empty(B, HEADS, 0, A // HEADS),) * 2
    for t in range(N):
        before = cache
        out, cache = attention.step(x[:, t], cache)
        torch.testing.assert_close(out, attention(x)[:, t])
        for new, old in zip(cache, before, strict=True):
            assert new.shape == (B, HEADS, t + 1, A // HEADS)
            assert torch.equal(new[:, :, :t], old)


@pytest.mark.parametrize("masked", [False, True])
def test_one_query_many_queries_and_the_fused_path_agree(masked):
    attention, queries = cross(), draw(B, T, Q)
    memory = remember(attention, masked)
    assert memory.keys.shape == memory.projected.shape == (B, HEADS, H * W, A // HEADS)
    together, weights = attention.glimpses(queries, memory), attention.head_weights(queries, memory)
    assert together.context.shape == (B, T, D)
    assert weights.shape == (B, HEADS, T, H * W)
    torch.testing.assert_close(together.context, attention.attend(queries, memory), rtol=0, atol=1e-5)
    torch.testing.assert_close(together.weights, weights.mean(1))
    assert together.focus is together.weights
    assert torch.all(together.log_prob == 0)
    for t in range(T):
        for one, whole in zip(attention(queries[:, t], memory, t), together, strict=True):
            torch.testing.assert_close(one, whole[:, t])


def test_head_weights_are_distributions_that_explain_the_context():
    attention, queries = cross(), draw(B, T, Q)
    memory = remember(attention, masked=True)
    weights = attention.head_weights(queries, memory)
    assert torch.all(weights >= 0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, T))
    assert torch.all(weights.masked_select(~memory.mask[:, None, None]) == 0)
    value = attention.value(memory.values).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    context = attention.proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(context, attention.attend(queries, memory), rtol=0, atol=1e-5)


def test_mask_equals_leaving_places_out():
    attention, queries = cross(), draw(B, T, Q)
    values, mask = draw(B, H * W, D, seed=3), torch.arange(H * W).expand(B, -1) < 22
    masked, short = attention.prepare(values, (H, W), mask), attention.prepare(values[:, :22], (2, 11))
    torch.testing.assert_close(attention.attend(queries, masked), attention.attend(queries, short))
    whole, part = attention.glimpses(queries, masked), attention.glimpses(queries, short)
    torch.testing.assert_close(whole.context, part.context)
    torch.testing.assert_close(whole.weights[..., :22], part.weights)


def test_equals_pytorchs_multihead_attention_with_the_same_weights():
    ours, theirs = cross(A, A), nn.MultiheadAttention(A, HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(A), ours.value.bias]))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    queries, values = draw(B, T, A), draw(B, H * W, A, seed=3)
    memory = ours.prepare(values, (H, W))
    context, weights = theirs(queries, values, values, average_attn_weights=False)
    torch.testing.assert_close(ours.attend(queries, memory), context)
    torch.testing.assert_close(ours.head_weights(queries, memory), weights)


def test_gradients_of_the_explained_path_are_those_of_the_fused_one():
    attention, queries = cross(), draw(B, T, Q)
    one = torch.autograd.grad(attention.attend(queries, remember(attention)).square().sum(), attention.parameters())
    other = attention.glimpses(queries, remember(attention)).context.square().sum()
    for fused, explained in zip(one, torch.autograd.grad(other, attention.parameters()), strict=True):
        torch.testing.assert_close(fused, explained, rtol=1e-4, atol=1e-5)


def test_bfloat16_agrees_within_two_percent():
    attention, queries = cross(), draw(B, T, Q)
    exact = attention.glimpses(queries, remember(attention))
    words, x = causal(), draw(B, N, A)
    with torch.autocast("cpu", torch.bfloat16):
        memory = remember(attention)
        rough, fused = attention.glimpses(queries, memory), attention.attend(queries, memory)
        weights = words.weights(x)
    assert rough.weights.dtype == weights.dtype == torch.float32
    torch.testing.assert_close(rough.weights, exact.weights, rtol=0, atol=0.02)
    torch.testing.assert_close(rough.context.float(), exact.context, rtol=0, atol=0.05)
    torch.testing.assert_close(rough.context, fused, rtol=0, atol=0.02)
    torch.testing.assert_close(weights, words.weights(x), rtol=0, atol=0.02)


def test_size_is_the_querys_unless_given():
    assert MultiHeadAttention(30, D, heads=5).query.out_features == 30


def test_heads_must_divide_the_size():
    with pytest.raises(InputError, match="30 is not divisible by 7 heads"):
        cross(heads=7)
