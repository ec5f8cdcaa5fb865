"""Ablated attention: only the distribution over places changes, temporarily."""

import pytest
import torch
from torch import nn

from visattn.attention import (
    DotScore,
    HardAttention,
    MonotonicLocalAttention,
    MultiHeadAttention,
    ShuffledWeights,
    SoftAttention,
    UniformWeights,
    ablated,
)
from visattn.attention.ablated import Ablated, AblatedHeads
from visattn.decoding import Greedy, decode
from visattn.models import LSTMDecoder, LuongDecoder, TransformerDecoder

B, K, T, H, W, Q, D, V, HEADS = 2, 3, 7, 3, 5, 12, 13, 17, 4
L = H * W


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_mask():
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, 11:] = False
    mask[1, [0, 4, 8]] = False
    return mask


def remember(mechanism, mask=None):
    return mechanism.eval().prepare(draw(B, L, mechanism_size(mechanism), seed=1), (H, W), mask)


def mechanism_size(mechanism):
    return Q if isinstance(mechanism, SoftAttention) and isinstance(mechanism.score, DotScore) else D


def seeded(kind, *args, **options):
    torch.manual_seed(2)
    return kind(*args, **options).eval()


def rows_of_mask(mask):
    return mask.repeat_interleave(K, dim=0)


# ------------------------------------------------------------------------------------------------------------- changes


