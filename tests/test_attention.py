"""Properties of attention, through the public interface; sizes are distinct primes."""

import numpy as np
import pytest
import torch

from visattn.attention import (
    AdditiveScore,
    DotScore,
    FinalStateAttention,
    GeneralScore,
    LocationScore,
    MeanAttention,
    MultiHeadSelfAttention,
    ScaledDotScore,
    SoftAttention,
    attend,
)
from visattn.errors import InputError

B, H, W, D, Q = 2, 3, 5, 11, 7
SCORES = {
    "additive": AdditiveScore,
    "general": GeneralScore,
    "dot": DotScore,
    "scaled": ScaledDotScore,
    "location": LocationScore,
}


def query_and_values(score, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query_size = D if issubclass(score, DotScore) else Q
    return (
        torch.randn(B, query_size, generator=generator),
        torch.randn(B, H * W, D, generator=generator),
        SoftAttention(query_size, D, score),
    )


def test_worked_example():
    words = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    np.random.seed(42)
    queries, keys, values = (words @ torch.from_numpy(np.random.randint(3, size=(3, 3))).double() for _ in range(3))
    output, weights = attend(queries, keys, values)
    expected = [
        [0.98522025, 1.74174051, 0.75652026],
        [0.90965265, 1.40965265, 0.5],
        [0.99851226, 1.75849334, 0.75998108],
        [0.99560386, 1.90407309, 0.90846923],
    ]
    np.testing.assert_allclose(output, expected, atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, dtype=torch.float64))


def test_attend_mask_removes_places():
    query, keys, values = torch.randn(3, 5), torch.randn(7, 5), torch.randn(7, 11)
    mask = torch.tensor([True] * 4 + [False] * 3)
    masked, weights = attend(query, keys, values, mask)
    torch.testing.assert_close(masked, attend(query, keys[:4], values[:4])[0])
    assert torch.all(weights[:, 4:] == 0)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_soft_attention_is_a_distribution_and_its_context_the_mean(score):
    query, values, attention = query_and_values(score)
    glimpse = attention(query, attention.prepare(values, (H, W)), 0)
    assert glimpse.weights.shape == (B, H * W)
    assert torch.all(glimpse.weights >= 0)
    torch.testing.assert_close(glimpse.weights.sum(-1), torch.ones(B))
    torch.testing.assert_close(glimpse.context, torch.einsum("bl,bld->bd", glimpse.weights, values))
    assert glimpse.focus is glimpse.weights
    assert torch.all(glimpse.log_prob == 0)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_mask_equals_leaving_places_out(score):
    query, values, attention = query_and_values(score)
    mask = torch.arange(H * W).expand(B, -1) < 10
    masked = attention(query, attention.prepare(values, (H, W), mask), 0)
    short = attention(query, attention.prepare(values[:, :10], (2, 5)), 0)
    torch.testing.assert_close(masked.context, short.context)
    torch.testing.assert_close(masked.weights[:, :10], short.weights)
    assert torch.all(masked.weights[:, 10:] == 0)


def test_scores_have_the_papers_values():
    query, value = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0], [0.5, 4.0]]])
    dot = DotScore(2, 2)
    torch.testing.assert_close(dot(query, dot.keys(value)), torch.tensor([[[1.0, 8.5]]]))
    scaled = ScaledDotScore(2, 2)
    torch.testing.assert_close(scaled(query, scaled.keys(value)), torch.tensor([[[1.0, 8.5]]]) / 2**0.5)
    general = GeneralScore(2, 2)
    weight = general.key.weight
    torch.testing.assert_close(general(query, general.keys(value)), query @ weight @ value.mT)
    additive = AdditiveScore(2, 2, hidden=3)
    by_hand = torch.stack(
        [
            additive.energy.weight[0]
            @ torch.tanh(additive.query.weight @ query[0, 0] + additive.key.weight @ place + additive.key.bias)
            for place in value[0]
        ]
    )
    torch.testing.assert_close(additive(query, additive.keys(value))[0, 0], by_hand)


def test_location_score_looks_at_the_query_alone():
    score = LocationScore(Q, D, places=19)
    query, values = torch.randn(B, 1, Q), torch.randn(B, H * W, D)
    scores = score(query, score.keys(values))
    torch.testing.assert_close(scores, (query @ score.energy.weight.T)[..., : H * W])
    assert torch.equal(scores, score(query, score.keys(values + 1)))


def test_location_score_refuses_more_places_than_it_has():
    attention = SoftAttention(Q, D, lambda q, d: LocationScore(q, d, places=13))
    with pytest.raises(InputError, match=r"13 places.* 15.*option places"):
        attention.prepare(torch.zeros(1, H * W, D), (H, W))
    with pytest.raises(InputError, match="places is 0"):
        LocationScore(Q, D, places=0)


def test_dot_score_refuses_unequal_sizes():
    with pytest.raises(InputError, match="same size, not 7 and 11"):
        SoftAttention(7, 11, DotScore)


def test_grid_must_hold_the_places():
    attention = SoftAttention(Q, D)
    with pytest.raises(ValueError, match="3×5 places cannot hold 14"):
        attention.prepare(torch.zeros(1, 14, D), (3, 5))


