"""Accuracy against work: glimpses chosen by a learned policy, at random and at the centre, and the whole picture.

All models share the data, the steps, the optimiser and the kind of backbone: strided convolutions and one linear layer.
The whole-view model applies them to every pixel, with more convolutions, since there is more to reduce.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from visattn.data.classification import ClassificationData
from visattn.data.loading import BatchName
from visattn.models import (
    CentrePolicy,
    ContextNetwork,
    GaussianPolicy,
    GlimpseModel,
    Normalise,
    RandomPolicy,
    Retina,
    WholeView,
)
from visattn.models.glimpses import coverage
from visattn.studies.benchmarks.arithmetic import count as operations
from visattn.training.objectives import GlimpseLoss

LEARNING_RATE, WEIGHT_DECAY, WARMUP = 3e-3, 0.02, 0.05
MEAN, STD = (0.8, 0.8, 0.78), (0.25, 0.25, 0.25)
WIDTHS = (8, 16, 32, 64, 64)  # of the whole view's convolutions
NAMES = ("learned", "random", "centre", "whole")
_CHOOSE_LOCATIONS = ("policy", "locator", "context")  # parts of a glimpse model


class Setting(NamedTuple):
    """What is compared.

    Attributes:
        glimpses: how many are taken.
        size: side of the innermost square, in pixels.
        scales: number of squares.
        context: side of the low-resolution view that the learned policy starts from, in values.
        std: of the learned policy, in training.
        steps: of each training.
        batch: pictures of a step.
        easier: steps with an easier question before; then the class is read anew, and the rest is kept.
        policy: factor of the learning rate for what chooses locations, with the question itself.
    """

    glimpses: int = 4
    size: int = 12
    scales: int = 2
    context: int = 16
    std: float = 0.25
    steps: int = 300
    batch: int = 64
    easier: int = 0
    policy: float = 1.0


class Work(NamedTuple):
    """What a model has reached and spent after each of its glimpses; one entry for the whole view.

    Attributes:
        accuracy: (T,) share of pictures whose class is right.
        multiply_adds: (T,) for one picture, of convolutions and matrix products.
        values: (T,) numbers that the model has read, as a share of the picture's pixels: of the retina's squares and of
            the low-resolution view, each position counted once, not once a colour.
        seen: (T,) share of the picture's pixels that a square has covered.
    """

    accuracy: np.ndarray
    multiply_adds: np.ndarray
    values: np.ndarray
    seen: np.ndarray


def make(name: str, setting: Setting, classes: int, image_size: tuple[int, int]) -> GlimpseModel | WholeView:
    """An untrained model, by its name among `NAMES`.

    Raises:
        InputError: if the setting does not suit the picture.
    """
    if name == "whole":
        return WholeView(classes, image_size, widths=WIDTHS)
    policy = {"learned": partial(GaussianPolicy, std=setting.std), "random": RandomPolicy, "centre": CentrePolicy}[name]
    return GlimpseModel(
        classes,
        image_size,
        setting.glimpses,
        sensor=partial(Retina, size=setting.size, scales=setting.scales),
        policy=policy,
        context=partial(ContextNetwork, side=setting.context) if name == "learned" else None,
    )


def train(
    name: str,
    setting: Setting,
    data: ClassificationData,
    seed: int,
    title: str | None = None,
    easier: ClassificationData | None = None,
) -> nn.Module:
    """Train a model from nothing.

    Args:
        name: one of `NAMES`.
        setting: what is compared.
        data: its training split is used.
        seed: of weights and draws.
        title: of a progress bar; none where not given.
        easier: data of the easier question, of the same picture size; needed if the setting has steps for it.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    if easier is None:
        model = make(name, setting, len(data.class_names), data.image_size)
    else:
        model = make(name, setting, len(easier.class_names), easier.image_size)
        _fit(model, easier, setting.easier, 1.0, title and f"{title}, easier question")
        model.head = nn.Linear(model.head.in_features, len(data.class_names))
    _fit(model, data, setting.steps, setting.policy, title)
    return model.eval()


def _fit(
    model: GlimpseModel | WholeView, data: ClassificationData, steps: int, policy: float, title: str | None
) -> None:
    """Train for so many steps, with a schedule and an optimiser of their own."""
    normalise, objective = Normalise(MEAN, STD), GlimpseLoss()
    places = [p for name, p in model.named_parameters() if name.partition(".")[0] in _CHOOSE_LOCATIONS]
    rest = [p for name, p in model.named_parameters() if name.partition(".")[0] not in _CHOOSE_LOCATIONS]
    groups = [{"params": rest}, {"params": places, "lr": LEARNING_RATE * policy}]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps=steps))
    batches = data.train_dataloader().dataset
    for step in tqdm(range(steps), desc=title, unit="step", leave=False, disable=title is None):
        epoch, number = divmod(step, len(batches))
        images, labels, _ = batches[BatchName(epoch, number)]
        images = normalise(images)
        if isinstance(model, GlimpseModel):
            loss = objective(model.scan(images), labels).losses.mean()
        else:
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1.0, WARMUP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0, batch: int = 250) -> Work:
    """Accuracy and work of a model in evaluation mode on images (N, 3, h, w) uint8; the seed is of random locations."""
    torch.manual_seed(seed)
    normalise, pixels = Normalise(MEAN, STD), images.shape[-2] * images.shape[-1]
    right, covered = [], []
    for part, wanted in zip(images.split(batch), labels.split(batch), strict=True):
        if not isinstance(model, GlimpseModel):
            right.append((model(normalise(part)).argmax(dim=-1) == wanted)[:, None])
            continue
        scan = model.scan(normalise(part))
        right.append(scan.logits.argmax(dim=-1) == wanted[:, None])
        places = [scan.locations[:, : t + 1] for t in range(model.glimpses)]
        covered.append(torch.stack([coverage(model.sensor.squares, model.image_size, at) for at in places], dim=1))
    accuracy = torch.cat(right).float().mean(dim=0).numpy()
    one = normalise(images[:1])
    if not isinstance(model, GlimpseModel):
        return Work(accuracy, np.array([multiply_adds(lambda: model(one))]), np.ones(1), np.ones(1))
    start = multiply_adds(lambda: model.context(one)) if model.context else 0
    count = np.arange(1, model.glimpses + 1)
    spent = start + (multiply_adds(lambda: model.scan(one)) - start) * count / model.glimpses
    values = model.sensor.size**2 * len(model.sensor.squares) * count + (model.context.side**2 if model.context else 0)
    return Work(accuracy, spent, values / pixels, torch.cat(covered).mean(dim=0).numpy())


def multiply_adds(run: Callable[[], object]) -> int:
    """Of the convolutions and matrix products of a run."""
    return operations(run) // 2


def mean_work(works: Sequence[Work]) -> Work:
    """The mean over seeds."""
    return Work(*(np.mean(part, axis=0) for part in zip(*works, strict=True)))
