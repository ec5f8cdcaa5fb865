"""A caption word by word: an image for each, and an animation."""

import io
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from visattn.images import Geometry
from visattn.overlay.canvas import INK, LEGEND, MUTED, SMALL, Sheet, rasterise
from visattn.overlay.heatmap import as_shown, colour_strip
from visattn.overlay.maps import Drawn, check_words, draw_words, limits_of
from visattn.overlay.style import WORD_SIZE, Style
from visattn.overlay.text import line_height, reads_leftward, shorten, text_width

_LINE_SHARE = 1 / 330  # of an image's side, so that lines have the same relative width as on a panel

# Of the animation, in pixels at DPI.
_SIDE = 460  # square root of the image's area
_LEAST, _BORDER, _GAP = 360, 28, 20
_STRIP, _LEVELS = 120, 40  # width of the colour scale, and how many colours it has
_SPACE, _WORD = 12, WORD_SIZE + 1.5  # gap between words, and their font size in points
_MARK, _MARK_GROWTH = "#ffd97a", 5  # background of the current word

_SPREAD = Image.Dither.FLOYDSTEINBERG

# In milliseconds: long words are shown longer, and the first and last frames, too.
_OPENING, _CLOSING = 1400, 1200
_BASE, _PER_LETTER, _LONGEST = 520, 45, 1100


def word_pictures(
    image: np.ndarray,
    maps: np.ndarray,
    geometry: Geometry,
    *,
    drawn: Sequence[int | None] | None = None,
    style: Style = Style(),
) -> Iterator[np.ndarray]:
    """The original image with the map of each word, at full resolution and without text; lazily.

    Arguments and errors are those of `caption_sheet`.

    Yields:
        (H, W, 3) uint8, for each of the T maps.
    """
    check_words(image, range(len(maps)), maps, geometry, drawn=drawn)
    return (_pixels(word) for word in draw_words(image, maps, geometry, style, drawn))


def _pixels(word: Drawn) -> np.ndarray:
    if word.box is None and not any(word.contours):
        return word.pixels
    height, width = word.pixels.shape[:2]
    sheet = Sheet(width, height)
    word.put(sheet, 0, 0, points=max(0.7, math.sqrt(height * width) * _LINE_SHARE))
    return rasterise(sheet.figure)


def caption_gif(
    image: np.ndarray,
    words: Sequence[str],
    maps: np.ndarray,
    geometry: Geometry,
    *,
    drawn: Sequence[int | None] | None = None,
    meaning: str = "α",
    style: Style = Style(),
) -> bytes:
    """A GIF of a caption, word by word: first the image and the caption, then each word, marked, with its map.

    It loops forever. Captions in right-to-left scripts are laid out from right to left. Arguments and errors are those
    of `caption_sheet`.

    Returns:
        The file's bytes: 1 + T frames. Long words are shown longer.
    """
    check_words(image, words, maps, geometry, drawn=drawn)
    picture, shown = as_shown(image, geometry, _SIDE)
    layout = _Layout.of(words, picture)
    high = limits_of(style, maps)[1]
    frames = [_frame(layout, Drawn(picture), None, style, meaning, "" if style.scale == "own" else f"{high:.3g}")]
    for t, word in enumerate(draw_words(picture, maps, shown, style, drawn)):
        end = f"{maps[t].max():.3g}, own scale" if style.scale == "own" else f"{high:.3g}"
        frames.append(_frame(layout, word, t, style, meaning, end))
    durations = [_OPENING, *(min(_BASE + _PER_LETTER * len(word), _LONGEST) for word in words)]
    durations[-1] += _CLOSING
    return animation(frames, durations, [layout.smooth], colour_strip(_LEVELS, style.colour_map, style.opacity)[0])


class _Layout(NamedTuple):
    """Positions in the animation, in pixels.

    Attributes:
        size: (height, width) of the frame.
        picture: (left, top) of the image.
        words: (text, left, middle) of each.
        legend: top of the legend.
        smooth: (left, top, right, bottom) of the image.
    """

    size: tuple[int, int]
    picture: tuple[int, int]
    words: list[tuple[str, int, int]]
    legend: int
    smooth: tuple[int, int, int, int]

    @classmethod
    def of(cls, words: Sequence[str], picture: np.ndarray) -> "_Layout":
        """Lay out the words in lines below the image, in the direction of their script."""
        height, width = picture.shape[:2]
        inner = max(width, _LEAST)
        left = _BORDER + (inner - width) // 2
        leftward = reads_leftward(" ".join(words))
        pitch = round(line_height(_WORD) * 1.12)
        placed, across, middle = [], 0, _BORDER + height + _GAP + pitch // 2
        for word in words:
            text = shorten(word, inner, _WORD) if word.strip() else "(empty)"
            long = text_width(text, _WORD)
            if across and across + long > inner:
                across, middle = 0, middle + pitch
            start = inner - across - long if leftward else across
            placed.append((text, _BORDER + start, middle))
            across += long + _SPACE
        legend = middle + pitch // 2 + 6
        size = legend + LEGEND + _BORDER - 14, inner + 2 * _BORDER
        smooth = left, _BORDER, left + width, _BORDER + height
        return cls(size, (left, _BORDER), placed, legend, smooth)


