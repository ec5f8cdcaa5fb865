"""The exposure figure: the lines are the numbers, on shared scales, each with its name beside its end."""

import warnings

import matplotlib
import numpy as np
import pytest
from conftest import assert_nothing_overlaps
from matplotlib.colors import to_hex
from PIL import Image

from visattn.overlay import Exposure, encode_figure, exposure_sheet, save_figure

NAMES = ["teacher-forced", "free running", "another reference"]
ACCURACY, LOSS = "tokens that are right, by position", "loss of the true token after the true words, nats"


def some_model(seed=0, positions=13, highest=3.7, **parts):
    """A captioner whose references are of 5 to `positions` tokens, evenly."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(1, (positions - np.arange(positions)) / (positions - 5)) * 1009
    values = {
        "name": f"model {seed}",
        "note": f"gap {seed}.5 points",
        "tokens": tokens.astype(int),
        "loss": highest * rng.uniform(0.5, 1, positions),
        "teacher_forced": rng.uniform(0.4, 0.7, positions),
        "free_running": rng.uniform(0.1, 0.3, positions),
        "another_reference": rng.uniform(0.05, 0.2, positions),
    }
    return Exposure(**(values | parts))


def texts(figure):
    return [text.get_text() for text in figure.texts]


def panels(figure):
    """The axes with lines, in the order drawn: of each model the accuracy, then the loss."""
    drawn = [axes for axes in figure.axes if not axes.images]
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def curves(axes):
    """The values of the lines but for the grid's, by colour."""
    lines = [line for line in axes.lines if line.get_transform() == axes.transData]
    return [(to_hex(line.get_color()), line.get_linestyle(), np.asarray(line.get_ydata())) for line in lines]


def test_lines_are_the_numbers():
    model = some_model()
    figure = exposure_sheet([model], least=0)
    ((accuracy, loss),) = panels(figure)
    person, free, taught = curves(accuracy)
    np.testing.assert_array_equal(taught[2], model.teacher_forced)
    np.testing.assert_array_equal(free[2], model.free_running)
    np.testing.assert_array_equal(person[2], model.another_reference)
    assert len({colour for colour, *_ in (person, free, taught)}) == 3
    assert [style == "-" for _, style, _ in (person, free, taught)] == [False, False, True]
    ((colour, _, values),) = curves(loss)
    np.testing.assert_array_equal(values, model.loss)
    assert colour == taught[0]  # it is of the same words
    np.testing.assert_allclose([bar.get_height() for bar in accuracy.patches], model.tokens / 1009)
    assert accuracy.get_ylim() == (0, 1)
    assert loss.get_ylim() == (0, 4)


def test_names_stand_beside_the_ends_of_the_lines():
    model = some_model(
        teacher_forced=np.full(13, 0.7), free_running=np.full(13, 0.3), another_reference=np.full(13, 0.1)
    )
    figure = exposure_sheet([model])
    renderer = figure.canvas.get_renderer()
    ((accuracy, _),) = panels(figure)
    place = {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}
    colour = {text.get_text(): to_hex(text.get_color()) for text in figure.texts}
    for name, (line, _, values) in zip(NAMES, curves(accuracy)[::-1], strict=True):
        x, y = accuracy.transData.transform((12, values[-1]))
        assert abs((place[name].y0 + place[name].y1) / 2 - y) < 6
        assert x < place[name].x0 < x + 60
        assert colour[name] == line
    assert {"0 %", "50 %", "100 %", ACCURACY, LOSS, "model 0", "gap 0.5 points"} <= set(texts(figure))


def test_ends_that_meet_keep_their_names_apart():
    for value in (0.0, 0.4, 1.0):
        same = np.full(13, value)
        figure = exposure_sheet([some_model(teacher_forced=same, free_running=same, another_reference=same)])
        assert set(NAMES) <= set(texts(figure))
        assert_nothing_overlaps(figure)


