from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.data import images
from visattn.data.images import BACKGROUND, list_images, load_image, to_tensor
from visattn.errors import InputError

ORIENTATION = 0x0112


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)


def test_rgb_is_left_as_it_is(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert (np.asarray(image) == noise).all()
    tensor = to_tensor(image)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    assert (tensor.numpy() == noise.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, noise: np.ndarray, orientation: int, upright) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(noise).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(load_image(tmp_path / "a.png")) == upright(noise)).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 32896], [128, 129, 1000, 514]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        grey = np.asarray(load_image(tmp_path / name))
        assert (grey == np.round(values / 257)[..., None]).all(), name


def test_transparent_shows_the_background(tmp_path: Path) -> None:
    colour = (10, 20, 30)
    rgba = Image.new("RGBA", (3, 2), (*colour, 255))
    rgba.putpixel((1, 0), (*colour, 0))
    rgba.putpixel((2, 0), (*colour, 51))  # a fifth
    rgba.save(tmp_path / "rgba.png")
    seen = np.asarray(load_image(tmp_path / "rgba.png"))
    assert tuple(seen[0, 0]) == colour
    assert tuple(seen[0, 1]) == BACKGROUND
    assert np.abs(seen[0, 2] - (0.2 * np.array(colour) + 0.8 * np.array(BACKGROUND))).max() <= 1

    la = Image.new("LA", (2, 1), (40, 255))
    la.putpixel((1, 0), (40, 0))
    la.save(tmp_path / "la.png")
    assert np.asarray(load_image(tmp_path / "la.png")).tolist() == [[[40] * 3, list(BACKGROUND)]]

    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert np.asarray(load_image(tmp_path / "p.png")).tolist() == [[[1, 2, 3], list(BACKGROUND)]]
    palette.save(tmp_path / "opaque.gif")
    assert np.asarray(load_image(tmp_path / "opaque.gif")).tolist() == [[[1, 2, 3], [4, 5, 6]]]

    grey = Image.new("L", (1, 1), 9)
    grey.save(tmp_path / "l.png", transparency=9)  # a grey value that stands for nothing
    assert load_image(tmp_path / "l.png").getpixel((0, 0)) == BACKGROUND


def test_grey_and_cmyk_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 77).save(tmp_path / "l.png")
    Image.new("1", (3, 2), 1).save(tmp_path / "1.png")
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert load_image(tmp_path / "l.png").getpixel((0, 0)) == (77, 77, 77)
    assert load_image(tmp_path / "1.png").getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.array(load_image(tmp_path / "cmyk.jpg").getpixel((0, 0))) - (255, 0, 0)).max() <= 3


def test_what_is_no_image_is_named(tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.tile(noise, (20, 20, 1))).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    Image.fromarray(noise).save(tmp_path / "whole.png")
    png = bytearray((tmp_path / "whole.png").read_bytes())
    png[60:80] = bytes(20)
    Image.fromarray(np.ones((2, 3), dtype=np.float32)).save(tmp_path / "float.tif")
    for name, content in {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "page.jpg": b"<html>not found</html>",
        "rotten.png": bytes(png),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read as an image"):
            load_image(tmp_path / name)
    with pytest.raises(InputError, match="floating-point numbers"):
        load_image(tmp_path / "float.tif")
    with pytest.raises(InputError, match="cannot be read"):
        load_image(tmp_path)
    with pytest.raises(InputError, match=r"gone\.jpg: no such image"):
        load_image(tmp_path / "gone.jpg")

    monkeypatch.setattr(images, "MAX_PIXELS", 90)
    with pytest.raises(InputError, match=r"whole\.png has 91 pixels, more than 90"):
        load_image(tmp_path / "whole.png")
    for limit in (50, 30):  # where PIL would warn, and where it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=r"whole\.png has .*pixels"):
            load_image(tmp_path / "whole.png")


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert list_images([tmp_path]) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    odd = tmp_path / "notes.txt"
    assert list_images([str(odd), tmp_path / "sub"]) == [odd, tmp_path / "sub" / "c.png"]
    with pytest.raises(InputError, match=r"gone: no such image or folder"):
        list_images([tmp_path / "gone"])
    with pytest.raises(InputError, match=r"folder\.png has no image in it"):
        list_images([tmp_path / "folder.png"])
