"""Grounding of attention: values worked out by hand or by brute force, and laws."""

import math

import numpy as np
import pytest

from visattn.errors import InputError
from visattn.images import CellShift
from visattn.metrics import entropy, grounding

GRID, SIZE = (3, 5), (23, 37)  # no cell ends at the end of a pixel


def box(top, bottom, left, right, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def one_hot(cell, grid=GRID):
    weights = np.zeros(grid)
    weights[cell] = 1
    return weights


def random_words(seed, words=13, grid=GRID, size=SIZE):
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.ones(grid[0] * grid[1]), words).reshape(words, *grid)
    masks = rng.random((words, *size)) < rng.uniform(0.001, 0.05, (words, 1, 1))
    masks[:, 0, 0] = True
    return maps, masks


def distance(point, mask):
    """From a point to the nearest marked pixel, seen as a square."""
    y, x = np.nonzero(mask)
    gaps = [np.maximum(np.maximum(p - q, q - p - 1), 0) for p, q in ((y, point[0]), (x, point[1]))]
    return np.hypot(*gaps).min()


def test_by_brute_force():
    maps, masks = random_words(seed=0)
    (h, w), (H, W), tolerance = GRID, SIZE, 2.3
    centres = [((i + 0.5) * H / h, (j + 0.5) * W / w) for i in range(h) for j in range(w)]
    expected = []
    for weights, mask in zip(maps, masks, strict=True):
        hits = [distance(point, mask) <= tolerance for point in centres]
        fine = np.kron(weights, np.ones((23, 37))) / (23 * 37)  # h * 23 by w * 37: whole samples in cells and in pixels
        inside = np.kron(mask, np.ones((h, w), dtype=bool))
        u, v = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
        gaussian = np.exp(-((u - 0.5) ** 2 + (v - 0.5) ** 2) / (2 * 0.25**2))
        fine_gaussian = np.kron(gaussian / gaussian.sum(), np.ones((23, 37))) / (23 * 37)
        expected.append(
            (
                hits[weights.argmax()],
                np.mean(hits),
                distance((H / 2, W / 2), mask) <= tolerance,
                fine[inside].sum(),
                mask.mean(),
                fine_gaussian[inside].sum(),
            )
        )
    result = grounding(maps, masks, tolerance)
    assert result.words == 13
    assert result[1:] == pytest.approx(np.mean(expected, axis=0), abs=1e-12)
    assert 0 < result.pointing_uniform < 1


def test_tolerance_is_a_distance_in_input_pixels():
    # The centre of cell (1, 1) of 3 × 5 on 21 × 35 pixels is (10.5, 10.5); the region's nearest corner is (14, 15).
    size = (21, 35)
    mask = box(14, 17, 15, 19, size)
    near = math.hypot(14 - 10.5, 15 - 10.5)
    assert grounding([one_hot((1, 1))], [mask], near - 1e-6).pointing == 0
    assert grounding([one_hot((1, 1))], [mask], near + 1e-6).pointing == 1


def test_tolerance_zero_asks_for_the_point_itself():
    assert grounding([one_hot((1, 1))], [box(10, 11, 10, 11, (21, 35))], 0).pointing == 1
    assert grounding([one_hot((1, 1))], [box(10, 11, 11, 12, (21, 35))], 0).pointing == 0
    assert grounding([one_hot((1, 1))], [box(10, 11, 10, 11, (21, 35))], 0).pointing_uniform == pytest.approx(1 / 15)
    # Where the point lies on the corner of four pixels, each of them will do: cell (0, 0) of 2 × 2 pixels.
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert grounding([one_hot((0, 0))], [box(y, y + 1, x, x + 1, (6, 10))], 0).pointing == 1


def test_a_turned_word_scores_the_same():
    maps, masks = random_words(seed=1)
    result = grounding(maps, masks, 3)
    for axes in ((1,), (2,), (1, 2)):
        assert grounding(np.flip(maps, axes), np.flip(masks, axes), 3) == pytest.approx(result)
    assert grounding(maps.swapaxes(1, 2), masks.swapaxes(1, 2), 3) == pytest.approx(result)


def test_a_flat_map_scores_what_uniform_scores():
    _, masks = random_words(seed=2)
    noise = 1e-7 * np.random.default_rng(3).random((13, *GRID))  # rounding: no cell is larger in earnest
    result = grounding(np.full((13, *GRID), 7.0) * (1 + noise), masks, 2)
    assert result.pointing == result.pointing_uniform
    assert result.mass == pytest.approx(result.mass_uniform, rel=1e-6)


def test_ties_share_the_hit():
    mask = box(0, 5, 0, 5)  # under cell (0, 0) alone
    assert grounding([one_hot((0, 0)) + one_hot((2, 4)) + one_hot((1, 2))], [mask], 0).pointing == pytest.approx(1 / 3)


def test_scale_of_the_map_changes_nothing():
    maps, masks = random_words(seed=4)
    scales = np.random.default_rng(5).uniform(0.1, 9, (13, 1, 1))  # local attention sums to less than 1
    assert grounding(maps * scales, masks, 3) == pytest.approx(grounding(maps, masks, 3))


def test_a_larger_region_and_tolerance_never_score_less():
    maps, masks = random_words(seed=6)
    small, far = grounding(maps, masks, 1), grounding(maps, masks, 5)
    large = grounding(maps, masks | box(3, 11, 5, 29), 1)
    for name in ("pointing", "pointing_uniform", "pointing_centre"):
        assert getattr(small, name) <= getattr(large, name)
        assert getattr(small, name) <= getattr(far, name)
    assert small.mass < large.mass
    assert small.mass == far.mass