def _frame(layout: _Layout, word: Drawn, spoken: int | None, style: Style, meaning: str, end: str) -> np.ndarray:
    """One frame, with the word `spoken` marked; None for the first frame."""
    height, width = layout.size
    sheet = Sheet(width, height)
    word.put(sheet, *layout.picture)
    for t, (text, left, middle) in enumerate(layout.words):
        if t == spoken:
            tall = line_height(_WORD)
            sheet.rectangle(
                *(left - _MARK_GROWTH, middle - tall // 2 - 1, text_width(text, _WORD) + 2 * _MARK_GROWTH, tall), _MARK
            )
        sheet.text(left, middle, text, _WORD, INK if spoken is None or t == spoken else MUTED)
    if end:
        strip = colour_strip(_LEVELS, style.colour_map, style.opacity)
        strip = strip.repeat(12, axis=0).repeat(_STRIP // _LEVELS, axis=1)
        room = width - 2 * _BORDER - _STRIP - 52 - round(text_width(meaning, SMALL))
        if text_width(end, SMALL) > room:
            end = end.partition(",")[0]
        sheet.legend(_BORDER, layout.legend, [[[meaning, "0", strip, shorten(end, room, SMALL)]]])
    return rasterise(sheet.figure)


def _page_colours() -> np.ndarray:
    """(n, 3) uint8: colours of page, text and mark, and blends of text and background for antialiasing."""
    page, ink, muted, mark = (np.array(to_rgb(colour)) * 255 for colour in ("white", INK, MUTED, _MARK))
    steps = np.linspace(0, 1, 8)[:, None]
    ramps = [ground + steps * (ink_ - ground) for ground, ink_ in ((page, ink), (page, muted), (mark, ink))]
    return np.unique(np.round(np.concatenate(ramps)).astype(np.uint8), axis=0)


def _found(frame: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels (H, W) have one of these colours (n, 3), sorted, and its number."""
    pixels, keys = (part.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for part in (frame, colours))
    number = np.searchsorted(keys, pixels).clip(max=len(keys) - 1)
    return keys[number] == pixels, number


def animation(
    frames: list[np.ndarray],
    durations: list[int],
    smooth: Sequence[tuple[int, int, int, int]],
    fixed: np.ndarray | None = None,
) -> bytes:
    """Encode frames as a GIF, each with its own palette of 256 colours, including those of the page.

    Args:
        frames: (H, W, 3) uint8, at least one.
        durations: of each, in milliseconds.
        smooth: boxes (left, top, right, bottom) in which colours are dithered (Floyd and Steinberg 1976), so that the
            maps' gradients show no banding; the first decides the palettes.
        fixed: (n, 3) uint8, colours that are exact in every frame, so that a colour scale does not flicker.

    Returns:
        The file's bytes.
    """
    own = np.unique(np.concatenate([_page_colours(), *([] if fixed is None else [fixed])]), axis=0)
    encoded = []
    for frame in frames:
        image = Image.fromarray(frame)
        few = image.crop(smooth[0]).reduce(2).quantize(256 - len(own), Image.Quantize.MEDIANCUT)
        colours = [*few.getpalette()[: 3 * (256 - len(own))], *own.ravel().tolist()]
        palette = Image.new("P", (1, 1))
        palette.putpalette(colours)
        out = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
        for left, top, right, bottom in smooth:
            part = image.crop((left, top, right, bottom)).quantize(palette=palette, dither=_SPREAD)
            out[top:bottom, left:right] = part
        exact, number = _found(frame, own)  # Pillow's nearest colour is approximate
        out[exact] = len(colours) // 3 - len(own) + number[exact]
        out = Image.fromarray(out)
        out.putpalette(colours)
        encoded.append(out)
    stream = io.BytesIO()
    encoded[0].save(
        stream, format="gif", save_all=True, append_images=encoded[1:], duration=durations, loop=0, optimize=False
    )
    return stream.getvalue()
