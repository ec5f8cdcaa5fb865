"""A classifier to explain, with its preprocessing and class names."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.vit import ViT
from visattn.images import Geometry
from visattn.models.mode import evaluating


class Subject(NamedTuple):
    """A trained Vision Transformer, ours or timm's, and all that it needs to be shown pictures.

    Attributes:
        vit: the network, seen from outside.
        normalise: images (B, 3, h, w) uint8 to what the network takes.
        fit: an upright RGB picture to the network's input image, and how the one became the other.
        class_names: of its classes, in their order; none where it has none.
    """

    vit: ViT
    normalise: nn.Module
    fit: Callable[[Image.Image], tuple[Image.Image, Geometry]]
    class_names: list[str]

    def see(self, image: Image.Image) -> tuple[Image.Image, Geometry]:
        """`fit`, of a picture that has at least a patch's pixels.

        Raises:
            InputError: if it has not, or its sides differ too much.
        """
        if image.height < self.vit.patch[0] or image.width < self.vit.patch[1]:
            raise InputError(
                f"an image of {image.width}×{image.height} pixels is smaller than a patch of {self.vit.name}, "
                f"{self.vit.patch[1]}×{self.vit.patch[0]}; give a larger image"
            )
        return self.fit(image)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.vit.model.parameters()).device

    def to(self, device: torch.device) -> "Subject":
        """The same on a device; the network itself is moved."""
        self.vit.model.to(device)
        self.normalise.to(device)
        return self

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 to the probabilities of the classes (B, classes), float32."""
        with evaluating(self.vit.model):
            return self.vit.model(self.normalise(images)).float().softmax(dim=-1)

    def target(self, name: str) -> int:
        """The number of a class, from its name or its number.

        Raises:
            InputError: if there is no such class, or several have the name.
        """
        found = [number for number, known in enumerate(self.class_names) if known.casefold() == name.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(map(str, found))
            raise InputError(f"{len(found)} classes of {self.vit.name} are named '{name}'; give a number: {numbers}")
        if name.isdecimal() and int(name) < len(self.class_names):
            return int(name)
        if not self.class_names:
            raise InputError(f"{self.vit.name} has no classes, so there is no '{name}'")
        similar = [known for known in self.class_names if name.casefold() in known.casefold()][:5]
        hint = f"similar: {', '.join(similar)}" if similar else f"the first is '{self.class_names[0]}'"
        raise InputError(
            f"{self.vit.name} has no class '{name}'; it has {len(self.class_names)} classes, numbered from 0 ({hint})"
        )
