"""The relevance of places for words: positive, causal, and what autograd gives by brute force."""

import numpy as np
import pytest
import torch
from test_decoders import DECODERS, GRID, MEMBERS, B, D, L, T, V, decoder, values
from torch import nn

from visattn.attention import (
    HardAttention,
    MultiHeadAttention,
    SentinelAttention,
    SoftAttention,
    SpatialAttention,
    WholeAttention,
)
from visattn.attention import multihead as multihead_module
from visattn.errors import InputError
from visattn.explain import caption_relevance, word_relevance
from visattn.models import Decoder, Ensemble, LSTMDecoder, TransformerDecoder
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.vocabulary import END, PAD, START

RECURRENT = [name for name in DECODERS if name not in ("Transformer", "Ensemble") and "sample" not in name]
every_recurrent = pytest.mark.parametrize("name", RECURRENT)
every = pytest.mark.parametrize("name", [*RECURRENT, "Transformer", "Ensemble"])


def caption(count=B, seed=7):
    """Words (count, T), and those before each."""
    words = torch.randint(END + 1, V, (count, T), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.full((count, 1), START), words[:, :-1]], dim=1), words


def log_prob(logits, words, n, t):
    return logits[n, t].log_softmax(-1)[words[n, t]]


class Explicit(SpatialAttention):
    """Any mechanism, its context summed over heads and places once more, with something to take gradients by added."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.kept = inner, []

    def prepare(self, *given):
        return self.inner.prepare(*given)

    def forward(self, query, memory, t):
        glimpse = self.inner(query, memory, t)
        focus = glimpse.focus.unsqueeze(1)
        if isinstance(self.inner, SentinelAttention | WholeAttention):
            focus = glimpse.gate[:, None, None] * focus
        if isinstance(self.inner, MultiHeadAttention):
            focus = self.inner.head_weights(query.unsqueeze(1), memory)[:, :, 0]
        shift = torch.zeros_like(focus).requires_grad_()
        self.kept.append((focus, shift))
        focus = focus + shift
        if isinstance(self.inner, MultiHeadAttention):
            context = self.inner.proj((focus.unsqueeze(2) @ memory.projected).flatten(1))
        elif isinstance(self.inner, SentinelAttention | WholeAttention):
            beside = self.inner.beside(query, memory)
            context = (focus @ memory.values).squeeze(1) + (1 - glimpse.gate[:, None]) * beside
        else:
            context = (focus @ memory.values).squeeze(1)
        return glimpse._replace(context=context)


@every_recurrent
def test_a_context_is_the_sum_of_its_terms(name):
    """Whatever the mechanism, and where captions share an image."""
    torch.manual_seed(0)
    model = DECODERS[name]().eval()
    attention, memory = model.attention, model.prepare(values(), GRID)
    query = torch.randn(2 * B, 13, generator=torch.Generator().manual_seed(3))
    glimpse = attention(query, memory, 2)
    weights, vectors = attention.terms(query, memory, glimpse)
    context = torch.einsum("bkhl,bhld->bkd", memory.per_image(weights), vectors).flatten(0, 1)
    if "multi-head" in name:
        context = context + attention.proj.bias
    if "sentinel" in name or "whole" in name:
        context = context + (1 - glimpse.gate[:, None]) * attention.beside(query, memory)
    torch.testing.assert_close(context, glimpse.context, rtol=1e-4, atol=1e-5)


@every_recurrent
def test_relevance_of_a_recurrent_decoder_by_brute_force(name):
    model = decoder(DECODERS[name])
    previous, words = caption()
    found = word_relevance(model, model.prepare(values(), GRID), previous, words)
    model.attention = Explicit(model.attention)
    memory = model.prepare(values(), GRID)
    for n in range(B):
        for t in (0, 3, T - 1):
            model.attention.kept.clear()
            logits, _ = model(memory, previous)
            kept = model.attention.kept[: t + 1]
            gradients = torch.autograd.grad(log_prob(logits, words, n, t), [shift for _, shift in kept])
            parts = [(a * g).clamp(min=0).mean(1)[n] for (a, _), g in zip(kept, gradients, strict=True)]
            torch.testing.assert_close(found[n, t], torch.stack(parts).sum(0).detach(), rtol=1e-3, atol=1e-7)


def test_relevance_of_an_ensemble_of_recurrent_decoders_by_brute_force():
    """Of the mean of the probabilities, to the glimpses of all members."""
    model = decoder(lambda: Ensemble(V, D, (MEMBERS[0], MEMBERS[2])))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    previous, words = caption()
    found = word_relevance(model, model.prepare(values(), GRID), previous, words)
    for member in model.members:
        member.attention = Explicit(member.attention)
    logits, _ = model(model.prepare(values(), GRID), previous)
    for n in range(B):
        for t in (0, 3, T - 1):
            kept = [each for member in model.members for each in member.attention.kept[: t + 1]]
            shifts = [shift for _, shift in kept]
            gradients = torch.autograd.grad(log_prob(logits, words, n, t), shifts, retain_graph=True)
            parts = [(a * g).clamp(min=0).mean(1)[n] for (a, _), g in zip(kept, gradients, strict=True)]
            torch.testing.assert_close(found[n, t], torch.stack(parts).sum(0).detach(), rtol=1e-3, atol=1e-7)


def test_relevance_of_the_transformer_by_brute_force(monkeypatch):
    """The paper's equations 5 to 10, one word at a time, on attention that keeps its weights in the graph."""
    model = decoder(DECODERS["Transformer"])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    memory, (previous, words) = model.prepare(values(), GRID), caption()
    found = word_relevance(model, memory, previous, words)
    kept = []

    def explicit(query, key, value, mask=None, is_causal=False):
        if is_causal:
            mask = torch.ones(T, T, dtype=torch.bool).tril()
        weights = multihead_module.attend(query, key, value, mask)[1]
        kept.append(weights)
        return weights @ value

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", explicit)
    eye = torch.eye(T)
    for n in range(B):
        for t in range(T):
            kept.clear()
            logits = model.logits(memory, previous)
            gradients = torch.autograd.grad(log_prob(logits, words, n, t), kept)
            parts = [(a * g).clamp(min=0).mean(1)[n].detach() for a, g in zip(kept, gradients, strict=True)]
            by_word, by_place = eye, torch.zeros(T, L)
            for of_words, of_places in ((parts[0], parts[1]), (parts[2], parts[3])):
                by_place = by_place + of_words @ by_place
                by_word = by_word + of_words @ by_word
                added = by_word - eye
                normalised = torch.nan_to_num(added / added.sum(-1, keepdim=True)) + eye
                by_place = by_place + normalised.T @ of_places
            torch.testing.assert_close(found[n, t], by_place[t], rtol=1e-3, atol=1e-7)
    assert found.sum() > 0


