"""The glimpse model as a LightningModule: connects data, model, objective and scores."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visattn.data.batch import ImageBatch
from visattn.errors import InputError
from visattn.images import Fit
from visattn.models.glimpses import GlimpseModel, Scan, coverage
from visattn.training import processes
from visattn.training.classifier import LabelledModule, cross_entropy
from visattn.training.objectives import GlimpseLoss
from visattn.training.optimization import Optimization


class GlimpseClassifier(LabelledModule):
    """A classifier that sees a picture in glimpses (Mnih 2014, Ba 2015), trained with an estimator of the gradient.

    Validation and test log loss and accuracy after the last glimpse, or where the model has learned to stop; after each
    glimpse `accuracy_1` to `accuracy_T` and `confidence_1` to `confidence_T`, the probability of the likeliest class;
    and `seen`, the share of the picture's pixels that any square of a glimpse has covered. Models that stop have
    `glimpses`, how many are taken, and `stop_1` to `stop_T`, the probability of stopping after each.

    Args:
        output_names: class names; the command line sets them from the data.
        image_size: (h, w) of the input in pixels; from the data, too.
        fit: how images are resized; from the data, too.
        model: constructs the network from the number of classes and the image size.
        loss: the objective; its estimator is what trains the locations, its price what trains stopping.
        optimization: optimiser and schedule.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.

    Raises:
        InputError: if the model learns to stop and the objective has no price, or the other way round.
    """

    model: GlimpseModel

    def __init__(
        self,
        output_names: list[str],
        image_size: tuple[int, int],
        fit: Fit,
        model: Callable[[int, tuple[int, int]], GlimpseModel] = GlimpseModel,
        loss: GlimpseLoss | None = None,
        optimization: Optimization | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(output_names, image_size, fit, optimization, mean, std)
        with warnings.catch_warnings():  # the command line passes configurations, not modules
            warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(ignore="tokens")  # which the command line passes to every model
        self.model = model(len(output_names), self.image_size)
        self.loss = loss or GlimpseLoss()
        if (self.model.stop is None) != (self.loss.price is None):
            has, lacks = ("loss.price", "model.stop") if self.model.stop is None else ("model.stop", "loss.price")
            raise InputError(f"{has} is set, but {lacks} is not; learned stopping needs both")

    def scan(self, images: Tensor) -> Scan:
        """All glimpses at images (B, 3, h, w) uint8."""
        return self.model.scan(self.normalise(images))

    def training_step(self, batch: ImageBatch, index: int) -> Tensor:
        rows = torch.arange(len(batch.ids), device=batch.images.device).repeat_interleave(self.loss.draws)
        losses = self.loss(self.scan(batch.images[rows]), batch.labels[rows])
        count = processes.mean(torch.tensor(len(rows), device=rows.device))
        nll = processes.mean(losses.nll[:, -1].sum() / count)
        self.log("train/loss", nll, prog_bar=True, batch_size=len(batch.ids))
        for name, value in losses.diagnostics.items():
            self.log(f"train/{name}", processes.mean(value), batch_size=len(batch.ids))
        return losses.losses.sum() / count  # this process's share of the mean over the whole batch

    def scores(self, batch: ImageBatch) -> dict[str, Tensor]:
        scan, each = self.scan(batch.images), {}
        taken = scan.taken()
        answer = scan.answer(taken)
        right = (scan.logits.argmax(dim=-1) == batch.labels[:, None]).float()
        parts = {"accuracy": right, "confidence": scan.logits.float().softmax(dim=-1).amax(dim=-1)}
        if self.model.stop is not None:
            parts["stop"] = scan.stop.sigmoid()
            each["glimpses"] = taken.float()
        for name, part in parts.items():
            each |= {f"{name}_{t}": values for t, values in enumerate(part.unbind(dim=1), start=1)}
        looked = torch.arange(right.shape[1], device=taken.device) < taken[:, None]
        locations = torch.where(looked[..., None], scan.locations, scan.locations[:, :1])  # the first was taken anyway
        return {
            "loss": cross_entropy(answer, batch.labels, reduction="none"),
            "accuracy": (answer.argmax(dim=-1) == batch.labels).float(),
            **each,
            "seen": coverage(self.model.sensor.squares, self.image_size, locations),
        }
