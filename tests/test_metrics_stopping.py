"""Accuracy against the mean number of glimpses."""

import numpy as np
import pytest

from visattn.metrics.stopping import stopping_curve

SURE = np.array([[0.9, 0.1, 0.0], [0.2, 0.6, 0.0], [0.3, 0.1, 0.0]])
RIGHT = np.array([[True, False, False], [False, True, True], [False, False, True]])


def test_each_threshold_stops_where_it_is_first_reached():
    curve = stopping_curve(SURE, RIGHT, points=1000)
    points = dict(zip(curve.glimpses.round(6).tolist(), curve.accuracy.round(6).tolist(), strict=True))
    assert points[1.0] == round(1 / 3, 6)  # the first glimpse is enough for all
    assert points[round((1 + 2 + 3) / 3, 6)] == 1.0  # a threshold of 0.5: each stops when it is right
    assert points[3.0] == round(2 / 3, 6)  # nothing is enough
    assert (np.diff(curve.glimpses) >= 0).all()


def test_the_last_glimpse_needs_no_threshold():
    one = stopping_curve(SURE[:, :1], RIGHT[:, :1])
    assert (one.glimpses.tolist(), one.accuracy.tolist()) == ([1.0], [pytest.approx(1 / 3)])


def test_arrays_that_do_not_fit_are_refused():
    for sure, right in ((SURE, RIGHT[:2]), (SURE[0], RIGHT[0]), (SURE[:0], RIGHT[:0])):
        with pytest.raises(ValueError, match="images, glimpses"):
            stopping_curve(sure, right)
