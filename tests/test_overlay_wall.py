"""Walls of layers and heads: which map is where, and the options that ask for them."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from conftest import assert_nothing_overlaps, images_of, pixels_of
from matplotlib.patches import Rectangle
from PIL import Image

from visattn.cli import overlay
from visattn.errors import InputError
from visattn.explain import Layered, ViT
from visattn.images import Geometry
from visattn.overlay import Paper, Style, wall_sheet
from visattn.tasks.overlay import Chosen

HEIGHT, WIDTH = 60, 90
GEOMETRY = Geometry((HEIGHT, WIDTH), (30, 30), (0.5, 0.5), (0.0, 7.5))  # the middle 60 of 90 columns
NAMES = ["layer 0", "layer 1", "layer 2"], ["head 0", "mean"]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def maps():
    """Of each, another cell."""
    maps = np.zeros((3, 2, 3, 5), dtype=np.float32)
    for n in range(6):
        maps[n // 2, n % 2].flat[2 * n] = 1 + n
    return maps


@pytest.mark.parametrize("paper", [Paper(), Paper(width=14, points=8)])
@pytest.mark.parametrize("scale", ["own", "shared"])
def test_each_map_has_its_row_and_its_column(image, maps, paper, scale):
    figure = wall_sheet(image, maps, GEOMETRY, *NAMES, title="a picture", style=Style(scale), paper=paper)
    assert_nothing_overlaps(figure)
    said = {text.get_text() for text in figure.texts}
    assert {
        "a picture",
        "layer 0",
        "layer 1",
        "layer 2",
        "head 0",
        "mean",
        "framed in the original: what the model saw",
    } <= said
    panels = pixels_of(figure)[1:7]
    sides = {panel.shape for panel in panels}
    assert len(sides) == 1
    height, width, _ = sides.pop()
    assert height == pytest.approx(width, abs=1)  # what the model saw is square
    for n, panel in enumerate(panels):
        colour = np.abs(panel.astype(float) - panel.mean(-1, keepdims=True)).sum(-1)  # the picture itself is grey
        y, x = np.unravel_index(colour.argmax(), colour.shape)
        found = int((y + 0.5) * 3 / height), int((x + 0.5) * 5 / width)
        strongest = [divmod(2 * m, 5) for m in range(6)]
        assert abs(found[0] - strongest[n][0]) + abs(found[1] - strongest[n][1]) <= 1
    boxes = [artist.get_window_extent(figure.canvas.get_renderer()) for artist in images_of(figure)[1:7]]
    assert boxes[0].y0 == boxes[1].y0 > boxes[2].y0 > boxes[4].y0
    assert boxes[0].x0 == boxes[2].x0 < boxes[1].x0 == boxes[3].x0


FRAME = {"the place whose attention is shown"}


def frames(figure):
    """White frames on a sheet as (left, top, right, bottom), in pixels from its top-left corner."""
    white = [
        patch for patch in figure.artists if isinstance(patch, Rectangle) and patch.get_edgecolor()[:3] == (1, 1, 1)
    ]
    height = figure.canvas.get_width_height()[1]
    return [(b.x0, height - b.y1, b.x1, height - b.y0) for b in (patch.get_window_extent() for patch in white)]


def test_the_place_asked_about_is_framed_in_every_map_and_in_the_original(image, maps):
    """Cell 7 of a grid of 3 × 5 is the third of the second row: the middle of what the model saw."""
    figure = wall_sheet(image, maps, GEOMETRY, *NAMES, asked=7, style=Style("own"))
    assert {text.get_text() for text in figure.texts} >= FRAME
    height = figure.canvas.get_width_height()[1]
    extents = [artist.get_window_extent(figure.canvas.get_renderer()) for artist in images_of(figure)[:7]]
    found = [box for box in frames(figure) if box[2] - box[0] < extents[0].width / 2]  # what was seen is framed, too
    assert len(found) == 7
    for extent, box in zip(extents, sorted(found, key=lambda b: (b[1], b[0])), strict=True):
        width, left = (extent.width * 2 / 3, extent.width / 6) if extent is extents[0] else (extent.width, 0)
        assert box[0] - extent.x0 == pytest.approx(left + width * 2 / 5, abs=1.5)
        assert box[2] - extent.x0 == pytest.approx(left + width * 3 / 5, abs=1.5)
        assert box[1] - (height - extent.y1) == pytest.approx(extent.height / 3, abs=1.5)
    for flat in (maps[:1], maps[:, :1]):
        names = [NAMES[axis][: flat.shape[axis]] for axis in (0, 1)]
        figure = wall_sheet(image, flat, GEOMETRY, *names, asked=7)
        assert {text.get_text() for text in figure.texts} >= FRAME
        assert len(frames(figure)) == 1 + flat.shape[0] * flat.shape[1]
    assert not {text.get_text() for text in wall_sheet(image, maps, GEOMETRY, *NAMES).texts} & FRAME


def test_a_single_row_or_column_flows(image, maps):
    heads = wall_sheet(image, maps[:1], GEOMETRY, ["layer 0"], ["layer 0, head 0", "layer 0, mean"])
    assert {"layer 0, head 0", "layer 0, mean", "original"} <= {text.get_text() for text in heads.texts}
    layers = wall_sheet(image, maps[:, :1], GEOMETRY, NAMES[0], ["mean of heads"])
    assert {*NAMES[0]} <= {text.get_text() for text in layers.texts}
    assert len(pixels_of(layers)) >= 4


def test_of_a_strip_one_pixel_is_seen(maps):
    strip, geometry = np.full((1, 400, 3), 9, np.uint8), Geometry((1, 400), (30, 30), (30.0, 30.0), (0.0, 5985.0))
    assert len(pixels_of(wall_sheet(strip, maps, geometry, *NAMES))) >= 7


def test_what_does_not_fit_is_refused(image, maps):
    with pytest.raises(ValueError, match="2 × 2 names for 3 × 2 maps"):
        wall_sheet(image, maps, GEOMETRY, NAMES[0][:2], NAMES[1])
    many = np.repeat(maps, 20, axis=1)
    with pytest.raises(InputError, match="40 columns do not fit"):
        wall_sheet(image, many, GEOMETRY, NAMES[0], [f"head {n}" for n in range(40)], paper=Paper(width=14))


def test_layers_and_heads_are_chosen_by_number():
    vit = ViT(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=20, num_heads=5).eval())
    maps = vit.rows(torch.randn(1, 3, 32, 32))[0].numpy()
    wall = Chosen(None, [3, 0]).of(maps, vit)
    assert (list(wall.rows), list(wall.columns)) == (NAMES[0], ["head 3", "head 0", "mean of all"])
    np.testing.assert_array_equal(wall.maps[:, :2], maps[:, [3, 0]])
    np.testing.assert_allclose(wall.maps[:, 2], maps.mean(1), rtol=1e-6)
    one = Chosen((-1,), None).of(maps, vit)
    assert list(one.columns) == [f"layer 2, head {n}" for n in range(5)] + ["layer 2, mean"]
    assert list(Chosen([2, 0], (4,)).of(maps, vit).rows) == ["layer 2, head 4", "layer 0, head 4"]
    np.testing.assert_allclose(Chosen(None).of(maps, vit).maps[:, 0], maps.mean(1), rtol=1e-6)
    with pytest.raises(InputError, match="no layer 3"):
        Chosen([3]).of(maps, vit)
    with pytest.raises(InputError, match="no head 5"):
        Chosen(None, [5]).of(maps, vit)


def test_heads_that_differ_in_number_have_no_columns():
    model = timm.create_model(
        *("swin_tiny_patch4_window7_224",),
        **{"img_size": 32, "window_size": 4, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 3)},
    )
    vit = Layered(model.eval(), "swin", (32, 32))
    maps = vit.rows(torch.randn(1, 3, 32, 32))[0].numpy()
    assert Chosen(None).of(maps, vit).maps.shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match="differ in their numbers of heads"):
        Chosen(None, None).of(maps, vit)


def run(*words):
    return overlay.main([str(word) for word in words])


def test_the_command_draws_them(classifier_checkpoint, photographs, tmp_path):
    given = ["--checkpoint", classifier_checkpoint, photographs / "wide.jpg"]
    sizes = {}
    for name, options in (
        ("one", ["--method", "raw"]),
        ("heads", ["--heads", "all"]),
        ("wall", ["--heads", "all", "--layers", "all"]),
        ("some", ["--layers", "0,-1", "--heads", "1,0", "--export", "sheet,npz"]),
        ("here", ["--layers", "all", "--heads", "all", "--at", "31,29", "--export", "sheet,svg,npz"]),
    ):
        assert run(*given, *options, "--output", tmp_path / name) == 0
        with Image.open(tmp_path / name / "wide.png") as sheet:
            sizes[name] = sheet.size
        assert json.loads((tmp_path / name / "classes.json").read_text())[0]["overlay"] == "wide.png"
    assert len(set(sizes.values())) == 5
    text = (tmp_path / "here" / "wide.svg").read_text()
    assert all(said in text for said in FRAME)
    assert re.search(r"predicted: \w+, (> |< )?\d+%<", text)
    with np.load(tmp_path / "one" / "wide.npz") as a, np.load(tmp_path / "some" / "wide.npz") as b:
        assert set(a) == set(b)
        np.testing.assert_array_equal(a["layers"], b["layers"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--heads", "all", "--head", "0"], "--heads and --head exclude"),
        (["--layers", "all", "--layer", "0"], "--layers and --layer exclude"),
        (["--heads", "all", "--method", "rollout"], "show raw attention"),
        (["--heads", "first"], "--heads is 'first'"),
        (["--layers", "99"], "has no layer 99"),
        (["--heads", "99"], "has no head 99"),
    ],
)
def test_mistakes_are_one_sentence(options, sentence, classifier_checkpoint, photographs, tmp_path, capsys):
    words = ["--checkpoint", classifier_checkpoint, "--output", tmp_path / "out", photographs, *options]
    assert run(*words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
