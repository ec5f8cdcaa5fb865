"""Test-time registers for the commands: neurons from the images given, and what the register changed."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch

from visattn.data.inputs import read_fitted
from visattn.devices import choose_device
from visattn.explain import Subject
from visattn.explain.features import features
from visattn.explain.registers import WithRegister, outlying, register_neurons
from visattn.tasks.overlay import choose_subject

IMAGES = 64  # of those given, the first so many


def choose_registered(options: argparse.Namespace, paths: Sequence[Path]) -> Subject:
    """The model that the options name, with a test-time register if they ask for it; prints what that changed.

    Raises:
        InputError: as `choose_subject` and `with_test_time_register`.
    """
    subject = choose_subject(options)
    if options.test_time_registers is None:
        return subject
    subject, said = with_test_time_register(
        subject, paths, options.test_time_registers, options.batch_size, options.device
    )
    print(said)
    return subject


def with_test_time_register(
    subject: Subject, paths: Sequence[Path], count: int, batch_size: int = 8, device: str = "auto"
) -> tuple[Subject, str]:
    """A subject with a test-time register, for register neurons found in images.

    Args:
        subject: the model.
        paths: images; of more than `IMAGES`, the first.
        count: how many neurons.
        batch_size: images at a time.
        device: where the model runs, as `choose_device` takes it.

    Returns:
        The subject, and a sentence on how many patches are outliers with the register, and were without.

    Raises:
        InputError: if no patch is an outlier, or the model cannot have a register.
    """
    subject, batches = subject.to(choose_device(device)), []
    inputs = read_fitted(paths[:IMAGES], subject.see)
    while batch := list(itertools.islice(inputs, batch_size)):
        batches.append(subject.normalise(torch.stack([item.tensor for item in batch]).to(subject.device)))
    found = register_neurons(subject.vit, batches, count)
    vit = WithRegister(subject.vit, found.neurons)
    left = sum(int(outlying(features(vit, pixels).norms[:, found.layer, vit.prefix :]).sum()) for pixels in batches)
    layers = [layer for layer, _ in found.neurons]
    where = f"layer {min(layers)}" if min(layers) == max(layers) else f"layers {min(layers)} to {max(layers)}"
    return subject._replace(vit=vit), (
        f"test-time register for {len(layers)} neurons of {where}: in layer {found.layer}, {left} of {found.patches} "
        f"patches have norms above 3 times the median, {found.outliers} without it"
    )
