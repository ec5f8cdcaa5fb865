import errno
import io
import re
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import assert_nothing_overlaps, images_of, pixels_of
from matplotlib.patches import Rectangle
from PIL import Image

from visattn.errors import InputError
from visattn.files import write_bytes, write_text
from visattn.images import Geometry, fit_image
from visattn.overlay import (
    Panel,
    Paper,
    Section,
    Style,
    caption_sheet,
    classification_sheet,
    encode_figure,
    encode_png,
    heatmap,
    page,
    save_figure,
    shared_limits,
)
from visattn.overlay.heatmap import robust_limits
from visattn.overlay.maps import ABOVE

HOSTILE = [
    r"bad $\frac{ $",
    "狗",
    "🐶👩‍🚀",
    "",
    "   ",
    "مرحبا",
    "नमस्ते",
    "a\nb\x00c",
    "\ud800",
    "e\u0301\u202eevil",
    "w" * 997,
    "%s{}\\",
]


def scene(height=61, width=97, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height, width, value=90):
    return np.full((height, width, 3), value, dtype=np.uint8)


def some_maps(count, grid=(5, 7), seed=1):
    weights = np.random.default_rng(seed).random((count, *grid)) ** 5
    return (weights / weights.sum((1, 2), keepdims=True)).astype(np.float32)


def geometry_of(image, size=(43, 43), fit="crop"):
    return fit_image(Image.fromarray(image), size, fit)[1]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def panels(figure, least=30):
    """The pictures of the sheet, at the pixels shown, in reading order; the legend's small ones left out."""
    return [picture for picture in pixels_of(figure) if picture.shape[0] > least]


def coloured(pixels):
    """How far each pixel is from grey."""
    return np.ptp(pixels.astype(int), axis=-1)


# ------------------------------------------------------------------------------------------------------------ heatmap


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(427, 640), (499, 301), (31, 47)])
def test_colour_lies_over_the_bright_dot(size, fit):
    top, left, bottom, right = geometry_of(grey(*size), (112, 112), fit).visible()
    dot = np.array([top + 0.31 * (bottom - top), left + 0.72 * (right - left)])
    image = grey(*size, 0)
    image[tuple(dot.astype(int))] = 255
    # The model's part is played by the input image itself: its cells are as bright as what they hold.
    small, geometry = fit_image(Image.fromarray(image), (112, 112), fit)
    light = np.asarray(small)[..., 0].astype(float) * (np.asarray(small) != (124, 116, 104)).any(-1)
    weights = light.reshape(14, 8, 14, 8).sum((1, 3))
    out = heatmap(grey(*size), weights, geometry, limits=(0, weights.max()), interpolation="nearest")
    y, x = np.nonzero(out[..., 1] == out[..., 1].max())  # yellow, the high end, has the most green
    cell = np.array([112 / 14, 112 / 14]) / geometry.scale
    assert abs(y.mean() + 0.5 - dot[0]) <= cell[0] / 2 + 1
    assert abs(x.mean() + 0.5 - dot[1]) <= cell[1] / 2 + 1
    assert y.min() <= int(dot[0]) <= y.max()
    assert x.min() <= int(dot[1]) <= x.max()


def test_what_was_not_seen_is_hatched_and_never_coloured():
    image = scene(61, 131)
    geometry = geometry_of(image)
    out = heatmap(image, np.ones((3, 3)), geometry, limits=(0, 1))
    unseen = np.isnan(geometry.to_original_map(np.ones((3, 3))))
    assert 0.3 < unseen.mean() < 0.7
    assert (coloured(out)[unseen] == 0).all()
    assert coloured(out)[~unseen].min() > 40
    # On an even ground: a pale grey with darker lines, each of which descends to the left.
    flat = heatmap(grey(61, 131), np.ones((3, 3)), geometry, limits=(0, 1))[..., 0].astype(int)
    assert flat[:, :30].max() - flat[:, :30].min() > 25
    np.testing.assert_array_equal(flat[1:, :29], flat[:-1, 1:30])
    # It does not depend on the weights.
    other = heatmap(image, np.zeros((3, 3)), geometry, limits=(0, 1))
    np.testing.assert_array_equal(out[unseen], other[unseen])


