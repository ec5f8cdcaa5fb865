"""Contours, words, moving pictures and figures for papers: each opens again and has what it should."""

import io
import logging
import re
from functools import partial

import numpy as np
import pytest
from conftest import assert_nothing_overlaps, images_of, pixels_of
from matplotlib.lines import Line2D
from PIL import Image

from visattn.data.inputs import read_inputs
from visattn.errors import InputError
from visattn.files import write_folder
from visattn.images import Geometry, fit_image
from visattn.overlay import (
    Paper,
    Style,
    caption_gif,
    caption_sheet,
    classification_sheet,
    encode_figure,
    heatmap,
    save_figure,
    text,
    word_pictures,
)
from visattn.overlay.contour import mass_contours, mass_level
from visattn.overlay.heatmap import colour_strip

HOSTILE = [r"$\frac{", "_^%", "狗", "🐶👩‍🚀", "", "مرحبا", "नमस्ते", "a\nb\x00c", "\ud800", "w" * 997, "<script>&amp;"]


def scene(height=61, width=97, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def some_maps(count, grid=(5, 7), seed=1):
    weights = np.random.default_rng(seed).random((count, *grid)) ** 5
    return (weights / weights.sum((1, 2), keepdims=True)).astype(np.float32)


def geometry_of(image, size=(43, 43), fit="crop"):
    return fit_image(Image.fromarray(image), size, fit)[1]


def texts(figure):
    return [text.get_text() for text in figure.texts]


# ------------------------------------------------------------------------------------------- from the file to the sheet


def dot_file(folder, size, dot, turn):
    """A dark photograph of `size`, as a person sees it, with a white spot around `dot`; stored turned."""
    image = np.full((*size, 3), 20, dtype=np.uint8)
    y, x = np.ogrid[: size[0], : size[1]]
    image[(y + 0.5 - dot[0]) ** 2 + (x + 0.5 - dot[1]) ** 2 <= (0.03 * max(size)) ** 2] = 255
    stored = Image.fromarray(image)
    exif = Image.Exif()
    if turn:
        exif[0x0112] = 6  # to be turned by 90° to the right
        stored = stored.transpose(Image.Transpose.ROTATE_90)
    stored.save(folder / "dot.png", exif=exif)
    return folder / "dot.png"


@pytest.mark.parametrize("turn", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(427, 640), (640, 427), (113, 311), (31, 29)])
def test_the_map_of_a_bright_dot_lies_on_it_from_file_to_sheet(size, fit, turn, tmp_path):
    """The input itself replaces the model: each cell's weight is its brightness."""
    dot = np.array([0.42, 0.58]) * size  # within what a crop sees
    (item,) = read_inputs([dot_file(tmp_path, size, dot, turn)], (112, 112), fit)
    assert item.geometry.original == item.original.shape[:2] == size
    light = np.asarray(item.tensor[0], dtype=float) * (np.asarray(item.tensor[0]) > 180)
    weights = light.reshape(14, 8, 14, 8).sum((1, 3))
    cell = np.array([8, 8]) / item.geometry.scale
    whole = heatmap(item.original * 0, weights, item.geometry, limits=(0, weights.max()))
    figure = caption_sheet(item.original * 0, ["dot"], weights[None], item.geometry)
    panel = pixels_of(figure)[1]
    (word,) = word_pictures(item.original * 0, weights[None], item.geometry)
    np.testing.assert_allclose(word.astype(int), whole.astype(int), atol=3)  # sums of floats in another order
    for picture in (whole, panel):
        times = np.array(picture.shape[:2]) / size
        peak = np.argwhere(picture[..., 1] == picture[..., 1].max()).mean(0) + 0.5
        assert (np.abs(peak - dot * times) <= (cell / 2 + 1) * times + 1).all()
    (line,) = mass_contours(weights, item.geometry, 0.5)
    assert (line.min(0) - 1 < dot).all()
    assert (dot < line.max(0) + 1).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_line_is_refused_and_a_strip_is_drawn(tmp_path, fit):
    Image.fromarray(scene(1, 5000)).save(tmp_path / "line.png")
    with pytest.raises(InputError, match=r"line\.png .*5000×1 .*100 times"):
        list(read_inputs([tmp_path / "line.png"], (224, 224), fit))
    Image.fromarray(scene(53, 5000)).save(tmp_path / "strip.png")
    (item,) = read_inputs([tmp_path / "strip.png"], (224, 224), fit)
    figure = caption_sheet(item.original, ["a"], np.ones((1, 7, 7)), item.geometry)
    assert encode_figure(figure).startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------------- contours