def test_positions_that_few_references_reach_are_left_out():
    model = some_model(
        tokens=[100, 100, 50, 9, 5, 4, 1],
        **{name: np.full(7, 0.5) for name in ("loss", "teacher_forced", "free_running", "another_reference")},
    )
    for least, count in ((0.05, 5), (0.1, 3), (0, 7), (1, 2)):
        figure = exposure_sheet([model], least=least)
        (pair,) = panels(figure)
        for axes in pair:
            assert {len(values) for *_, values in curves(axes)} == {count}
        assert any(f"down to {100 * least:g} %" in text for text in texts(figure))
        assert texts(figure).count(str(count)) == 2  # the last position is numbered, under both panels


def test_models_share_their_scales_and_show_the_others_losses():
    models = [some_model(0), some_model(1, positions=29, highest=5.9), some_model(2, positions=7)]
    figure = exposure_sheet(models, least=0)
    assert len({axes.get_xlim() for pair in panels(figure) for axes in pair}) == 1
    assert len({loss.get_ylim() for _, loss in panels(figure)}) == 1
    assert panels(figure)[0][1].get_ylim()[1] >= max(model.loss.max() for model in models)
    for n, (_, loss) in enumerate(panels(figure)):
        *others, own = curves(loss)
        np.testing.assert_array_equal(own[2], models[n].loss)
        assert [len(values) for *_, values in others] == [len(m.tokens) for m in models if m is not models[n]]
        assert own[0] not in {colour for colour, *_ in others}
    assert {"model 0", "model 1", "model 2", "the other models' loss"} <= set(texts(figure))
    assert [texts(figure).count(name) for name in (*NAMES, ACCURACY, LOSS)] == [1] * 5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_nothing_lies_over_anything_else(count, tmp_path):
    models = [some_model(seed, positions=7 + 13 * seed, highest=0.3 + 7 * seed) for seed in range(count)]
    models[0] = models[0]._replace(name="a very long name " * 9, note="n " * 299)
    figure = exposure_sheet(models, title="What a captioner gets right")
    assert_nothing_overlaps(figure)
    save_figure(figure, tmp_path / "exposure.png")
    with Image.open(tmp_path / "exposure.png") as picture:
        assert picture.width == 1800


def test_without_another_reference_it_is_not_mentioned():
    plain = some_model()
    for missing in (None, np.full(13, np.nan)):
        figure = exposure_sheet([plain._replace(another_reference=missing)])
        assert not any("another reference" in text for text in texts(figure))
        assert_nothing_overlaps(figure)
    assert any("another reference:" in text for text in texts(exposure_sheet([plain])))


def test_one_position_is_seen():
    model = some_model(positions=13, tokens=[10, *[0] * 12])
    ((accuracy, _),) = panels(exposure_sheet([model]))
    assert {line.get_marker() for line in accuracy.lines if len(line.get_ydata()) == 1} == {"o"}


def test_hostile_names_are_drawn_without_a_warning():
    words = [r"$x_1$", r"bad $\frac{ $", "狗", "🐶👩‍🚀", "مرحبا", "a\nb\x00c", "\ud800", "w" * 499, "%s{}\\", ""]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = exposure_sheet([some_model(n, name=word, note=word) for n, word in enumerate(words)], title=words[0])
        encode_figure(figure)
        encode_figure(figure, "svg")
    assert r"$x_1$" in texts(figure)
    assert_nothing_overlaps(figure)
    assert matplotlib.rcParams["savefig.bbox"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": []}, "tokens of 'model 0'"),
        ({"tokens": np.zeros(13)}, "some of them at the first position"),
        ({"loss": np.ones(5)}, r"loss of 'model 0' must be \(T,\) = \(13,\), and is \(5,\)"),
        ({"loss": np.full(13, np.nan)}, "loss of 'model 0' must lie between"),
        ({"teacher_forced": np.full(13, 45.0)}, "teacher_forced of 'model 0' must lie between 0 and 1"),
        ({"free_running": np.full(13, -0.1)}, "free_running of 'model 0'"),
        ({"another_reference": np.full(13, 1.1)}, "another_reference of 'model 0'"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        exposure_sheet([some_model(**change)])
    with pytest.raises(ValueError, match="no model"):
        exposure_sheet([])
    with pytest.raises(ValueError, match="least is 2"):
        exposure_sheet([some_model()], least=2)
