"""Decoders and decoding: `step` equals `forward`; padding and other images of a batch have no effect."""

from functools import partial

import pytest
import torch

from visattn.attention import (
    AdditiveScore,
    EntmaxAttention,
    GeneralScore,
    HardAttention,
    LocationScore,
    MeanAttention,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    SentinelAttention,
    SigmoidAttention,
    SoftAttention,
    SparsemaxAttention,
    WholeAttention,
)
from visattn.decoding import captions, decode
from visattn.errors import InputError
from visattn.models import Ensemble, LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.models.positions import grid_sinusoid
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary

B, GRID, D, V, T = 3, (3, 5), 11, 17, 7
L = GRID[0] * GRID[1]


def soft(score):
    return lambda query, value: SoftAttention(query, value, score)


def hard(evaluation):
    return lambda query, value: HardAttention(query, value, evaluation=evaluation)


ATTENTIONS = {
    "additive": soft(AdditiveScore),
    "general": soft(GeneralScore),
    "location": soft(LocationScore),
    "hard argmax": hard("argmax"),
    "hard sample": hard("sample"),
    "hard expected": hard("expected"),
    "sparsemax": SparsemaxAttention,
    "entmax": EntmaxAttention,
    "sigmoid": SigmoidAttention,
    "sentinel": SentinelAttention,
    "whole": WholeAttention,
    "mean": MeanAttention,
    "local-m": MonotonicLocalAttention,
    "local-p": PredictiveLocalAttention,
    "multi-head": lambda query, value: MultiHeadAttention(query, value, heads=2, size=14),
}
MEMBERS = (
    partial(LuongDecoder, hidden=13, embedding=19, placed=20),
    partial(TransformerDecoder, size=12, layers=1, heads=3),
    partial(LSTMDecoder, hidden=7, embedding=5),
)
DECODERS = {
    **{
        f"{order.__name__} {name}": (
            lambda order=order, attention=attention: order(V, D, attention, hidden=13, embedding=19)
        )
        for order in (LSTMDecoder, LuongDecoder)
        for name, attention in ATTENTIONS.items()
    },
    **{
        f"{order.__name__} placed": lambda order=order: order(V, D, hidden=13, embedding=19, placed=20)
        for order in (LSTMDecoder, LuongDecoder)
    },
    "LuongDecoder learned initial state": lambda: LuongDecoder(V, D, hidden=13, embedding=19, initial_state="learned"),
    "LuongDecoder without input feeding": lambda: LuongDecoder(V, D, hidden=13, embedding=19, input_feeding=False),
    "Transformer": lambda: TransformerDecoder(V, D, size=12, layers=2, heads=3),
    "Ensemble": lambda: Ensemble(V, D, MEMBERS),
}
every_decoder = pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)


def every_decoder_but(*kinds):
    return pytest.mark.parametrize("name", [name for name in DECODERS if not any(kind in name for kind in kinds)])


def decoder(make=DECODERS["LSTMDecoder additive"], seed=0):
    torch.manual_seed(seed)
    return make().eval()


def outputs(model):
    """The output layers of a decoder, or of an ensemble's members."""
    return [each.out for each in getattr(model, "members", [model])]


