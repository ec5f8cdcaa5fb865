"""Annotated source: nothing of a file is lost, and prose stands beside its own code."""

import ast
import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
_spec = importlib.util.spec_from_file_location("annotated", DOCS / "annotated.py")
annotated = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(annotated)

PATHS = [path for _, path in annotated.FILES.values()]


def bare(source):
    """The syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@pytest.mark.parametrize("path", PATHS)
def test_prose_and_code_are_the_whole_file(path):
    source = (DOCS.parent / "visattn" / path).read_text(encoding="utf-8")
    found = annotated.sections(source)
    text = "\n\n".join(section.code for section in found)
    for node in ast.walk(ast.parse(source)):  # bodies that were a docstring alone
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and len(node.body) == 1 and ast.get_docstring(node):
            head = source.splitlines()[node.body[0].lineno - 2]
            text = text.replace(head, f"{head} ...", 1)
    assert bare(text).replace("Expr(value=Constant(value=Ellipsis))", "") == bare(source)
    documented = [
        ast.get_docstring(node)
        for node in ast.walk(ast.parse(source))
        if hasattr(node, "body")
        and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node)
    ]
    assert set(documented) <= {section.prose for section in found}
    assert "#" not in "".join(section.prose for section in found)


def test_a_docstring_stands_beside_its_function_and_a_comment_beside_its_line():
    source = '"""Whole."""\n\nimport os\n\n\nclass A:\n    """Of A."""\n\n    x = 1\n\n    @property\n'
    source += '    def f(self):\n        """Of f.\n\n        Args:\n            a: of f.\n        """\n'
    source += (
        "        # Said of y,\n        # at length.\n        y = 2  # kept\n        return y\n\n    def g(self): ...\n"
    )
    assert annotated.sections(source) == [
        ("Whole.", "import os", ""),
        ("Of A.", "class A:\n    x = 1", "A"),
        ("Of f.\n\nArgs:\n    a: of f.", "    @property\n    def f(self):", "A.f"),
        ("Said of y, at length.", "        y = 2  # kept\n        return y\n\n    def g(self): ...", ""),
    ]


def test_docstrings_become_markdown():
    prose = "One <b> line.\n\nArgs:\n    a: first,\n        continued.\n    *b: second.\n\nAfter that."
    assert annotated.markdown(prose).split("\n") == [
        *(
            "One &lt;b> line.",
            "",
            "",
            "**Args**",
            "",
            "- `a`: first,",
            "  continued.",
            "- `*b`: second.",
            "",
            "After that.",
        )
    ]


def test_the_navigation_has_every_page():
    written = (DOCS.parent / ".mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in annotated.FILES if f"{annotated.FILES[name][0]}: {name}" not in written] == []