def test_memory_rows_repeat_an_image():
    attention = SoftAttention(Q, D)
    memory = attention.prepare(torch.randn(B, H * W, D), (H, W), torch.ones(B, H * W, dtype=torch.bool))
    owner = torch.tensor([1, 1, 0])
    rows = memory.rows(owner)
    torch.testing.assert_close(rows.values, memory.values[owner])
    torch.testing.assert_close(rows.keys, memory.keys[owner])
    assert rows.mask.shape == (3, H * W)
    assert rows.grid == (H, W)


def test_bfloat16_agrees_within_two_percent():
    query, values, attention = query_and_values(AdditiveScore)
    exact = attention(query, attention.prepare(values, (H, W)), 0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(query, attention.prepare(values, (H, W)), 0)
    assert rough.weights.dtype == torch.float32
    torch.testing.assert_close(rough.weights, exact.weights, rtol=0, atol=0.02)
    torch.testing.assert_close(rough.context.float(), exact.context, rtol=0, atol=0.05)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_multihead_weights_explain_the_fused_output(heads):
    torch.manual_seed(1)
    attention = MultiHeadSelfAttention(30, heads)
    x = torch.randn(3, 7, 30)
    weights = attention.weights(x)
    assert weights.shape == (3, heads, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, heads, 7))
    value = attention.qkv(x)[..., 60:].unflatten(-1, (heads, -1)).transpose(1, 2)
    torch.testing.assert_close(attention.proj((weights @ value).transpose(1, 2).flatten(2)), attention(x))


def test_multihead_refuses_heads_that_do_not_divide():
    with pytest.raises(InputError, match=r"30 .* by 7 heads"):
        MultiHeadSelfAttention(30, 7)


@pytest.mark.parametrize("fast", "10")
def test_the_additive_score_is_the_published_one_with_its_gradient(fast, monkeypatch):
    """e = vᵀ tanh(W q + U k + b), however it is computed; large and small pre-activations, of either sign."""
    monkeypatch.setenv("VISATTN_FAST", fast)
    torch.manual_seed(0)
    score = AdditiveScore(7, 11, hidden=13).double()
    query, values = torch.randn(2, 3, 7).double().requires_grad_(), torch.randn(2, 5, 11).double().requires_grad_()

    def published(query, values):
        return score.energy(torch.tanh(score.query(query).unsqueeze(2) + score.key(values).unsqueeze(1))).squeeze(-1)

    for scale in (1e-3, 1.0, 20.0):
        ours, theirs = score(scale * query, score.keys(scale * values)), published(scale * query, scale * values)
        torch.testing.assert_close(ours, theirs)
        weight = torch.randn_like(ours)
        inputs = [query, values, *score.parameters()]
        gradients = [torch.autograd.grad((weight * out).sum(), inputs) for out in (ours, theirs)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
    assert torch.autograd.gradcheck(lambda q, v: score(q, score.keys(v)), (query, values))
    with torch.autocast("cpu", torch.float16):
        score, query, values = score.float(), 1e3 * query.float(), -1e3 * values.float()
        scores = score(query, score.keys(values))
        assert scores.isfinite().all()
    scores.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in score.parameters())


def test_without_attention_every_word_sees_the_mean_of_what_may_be_seen():
    values, mask = torch.randn(B, H * W, D), torch.arange(H * W).expand(B, -1) < 7
    attention, query = MeanAttention(Q, D), torch.randn(3 * B, Q)
    seen = attention(query, attention.prepare(values, (H, W), mask), 0)
    torch.testing.assert_close(seen.context, values[:, :7].mean(dim=1).repeat_interleave(3, dim=0))
    assert seen.weights[:, 7:].sum() == 0


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_fixed_vector_is_the_state_in_which_each_direction_ends(bidirectional):
    places, size = H * W, 2 * D
    values, mask = torch.randn(B, places, size), torch.zeros(B, places, dtype=torch.bool)
    mask[:, 2:7] = True
    attention, query = FinalStateAttention(Q, size, bidirectional), torch.randn(3 * B, Q)
    memory = attention.prepare(values, (H, W), mask)
    seen = attention(query, memory, 0)
    ends = torch.cat([values[:, 6, :D], values[:, 2 if bidirectional else 6, D:]], dim=1)
    torch.testing.assert_close(seen.context, ends.repeat_interleave(3, dim=0))
    assert seen.weights[0].nonzero().flatten().tolist() == ([2, 6] if bidirectional else [6])
    weights, vectors = attention.terms(query, memory, seen)
    context = torch.einsum("bkhl,bhld->bkd", memory.per_image(weights), vectors)
    torch.testing.assert_close(context.flatten(0, 1), seen.context)
    unmasked = attention(query, attention.prepare(values, (H, W)), 5).context
    ends = torch.cat([values[:, -1, :D], values[:, 0 if bidirectional else -1, D:]], dim=1)
    torch.testing.assert_close(unmasked, ends.repeat_interleave(3, dim=0))


def test_an_odd_vector_has_no_halves():
    with pytest.raises(InputError, match="bidirectional"):
        FinalStateAttention(Q, 11)
