"""Model parts as plain values, and back.

A blueprint is nested `class_path` and `init_args`, as in command-line configurations. Nothing is imported because
a file names it: class paths are looked up among the classes listed here and those registered by the user
(`visattn.register`), and arguments are numbers and strings.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import timm

from visattn.attention import (
    AdditiveScore,
    DotScore,
    EntmaxAttention,
    FinalStateAttention,
    GeneralScore,
    HardAttention,
    LocationScore,
    MeanAttention,
    MonotonicLocalAttention,
    MultiHeadAttention,
    PredictiveLocalAttention,
    ScaledDotScore,
    SentinelAttention,
    SigmoidAttention,
    SoftAttention,
    SparsemaxAttention,
    WholeAttention,
)
from visattn.decoding import BeamSearch, Greedy, Sampling
from visattn.errors import InputError
from visattn.models import (
    CentrePolicy,
    ContextNetwork,
    ConvolutionalStem,
    Encoder,
    Ensemble,
    GaussianPolicy,
    GlimpseModel,
    GlimpseNetwork,
    GridPolicy,
    LSTMDecoder,
    LuongDecoder,
    PatchEmbedding,
    RandomPolicy,
    Retina,
    TransformerDecoder,
    VisionTransformer,
)
from visattn.registry import path_of, registered

Blueprint = dict[str, Any]  # {"class_path": str, "init_args": {name: a plain value, or a Blueprint}}

CLASSES: dict[str, tuple[type, ...]] = {
    "encoder": (Encoder,),
    "decoder": (LSTMDecoder, LuongDecoder, TransformerDecoder, Ensemble),
    "attention": (
        SoftAttention,
        SparsemaxAttention,
        EntmaxAttention,
        SentinelAttention,
        WholeAttention,
        SigmoidAttention,
        MeanAttention,
        FinalStateAttention,
        HardAttention,
        MonotonicLocalAttention,
        PredictiveLocalAttention,
        MultiHeadAttention,
    ),
    "score": (AdditiveScore, DotScore, ScaledDotScore, GeneralScore, LocationScore),
    "model": (VisionTransformer, GlimpseModel),
    "embed": (PatchEmbedding, ConvolutionalStem),
    "sensor": (Retina,),
    "policy": (GaussianPolicy, GridPolicy, RandomPolicy, CentrePolicy),
    "glimpse": (GlimpseNetwork,),
    "context": (ContextNetwork,),
    "search": (Greedy, Sampling, BeamSearch),
}
"""The allowed classes of each part; a part is identified by the name of its argument."""

_LISTS = {"members": "decoder"}  # arguments that are lists of parts, and which
# Arguments that are not exported: they concern training only, or (mean and std) are stored separately.
_LEFT_OUT = {
    "encoder": frozenset({"weights", "train_from", "keep_statistics", "mean", "std"}),
    "attention": frozenset({"relaxation", "soft_start"}),
}
# Arguments of `timm.create_model` itself, some of which load files; a network's own arguments are allowed.
_FETCHING = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}


def describe(role: str, configuration: Blueprint) -> Blueprint:
    """The blueprint of a part, from its configuration in a checkpoint's hyperparameters.

    Raises:
        InputError: if a class is neither visattn's nor registered.
    """
    cls = _find(role, configuration.get("class_path"))
    arguments = {
        name: _described(name, value)
        for name, value in (configuration.get("init_args") or {}).items()
        if name not in _LEFT_OUT.get(role, ())
    }
    own = path_of(cls) in registered(role)
    path = path_of(cls) if own else f"{'.'.join(cls.__module__.split('.')[:2])}.{cls.__name__}"
    blueprint = {"class_path": path, "init_args": arguments}
    read(role, blueprint)
    return blueprint


def read(role: str, blueprint: Any) -> Callable[..., Any]:
    """A factory of the part, which takes the remaining arguments, such as sizes.

    Raises:
        InputError: if there is no such class, or it has no such argument, or a value is not plain.
    """
    if not _is_part(blueprint) or blueprint.keys() - {"class_path", "init_args"}:
        raise InputError(f"its {role} must be an object with class_path and init_args")
    cls, arguments = _find(role, blueprint["class_path"]), blueprint.get("init_args", {})
    if not isinstance(arguments, dict):
        raise InputError(f"the init_args of its {role} must be an object")
    left_out = _LEFT_OUT.get(role, frozenset())
    known = {n: p for n, p in inspect.signature(cls).parameters.items() if n not in left_out}
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            raise InputError(f"its {role} has an argument {name!r}, which {cls.__name__} does not take")
        if name in CLASSES and not (value is None and known[name].default is None):  # an optional part may be missing
            made[name] = read(name, value)
        elif name in _LISTS and _are_parts(value):
            made[name] = [read(_LISTS[name], each) for each in value]
        elif role == "encoder" and name == "options":
            made[name] = _options(value)
        elif _is_plain(value):
            made[name] = value
        else:
            raise InputError(f"the argument {name} of its {role} is not a plain value")
    return functools.partial(cls, **made)


def _described(name: str, value: Any) -> Any:
    """An argument: a part, a list of parts, or a plain value as it is."""
    if name in _LISTS and _are_parts(value):
        return [describe(_LISTS[name], each) for each in value]
    return describe(name, value) if _is_part(value) else value


def _find(role: str, path: Any) -> type:
    """The class at a path: where it is defined, or the package from which it is imported."""
    classes = CLASSES.get(role, ())
    for cls in classes:
        if path in (f"{cls.__module__}.{cls.__name__}", f"{'.'.join(cls.__module__.split('.')[:2])}.{cls.__name__}"):
            return cls
    if (own := registered(role).get(str(path))) is not None:
        return own
    names = ", ".join(cls.__name__ for cls in classes)
    raise InputError(
        f"its {role} is {str(path)[:80]!r}, which is not a class of visattn ({names}); load your own classes with "
        "--import FILE|MODULE, or in Python with visattn.register"
    )


def _options(value: Any) -> dict[str, Any] | None:
    """The encoder's options, which must be plain values and must not load files."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(map(_is_plain, value.values())):
        raise InputError("the options of its encoder must be an object of plain values")
    if fetching := sorted(_FETCHING & value.keys()):
        raise InputError(f"its encoder has the option {fetching[0]!r}, which an exported model may not have")
    return value


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_part, value))


def _is_plain(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return all(v is None or isinstance(v, bool | int | float | str) for v in values)
