"""Searches: a beam of one is greedy, a wide one exhaustive; log-probabilities and maps are those of the words."""

import itertools

import pytest
import torch
from test_decoders import DECODERS, GRID, D, L, T, V, decoder, every_decoder_but, outputs, values, vocabulary

from visattn.decoding import BeamSearch, Greedy, Sampling, captions, decode
from visattn.decoding.captioner import object_words
from visattn.decoding.loop import repeats
from visattn.errors import InputError
from visattn.models import LSTMDecoder, TransformerDecoder
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary

BANNED = [PAD, START, UNKNOWN]


def taught(model, memory, tokens):
    """Log-probabilities and glimpses of given tokens (N, T), the same number for each image; 0 where PAD."""
    start = torch.full_like(tokens[:, :1], START)
    logits, glimpses = model(memory, torch.cat([start, tokens[:, :-1]], dim=1))
    logits[..., BANNED] = float("-inf")
    logits[:, 0, END] = float("-inf")
    return logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0].where(tokens != PAD, 0), glimpses


def exhaustive(model, memory, words, max_length, penalty, caution=0.0, objects=()):
    """Every caption of one image by its score, the best first; those without END after all others."""
    scored = []
    for length in range(1, max_length + 1):
        for caption in itertools.product(words, repeat=length):
            for tail in ([END], []) if length == max_length else ([END],):
                tokens = [*caption, *tail]
                log_probs = taught(model, memory, torch.tensor([tokens]))[0][0].tolist()
                doubt = min([p for token, p in zip(tokens, log_probs, strict=True) if token in objects], default=0)
                scored.append((len(tail), sum(log_probs) / len(tokens) ** penalty + caution * doubt, tokens))
    return [tokens for _, _, tokens in sorted(scored, reverse=True)]


def named(search):
    return f"{type(search).__name__}{search.width}-{search.best}"


def words_of(decoded):
    return [[i for i in row if i != PAD] for row in decoded.tokens.tolist()]


@every_decoder_but("sample")
def test_a_beam_of_one_is_greedy(name):
    model = decoder(DECODERS[name], seed=4)
    memory = model.prepare(values(5), GRID)
    for max_length in (1, T):
        greedy, beam = (decode(model, memory, search, max_length) for search in (Greedy(), BeamSearch(1)))
        for one, other in zip(greedy, beam, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [LSTMDecoder, TransformerDecoder])
