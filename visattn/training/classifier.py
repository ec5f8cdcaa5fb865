"""Image classifiers as LightningModules: they connect data, network, loss and accuracy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from visattn.data.batch import ImageBatch
from visattn.data.loading import Split
from visattn.errors import require_number
from visattn.explain import Subject, ViT
from visattn.images import Fit, ModelInput
from visattn.models import Normalise, VisionTransformer
from visattn.training import processes
from visattn.training.evaluation import collect
from visattn.training.mixing import MixEach
from visattn.training.optimization import Optimization


class LabelledModule(LightningModule):
    """What classifiers of images have in common: a normalised network, evaluation of every image once, predictions.

    A subclass has a `model`, trains it, and may score more than loss and accuracy.

    Args:
        output_names: class names; the command line sets them from the data.
        image_size: (h, w) of the input in pixels; from the data, too.
        fit: how images are resized; from the data, too.
        optimization: optimiser and schedule.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.

    Attributes:
        evaluated: the scores of each image of the last evaluation by their names, by the image's id.
    """

    model: nn.Module

    def __init__(
        self,
        output_names: list[str],
        image_size: tuple[int, int],
        fit: Fit,
        optimization: Optimization | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.class_names = list(output_names)
        self.image_size, self.fit = tuple(image_size), fit
        self.normalise = Normalise(mean, std)
        self.optimization = optimization or Optimization()
        self.evaluated: dict[str, dict[str, float]] = {}

    def setup(self, stage: str) -> None:
        processes.draw_apart()

    def configure_optimizers(self) -> dict[str, Any]:
        return self.optimization.configure(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 to logits (B, classes)."""
        return self.model(self.normalise(images))

    def scores(self, batch: ImageBatch) -> dict[str, Tensor]:
        """(B,) numbers of each image whose means are logged; loss and accuracy among them."""
        logits = self(batch.images)
        losses = cross_entropy(logits, batch.labels, reduction="none")
        return {"loss": losses, "accuracy": (logits.argmax(dim=-1) == batch.labels).float()}

    def validation_step(self, batch: ImageBatch, index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: ImageBatch, index: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        self.evaluated = {}

    def on_test_epoch_start(self) -> None:
        self.evaluated = {}

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def predict_step(self, batch: ImageBatch, index: int) -> list[dict[str, Any]]:
        probabilities = self(batch.images).float().softmax(dim=-1)
        best, labels = probabilities.max(dim=-1)
        return [
            {"id": name, "class": self.class_names[label], "probability": probability}
            for name, label, probability in zip(batch.ids, labels.tolist(), best.tolist(), strict=True)
        ]

    @property
    def input(self) -> ModelInput:
        """Size, fit and cells of the input; patches divide it evenly."""
        return ModelInput(self.image_size, self.fit)

    def _evaluate(self, batch: ImageBatch) -> None:
        scores = {name: values.tolist() for name, values in self.scores(batch).items()}
        for row, image in enumerate(batch.ids):
            self.evaluated[image] = {name: values[row] for name, values in scores.items()}

    def _score(self, split: Split) -> None:
        """Log the means over all images, each counted once, however many processes have shared them."""
        self.evaluated = collect(self.evaluated, self.trainer.datamodule.ids(split), split, self.trainer)
        for name in next(iter(self.evaluated.values()), {}):
            mean = float(np.mean([scores[name] for scores in self.evaluated.values()]))
            self.log(f"{split}/{name}", mean, prog_bar=name == "accuracy", sync_dist=True)  # they agree already


def cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """Of logits (B, classes) and labels (B,) or mixed ones (B, classes), in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, labels.to(logits) if labels.is_floating_point() else labels, **options)


class Classifier(LabelledModule):
    """A Vision Transformer with a cross-entropy.

    Args:
        output_names: class names; the command line sets them from the data.
        image_size: (h, w) of the input in pixels; also set from the data.
        fit: how images are resized; also set from the data.
        model: constructs the network from the number of classes and the image size.
        optimization: optimiser and schedule.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.
        label_smoothing: share of the probability that is spread over all classes.
        mixup: α of MixUp (Zhang 2017); 0 disables it.
        cutmix: α of CutMix (Yun 2019); 0 disables it. With both, a mixed batch gets one of them at random.
        mix_probability: probability that a process's batch is mixed; other batches are unchanged.
        mix_each: whether each image is mixed by draws of its own (`MixEach`), with that probability, not the batch by
            one draw.

    Raises:
        InputError: if `mix_probability` is not between 0 and 1.
    """

    def __init__(
        self,
        output_names: list[str],
        image_size: tuple[int, int],
        fit: Fit,
        model: Callable[[int, tuple[int, int]], VisionTransformer] = VisionTransformer,
        optimization: Optimization | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_probability: float = 1.0,
        mix_each: bool = False,
    ) -> None:
        super().__init__(output_names, image_size, fit, optimization, mean, std)
        self.save_hyperparameters(ignore="tokens")  # which the command line passes to every model
        classes = len(output_names)
        self.model = model(classes, self.image_size)
        self.label_smoothing = label_smoothing
        mixes = [v2.MixUp(alpha=mixup, num_classes=classes)] if mixup else []
        mixes += [v2.CutMix(alpha=cutmix, num_classes=classes)] if cutmix else []
        require_number("mix_probability", mix_probability, least=0, most=1)
        self.mix = v2.RandomChoice(mixes) if mixes else None
        if mixes and mix_each:
            self.mix = MixEach(classes, mixup, cutmix, mix_probability)
        elif mixes and mix_probability < 1:
            self.mix = v2.RandomApply([self.mix], p=mix_probability)

    def training_step(self, batch: ImageBatch, index: int) -> Tensor:
        images, labels = self.normalise(batch.images), batch.labels
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        losses = cross_entropy(self.model(images), labels, label_smoothing=self.label_smoothing, reduction="sum")
        count = torch.full((), float(len(batch.ids)), device=losses.device)  # without waiting, as a copy would
        loss = losses / processes.mean(count)  # this process's share of the mean over the whole batch
        self.log("train/loss", processes.mean(loss), prog_bar=True, batch_size=len(batch.ids))
        return loss

    def subject(self, name: str = "the classifier") -> Subject:
        """The classifier to explain, with its name for messages."""
        return Subject(ViT(self.model, name), self.normalise, self.input.fit_image, self.class_names)
