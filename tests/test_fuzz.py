"""Fuzzing: any input gives a result or an `InputError`, and no other error."""

import io
import json
import os
import struct
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from visattn.data.annotations import read_annotations, read_entries
from visattn.data.inspection import KINDS, caption_faults
from visattn.data.instances import Instances
from visattn.errors import InputError
from visattn.files import safe_name, safe_names
from visattn.images import Geometry, fit_geometry, fit_image
from visattn.images import reading as images
from visattn.images.reading import decode_image
from visattn.overlay import Panel, Section, caption_sheet, encode_figure, page
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary, clean_words, tokenize

quick = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40) | st.sampled_from(
    [
        *SPECIALS,
        "a <end> dog",
        "İ",
        "ﬁ",
        "e\u0301",
        "\ud800",
        "$\\frac{ $",
        "<script>alert(1)</script>",
        "👩‍🚀",
        "\x1b[31m",
        "../x",
    ]
)


def attempt(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, or None after an `InputError` whose sentence has the name in it."""
    try:
        return function(*arguments)
    except InputError as error:
        sentence = str(error)
    assert name in sentence
    return None


def seeds() -> list[bytes]:
    """Small pictures of every format and of many modes."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (13, 11, 3), dtype=np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65536, (13, 11), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    whole: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}),
        (rgb.convert("LA"), "PNG", {}),
        (rgb.quantize(7), "PNG", {"transparency": 3}),
        (rgb.convert("1"), "PNG", {}),
        (grey16, "PNG", {"transparency": 257}),
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True, "quality": 60}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb, "GIF", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb, "BMP", {}),
        (rgb.quantize(5), "BMP", {}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb.convert("YCbCr"), "TIFF", {}),
        (grey16, "TIFF", {"compression": "tiff_deflate"}),
        (rgb, "WEBP", {}),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True}),
        (rgb, "PPM", {}),
        (grey16, "PPM", {}),
    ]
    out = []
    for image, form, options in whole:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        out.append(buffer.getvalue())
    return out


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four mutations, half of them in the header."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(max(1, min(len(data), 64) if rng.random() < 0.5 else len(data))))
        kind = rng.integers(7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 1] = rng.bytes(1)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 5:
            data[at : at + 4] = struct.pack("<I", int(rng.choice([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1])))
        else:
            data[at : at + 8] = data[-8:]
    return bytes(data)


def test_mutated_images_are_an_image_or_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)  # one that claims 80 million takes a second to be refused
    rng = np.random.default_rng(0)
    whole = seeds()
    for content in whole:
        assert sorted(decode_image(content, "whole").size) == [11, 13]
    outcomes = {"image": 0, "error": 0}
    for number in range(2200):
        image = attempt(
            f"picture {number} ", decode_image, mutate(whole[number % len(whole)], rng), f"picture {number}"
        )
        if image is not None:
            assert image.mode == "RGB"
            assert len(np.asarray(image)) == image.height
        outcomes["error" if image is None else "image"] += 1
    assert min(outcomes.values()) > 400, outcomes


@quick
@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_a_named_error(content: bytes) -> None:
    for head in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"P6 ",
    ):
        with pytest.raises(InputError, match=r"^it (cannot be read|is|has) "):
            decode_image(head + content, "it")


@settings(quick, max_examples=400)
@given(TEXT)
def test_any_caption_becomes_words(caption: str) -> None:
    words = tokenize(caption)
    assert words == tokenize(unicodedata.normalize("NFD", caption))
    assert words == tokenize(" ".join(words)) == clean_words(words)
    assert not set("".join(words)) & set("<> \n\t")
    assert all(word == unicodedata.normalize("NFC", word) and word for word in words)


@settings(quick, max_examples=400)
@given(st.lists(TEXT | st.none() | st.integers(), max_size=9), st.integers(1, 7))
def test_any_tokens_come_back_as_they_went(tokens: list[Any], longest: int) -> None:
    words = clean_words(tokens)
    vocabulary = Vocabulary.build([words])
    assert vocabulary.words[:4] == list(SPECIALS)
    ids = vocabulary.encode(words, longest)
    assert (ids[0], ids[-1], len(ids)) == (START, END, min(len(words), longest) + 2)
    assert not set(ids[1:-1]) & {PAD, START, END}
    assert vocabulary.decode(ids) == [w if w not in SPECIALS else "<unk>" for w in words[:longest]]
    assert set(Vocabulary([*SPECIALS, "dog"]).encode(words)[1:-1]) <= {UNKNOWN, 4}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats(allow_nan=True) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@settings(quick, max_examples=200)
@given(JSON | st.lists(TEXT, max_size=9) | st.binary(max_size=30))
def test_any_file_is_a_vocabulary_or_an_error(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "words.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    vocabulary = attempt("words.json", Vocabulary.read, path)
    if vocabulary is not None:
        assert vocabulary.words[:4] == list(SPECIALS)
        assert vocabulary.decode(vocabulary.encode(vocabulary.words[4:])) == vocabulary.words[4:]


KARPATHY = {
    "images": [
        {
            "filename": "a.jpg",
            "filepath": "in",
            "split": "train",
            "cocoid": 7,
            "sentences": [{"tokens": ["a"], "raw": "A"}],
        },
        {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "A dog."}, {"raw": "Two."}]},
    ]
}
COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 7, "width": 11},
        {"id": 2, "file_name": "b.jpg", "height": 7, "width": 11},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "caption": "A dog.", "category_id": 5, "segmentation": [[0, 0, 5, 0, 5, 5]]},
        {
            "id": 2,
            "image_id": 2,
            "caption": "Two.",
            "category_id": 5,
            "segmentation": {"counts": [7, 70], "size": [7, 11]},
        },
    ],
    "categories": [{"id": 5, "name": "dog"}],
}


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths to all values within a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


