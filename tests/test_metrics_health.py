"""Numbers about attention, each by hand."""

import numpy as np
import pytest

from visattn.metrics import Health, attention_health


def test_a_uniform_map_is_as_flat_as_can_be():
    health = attention_health([np.full((3, 5, 7), 1 / 35)])
    assert health.entropy == pytest.approx(np.log(35))
    assert health.relative_entropy == pytest.approx(1)
    assert health.largest_weight == pytest.approx(1 / 35)
    assert health.change == pytest.approx(0)
    assert health.coverage == 1
    assert health.doubly_stochastic == pytest.approx((1 - 3 / 35) ** 2)
    assert health.maps == 3
    assert health.stuck


def test_one_place_that_moves_at_every_word_has_the_largest_change():
    health = attention_health([np.eye(7)[:5].reshape(5, 1, 7)])
    assert health.entropy == health.relative_entropy == 0
    assert health.largest_weight == health.change == 1
    assert health.coverage == pytest.approx(5 / 7)
    assert health.doubly_stochastic == pytest.approx(2 / 7)
    assert not health.stuck


def test_each_place_once_is_doubly_stochastic():
    assert attention_health([np.eye(7)]).doubly_stochastic == 0


def test_change_is_the_weight_that_moves():
    maps = np.array([[0.5, 0.5, 0.0], [0.5, 0.2, 0.3], [0.0, 0.0, 1.0]])
    assert attention_health([maps]).change == pytest.approx((0.3 + 0.7) / 2)
    # Sequences stand for themselves: from the last map of one to the first of the next nothing moves.
    assert attention_health([maps[:1], maps[2:]]).change != attention_health([maps[::2]]).change
    both = attention_health([maps, maps[:2]])
    assert both.change == pytest.approx((0.3 + 0.7 + 0.3) / 3)
    assert both.maps == 5


def test_maps_that_hardly_move_are_stuck():
    """The failure that users of other captioners report: maps that differ by 1e-9 from step to step."""
    maps = np.random.default_rng(0).random((11, 3, 5))
    still = maps[:1] / maps[0].sum() + 1e-9 * maps
    assert attention_health([still]).stuck
    assert not attention_health([maps]).stuck


def test_coverage_counts_places_with_half_an_even_share():
    maps = np.array([[0.5, 0.25, 0.25, 0.0], [0.5, 0.25, 0.0, 0.25]])  # received: 1, ½, ¼, ¼; an even share is ½
    assert attention_health([maps]).coverage == 1
    maps = np.array([[0.6, 0.2, 0.2, 0.0], [0.6, 0.2, 0.0, 0.2]])
    assert attention_health([maps]).coverage == 0.5


def test_maps_of_different_lengths_and_single_words():
    health = attention_health([np.ones((1, 2, 3)), np.ones((0, 2, 3)), np.eye(6).reshape(6, 2, 3)])
    assert health.maps == 7
    assert health.change == 1
    assert health.entropy == pytest.approx(np.log(6) / 7)
    alone = attention_health([np.ones((1, 2, 3))])
    assert np.isnan(alone.change)
    assert not alone.stuck


def test_parts_make_the_whole():
    rng = np.random.default_rng(2)
    sequences = [rng.random((t, 3, 5)) for t in (1, 7, 2, 1, 5)]
    parts = [attention_health(sequences[:2]), attention_health(sequences[2:4]), attention_health(sequences[4:])]
    np.testing.assert_allclose(Health.together(parts), attention_health(sequences))


def test_a_map_that_leaves_something_out_counts_like_a_whole_one():
    maps = np.random.default_rng(1).random((5, 3, 7))
    np.testing.assert_allclose(attention_health([maps]), attention_health([0.1 * maps]))


@pytest.mark.parametrize("maps", [[], [np.ones((0, 2, 3))], [np.zeros((1, 2, 3))], [-np.ones((1, 2, 3))]])
def test_invalid_maps_are_refused(maps):
    with pytest.raises(ValueError, match=r"no attention maps|weights must be"):
        attention_health(maps)
