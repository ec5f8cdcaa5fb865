"""SaCo, rank correlation and bootstrap intervals: worked examples and laws."""

import numpy as np
import pytest
import torch

from visattn.explain.faithfulness import Groups, Walk, area, centre_map, random_map
from visattn.images import CellShift, Geometry
from visattn.metrics import bootstrap_interval, rank_correlation, saco


def test_saco_is_the_sum_over_pairs_by_hand():
    # pairs (5, 2): drop .1 < .3, against, 3; (5, 1): .1 > 0, for, 4; (2, 1): .3 > 0, for, 1
    assert saco(np.array([5, 2, 1]), np.array([0.1, 0.3, 0.0])) == pytest.approx((4 + 1 - 3) / 8)


def test_saco_of_a_right_a_reversed_a_flat_map_and_a_model_that_does_not_react():
    drops = np.array([0.7, 0.2, 0.11, -0.05])
    assert saco(drops, drops) == 1
    assert saco(np.exp(7 * drops), drops) == 1
    assert saco(-drops, drops) == -1
    assert saco(np.full(4, 3.0), drops) == 0
    assert saco(drops, np.full(4, 0.3)) == 0
    with pytest.raises(ValueError, match="as many finite drops"):
        saco(drops, drops[:3])
    with pytest.raises(ValueError, match="finite"):
        saco(drops, np.array([0.1, np.nan, 0, 0]))


def test_saco_does_not_depend_on_the_maps_unit():
    generator = np.random.default_rng(0)
    salience, drops = generator.normal(size=(2, 11))
    assert saco(3 * salience + 7, drops) == pytest.approx(saco(salience, drops))


def test_rank_correlation_by_hand_and_with_ties():
    assert rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[1, 10], [100, 1000]])) == pytest.approx(1)
    assert rank_correlation(np.arange(5), -np.arange(5)) == pytest.approx(-1)
    assert rank_correlation(np.array([3, 1, 2]), np.array([1, 2, 3])) == pytest.approx(-0.5)  # 1 − 6 · 6 / 24
    # ranks 1.5, 1.5, 3 and 1, 2, 3: covariance 1.5, variances 1.5 and 2
    assert rank_correlation(np.array([0, 0, 9]), np.array([1, 2, 3])) == pytest.approx(1.5 / np.sqrt(1.5 * 2))
    assert rank_correlation(np.zeros(4), np.arange(4)) == 0


def test_a_bootstrap_interval_is_the_normal_one_of_many_values():
    values = np.random.default_rng(3).normal(2.0, 5.0, size=499)
    mean, low, high = bootstrap_interval(values, draws=2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert (high - mean, mean - low) == pytest.approx((half, half), rel=0.08)
    assert bootstrap_interval(np.append(values, np.nan), draws=2000)[0] == pytest.approx(mean)
    assert np.isnan(bootstrap_interval(np.full(3, np.nan))).all()


# --------------------------------------------------------------------------------------- maps of a model that is known

SIZE, GRID = (20, 28), (5, 7)
WORTH = np.random.default_rng(1).random(GRID)  # what each cell adds to the logit where it is white


def known(images):
    """Log-probabilities of a class whose logit is the sum of the cells' worth times their brightness."""
    cells = images.double().mean(dim=1).unflatten(1, (5, 4)).unflatten(3, (7, 4)).mean(dim=(2, 4)) / 255
    logit = (cells * torch.from_numpy(WORTH)).sum(dim=(1, 2)) - 10
    return torch.nn.functional.logsigmoid(logit)[:, None]


def saco_of(weights, units="cells", count=5, image=None):
    image = torch.full((3, *SIZE), 255.0) if image is None else image
    groups = Groups.of(weights, Geometry.identity(SIZE), count, units)
    drops = known(image[None])[0, 0].exp() - groups.without(known, image)[:, 0].double().exp()
    return saco(groups.salience, drops.numpy())


def test_the_map_of_what_each_cell_costs_has_a_saco_of_one():
    brightness = np.random.default_rng(9).random(GRID)
    image = torch.from_numpy(np.kron(brightness, np.ones((4, 4))) * 255).float().expand(3, -1, -1)
    cost = WORTH * (brightness - brightness.mean())  # a cell becomes the mean colour
    assert saco_of(cost, count=35, image=image) == pytest.approx(1)
    assert saco_of(-cost, count=35, image=image) == pytest.approx(-1)


def test_random_maps_have_a_saco_of_zero():
    image = torch.from_numpy(np.random.default_rng(7).uniform(0, 255, (3, *SIZE)).astype(np.float32))
    for units, draws in (("cells", 900), ("pixels", 700)):
        found = [saco_of(random_map(GRID, (n, 5)), units, 10, image) for n in range(draws)]
        error = np.std(found) / np.sqrt(draws)
        assert abs(np.mean(found)) < max(0.02, 3 * error)
        assert error < 0.02


def test_groups_that_the_model_does_not_see_come_last():
    """Also by the distance to the centre, whose saliences are all negative."""
    patches = CellShift((0.0, 0.0), (14.0, 14.0), ((0.0, 0.0), (56.0, 56.0)))  # of 64 × 64 pixels 23% are in no patch
    geometry = Geometry.identity((64, 64))._replace(cell_shift=patches)
    groups = Groups.of(centre_map((4, 4), geometry), geometry, 16)
    assert (groups.salience < 0).all()
    assert (np.diff(groups.salience) <= 0).all()
    assert saco(groups.salience, np.arange(16.0, 0, -1)) > 0.9  # a model that reacts in this order


def test_groups_are_of_equal_size_and_the_most_salient_come_first():
    weights = np.random.default_rng(2).random(GRID)
    for units in ("cells", "pixels"):
        groups = Groups.of(weights, Geometry.identity(SIZE), 6, units)
        counts = np.bincount(groups.number.ravel())
        assert len(counts) == 6
        assert counts.max() - counts.min() <= (16 if units == "cells" else 1)
        assert (np.diff(groups.salience) < 0).all()
    by_hand = np.sort(weights.ravel())[::-1]
    np.testing.assert_allclose(
        Groups.of(weights, Geometry.identity(SIZE), 7, "cells").salience, by_hand.reshape(7, 5).mean(1), rtol=1e-6
    )


def test_deletion_and_insertion_are_the_hand_computation():
    """Cells taken one by one: after k of them the logit has lost the worth of the k most salient."""
    weights = np.random.default_rng(4).random(GRID)
    walk = Walk(Geometry.identity(SIZE), "cells", 35)
    white, black = torch.full((3, *SIZE), 255.0), torch.zeros(3, *SIZE)
    curves = walk.curves(known, white, torch.zeros(3, 1, 1), black, weights[None])
    worth = np.concatenate([[0], np.cumsum(WORTH.ravel()[np.argsort(-weights.ravel())])])
    probability = 1 / (1 + np.exp(10 - np.stack([WORTH.sum() - worth, worth])))
    np.testing.assert_allclose(np.exp(curves[:, 0]), probability, rtol=1e-5)
    expected = (probability[:, 1:] + probability[:, :-1]).mean(axis=1) / 2
    np.testing.assert_allclose(area(np.exp(curves[:, 0]), walk.share(GRID)), expected, rtol=1e-5)


def test_the_centre_is_largest_in_the_middle():
    assert centre_map(GRID, Geometry.identity(SIZE)).argmax() == 17
