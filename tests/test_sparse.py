"""Sparsemax and entmax: the simplex, exact zeros, gradients."""

import pytest
import torch

from visattn.attention import entmax15, sparsemax

P, POWER = {sparsemax: 1.0, entmax15: 2.0}, {sparsemax: 1.0, entmax15: 2.0}


def by_bisection(scores, function):
    """The weights whose threshold is found by halving an interval."""
    z = scores.double() / P[function]
    low, high = z.amax(-1, keepdim=True) - 1, z.amax(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        total = (z - middle).clamp(min=0).pow(POWER[function]).sum(-1, keepdim=True)
        low, high = torch.where(total > 1, middle, low), torch.where(total > 1, high, middle)
    return (z - low).clamp(min=0).pow(POWER[function])


@pytest.mark.parametrize("function", [sparsemax, entmax15])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_weights_are_those_whose_threshold_makes_them_sum_to_1(function, scale):
    torch.manual_seed(0)
    scores = scale * torch.randn(5, 3, 17)
    weights = function(scores)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3))
    torch.testing.assert_close(weights.double(), by_bisection(scores, function), atol=1e-5, rtol=1e-4)
    if scale >= 1:
        assert (weights == 0).any()


@pytest.mark.parametrize("function", [sparsemax, entmax15])
def test_gradients_are_those_of_differences(function):
    torch.manual_seed(1)
    scores = torch.randn(3, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (scores,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("function", [sparsemax, entmax15])
def test_masked_places_have_no_weight_and_no_gradient(function):
    scores = torch.tensor([[0.3, float("-inf"), 0.1, float("-inf")]], requires_grad=True)
    weights = function(scores)
    torch.testing.assert_close(weights[:, [0, 2]], function(scores[:, [0, 2]]))
    assert (weights[:, [1, 3]] == 0).all()
    weights[0, 0].backward()
    assert scores.grad.isfinite().all()


def test_the_papers_example():
    """Two scores a distance t apart: sparsemax gives ((1 + t) / 2, (1 − t) / 2) up to t = 1, then (1, 0)."""
    torch.testing.assert_close(sparsemax(torch.tensor([0.6, 0.2])), torch.tensor([0.7, 0.3]))
    torch.testing.assert_close(sparsemax(torch.tensor([2.0, 0.5])), torch.tensor([1.0, 0.0]))