def test_contour_encloses_the_smallest_area_with_its_share():
    values = np.array([[5.0, 3.0], [1.0, 1.0]])
    assert mass_level(values, 0.49) == 5
    assert mass_level(values, 0.51) == 3
    assert mass_level(values, 0.99) == 1
    assert mass_level(np.array([[np.nan, 2.0]]), 0.5) == 2
    weights = some_maps(1, (7, 11))[0]
    geometry = Geometry.identity((91, 143))
    spread = geometry.to_original_map(weights)
    for share in (0.3, 0.9):
        inside = spread >= mass_level(spread, share)
        assert spread[inside].sum() / spread.sum() == pytest.approx(share, abs=0.01)
        lines = mass_contours(weights, geometry, share)
        y, x = np.round(np.concatenate(lines) - 0.5).astype(int).T
        assert np.median(np.abs(spread[y, x] / mass_level(spread, share) - 1)) < 0.05


def test_contour_of_a_signed_map_counts_negative_values_as_drawn():
    signed = some_maps(1, (7, 11))[0] - 0.02
    assert (signed < 0).any()
    geometry = Geometry.identity((91, 143))
    spread = np.maximum(geometry.to_original_map(signed), 0)
    lines = mass_contours(signed, geometry, 0.5)
    y, x = np.round(np.concatenate(lines) - 0.5).astype(int).T
    assert np.median(np.abs(spread[y, x] / mass_level(spread, 0.5) - 1)) < 0.05


def test_contour_follows_the_cells_of_a_blocky_map():
    weights = np.full((4, 4), 0.01)
    weights[1, 2] = 1
    (line,) = mass_contours(weights, Geometry.identity((80, 80)), 0.5, "nearest")
    np.testing.assert_allclose([line.min(0), line.max(0)], [[20, 40], [40, 60]], atol=1)


