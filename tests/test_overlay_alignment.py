"""The alignment plot: what is where on it, and that it says what its colours mean."""

import io
import warnings

import matplotlib
import numpy as np
import pytest
from conftest import assert_nothing_overlaps, images_of, pixels_of
from PIL import Image

from visattn.errors import InputError
from visattn.overlay import Alignment, alignment_sheet, alignment_sheets, encode_figure, save_figure

HOSTILE = [r"$x_1$", r"bad $\frac{ $", "狗", "🐶👩‍🚀", "", "مرحبا", "नमस्ते", "a\nb\x00c", "\ud800", "w" * 499, "%s{}\\"]


def words(count, start="w"):
    return [f"{start}{n}" for n in range(count)]


def some_weights(t, s, seed=0):
    weights = np.random.default_rng(seed).random((t, s)) ** 5
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def matrices(figure, least=40):
    """The panels, at the pixels shown, in reading order; the legend's small pictures left out."""
    pictures = pixels_of(figure)
    return [picture for picture in pictures if picture.shape[0] > least]


def cells(panel, t, s):
    """The middle pixel of each cell, (T, S, 3), in a panel of square cells."""
    cell = panel.shape[0] // t
    assert panel.shape == (t * cell, s * cell, 3)
    return panel[cell // 2 :: cell, cell // 2 :: cell].astype(int)


@pytest.mark.parametrize("shape", [(7, 5), (3, 11), (1, 13), (17, 1), (43, 41)])
def test_weight_is_the_colour_of_its_cell(shape):
    weights = np.zeros(shape)
    t, s = shape[0] // 2, shape[1] - 1
    weights[t, s] = 0.7
    (panel,) = matrices(alignment_sheet([("one", weights)], words(shape[1]), words(shape[0], "v")), least=20)
    light = cells(panel, *shape).sum(-1)
    assert np.argwhere(light == light.max()).tolist() == [[t, s]]
    assert light.max() > 550  # the bright end of the map
    assert np.ptp(np.delete(light.ravel(), t * shape[1] + s)) == 0


def test_lightness_rises_with_the_weight_on_one_scale_for_all():
    rising = np.linspace(0, 0.5, 23)[None]
    figure = alignment_sheet([("a", rising), ("b", 2 * rising)], words(23), ["word"])
    a, b = (cells(panel, 1, 23)[0] for panel in matrices(figure, least=20))
    assert (np.diff(b @ [0.2126, 0.7152, 0.0722]) > 0).all()
    np.testing.assert_array_equal(a[22], b[11])  # one weight, one colour
    assert {"0", "1", "attention weight α", "source across, target down"} <= set(texts(figure))


def test_saved_sheet_holds_the_words_beside_their_cells(tmp_path):
    source, target = ["the", "agreement", "on", "area"], ["l'", "accord", "sur", "la", "zone"]
    figure = alignment_sheet([("soft", some_weights(5, 4)), ("hard", some_weights(5, 4, 1))], source, target)
    assert texts(figure).count("agreement") == 2  # above each panel
    assert texts(figure).count("accord") == 1  # left of the first
    assert {"soft", "hard"} <= set(texts(figure))
    save_figure(figure, tmp_path / "alignment.png")
    with Image.open(tmp_path / "alignment.png") as saved:
        sheet = np.asarray(saved.convert("RGB"))
    renderer = figure.canvas.get_renderer()
    for image, panel in zip(images_of(figure), matrices(figure), strict=False):
        box = image.get_window_extent(renderer)
        left, top = round(box.x0), round(sheet.shape[0] - box.y1)
        np.testing.assert_array_equal(sheet[top : top + panel.shape[0], left : left + panel.shape[1]], panel)
    cell = matrices(figure)[0].shape[0] / 5
    first = images_of(figure)[0].get_window_extent(renderer)
    place = {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}
    for t, word in enumerate(target):
        middle = (place[word].y0 + place[word].y1) / 2
        assert abs(first.y1 - (t + 0.5) * cell - middle) < cell / 4
        assert place[word].x1 < first.x0
    above = [text for text in figure.texts if text.get_text() in source][:4]
    for s, text in enumerate(above):
        box = text.get_window_extent(renderer)
        assert text.get_text() == source[s]
        assert abs((box.x0 + box.x1) / 2 - first.x0 - (s + 0.5) * cell) < cell / 4
        assert box.y0 > first.y1


def test_true_and_drawn_places_are_marked():
    weights = np.full((3, 5), 0.2)
    plain = matrices(alignment_sheet([("a", weights)], words(5), words(3, "v")))[0]
    figure = alignment_sheet([("a", weights)] * 2, words(5), words(3, "v"), [4, -1, 0], drawn=[None, [0, 1, 2]])
    first, second = matrices(figure)
    cell = plain.shape[0] // 3

    def changed(panel):
        return (panel != plain).any(-1).reshape(3, cell, 5, cell)

    outlined = changed(first)
    assert np.argwhere(outlined.any((1, 3))).tolist() == [[0, 4], [2, 0]]
    assert not outlined[:, cell // 4 : -cell // 4, :, cell // 4 : -cell // 4].any()  # thin: the colour shows
    dotted = changed(second)[:, cell // 4 : -cell // 4, :, cell // 4 : -cell // 4]
    assert np.argwhere(dotted.any((1, 3))).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert {"true place", "the one place seen"} <= set(texts(figure))
    # As matrices they are the same.
    focus, true = np.eye(3, 5), np.zeros((3, 5), dtype=bool)
    true[0, 4] = true[2, 0] = True
    again = alignment_sheet([("a", weights)] * 2, words(5), words(3, "v"), true, drawn=[None, focus])
    np.testing.assert_array_equal(matrices(again)[1], second)


def test_without_marks_the_legend_has_none():
    assert not {"true place", "the one place seen"} & set(
        texts(alignment_sheet([("a", np.ones((2, 2)))], words(2), words(2), drawn=[None]))
    )


def test_nothing_lies_over_anything_else():
    long = ["Donaudampfschifffahrtsgesellschaft", "a", "b", "c", "d", "e", "f"]
    alignments = [
        Alignment(
            [(f"mechanism {n}", some_weights(7, 11)) for n in range(5)],
            words(11),
            long,
            notes=["n" * 99] * 5,
            heading="H",
        ),
        Alignment([("only one", some_weights(3, 7))], long, words(3), heading="another " * 99),
    ]
    for columns in (None, 2, 9):
        figure = alignment_sheets(alignments, columns)
        assert figure.get_size_inches()[0] * figure.dpi < (2600 if columns is None else 3000)
        assert_nothing_overlaps(figure)


def test_hostile_words_are_drawn_without_a_warning():
    count = len(HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = alignment_sheet(
            [(word, some_weights(count, count)) for word in HOSTILE],
            HOSTILE,
            HOSTILE,
            notes=HOSTILE,
            title=" ".join(HOSTILE),
        )
        data = encode_figure(figure)
        encode_figure(figure, "svg")
    assert r"$x_1$" in texts(figure)
    assert not any(text.get_parse_math() for text in figure.texts)
    assert "a bc" in texts(figure)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.width < 2600


def test_the_colour_map_is_the_projects_and_can_be_another():
    weights = some_weights(3, 5)
    default, own, other = (
        matrices(alignment_sheet([("a", weights)], words(5), words(3), **options))[0]
        for options in ({}, {"colour_map": "inferno"}, {"colour_map": "viridis"})
    )
    np.testing.assert_array_equal(default, own)
    assert (other != own).any()
    with pytest.raises(InputError, match="no such"):
        alignment_sheet([("a", weights)], words(5), words(3), colour_map="no such")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": [("soft", np.ones((5, 3)))]}, r"weights of 'soft' must be \(T, S\) = \(3, 5\).*\(5, 3\)"),
        ({"maps": [("soft", np.full((3, 5), np.nan))]}, "finite"),
        ({"maps": []}, "at least one map"),
        ({"source": []}, "one source word"),
        ({"notes": ["a", "b"]}, "1 maps, but 2 notes"),
        ({"drawn": []}, "1 maps, but 0 drawn places"),
        ({"drawn": [np.full((3, 5), 0.2)]}, "0 or 1"),
        ({"expected": [0, 1]}, r"\(2,\)"),
        ({"expected": [0, 1, 5]}, "numbers of the 5 source words"),
        ({"columns": 0}, "at least one column"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    good = {"maps": [("soft", np.ones((3, 5)))], "source": words(5), "target": words(3)}
    with pytest.raises(ValueError, match=message):
        alignment_sheet(**(good | change))
    with pytest.raises(ValueError, match="at least one alignment"):
        alignment_sheets([])


def test_figures_are_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    encode_figure(alignment_sheet([("a", np.ones((2, 2)))], words(2), words(2)))
    assert plt.get_fignums() == []
    assert matplotlib.rcParams["savefig.bbox"] is None
