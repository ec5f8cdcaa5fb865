import numpy as np
import pytest
from PIL import Image

from visattn.errors import InputError
from visattn.images.geometry import PAD_COLOUR, CellShift, Geometry, fit_geometry, fit_image
from visattn.overlay.heatmap import cell_box

FITS = ("crop", "pad", "squash")
# (H, W) of the original, (h, w) of the input: landscape, portrait, tiny and enlarged, long, even on one side only.
SIZES = [
    ((427, 640), (224, 224)),
    ((499, 301), (224, 224)),
    ((31, 47), (224, 224)),
    ((641, 227), (113, 197)),
    ((149, 149), (37, 53)),
]
CASES = [(original, size, fit) for original, size in SIZES for fit in FITS]


def dotted(size, centre, radius):
    """A black image with a white disc; coordinates as in Geometry."""
    y, x = np.ogrid[: size[0], : size[1]]
    disc = (y + 0.5 - centre[0]) ** 2 + (x + 0.5 - centre[1]) ** 2 <= radius**2
    return Image.fromarray(np.repeat(np.where(disc, 255, 0).astype(np.uint8)[..., None], 3, axis=2))


def centre_of_light(image):
    """(y, x) of the centre of mass of brightness, padding left out."""
    pixels = np.asarray(image).astype(float)
    light = np.where((pixels == PAD_COLOUR).all(-1), 0, pixels[..., 0])
    return (
        np.array(
            [
                (light.sum(1) * (np.arange(light.shape[0]) + 0.5)).sum(),
                (light.sum(0) * (np.arange(light.shape[1]) + 0.5)).sum(),
            ]
        )
        / light.sum()
    )


def dots(geometry, seed, count=3):
    """Points within the middle nine tenths of what the model sees, (count, 2), in original pixels."""
    top, left, bottom, right = geometry.visible()
    share = np.random.default_rng(seed).uniform(0.1, 0.9, (count, 2))
    return np.array([top, left]) + share * np.array([bottom - top, right - left])


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
def test_bright_dot_lands_where_to_input_says(original, size, fit):
    geometry = fit_image(Image.new("RGB", original[::-1]), size, fit)[1]
    top, left, bottom, right = geometry.visible()
    radius = max(1.6, 0.04 * min(bottom - top, right - left))
    for dot in dots(geometry, seed=3):
        image, same = fit_image(dotted(original, dot, radius), size, fit)
        assert same == geometry
        assert image.size == size[::-1]
        # A disc on pixels has its own centre of mass: the claim is about the geometry, so it is that which is mapped.
        light = centre_of_light(dotted(original, dot, radius))
        np.testing.assert_allclose(centre_of_light(image), geometry.to_input(light), atol=0.75)


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_map_of_one_cell_peaks_over_the_dot_that_the_cell_covers(original, size, fit, interpolation):
    grid = (7, 5)
    geometry = fit_image(Image.new("RGB", original[::-1]), size, fit)[1]
    for dot in dots(geometry, seed=5):
        row, column = np.floor(geometry.to_input(dot) / size * grid).astype(int)
        weights = np.zeros(grid)
        weights[row, column] = 1
        spread = geometry.to_original_map(weights, interpolation)
        assert spread.shape == original
        peak = np.array(np.unravel_index(np.nanargmax(spread), original)) + 0.5
        low, high = geometry.to_original(np.array([(row, column), (row + 1, column + 1)]) / grid * size)
        assert (peak >= low - 1).all()
        assert (peak <= high + 1).all()
        assert (dot >= low).all()
        assert (dot <= high).all()


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
def test_to_original_inverts_to_input(original, size, fit):
    geometry = fit_image(Image.new("RGB", original[::-1]), size, fit)[1]
    points = np.random.default_rng(7).uniform(-50, 700, (11, 3, 2))
    np.testing.assert_allclose(geometry.to_original(geometry.to_input(points)), points, atol=1e-9)


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
def test_what_is_seen_depends_on_the_fit(original, size, fit):
    geometry = fit_image(Image.new("RGB", original[::-1]), size, fit)[1]
    top, left, bottom, right = geometry.visible()
    if fit != "crop":
        np.testing.assert_allclose((top, left, bottom, right), (0, 0, *original), atol=1e-9)
    else:  # the largest window of the input's proportions around the centre, to within an input pixel
        scale = min(original[0] / size[0], original[1] / size[1])
        np.testing.assert_allclose((bottom - top, right - left), np.multiply(size, scale), atol=scale)
        np.testing.assert_allclose((top + bottom, left + right), original, atol=2 * scale)
    if fit == "squash":
        np.testing.assert_allclose(geometry.to_input(original), size, atol=1e-9)
    else:  # proportions kept, but for the rounding to whole pixels
        assert geometry.scale[0] == pytest.approx(geometry.scale[1], rel=1 / min(size))


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_flat_map_stays_flat_and_is_nan_exactly_outside(original, size, fit, interpolation):
    geometry = fit_image(Image.new("RGB", original[::-1]), size, fit)[1]
    spread = geometry.to_original_map(np.full((3, 11, 7), 0.25), interpolation)
    top, left, bottom, right = geometry.visible()
    y, x = np.arange(original[0]) + 0.5, np.arange(original[1]) + 0.5
    seen = ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))
    np.testing.assert_allclose(spread[:, seen], 0.25, rtol=1e-6)
    assert np.isnan(spread[:, ~seen]).all()