def replaced(value: Any, path: tuple, new: Any) -> Any:
    """A copy with the value at this path replaced."""
    if not path:
        return new
    parts = dict(value) if isinstance(value, dict) else list(value)
    parts[path[0]] = replaced(parts[path[0]], path[1:], new)
    return parts


@settings(quick, max_examples=300)
@given(st.sampled_from([KARPATHY, COCO]), st.data())
def test_any_annotation_file_is_read_or_an_error(tmp_path: Path, whole: Any, data: st.DataObject) -> None:
    path = tmp_path / "captions.json"
    content = replaced(whole, data.draw(st.sampled_from(places(whole))), data.draw(JSON))
    path.write_text(json.dumps(content))
    entries, stray = attempt("captions.json", read_entries, path) or ([], [])
    assert {fault.kind for fault in caption_faults(entries, stray)} <= KINDS.keys()
    for annotation in attempt("captions.json", read_annotations, path) or ():
        assert isinstance(annotation.id, str)
        assert all(words and clean_words(words) == words for words in annotation.captions)
        inside = Path(os.path.normpath(tmp_path / "images" / annotation.file))
        assert inside.is_relative_to(tmp_path / "images")
    things = attempt("captions.json", Instances, path)
    for image in ("1", "2"):
        if things is not None and things.find(image):
            masks = attempt("captions.json", things.masks, image) or {}
            assert all(mask.dtype == bool for mask in masks.values())


SIDES = st.integers(1, 3000)


@settings(quick, max_examples=400)
@given(
    st.tuples(SIDES, SIDES),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["crop", "pad", "squash"]),
)
def test_any_geometry_leads_there_and_back(original: tuple[int, int], size: tuple[int, int], fit: Any) -> None:
    geometry = attempt(f"{original[1]}×{original[0]}", fit_geometry, original, size, fit)
    if geometry is None:
        return
    points = np.array([(0, 0), original, (original[0] / 3, original[1] / 7)])
    np.testing.assert_allclose(geometry.to_original(geometry.to_input(points)), points, atol=1e-6 * max(original))
    top, left, bottom, right = geometry.visible()
    assert 0 <= top < bottom <= original[0]
    assert 0 <= left < right <= original[1]
    assert Geometry.from_array(geometry.to_array()) == geometry


@settings(quick, max_examples=100)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["crop", "pad", "squash"]),
)
def test_any_small_picture_is_fitted_and_its_map_comes_back(
    original: tuple[int, int], size: tuple[int, int], fit: Any
) -> None:
    image = Image.new("RGB", original[::-1], (1, 2, 3))
    try:
        fitted, geometry = fit_image(image, size, fit)
    except InputError:
        return
    assert fitted.size == size[::-1]
    spread = geometry.to_original_map(np.ones((3, 2)))
    assert spread.shape == original
    seen = spread[np.isfinite(spread)]
    np.testing.assert_allclose(seen, 1, rtol=1e-5)
    if fit != "crop":
        assert seen.size == spread.size


@settings(quick, max_examples=150)
@given(st.lists(TEXT | st.text(max_size=400), min_size=1, max_size=5))
def test_any_name_stays_in_its_folder(tmp_path: Path, texts: list[str]) -> None:
    names = safe_names(texts)
    assert len({name.casefold() for name in names}) == len(names)
    for text, name in zip(texts, names, strict=True):
        assert safe_name(safe_name(text)) == safe_name(text)
        path = tmp_path / f"{name}.png"
        assert path.parent == tmp_path
        assert not path.name.startswith(".")
        assert len(path.name.encode()) < 255
        path.touch()
        path.unlink()


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, tuple(sorted(name for name, _ in attrs))))


def pages(text: str) -> list[tuple]:
    picture = b"\x89PNG\r\n\x1a\n"
    panel = Panel(picture, f"x{text}", [f"x{text}"], badge=f"x{text}", alt=f"x{text}")
    table = [[f"x{text}", f"x{text}"], [f"x{text}", f"x{text}"]]
    html = page(f"x{text}", f"x{text}".replace("\n", " "), [Section(f"x{text}", "x", [panel], table)])
    html.encode("utf-8")
    return Elements(html).found


@settings(quick, max_examples=100)
@given(
    TEXT
    | st.sampled_from(["'\"><img src=x onerror=alert(1)>", "</script><script>", "&lt;script&gt;", "--><svg/onload=1>"])
)
def test_no_text_adds_an_element_to_a_page(text: str) -> None:
    assert pages(text) == pages("")


@settings(quick, max_examples=17)
@given(st.lists(TEXT, max_size=3), TEXT)
def test_any_words_can_be_drawn(words: list[str], title: str) -> None:
    maps = np.full((len(words), 2, 3), 1 / 6)
    figure = caption_sheet(np.zeros((7, 5, 3), np.uint8), words, maps, Geometry.identity((7, 5)), title=title)
    assert encode_figure(figure).startswith(b"\x89PNG")
