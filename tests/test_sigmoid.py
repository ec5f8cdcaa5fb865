"""Sigmoid attention: its formula, its saturation, masks and extreme scores."""

import torch

from visattn.attention import SigmoidAttention


def distribution(scores):
    return SigmoidAttention(7, 5).distribution(scores)


def test_weights_are_the_sigmoids_share():
    torch.manual_seed(0)
    scores = 3 * torch.randn(5, 11)
    torch.testing.assert_close(distribution(scores), scores.sigmoid() / scores.sigmoid().sum(-1, keepdim=True))


def test_large_scores_share_evenly():
    weights = distribution(torch.tensor([20.0, 30.0, -30.0]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5, 0.0]))


def test_masked_places_and_scores_that_underflow_are_finite():
    scores = torch.tensor([[-300.0, -301.0, float("-inf")]], requires_grad=True)
    weights = distribution(scores)
    torch.testing.assert_close(weights, scores.softmax(-1))
    weights[0, 0].backward()
    assert scores.grad.isfinite().all()
