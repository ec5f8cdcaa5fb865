"""Gathering of per-image results from all processes, each image once."""

from collections.abc import Iterable
from typing import TypeVar

from lightning import Trainer

from visattn.data.loading import Split
from visattn.errors import InputError
from visattn.training import processes

T = TypeVar("T")


def collect(found: dict[str, T], names: Iterable[str], split: Split, trainer: Trainer) -> dict[str, T]:
    """What all processes have found, by image, in the order of the data; the same in each process.

    Processes must get equally many batches, so the sampler repeats images where their number does not divide; here an
    image counts once, whoever saw it.

    Args:
        found: by image id, of the images that this process has seen.
        names: the ids of all images of the split.
        split: which it is.
        trainer: of the validation or test; it knows whether it was to see all.

    Raises:
        InputError: if an image was seen by none that should have been, as happens where processes have other data.
    """
    everyone: dict[str, T] = {}
    for share in processes.gathered(found):
        everyone |= share
    names = list(names)
    limit = trainer.limit_val_batches if split == "val" else trainer.limit_test_batches
    whole = isinstance(limit, float) and limit == 1.0 and not trainer.sanity_checking  # 1 is one batch, 1.0 all
    known = set(names)
    wrong = [name for name in everyone if name not in known] + [
        name for name in names if whole and name not in everyone
    ]
    if wrong:
        raise InputError(
            f"the processes saw {len(everyone)} images of the {split} split, which has {len(names)}, and differ in "
            f"images such as {wrong[0]}; give every machine the same data"
        )
    return {name: everyone[name] for name in names if name in everyone}
