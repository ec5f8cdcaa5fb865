"""Lines of text in figures: any script, measured in pixels before drawing, and truncated if too long."""

import functools
import logging
import math
import unicodedata

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

log = logging.getLogger(__name__)

DPI = 160

# DejaVu comes with matplotlib, so sheets look the same everywhere; the others, if installed, add missing glyphs.
_FONTS = (
    "DejaVu Sans",  # Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian and many symbols
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Noto Sans Mono CJK SC", "Noto Serif CJK SC", "Noto Serif CJK JP", "IPAexGothic", "IPAGothic", "TakaoGothic"),
    *("VL Gothic", "Droid Sans Fallback", "WenQuanYi Zen Hei", "AR PL UMing CN", "NanumGothic", "UnDotum"),
    *("Hiragino Kaku Gothic ProN", "Heiti TC", "SimHei", "SimSun", "MS Gothic", "Meiryo", "Tahoma", "Loma", "Garuda"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Gujarati"),
    *("Noto Sans Gurmukhi", "Noto Sans Kannada", "Noto Sans Malayalam", "Noto Sans Sinhala", "Noto Sans Thai"),
    *("Noto Sans Lao", "Noto Sans Khmer", "Noto Sans Myanmar", "Noto Sans Ethiopic", "Noto Sans Arabic"),
    *("Noto Serif Tibetan", "Nirmala UI", "Leelawadee UI", "Kohinoor Devanagari", "Thonburi"),
    *("Noto Emoji", "Segoe UI Emoji", "Symbola", "Noto Sans Symbols 2", "Noto Sans Symbols", "FreeSans", "Unifont"),
)
_NO_GLYPH = "□"
_JOINERS = "\u200c\u200d"  # needed in some words of Persian and Indian scripts


@functools.cache
def _families() -> tuple[str, ...]:
    """The installed fonts of `_FONTS`, including those installed after matplotlib built its font cache."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known:
            try:
                font_manager.fontManager.addfont(file)
            except (OSError, RuntimeError, ValueError):  # not readable by FreeType
                continue
    installed = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in _FONTS if name in installed)


@functools.cache
def _drawable() -> frozenset[int]:
    """The code points with a glyph in an installed font."""
    files = {font_manager.findfont(FontProperties(family=name)) for name in _families()}
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


@functools.lru_cache(maxsize=64)
def font(size: float) -> FontProperties:
    """The fonts, in fallback order, at a size in points."""
    return FontProperties(family=list(_families()), size=size)


def clean(text: str) -> str:
    """One line of characters that can be drawn; matplotlib would warn about others at each drawing.

    Control and format characters are removed, including those that change the writing direction, except joiners within
    a word. Characters without a glyph become an empty box; the first of them is logged.
    """
    out = []
    text = " ".join(text.split())
    for n, character in enumerate(text):
        kind = unicodedata.category(character)
        if ord(character) in _drawable() and kind not in ("Cc", "Cf"):
            out.append(character)
        elif character in _JOINERS and ord(character) in _drawable():
            beside = text[max(n - 1, 0) : n] + text[n + 1 : n + 2]
            if len(beside) == 2 and all(unicodedata.category(other)[0] in "LM" for other in beside):
                out.append(character)
        elif kind not in ("Cc", "Cf", "Mn", "Me"):
            out.append(_NO_GLYPH)
            if not _missing:
                _missing.append(character)
                name = unicodedata.name(character, "a character without a name")
                log.warning(
                    "no installed font can draw U+%04X (%s): such characters are shown as %s; install the Noto fonts",
                    *(ord(character), name.lower(), _NO_GLYPH),
                )
    return "".join(out)


_missing: list[str] = []  # the first character without a glyph, so that only one warning is logged


def reads_leftward(text: str) -> bool:
    """Whether a text runs from right to left, according to its first letter with a direction (Unicode's rule P2)."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((found != "L" for found in directions if found in ("L", "R", "AL")), False)


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
    """The text, truncated with "…" if it is wider than `width` pixels."""
    text = clean(text)[:400]
    if text_width(text, size) <= width:
        return text
    short, long = 0, len(text)  # the length of the longest prefix that fits is in [short, long)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if text_width(text[:middle].rstrip() + "…", size) <= width else (short, middle)
    return text[:short].rstrip() + "…"


def wrap(text: str, width: float, size: float, lines: int) -> list[str]:
    """Wrap text into at most `lines` lines of `width` pixels, at spaces, or within words that are too long."""
    rest, out = clean(text), []
    while rest and len(out) < lines - 1 and text_width(rest[:400], size) > width:
        line = shorten(rest, width, size).removesuffix("…")
        if " " in line and rest[len(line) : len(line) + 1] not in ("", " "):
            line = line[: line.rindex(" ")]
        line = line or rest[0]
        out.append(line)
        rest = rest[len(line) :].lstrip()
    return [*out, shorten(rest, width, size)] if rest else out
