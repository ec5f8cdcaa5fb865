"""The visual sentinel: equations 9 to 12 of Lu et al. 2017, by hand."""

import pytest
import torch
from torch import nn

from visattn.attention import DotScore, GeneralScore, LocationScore, SentinelAttention, UniformWeights, ablated
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
    torch.testing.assert_close(changed.context, beta * attention.sentinel(query) + (1 - beta) * mean)


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


def test_a_sentinel_needs_a_score_by_content():
    with pytest.raises(InputError, match="LocationScore"):
        SentinelAttention(Q, D, LocationScore)
