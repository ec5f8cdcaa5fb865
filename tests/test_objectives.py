import math

import pytest
import torch
from torch.nn import functional as F

from visattn.attention import Glimpse
from visattn.training.objectives import CaptionLoss, doubly_stochastic_penalty
from visattn.vocabulary import PAD

B, T, V, L = 2, 5, 11, 7


def example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, V, generator=generator)
    weights = torch.rand(B, T, L, generator=generator).softmax(-1).requires_grad_()
    targets = torch.tensor([[4, 5, 6, 7, 2], [8, 9, 2, PAD, PAD]])
    return logits, Glimpse.soft(torch.zeros(B, T, 1), weights), targets


def test_cross_entropy_is_the_mean_over_words():
    logits, glimpses, targets = example()
    losses = CaptionLoss(doubly_stochastic=0)(logits, glimpses, targets)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
    torch.testing.assert_close(losses.loss, expected)
    torch.testing.assert_close(losses.cross_entropy, expected)


def test_penalty_by_hand():
    weights = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    mask = torch.tensor([[True, True, False]])  # attended: 1.5, 0.5, 0
    torch.testing.assert_close(doubly_stochastic_penalty(weights, mask), torch.tensor([0.25 + 0.25 + 1.0]))


def test_penalty_has_the_papers_scale_against_a_captions_likelihood():
    logits, glimpses, targets = example()
    losses = CaptionLoss(doubly_stochastic=0.7)(logits, glimpses, targets)
    nll = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD, reduction="none").sum(1)
    penalty = doubly_stochastic_penalty(glimpses.weights, targets != PAD)
    torch.testing.assert_close(losses.loss, (nll + 0.7 * penalty).sum() / 8)
    losses.loss.backward()


def test_padding_and_duplication_change_nothing():
    logits, glimpses, targets = example()
    loss = CaptionLoss(doubly_stochastic=0.3, label_smoothing=0.1)
    once = loss(logits, glimpses, targets).loss
    twice = loss(
        logits.repeat(2, 1, 1), Glimpse(*(g.repeat(2, *[1] * (g.ndim - 1)) for g in glimpses)), targets.repeat(2, 1)
    )
    torch.testing.assert_close(twice.loss, once)
    wide = Glimpse(*(F.pad(g, (0, 0, 0, 3) if g.ndim == 3 else (0, 3), value=0.3) for g in glimpses))
    padded = loss(F.pad(logits, (0, 0, 0, 3)), wide, F.pad(targets, (0, 3), value=PAD))
    torch.testing.assert_close(padded.loss, once)


def test_label_smoothing_equals_torch():
    logits, glimpses, targets = example()
    mask = targets != PAD
    ours = CaptionLoss(doubly_stochastic=0, label_smoothing=0.2)(logits, glimpses, targets)
    torch.testing.assert_close(ours.loss, F.cross_entropy(logits[mask], targets[mask], label_smoothing=0.2))


def test_accuracy_counts_words_only():
    _, glimpses, targets = example()
    right = F.one_hot(targets, V).float() * 9
    right[0, 1] = 0
    right[0, 1, 3] = 1
    assert CaptionLoss()(right, glimpses, targets).accuracy.item() == pytest.approx(7 / 8)


def test_an_even_map_has_the_stated_penalty():
    even = torch.full((1, 3, 11), 1 / 11)
    expected = 11 * (1 - 3 / 11) ** 2
    assert math.isclose(
        doubly_stochastic_penalty(even, torch.ones(1, 3, dtype=torch.bool)).item(), expected, rel_tol=1e-5
    )
