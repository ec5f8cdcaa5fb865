"""Pages of annotated source: the prose of docstrings and comments beside the code that it is about.

A hook of mkdocs (`.mkdocs.yml`), which adds a page to the site for each of `FILES`. `sections` cuts a file; nothing of
it is left out, and nothing is written anew.
"""

import ast
import html
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

FILES = {
    "source/contract.md": ("The contract", "attention/contract.py"),
    "source/scores.md": ("Scores", "attention/scores.py"),
    "source/soft.md": ("Soft attention", "attention/soft.py"),
    "source/sentinel.md": ("Sentinel and whole", "attention/sentinel.py"),
    "source/hard.md": ("Hard attention", "attention/hard.py"),
    "source/local.md": ("Local attention", "attention/local.py"),
    "source/multihead.md": ("Multi-head attention", "attention/multihead.py"),
    "source/lstm_decoder.md": ("Recurrent decoders", "models/lstm_decoder.py"),
    "source/transformer_decoder.md": ("The Transformer decoder", "models/transformer_decoder.py"),
    "source/vit.md": ("The Vision Transformer", "models/vit.py"),
    "source/reinforce.md": ("REINFORCE", "training/objectives/reinforce.py"),
}

_HEADS = ("Args", "Attributes", "Returns", "Raises", "Yields")
_ENTRY = re.compile(r"(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (.*)")


class Section(NamedTuple):
    """A piece of a file.

    Attributes:
        prose: of its docstring or comment, without quotes and "#".
        code: the lines that it is about, with their indentation.
        name: of the class or function that begins here; "" for other pieces.
    """

    prose: str
    code: str
    name: str = ""


def sections(source: str) -> list[Section]:
    """Cut a file at its docstrings and whole-line comments; what has neither stays with what is above it."""
    lines = source.splitlines()
    begun: dict[int, tuple[str, str]] = {}  # prose and name by the first line of a section, from 1
    dropped: set[int] = set()  # lines that are prose
    for name, node in _documented(ast.parse(source)):
        decorators = [part.lineno for part in getattr(node, "decorator_list", [])]
        begun[min([getattr(node, "lineno", 1), *decorators])] = ast.get_docstring(node) or "", name
        first, last = node.body[0].lineno, node.body[0].end_lineno or 0
        dropped |= set(range(first, last + 1 if last == len(lines) or lines[last].strip() else last + 2))
    for first, comment, taken in _comments(source):
        if first not in begun:  # a comment may open a class or function that has a docstring, too
            begun[first] = comment, ""
            dropped |= taken
    starts = sorted(begun)
    out = []
    for first, after in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        code = "\n".join(lines[n - 1] for n in range(first, after) if n not in dropped)
        out.append(Section(begun[first][0], code.strip("\n"), begun[first][1]))
    return out


def _documented(node: ast.AST, within: str = "") -> Iterator[tuple[str, Any]]:
    """The module, classes and functions with a docstring, with their qualified names."""
    name = within
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        name = f"{within}.{getattr(node, 'name', '')}".strip(".")
        if ast.get_docstring(node) is not None:
            yield name, node
    for part in ast.iter_child_nodes(node):
        yield from _documented(part, name)


def _comments(source: str) -> Iterator[tuple[int, str, set[int]]]:
    """Runs of whole-line comments: the first line, the text, and all lines."""
    found = [
        (token.start[0], token.string.removeprefix("#").strip())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    ]
    while found:
        count = next((n for n in range(1, len(found)) if found[n][0] != found[0][0] + n), len(found))
        run, found = found[:count], found[count:]
        yield run[0][0], " ".join(text for _, text in run), {number for number, _ in run}


def markdown(prose: str) -> str:
    """A docstring of Google's style as Markdown: sections as bold words, their entries as lists."""
    out, inside = [], False
    for line in prose.splitlines():
        head = line.rstrip().removesuffix(":")
        if line.rstrip().endswith(":") and head in _HEADS:
            out += ["", f"**{head}**", ""]
            inside = True
        elif inside and line.startswith("    ") and not line.startswith("     "):
            entry = _ENTRY.fullmatch(line.strip())
            out.append(f"- `{entry[1]}`: {entry[2]}" if entry else f"- {line.strip()}")
        elif inside and line.startswith("     "):
            out.append(f"  {line.strip()}")
        else:
            inside = inside and not line.strip()
            out.append(line)
    return html.escape("\n".join(out), quote=False).replace("&gt;", ">")


def page(title: str, path: str) -> str:
    """The page of a file in `visattn/`, as Markdown."""
    parts = ["---", "hide: [toc]", "---", "", f"# {title}", "", f"`visattn/{path}`", ""]
    for section in sections((ROOT / "visattn" / path).read_text(encoding="utf-8")):
        prose, code = markdown(section.prose), section.code
        anchor = f' id="{section.name}"' if section.name else ""
        parts += [f'<div class="annotated"{anchor} markdown>', '<div class="prose" markdown>', "", prose, "", "</div>"]
        parts += ['<div class="code" markdown>', "", *(["```python", code, "```"] if code.strip() else []), ""]
        parts += ["</div>", "</div>", ""]
    return "\n".join(parts)


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":  # noqa: F821 - mkdocs is there when it calls this
    """Add the pages."""
    from mkdocs.structure.files import File

    for name, (title, path) in FILES.items():
        files.append(File.generated(config, name, content=page(title, path)))
    return files