def test_flat_map_has_no_contour_and_a_share_must_be_one():
    assert mass_contours(np.ones((3, 3)), Geometry.identity((20, 20)), 0.5) == []
    assert mass_contours(np.ones((3, 3)), Geometry.identity((1, 20)), 0.5) == []
    for share in (0, 1, -1, 50, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            caption_sheet(scene(), ["a"], some_maps(1), geometry_of(scene()), style=Style(contour=[share]))


def test_contours_are_drawn_over_their_panels_and_explained():
    image = scene(64, 96)
    figure = caption_sheet(
        image, ["a", "b"], some_maps(2), Geometry.identity((64, 96)), style=Style(contour=[0.25, 0.8])
    )
    lines = [artist for artist in figure.artists if isinstance(artist, Line2D)]
    panels = [image.get_window_extent().padded(1) for image in images_of(figure)[1:3]]
    assert len(lines) >= 2 * 2 * 2  # black under white, two shares, two words
    for line in lines:
        box = figure.transFigure.transform_bbox(line.get_path().get_extents())
        assert any(p.x0 <= box.x0 and box.x1 <= p.x1 and p.y0 <= box.y0 and box.y1 <= p.y1 for p in panels)
    assert "smallest area with 25% and 80% of the weight" in texts(figure)
    assert_nothing_overlaps(figure)


# --------------------------------------------------------------------------------------------------------------- papers


@pytest.mark.parametrize(("width", "points"), [(8.5, 8.0), (17.2, 9.0), (6.0, 7.0), (30.0, 11.0)])
@pytest.mark.parametrize("scale", ["shared", "own"])
def test_a_sheet_for_a_paper_has_the_stated_width_and_points(width, points, scale, tmp_path):
    image = scene(64, 96)
    figure = caption_sheet(
        *(image, ["a", "cat", "sits"], some_maps(3), geometry_of(image)),
        style=Style(scale, contour=[0.5, 0.9]),
        paper=Paper(width, points),
        drawn=[0, 1, 2],
        title="a cat sits",
    )
    assert figure.get_size_inches()[0] * 2.54 == pytest.approx(width, abs=0.02)
    assert {t.get_fontsize() for t in figure.texts if t.get_text() == "cat"} == {points}
    assert_nothing_overlaps(figure)
    assert figure.dpi >= 300
    save_figure(figure, tmp_path / "figure.pdf")
    data = (tmp_path / "figure.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", data)
    assert float(box[1]) / 72 * 2.54 == pytest.approx(width, abs=0.02)
    assert b"/CIDFontType2" in data  # TrueType: journals refuse Type 3
    svg = encode_figure(figure, "svg").decode()
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) / 72 * 2.54 == pytest.approx(width, abs=0.02)
    assert ">cat</text>" in svg
    with Image.open(io.BytesIO(encode_figure(figure))) as picture:
        assert picture.width / picture.info["dpi"][0] * 2.54 == pytest.approx(width, rel=0.01)


def test_pictures_of_a_paper_are_fine():
    image = scene(640, 480)
    figure = caption_sheet(image, ["a"], some_maps(1), geometry_of(image), paper=Paper(8.5, 8))
    picture, panel = pixels_of(figure)[:2]
    inches = images_of(figure)[0].get_window_extent().width / figure.dpi
    assert panel.shape == picture.shape
    assert panel.shape[1] / inches > 300


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 2.0}, "width is 2"),
        ({"width": 1e6}, "width is"),
        ({"width": 8.5, "points": 0.5}, "0.5 points"),
        ({"width": 8.5, "points": 8, "columns": 12}, "12 columns do not fit"),
    ],
)
def test_sheets_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        caption_sheet(scene(), list("abcdefghijklm"), some_maps(13), geometry_of(scene()), paper=Paper(**options))


def test_a_classifiers_sheet_fits_a_paper_too():
    figure = classification_sheet(
        *(scene(64, 64), [("rollout", np.ones((2, 2))), ("last", np.eye(2))], Geometry.identity((64, 64))),
        label="ship",
        probability=0.9,
        top=[("ship", 0.9), ("frog", 0.1)],
        style=Style("own", contour=[0.5]),
        paper=Paper(12, 9),
    )
    assert figure.get_size_inches()[0] * 2.54 == pytest.approx(12, abs=0.02)
    assert_nothing_overlaps(figure)


# ---------------------------------------------------------------------------------------------------- words and the GIF


def test_words_are_the_original_pixels_under_their_maps():
    image, maps = scene(), some_maps(3)
    geometry = geometry_of(image)
    plain = list(word_pictures(image, maps, geometry))
    for picture, weights in zip(plain, maps, strict=True):
        np.testing.assert_array_equal(picture, heatmap(image, weights, geometry, limits=(0, maps.max())))
    own = list(word_pictures(image, maps, geometry, style=Style("own", "viridis", interpolation="nearest")))
    expected = heatmap(
        image, maps[1], geometry, limits=(0, maps[1].max()), interpolation="nearest", colour_map="viridis"
    )
    np.testing.assert_array_equal(own[1], expected)
    lined = list(word_pictures(image, maps, geometry, style=Style(contour=[0.5]), drawn=[17, None, None]))
    for picture, bare in zip(lined, plain, strict=True):
        assert picture.shape == image.shape
        assert 0.01 < (picture != bare).any(-1).mean() < 0.6
    with pytest.raises(ValueError, match="2 drawn"):
        word_pictures(image, maps, geometry, drawn=[0, 1])