def test_uniform_keeps_what_a_word_takes_in_all_and_leaves_masked_places_out():
    weights = torch.tensor([[[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], [[0.3, 0.0, 0.3], [0.5, 0.0, 0.1]]])
    mask = torch.tensor([[True, True, True], [True, False, True]])
    changed = UniformWeights()(weights, mask)
    third = 1 / 3
    expected = [[[third] * 3, [third] * 3], [[0.3, 0, 0.3], [0.3, 0, 0.3]]]
    torch.testing.assert_close(changed, torch.tensor(expected))
    torch.testing.assert_close(UniformWeights()(weights[:1], None), changed[:1])


@pytest.mark.parametrize("masked", [False, True])
def test_a_shuffle_keeps_the_multiset_of_each_row_and_moves_a_words_rows_alike(masked):
    mask = rows_of_mask(some_mask()) if masked else None
    weights = draw(B * K, 2, L).softmax(dim=-1)
    if masked:
        weights = weights * mask.unsqueeze(1)
    changed = ShuffledWeights(5)(weights, mask)
    assert torch.equal(changed.sort(dim=-1).values, weights.sort(dim=-1).values)
    if masked:
        assert (changed[~mask.unsqueeze(1).expand_as(changed)] == 0).all()
        assert (changed[mask.unsqueeze(1).expand_as(changed)] > 0).all()
    for before, after in zip(weights, changed, strict=True):
        assert not torch.equal(before, after)
        to = [int((after[0] == value).nonzero()[0]) for value in before[0]]
        if not masked:
            assert torch.equal(after[1, to], before[1])


def test_shuffles_are_seeded_and_each_word_has_its_own():
    weights = torch.arange(L, dtype=torch.float).expand(B * K, 1, L)
    first, again, other = (ShuffledWeights(seed)(weights, None) for seed in (3, 3, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(row.tolist()) for row in first[:, 0]}) == B * K
    shuffle = ShuffledWeights(3)
    assert torch.equal(shuffle(weights, None), first)
    assert not torch.equal(shuffle(weights, None), first)  # the next words have other ones


def test_a_shuffle_moves_a_weight_to_every_allowed_place_equally_often():
    count, places, mask = 6007, 5, torch.tensor([True, True, False, True, True])
    weights = torch.zeros(count, 1, places)
    weights[..., 1] = 1
    found = ShuffledWeights(0)(weights, mask.expand(count, places)).sum(dim=(0, 1))
    assert found[2] == 0
    error = (count * 0.25 * 0.75) ** 0.5
    assert ((found[mask] - count / 4).abs() < 3 * error).all()


# ---------------------------------------------------------------------------------------------------------- mechanisms


@pytest.mark.parametrize("mask", [None, some_mask()])
def test_uniform_attention_is_attention_whose_query_says_nothing(mask):
    soft = seeded(SoftAttention, Q, Q, score=DotScore)
    heads = seeded(MultiHeadAttention, Q, D, HEADS)
    nn.init.zeros_(heads.query.bias)
    query = draw(B * K, Q, seed=3)
    for kind, mechanism in ((Ablated, soft), (AblatedHeads, heads)):
        memory = remember(mechanism, mask)
        seen, blind = kind(mechanism, UniformWeights())(query, memory, 0), mechanism(torch.zeros_like(query), memory, 0)
        torch.testing.assert_close(seen.context, blind.context)
        torch.testing.assert_close(seen.weights, blind.weights)
        torch.testing.assert_close(seen.focus, blind.focus)
        assert not torch.allclose(mechanism(query, memory, 0).context, blind.context)


def test_of_one_place_nothing_is_ablated():
    soft, query = seeded(SoftAttention, Q, D), draw(B * K, Q, seed=3)
    memory = soft.prepare(draw(B, 1, D), (1, 1))
    for change in (UniformWeights(), ShuffledWeights()):
        for part, whole in zip(Ablated(soft, change)(query, memory, 0), soft(query, memory, 0), strict=True):
            assert torch.equal(part, whole)


def test_a_shuffled_context_is_made_of_the_shuffled_weights():
    soft, mask, query = seeded(SoftAttention, Q, D), some_mask(), draw(B * K, Q, seed=3)
    memory = remember(soft, mask)
    intact, seen = soft(query, memory, 0), Ablated(soft, ShuffledWeights(1))(query, memory, 0)
    assert torch.equal(seen.weights.sort(dim=-1).values, intact.weights.sort(dim=-1).values)
    values = memory.values.repeat_interleave(K, dim=0)
    torch.testing.assert_close(seen.context, (seen.weights.unsqueeze(1) @ values).squeeze(1))
    assert torch.equal(seen.weights, seen.focus)
    assert (seen.weights[~rows_of_mask(mask)] == 0).all()


def test_hard_attention_sees_another_place_or_the_mean_of_all():
    hard, mask, query = seeded(HardAttention, Q, D), some_mask(), draw(B * K, Q, seed=3)
    memory = remember(hard, mask)
    intact = hard(query, memory, 0)
    values = memory.values.repeat_interleave(K, dim=0)
    moved = Ablated(hard, ShuffledWeights(2))(query, memory, 0)
    assert torch.equal(moved.focus.sort(dim=-1).values, intact.focus.sort(dim=-1).values)  # one place
    assert (moved.focus.argmax(dim=-1) != intact.focus.argmax(dim=-1)).any()
    assert torch.equal(moved.context, values[torch.arange(B * K), moved.focus.argmax(dim=-1)])
    assert torch.equal(moved.weights.argmax(dim=-1), moved.focus.argmax(dim=-1))  # α went along
    even = Ablated(hard, UniformWeights())(query, memory, 0)
    share = rows_of_mask(mask) / rows_of_mask(mask).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(even.focus, share)
    torch.testing.assert_close(even.context, (share.unsqueeze(1) @ values).squeeze(1))
    assert (intact.log_prob < 0).all()
    assert (moved.log_prob == 0).all()


def test_local_attention_looks_beyond_its_window():
    local, query = seeded(MonotonicLocalAttention, Q, D), draw(B * K, Q, seed=3)
    memory = remember(local)
    assert (local(query, memory, 0).weights == 0).any()
    seen = Ablated(local, UniformWeights())(query, memory, 0)
    torch.testing.assert_close(seen.weights, torch.full((B * K, L), 1 / L))


def test_weights_of_heads_make_the_contexts():
    heads = seeded(MultiHeadAttention, Q, D, HEADS)
    memory, queries = remember(heads, some_mask()), draw(B * K, T, Q, seed=4)
    torch.testing.assert_close(
        heads.contexts(heads.head_weights(queries, memory), memory), heads.attend(queries, memory)
    )
    shuffled = AblatedHeads(heads, ShuffledWeights(1))
    intact, moved = heads.head_weights(queries, memory), shuffled.head_weights(queries, memory)
    assert torch.equal(moved.sort(dim=-1).values, intact.sort(dim=-1).values)
    glimpse = AblatedHeads(heads, ShuffledWeights(1)).glimpses(queries, memory)
    torch.testing.assert_close(glimpse.weights, moved.mean(dim=1))  # of the same seed
    torch.testing.assert_close(glimpse.context, heads.contexts(moved, memory))
    torch.testing.assert_close(AblatedHeads(heads, ShuffledWeights(1)).attend(queries, memory), glimpse.context)


# ------------------------------------------------------------------------------------------------------------ decoders


def lstm(**options):
    return LSTMDecoder(V, D, hidden=Q, embedding=11, **options)


def luong():
    return LuongDecoder(V, D, attention=lambda q, d: MultiHeadAttention(q, d, HEADS), hidden=Q, embedding=11)


def transformer():
    return TransformerDecoder(V, D, size=Q, layers=3, heads=3)


@pytest.mark.parametrize("make", [lstm, luong, transformer])
def test_a_decoder_is_ablated_for_a_while_and_then_as_it_was(make):
    torch.manual_seed(6)
    decoder = make().eval()
    memory = decoder.prepare(draw(B, L, D, seed=1), (H, W), some_mask())
    tokens = torch.randint(4, V, (B * K, T), generator=torch.Generator().manual_seed(7))
    intact, seen = decoder(memory, tokens)
    modules, names = list(decoder.modules()), list(decoder.state_dict())
    with ablated(decoder, UniformWeights()):
        logits, glimpses = decoder(memory, tokens)
        state = decoder.init(memory, K)
        steps = []
        for t in range(T):
            step, glimpse, state = decoder.step(state, tokens[:, t])
            steps.append(step)
            torch.testing.assert_close(glimpse.weights, glimpses.weights[:, t])
        share = rows_of_mask(some_mask()) / rows_of_mask(some_mask()).sum(dim=-1, keepdim=True)
        torch.testing.assert_close(glimpses.weights, share.unsqueeze(1).expand(-1, T, -1))
        words = decode(decoder, memory, Greedy(), max_length=5).tokens
    torch.testing.assert_close(torch.stack(steps, dim=1), logits)
    assert words.shape[0] == B
    assert not torch.allclose(logits, intact)
    assert list(decoder.modules()) == modules
    assert list(decoder.state_dict()) == names
    assert torch.equal(decoder(memory, tokens)[0], intact)
    with ablated(decoder, ShuffledWeights(0)):
        moved = decoder(memory, tokens)
    with ablated(decoder, ShuffledWeights(0)):
        assert torch.equal(decoder(memory, tokens)[0], moved[0])
    assert not torch.allclose(moved[0], intact)
    with pytest.raises(RuntimeError, match="in the middle"), ablated(decoder, UniformWeights()):
        raise RuntimeError("in the middle")
    assert torch.equal(decoder(memory, tokens)[1].weights, seen.weights)


def test_every_layer_of_a_transformer_is_ablated():
    torch.manual_seed(6)
    decoder = transformer().eval()
    values = draw(B, L, D, seed=1)
    tokens = torch.randint(4, V, (B, T), generator=torch.Generator().manual_seed(7))
    with ablated(decoder, UniformWeights()):
        maps = decoder.head_maps(decoder.prepare(values, (H, W)), tokens)
    torch.testing.assert_close(maps, torch.full_like(maps, 1 / L))


def test_a_module_without_attention_cannot_be_ablated():
    with (
        pytest.raises(ValueError, match="Linear has no attention to places"),
        ablated(nn.Linear(2, 3), UniformWeights()),
    ):
        pass
