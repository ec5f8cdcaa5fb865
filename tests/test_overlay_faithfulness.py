"""The figure of deletion and insertion: the lines are the numbers, on one scale, each named with its area."""

import warnings

import numpy as np
import pytest
from conftest import assert_nothing_overlaps
from matplotlib.colors import to_hex

from visattn.overlay import Faithfulness, encode_figure, faithfulness_sheet

SHARE = np.linspace(0, 1, 14)


def some_maps(low=0.0, high=1.0, names=("rollout", "relevance of the class", "random maps", "the centre")):
    rng = np.random.default_rng(0)
    kinds = ["map"] * (len(names) - 2) + ["random", "centre"]
    return [
        Faithfulness(
            name,
            rng.uniform(low, high, (2, 14)),
            (0.125 + n, -0.5 - n),
            kind,
            np.full((2, 14), 0.03 * (high - low)) if kind == "random" else None,
        )
        for n, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


def panels(figure):
    return [axes for axes in figure.axes if len(axes.lines) > 1]


def curves(axes):
    return [line for line in axes.lines if len(line.get_xdata()) == len(SHARE)]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_lines_are_the_numbers():
    maps = some_maps()
    figure = faithfulness_sheet(maps, SHARE, unit="probability of the class", title="a model", note="47 images")
    for way, axes in enumerate(panels(figure)):
        drawn = curves(axes)[::-1]  # the first map is drawn last, on top
        for line, given in zip(drawn, maps, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), given.curves[way])
            np.testing.assert_array_equal(line.get_xdata(), SHARE)
        colours = [to_hex(line.get_color()) for line in drawn]
        assert len(set(colours[:2])) == 2
        assert colours[2] == colours[3] not in colours[:2]  # controls are grey
        assert [line.is_dashed() for line in drawn] == [False, False, True, True]
        assert axes.get_ylim() == (0, 1)
        (band,) = axes.collections
        top = band.get_paths()[0].vertices[:, 1]
        assert top.max() == pytest.approx((maps[2].curves[way] + 0.03).max())
    assert len(panels(figure)) == 2
    assert {"a model", "47 images", "deletion: the lower the better", "insertion: the higher the better"} < set(
        texts(figure)
    )


def test_every_map_is_named_with_its_areas():
    maps = some_maps()
    said = texts(faithfulness_sheet(maps, SHARE, unit="probability of the class"))
    for n, given in enumerate(maps):
        assert said.count(given.name) == 2
        assert f"{0.125 + n:.3f}" in said
        assert f"−{0.5 + n:.3f}" in said
    assert said.count("area under the curve: mean probability of the class") == 2


@pytest.mark.parametrize(
    ("low", "high", "limits"), [(-5.7, -0.3, (-6, 0)), (-0.03, -0.01, (-0.03, 0)), (-37, 0, (-40, 0))]
)
def test_log_probabilities_have_their_own_scale(low, high, limits):
    maps = some_maps(low, high)
    maps[0].curves[0, 0], maps[0].curves[0, 1] = low, high
    figure = faithfulness_sheet(maps, SHARE, unit="log-probability of the word, nats")
    for axes in panels(figure):
        np.testing.assert_allclose(axes.get_ylim(), limits)
    assert f"−{-limits[0]:g}" in texts(figure)


@pytest.mark.parametrize("long", [False, True])
def test_nothing_overlaps_and_long_names_are_cut(long):
    names = ["a very long name of a map that goes on and on and on, and does not come to an end"] * 4 if long else None
    maps = some_maps(-3, 0, names) if long else some_maps()
    note = "what was measured " * (30 if long else 1)
    figure = faithfulness_sheet(maps, SHARE, unit="probability of the class", title="a model " * 40 * long, note=note)
    assert_nothing_overlaps(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encode_figure(figure) == encode_figure(figure)


def test_numbers_that_do_not_fit_are_refused():
    maps = some_maps()
    with pytest.raises(ValueError, match="no map to draw"):
        faithfulness_sheet([], SHARE, unit="")
    with pytest.raises(ValueError, match=r"the curves of 'rollout' must be \(2, 13\) finite"):
        faithfulness_sheet(maps, SHARE[1:], unit="")
    maps[2].spread[0, 0] = np.nan
    with pytest.raises(ValueError, match="the curves of 'random maps' must be"):
        faithfulness_sheet(maps, SHARE, unit="")
    with pytest.raises(ValueError, match="'rollout' is of kind 'mean', not one of map, random, centre"):
        faithfulness_sheet([maps[0]._replace(kind="mean")], SHARE, unit="")