def test_region_and_the_rest_hold_the_whole_mass():
    maps, masks = random_words(seed=7)
    inside, outside = grounding(maps, masks, 1), grounding(maps, ~masks, 1)
    for name in ("mass", "mass_uniform", "mass_centre"):
        assert getattr(inside, name) + getattr(outside, name) == pytest.approx(1)
    everything = grounding(maps, np.ones_like(masks), 0)
    assert everything[1:] == pytest.approx((1, 1, 1, 1, 1, 1))


def test_centre():
    middle, corner = box(10, 13, 17, 20), box(0, 3, 0, 3)
    maps = [one_hot((1, 2))]
    assert grounding(maps, [middle], 0).pointing_centre == 1
    assert grounding(maps, [corner], 5).pointing_centre == 0
    assert grounding(maps, [middle], 0).mass_centre > grounding(maps, [middle], 0).mass_uniform
    assert grounding(maps, [corner], 0).mass_centre < grounding(maps, [corner], 0).mass_uniform


def test_words_that_name_nothing_are_not_counted():
    maps, masks = random_words(seed=8, words=7)
    kept = grounding(maps[::2], masks[::2], 3)
    assert kept.words == 4
    assert grounding(maps, [mask if i % 2 == 0 else None for i, mask in enumerate(masks)], 3) == kept


def test_grids_and_sizes_may_differ_and_be_finer_than_pixels():
    other = random_words(seed=9, words=1, grid=(11, 2), size=(7, 5))
    maps, masks = random_words(seed=10, words=1)
    result = grounding([*maps, *other[0]], [*masks, *other[1]], 1)
    alone = np.mean([grounding(maps, masks, 1), grounding(*other, 1)], axis=0)
    assert result[1:] == pytest.approx(alone[1:])


def test_no_word_gives_nan():
    for result in (grounding([], [], 3), grounding([one_hot((0, 0))], [None], 3)):
        assert result.words == 0
        assert all(math.isnan(value) for value in result[1:])


def test_invalid_masks_and_maps_are_refused():
    with pytest.raises(InputError, match="word 1 is empty"):
        grounding([one_hot((0, 0))] * 2, [box(0, 1, 0, 1), box(0, 0, 0, 0)], 3)
    with pytest.raises(InputError, match="boolean"):
        grounding([one_hot((0, 0))], [255 * box(0, 1, 0, 1).astype(np.uint8)], 3)
    with pytest.raises(ValueError, match="not \\(h, w\\)"):
        grounding([np.ones(7)], [box(0, 1, 0, 1)], 3)
    for bad in (np.nan, np.inf, -1e-9):
        weights = one_hot((0, 0))
        weights[1, 1] = bad
        with pytest.raises(ValueError, match="finite and non-negative"):
            grounding([weights], [box(0, 1, 0, 1)], 3)
    with pytest.raises(ValueError, match="not all 0"):
        grounding([np.zeros(GRID)], [box(0, 1, 0, 1)], 3)
    with pytest.raises(ValueError, match="shorter"):
        grounding([one_hot((0, 0))] * 2, [None], 3)
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            grounding([], [], tolerance)


def test_entropy():
    weights = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 0, 3, 0, 0, 0, 0], [0.5, 0, 0.25, 0, 0.25, 0, 0]])
    assert entropy(weights) == pytest.approx([math.log(7), 0, 1.5 * math.log(2)])
    assert entropy(weights.reshape(3, 1, 7)).shape == (3, 1)
    for bad in (np.zeros(5), np.array([1, np.nan]), np.array([2.0, -1.0]), np.array([1, np.inf])):
        with pytest.raises(ValueError, match="finite and non-negative"):
            entropy(bad)


def test_cell_shift_scores_where_the_cells_look():
    weights = np.zeros((6, 8))
    weights[2, 3] = 1.0  # its square: rows 10 to 15, columns 15 to 20
    mask = np.zeros((30, 40), dtype=bool)
    mask[13:18, 11:16] = True  # that square moved by (3, -4)
    shifted = grounding([weights], [mask], tolerance=0.0, cell_shift=(3.0, -4.0))
    assert shifted.pointing == 1
    assert shifted.mass == pytest.approx(1.0)
    plain = grounding([weights], [mask], tolerance=0.0)
    assert plain.pointing == 0
    assert plain.mass == pytest.approx(2 * 1 / 25)
    assert (shifted.mass_uniform, shifted.mass_centre) == (plain.mass_uniform, plain.mass_centre)


def test_cells_that_do_not_fill_the_image_are_scored_where_they_look():
    """Three cells of 16 pixels, around 0.5, 16.5 and 32.5, in an image of 43."""
    cells = CellShift((-7.5, -7.5), (16.0, 16.0), ((0.0, 0.0), (43.0, 43.0)))
    weights = np.zeros((3, 3))
    weights[1, 2] = 1.0
    mask = np.zeros((43, 43), dtype=bool)
    mask[9:24, 26:43] = True
    found = grounding([weights], [mask], tolerance=0.0, cell_shift=cells)
    assert found.pointing == 1
    # Its area reaches from 8.5 to 24.5 and, being the last of its row, from 24.5 to the edge.
    assert found.mass == pytest.approx(15 / 16 * 17 / 18.5)
    assert found.mass_uniform == mask.mean()


def test_a_cell_beyond_the_edge_points_at_the_edge():
    cells = CellShift((-20.0, 0.0), (16.0, 16.0), ((0.0, 0.0), (29.0, 32.0)))
    weights = np.zeros((3, 2))
    weights[0, 0] = 1.0  # around −12
    mask = np.zeros((29, 32), dtype=bool)
    mask[0, 7:9] = True
    found = grounding([weights], [mask], tolerance=0.0, cell_shift=cells)
    assert (found.pointing, found.mass) == (1, 0)
