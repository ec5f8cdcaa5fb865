"""Lines of text on a figure: in any script, measured in pixels before they are drawn, and cut where they do not fit."""

import functools
import math
import unicodedata

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

DPI = 160

# DejaVu comes with matplotlib, so a sheet looks the same everywhere; the others lend what it has not, where installed.
_FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai", "Noto Sans Tamil", "Nirmala UI", "Leelawadee UI"),
    *("Noto Emoji", "Segoe UI Emoji", "Symbola", "FreeSans", "Unifont"),
)
_NO_GLYPH = "□"


@functools.cache
def _families() -> tuple[str, ...]:
    """The fonts of `_FONTS` that are installed."""
    installed = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in _FONTS if name in installed)


@functools.cache
def _drawable() -> frozenset[int]:
    """The code points that one of the installed fonts has a glyph for."""
    files = {font_manager.findfont(FontProperties(family=name)) for name in _families()}
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


@functools.lru_cache(maxsize=64)
def font(size: float) -> FontProperties:
    """The fonts, in the order in which they are asked for a glyph, at a size in points."""
    return FontProperties(family=list(_families()), size=size)


def clean(text: str) -> str:
    """One line of characters that can be drawn: matplotlib warns about every other one, each time the figure is drawn.

    Control and format characters are left out, among them those that turn the direction of writing; what no installed
    font can draw becomes an empty box.
    """
    out = []
    for character in unicodedata.normalize("NFC", " ".join(text.split())):
        kind = unicodedata.category(character)
        if ord(character) in _drawable() and kind not in ("Cc", "Cf"):
            out.append(character)
        elif kind not in ("Cc", "Cf", "Mn", "Me"):
            out.append(_NO_GLYPH)
    return "".join(out)


@functools.lru_cache(maxsize=1)
def _ruler() -> RendererAgg:
    return RendererAgg(8, 8, DPI)


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> int:
    """The width of one line of text, in pixels at DPI."""
    return math.ceil(_ruler().get_text_width_height_descent(clean(text), font(size), ismath=False)[0])


def line_height(size: float) -> int:
    """The height of a line of text, in pixels at DPI."""
    return round(size * DPI / 72 * 1.5)


def shorten(text: str, width: float, size: float) -> str:
    """The text where it fits into `width` pixels, else its beginning and "…"."""
    text = clean(text)[:400]
    if text_width(text, size) <= width:
        return text
    short, long = 0, len(text)  # the longest beginning that fits lies in [short, long)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if text_width(text[:middle].rstrip() + "…", size) <= width else (short, middle)
    return text[:short].rstrip() + "…"


def wrap(text: str, width: float, size: float, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, broken between words, or within one that is too long."""
    rest, out = clean(text), []
    while rest and len(out) < lines - 1 and text_width(rest[:400], size) > width:
        line = shorten(rest, width, size).removesuffix("…")
        if " " in line and rest[len(line) : len(line) + 1] not in ("", " "):
            line = line[: line.rindex(" ")]
        line = line or rest[0]
        out.append(line)
        rest = rest[len(line) :].lstrip()
    return [*out, shorten(rest, width, size)] if rest else out
