"""Imports point one way: a package imports only packages of earlier layers."""

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "visattn"

# From the lowest layer to the highest; packages of the same layer do not import each other.
LAYERS = [
    {"errors", "fast", "processes"},
    {"files", "vocabulary", "attention", "precision", "devices"},
    {"images"},
    {"models", "metrics", "overlay"},
    {"data", "registry", "testing"},
    {"decoding", "objectives", "optimization", "evaluation", "explain"},
    {"regimes", "export", "results", "imports"},
    {"captioner", "classifier", "benchmarks"},
    {"checkpoints", "callbacks"},
    {"runs", "studies"},
    {"tasks"},
    {"cli"},
    {"__main__"},
]
LAYER = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imports(path):
    """The packages of visattn that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "visattn":  # from visattn import a_package
            names += [f"visattn.{alias.name}" for alias in node.names if alias.name != "__version__"]
        for name in names:
            if name.startswith("visattn."):
                yield name.split(".")[1]


def package_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def files():
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def test_every_package_has_a_layer():
    assert {package_of(path) for path in files()} == set(LAYER)


def test_imports_are_from_earlier_layers_only():
    for path in files():
        package = package_of(path)
        for imported in imports(path):
            assert imported == package or LAYER[imported] < LAYER[package], f"{path} imports {imported}"


def test_models_do_not_import_lightning_and_attention_imports_only_torch():
    for path in files():
        tree = ast.parse(path.read_text())
        outside = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        outside |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        known = {"attention": {"attention", "errors", "fast"}, "fast": {"fast"}}.get(package_of(path))
        if known:
            assert outside <= {"torch", "visattn", *sys.stdlib_module_names}, path
            assert set(imports(path)) <= known, path
        if package_of(path) in (
            "models",
            "metrics",
            "overlay",
            "explain",
            "images",
            "decoding",
            "objectives",
            "export",
        ):
            assert "lightning" not in outside, path


def test_decoding_never_waits_for_other_processes():
    """Captions end at different steps in each process, so a collective operation in the loop would hang."""
    for path in files():
        if package_of(path) in ("attention", "models", "decoding", "metrics"):
            assert "processes" not in imports(path), path
            assert not re.search(r"^(import|from) .*\bdistributed\b", path.read_text(), re.MULTILINE), path


def test_there_are_no_import_cycles():
    graph = {}
    for path in files():
        name = ".".join(["visattn", *path.relative_to(PACKAGE).with_suffix("").parts])
        graph[name] = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module and path.name != "__init__.py"
        }
    done, doing = set(), set()

    def visit(name):
        assert name not in doing, f"{name} is part of an import cycle"
        if name in done:
            return
        doing.add(name)
        for other in graph[name] & set(graph):
            visit(other)
        doing.discard(name)
        done.add(name)

    for name in graph:
        visit(name)