def test_picture_stays_visible_where_the_weight_is_low():
    image = scene(53, 59)
    out = heatmap(image, np.zeros((2, 2)), Geometry.identity((53, 59)), limits=(0, 1))
    assert np.corrcoef(image.mean(-1).ravel(), out.mean(-1).ravel())[0, 1] > 0.95
    assert (out.mean(-1) <= image.max(-1)).all()
    covered = heatmap(image, np.ones((2, 2)), Geometry.identity((53, 59)), limits=(0, 1))
    assert 0 < covered.mean(-1).std() < 0.5 * out.mean(-1).std()  # even the highest weight does not hide it all
    bare = heatmap(image, np.ones((2, 2)), Geometry.identity((53, 59)), limits=(0, 1), opacity=0)
    np.testing.assert_array_equal(bare, out)


def test_lightness_rises_with_the_weight():
    ramp = np.linspace(0, 1, 101)[None]
    geometry = Geometry.identity((1, 101))
    out = heatmap(grey(1, 101, 20), ramp, geometry, limits=(0, 1), interpolation="nearest").astype(float)
    light = (out @ [0.2126, 0.7152, 0.0722])[0]
    assert (np.diff(light) > -0.8).all()  # rounding
    assert light[-1] - light[0] > 120


def test_limits_are_the_ends_of_the_scale():
    geometry = Geometry.identity((1, 4))

    def colours(weights, limits):
        return heatmap(grey(1, 4), np.array([weights]), geometry, limits=limits, interpolation="nearest")[0]

    a = colours([0.0, 0.2, 0.4, 0.9], (0, 0.4))
    np.testing.assert_array_equal(a[2], a[3])  # beyond the end: the end
    np.testing.assert_array_equal(a, colours([5.0, 7, 9, 11], (5, 9)))  # only the place between the limits counts
    assert (colours([0.0, 0.2, 0.4, 0.9], (0, 0.9))[1] != a[1]).any()
    assert shared_limits([np.array([[0.1, 0.3]]), np.array([[0.7]])]) == (0.0, 0.7)
    assert shared_limits([]) == (0.0, 0.0)


def test_map_without_a_scale_does_not_divide_by_zero():
    geometry = Geometry.identity((7, 11))
    out = heatmap(grey(7, 11), np.zeros((2, 3)), geometry, limits=shared_limits([np.zeros((2, 3))]))
    np.testing.assert_array_equal(out, heatmap(grey(7, 11), np.zeros((2, 3)), geometry, limits=(0, 1)))


def test_bands_leave_no_seam():
    image = scene(617, 131)
    geometry = geometry_of(image)
    weights = some_maps(1)[0]
    whole = heatmap(image, weights, geometry, limits=(0, weights.max()))
    top = 251  # no multiple of a band
    part = geometry._replace(
        original=(617 - top, 131), offset=(geometry.offset[0] - top * geometry.scale[0], geometry.offset[1])
    )
    rest = heatmap(image[top:], weights, part, limits=(0, weights.max()))
    seen = ~np.isnan(geometry.to_original_map(weights))[top:]
    np.testing.assert_allclose(rest[seen].astype(int), whole[top:][seen].astype(int), atol=1)
    flat = heatmap(grey(617, 131), weights, geometry, limits=(0, 1))[int(geometry.visible()[2]) + 1 :, :, 0]
    np.testing.assert_array_equal(flat[1:, :-1], flat[:-1, 1:])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": grey(7, 13)}, ValueError, r"\(7, 11, 3\)"),
        ({"image": grey(7, 11).astype(float)}, ValueError, "float64"),
        ({"weights": np.ones(3)}, ValueError, r"\(h, w\)"),
        ({"weights": np.array([[0, np.nan]])}, ValueError, "finite"),
        ({"limits": (1, 0)}, ValueError, "limits must be"),
        ({"limits": (0, np.nan)}, ValueError, "limits must be"),
        ({"colour_map": "no such"}, InputError, "no such"),
        ({"opacity": 1.5}, InputError, "1.5"),
    ],
)
def test_heatmap_names_what_is_wrong(change, error, message):
    good = {"image": grey(7, 11), "weights": np.ones((2, 3)), "geometry": Geometry.identity((7, 11)), "limits": (0, 1)}
    with pytest.raises(error, match=message):
        heatmap(**(good | change))


