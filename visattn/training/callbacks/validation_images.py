"""Images of the validation during training, and the Vision Transformer that classifies them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from visattn.data.captions import CaptionData
from visattn.data.classification import ClassificationData
from visattn.errors import InputError
from visattn.explain import ViT, as_read
from visattn.images import Geometry
from visattn.images.reading import load_image
from visattn.training.captioner import Captioner
from visattn.training.classifier import Classifier
from visattn.training.glimpses import GlimpseClassifier


class Example(NamedTuple):
    """A validation image, ready for the model and for drawing; see `visattn.data.inputs.Input`."""

    id: str
    original: np.ndarray
    tensor: Tensor
    truth: str | None = None


class Classified(NamedTuple):
    """Images, and the transformer that classifies them.

    Attributes:
        vit: the transformer.
        inputs: (B, 3, h, w), as it gets them.
        examples: of the images.
        geometries: of each, from the original to the input.
        class_names: names of the classes; empty if it has none.
    """

    vit: ViT
    inputs: Tensor
    examples: list[Example]
    geometries: list[Geometry]
    class_names: list[str]


class OfValidation(Callback):
    """Has some images of the validation, also of a LightningModule that is not visattn's.

    Of such a module, the first images that its Vision Transformer gets in a validation are kept, as it gets them: they
    are the same in each epoch, unless the validation data is shuffled.

    Args:
        count: number of images.
        network: name of the transformer in the LightningModule, such as "model" or "net.backbone"; None is its first
            part that `visattn.explain` can read.
    """

    def __init__(self, count: int, network: str | None) -> None:
        self.count = count
        self.network = network
        self._found: nn.Module | None = None
        self._vit: ViT | None = None
        self._inputs: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._hook: RemovableHandle | None = None
        self._in_step = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Captioner | Classifier | GlimpseClassifier) or not in_training(trainer):
            return
        self._inputs, self._labels = [], []
        self._found = self._found or _network(pl_module, self.network)

        def keep(module: nn.Module, args: tuple) -> None:
            if self._in_step and args and isinstance(args[0], Tensor) and args[0].ndim == 4 and self._missing:
                self._inputs.append(args[0][: self._missing].detach().clone())

        self._hook = self._found.register_forward_pre_hook(keep)

    def on_validation_batch_start(self, *args: Any) -> None:
        self._in_step = True  # else the transformer may be running for another callback

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._in_step = False
        if self._hook is None or not isinstance(batch, tuple | list) or len(batch) != 2:
            return
        labels, known = batch[1], sum(map(len, self._labels))
        if isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point() and known < self.count:
            self._labels.append(labels[: self.count - known].cpu())

    @property
    def _missing(self) -> int:
        return self.count - sum(map(len, self._inputs))

    def end(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.end()

    def classified(
        self, trainer: Trainer, module: LightningModule, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> Classified | None:
        """The images and the transformer that classifies them; None if it saw no images in this validation."""
        self.end()
        if isinstance(module, Classifier):
            examples, subject = examples_of(trainer.datamodule, self.count), module.subject()
            inputs = subject.normalise(torch.stack([example.tensor for example in examples]))
            geometries = [module.input.geometry(example.original.shape[:2]) for example in examples]
            return Classified(subject.vit, inputs, examples, geometries, subject.class_names)
        if not self._inputs or self._found is None:
            return None
        inputs = torch.cat(self._inputs)
        size: tuple[int, int] = tuple(inputs.shape[-2:])
        self._vit = self._vit or as_read(self._found, size=size)
        labels = torch.cat(self._labels).tolist() if self._labels else []
        truths = [str(label) for label in labels] if len(labels) == len(inputs) else [None] * len(inputs)
        examples = [
            Example(f"image_{n}", original, tensor, truth)
            for n, (original, tensor, truth) in enumerate(zip(_shown(inputs, mean, std), inputs, truths, strict=True))
        ]
        geometry = Geometry.identity(size)._replace(cell_shift=self._vit.cells(size))
        names = [str(number) for number in range(self._vit.classes)]
        return Classified(self._vit, inputs, examples, [geometry] * len(inputs), names)


def _network(module: LightningModule, name: str | None) -> nn.Module:
    """The Vision Transformer in a LightningModule."""
    if name is not None:
        try:
            return module.get_submodule(name)
        except AttributeError as error:
            raise InputError(f"{type(module).__name__} has no part '{name}' (option 'network')") from error
    reasons = []
    for part, network in module.named_children():
        try:
            as_read(network, part)
        except InputError as error:
            reasons.append(str(error))
        else:
            return network
    raise InputError(
        f"AttentionSheets and AttentionHealth find no Vision Transformer in {type(module).__name__}; name it with "
        "their option 'network', or remove them" + "".join(f" ({reason})" for reason in reasons[:1])
    )


def _shown(inputs: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> list[np.ndarray]:
    """Inputs (B, 3, h, w) as pictures (h, w, 3) uint8."""
    pixels = inputs.float().cpu()
    if mean is not None and std is not None:
        pixels = pixels * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    else:
        low, high = pixels.aminmax()
        pixels = (pixels - low) / (high - low).clamp_min(1e-12)
    pixels = pixels.clamp(0, 1).mul(255).round().to(torch.uint8)
    return [_pixels(picture if len(picture) == 3 else picture[:1].expand(3, -1, -1)) for picture in pixels]


def examples_of(data: LightningDataModule, count: int) -> list[Example]:
    """`count` images, evenly spread over the validation split; always the same."""
    if isinstance(data, CaptionData):
        split = data.examples("val")
        out = []
        for i in _spread(len(split), count):
            tensor = data.load(split[i])[0]
            path = split[i].path
            original = _pixels(tensor) if path is None else np.asarray(load_image(path))
            out.append(Example(split[i].id, original, tensor))
        return out
    if isinstance(data, ClassificationData):
        images, labels = data.tensors("val")
        ids, rows = data.ids("val"), _spread(len(labels), count)
        shown = data.arrange(images[rows], rows, "val", 0)
        return [
            Example(ids[i], _pixels(image), image, data.class_names[int(labels[i])])
            for i, image in zip(rows, shown, strict=True)
        ]
    raise InputError(f"AttentionSheets and AttentionHealth do not support {type(data).__name__}; remove them")


def _spread(length: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def _pixels(tensor: Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).contiguous().numpy()


def in_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking
