"""The figures of studies: lines and cells are the numbers, axes are shared, and nothing overlaps."""

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from visattn.figures import (
    Alignment,
    Curve,
    Curves,
    Exposure,
    Faithfulness,
    Growth,
    LengthLine,
    Lengths,
    Line,
    Ranked,
    StoppingLine,
    alignment_sheet,
    curves_sheet,
    exposure_sheet,
    faithfulness_sheet,
    growth_sheet,
    lengths_sheet,
    ranking_sheet,
    stopping_sheet,
    work_sheet,
)
from visattn.overlay import encode_figure

HOSTILE = [r"$x_1$", r"bad $\frac{ $", "狗", "🐶👩‍🚀", "مرحبا", "a\nb\x00c", "\ud800", "w" * 499, "%s{}\\", ""]
LONG = "a very long name which does not come to an end, " * 9
X = np.array([2.0, 8.0, 32.0])
SHARE = np.linspace(0, 1, 14)


def epochs_of(*values):
    return np.arange(1.0, len(values) + 1), np.array(values, float)


def some_curves(names=("one", "two"), count=2):
    lines = {name: epochs_of(n, 5, 7 + n) for n, name in enumerate(names)}
    return curves_sheet([Curves(f"metric {n}", lines) for n in range(count)], title="A title", note="a note")


def some_growth(names=("one", "two"), count=4, power=1.0):
    curves = [Curve(name, X, np.array([3.0, 5.0, 70.0]) * (n + 1)) for n, name in enumerate(names)]
    panels = [Growth(f"panel {n}", "places", curves, power) for n in range(count)]
    return growth_sheet(panels, unit="ms an image", title="How cost grows", note="a machine")


def some_maps(names=("rollout", "relevance", "random maps", "the centre"), low=0.0, high=1.0):
    rng = np.random.default_rng(0)
    kinds = ["map"] * (len(names) - 2) + ["random", "centre"]
    spread = np.full((2, 14), 0.03 * (high - low))
    return [
        Faithfulness(name, rng.uniform(low, high, (2, 14)), (0.125 + n, -0.5 - n), kind, spread if n == 2 else None)
        for n, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


def some_rule(name="learned"):
    return StoppingLine(name, np.array([1, 2.5, 4]), np.array([0.5, 0.75, 0.9]), (2.5, 0.75))


def some_model(seed=0, positions=13, **parts):
    """A captioner whose references have 5 to `positions` tokens, evenly distributed."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(1, (positions - np.arange(positions)) / (positions - 5)) * 1009
    values = {
        "name": f"model {seed}",
        "note": f"gap {seed}.5 points",
        "tokens": tokens.astype(int),
        "loss": 3.7 * rng.uniform(0.5, 1, positions),
        "teacher_forced": rng.uniform(0.4, 0.7, positions),
        "free_running": rng.uniform(0.1, 0.3, positions),
        "another_reference": rng.uniform(0.05, 0.2, positions),
    }
    return Exposure(**(values | parts))


def some_weights(t, s, seed=0):
    weights = np.random.default_rng(seed).random((t, s)) ** 5
    return weights / weights.sum(1, keepdims=True)


def some_alignment(names=("soft", "hard"), **more):
    source, target = ["the", "area", "agreement", "on", "it"], ["l'", "accord", "zone"]
    return Alignment([(name, some_weights(3, 5, n)) for n, name in enumerate(names)], source, target, **more)


def some_ranking(names=("a map", "random")):
    interval = (0.3, 0.21, 0.47)
    last = Ranked(names[-1][:30], (interval,) * 3, True)
    return [*(Ranked(name[:30], (interval, None, (-0.2, -0.5, 0.1))) for name in names[:-1]), last]


def some_line(name="learned", read=0.083):
    accuracy = np.array([0.7, 0.9, 0.95])
    return Line(name, np.array([2e5, 4e5, 6e5]), accuracy, accuracy - 0.1, accuracy + 0.02, read)


def some_lengths(names=("fixed", "soft"), **more):
    right = np.array([0.9, 0.5, 0.07])
    lines = [LengthLine(name, right, right / 2, right + 0.02, control=n == 0) for n, name in enumerate(names)]
    return Lengths(names[0], [5, 11, 41], (3, 13), lines)._replace(**more)


def said(figure):
    """Every text of a figure that is shown, line by line."""
    found = figure.findobj(Text)
    return [line for text in found if text.get_visible() and text.get_text() for line in text.get_text().split("\n")]


def drawn(figure):
    """The axes with lines or pictures, without those of legends and colour bars."""
    return [axes for axes in figure.axes if axes.axison and axes.get_subplotspec() and (axes.lines or axes.images)]


def assert_laid_out(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    titles = [text for text in (figure._suptitle, figure._supxlabel) if text is not None]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.axison or axes.get_legend()]
    boxes += [part.get_window_extent(renderer) for part in (*titles, *figure.legends)]
    for box in boxes:
        assert min(box.x0, box.y0) >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1
    for one, other in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        assert across < 2 or min(one.y1, other.y1) - max(one.y0, other.y0) < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda names: some_curves(names[:7], 3),
        lambda names: some_growth(names[:3], 5),
        lambda names: faithfulness_sheet(some_maps(names[:4], -3, 0), SHARE, unit=names[0], title=names[1], note=LONG),
        lambda names: exposure_sheet([some_model(name=names[0], note=names[1])], title=names[2]),
        lambda names: exposure_sheet([some_model(n, 7 + n, name=name, note=name) for n, name in enumerate(names[:6])]),
        lambda names: alignment_sheet(
            [some_alignment(names[:3], heading=names[0][:40], notes=names[:3])] * 2, title=LONG
        ),
        lambda names: ranking_sheet(some_ranking(names), ["one ↓", "two ↑", "three"], title=names[0], note=LONG),
        lambda names: work_sheet([some_line(name) for name in names[:4]], title=names[0], note=LONG),
        lambda names: stopping_sheet([some_rule(name) for name in names[:4]], title=names[0], note=LONG),
        lambda names: lengths_sheet([some_lengths(names[:7])] * 2, title=names[0], note=LONG),
        lambda names: alignment_sheet([Alignment([("a", np.ones((1, 8)))], names[:8], names[:1])]),
    ],
    ids=[
        "curves",
        "growth",
        "faithfulness",
        "one captioner",
        "six captioners",
        "alignment",
        "ranking",
        "work",
        "stopping",
        "lengths",
        "long source words",
    ],
)
@pytest.mark.parametrize("names", [[f"{n} {LONG}" for n in range(9)], HOSTILE], ids=["long", "hostile"])
def test_nothing_overlaps_whatever_is_written(make, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = make(names)
        assert_laid_out(figure)
    assert not any(
        text.get_parse_math() for text in figure.findobj(Text) if text.get_visible() and "$" in text.get_text()
    )


def test_equal_figures_are_equal_bytes_however_often_they_are_drawn():
    one, other = some_curves(), some_curves()
    assert encode_figure(one, "svg") == encode_figure(one, "svg") == encode_figure(other, "svg")


def test_a_single_value_is_seen_and_shares_are_not_below_0():
    figure = curves_sheet([Curves("a", {"one": (np.array([1.0]), np.array([0.0])), "two": epochs_of(1, 2)}, "%")])
    (axes,) = [axes for axes in figure.axes if axes.lines]
    assert [line.get_marker() for line in axes.lines] == ["o", "None"]
    assert axes.get_ylim()[0] == 0


def test_curves_are_the_numbers_and_the_legend_gives_the_last():
    figure = curves_sheet([Curves("a", {"one": epochs_of(0, 5, 7), "two": epochs_of(1, 2, 93.14)}, "%")])
    (axes,) = drawn(figure)
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0, 5, 7], [1, 2, 93.14]]
    assert {"one: 7%", "two: 93.1%", "a", "epoch"} <= set(said(figure))
    assert {"A title", "a note"} <= set(said(some_curves()))
    first, second = (
        {to_hex(line.get_color()) for line in axes.lines[:1]}
        for axes in drawn(curves_sheet([Curves("a", {"x": epochs_of(1, 2)}), Curves("b", {"y": epochs_of(1, 2)})]))
    )
    assert first != second, "a run has one colour in all panels"


def test_growth_has_the_same_logarithmic_axes_in_all_panels():
    figure = some_growth()
    assert len(drawn(figure)) == 4
    for axes in drawn(figure):
        assert axes.get_yscale() == axes.get_xscale() == "log"
        np.testing.assert_allclose(axes.get_ylim(), (1, 1000))
        np.testing.assert_allclose(axes.get_xlim(), (2, 32))
        lines = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(lines, [[3, 5, 70], [6, 10, 140]])
    assert {"How cost grows", "ms an image; dotted: in proportion. a machine", "one: 3 → 70"} <= set(said(figure))


@pytest.mark.parametrize(("power", "last"), [(0.0, 3), (1.0, 48), (2.0, 768)])
def test_the_dotted_line_is_in_proportion(power, last):
    (dotted,) = [line for line in drawn(some_growth(count=1, power=power))[0].lines if line.is_dashed()]
    np.testing.assert_allclose(dotted.get_ydata()[[0, -1]], (3, last))


def test_deletion_and_insertion_are_the_numbers_with_their_areas():
    maps = some_maps()
    figure = faithfulness_sheet(maps, SHARE, unit="probability", title="a model")
    for way, axes in enumerate(drawn(figure)):
        for line, given in zip(axes.lines, maps, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), given.curves[way])
        colours = [to_hex(line.get_color()) for line in axes.lines]
        assert len(set(colours[:2])) == 2
        assert colours[2] == colours[3] not in colours[:2], "baselines are grey"
        assert [line.is_dashed() for line in axes.lines] == [False, False, True, True]
        orders = [line.get_zorder() for line in axes.lines]
        assert orders == sorted(orders, reverse=True), "the first map is on top"
        assert axes.get_ylim() == (0, 1)
        top = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert top.max() == pytest.approx((maps[2].curves[way] + 0.03).max())
    assert {"rollout: 0.125", "rollout: −0.500", "a model"} <= set(said(figure))


@pytest.mark.parametrize(("low", "high"), [(-5.7, -0.3), (-0.03, -0.01), (-37, 0)])
def test_log_probabilities_are_drawn_up_to_zero(low, high):
    for axes in drawn(faithfulness_sheet(some_maps(low=low, high=high), SHARE, unit="nats")):
        assert axes.get_ylim()[1] == 0
        assert 1.1 * low < axes.get_ylim()[0] <= min(line.get_ydata().min() for line in axes.lines)


def test_exposure_is_the_numbers():
    model = some_model()
    accuracy, loss = drawn(exposure_sheet([model], least=0))
    person, free, taught = (line.get_ydata() for line in accuracy.lines)
    np.testing.assert_array_equal(taught, model.teacher_forced)
    np.testing.assert_array_equal(free, model.free_running)
    np.testing.assert_array_equal(person, model.another_reference)
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), model.loss)
    assert len({line.get_color() for line in accuracy.lines}) == 3
    assert [line.is_dashed() for line in accuracy.lines] == [True, True, False]
    assert loss.lines[0].get_color() == accuracy.lines[2].get_color(), "both are of the true words"
    bars = [patch.get_height() for patch in accuracy.patches]
    np.testing.assert_allclose(bars, model.tokens / 1009)
    assert accuracy.get_ylim() == (0, 1)


def test_positions_that_few_references_reach_are_left_out():
    parts = {name: np.full(7, 0.5) for name in ("loss", "teacher_forced", "free_running", "another_reference")}
    model = some_model(tokens=[100, 100, 50, 9, 5, 4, 1], **parts)
    for least, count in ((0.05, 5), (0.1, 3), (0, 7), (1, 2)):
        figure = exposure_sheet([model], least=least)
        assert {len(line.get_ydata()) for axes in drawn(figure) for line in axes.lines} == {count}
        assert any(f"down to {100 * least:g}%" in text for text in said(figure))
    (accuracy, _) = drawn(exposure_sheet([some_model(tokens=[10, *[0] * 12])]))
    assert {line.get_marker() for line in accuracy.lines} == {"o"}, "a single position is visible"


def test_captioners_share_their_axes_and_show_the_others_losses():
    models = [some_model(0), some_model(1, positions=29), some_model(2, positions=7)]
    figure = exposure_sheet(models, least=0)
    accuracies, losses = drawn(figure)[:3], drawn(figure)[3:]
    assert len({axes.get_xlim() for axes in (*accuracies, *losses)}) == len({axes.get_ylim() for axes in losses}) == 1
    for model, axes in zip(models, losses, strict=True):
        *others, own = axes.lines
        np.testing.assert_array_equal(own.get_ydata(), model.loss)
        assert [len(line.get_ydata()) for line in others] == [len(m.tokens) for m in models if m is not model]
        assert own.get_color() not in {line.get_color() for line in others}
    assert {"model 0", "model 1", "model 2", "the other models' loss", "gap 1.5 points"} <= set(said(figure))


@pytest.mark.parametrize("missing", [None, np.full(13, np.nan)])
def test_without_another_reference_it_is_not_mentioned(missing):
    assert not any("another" in text for text in said(exposure_sheet([some_model(another_reference=missing)])))
    assert any("another" in text for text in said(exposure_sheet([some_model()])))


def test_an_alignments_cells_are_its_weights_on_one_scale():
    figure = alignment_sheet([some_alignment(heading="French"), some_alignment(("local",))])
    maps = [weights for names in (("soft", "hard"), ("local",)) for _, weights in some_alignment(names).maps]
    for axes, weights in zip(drawn(figure), maps, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), weights)
        assert image.get_clim() == (0, max(part.max() for part in maps))
        assert [label.get_text() for label in axes.get_xticklabels()] == ["the", "area", "agreement", "on", "it"]
        assert axes.get_xticks().tolist() == list(range(5))
    assert [label.get_text() for label in drawn(figure)[0].get_yticklabels()] == ["l'", "accord", "zone"]
    assert {"soft", "hard", "local", "French", "attention weight α"} <= set(said(figure))


def test_a_ranking_has_a_point_and_an_interval_for_each_score():
    figure = ranking_sheet(some_ranking(), ["one", "two", "three"])
    one, two, three = drawn(figure)
    assert [line.get_xdata().tolist() for line in one.lines] == [[0.21, 0.47], [0.3]] * 2
    assert [line.get_ydata().tolist() for line in two.lines] == [[1, 1], [1]], "the first map has no such score"
    assert [line.get_xdata().tolist() for line in three.lines[:2]] == [[-0.5, 0.1], [-0.2]]
    assert one.lines[0].get_color() != one.lines[2].get_color(), "controls are grey"
    grid = [line.get_color() for axes in (one, two, three) for line in axes.get_xgridlines()]
    assert min(min(to_rgb(ink)) for ink in grid) > 0.8, "grid lines are lighter than intervals and axes"
    assert {"a map", "random", "one", "two", "three"} <= set(said(figure))


def test_work_is_the_numbers():
    (axes,) = drawn(work_sheet([some_line(), some_line("whole", 1.0)]))
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.transpose([some_line().work, some_line().accuracy]))
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == (0.6, 1)
    figure = work_sheet([some_line(), some_line("whole", 1.0)])
    read = ("learned: 95.0%, reads 8.3%", "whole: 95.0%, reads 100%")
    assert {f"{line} as many numbers as pixels" for line in read} <= set(said(figure))


def test_stopping_is_the_numbers_and_where_the_model_stops():
    figure = stopping_sheet([some_rule("fixed")._replace(control=True, chosen=None), some_rule()])
    (axes,) = drawn(figure)
    fixed, learned, chosen = axes.lines
    np.testing.assert_array_equal(learned.get_xydata(), [[1, 0.5], [2.5, 0.75], [4, 0.9]])
    assert chosen.get_xydata().tolist() == [[2.5, 0.75]]
    assert fixed.get_color() != learned.get_color() == chosen.get_color()
    assert {"fixed", "learned", "mean number of glimpses"} <= set(said(figure))


def test_accuracy_against_length_is_the_numbers():
    figure = lengths_sheet([some_lengths()])
    (axes,) = drawn(figure)
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[5, 0.9], [11, 0.5], [41, 0.07]]] * 2
    assert len({line.get_color() for line in axes.lines}) == 2, "baselines are grey"
    assert {"fixed: 50% at 11, 7% at 41", "soft: 50% at 11, 7% at 41"} <= set(said(figure))
    (only,) = [text for text in said(lengths_sheet([some_lengths(trained=(1, 2))])) if text.startswith("soft")]
    assert only == "soft: 7% at 41", "no length of training was measured"


def test_true_and_sampled_places_are_marked():
    focus, true = np.eye(3, 5), np.zeros((3, 5))
    true[0, 4] = true[2, 0] = 1
    for expected, sampled in (([4, -1, 0], [0, 1, 2]), (true, focus)):
        figure = alignment_sheet([some_alignment(expected=expected, drawn=[None, sampled])])
        soft, hard = drawn(figure)
        frames = [patch for patch in soft.patches if isinstance(patch, Rectangle)]
        assert [(round(f.get_y() + 0.46), round(f.get_x() + 0.46)) for f in frames] == [(0, 4), (2, 0)]
        assert not soft.lines
        assert [line.get_xydata().tolist() for line in hard.lines] == [[[0, 0], [1, 1], [2, 2]]]
        assert {"true place", "sampled place"} <= set(said(figure))
    assert not {"true place", "sampled place"} & set(said(alignment_sheet([some_alignment(drawn=[None, None])])))


ONES = np.ones((3, 5))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: curves_sheet([]), "nothing to draw"),
        (lambda: curves_sheet([Curves("a", {"one": (np.arange(3), np.arange(2))})]), "'one' in 'a'"),
        (lambda: growth_sheet([], unit="ms"), "nothing to draw"),
        (lambda: growth_sheet([Growth("p", "x", [])], unit="ms"), "nothing to draw"),
        (lambda: growth_sheet([Growth("p", "x", [Curve("a", X, X), Curve("b", X + 1, X)])], unit="ms"), "the same x"),
        (lambda: growth_sheet([Growth("p", "x", [Curve("a", X, X[:2])])], unit="ms"), "the same x"),
        (lambda: growth_sheet([Growth("p", "x", [Curve("a", X, X - 2)])], unit="ms"), "greater than 0"),
        (lambda: growth_sheet([Growth("p", "x", [Curve("a", X[::-1], X)])], unit="ms"), "ascending"),
        (lambda: faithfulness_sheet([], SHARE, unit=""), "no map"),
        (lambda: faithfulness_sheet(some_maps(), SHARE[1:], unit=""), r"'rollout' must be \(2, 13\)"),
        (lambda: faithfulness_sheet([some_maps()[0]._replace(kind="mean")], SHARE, unit=""), "kind 'mean'"),
        (lambda: faithfulness_sheet([some_maps()[0]._replace(spread=SHARE * np.nan)], SHARE, unit=""), "'rollout'"),
        (lambda: exposure_sheet([]), "no model"),
        (lambda: exposure_sheet([some_model()], least=2), "least is 2"),
        (lambda: exposure_sheet([some_model(tokens=[])]), "tokens of 'model 0'"),
        (lambda: exposure_sheet([some_model(tokens=np.zeros(13))]), "first position"),
        (lambda: exposure_sheet([some_model(loss=np.ones(5))]), r"loss of 'model 0' must be \(T,\) = \(13,\)"),
        (lambda: exposure_sheet([some_model(loss=np.full(13, np.nan))]), "loss of 'model 0' must lie"),
        (lambda: exposure_sheet([some_model(teacher_forced=np.full(13, 45.0))]), "teacher_forced of 'model 0'"),
        (lambda: exposure_sheet([some_model(free_running=np.full(13, -0.1))]), "free_running of 'model 0'"),
        (lambda: exposure_sheet([some_model(another_reference=np.full(13, 1.1))]), "another_reference of 'model 0'"),
        (lambda: ranking_sheet(some_ranking(), ["one"]), "every panel"),
        (lambda: work_sheet([]), "nothing to draw"),
        (lambda: work_sheet([some_line()._replace(work=np.array([0, 1, 2]))]), "work above 0"),
        (lambda: stopping_sheet([]), "nothing to draw"),
        (lambda: stopping_sheet([some_rule()._replace(glimpses=np.ones(2))]), "as many finite"),
        (lambda: stopping_sheet([some_rule()._replace(accuracy=np.full(3, np.nan))]), "as many finite"),
        (lambda: lengths_sheet([]), "nothing to draw"),
        (lambda: lengths_sheet([some_lengths(lengths=[5, 5, 7])]), "ascending"),
        (lambda: lengths_sheet([some_lengths(lengths=[5, 7])]), "accuracy for each length"),
        (lambda: alignment_sheet([]), "at least one alignment"),
        (lambda: alignment_sheet([some_alignment(())]), "at least one map"),
        (lambda: alignment_sheet([some_alignment()._replace(source=[])]), "one source word"),
        (lambda: alignment_sheet([some_alignment()._replace(source=["a"])]), r"'soft' must be \(T, S\) = \(3, 1\)"),
        (lambda: alignment_sheet([some_alignment()._replace(maps=[("a", ONES * np.nan)])]), "finite"),
        (lambda: alignment_sheet([some_alignment(notes=["a"])]), "2 maps, but 1 notes"),
        (lambda: alignment_sheet([some_alignment(drawn=[])]), "2 maps, but 0 drawn places"),
        (lambda: alignment_sheet([some_alignment(expected=ONES / 5)]), "0 or 1"),
        (lambda: alignment_sheet([some_alignment(expected=[0, 1])]), r"\(2,\)"),
        (lambda: alignment_sheet([some_alignment(expected=[0, 1, 5])]), "5 source words"),
    ],
)
def test_what_does_not_match_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