def frames_of(data):
    with Image.open(io.BytesIO(data)) as moving:
        for n in range(moving.n_frames):
            moving.seek(n)
            yield np.asarray(moving.convert("RGB")), moving.info["duration"], moving.info.get("loop")


def marks(frame):
    """The columns in which a word is marked; the colour scale has the mark's colour too, in fewer rows."""
    return (frame == (255, 217, 122)).all(-1).sum(0) > 15


def test_gif_walks_through_the_caption():
    image = np.full((64, 96, 3), 90, dtype=np.uint8)
    maps = np.zeros((3, 2, 2))
    maps[0, 0, 0] = maps[1, 1, 1] = maps[2, 1, 1] = 1
    frames, durations, loops = zip(
        *frames_of(caption_gif(image, ["a", "a", "extraordinarily"], maps, Geometry.identity((64, 96)))), strict=True
    )
    assert len(frames) == 1 + 3
    assert len({frame.shape for frame in frames}) == 1
    assert durations[0] > durations[1] == durations[2] < durations[3]
    assert all(400 <= duration <= 3000 for duration in durations)
    assert loops[0] == 0  # without end
    assert not marks(frames[0]).any()
    lefts = [np.nonzero(marks(frame))[0].min() for frame in frames[1:]]
    assert lefts == sorted(set(lefts))  # the mark moves on, also from "a" to "a"
    for frame in frames:
        assert (frame[:5] == 255).all()  # the page is white, whatever the palette
    # The map is where it should be: bright in the upper left corner, then in the lower right one.
    difference = frames[1][..., 0].astype(float) - frames[2][..., 0]
    middle = 28 + 64 / 96 * 563 / 2  # of the picture, which has 460² pixels
    assert difference[28 : int(middle), 28:300].mean() > 20
    assert difference[int(middle) : int(2 * middle) - 28, 330:580].mean() < -20


def test_gif_names_what_its_colours_mean():
    image, maps = np.full((64, 96, 3), 90, dtype=np.uint8), some_maps(1)
    make = partial(caption_gif, image, ["a"], maps, Geometry.identity((64, 96)))
    plain, named = ([frame for frame, *_ in frames_of(data)][1] for data in (make(), make(meaning="relevance")))
    assert plain.shape == named.shape
    changed = np.nonzero((plain != named).any(axis=-1))
    assert changed[0].min() > plain.shape[0] - 60  # only the legend
    assert (named[changed[0].min() :, -28:] == 255).all()


@pytest.mark.parametrize("colour_map", ["inferno", "viridis"])
def test_the_colour_scale_of_a_gif_does_not_flicker(colour_map):
    """Frames have palettes of their own, but the scale's colours are exact in all of them."""
    image, maps = scene(64, 96), some_maps(3)
    style = Style(colour_map=colour_map)
    data = caption_gif(image, ["a", "b", "c"], maps, Geometry.identity((64, 96)), style=style)
    legends = [frame[-40:] for frame, *_ in frames_of(data)]
    for colour in colour_strip(40, colour_map, style.opacity)[0]:
        assert np.all([(legend == colour).all(axis=-1) for legend in legends], axis=0).sum() >= 3 * 12


