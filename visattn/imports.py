"""`--import MODULE|FILE`: loads the user's own mechanisms, decoders, encoders and data sets."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from visattn.errors import InputError
from visattn.registry import ROLES, register, role_of

_DATA = ("visattn.data.CaptionData", "visattn.data.ClassificationData")


def take_imports(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the values of `--import` and the other arguments.

    Raises:
        InputError: if the last word is a bare `--import`.
    """
    named, others = [], []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option != "--import":
            others.append(word)
        elif equals:
            named.append(value)
        elif (following := next(left, None)) is not None:
            named.append(following)
        else:
            raise InputError("--import is empty; give a Python file or a module")
    return named, others


def import_classes(name: str) -> list[type]:
    """Import a user's module, and register the classes in it that can be parts of a model; data sets need not be.

    Args:
        name: a file ending in `.py`, which is imported under its stem, or a dotted module name, which is also searched
            in the current folder.

    Returns:
        The registered classes.

    Raises:
        InputError: if there is no such module, it fails to import, or has no class that can be registered.
    """
    module = _of_file(Path(name)) if name.endswith(".py") or os.sep in name else _of_name(name)
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    found = [register(cls) for cls in classes if not cls.__module__.startswith("visattn.") and role_of(cls)]
    if not found and not any(_is_data(cls) for cls in classes):
        bases = ", ".join([*(f"{base[0]}.{base[1]}" for base, *_ in ROLES.values()), *_DATA])
        raise InputError(f"--import {name} has no class that visattn can use; it must define a subclass of {bases}")
    return found


def _is_data(cls: type) -> bool:
    """Whether a class is a user's data set; by the names of its bases, so that Lightning is not imported for it."""
    own = not cls.__module__.startswith("visattn.")
    bases = (f"{base.__module__.partition('.data.')[0]}.data.{base.__name__}" for base in cls.__mro__)
    return own and any(base in _DATA for base in bases)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"--import {path}: no such file")
    path, name = path.resolve(), path.stem
    if not name.isidentifier():
        raise InputError(f"--import {path}: a module cannot be called {name!r}; rename the file")
    known = sys.modules.get(name)
    if known is not None:
        if (file := getattr(known, "__file__", None)) and Path(file).resolve() == path:
            return known
        raise InputError(f"--import {path}: another module is called {name!r}; rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--import {path} is no Python file; its name must end in .py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's module raises
        del sys.modules[name]
        raise InputError(f"--import {path} fails: {_reason(error)}") from error
    return module


def _of_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"--import {name} is neither a Python file nor the name of a module")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:  # as `python -m` has it
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(f"--import {name}: there is no module {error.name}; give the path of its file") from error
        raise InputError(f"--import {name} fails: {_reason(error)}") from error
    except Exception as error:
        raise InputError(f"--import {name} fails: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The error, with its file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"
