"""Damaged metadata: pixels are still read, and the orientation is applied if it can be read."""

import io
import itertools
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from visattn.errors import InputError
from visattn.images.metadata import without_metadata
from visattn.images.reading import decode_image, image_size, list_images, load_image

HEIGHT, WIDTH = 29, 43
ORIENTATION, RESOLUTION, SOFTWARE = 0x112, 0x11A, 0x131
PICTURE = Image.fromarray((np.indices((HEIGHT, WIDTH)).sum(0)[..., None] * np.array([3.1, 2.3, 1.7])).astype(np.uint8))
FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]


def saved(form: str, **options) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, form, **options)
    return buffer.getvalue()


def exif(*tags: tuple[int, int, int, bytes], order: str = "<", after: bytes = b"") -> bytes:
    """A directory of (tag, type, count, four bytes), by hand."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + b"".join(struct.pack(f"{order}HHI", *tag[:3]) + tag[3] for tag in tags) + bytes(4) + after


TURN = (ORIENTATION, 3, 1, struct.pack("<HH", 6, 0))
NAN = (RESOLUTION, 11, 1, struct.pack("<f", float("nan")))
FAR = (SOFTWARE, 2, 1 << 20, struct.pack("<I", 1 << 28))  # a text that begins behind the end
NOWHERE = (RESOLUTION, 5, 1, struct.pack("<I", 1 << 30))
UNKNOWN = (SOFTWARE, 99, 7, b"abcd")
GPS = (0x8825, 4, 1, struct.pack("<I", 1 << 27))
BLOCKS = {
    "nothing": (b"", 1),
    "no EXIF": (b"hello", 1),
    "a header alone": (b"II*\0", 1),
    "a directory behind the end": (b"II*\0" + struct.pack("<I", 1 << 20), 1),
    "a directory that is cut off": (exif(TURN, NAN)[:26], 6),
    "no number": (exif(TURN, NAN), 6),
    "no number, first": (exif(NAN, TURN), 6),
    "text behind the end": (exif(TURN, FAR), 6),
    "a fraction behind the end": (exif(NOWHERE, TURN), 6),
    "an unknown type": (exif(UNKNOWN, TURN), 6),
    "a directory of GPS behind the end": (exif(TURN, GPS), 6),
    "big-endian": (exif((ORIENTATION, 3, 1, struct.pack(">HH", 6, 0)), order=">"), 6),
    "as a long": (exif((ORIENTATION, 4, 1, struct.pack("<I", 6))), 6),
    "two of them": (exif((ORIENTATION, 3, 2, struct.pack("<HH", 6, 1)), NAN), 6),
    "of no such way": (exif((ORIENTATION, 3, 1, struct.pack("<HH", 11, 0)), NAN), 1),
    "no number, as an orientation": (exif((ORIENTATION, 11, 1, struct.pack("<f", float("nan")))), 1),
}


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(*chunks: bytes, at: int = 33) -> bytes:
    whole = saved("PNG")
    return whole[:at] + b"".join(chunks) + whole[at:]


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2 if length is None else length) + content


def jpeg(*segments: bytes) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = saved("WEBP", lossless=True)
    size = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([0b101100, 0, 0, 0]) + size + whole[12:]
    body += b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(*tags: tuple[int, int, int, bytes]) -> bytes:
    """The image with further tags in its directory, which is moved to the end."""
    whole = saved("TIFF")
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    own = {tag[0]: struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        own.setdefault(struct.unpack_from("<H", whole, at)[0], whole[at : at + 12])
    directory = struct.pack("<H", len(own)) + b"".join(own[tag] for tag in sorted(own)) + bytes(4)
    return whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + directory


def check(content: bytes, orientation: int, form: str) -> None:
    want = np.asarray(decode_image(saved(form, **({"lossless": True} if form == "WEBP" else {})), "it"))
    want = np.rot90(want, -1) if orientation == 6 else want
    assert np.array_equal(np.asarray(decode_image(content, "it")), want)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_exif(form: str, name: str) -> None:
    block, orientation = BLOCKS[name]
    if form == "PNG":
        check(png(chunk(b"eXIf", block)), orientation, form)
    elif form == "JPEG":
        check(jpeg(segment(0xE1, b"Exif\0\0" + block)), orientation, form)
    elif form == "WEBP":
        check(webp((b"EXIF", block)), orientation, form)
    elif form == "TIFF":
        check(tiff((34665, 4, 1, struct.pack("<I", 1 << 27)), (34853, 4, 1, struct.pack("<I", 5))), 1, form)
    elif form == "AVIF":  # PIL writes no EXIF that it cannot read
        sound = exif((SOFTWARE, 2, 200, struct.pack("<I", 26)), after=b"7" * 199 + b"\0")
        whole = saved("AVIF", exif=sound)
        assert whole.count(sound) == 1
        check(whole.replace(sound, block.ljust(len(sound), b"\0")), 1, form)  # the way up is not for EXIF to say there


def profile(name: str, data: str) -> bytes:
    return f"Raw profile type {name}\0\n{name}\n{len(data) // 2:8}\n{data}\n".encode()


def packed(text: bytes) -> bytes:
    key, _, value = text.partition(b"\0")
    return key + b"\0\0" + zlib.compress(value)


HEX = (b"Exif\0\0" + BLOCKS["no number"][0]).hex()
LARGE = zlib.compress(bytes(1_500_000))
PNGS = {
    "text of 1.5 MB": ([chunk(b"zTXt", b"Comment\0\0" + LARGE)], 1),
    "text of 1.5 MB, not packed": ([chunk(b"tEXt", b"Comment\0" + b"a" * 1_500_000)], 1),
    "international text of 1.5 MB": ([chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE)], 1),
    "texts of 70 MB": ([chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000)))] * 70, 1),
    "a profile of 1.5 MB": ([chunk(b"iCCP", b"camera\0\0" + LARGE)], 1),
    "a profile of 1.5 MB and EXIF": ([chunk(b"iCCP", b"camera\0\0" + LARGE), chunk(b"eXIf", exif(TURN))], 6),
    "a profile packed in another way": ([chunk(b"iCCP", b"camera\0\7" + LARGE)], 1),
    "a profile that is none": ([chunk(b"iCCP", b"camera\0\0hello")], 1),
    "a profile without a name": ([chunk(b"iCCP", b"")], 1),
    "text whose sum is wrong": ([chunk(b"tEXt", b"a\0b", crc=7), chunk(b"eXIf", exif(TURN))], 6),
    "a raw profile": ([chunk(b"tEXt", profile("exif", exif(TURN).hex()))], 6),
    "a raw profile of an odd tag": ([chunk(b"tEXt", profile("exif", HEX))], 6),
    "a raw profile that is packed": ([chunk(b"zTXt", packed(profile("exif", HEX))), chunk(b"pHYs", b"")], 6),
    "a raw profile that breaks off": ([chunk(b"tEXt", profile("exif", HEX[:-5] + "zz"))], 6),
    "a raw profile without a digit": ([chunk(b"tEXt", profile("exif", "zzzz"))], 1),
    "a physical size that is cut off": ([chunk(b"pHYs", b"\0")], 1),
    "a gamma of no byte": ([chunk(b"gAMA", b"")], 1),
    "chromaticities of three bytes": ([chunk(b"cHRM", b"abc")], 1),
    "a rendering intent of no byte": ([chunk(b"sRGB", b"")], 1),
    "XMP": ([chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>"), chunk(b"pHYs", b"")], 6),
}


@pytest.mark.parametrize("name", PNGS)
def test_damaged_metadata_of_png(name: str) -> None:
    chunks, orientation = PNGS[name]
    check(png(*chunks), orientation, "PNG")
    behind = len(saved("PNG")) - 12  # behind the pixels
    check(png(*chunks, at=behind), orientation, "PNG")


def test_a_png_that_is_cut_off_behind_its_pixels() -> None:
    whole = saved("PNG")
    check(whole[:-12] + chunk(b"tEXt", b"Comment\0" + b"a" * 71)[:-17], 1, "PNG")
    for length in range(40, len(whole) - 20):
        with pytest.raises(InputError, match="cannot be read"):
            decode_image(whole[:length], "it")


ICC = b"ICC_PROFILE\0"
JPEGS = {
    "a profile in parts that are not there": ([segment(0xE2, ICC + b"\7\2" + b"a" * 71)], 1),
    "a profile of no byte": ([segment(0xE2, ICC)], 1),
    "several pictures of which nothing is said": ([segment(0xE2, b"MPF\0")], 1),
    "several pictures, badly said": ([segment(0xE2, b"MPF\0" + exif((0xB001, 4, 1, struct.pack("<I", 3))))], 1),
    "several pictures, of which EXIF has one": (
        [segment(0xE1, b"Exif\0\0" + exif(TURN)), segment(0xE2, b"MPF\0" + exif(GPS))],
        6,
    ),
    "Photoshop's": ([segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10ab")], 1),
    "an odd JFIF": ([segment(0xE0, b"JFIF\0\1")], 1),
    "an odd Adobe": ([segment(0xEE, b"Adobe\0")], 1),
    "segments without content": ([segment(marker, b"") for marker in range(0xE0, 0xF0)], 1),
    "a comment of all bytes": ([segment(0xFE, bytes(range(256)))], 1),
    "a length that is too short": ([segment(0xE1, b"Exif\0\0" + exif(TURN, NAN), 41)], 6),
    "a length that reaches behind the end": ([segment(0xE1, b"Exif\0\0" + exif(TURN), 65000)], 6),
    "a length of none": ([segment(0xE5, b"abcdefg", 0)], 1),
    "XMP that is cut off": ([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orient")], 1),
    "XMP": ([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"), segment(0xE2, b"MPF\0")], 6),
}


@pytest.mark.parametrize("name", JPEGS)
def test_damaged_metadata_of_jpeg(name: str) -> None:
    segments, orientation = JPEGS[name]
    check(jpeg(*segments), orientation, "JPEG")


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"ICCP", b"hello")],
        [(b"ICCP", b"")],
        [(b"XMP ", b"<x:xmpmeta")],
        [(b"EXIF", exif(NAN)), (b"XMP ", bytes(7))],
        [(b"ABCD", b"what is this")],
    ],
)
def test_damaged_metadata_of_webp(chunks: list[tuple[bytes, bytes]]) -> None:
    check(webp(*chunks), 1, "WEBP")


def test_damaged_metadata_of_tiff() -> None:
    for tag, turned in itertools.product((NAN, FAR, NOWHERE, UNKNOWN, GPS), (False, True)):
        check(tiff(tag, *[TURN] * turned), 6 if turned else 1, "TIFF")
    for number in (700, 34675, 33723, 34377, 37724, 40965, 50341):  # XMP, ICC, IPTC, Photoshop, …
        for kind, count in ((7, 1 << 20), (1, 3), (4, 1), (12, 1)):
            check(tiff((number, kind, count, struct.pack("<I", 1 << 28)), TURN), 6, "TIFF")


def test_everything_needed_for_pixels_is_kept() -> None:
    """Palette images and upside-down ones, also if metadata must be dropped."""
    large = chunk(b"iCCP", b"camera\0\0" + LARGE)
    for mode in ("P", "L", "LA", "RGBA", "1"):
        buffer = io.BytesIO()
        PICTURE.convert(mode).save(buffer, "PNG", **({"transparency": 7} if mode in "PL" else {}))
        whole = buffer.getvalue()
        want = decode_image(whole, "it")
        assert decode_image(whole[:33] + large + whole[33:], "it").tobytes() == want.tobytes(), mode
    for mode in ("CMYK", "L", "RGB"):
        for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
            buffer = io.BytesIO()
            PICTURE.convert(mode).save(buffer, "JPEG", **options)
            whole = buffer.getvalue()
            broken = whole[:2] + segment(0xE2, b"MPF\0") + segment(0xE1, b"Exif\0\0", 65000) + whole[2:]
            assert decode_image(broken, "it").tobytes() == decode_image(whole, "it").tobytes(), (mode, options)
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"):
        for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
            if (mode in ("P", "RGBA", "I;16")) and compression == "jpeg":
                continue
            picture = Image.new("I;16", (7, 5), 5003) if mode == "I;16" else PICTURE.convert(mode)
            buffer = io.BytesIO()
            picture.save(buffer, "TIFF", compression=compression, tiffinfo={700: b"xmp", ORIENTATION: 3})
            bare = without_metadata(buffer.getvalue())
            assert bare.orientation == 3
            want = decode_image(buffer.getvalue(), "it").rotate(180)
            assert decode_image(bare.content, "it").tobytes() == want.tobytes(), (compression, mode)


def test_limits_hold_without_metadata_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from visattn.images import reading as images

    monkeypatch.setattr(images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(InputError, match="pixels, more than"):
        decode_image(png(chunk(b"iCCP", b"camera\0\0" + LARGE)), "it")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    other = PICTURE.transpose(Image.Transpose.ROTATE_180)
    PICTURE.save(tmp_path / "a.avif", save_all=True, append_images=[other], quality=100)
    seen = np.asarray(load_image(tmp_path / "a.avif")).astype(int)
    assert np.abs(seen - np.asarray(PICTURE)).mean() < 3
    assert list_images([tmp_path]) == [tmp_path / "a.avif"]


def test_other_files_in_a_folder_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.JPG"):
        PICTURE.save(tmp_path / name)
    for name in ("captions.json", "a.npz", ".DS_Store", "._a.png"):
        (tmp_path / name).write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="visattn"):
        assert [path.name for path in list_images([tmp_path])] == ["a.png", "b.JPG"]
    assert not caplog.records
    for name in ("c.heic", "d.HEIC", "e.jxl", "f.txt", "g"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    assert len(list_images([tmp_path])) == 2
    (line,) = caplog.messages
    for part in (str(tmp_path), "6 ", "2 .heic", "1 .jxl", "1 .txt", "1 without a suffix", "1 folders"):
        assert part in line
    for path in (tmp_path / "a.png", tmp_path / "b.JPG"):
        path.unlink()
    with pytest.raises(InputError, match=r"no images .*2 \.heic.*1 \.json"):
        list_images([tmp_path])


def test_a_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    """Also if PIL cannot read the orientation; otherwise outlines would be misplaced."""
    (tmp_path / "a.jpg").write_bytes(jpeg(segment(0xE1, b"Exif\0\0" + BLOCKS["two of them"][0])))
    assert image_size(tmp_path / "a.jpg") == (WIDTH, HEIGHT)
    (tmp_path / "b.png").write_bytes(png(chunk(b"iCCP", b"camera\0\0" + LARGE)))
    assert image_size(tmp_path / "b.png") == (HEIGHT, WIDTH)