@every
def test_relevance_is_positive_and_of_the_words_so_far(name):
    model = decoder(DECODERS[name])
    memory, (previous, words) = model.prepare(values(), GRID), caption()
    words[1, 4:] = PAD
    found = word_relevance(model, memory, previous, words)
    assert found.shape == (B, T, L)
    assert (found >= 0).all()
    if "hard argmax" in name:  # the only place used may speak against the word
        assert found.any()
    else:
        assert (found.sum(-1) > 0)[words != PAD].all()
    assert not found[1, 4:].any()
    later = words.clone(), previous.clone()
    later[0][:, 5:], later[1][:, 5:] = END + 1, END + 2
    changed = word_relevance(model, memory, later[1], later[0])
    torch.testing.assert_close(changed[:, :5], found[:, :5])
    assert all(parameter.grad is None for parameter in model.parameters())


@every
def test_captions_of_one_image_are_explained_as_alone(name):
    model = decoder(DECODERS[name])
    memory, (previous, words) = model.prepare(values(), GRID), caption(2 * B)
    found = word_relevance(model, memory, previous, words)
    for n in range(2 * B):
        own = model.prepare(values()[n // 2 : n // 2 + 1], GRID)
        alone = word_relevance(model, own, previous[n : n + 1], words[n : n + 1])
        torch.testing.assert_close(found[n], alone[0], rtol=1e-3, atol=1e-7)


@every
def test_frozen_decoders_in_training_mode_are_explained_as_others(name):
    model = decoder(DECODERS[name])
    memory, (previous, words) = model.prepare(values(), GRID), caption()
    expected = word_relevance(model, memory, previous, words)
    model.train().requires_grad_(False)
    with torch.inference_mode():
        memory = model.eval().prepare(values(), GRID)
        model.train()
        found = word_relevance(model, memory, previous, words)
    assert model.training
    torch.testing.assert_close(found, expected)


def test_with_hard_attention_only_the_places_used_are_relevant():
    model = decoder(lambda: LSTMDecoder(V, D, HardAttention, hidden=13, embedding=19))
    memory, (previous, words) = model.prepare(values(), GRID), caption()
    found = word_relevance(model, memory, previous, words)
    _, glimpses = model(memory, previous)
    used = glimpses.focus.cumsum(dim=1) > 0
    assert not found[~used].any()
    assert found[used].any()


def test_relevance_points_at_the_place_that_says_the_word():
    """The words' logits are the context's numbers, and one place holds the number of the word."""

    class Reader(LSTMDecoder):
        def logits(self, word, out, context):
            return context

    torch.manual_seed(0)
    model = Reader(V, V, SoftAttention, hidden=13, embedding=19).eval()
    previous, words = caption(1)
    places = 0.01 * torch.randn(1, L, V, generator=torch.Generator().manual_seed(1))
    for t, place in enumerate((3, 11, 5)):
        places[0, place, words[0, t]] = 5.0
    found = word_relevance(model, model.prepare(places, GRID), previous, words)
    assert found[0, :3].argmax(-1).tolist() == [3, 11, 5]


def test_a_captioner_explains_given_words(captioner_checkpoint):
    model = load_model(captioner_checkpoint, Captioner)
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    known = [word for word in model.vocabulary.words if word.isalpha()][:5]
    lines = [known[:5], known[2:5]]
    together, alone = caption_relevance(model, images, lines), caption_relevance(model, images[1:], lines[1:])
    assert [maps.shape for maps in together] == [(5, 8, 8), (3, 8, 8)]
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-3, atol=1e-8)


def test_other_decoders_are_refused():
    with pytest.raises(InputError, match="recurrent and Transformer decoders"):
        word_relevance(
            Decoder(), TransformerDecoder(V, D, size=12, layers=1, heads=3).prepare(values(), GRID), *caption()
        )
