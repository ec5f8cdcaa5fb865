"""Imports point one way: a package imports those of the layers above it, never those below."""

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "visattn"

# From what imports nothing to what imports everything; packages of one line do not import each other.
LAYERS = [
    {"errors", "fast", "training.processes"},
    {"files", "vocabulary", "attention", "precision", "devices", "studies.markdown"},
    {"images"},
    {"models", "metrics", "overlay"},
    {"figures"},
    {"data", "registry", "testing"},
    {"decoding", "training.objectives", "training.optimization", "training.mixing", "training.evaluation", "explain"},
    {"training.regimes", "export", "results", "imports"},
    {"training.captioner", "training.classifier", "studies.benchmarks", "explain_page"},
    {"training.glimpses"},
    {"training.checkpoints", "training.callbacks"},
    {"training.runs", "studies"},
    {"tasks"},
    {"cli"},
    {"__main__"},
]
LAYER = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def package_of(parts):
    """The package that a dotted name below visattn belongs to; those in `training` count separately."""
    first, second = parts[0], ".".join(parts[:2])
    return second if first == "training" or second in LAYER else first


def imports(path):
    """The packages of visattn that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module in ("visattn", "visattn.training"):
            names = [f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
        for name in names:
            if name.startswith("visattn."):
                yield package_of(name.split(".")[1:])


def package_of_file(path):
    return package_of(path.relative_to(PACKAGE).with_suffix("").parts)


def files():
    return [
        p for p in PACKAGE.rglob("*.py") if p not in (PACKAGE / "__init__.py", PACKAGE / "training" / "__init__.py")
    ]


def test_every_package_has_its_layer():
    assert {package_of_file(path) for path in files()} == set(LAYER)


def test_imports_point_one_way():
    for path in files():
        package = package_of_file(path)
        for imported in imports(path):
            assert imported == package or LAYER[imported] < LAYER[package], f"{path} imports {imported}"


def test_models_do_not_import_lightning_and_attention_imports_only_torch():
    for path in files():
        tree = ast.parse(path.read_text())
        outside = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        outside |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        known = {"attention": {"attention", "errors", "fast"}, "fast": {"fast"}}.get(package_of_file(path))
        if known:
            arrays = {"torch"} if "attention" in known else {"torch", "numpy"}
            assert outside <= {"visattn", *arrays, *sys.stdlib_module_names}, path
            assert set(imports(path)) <= known, path
        if package_of_file(path) in (
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
        if package_of_file(path) in ("attention", "models", "decoding", "metrics"):
            assert "training.processes" not in imports(path), path
            assert not re.search(r"^(import|from) .*\bdistributed\b", path.read_text(), re.MULTILINE), path


def test_within_a_package_there_is_no_circle():
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