# ------------------------------------------------------------------------------------------------------------- sheets


def test_same_weight_has_the_same_colour_in_all_panels_of_a_shared_scale():
    image, maps = grey(64, 64), np.full((2, 2, 2), 0.1)
    maps[1, 0, 0] = 0.7
    geometry = Geometry.identity((64, 64))
    _, one, two = panels(caption_sheet(image, ["a", "b"], maps, geometry, style=Style(interpolation="nearest")))
    np.testing.assert_array_equal(one[-1, -1], two[-1, -1])
    figure = caption_sheet(image, ["a", "b"], maps, geometry, style=Style("own", interpolation="nearest"))
    _, one, two = panels(figure)
    assert (one[-1, -1] != two[-1, -1]).any()
    np.testing.assert_array_equal(one[-1, -1], two[0, 0])  # each at the end of its own
    assert {"max 0.1", "max 0.7"} <= set(texts(figure))
    assert any("own scale" in text for text in texts(figure))


def test_scale_is_written_on_the_sheet():
    figure = caption_sheet(scene(), ["a", "b"], np.stack([np.eye(3) * 0.125, np.eye(3) * 0.25]), geometry_of(scene()))
    assert {"attention weight α", "0", "0.25", "not seen by the model"} <= set(texts(figure))
    whole = caption_sheet(scene(), ["a"], np.ones((1, 3, 3)), geometry_of(scene(), fit="pad"))
    assert "not seen by the model" not in texts(whole)


@pytest.mark.parametrize("size", [(61, 97), (499, 301), (32, 32), (1201, 1607), (3, 401)])
def test_panel_shows_the_cell_over_its_place_in_the_picture(size):
    weights = np.zeros((1, 7, 5))
    weights[0, 2, 3] = 1
    geometry = geometry_of(grey(*size))
    picture, panel = panels(
        caption_sheet(grey(*size), ["dot"], weights, geometry, style=Style(interpolation="nearest")), least=2
    )[:2]
    assert picture.shape == panel.shape
    low, high = geometry.to_original(np.array([(2, 3), (3, 4)]) / (7, 5) * 43) / size * panel.shape[:2]
    y, x = np.nonzero(panel[..., 1] == panel[..., 1].max())
    np.testing.assert_allclose((y.min(), x.min()), low, atol=1)
    np.testing.assert_allclose((y.max() + 1, x.max() + 1), high, atol=1)


def test_tiny_picture_is_enlarged_by_whole_crisp_pixels():
    image = scene(29, 31)
    picture = panels(caption_sheet(image, [], np.zeros((0, 2, 2)), Geometry.identity((29, 31))))[0]
    times = picture.shape[0] // 29
    assert times > 5
    np.testing.assert_array_equal(picture, image.repeat(times, 0).repeat(times, 1))


def test_saved_sheet_holds_the_panel_pixel_by_pixel(tmp_path):
    image = scene(64, 64)
    figure = caption_sheet(image, ["a", "b"], some_maps(2), Geometry.identity((64, 64)), title="two words")
    save_figure(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        sheet = np.asarray(saved.convert("RGB"))
    for image, panel in zip(images_of(figure), panels(figure), strict=False):
        box = image.get_window_extent()
        left, top = round(box.x0), round(sheet.shape[0] - box.y1)
        np.testing.assert_array_equal(sheet[top : top + panel.shape[0], left : left + panel.shape[1]], panel)


def test_probabilities_stand_beside_the_words():
    image, maps, words = scene(), some_maps(3), ["a", "b", "c"]
    figure = caption_sheet(image, words, maps, geometry_of(image), probabilities=[0.113, 0.003, 1])
    assert {"11%", "< 1%", "100%", "%: probability of the word"} <= set(texts(figure))
    assert not any("%" in text for text in texts(caption_sheet(image, words, maps, geometry_of(image))))
    for wrong in (1.2, -0.1, float("nan")):
        with pytest.raises(ValueError, match="probability of a word is"):
            caption_sheet(image, words, maps, geometry_of(image), probabilities=[0.5, wrong, 0.5])
    with pytest.raises(ValueError, match="3 words, but 2 probabilities"):
        caption_sheet(image, words, maps, geometry_of(image), probabilities=[0.5, 0.5])


def test_drawn_cell_is_framed_where_it_lies():
    image = grey(64, 96)
    geometry = geometry_of(image, (96, 96), "pad")  # rows 16 to 80 of the input are the picture
    maps = np.zeros((3, 6, 4))
    maps[0, 2, 3] = maps[1, 0, 0] = maps[2, 3, 3] = 1
    figure = caption_sheet(image, ["in", "margin", "none"], maps, geometry, drawn=[2 * 4 + 3, 0, None])
    frames = [artist for artist in figure.artists if isinstance(artist, Rectangle)]
    assert len(frames) == 2  # the lines of one, black under white
    times = panels(figure)[0].shape[0] / 64
    place, frame = images_of(figure)[1].get_window_extent(), frames[-1].get_window_extent()
    np.testing.assert_allclose((place.y1 - frame.y1, frame.height), np.array([16, 16]) * times)
    np.testing.assert_allclose((frame.x0 - place.x0, frame.width), np.array([72, 24]) * times)
    assert {"drawn in the margin", "the one place used"} <= set(texts(figure))
    with pytest.raises(ValueError, match="cell 24"):
        caption_sheet(image, ["in"], maps[:1], geometry, drawn=[24])


def test_hostile_words_are_drawn_without_a_warning():
    count = len(HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = caption_sheet(
            scene(),
            HOSTILE,
            some_maps(count),
            geometry_of(scene()),
            title=" ".join(HOSTILE),
            notes=HOSTILE,
            style=Style("own"),
        )
        data = encode_figure(figure)
        sheet = classification_sheet(
            scene(),
            [(word, np.ones((2, 3))) for word in HOSTILE],
            geometry_of(scene()),
            label=HOSTILE[0],
            probability=0.5,
            top=[(word, 0.1) for word in HOSTILE],
            truth=HOSTILE[1],
            title=HOSTILE[2],
        )
        encode_figure(sheet, "svg")
        encode_figure(sheet, "pdf")
    assert r"bad $\frac{ $" in texts(figure)
    assert "a bc" in texts(figure)
    assert "(empty)" in texts(figure)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.width < 3000


@pytest.mark.parametrize("size", [(61, 97), (97, 61), (13, 499), (499, 13)])
@pytest.mark.parametrize("count", [0, 1, 23])
def test_every_word_has_its_place_on_the_sheet(size, count):
    image = scene(*size)
    words = [f"word{n}" for n in range(count)]
    figure = caption_sheet(image, words, some_maps(count), geometry_of(image, (43, 37)))
    assert len(panels(figure) if min(size) > 20 else images_of(figure)) >= count + 1
    assert [text for text in texts(figure) if text.startswith("word")] == words
    assert figure.get_size_inches()[0] * figure.dpi < 2600
    assert_nothing_overlaps(figure)


def test_columns_can_be_chosen():
    figure = caption_sheet(scene(), list("abcde"), some_maps(5), geometry_of(scene()), paper=Paper(columns=3))
    lefts = {round(image.get_window_extent().x0) for image in images_of(figure)[:6]}
    assert len(lefts) == 3
    with pytest.raises(InputError, match="column"):
        caption_sheet(scene(), [], some_maps(0), geometry_of(scene()), paper=Paper(columns=0))


@pytest.mark.parametrize("change", [{"words": ["a"]}, {"notes": ["a"]}, {"drawn": [0, 1, 2]}, {"image": grey(61, 61)}])
def test_what_does_not_fit_together_is_refused(change):
    good = {"image": scene(), "words": ["a", "b"], "maps": some_maps(2), "geometry": geometry_of(scene())}
    with pytest.raises(ValueError, match=r"2|61"):
        caption_sheet(**(good | change))


def test_a_few_cells_far_above_all_others_leave_the_rest_its_colours():
    """Golden: beside a sink of 15 times its weight a cell is drawn as strongly as with no sink."""
    image, geometry = grey(96, 96), Geometry.identity((96, 96))
    weights = np.full((12, 12), 0.01)
    weights[2:5, 2:5] = 0.2
    alone = heatmap(image, weights, geometry, limits=robust_limits([weights]))
    assert np.array_equal(heatmap(image, weights, geometry), alone)
    assert robust_limits([weights]) == (0.0, 0.2)
    weights[9, 9] = 15 * 0.2
    assert robust_limits([weights]) == (0.0, 0.2)
    seen = heatmap(image, weights, geometry, limits=robust_limits([weights]))
    lost = heatmap(image, weights, geometry, limits=shared_limits([weights]))
    strength = [np.abs(out[28, 28].astype(int) - out[70, 20]).sum() for out in (alone, seen, lost)]
    assert strength[1] == strength[0] > 10 * strength[2]
    figure = classification_sheet(image, [("map", weights)], geometry, label="a", probability=0.5)
    assert {"0 to 0.2, max 3", "far above the end of the scale"} <= set(texts(figure))
    plain = classification_sheet(image, [("map", weights)], geometry, label="a", probability=0.5, style=Style("own"))
    assert "max 3" in texts(plain)
    assert "far above the end of the scale" not in texts(plain)


def test_a_sink_and_the_place_asked_about_have_frames_of_two_colours():
    image, geometry = grey(96, 96), Geometry.identity((96, 96))
    weights = np.full((12, 12), 0.01)
    weights[2:5, 2:5], weights[9, 9] = 0.2, 3
    said = {"label": "a", "probability": 0.5}

    def colours(asked):
        figure = classification_sheet(image, [("map", weights)], geometry, asked=asked, **said)
        frames = [artist for artist in figure.artists if isinstance(artist, Rectangle) and not artist.get_fill()]
        in_legend = {tuple(pixel) for part in images_of(figure)[-2:] for pixel in part.get_array().reshape(-1, 3)}
        return {matplotlib.colors.to_hex(frame.get_edgecolor()) for frame in frames}, in_legend

    sink = tuple(round(255 * value) for value in matplotlib.colors.to_rgb(ABOVE))
    assert colours(None)[0] == {"#000000", ABOVE}
    both, in_legend = colours(3)
    assert both == {"#000000", "#ffffff", ABOVE}
    assert {sink, (255, 255, 255)} <= in_legend


def test_a_long_name_of_a_map_is_written_smaller_before_it_is_cut():
    image, maps = grey(96, 48), some_maps(2)[..., :6]
    figure = caption_sheet(image, ["raw", "value norm, last layer"], maps, Geometry.identity((96, 48)))
    size = {text.get_text(): text.get_fontsize() for text in figure.texts}
    assert size["value norm, last layer"] < size["raw"]


@pytest.mark.parametrize("maps", [[], [np.zeros((3, 5))], [np.eye(1)], [np.arange(35.0).reshape(5, 7)]])
def test_where_nothing_is_far_above_all_others_scales_end_at_the_largest_weight(maps):
    assert robust_limits(maps) == shared_limits(maps)


def test_classification_sheet_says_what_was_predicted():
    weights = np.full((2, 3), 0.5)
    arguments = {"image": scene(64, 64), "maps": [("rollout", weights), ("last layer", weights / 2)]}
    arguments |= {"geometry": Geometry.identity((64, 64)), "label": "ship", "top": [("ship", 0.97), ("frog", 0.002)]}
    figure = classification_sheet(**arguments, probability=0.97, truth="ship")
    assert {"predicted: ship, 97%", "✓ truth: ship", "rollout", "last layer", "97%", "< 1%"} <= set(texts(figure))
    assert {"max 0.5", "max 0.25"} <= set(texts(figure))
    _, rollout, last = panels(figure)
    np.testing.assert_array_equal(rollout, last)  # each on its own scale
    figure = classification_sheet(**arguments, probability=0.9999, truth="frog", style=Style("shared"))
    assert {"predicted: ship, > 99%", "✗ truth: frog"} <= set(texts(figure))
    assert (panels(figure)[1] != panels(figure)[2]).any()
    assert "predicted: ship, 100%" in texts(classification_sheet(**arguments, probability=1.0))
    tracks = [patch.get_width() for patch in figure.findobj(matplotlib.patches.Rectangle) if patch in figure.artists]
    assert tracks[1] / tracks[0] == pytest.approx(0.97, abs=0.01)


@pytest.mark.parametrize("size", [(20, 300), (300, 20), (64, 64)])
def test_a_low_image_has_three_classes_beside_it_too(size):
    top = [("ship", 0.5), ("frog", 0.25), ("deer", 0.125), ("cat", 0.0625), ("dog", 0.03)]
    maps = [("rollout", np.full((2, 3), 0.5))]
    figure = classification_sheet(scene(*size), maps, Geometry.identity(size), label="ship", top=top, probability=0.5)
    assert {"ship", "frog", "deer"} <= set(texts(figure))
    assert_nothing_overlaps(figure)


def test_figures_are_not_registered_with_pyplot_and_are_freed():
    import gc
    import weakref

    import matplotlib.pyplot as plt

    figure = caption_sheet(scene(), ["a"], some_maps(1), geometry_of(scene()))
    encode_figure(figure)
    assert plt.get_fignums() == []
    trace = weakref.ref(figure)
    del figure
    gc.collect()
    assert trace() is None


def test_large_photograph_costs_no_more_than_a_small_one():
    image = np.zeros((4000, 5000, 3), dtype=np.uint8)
    geometry = Geometry((4000, 5000), (224, 224), (0.056, 0.056), (0.0, 28.0))
    started = time.process_time()
    figure = caption_sheet(image, ["a"] * 11, some_maps(11), geometry)
    assert time.process_time() - started < 3
    assert sum(panel.nbytes for panel in panels(figure)) < 12 * 3 * 2 * 330**2


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("b.SVG", b"<?xml"), ("c.pdf", b"%PDF")])
def test_save_figure_writes_whole_files(tmp_path, name, start):
    figure = caption_sheet(scene(), ["a"], some_maps(1), geometry_of(scene()))
    save_figure(figure, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    save_figure(figure, str(tmp_path / name))  # over an older one
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["sheet.jpeg2", "sheet", ".png", "sheet.exe"])
def test_save_figure_refuses_unknown_suffixes(tmp_path, name):
    figure = caption_sheet(scene(), [], some_maps(0), geometry_of(scene()))
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        save_figure(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "result.txt"
    write_text(path, "old\n")

    def fail(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"disk full: .*result\.txt"):
        write_text(path, "new")
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_the_usual_permissions_and_bytes(tmp_path):
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "whole", b"\x00\xff")
    write_text(tmp_path / ("n" * 250), "α\r\n\ud800")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "whole").read_bytes() == b"\x00\xff"
    assert (tmp_path / ("n" * 250)).read_bytes() == "α\r\n?".encode()
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "a", "")


