"""Decoders and decoding: step equals forward, nothing of padding or of neighbours in a batch leaks in."""

import pytest
import torch

from visattn.attention import AdditiveScore, GeneralScore, SoftAttention
from visattn.decoding import captions, decode
from visattn.models import LSTMDecoder
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary

B, GRID, D, V, T = 3, (2, 5), 11, 17, 7


def soft(score):
    return lambda query, value: SoftAttention(query, value, score)


ATTENTIONS = {"additive": soft(AdditiveScore), "general": soft(GeneralScore)}


def decoder(attention=SoftAttention, seed=0, **options):
    torch.manual_seed(seed)
    return LSTMDecoder(V, D, attention, hidden=13, embedding=19, **options).eval()


def values(n=B, seed=5):
    return torch.randn(n, GRID[0] * GRID[1], D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_forward_equals_repeated_step(attention, masked):
    model = decoder(attention)
    mask = torch.rand(B, 10, generator=torch.Generator().manual_seed(3)) < 0.7 if masked else None
    memory = model.prepare(values(), GRID, mask)
    tokens = torch.randint(4, V, (B, T), generator=torch.Generator().manual_seed(2))
    logits, glimpses = model(memory, tokens)
    state = model.init(memory)
    for t in range(T):
        step_logits, glimpse, state = model.step(state, tokens[:, t])
        torch.testing.assert_close(step_logits, logits[:, t])
        for whole, one in zip(glimpses, glimpse, strict=True):
            torch.testing.assert_close(one, whole[:, t])


def test_state_rows_continue_the_same_captions():
    model = decoder()
    tokens = torch.tensor([4, 5, 6])
    _, _, state = model.step(model.init(model.prepare(values(), GRID)), tokens)
    index = torch.tensor([2, 0, 2])
    picked, _, _ = model.step(state.rows(index), tokens[index])
    whole, _, _ = model.step(state, tokens)
    torch.testing.assert_close(picked, whole[index])


def test_masked_places_do_not_matter():
    model = decoder()
    mask = torch.arange(10).expand(B, -1) < 7
    one, other = values(), values()
    other[:, 7:] = 99.0
    tokens = torch.full((B, T), 4)
    torch.testing.assert_close(
        model(model.prepare(one, GRID, mask), tokens)[0], model(model.prepare(other, GRID, mask), tokens)[0]
    )


def test_gate_scales_the_context():
    model = decoder()
    with torch.no_grad():
        model.beta.weight.zero_()
        model.beta.bias.fill_(-1e9)
    _, glimpse, _ = model.step(model.init(model.prepare(values(), GRID)), torch.full((B,), START))
    assert torch.all(glimpse.context == 0)
    torch.testing.assert_close(glimpse.weights.sum(-1), torch.ones(B))


def test_greedy_takes_the_best_word_at_each_step_and_reports_its_weights():
    model = decoder(seed=4)
    memory = model.prepare(values(), GRID)
    decoded = decode(model, memory, max_length=T)
    state, token = model.init(memory), torch.full((B,), START)
    for t in range(decoded.tokens.shape[1]):
        with torch.no_grad():
            logits, glimpse, state = model.step(state, token)
        banned = [PAD, START, UNKNOWN, *([END] if t == 0 else [])]
        log_probs = logits.log_softmax(-1)
        best = log_probs.index_fill(1, torch.tensor(banned), float("-inf")).argmax(-1)
        going = decoded.tokens[:, t] != PAD
        assert torch.all((decoded.tokens[:, t] == best)[going])
        torch.testing.assert_close(decoded.log_probs[going, t], log_probs.gather(1, best[:, None])[going, 0])
        torch.testing.assert_close(decoded.weights[going, t], glimpse.weights[going])
        token = decoded.tokens[:, t]


def test_batched_equals_one_by_one():
    model, many = decoder(seed=6), values(5)
    together = captions(decode(model, model.prepare(many, GRID), max_length=T), vocabulary(), GRID)
    for i, caption in enumerate(together):
        (alone,) = captions(decode(model, model.prepare(many[i : i + 1], GRID), max_length=T), vocabulary(), GRID)
        assert alone.words == caption.words
        assert alone.weights.shape == (len(caption.words), *GRID)
        torch.testing.assert_close(torch.tensor(alone.weights), torch.tensor(caption.weights))
        assert alone.log_prob == pytest.approx(caption.log_prob, abs=1e-5)


def vocabulary():
    return Vocabulary([*SPECIALS, *(f"w{i}" for i in range(V - 4))])


@pytest.mark.parametrize("favourite", [END, PAD, UNKNOWN, START, 9])
def test_a_caption_is_never_empty_and_never_endless(favourite):
    model = decoder()
    with torch.no_grad():
        model.out.bias[favourite] = 1e4
    decoded = decode(model, model.prepare(values(), GRID), max_length=T)
    for caption in captions(decoded, vocabulary(), GRID):
        assert 1 <= len(caption.words) <= T
        assert not set(caption.words) & set(SPECIALS)
    if favourite == 9:  # never ends: cut after max_length words, and the cut word is not counted
        assert torch.all(decoded.tokens[:, :T] == 9)
        assert torch.all(decoded.tokens[:, T:] == PAD)
        assert torch.all(decoded.log_probs[:, T:] == 0)
    if favourite == END:
        assert decoded.tokens.shape == (B, 2)