@pytest.mark.parametrize("penalty", [0, 0.7, 1, 2])
@pytest.mark.parametrize("caution", [0, 1.3])
def test_a_wide_beam_is_exhaustive_search(kind, penalty, caution):
    """Three words, at most three of them: 39 captions that end, 27 that are cut, 4 · 27 candidates in the last step.

    Two of the words are objects, and captions that name an improbable one rank behind.
    """
    torch.manual_seed(3)
    options = {"size": 12, "layers": 1, "heads": 3} if kind is TransformerDecoder else {"hidden": 13, "embedding": 19}
    model = kind(7, D, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from even, so that scores differ
    memory = model.prepare(values(2), GRID)
    objects = (torch.arange(7) == 4) | (torch.arange(7) == 6)
    decoded = decode(model, memory, BeamSearch(108, penalty, 40, caution), max_length=3, objects=objects)
    for image in range(2):
        expected = exhaustive(model, memory.rows(torch.tensor([image])), (4, 5, 6), 3, penalty, caution, (4, 6))[:39]
        assert words_of(decoded)[image * 40 : (image + 1) * 40] == [*expected, expected[0]]
    alone = decode(model, memory, BeamSearch(108, penalty, caution=caution), max_length=3, objects=objects)
    assert words_of(alone) == [words_of(decoded)[0], words_of(decoded)[40]]


@every_decoder_but("sample")
def test_results_of_a_beam_belong_to_its_words(name):
    """Given its words, the decoder says the same log-probabilities and looks at the same places."""
    model = decoder(DECODERS[name], seed=8)
    with torch.no_grad():
        for out in outputs(model):
            out.weight.mul_(4)
    memory = model.prepare(values(5), GRID)
    decoded = decode(model, memory, BeamSearch(5, best=3), T)
    said = decoded.tokens != PAD
    log_probs, glimpses = taught(model, memory, decoded.tokens)
    torch.testing.assert_close(decoded.log_probs, log_probs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded.weights[said], glimpses.weights[said], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded.focus[said], glimpses.focus[said], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded.gates[said], glimpses.gate[said], rtol=1e-4, atol=1e-5)
    assert torch.all(decoded.weights[~said] == 0)
    assert torch.all(decoded.gates[~said] == 0)
    assert torch.all(decoded.log_probs[~said] == 0)
    scores = (log_probs.sum(1) / said.sum(1) ** 0.7).view(5, 3)
    ended = (decoded.tokens == END).any(1).view(5, 3)
    for row, kind in zip(scores, ended, strict=True):
        assert row[kind].tolist() == sorted(row[kind].tolist(), reverse=True)
        assert kind.tolist() == sorted(kind.tolist(), reverse=True)
    for three in itertools.batched(words_of(decoded), 3) if hasattr(itertools, "batched") else []:
        assert len({tuple(words) for words in three}) == 3


@every_decoder_but("sample")
def test_a_batched_beam_equals_one_image_at_a_time(name):
    """Images end at different steps, and are then dropped from the batch."""
    model, many = decoder(DECODERS[name], seed=6), 3 * values(7)
    with torch.no_grad():
        for out in outputs(model):
            out.weight.mul_(4)
    search = BeamSearch(4, best=2)
    together = captions(decode(model, model.prepare(many, GRID), search, T), vocabulary(), GRID)
    for i in range(7):
        alone = captions(decode(model, model.prepare(many[i : i + 1], GRID), search, T), vocabulary(), GRID)
        for one, other in zip(alone, together[2 * i : 2 * i + 2], strict=True):
            assert one.words == other.words
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
            torch.testing.assert_close(torch.tensor(one.weights), torch.tensor(other.weights), rtol=1e-4, atol=1e-5)


def test_complete_captions_are_kept_aside():
    """A caption of two words is the best, although the beam then fills with longer ones."""
    model = decoder()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.zero_()
        model.out.bias[END] = 0.1
    memory = model.prepare(values(), GRID)
    short = decode(model, memory, BeamSearch(5, length_penalty=0, best=5), T)
    assert torch.all((short.tokens != PAD).sum(1) == 2)
    assert torch.all(short.tokens[:, 1] == END)


@pytest.mark.parametrize("search", [Greedy(), Sampling(3), BeamSearch(5), BeamSearch(5, best=5)], ids=named)
@pytest.mark.parametrize("favourite", [END, PAD, UNKNOWN, START, 9])
def test_captions_are_not_empty_and_limited_in_length(search, favourite):
    model = decoder()
    with torch.no_grad():
        model.out.bias[favourite] = 1e4
    decoded = decode(model, model.prepare(values(), GRID), search, T)
    found = captions(decoded, vocabulary(), GRID)
    assert len(found) == 3 * search.best
    for caption in found:
        assert 1 <= len(caption.words) <= T
        assert not set(caption.words) & set(SPECIALS)
    if favourite == 9 and not isinstance(search, BeamSearch):
        assert torch.all(decoded.tokens == 9)
        assert decoded.tokens.shape[1] == T


def test_no_repeat_by_hand():
    said = torch.tensor([[4, 5, 6, 4, 5], [4, 4, 4, 5, 6]])
    banned = [row.nonzero().flatten().tolist() for row in repeats(said, 3, V)]
    assert banned == [[6], []]
    assert [row.nonzero().flatten().tolist() for row in repeats(said, 1, V)] == [[4, 5, 6], [4, 5, 6]]
    assert not repeats(said, 6, V).any()


@pytest.mark.parametrize("search", [Greedy(), Sampling(2), BeamSearch(3)], ids=named)
@pytest.mark.parametrize("run", [1, 2, 3])
def test_no_ngram_is_repeated(search, run):
    model = decoder()
    with torch.no_grad():
        model.out.bias[4:7] = 50  # three words that it says again and again
    memory = model.prepare(values(), GRID)
    for no_repeat in (0, run):
        torch.manual_seed(0)
        twice = 0
        for words in words_of(decode(model, memory, search, 43, no_repeat)):
            runs = [tuple(words[i : i + run]) for i in range(len(words) - run + 1)]
            twice += len(set(runs)) < len(runs)
        assert twice == (0 if no_repeat else 3 * search.best)


def test_sampling_follows_the_probabilities():
    model = decoder()
    memory = model.prepare(values(1), GRID)
    logits = model.step(model.init(memory), torch.tensor([START]))[0][0]
    logits[[*BANNED, END]] = float("-inf")
    for options, expected in {
        (("temperature", 1.0),): logits.softmax(-1),
        (("temperature", 0.3),): (logits / 0.3).softmax(-1),
        (("top_k", 3),): logits.masked_fill(logits < logits.topk(3).values[-1], float("-inf")).softmax(-1),
    }.items():
        torch.manual_seed(0)
        drawn = decode(model, memory, Sampling(20000, **dict(options)), max_length=1).tokens[:, 0]
        share = drawn.bincount(minlength=V) / 20000
        error = (expected * (1 - expected) / 20000).sqrt()
        assert torch.all((share - expected).abs() <= 4 * error + 1e-9), options


def test_the_nucleus_is_the_smallest_set_with_the_share():
    model = decoder()
    memory = model.prepare(values(1), GRID)
    logits = model.step(model.init(memory), torch.tensor([START]))[0][0]
    logits[[*BANNED, END]] = float("-inf")
    ordered, words = logits.softmax(-1).sort(descending=True)
    share = (ordered[:3].sum() + ordered[3] / 2).item()  # three are not enough
    torch.manual_seed(0)
    drawn = decode(model, memory, Sampling(5000, top_p=share), max_length=1).tokens[:, 0]
    assert set(drawn.tolist()) == set(words[:4].tolist())


def test_sampling_is_repeatable_and_its_limits_are_greedy():
    model = decoder(seed=4)
    memory = model.prepare(values(), GRID)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(decode(model, memory, Sampling(5), T).tokens)
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].shape != drawn[2].shape or not torch.equal(drawn[0], drawn[2])
    greedy = decode(model, memory, Greedy(), T).tokens
    for search in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)):
        assert torch.equal(decode(model, memory, search, T).tokens, greedy)


