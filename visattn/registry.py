"""Registry of the user's own classes, which can then be used in checkpoints and exported folders.

Files never import anything: the user declares trusted classes with `visattn.register` in Python, or with `--import` on
the command line. This module does not import PyTorch until a class is registered.
"""

import importlib
import inspect
from typing import NamedTuple, TypeVar

from visattn.errors import InputError

Class = TypeVar("Class", bound=type)


class Role(NamedTuple):
    """A part of a model that may come from outside.

    Attributes:
        base: the base class, and its module.
        defines: the methods that a subclass must define.
        sizes: the constructor's arguments, in order; all others must have defaults.
    """

    base: tuple[str, str]
    defines: tuple[str, ...]
    sizes: tuple[str, ...]


ROLES = {
    "attention": Role(("visattn.attention", "SpatialAttention"), ("keys", "forward"), ("query_size", "value_size")),
    "score": Role(("visattn.attention", "Score"), ("keys", "forward"), ("query_size", "value_size")),
    "decoder": Role(
        ("visattn.models", "Decoder"), ("prepare", "init", "step", "forward"), ("vocabulary_size", "value_size")
    ),
    "encoder": Role(("visattn.models", "GridEncoder"), (), ()),
    "model": Role(("visattn.models", "VisionTransformer"), (), ("classes", "image_size")),
    "sensor": Role(("visattn.models", "Sensor"), ("forward",), ("image_size",)),
    "policy": Role(("visattn.models", "LocationPolicy"), ("forward",), ("state_size",)),
}
_registered: dict[str, dict[str, type]] = {role: {} for role in ROLES}


def register(cls: Class) -> Class:
    """Let checkpoints and exported folders name a class of yours; also a decorator.

    Args:
        cls: a subclass of `SpatialAttention`, `Score`, `Decoder`, `GridEncoder`, `VisionTransformer`, `Sensor` or
            `LocationPolicy`.

    Returns:
        The class itself.

    Raises:
        InputError: if it is none of these, lacks a method, or has a constructor with other required arguments.
    """
    role = role_of(cls)
    if role is None:
        bases = ", ".join(name for _, name in (known.base for known in ROLES.values()))
        name = getattr(cls, "__qualname__", cls)
        raise InputError(f"{name} cannot be registered: it must be a subclass of {bases}")
    _check(cls, role)
    _registered[role][path_of(cls)] = cls
    return cls


def registered(role: str) -> dict[str, type]:
    """The registered classes of a role, by their import paths."""
    return _registered.get(role, {})


def role_of(cls: object) -> str | None:
    """The role of a class, from its base classes; None if it has none."""
    if not inspect.isclass(cls):
        return None
    for role, known in ROLES.items():
        base = getattr(importlib.import_module(known.base[0]), known.base[1])
        if issubclass(cls, base) and cls is not base:
            return role
    return None


def path_of(cls: type) -> str:
    """The import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _check(cls: type, role: str) -> None:
    """Raise an `InputError` if a class violates the interface in a way that can be detected without running it."""
    module, name = ROLES[role].base
    base = getattr(importlib.import_module(module), name)
    missing = [method for method in ROLES[role].defines if getattr(cls, method) is getattr(base, method)]
    if missing:
        raise InputError(f"{path_of(cls)} does not define {' and '.join(missing)}, as every {name} must")
    sizes = ROLES[role].sizes
    try:
        inspect.signature(cls).bind(*sizes)
    except TypeError as error:
        given = " and ".join(sizes) or "no argument"
        raise InputError(
            f"the constructor of {path_of(cls)} must work with only {given} ({error}); give its other arguments "
            "default values"
        ) from error
