"""A self-contained HTML page of images and results: no network, fonts or other files."""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from visattn.overlay.document import document, escaped, picture_source

Tone = Literal["plain", "good", "bad"]


class Panel(NamedTuple):
    """One image of a page.

    Attributes:
        picture: the bytes of a PNG or JPEG file.
        heading: a short name above the text.
        lines: paragraphs below it.
        badge: a highlighted word or number, such as "CIDEr 1.2" or "wrong".
        tone: the badge's colour; the badge must be understandable without it.
        alt: alternative text; the heading by default.
        wide: use the full width, for a sheet of many maps.
        struck: indices of the heading's words to strike through, such as false words of a caption; badge or lines must
            say so too, for accessibility.
    """

    picture: bytes
    heading: str
    lines: Sequence[str] = ()
    badge: str | None = None
    tone: Tone = "plain"
    alt: str | None = None
    wide: bool = False
    struck: Collection[int] = ()


class Section(NamedTuple):
    """A part of a page: heading, text, a table of results and images, all but the heading optional.

    Attributes:
        heading: its name.
        text: paragraphs, separated by empty lines.
        panels: the images.
        table: rows of cells; the first row has the column names. Columns of numbers are right-aligned.
    """

    heading: str
    text: str = ""
    panels: Sequence[Panel] = ()
    table: Sequence[Sequence[str]] = ()


def page(title: str, intro: str, sections: Sequence[Section]) -> str:
    """Make a page.

    All text is escaped, and the page's content security policy forbids the browser to fetch or run anything outside the
    page.

    Args:
        title: of the page.
        intro: paragraphs below it, separated by empty lines.
        sections: its parts, in order; with three or more, the page begins with links to them.

    Returns:
        The HTML; write it with `visattn.files.write_text`.

    Raises:
        ValueError: for an image that is neither PNG nor JPEG.
    """
    links = "".join(f'<li><a href="#s{n}">{escaped(s.heading)}</a></li>' for n, s in enumerate(sections, 1))
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(sections) > 2 else ""
    body = f"""<header><h1>{escaped(title)}</h1>{_paragraphs(intro)}{contents}</header>
<main>
{"".join(_section(f"s{n}", section) for n, section in enumerate(sections, 1))}</main>
<dialog aria-label="Enlarged picture"><button type="button" autofocus aria-label="Close"><img alt=""></button></dialog>
"""
    return document(title, _STYLE, body, _SCRIPT)


def _section(name: str, section: Section) -> str:
    panels = "".join(_panel(panel) for panel in section.panels)
    return (
        f'<section id="{name}" aria-labelledby="{name}h"><h2 id="{name}h">{escaped(section.heading)}</h2>\n'
        + _paragraphs(section.text)
        + (_table(section.table) if section.table else "")
        + (f'<div class="panels">{panels}</div>' if panels else "")
        + "</section>\n"
    )


def _panel(panel: Panel) -> str:
    try:
        source = picture_source(panel.picture)
    except ValueError as error:
        raise ValueError(f"the picture of '{panel.heading}' is neither PNG nor JPEG") from error
    alt = panel.heading if panel.alt is None else panel.alt
    badge = f'<span class="badge {escaped(panel.tone)}">{escaped(panel.badge)}</span>' if panel.badge else ""
    lines = "".join(f"<p>{escaped(line)}</p>" for line in panel.lines)
    return (
        f"<figure{' class=wide' if panel.wide else ''}>"
        '<button type="button" class="zoom" title="Enlarge">'
        f'<img src="{source}" alt="{escaped(alt)}" loading="lazy"></button>'
        f"<figcaption><h3>{_heading(panel)}{badge}</h3>{lines}</figcaption></figure>\n"
    )


def _heading(panel: Panel) -> str:
    """The heading as one element, next to the badge."""
    if not panel.struck:
        return f"<span>{escaped(panel.heading)}</span>"
    parts = []
    for struck, words in groupby(enumerate(panel.heading.split(" ")), key=lambda word: word[0] in panel.struck):
        text = escaped(" ".join(word for _, word in words))
        parts.append(f"<s>{text}</s>" if struck else text)
    return f"<span>{' '.join(parts)}</span>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col"{_side(rows[1:], n)}>{escaped(cell)}</th>' for n, cell in enumerate(rows[0]))
    body = ""
    for row in rows[1:]:
        cells = (
            f'<th scope="row">{escaped(cell)}</th>' if n == 0 else f"<td{_side(rows[1:], n)}>{escaped(cell)}</td>"
            for n, cell in enumerate(row)
        )
        body += f"<tr>{''.join(cells)}</tr>\n"
    # It scrolls horizontally on narrow screens, so it must be focusable with the keyboard.
    return (
        '<div class="table" tabindex="0" role="group" aria-label="Results">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _side(rows: Sequence[Sequence[str]], column: int) -> str:
    """Right-align a column if all of its non-empty cells begin like a number."""
    cells = [str(row[column]).strip() for row in rows if column < len(row)]
    numbers = [cell.lstrip("<>≈±+-−. ")[:1].isdigit() for cell in cells if cell not in ("", "-", "–", "—")]
    return ' class="number"' if column and numbers and all(numbers) else ""


def _paragraphs(text: str) -> str:
    parts = [part.strip() for part in str(text).replace("\r\n", "\n").split("\n\n")]
    return "".join(f"<p>{escaped(part)}</p>" for part in parts if part)


_SCRIPT = """
const dialog = document.querySelector("dialog"), large = dialog.querySelector("img");
for (const button of document.querySelectorAll(".zoom")) button.addEventListener("click", () => {
  const small = button.querySelector("img");
  large.src = small.src; large.alt = small.alt;
  dialog.classList.toggle("crisp", small.naturalWidth < 150);
  dialog.classList.toggle("sheet", button.parentElement.classList.contains("wide"));
  dialog.showModal();
});
dialog.addEventListener("click", () => dialog.close());
for (const small of document.querySelectorAll(".zoom img")) {
  const mark = () => small.classList.toggle("crisp", small.naturalWidth < 150);
  small.complete ? mark() : small.addEventListener("load", mark);
}
"""

_STYLE = """
body { padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1rem, 4vw, 4rem) 5rem; }
header, main { max-width: 84rem; margin: 0 auto; }
p { margin: .75rem 0 0; max-width: 44rem; }
header > p { font-size: 1.075rem; color: var(--soft); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; margin: 1.5rem 0 0; padding: 0; }
section { margin-top: clamp(2.75rem, 6vw, 4.5rem); scroll-margin-top: 1.5rem; }
section > p { color: var(--soft); }
.panels {
  display: grid; gap: clamp(1.1rem, 2.2vw, 1.75rem); margin-top: 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
}
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
figure.wide { grid-column: 1 / -1; }
.zoom { display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in; }
.zoom img { display: block; width: 100%; height: auto; }
@media (min-width: 45rem) {
  figure:not(.wide) .zoom img { aspect-ratio: 1; object-fit: contain; background: var(--well); }
}
img.crisp, .crisp img { image-rendering: pixelated; }
figcaption { padding: .85rem 1.1rem 1.1rem; }
figcaption p { margin-top: .3rem; color: var(--soft); font-size: .925rem; line-height: 1.5; }
h3 s { font-weight: 450; color: var(--bad-ink); text-decoration-thickness: 1.5px; }
.badge {
  font-size: .8rem; font-weight: 550; line-height: 1.5; padding: .05rem .6rem; border-radius: 99px;
  background: var(--plain); color: var(--plain-ink);
}
.badge.good { background: var(--good); color: var(--good-ink); }
.badge.bad { background: var(--bad); color: var(--bad-ink); }
.table { margin-top: 1.5rem; overflow-x: auto; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .5rem 1.4rem .5rem 0; text-align: left; font-weight: 400; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
thead th { color: var(--soft); font-size: .85rem; vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
@media (max-width: 45rem) {
  th { white-space: normal; }
  th, td { padding-right: .8rem; }
}
.number { text-align: right; }
.zoom:focus-visible { outline-offset: -3px; outline-width: 3px; }
dialog { border: 0; padding: 0; margin: auto; max-width: 100vw; max-height: 100vh; background: none; }
dialog::backdrop { background: rgb(10 11 13 / .88); }
dialog button { display: block; padding: 0; border: 0; background: none; cursor: zoom-out; }
dialog img { display: block; height: 94vh; max-width: 96vw; object-fit: contain; }
dialog.sheet img { width: max(96vw, 70rem); height: auto; max-width: none; }
@media print { .panels { display: block; } figure { break-inside: avoid; margin-bottom: 1rem; } }
"""