@pytest.mark.parametrize("name", ["LSTMDecoder additive", "LuongDecoder multi-head", "Transformer"])
def test_gradients_flow_through_the_loop_as_through_forward(name):
    model = decoder(DECODERS[name], seed=4)
    torch.manual_seed(0)
    decoded = decode(model, model.prepare(values(), GRID), Sampling(3), T)
    decoded.log_probs.sum().backward()
    looped = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    taught(model, model.prepare(values(), GRID), decoded.tokens)[0].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(looped[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["LSTMDecoder additive", "LuongDecoder local-p", "Transformer"])
def test_no_step_computes_what_depends_on_the_image_alone(name, monkeypatch):
    """Neither keys nor anything else as large as the places times their vectors is made for the beams."""
    model = decoder(DECODERS[name])
    memory = model.prepare(values(), GRID)
    monkeypatch.setattr(type(memory), "rows", lambda *_: pytest.fail("the memory was copied"))
    for module in model.modules():
        if hasattr(module, "prepare"):
            monkeypatch.setattr(module, "prepare", lambda *_: pytest.fail("the memory was made again"))
        if hasattr(module, "keys") and callable(module.keys):
            monkeypatch.setattr(module, "keys", lambda *_: pytest.fail("keys were projected in a step"))
    with torch.no_grad():
        for out in outputs(model):
            out.bias[END] = -1e4  # no image is done before the others
    assert len(decode(model, memory, BeamSearch(5), T).tokens) == 3


@pytest.mark.parametrize("name", ["LSTMDecoder additive", "LuongDecoder local-p", "Transformer"])
def test_a_beam_begins_as_one_caption(name, monkeypatch):
    """All are START before the first word: one step an image is enough; samples may differ there."""
    model, steps = decoder(DECODERS[name]), []
    with torch.no_grad():
        model.out.bias[END] = -1e4
    stepped = model.step
    monkeypatch.setattr(model, "step", lambda state, token: steps.append(len(token)) or stepped(state, token))
    for search, captions_of_each in ((BeamSearch(5), [1] + T * [5]), (Sampling(5), [5] + T * [5])):
        steps.clear()
        decode(model, model.prepare(values(2), GRID), search, T)
        assert steps == [2 * count for count in captions_of_each]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BeamSearch(0), "size is 0"),
        (lambda: BeamSearch(3, best=4), "best is 4; a beam of 3"),
        (lambda: BeamSearch(3, length_penalty=-1), "length_penalty is -1"),
        (lambda: BeamSearch(3, caution=-1), "caution is -1"),
        (lambda: Sampling(0), "count is 0"),
        (lambda: Sampling(temperature=0), "temperature is 0"),
        (lambda: Sampling(top_k=-1), "top_k is -1"),
        (lambda: Sampling(top_p=0), "top_p is 0"),
        (lambda: Sampling(top_p=1.5), "top_p is 1.5"),
    ],
)
def test_options_out_of_range_are_named(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_caution_needs_to_know_the_objects():
    model = decoder()
    with pytest.raises(ValueError, match="which tokens name objects"):
        decode(model, model.prepare(values(), GRID), BeamSearch(5, caution=0.2), T)


def test_objects_are_the_words_that_name_one():
    words = [*SPECIALS, "a", "dogs", "red", "park", "man"]
    assert object_words(Vocabulary(words)) == (len(SPECIALS) + 1, len(SPECIALS) + 4)
    for nothing in (
        Vocabulary([*SPECIALS, "a", "red"]),
        Vocabulary([*SPECIALS, "狗"]),
        Vocabulary(words, "characters"),
    ):
        with pytest.raises(InputError, match="caution needs a captioner whose words are English"):
            object_words(nothing)


def test_sizes_are_as_documented():
    model = decoder()
    decoded = decode(model, model.prepare(values(), GRID), BeamSearch(5, best=2), T)
    steps = decoded.tokens.shape[1]
    assert decoded.log_prob.shape == (6,)
    assert decoded.log_probs.shape == decoded.places_log_prob.shape == decoded.tokens.shape == (6, steps)
    assert decoded.weights.shape == decoded.focus.shape == (6, steps, L)
