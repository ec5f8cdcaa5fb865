"""CIFAR in parts: `part_0.npz`, `part_1.npz` …, for machines that are sent a few files and have no network.

Each part has `images` (n, 32, 32, 3) uint8, `labels` (n,) integers and `test` (n,) bool. The images of all parts, in
order, are those of the training and of the test file, in any mixture.
"""

import zipfile
from pathlib import Path

import numpy as np

from visattn.errors import InputError
from visattn.files import read_arrays

_TYPES = {"images": np.uint8, "labels": np.integer, "test": np.bool_}


def in_parts(folder: Path) -> bool:
    """Whether a folder has parts."""
    return any(folder.glob("part_*.npz"))


def read_parts(folder: Path, counts: tuple[int, int], classes: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Assemble the parts in a folder.

    Args:
        folder: of the parts.
        counts: numbers of training and of test images in all parts.
        classes: number of labels.

    Returns:
        Training, then test: (N, 3, 32, 32) uint8 and (N,) int64.

    Raises:
        InputError: if a part is missing, damaged or of another layout, or the images are too few or too many.
    """
    numbers = sorted(int(path.stem[5:]) for path in folder.glob("part_*.npz") if path.stem[5:].isdecimal())
    for number in range(max(numbers, default=0)):
        if number not in numbers:
            raise InputError(f"{folder / f'part_{number}.npz'} is missing, though there is a part_{numbers[-1]}.npz")
    parts = [_part(folder / f"part_{number}.npz", classes) for number in numbers]
    images, labels, test = (np.concatenate([part[name] for part in parts]) for name in _TYPES)
    found = int((~test).sum()), int(test.sum())
    if found != counts:
        raise InputError(
            f"the {len(parts)} parts in {folder} have {found[0]:,} training and {found[1]:,} test images, not "
            f"{counts[0]:,} and {counts[1]:,}; a part with a higher number is missing, or one belongs to another set"
        )
    images, labels = images.transpose(0, 3, 1, 2), labels.astype(np.int64)
    return tuple((np.ascontiguousarray(images[rows]), labels[rows]) for rows in (~test, test))


def _part(path: Path, classes: int) -> dict[str, np.ndarray]:
    try:
        part = read_arrays(path, _TYPES)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read as a part with images, labels and test ({said}); copy it again"
        ) from error
    count = len(part["labels"])
    shapes = {"images": (count, 32, 32, 3), "labels": (count,), "test": (count,)}
    for name, kind in _TYPES.items():
        if part[name].shape != shapes[name] or not np.issubdtype(part[name].dtype, kind):
            raise InputError(
                f"{name} of {path} is {part[name].dtype} of {part[name].shape}; it must be {kind.__name__} of "
                f"{shapes[name]}"
            )
    if count and not 0 <= part["labels"].min() <= part["labels"].max() < classes:
        raise InputError(f"labels of {path} are not all between 0 and {classes - 1}")
    return part
