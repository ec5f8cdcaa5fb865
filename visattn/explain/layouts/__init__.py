"""What is known of networks, by the library that they come from, so that their attention can be read as maps."""

from typing import Any

from torch import nn

from visattn.explain.layouts import open_clip, own, timm, torchvision, transformers
from visattn.explain.layouts.layout import Interface, Layout, UnreadableError
from visattn.models import VisionTransformer

__all__ = ["Interface", "Layout", "UnreadableError", "image_part", "interface_of", "layout_of"]

_LIBRARIES: dict[str, Any] = {"transformers": transformers, "torchvision": torchvision, "open_clip": open_clip}


def _library(network: nn.Module) -> Any:
    """The module that knows a network's library; a subclass made elsewhere belongs to that of its base."""
    if isinstance(network, VisionTransformer):
        return own
    packages = (kind.__module__.partition(".")[0] for kind in type(network).__mro__)
    return next((_LIBRARIES[package] for package in packages if package in _LIBRARIES), timm)


def image_part(network: nn.Module) -> nn.Module:
    """The part of a network that takes images alone, of one that reads or writes texts, too.

    Raises:
        UnreadableError: if it takes no images.
    """
    library = _library(network)
    return library.image_part(network) if hasattr(library, "image_part") else network


def interface_of(network: nn.Module) -> Interface:
    """How a network is run on images."""
    return _library(network).interface(network)


def layout_of(network: nn.Module) -> Layout:
    """How its layers attend over one grid of patches.

    Raises:
        UnreadableError: if they do not; the message gives the reason.
    """
    return _library(network).layout(network)