def test_bilinear_by_hand():
    # Two cells over four pixels: centres of cells at 1 and 3, of pixels at 0.5, 1.5, 2.5, 3.5.
    spread = Geometry.identity((1, 4)).to_original_map(np.array([[0.0, 8.0]]))
    np.testing.assert_allclose(spread, [[0, 2, 6, 8]])


def test_rows_and_columns_are_not_confused():
    geometry = Geometry(original=(2, 6), input=(4, 6), scale=(2.0, 1.0), offset=(0.0, 0.0))
    spread = geometry.to_original_map(np.array([[1.0, 2, 3], [4, 5, 6]]), "nearest")
    np.testing.assert_array_equal(spread, [[1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]])


def test_nearest_keeps_values():
    weights = np.random.default_rng(11).random((5, 3)).astype(np.float32)
    geometry = fit_image(Image.new("RGB", (61, 97)), (43, 41), "pad")[1]
    assert set(np.unique(geometry.to_original_map(weights, "nearest"))) == set(np.unique(weights))


def test_one_cell_over_everything():
    np.testing.assert_array_equal(Geometry.identity((3, 5)).to_original_map(np.array([[2.0]])), np.full((3, 5), 2.0))


@pytest.mark.parametrize(("original", "size", "fit"), CASES)
def test_mask_of_the_input_is_the_mask_of_the_original(original, size, fit):
    box = np.array([0.3, 0.2, 0.7, 0.6]) * [*original, *original]
    mask = np.zeros(original, dtype=bool)
    mask[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])] = True
    image = Image.fromarray(np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2))
    small, geometry = fit_image(image, size, fit)
    seen = geometry.to_input_mask(mask)
    assert seen.shape == size
    pixels = np.asarray(small)
    padding = (pixels == PAD_COLOUR).all(-1)
    light = (pixels[..., 0] > 127) & ~padding
    # Both are rectangles, and no side is off by more than a pixel.
    for axis in (0, 1):
        a, b = np.flatnonzero(seen.any(axis)), np.flatnonzero(light.any(axis))
        assert abs(int(a[0]) - int(b[0])) <= 1
        assert abs(int(a[-1]) - int(b[-1])) <= 1
    assert not geometry.to_input_mask(np.zeros(original, dtype=bool)).any()
    np.testing.assert_array_equal(geometry.to_input_mask(np.ones(original, dtype=bool)), ~padding)


