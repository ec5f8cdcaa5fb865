"""Attention beside the places: the visual sentinel, equations 9 to 12 of Lu et al. 2017, by hand; and the whole."""

import pytest
import torch
from torch import nn

from visattn.attention import (
    DotScore,
    GeneralScore,
    LocationScore,
    SentinelAttention,
    ShuffledWeights,
    UniformWeights,
    WholeAttention,
    ablated,
)
from visattn.errors import InputError
from visattn.models import LSTMDecoder, LuongDecoder

B, K, L, Q, D = 2, 3, 11, 7, 5
GRID = (1, L)


def given(seed=0):
    torch.manual_seed(seed)
    return torch.randn(B * K, Q), torch.randn(B, L, D)


@pytest.mark.parametrize("score", [GeneralScore, None])
def test_the_context_is_that_of_the_equations(score):
    query, values = given()
    attention = SentinelAttention(Q, D, score) if score else SentinelAttention(Q, D)
    seen = attention(query, attention.prepare(values, GRID), 0)
    for n in range(B * K):
        places, q = values[n // K], query[n]
        s = torch.sigmoid(attention.gate(q)) * torch.tanh(attention.known(q))  # eq. 9 and 10
        keys = attention.score.keys(torch.cat([places, s[None]])[None])
        extended = attention.score(q[None, None], keys)[0, 0].softmax(-1)  # eq. 12
        alpha, beta = extended[:-1] / extended[:-1].sum(), extended[-1]
        torch.testing.assert_close(seen.weights[n], alpha)
        torch.testing.assert_close(seen.gate[n], 1 - beta)
        torch.testing.assert_close(seen.focus[n], alpha)
        torch.testing.assert_close(seen.context[n], beta * s + (1 - beta) * (alpha @ places))  # eq. 11


def test_a_sentinel_that_wins_leaves_nothing_of_the_picture():
    query, values = given()
    attention = SentinelAttention(Q, Q, DotScore)
    query, values = 30 * query.sign(), torch.randn(B, L, Q)
    attention.gate.bias.data.fill_(50.0)
    with torch.no_grad():
        attention.known.weight.copy_(torch.eye(Q))
    seen = attention(query, attention.prepare(values, GRID), 0)  # s is the query's sign; its score is 30 Q
    assert (seen.gate < 1e-3).float().mean() > 0.5
    wins = seen.gate < 1e-6
    torch.testing.assert_close(seen.context[wins], query[wins].sign(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.weights.sum(-1), torch.ones(B * K))


def test_changed_weights_leave_the_sentinel():
    query, values = given()
    attention = SentinelAttention(Q, D)
    memory = attention.prepare(values, GRID)
    seen, parent = attention(query, memory, 0), nn.ModuleList([attention])
    with ablated(parent, UniformWeights()):
        changed = parent[0](query, memory, 0)
    assert torch.equal(changed.gate, seen.gate)
    beta = 1 - seen.gate[:, None]
    mean = values.mean(dim=1).repeat_interleave(K, dim=0)
    torch.testing.assert_close(changed.context, beta * attention.beside(query, memory) + (1 - beta) * mean)


@pytest.mark.parametrize("order", [LSTMDecoder, LuongDecoder])
def test_decoders_report_what_is_left_of_the_picture(order):
    torch.manual_seed(0)
    decoder = order(13, D, SentinelAttention, hidden=Q, embedding=3, dropout=0.0)
    state = decoder.init(decoder.prepare(given()[1], GRID), K)
    queries = []
    decoder.attention.register_forward_hook(lambda _, got, seen: queries.append((got[0], seen.gate)))
    _, seen, _ = decoder.step(state, torch.full((B * K,), 4))
    ((query, share),) = queries
    own = torch.sigmoid(decoder.beta(query))[:, 0] if order is LSTMDecoder else torch.ones(B * K)
    torch.testing.assert_close(seen.gate, own * share)


def whole(values, mask=None):
    torch.manual_seed(3)
    attention = WholeAttention(Q, D)
    return attention, attention.prepare(values, (1, values.shape[1]), mask)


def test_the_whole_and_the_differences_from_it_share_a_word():
    query, values = given()
    attention, memory = whole(values)
    seen = attention(query, memory, 0)
    for n in range(B * K):
        mean = values[n // K].mean(dim=0)
        places, q = values[n // K] - mean, query[n]
        scores = attention.score(q[None, None], attention.score.keys(torch.cat([places, mean[None]])[None]))[0, 0]
        exponentials = (scores + torch.tensor([0.0] * L + [L]).clamp(min=1).log()).exp()  # the whole counts L times
        alpha, beta = exponentials[:-1] / exponentials[:-1].sum(), exponentials[-1] / exponentials.sum()
        torch.testing.assert_close(seen.weights[n], alpha)
        torch.testing.assert_close(seen.gate[n], 1 - beta)
        torch.testing.assert_close(seen.context[n], beta * mean + (1 - beta) * (alpha @ places))


def test_uniform_weights_of_places_leave_the_whole_alone():
    query, values = given()
    attention, memory = whole(values)
    seen, parent = attention(query, memory, 0), nn.ModuleList([attention])
    with ablated(parent, UniformWeights()):
        changed = parent[0](query, memory, 0)
    torch.testing.assert_close(changed.weights, torch.full((B * K, L), 1 / L))
    assert torch.equal(changed.gate, seen.gate)
    mean = values.mean(dim=1).repeat_interleave(K, dim=0)
    torch.testing.assert_close(changed.context, (1 - seen.gate[:, None]) * mean)


def test_a_shuffle_moves_weights_of_places_alone():
    query, values = given()
    mask = torch.arange(L).expand(B, L) < L - 4
    attention, memory = whole(values, mask)
    seen, parent = attention(query, memory, 0), nn.ModuleList([attention])
    with ablated(parent, ShuffledWeights(5)):
        changed = parent[0](query, memory, 0)
    assert torch.equal(changed.weights.sort().values, seen.weights.sort().values)
    assert not torch.equal(changed.weights, seen.weights)
    assert torch.equal(changed.gate, seen.gate)
    assert not changed.weights[:, L - 4 :].any()


@pytest.mark.parametrize("attention", [SentinelAttention, WholeAttention])
def test_what_has_no_number_needs_a_score_by_content(attention):
    with pytest.raises(InputError, match="LocationScore"):
        attention(Q, D, LocationScore)
