"""Local attention against windows worked out by hand, on sequences and on grids."""

import math

import pytest
import torch

from visattn.attention import (
    AdditiveScore,
    DotScore,
    GeneralScore,
    LocationScore,
    MonotonicLocalAttention,
    PredictiveLocalAttention,
    ScaledDotScore,
)
from visattn.errors import InputError

D, Q = 11, 7


def predictive(row, column, grid, window=2, score=GeneralScore):
    """A local-p that predicts this position, whatever the query, and the scores it would give all places."""
    torch.manual_seed(0)
    attention = PredictiveLocalAttention(Q, D, score, window=window, hidden=1)
    query = torch.rand(1, Q) + 0.1
    with torch.no_grad():
        attention.hidden.weight.fill_(100.0)  # tanh is 1
        for axis, (p, n) in enumerate(zip((row, column), grid, strict=True)):
            attention.place.weight[axis] = math.log(p / n / (1 - p / n)) if n > 1 else 3.0
    values = torch.randn(1, grid[0] * grid[1], D)
    memory = attention.prepare(values, grid)
    return attention(query, memory, 0), attention.score(query[:, None], memory.keys)[0, 0], values[0]


@pytest.mark.parametrize(
    ("p", "places"),
    [(5.3, [4, 5, 6, 7]), (0.4, [0, 1, 2]), (12.6, [11, 12]), (6.5, [5, 6, 7, 8])],
    ids=["middle", "start", "end", "between"],
)
def test_local_p_on_a_sequence_is_equation_10(p, places):
    """S = 13, D = 2: align over the window, times exp(−(s − p)² / 2σ²) with σ = D / 2 = 1, not normalised again."""
    glimpse, scores, values = predictive(0, p, (1, 13))
    align = scores[places].softmax(0)
    by_hand = align * torch.tensor([math.exp(-((s - p) ** 2) / 2) for s in places])
    expected = torch.zeros(13).index_put((torch.tensor(places),), by_hand)
    torch.testing.assert_close(glimpse.weights[0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(glimpse.context[0], expected @ values, rtol=1e-4, atol=1e-5)
    assert glimpse.weights.sum() < 1


@pytest.mark.parametrize(
    ("p", "rows", "columns"),
    [((3.2, 4.7), [2, 3, 4], [4, 5]), ((0.3, 10.9), [0, 1], [10]), ((6.8, 0.1), [6], [0, 1])],
    ids=["middle", "upper right", "lower left"],
)
def test_local_p_on_a_grid_is_separable_and_clipped(p, rows, columns):
    glimpse, scores, values = predictive(*p, (7, 11), window=1)
    near = [(r, c) for r in rows for c in columns if abs(r - p[0]) <= 1 and abs(c - p[1]) <= 1]
    align = torch.stack([scores[r * 11 + c] for r, c in near]).softmax(0)
    expected = torch.zeros(7, 11)
    for (r, c), weight in zip(near, align, strict=True):
        expected[r, c] = weight * math.exp(-((r - p[0]) ** 2) / 0.5) * math.exp(-((c - p[1]) ** 2) / 0.5)
    torch.testing.assert_close(glimpse.weights[0], expected.flatten(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(glimpse.context[0], expected.flatten() @ values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("progress", "reach"), [(0.0, 11.0), (0.2, 6.5), (0.4, 2.0), (1.0, 2.0)])
def test_in_a_soft_start_the_window_shrinks_from_the_whole_image_to_its_size(progress, reach):
    """D = 2 on 7 × 11 places: at first D = 11, with σ = D / 2 throughout."""
    torch.manual_seed(0)
    attention = PredictiveLocalAttention(Q, D, window=2, soft_start=0.4)
    query, values = torch.randn(3, Q), torch.randn(3, 77, D)
    memory = attention.prepare(values, (7, 11))
    p = attention.position(query, memory.extent, 0)
    place = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(11), indexing="ij"), -1).view(1, 77, 2)
    far = place - p[:, None]
    scores = attention.score(query[:, None], memory.keys)[:, 0].masked_fill((far.abs() > reach).any(-1), -torch.inf)
    expected = scores.softmax(-1) * torch.exp(-far.square().sum(-1) / (2 * (reach / 2) ** 2))
    attention.progress = progress
    torch.testing.assert_close(attention(query, memory, 0).weights, expected, rtol=1e-4, atol=1e-6)
    evaluated = attention.eval()(query, memory, 0)
    attention.progress = 1.0
    assert torch.equal(evaluated.weights, attention.train()(query, memory, 0).weights)


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_soft_start_is_a_share_of_training(share):
    with pytest.raises(InputError, match=f"soft_start is {share}"):
        PredictiveLocalAttention(Q, D, soft_start=share)


def monotonic(grid, steps, window=1, mask=None, **options):
    torch.manual_seed(0)
    attention = MonotonicLocalAttention(Q, D, window=window, **options)
    memory = attention.prepare(torch.randn(1, grid[0] * grid[1], D), grid, mask)
    return [attention(torch.randn(1, Q), memory, t).weights[0].view(grid) for t in range(steps)]


def test_local_m_on_a_sequence_moves_a_place_a_step_and_stays_at_the_end():
    maps = monotonic((1, 7), steps=9, window=2)
    for t, weights in enumerate(maps):
        p = min(t, 6)
        seen = weights[0].nonzero().flatten().tolist()
        assert seen == [s for s in range(7) if abs(s - p) <= 2]
        assert weights.sum().item() == pytest.approx(1)


def test_local_m_on_a_grid_reads_windows_in_order_and_starts_over():
    maps = monotonic((5, 7), steps=8)
    blocks = [(1, 1), (1, 4), (1, 6), (4, 1), (4, 4), (4, 6)]  # centres 3 apart, the last ones at the border
    for t, weights in enumerate(maps):
        row, column = blocks[t % 6]
        seen = {tuple(place) for place in weights.nonzero().tolist()}
        near = {(r, c) for r in range(5) for c in range(7) if abs(r - row) <= 1 and abs(c - column) <= 1}
        assert seen == near
    assert torch.stack(maps[:6]).sum(0).gt(0).all()  # nothing is left out
    assert monotonic((5, 7), steps=3, stride=1)[2].argmax() in [1, 2, 3, 8, 9, 10]


@pytest.mark.parametrize(
    ("attention", "options"),
    [(MonotonicLocalAttention, {}), (PredictiveLocalAttention, {}), (PredictiveLocalAttention, {"soft_start": 0.5})],
)
@pytest.mark.parametrize("grid", [(1, 5), (3, 5)])
def test_masked_margins_change_nothing(attention, options, grid):
    """Positions are places of the image, not of its padding."""
    torch.manual_seed(0)
    model = attention(Q, D, **options)
    model.progress = 0.25
    values, query = torch.randn(2, *grid, D), torch.randn(2, Q)
    wide = torch.full((2, grid[0] + (grid[0] > 1) * 2, 7, D), 99.0)
    wide[:, : grid[0], :5] = values
    mask = wide[..., 0] != 99
    plain = model.prepare(values.flatten(1, 2), grid)
    padded = model.prepare(wide.flatten(1, 2), tuple(wide.shape[1:3]), mask.flatten(1))
    for t in range(11):
        one, other = model(query, plain, t), model(query, padded, t)
        torch.testing.assert_close(one.context, other.context)
        torch.testing.assert_close(one.weights, other.weights[mask.flatten(1)].view_as(one.weights))
        assert torch.all(other.weights[~mask.flatten(1)] == 0)


def test_a_window_without_any_place_gives_nothing_rather_than_nan():
    attention = MonotonicLocalAttention(Q, D)
    mask = torch.tensor([[False, False, False, True, True]])
    glimpse = attention(torch.randn(1, Q), attention.prepare(torch.randn(1, 5, D), (1, 5), mask), 0)
    assert torch.all(glimpse.weights == 0)
    assert torch.all(glimpse.context == 0)
    glimpse.context.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in attention.parameters())


@pytest.mark.parametrize("score", [AdditiveScore, GeneralScore, DotScore, ScaledDotScore])
def test_any_score_of_content_within_the_window(score):
    torch.manual_seed(0)
    attention = PredictiveLocalAttention(D, D, score)
    glimpse = attention(torch.randn(3, D), attention.prepare(torch.randn(3, 35, D), (5, 7)), 0)
    assert torch.all(glimpse.weights.sum(1) <= 1 + 1e-6)
    glimpse.context.sum().backward()
    assert attention.place.weight.grad.abs().sum() > 0  # the position learns through the Gaussian


def test_positions_stay_on_the_grid():
    torch.manual_seed(0)
    attention = PredictiveLocalAttention(Q, D)
    extent = torch.tensor([[5, 7]])
    position = attention.position(100 * torch.randn(101, Q), extent.expand(101, 2), 0)
    assert torch.all((position >= 0) & (position <= extent))


def test_a_step_costs_no_more_on_a_larger_grid():
    """Multiplications of one step, counted by PyTorch: those of the window alone."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for side in (7, 29):
        attention = PredictiveLocalAttention(Q, D)
        memory = attention.prepare(torch.randn(3, side * side, D), (side, side))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            attention(torch.randn(3, Q), memory, 0)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("attention", [MonotonicLocalAttention, PredictiveLocalAttention])
def test_invalid_options_are_named(attention):
    with pytest.raises(InputError, match="window is 0"):
        attention(Q, D, window=0)
    with pytest.raises(InputError, match="cannot use LocationScore"):
        attention(Q, D, LocationScore)
    with pytest.raises(InputError, match=r"window is 3.* 7×7 .* 5×11.* 2$"):
        attention(Q, D, window=3).check_grid((5, 11))
    with pytest.raises(InputError, match="use a mechanism without a window"):
        attention(Q, D).check_grid((2, 2))
    attention(Q, D, window=3).check_grid((1, 5))  # a short sentence: what lies outside is ignored, as published


def test_a_stride_is_at_least_one():
    with pytest.raises(InputError, match="stride is -1"):
        MonotonicLocalAttention(Q, D, stride=-1)
