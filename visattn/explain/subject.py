"""A classifier to explain, with its preprocessing and class names."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from visattn.errors import InputError
from visattn.explain.texts import Texts, checked_texts
from visattn.explain.vit import ViT
from visattn.images import Geometry
from visattn.models.mode import evaluating


class Subject(NamedTuple):
    """A trained Vision Transformer, visattn's or that of another library, with its preprocessing.

    Attributes:
        vit: the network.
        normalise: images (B, 3, h, w) uint8 to the network's input.
        fit: an upright RGB image to the network's input image, and the geometry.
        class_names: names of its classes, in order; empty if it has none. Of a model that compares images with texts,
            they are the texts.
        texts: the encoded texts, if its classes are texts.
        compare: of a model that compares images with texts, from texts to them encoded and the network as a classifier
            of them.
    """

    vit: ViT
    normalise: nn.Module
    fit: Callable[[Image.Image], tuple[Image.Image, Geometry]]
    class_names: list[str]
    texts: Texts | None = None
    compare: Callable[[list[str]], tuple[ViT, Texts]] | None = None

    def comparing(self, texts: Sequence[str]) -> "Subject":
        """The same model with these texts as its classes, in place of others that it may have.

        Raises:
            InputError: if it cannot compare images with texts, or there are none, or one is empty or too long.
        """
        if self.compare is None:
            raise InputError(
                f"{self.vit.name} cannot compare images with texts; give a model that does, such as "
                "open_clip:ViT-B-32/openai, or leave out --text"
            )
        vit, encoded = self.compare(checked_texts(texts))
        return self._replace(vit=vit, class_names=encoded.texts, texts=encoded)

    def see(self, image: Image.Image) -> tuple[Image.Image, Geometry]:
        """`fit`, for an image with at least as many pixels as a patch.

        Raises:
            InputError: if it is smaller, or its sides differ too much.
        """
        if image.height < self.vit.patch[0] or image.width < self.vit.patch[1]:
            raise InputError(
                f"an image of {image.width}×{image.height} pixels is smaller than a patch of {self.vit.name}, "
                f"{self.vit.patch[1]}×{self.vit.patch[0]}; give a larger image"
            )
        return self.fit(image)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.vit.model.parameters()).device

    def to(self, device: torch.device) -> "Subject":
        """Move the subject to a device; the network itself is moved."""
        self.vit.model.to(device)
        self.normalise.to(device)
        return self

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 to class probabilities (B, classes), float32; of texts, among those given."""
        with evaluating(self.vit.model):
            return self.vit.logits(self.normalise(images)).float().softmax(dim=-1)

    @torch.no_grad()
    def cosines(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 to their cosines with the texts (B, T), float32.

        Raises:
            InputError: if the model was made without texts.
        """
        if self.texts is None:
            raise InputError(f"{self.vit.name} has no texts to compare images with; give them to comparing")
        with evaluating(self.vit.model):
            return self.texts.cosines(self.vit.logits(self.normalise(images)))

    def map(
        self, image: Image.Image, method: Callable[[ViT, Tensor, Tensor | None], Tensor], target: str | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """A method's map of an image, and the geometry with which `overlay.heatmap` lays it over the image.

        Args:
            image: an upright RGB image, as `images.load_image` returns it.
            method: such as `Raw(layer=-1)` or `Relevance()`.
            target: the name or number of the class to explain, or the text; None is the most likely.

        Returns:
            The map (h, w), float32, and the geometry.

        Raises:
            InputError: as `see` and `target` do.
        """
        fitted, geometry = self.see(image)
        pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None].to(self.device)
        number = None
        if self.class_names:
            likeliest = self.probabilities(pixels).argmax(dim=-1)
            number = likeliest if target is None else torch.full_like(likeliest, self.target(target))
        return method(self.vit, self.normalise(pixels), number)[0].float().cpu().numpy(), geometry

    def target(self, name: str) -> int:
        """The index of a class, from its name or index.

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