def values(n=B, seed=5):
    return torch.randn(n, L, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
@every_decoder
def test_forward_equals_repeated_step(make, masked):
    model = decoder(make)
    mask = torch.rand(B, L, generator=torch.Generator().manual_seed(3)) < 0.7 if masked else None
    memory = model.prepare(values(), GRID, mask)
    tokens = torch.randint(4, V, (B, T), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(1)  # the same draws in both
    logits, glimpses = model(memory, tokens)
    torch.manual_seed(1)
    state = model.init(memory)
    for t in range(T):
        step_logits, glimpse, state = model.step(state, tokens[:, t])
        torch.testing.assert_close(step_logits, logits[:, t])
        for whole, one in zip(glimpses, glimpse, strict=True):
            torch.testing.assert_close(one, whole[:, t])


@pytest.mark.parametrize("steps", [T, 2])
@every_decoder
def test_forward_learns_what_repeated_steps_learn(make, steps):
    """Gradients of every parameter, from the logits of all steps or only of the first ones."""
    model = decoder(make)
    parameters = list(model.parameters())
    tokens = torch.randint(4, V, (B, T), generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(B, T, V, generator=torch.Generator().manual_seed(7))[:, :steps]
    torch.manual_seed(1)  # the same draws in both
    logits = model(model.prepare(values(), GRID), tokens)[0][:, :steps]
    torch.autograd.grad(2 * logits[:, 0].sum(), parameters[:1], retain_graph=True, allow_unused=True)
    gradients = torch.autograd.grad((logits * upstream).sum(), parameters, allow_unused=True)
    torch.manual_seed(1)
    state, each = model.init(model.prepare(values(), GRID)), []
    for t in range(T):
        step_logits, _, state = model.step(state, tokens[:, t])
        each.append(step_logits)
    stepped = torch.stack(each[:steps], dim=1)
    expected = torch.autograd.grad((stepped * upstream).sum(), parameters, allow_unused=True)
    for gradient, known in zip(gradients, expected, strict=True):
        assert (gradient is None) == (known is None)
        if known is not None:
            torch.testing.assert_close(gradient, known, rtol=1e-4, atol=1e-5)


@every_decoder
def test_weights_are_a_distribution(make):
    """Local-p after its Gaussian: at most 1, as published."""
    _, glimpses = decoder(make)(decoder(make).prepare(values(), GRID), torch.full((B, T), 4))
    for weights in (glimpses.weights, glimpses.focus):
        assert weights.dtype == torch.float32
        assert torch.all(weights >= 0)
        total = weights.sum(-1)
        if isinstance(getattr(decoder(make), "attention", None), PredictiveLocalAttention):
            assert torch.all(total < 1)
        else:
            torch.testing.assert_close(total, torch.ones(B, T))


@every_decoder_but("sample")
def test_bfloat16_agrees_with_float32(name):
    """Weights within 0.02, logits within 0.05 where the same place won."""
    model = decoder(DECODERS[name])
    tokens = torch.full((B, T), 4)
    exact, seen = model(model.prepare(values(), GRID), tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough, roughly_seen = model(model.prepare(values(), GRID), tokens)
    assert roughly_seen.weights.dtype == torch.float32
    torch.testing.assert_close(roughly_seen.weights, seen.weights, rtol=0, atol=0.02)
    same = (seen.focus.argmax(-1) == roughly_seen.focus.argmax(-1)).all(-1)
    assert same.any()
    torch.testing.assert_close(rough.float()[same], exact[same], rtol=0, atol=0.05)


def test_the_memory_is_in_the_precision_of_the_products(monkeypatch):
    """Otherwise each step would convert all annotation vectors again."""
    monkeypatch.setenv("VISATTN_FAST", "1")
    model = decoder()
    with torch.autocast("cpu", torch.bfloat16):
        memory = model.prepare(values(), GRID)
    assert memory.values.dtype == memory.keys.dtype == torch.bfloat16
    assert model.prepare(values(), GRID).values.dtype == torch.float32


@every_decoder_but("sample")
def test_state_rows_continue_the_same_captions(name):
    model = decoder(DECODERS[name])
    tokens = torch.tensor([4, 5, 6])
    _, _, state = model.step(model.init(model.prepare(values(), GRID)), tokens)
    index = torch.tensor([2, 0, 2])
    picked, glimpse, _ = model.step(state.rows(index, index), tokens[index])
    whole, seen, _ = model.step(state, tokens)
    torch.testing.assert_close(glimpse.weights, seen.weights[index])
    torch.testing.assert_close(picked, whole[index])


@every_decoder_but("sample")
def test_captions_of_an_image_share_its_row_of_the_memory(name):
    model = decoder(DECODERS[name])
    mask = torch.rand(B, L, generator=torch.Generator().manual_seed(3)) < 0.7
    memory = model.prepare(values(), GRID, mask)
    owner = torch.arange(B).repeat_interleave(5)
    tokens = torch.randint(4, V, (len(owner), T), generator=torch.Generator().manual_seed(2))
    (logits, shared), (copied_logits, copied) = model(memory, tokens), model(memory.rows(owner), tokens)
    torch.testing.assert_close(logits, copied_logits)
    for one, other in zip(shared, copied, strict=True):
        torch.testing.assert_close(one, other)
    state = model.init(memory, 5)
    _, _, state = model.step(state, tokens[:, 0])
    turned = torch.arange(len(owner)).view(B, 5).flip(1).flatten()
    step_logits, glimpse, _ = model.step(state.rows(turned), tokens[turned, 1])
    torch.testing.assert_close(step_logits, logits[turned, 1])
    torch.testing.assert_close(glimpse.weights, shared.weights[turned, 1])


@every_decoder_but("sample", "location")
def test_masked_margins_change_nothing(name):
    """A 3×5 image within a grid of 5×7, except for the location-based score, which depends on indices of places."""
    model = decoder(DECODERS[name])
    wide = torch.full((B, 5, 7, D), 99.0)
    wide[:, : GRID[0], : GRID[1]] = values().unflatten(1, GRID)
    mask = (wide[..., 0] != 99).flatten(1)
    tokens = torch.full((B, T), 4)
    torch.manual_seed(1)
    logits, seen = model(model.prepare(values(), GRID), tokens)
    torch.manual_seed(1)
    padded_logits, padded = model(model.prepare(wide.flatten(1, 2), (5, 7), mask), tokens)
    assert torch.all(padded.weights.transpose(1, 2)[~mask] == 0)
    inside = padded.weights.transpose(1, 2)[mask].view(B, L, T).transpose(1, 2)
    torch.testing.assert_close(inside, seen.weights)
    torch.testing.assert_close(padded_logits, logits)


def test_gate_scales_the_context():
    model = decoder()
    with torch.no_grad():
        model.beta.weight.zero_()
        model.beta.bias.fill_(-1e9)
    _, glimpse, _ = model.step(model.init(model.prepare(values(), GRID)), torch.full((B,), START))
    assert torch.all(glimpse.context == 0)
    assert torch.all(glimpse.gate == 0)
    torch.testing.assert_close(glimpse.weights.sum(-1), torch.ones(B))


@every_decoder_but("sample")
def test_greedy_takes_the_best_word_at_each_step_and_reports_its_weights(name):
    model = decoder(DECODERS[name], seed=4)
    memory = model.prepare(values(), GRID)
    decoded = decode(model, memory, max_length=T)
    state, token = model.init(memory), torch.full((B,), START)
    for t in range(decoded.tokens.shape[1]):
        with torch.no_grad():
            logits, glimpse, state = model.step(state, token)
        banned = [PAD, START, UNKNOWN, *([END] if t == 0 else [])]
        log_probs = logits.index_fill(1, torch.tensor(banned), float("-inf")).log_softmax(-1)
        best = log_probs.argmax(-1)
        going = decoded.tokens[:, t] != PAD
        assert torch.all((decoded.tokens[:, t] == best)[going])
        torch.testing.assert_close(decoded.log_probs[going, t], log_probs.gather(1, best[:, None])[going, 0])
        torch.testing.assert_close(decoded.weights[going, t], glimpse.weights[going])
        token = decoded.tokens[:, t]


@every_decoder_but("sample")
def test_batched_equals_one_by_one(name):
    model, many = decoder(DECODERS[name], seed=6), values(5)
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
def test_captions_are_not_empty_and_limited_in_length(favourite):
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


@pytest.mark.parametrize("order", [LSTMDecoder, LuongDecoder])
def test_placed_annotation_vectors_are_normalised_and_depend_on_position(order):
    torch.manual_seed(0)
    model = order(V, D, hidden=13, embedding=19, placed=20)
    alike = torch.randn(B, 1, D).expand(B, L, D)
    where = grid_sinusoid(GRID, 20).flatten(0, 1)
    what = model.prepare(alike, GRID).values - where
    torch.testing.assert_close(what, what[:, :1].expand_as(what), rtol=0, atol=1e-5)
    torch.testing.assert_close(what.mean(dim=-1), torch.zeros(B, L), rtol=0, atol=1e-5)
    torch.testing.assert_close(what.var(dim=-1, correction=0), torch.ones(B, L), rtol=0, atol=1e-3)
    assert order(V, D, hidden=13, embedding=19).prepare(alike, GRID).values.equal(alike)  # as published


@pytest.mark.parametrize("order", [LSTMDecoder, LuongDecoder])
def test_a_learned_initial_state_is_the_same_for_all_images(order):
    model = order(V, D, hidden=13, embedding=19, initial_state="learned")
    with torch.no_grad():
        model.initial.normal_(generator=torch.Generator().manual_seed(1))
    states = model.init(model.prepare(values(), GRID), captions=3)
    for rows, row in zip((states.hidden, states.cell), model.initial, strict=True):
        assert rows.equal(row.expand(B * 3, 13))
    with pytest.raises(InputError, match=r"initial_state is 'zero'.*learned"):
        order(V, D, initial_state="zero")


def test_without_input_feeding_an_image_is_known_only_through_the_current_glimpse():
    torch.manual_seed(0)
    tokens = torch.randint(4, V, (B, T))
    for feeding in (False, True):
        model = LuongDecoder(V, D, hidden=13, embedding=19, initial_state="learned", input_feeding=feeding).eval()
        states = []
        for image in (1, 2):
            state = model.init(model.prepare(values(seed=image), GRID))
            for t in range(T):
                _, _, state = model.step(state, tokens[:, t])
            states.append(state)
        assert states[0].hidden.equal(states[1].hidden) == (not feeding)
        assert not states[0].out.allclose(states[1].out)


@pytest.mark.parametrize("size", [0, 30])
@pytest.mark.parametrize("order", [LSTMDecoder, LuongDecoder])
def test_a_size_that_cannot_hold_positions_is_refused(order, size):
    with pytest.raises(InputError, match=f"placed is {size}; .* multiple of 4"):
        order(V, D, placed=size)


def test_an_ensemble_takes_the_means_of_its_members():
    model = decoder(DECODERS["Ensemble"])
    tokens = torch.randint(4, V, (2 * B, T), generator=torch.Generator().manual_seed(2))
    logits, seen = model(model.prepare(values(), GRID), tokens)
    single = [member(member.prepare(values(), GRID), tokens) for member in model.members]
    mean = sum(each.softmax(-1) for each, _ in single) / 3
    torch.testing.assert_close(logits.exp(), mean)
    torch.testing.assert_close(seen.weights, sum(glimpse.weights for _, glimpse in single) / 3)
    torch.testing.assert_close(seen.gate, (2 + single[2][1].gate) / 3)
    assert not torch.allclose(single[0][0].softmax(-1), mean, atol=1e-3)


def test_an_ensemble_needs_a_member():
    with pytest.raises(InputError, match="members is empty"):
        Ensemble(V, D, [])
