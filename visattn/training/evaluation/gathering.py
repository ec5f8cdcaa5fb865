"""Gathering of per-image results from all processes, each image once."""

from collections.abc import Iterable
from typing import TypeVar

from lightning import Trainer

from visattn.data.loading import Split
from visattn.errors import InputError
from visattn.training import processes

T = TypeVar("T")


def collect(found: dict[str, T], names: Iterable[str], split: Split, trainer: Trainer) -> dict[str, T]:
    """Merge the results of all processes, by image, in the order of the data; the result is the same in each process.

    The sampler repeats images so that all processes have the same number of batches; each image is counted once here.

    Args:
        found: this process's results, by image id.
        names: the ids of all images of the split.
        split: name of the split.
        trainer: of the validation or test.

    Raises:
        InputError: if results of an image are missing, as happens if processes have different data.
    """
    everyone: dict[str, T] = {}
    for share in processes.gathered(found):
        everyone |= share
    names = list(names)
    limit = trainer.limit_val_batches if split == "val" else trainer.limit_test_batches
    whole = isinstance(limit, float) and limit == 1.0 and not trainer.sanity_checking  # 1 means one batch, 1.0 all
    known = set(names)
    wrong = [name for name in everyone if name not in known] + [
        name for name in names if whole and name not in everyone
    ]
    if wrong:
        raise InputError(
            f"the processes saw {len(everyone)} images of the {split} split, which has {len(names)}, and differ in "
            f"images such as {wrong[0]}; use the same data on every machine"
        )
    return {name: everyone[name] for name in names if name in everyone}
