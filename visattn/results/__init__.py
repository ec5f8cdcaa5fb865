"""Writing and reading result folders of captioners and classifiers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visattn.results.captions import CaptionExport, CaptionWriter
    from visattn.results.classes import ClassExport, ClassWriter, Wall
    from visattn.results.reading import Listed, files_of, list_results

_MODULES = {
    "CaptionExport": "captions",
    "CaptionWriter": "captions",
    "ClassExport": "classes",
    "ClassWriter": "classes",
    "Wall": "classes",
    "Listed": "reading",
    "files_of": "reading",
    "list_results": "reading",
}

__all__ = [
    "CaptionExport",
    "CaptionWriter",
    "ClassExport",
    "ClassWriter",
    "Listed",
    "Wall",
    "files_of",
    "list_results",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