@pytest.mark.parametrize("original", [(1, 5000), (5000, 1)])
def test_an_image_whose_side_would_vanish_is_refused(original):
    image = Image.new("RGB", original[::-1])
    with pytest.raises(InputError, match="crop it first"):
        fit_image(image, (224, 224), "pad")
    for fit in ("crop", "squash"):
        small, geometry = fit_image(image, (224, 224), fit)
        assert small.size == (224, 224)
        assert np.isfinite(geometry.to_original_map(np.ones((7, 7)))).any()


def test_identity():
    image = Image.fromarray(np.random.default_rng(13).integers(0, 256, (17, 29, 3), dtype=np.uint8))
    for fit in FITS:
        small, geometry = fit_image(image, (17, 29), fit)
        assert geometry == Geometry.identity((17, 29))
        np.testing.assert_array_equal(np.asarray(small), np.asarray(image))


def test_cell_shift_moves_the_map_and_nothing_else():
    plain = Geometry((60, 90), (30, 45), (0.5, 0.5), (0.0, 0.0))
    shifted = plain._replace(cell_shift=(3.0, -5.0))
    weights = np.zeros((6, 9))
    weights[2, 4] = 1.0
    before, after = (g.to_original_map(weights, "nearest") for g in (plain, shifted))
    rows, columns = np.nonzero(before == 1)
    np.testing.assert_array_equal(np.nonzero(after == 1), (rows + 6, columns - 10))
    assert shifted.visible() == plain.visible()
    assert not np.isnan(after).any()


def test_a_geometry_comes_back_from_its_numbers():
    geometry = fit_geometry((427, 640), (37, 53), "crop")._replace(cell_shift=(-1.5, 2.25))
    assert Geometry.from_array(geometry.to_array()) == geometry
    for broken in (geometry.to_array()[:4], geometry.to_array() * np.nan, -geometry.to_array()):
        with pytest.raises(ValueError, match="5 or 8 pairs"):
            Geometry.from_array(broken)


def test_cells_that_do_not_fill_the_input_are_laid_where_they_are():
    """Ten cells of 32 pixels in an input of 300 pixels."""
    whole = CellShift((-15.5, 0.0), (32.0, 28.0), ((0.0, 0.0), (300.0, 280.0)))
    geometry = Geometry.identity((300, 300))._replace(cell_shift=whole)
    numbers = np.arange(100, dtype=np.float32).reshape(10, 10)
    laid = geometry.to_original_map(numbers)
    assert laid[0, 14] == pytest.approx(0.5 / 28)
    for i in range(9):
        assert (laid[32 * i, 13] + laid[32 * i + 1, 13]) / 2 == pytest.approx(10 * i + 0.15625, abs=0.01)
    blocks = geometry.to_original_map(numbers, "nearest")
    assert np.isnan(laid[:, 280:]).all()
    assert np.isnan(blocks[:, 280:]).all()
    assert np.isfinite(blocks[:, :280]).all()
    (rows, columns), centres = geometry.edges((10, 10)), geometry.centres((10, 10))
    assert (rows[0], rows[1], rows[-1], columns[-1]) == (0, 16.5, 300, 280)
    for i, j in ((0, 0), (3, 7), (9, 9)):
        assert set(np.unique(blocks[int(rows[i]) + 1 : int(rows[i + 1]), int(columns[j]) : int(columns[j + 1])])) == {
            10 * i + j
        }
        assert cell_box(geometry, (10, 10), 10 * i + j)[0] == pytest.approx(max(0, centres[0][i] - 16))
    assert geometry.visible() == (0, 0, 300, 280)
    assert Geometry.from_array(geometry.to_array()) == geometry
    with pytest.raises(ValueError, match="5 or 8 pairs"):
        Geometry.from_array(geometry.to_array()[:7])