# --------------------------------------------------------------------------------------------------------------- page


class Reader(HTMLParser):
    """Collects elements, and checks that those that need an end have it."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def test_page_escapes_everything():
    picture = encode_png(scene(5, 7))
    panel = Panel(picture, ATTACK, [ATTACK], ATTACK, "good", ATTACK)
    html = page(ATTACK, ATTACK, [Section(ATTACK, ATTACK, [panel], [[ATTACK, ATTACK], [ATTACK, ATTACK]])] * 3)
    reader = Reader(html)
    assert len(reader.all("script")) == 1
    assert len(reader.all("img")) == 3 + 1  # the pictures, and the place for the enlarged one
    assert not any(name.startswith("on") for _, attributes in reader.found for name in attributes)
    assert "".join(reader.words).count("alert(1)") == 2 + 1 + 3 + 3 * (2 + 3 + 4)  # title, intro, contents, sections
    assert reader.all("img")[0]["alt"] == ATTACK
    page("\ud800", "", []).encode()


def test_struck_words_of_a_heading():
    panel = Panel(encode_png(scene(5, 7)), "a small <b>red</b> circle above it", struck=(1, 2, 5), badge="false")
    html = page("t", "", [Section("s", panels=[panel])])
    assert "<span>a <s>small &lt;b&gt;red&lt;/b&gt;</s> circle above <s>it</s></span>" in html
    reader = Reader(html)
    assert "a small <b>red</b> circle above it" in "".join(reader.words)
    whole = page("t", "", [Section("s", panels=[panel._replace(struck=range(6))])])
    assert whole.count("<s>") == 1


def test_page_needs_nothing_but_itself():
    pixels = scene(5, 7)
    html = page("t", "one\n\ntwo", [Section("s", panels=[Panel(encode_png(pixels), "p")], table=[["a"], ["1"]])])
    reader = Reader(html)
    assert re.search(r"https?:|//[a-z]|@import|url\(", html) is None
    for _, attributes in reader.found:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    source = reader.all("img")[0]["src"]
    from base64 import b64decode

    with Image.open(io.BytesIO(b64decode(source.partition(",")[2]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in reader.found}
    assert len(reader.all("p")) == 2


def test_page_allows_its_own_script_alone():
    from base64 import b64encode
    from hashlib import sha256

    html = page("t", "", [])
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL).group(1)
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in Reader(html).all("meta")[1]["content"]
    assert "unsafe-eval" not in html


def test_page_is_accessible():
    panels = [Panel(encode_png(scene(5, 7, seed)), f"p{seed}", badge="wrong", tone="bad") for seed in range(3)]
    html = page("t", "", [Section(f"s{n}", panels=panels) for n in range(3)])
    reader = Reader(html)
    assert reader.all("html") == [{"lang": "en"}]
    assert [len(reader.all(tag)) for tag in ("h1", "h2", "h3", "main", "nav", "figure")] == [1, 3, 9, 1, 1, 9]
    assert all(attributes.get("alt") for attributes in reader.all("img")[:-1])
    targets = {attributes["id"] for _, attributes in reader.found if "id" in attributes}
    assert {attributes["href"][1:] for attributes in reader.all("a")} <= targets
    assert len(reader.all("button")) == 9 + 1  # a picture is enlarged by keyboard too


def test_table_puts_numbers_at_the_right():
    rows = [["model", "CIDEr", "note"], ["soft", "0.9", "1st"], ["hard", "–", "best"], ["local", "−0.1", ""]]
    cells = Reader(page("t", "", [Section("s", table=rows)])).all("td")
    assert [cell.get("class") for cell in cells] == ["number", None] * 3


def test_small_weights_have_no_contours():
    image = np.full((8, 600, 3), 180, dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 0.05, 600)[None], 8, axis=0)
    geometry = fit_image(Image.fromarray(image), (8, 600))[1]
    drawn = heatmap(image, ramp, geometry, limits=(0.0, 1.0)).astype(int)
    assert np.ptp(drawn[4], axis=0).max() > 10
    assert np.abs(np.diff(drawn[4], axis=0)).max() <= 1, "a smooth map is drawn smoothly"


def test_tables_fit_a_phone(browser):
    rows = [["Attention on the named thing", "Model", "A place at random", "The centre"]]
    rows += [["the relation holds, where both of its things are there", "99.5%", "11.9%", "21.4%"]]
    phone = browser.new_page(viewport={"width": 360, "height": 640})
    phone.set_content(page("t", "", [Section("s", table=rows)]))
    wide, shown = phone.locator(".table").evaluate("(table) => [table.scrollWidth, table.clientWidth]")
    phone.close()
    assert wide == shown, "the columns of numbers are seen without scrolling"


def test_page_refuses_other_formats():
    with pytest.raises(ValueError, match="'evil' is neither PNG nor JPEG"):
        page("t", "", [Section("s", panels=[Panel(b"<svg onload=alert(1)>", "evil")])])


def test_overlay_imports_no_model():
    import visattn.overlay

    folder = Path(visattn.overlay.__file__).parent
    imports = re.findall(r"^(?:from|import) (\S+)", "\n".join(p.read_text() for p in folder.glob("*.py")), re.MULTILINE)
    ours = {name for name in imports if name.startswith("visattn")}
    known = ("visattn.overlay.", "visattn.images", "visattn.errors", "visattn.files", "visattn.fast")
    assert all(name.startswith(known) for name in ours)
    assert not {"torch", "matplotlib.pyplot"} & set(imports)
