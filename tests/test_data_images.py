import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from visattn.data.inputs import read_inputs, to_tensor
from visattn.errors import InputError
from visattn.images import reading as images
from visattn.images.reading import BACKGROUND, decode_image, image_size, list_images, load_image

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


def test_sixteen_bits_of_every_kind(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 32896, 1000]], dtype=np.uint16)
    Image.frombytes("I;16B", (5, 1), values.astype(">u2").tobytes()).save(tmp_path / "big_endian.tif")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tif")  # 32 bits that hold 16
    (tmp_path / "grey.pgm").write_bytes(b"P5 5 1 65535\n" + values.astype(">u2").tobytes())
    modes = set()
    for name in ("big_endian.tif", "wide.tif", "grey.pgm"):
        with Image.open(tmp_path / name) as image:
            modes.add(image.mode)
        seen = np.asarray(load_image(tmp_path / name))
        assert (seen == np.round(values / 257)[..., None]).all(), name
    assert modes == {"I;16B", "I"}

    (tmp_path / "colour.ppm").write_bytes(b"P6 1 1 65535\n" + np.array([0, 65535, 32896], ">u2").tobytes())
    assert load_image(tmp_path / "colour.ppm").getpixel((0, 0)) == (0, 255, 128)
    (tmp_path / "colour.png").write_bytes(_png(2, 1, 16, 2, np.array([[0, 65535, 32896, 257, 514, 0]], ">u2")))
    assert np.abs(np.asarray(load_image(tmp_path / "colour.png")).astype(int) - [[[0, 255, 128], [1, 2, 0]]]).max() <= 1

    Image.fromarray(values).save(tmp_path / "clear.png", transparency=257)  # this value stands for nothing
    assert np.asarray(load_image(tmp_path / "clear.png"))[0, :, 0].tolist() == [0, 255, 255, 128, 4]

    for worst in (-1, 65536):
        Image.fromarray(np.array([[0, worst]], dtype=np.int32)).save(tmp_path / "wider.tif")
        with pytest.raises(InputError, match=r"wider\.tif .*32-bit .*range"):
            load_image(tmp_path / "wider.tif")