def test_gif_has_no_bands():
    """A smooth slope keeps its means: 256 colours with their errors spread, not 256 steps."""
    image = scene(256, 256).astype(float) * 0.05 + np.linspace(60, 190, 256)[:, None, None]
    image = image.astype(np.uint8)
    maps = some_maps(1, (3, 3))
    geometry = Geometry.identity((256, 256))
    frames = [frame for frame, *_ in frames_of(caption_gif(image, ["a"], maps, geometry))]
    shown = frames[1][28 : 28 + 460, 28 : 28 + 460].astype(float)
    true = heatmap(image, maps[0], geometry, limits=(0, maps.max())).astype(float)
    blocks = shown.reshape(46, 10, 46, 10, 3).mean((1, 3))
    small = np.asarray(Image.fromarray(true.astype(np.uint8)).resize((46, 46), Image.Resampling.BOX), dtype=float)
    assert np.abs(blocks - small).mean() < 4


def test_gif_of_a_caption_from_right_to_left_begins_at_the_right():
    image = np.full((64, 96, 3), 90, dtype=np.uint8)
    data = caption_gif(image, ["كلب", "يجري", "سريعا"], some_maps(3), Geometry.identity((64, 96)))
    lefts = [np.nonzero(marks(frame))[0].min() for frame, *_ in list(frames_of(data))[1:]]
    assert lefts == sorted(lefts, reverse=True)


@pytest.mark.parametrize("size", [(1, 5), (61, 97), (13, 499), (499, 13)])
def test_gif_of_hostile_captions(size):
    image = scene(*size)
    data = caption_gif(
        image, HOSTILE, some_maps(len(HOSTILE)), Geometry.identity(size), style=Style("own", contour=[0.5])
    )
    assert len(list(frames_of(data))) == 1 + len(HOSTILE)
    assert len(list(frames_of(caption_gif(image, [], some_maps(0), Geometry.identity(size))))) == 1


# ----------------------------------------------------------------------------------------------------------------- text


def test_hostile_words_are_text_in_svg_and_pdf():
    figure = caption_sheet(scene(), HOSTILE, some_maps(len(HOSTILE)), geometry_of(scene()), title=" ".join(HOSTILE))
    svg = encode_figure(figure, "svg").decode()
    assert "<script>" not in svg
    assert r"$\frac{" in svg
    assert encode_figure(figure, "pdf").startswith(b"%PDF")


def test_missing_glyphs_are_reported_once(monkeypatch, caplog):
    monkeypatch.setattr(text, "_missing", [])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            figure = caption_sheet(
                scene(), ["\U00013000", "\U00013001\U00012000", "dog"], some_maps(3), geometry_of(scene())
            )
    assert {"□", "□□", "dog"} <= set(texts(figure))
    (record,) = caplog.records
    assert "U+13000 (egyptian hieroglyph a001)" in record.getMessage()


def test_joiners_stay_within_words_and_turns_of_direction_do_not():
    assert text.clean("می\u200cخواهم") == "می\u200cخواهم"
    assert text.clean("a\u202eb\u200d") == "ab"
    assert text.reads_leftward("123 שלום dog")
    assert not text.reads_leftward("dog שלום")
    assert not text.reads_leftward("123")


# ------------------------------------------------------------------------------------------------------- files, memory


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    folder = tmp_path / "words"
    write_folder(folder, [("a.txt", b"1"), ("b.txt", b"2")], own=r".\.txt")
    write_folder(folder, [("c.txt", b"3")], own=r".\.txt")
    assert [path.name for path in folder.iterdir()] == ["c.txt"]

    def broken():
        yield "d.txt", b"4"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_folder(folder, broken(), own=r".\.txt")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("c.txt", b"3")]
    assert [path.name for path in tmp_path.iterdir()] == ["words"]


def test_sheet_after_sheet_takes_no_more_memory():
    import gc
    import tracemalloc

    image, maps = scene(224, 224), some_maps(5)
    geometry = geometry_of(image)

    def draw(count):
        for n in range(count):
            encode_figure(caption_sheet(image, [f"w{n % 7}{t}" for t in range(5)], maps, geometry))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        draw(7)  # fonts and glyphs are kept once
        before = draw(3)
        after = draw(11)
    finally:
        tracemalloc.stop()
    assert after - before < 200_000  # a figure's pixels alone are several million bytes
