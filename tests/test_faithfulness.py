"""Deletion and insertion, on a model with curves known in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch

from visattn.errors import InputError
from visattn.explain.faithfulness import (
    Walk,
    area,
    blur_of,
    blurred,
    centre_map,
    descending,
    difference,
    random_map,
    taken,
    transition,
)
from visattn.images import Geometry

H, W, CELLS = 7, 11, (3, 5)
BLANK = torch.tensor([3.0, 5.0, 7.0], dtype=torch.float64).view(3, 1, 1)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Linear:
    """p = 0.1 + Σ wᵢ (xᵢ − blank), with wᵢ ≥ 0 for each target; keeps the images that it saw."""

    def __init__(self, targets=1, size=(H, W), seed=1):
        self.weights = draw(targets, *size, seed=seed)
        self.image = BLANK + draw(3, *size, seed=seed + 1)
        self.gains = (self.weights.unsqueeze(1) * (self.image - BLANK)).sum(dim=1)  # (targets, h, w) of each pixel
        scale = 0.9 / self.gains.sum(dim=(1, 2))
        self.weights, self.gains = self.weights * scale.view(-1, 1, 1), self.gains * scale.view(-1, 1, 1)
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        return (0.1 + torch.einsum("nchw,thw->nt", images - BLANK, self.weights)).log()

    def curves(self, maps, size=(H, W), **options):
        walk = Walk(Geometry.identity(size), **({"steps": math.prod(size)} | options))
        return walk.curves(self, self.image, BLANK, BLANK.expand_as(self.image), np.asarray(maps))


def test_the_curves_of_a_linear_model_are_sums_of_what_was_taken():
    model = Linear()
    deletion, insertion = np.exp(model.curves(model.gains))[:, 0]
    taken_so_far = np.concatenate([[0], np.cumsum(np.sort(model.gains.numpy().ravel())[::-1])])
    np.testing.assert_allclose(deletion, 1 - taken_so_far, rtol=1e-5)
    np.testing.assert_allclose(insertion, 0.1 + taken_so_far, rtol=1e-5)
    share = np.arange(H * W + 1) / (H * W)
    ordered = np.sort(model.gains.numpy().ravel())[::-1]
    exact = 1 - (ordered * (H * W - np.arange(H * W) - 0.5)).sum() / (H * W)  # pixel number k is gone for the rest
    assert area(deletion, share) == pytest.approx(exact, rel=1e-5)
    assert area(insertion, share) == pytest.approx(1.1 - exact, rel=1e-5)


def test_no_order_deletes_better_than_the_true_importance():
    size = (2, 3)
    model = Linear(size=size)
    share = np.arange(7) / 6
    areas = {}
    for order in itertools.permutations(range(6)):
        curves = np.exp(model.curves(np.array(order, dtype=float).reshape(1, *size), size))[:, 0]
        areas[order] = area(curves, share)
    deletion, insertion = area(np.exp(model.curves(model.gains, size))[:, 0], share)
    best = tuple(int(rank) for rank in model.gains.numpy().ravel().argsort().argsort())
    assert deletion == pytest.approx(areas[best][0])
    assert all(found[0] > deletion and found[1] < insertion for order, found in areas.items() if order != best)


def test_the_mean_of_random_maps_is_the_straight_line():
    model, seeds = Linear(), 211
    maps = [random_map((H, W), (3, seed)) for seed in range(seeds)]
    curves = np.stack([np.exp(model.curves(m[None], steps=7))[:, 0] for m in maps])
    share = np.arange(8) / 7
    mean, error = curves.mean(axis=0), curves.std(axis=0, ddof=1) / seeds**0.5
    line = np.stack([1 - 0.9 * share, 0.1 + 0.9 * share])
    assert (np.abs(mean - line)[:, 1:-1] < 3.5 * error[:, 1:-1]).all()
    areas = area(curves, share)
    assert (np.abs(areas.mean(axis=0) - 0.55) < 3 * areas.std(axis=0, ddof=1) / seeds**0.5).all()
    assert np.array_equal(random_map((H, W), 5), random_map((H, W), 5))
    assert not np.array_equal(random_map((H, W), 5), random_map((H, W), 7))


@pytest.mark.parametrize("units", ["pixels", "cells"])
def test_a_constant_map_takes_in_reading_order_for_deletion_and_insertion_alike(units):
    model = Linear()
    count = H * W if units == "pixels" else math.prod(CELLS)
    model.curves(np.ones((1, *CELLS)), units=units, steps=count, batch_size=100)
    away, there = (images[:, 0] for images in model.seen)
    whole, blank = model.image[0], BLANK[0]
    gone = away == blank
    assert torch.equal(gone, there == whole)  # what deletion has taken is what insertion has brought
    order = descending(np.ones(CELLS), Geometry.identity((H, W)), units).rank
    assert order[0, 0] == 0
    assert order[-1, -1] == count - 1
    flat = gone.flatten(1).sum(dim=1)
    assert flat[0] == 0
    assert flat[-1] == H * W
    if units == "pixels":
        for k in range(count + 1):
            assert gone[k].flatten()[:k].all()
            assert flat[k] == k


def test_deletion_begins_and_insertion_ends_with_the_image():
    model = Linear(targets=2)
    substrate = blurred(model.image, BLANK)
    walk = Walk(Geometry.identity((H, W)), steps=5)
    deletion, insertion = walk.curves(model, model.image, BLANK, substrate, random_map(CELLS, 1)[None])
    whole, nothing, begun = (model(i[None])[0].float() for i in (model.image, BLANK.expand(3, H, W), substrate))
    for curve, first, last in ((deletion, whole, nothing), (insertion, begun, whole)):
        np.testing.assert_allclose(curve[:, 0], first, atol=1e-7)
        np.testing.assert_allclose(curve[:, -1], last, atol=1e-7)


def test_batches_change_nothing():
    model, maps = Linear(targets=2), random_map(CELLS, 1)[None]
    at_once, *others = (model.curves(maps, steps=13, batch_size=size) for size in (64, 14, 5, 1))
    assert at_once.shape == (2, 2, 14)
    for other in others:
        np.testing.assert_allclose(at_once, other, rtol=1e-6, atol=1e-6)
    assert {len(images) for images in model.seen} == {14, 5, 4, 1}


def test_each_target_goes_by_its_own_map_or_all_by_one():
    model = Linear(targets=3)
    maps = np.stack([random_map(CELLS, seed) for seed in range(3)])
    own = model.curves(maps, steps=13)
    for n in range(3):
        assert np.array_equal(own[:, n], model.curves(maps[n : n + 1], steps=13)[:, n])
    assert not np.array_equal(own[:, 1], model.curves(maps[:1], steps=13)[:, 1])


def test_cells_are_taken_whole_and_pixels_by_the_map_between_the_cells():
    geometry = Geometry.identity((H, W))
    weights = random_map(CELLS, 2)
    cells = descending(weights, geometry, "cells")
    assert cells.units == 15
    of_pixel = np.floor((np.arange(H) + 0.5) / H * 3).astype(int)[:, None], np.floor((np.arange(W) + 0.5) / W * 5)
    rank = (-weights).ravel().argsort().argsort().reshape(CELLS)
    assert np.array_equal(cells.rank, rank[of_pixel[0], of_pixel[1].astype(int)[None]])
    pixels = descending(weights, geometry, "pixels")
    assert pixels.units == H * W
    assert sorted(pixels.rank.ravel()) == list(range(H * W))
    spread = geometry.to_original_map(weights)
    assert np.array_equal(pixels.rank.ravel()[np.argsort(-spread.ravel(), kind="stable")], np.arange(H * W))


def test_a_map_is_taken_where_its_cells_look():
    shifted = Geometry.identity((12, 20))._replace(cell_shift=(4.0, -4.0))
    weights = np.zeros((3, 5))
    weights[1, 2] = 1
    for units in ("cells", "pixels"):
        plain, moved = (descending(weights, g, units).rank for g in (Geometry.identity((12, 20)), shifted))
        assert plain[5, 9] < 4
        assert moved[9, 5] == plain[5, 9]
    np.testing.assert_array_equal(np.unravel_index(centre_map((3, 5), shifted).argmax(), (3, 5)), (0, 3))
    whole = Geometry((24, 30), (12, 20), (0.5, 0.5), (0.0, -2.5))  # how the input came to be is nothing to it
    assert np.array_equal(descending(weights, whole).rank, descending(weights, Geometry.identity((12, 20))).rank)


def test_the_centre_is_the_middle_of_the_input():
    found = centre_map((3, 5), Geometry.identity((30, 20)))
    assert found[1, 2] == 0
    assert found[0, 2] == -10  # pixels
    assert found[1, 0] == -8
    assert found[2, 4] == pytest.approx(-math.hypot(10, 8))


def test_steps_are_equal_up_to_a_unit_and_those_of_the_paper_where_they_divide():
    assert np.array_equal(taken(224 * 224, 224), 224 * np.arange(225))
    steps = np.diff(taken(81, 32))
    assert set(steps) == {2, 3}
    assert steps.sum() == 81
    curve = np.random.default_rng(0).random(225)
    authors = (curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1)
    assert area(curve, taken(224 * 224, 224) / 224**2) == pytest.approx(authors)
    # A straight line has the area of its ends, however uneven the steps.
    share = taken(81, 32) / 81
    assert area(1 - share, share) == pytest.approx(0.5)
    assert np.array_equal(Walk(Geometry.identity((H, W)), "cells", 4).share(CELLS), np.array([0, 3, 7, 11, 15]) / 15)
    assert np.array_equal(Walk(Geometry.identity((H, W)), "pixels", 1).share(CELLS), [0, 1])


def test_the_blur_is_the_authors():
    # scipy.ndimage.gaussian_filter of a single one in 11×11 zeros with σ = 5, as their code makes its kernel, 1.17.
    row = [0.08795815, 0.08889612, 0.0904742, 0.09219112, 0.09348939, 0.09398206]
    kernel = torch.tensor([*row, *row[-2::-1]], dtype=torch.float64)
    image = BLANK.expand(3, 224, 231).clone()
    image[1, 100, 111] += 2
    out = blurred(image, BLANK) - BLANK
    torch.testing.assert_close(out[1, 95:106, 106:117], 2 * kernel[:, None] * kernel, rtol=1e-6, atol=1e-8)
    assert out[1].sum() == pytest.approx(2)
    assert (out[[0, 2]].abs() < 1e-9).all()
    assert blur_of((224, 224)) == (11, 5)
    assert blur_of((64, 640)) == (3, pytest.approx(5 * 2 / 7))
    assert blur_of((448, 449)) == (23, 10)
    assert blur_of((8, 8))[0] == 3


def test_difference_counts_an_image_once():
    areas, others = np.array([3.0, 5.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0, 2.0])
    found = difference(areas, others, np.array([7, 7, 2, 5]))
    assert found.mean == pytest.approx((3 - 1 + 0) / 3)  # the images' are 3, −1 and 0
    assert found.error == pytest.approx(np.std([3, -1, 0], ddof=1) / 3**0.5)
    assert found.larger == pytest.approx(0.5)
    assert found.images == 3
    assert math.isnan(difference(areas[:2], others[:2], np.array([1, 1])).error)


def test_what_cannot_be_measured_is_named():
    geometry = Geometry.identity((H, W))
    with pytest.raises(InputError, match=r"'patches'; .*pixels, cells"):
        descending(np.ones(CELLS), geometry, "patches")
    for wrong in (np.ones(5), np.full(CELLS, np.nan)):
        with pytest.raises(ValueError, match="a map must be"):
            descending(wrong, geometry)
    for steps in (0, 16):
        with pytest.raises(InputError, match=f"steps is {steps}; it must be from 1 to 15"):
            Linear().curves(np.ones((1, *CELLS)), units="cells", steps=steps)
    order = descending(np.ones(CELLS), Geometry.identity((H, W + 2)))
    with pytest.raises(ValueError, match="cannot take an image of"):
        transition(Linear(), BLANK.expand(3, H, W), BLANK.expand(3, H, W), order, 3)