def _png(width: int, height: int, bits: int, kind: int, rows: Iterable[np.ndarray] = ()) -> bytes:
    """A PNG file by hand, for what PIL does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


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


def test_transparency_of_palettes(tmp_path: Path) -> None:
    shades = Image.new("PA", (2, 1))
    shades.putpalette([1, 2, 3, 4, 5, 6])
    shades.putpixel((0, 0), (1, 255))
    shades.putpixel((1, 0), (1, 0))
    shades.save(tmp_path / "pa.tif")
    with Image.open(tmp_path / "pa.tif") as image:
        assert image.mode == "PA"
    assert np.asarray(load_image(tmp_path / "pa.tif")).tolist() == [[[4, 5, 6], list(BACKGROUND)]]

    steps = Image.new("P", (3, 1))
    steps.putpalette([0, 0, 0, 100, 0, 0, 0, 50, 0])
    for i in range(3):
        steps.putpixel((i, 0), i)
    steps.save(tmp_path / "steps.png", transparency=bytes([255, 0, 51]))  # an alpha for each colour
    seen = np.asarray(load_image(tmp_path / "steps.png")).tolist()[0]
    assert seen == [[0, 0, 0], list(BACKGROUND), [204, 214, 204]]
    steps.save(tmp_path / "steps.gif", transparency=1)
    assert np.asarray(load_image(tmp_path / "steps.gif")).tolist()[0] == [[0, 0, 0], list(BACKGROUND), [0, 50, 0]]


def test_ycbcr_and_lab_become_rgb(tmp_path: Path) -> None:
    colour = (200, 30, 40)
    rgb = Image.new("RGB", (3, 2), colour)
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for name, image in {"YCbCr": rgb.convert("YCbCr"), "LAB": lab}.items():
        image.save(tmp_path / f"{name}.tif")
        with Image.open(tmp_path / f"{name}.tif") as written:
            assert written.mode == name
        assert np.abs(np.array(load_image(tmp_path / f"{name}.tif").getpixel((0, 0))) - colour).max() <= 2


def test_grey_and_cmyk_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 77).save(tmp_path / "l.png")
    Image.new("1", (3, 2), 1).save(tmp_path / "1.png")
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert load_image(tmp_path / "l.png").getpixel((0, 0)) == (77, 77, 77)
    assert load_image(tmp_path / "1.png").getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.array(load_image(tmp_path / "cmyk.jpg").getpixel((0, 0))) - (255, 0, 0)).max() <= 3


def test_files_that_are_not_images_are_named(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_negative_of_16_bits_is_read_as_one_of_8(tmp_path: Path) -> None:
    """TIFF's tag 262 of 0: white is 0, as in scans and X-rays."""
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "16.tif", tiffinfo={262: 0})
    Image.fromarray((255 - values // 257).astype(np.uint8)).save(tmp_path / "8.tif", tiffinfo={262: 0})  # inverts it
    sixteen, eight = (np.asarray(load_image(tmp_path / name))[..., 0].tolist() for name in ("16.tif", "8.tif"))
    assert sixteen == eight == [[255, 254, 127, 0]]


def test_the_size_of_an_image_that_is_refused_is_refused(tmp_path: Path) -> None:
    Image.new("L", (2000, 10)).save(tmp_path / "long.png")
    for read in (image_size, load_image):
        with pytest.raises(InputError, match="one side is more than 100 times the other"):
            read(tmp_path / "long.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("unpacked"))
    for name, size, sentence in (
        ("large.png", (8_000, 10_001), r"80,008,000 pixels, more than 80,000,000"),
        ("bomb.png", (60_000, 60_000), "pixels"),
        ("line.png", (1, 5000), r"1×5000 pixels: one side is more than 100 times the other"),
        ("flat.png", (707, 7), r"707×7 pixels"),
    ):
        (tmp_path / name).write_bytes(_png(*size, 8, 2))
        with pytest.raises(InputError, match=rf"{name} .*{sentence}"):
            load_image(tmp_path / name)


def test_extreme_but_valid_images(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise[:1, :1]).save(tmp_path / "dot.png")
    Image.fromarray(np.resize(noise, (3, 300, 3))).save(tmp_path / "wide.png")
    for fit in ("crop", "pad", "squash"):
        dot, wide = read_inputs([tmp_path / "dot.png", tmp_path / "wide.png"], (11, 131), fit)
        assert dot.tensor.shape == wide.tensor.shape == (3, 11, 131)
        assert dot.geometry.original == dot.original.shape[:2] == (1, 1)
        assert wide.geometry.original == wide.original.shape[:2] == (3, 300)


def test_no_format_that_starts_a_program(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 7\nshowpage\n")
    with Image.open(tmp_path / "page.jpg") as image:
        assert image.format == "EPS"  # PIL itself would hand it to Ghostscript
    with pytest.raises(InputError, match=r"page\.jpg .*unknown format"):
        load_image(tmp_path / "page.jpg")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match=r"pipe\.jpg .*not a file"):
        load_image(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match=r"cannot be read as an image|no such image"):
        load_image(tmp_path / "a\0b.jpg")
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_image(tmp_path / ("x" * 300))


def test_images_from_bytes(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert (np.asarray(decode_image(content, "shard 7, a")) == noise).all()
    with pytest.raises(InputError, match="shard 7, a cannot be read as an image"):
        decode_image(content[:60], "shard 7, a")


def test_nothing_switches_on_truncated_images() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    sources = Path(images.__file__).parents[2]
    files = [*(sources / "visattn").rglob("*.py")]
    assert not [path for path in files if "LOAD_TRUNCATED" in path.read_text()]


def test_names_of_output_files(tmp_path: Path, noise: np.ndarray) -> None:
    names = ["a.png", "A.jpg", "a-2.png", "nul.png", ".hidden.png", "bell\a.png", "x" * 240 + ".png"]
    for name in names:
        Image.fromarray(noise).save(tmp_path / name)
    made = [item.name for item in read_inputs([tmp_path / name for name in names], (5, 7), "squash")]
    assert made[:6] == ["a", "A-2", "a-2-2", "_nul", "_hidden", "bell_"]
    assert len(made[6]) == 200


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
    with pytest.raises(InputError, match=r"folder\.png has no images"):
        list_images([tmp_path / "folder.png"])
