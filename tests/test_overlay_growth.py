"""Growth drawn: points stand where their numbers say, on the same scale in all panels."""

import numpy as np
import pytest
from conftest import assert_nothing_overlaps

from visattn.overlay import Curve, Growth, growth_sheet

X = np.array([2.0, 8.0, 32.0])


def some(names=("one", "two"), power=1.0, count=4):
    curves = [Curve(name, X, np.array([3.0, 5.0, 70.0]) * (n + 1)) for n, name in enumerate(names)]
    return [Growth(f"panel {n}", "places", curves, power) for n in range(count)]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_points_stand_on_logarithmic_axes_which_all_panels_share():
    figure = growth_sheet(some(), unit="ms an image")
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert axes.get_yscale() == axes.get_xscale() == "log"
        np.testing.assert_allclose(axes.get_ylim(), (1, 1000))
        np.testing.assert_allclose(axes.get_xlim(), (2, 32))
        drawn = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(drawn, [[3, 5, 70], [6, 10, 140]])


@pytest.mark.parametrize(("power", "last"), [(0.0, 3), (1.0, 48), (2.0, 768)])
def test_the_dotted_line_is_in_proportion(power, last):
    figure = growth_sheet(some(power=power, count=1), unit="ms")
    (dotted,) = [line for line in figure.axes[0].lines if line.is_dashed()]
    np.testing.assert_allclose(dotted.get_ydata()[[0, -1]], (3, last))


def test_names_numbers_units_and_conditions_are_said():
    said = texts(growth_sheet(some(count=1), unit="ms an image", title="How cost grows", note="a machine"))
    for text in ("How cost grows", "ms an image; dotted: in proportion. a machine", "panel 0", "places", "one", "two"):
        assert said.count(text) == 1
    assert "3 → 70" in said
    assert "6 → 140" in said
    assert {"1", "10", "100", "1000", "2", "8", "32"} <= set(said)


@pytest.mark.parametrize(
    "names", [("one",), ("a very long name of what was measured, which does not come to an end",) * 3]
)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_nothing_overlaps(names, count):
    assert_nothing_overlaps(growth_sheet(some(names, count=count), unit="ms", title="x " * 200, note="y " * 300))


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "nothing to draw"),
        ([Growth("p", "x", [])], "nothing to draw"),
        ([Growth("p", "x", [Curve("a", X, X), Curve("b", X + 1, X)])], "the same x"),
        ([Growth("p", "x", [Curve("a", X, X[:2])])], "the same x"),
        ([Growth("p", "x", [Curve("a", X, X - 2)])], "more than 0"),
        ([Growth("p", "x", [Curve("a", X[::-1], X)])], "must rise"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels, message):
    with pytest.raises(ValueError, match=message):
        growth_sheet(panels, unit="ms")
