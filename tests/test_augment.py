"""Augmentation of whole batches: the same images as torchvision's one at a time, and the same distribution."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from visattn.data.augment import RandomCropFlip, RandomErasing
from visattn.data.policies import BINS, OPERATIONS, SIGNED, Policy, RandAugment, TrivialAugment
from visattn.errors import InputError


def images(count: int, height: int = 13, width: int = 17) -> Tensor:
    return torch.randint(
        256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
    )


def kolmogorov_smirnov(left: np.ndarray, right: np.ndarray) -> float:
    """The largest distance of two distributions, in units of its limit at a level of 0.001."""
    below = [np.searchsorted(np.sort(part), np.concatenate([left, right]), side="right") for part in (left, right)]
    limit = 1.95 * (1 / len(left) + 1 / len(right)) ** 0.5
    return float(np.abs(below[0] / len(left) - below[1] / len(right)).max() / limit)


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (3, False), (0, True)])
def test_crops_gathered_on_a_device_are_those_copied_on_a_cpu(padding: int, flip: bool) -> None:
    crop, draw = RandomCropFlip(padding, flip), torch.Generator().manual_seed(5)
    offsets = torch.randint(2 * padding + 1, (2, 41), generator=draw)
    mirrored = (torch.rand(41, generator=draw) < 0.5) & flip
    assert crop.gathered(images(41), offsets, mirrored).equal(crop.strided(images(41), offsets, mirrored))
    assert crop(images(41), torch.Generator().manual_seed(5)).equal(crop.strided(images(41), offsets, mirrored))


def test_erased_rectangles_have_torchvisions_distribution() -> None:
    """Areas and heights of the rectangles, by the Kolmogorov-Smirnov test, and the share of images that have one."""
    options = {"p": 0.7, "scale": (0.05, 0.6), "ratio": (0.3, 3.3)}
    count, white = 1500, torch.full((1500, 3, 13, 17), 255, dtype=torch.uint8)
    torch.manual_seed(3)
    one = v2.RandomErasing(**options)
    expected = torch.stack([one(image) for image in white]) == 0
    found = RandomErasing(**options)(white, torch.Generator().manual_seed(3)) == 0
    for erased in (expected, found):
        assert (erased == erased[:, :1]).all()
    sizes = [(erased[:, 0].any(2).sum(1).numpy(), erased[:, 0].any(1).sum(1).numpy()) for erased in (expected, found)]
    for theirs, ours in zip(*sizes, strict=True):
        assert kolmogorov_smirnov(theirs[theirs > 0], ours[ours > 0]) < 1
    shares = [float((height > 0).mean()) for height, _ in sizes]
    assert abs(shares[0] - shares[1]) < 4 * (2 * 0.7 * 0.3 / count) ** 0.5
    assert (found[:, 0].sum((1, 2)).numpy() == sizes[1][0] * sizes[1][1]).all()  # each is one rectangle
    for edge in range(13):  # anywhere that it fits
        assert found[:, 0, edge].any()


def torchvisions(policy: Policy, name: str, bin: int, sign: int, image: Tensor) -> Tensor:
    theirs = v2.TrivialAugmentWide() if isinstance(policy, TrivialAugment) else v2.RandAugment()
    strengths = theirs._AUGMENTATION_SPACE[name][0](BINS, *image.shape[1:])
    strength = 0.0 if strengths is None else float(strengths[bin]) * (sign if name in SIGNED else 1)
    return theirs._apply_image_or_video_transform(image, name, strength, interpolation=theirs.interpolation, fill={})


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(operations=2, magnitude=7)])
def test_each_operation_is_torchvisions(policy: Policy) -> None:
    draw, count = np.random.default_rng(1), 20 * len(OPERATIONS) + 3
    which = torch.from_numpy(draw.integers(len(OPERATIONS), size=count))
    bins = torch.from_numpy(draw.integers(BINS, size=count))
    signs = torch.from_numpy(draw.choice([-1.0, 1.0], size=count))
    before = images(count, 16, 12)
    after = policy.applied(before, which, bins, signs)
    moved = 0
    for row in range(count):
        name = OPERATIONS[which[row]]
        expected = torchvisions(policy, name, int(bins[row]), int(signs[row]), before[row])
        apart = (after[row].int() - expected.int()).abs()
        if name in ("ShearX", "ShearY", "Rotate"):  # a place halfway between two pixels may be rounded to either
            assert (apart > 0).float().mean() < 0.2, name
            moved += int((apart > 0).any())
        else:
            assert apart.max() <= (name in ("Color", "Contrast", "Sharpness", "Brightness")), name
    assert moved < 0.05 * count
    assert before.equal(images(count, 16, 12))


def test_policies_draw_every_operation_and_strength_alike() -> None:
    seen: list[tuple[Tensor, ...]] = []

    class Watched(TrivialAugment):
        def applied(self, images: Tensor, *drawn: Tensor) -> Tensor:
            seen.append(drawn)
            return super().applied(images, *drawn)

    Watched()(images(5000, 3, 3), torch.Generator().manual_seed(2))
    ((which, bins, signs),) = seen
    for values, kinds in ((which, len(OPERATIONS)), (bins, BINS), ((signs > 0).long(), 2)):
        counts, expected = np.bincount(values, minlength=kinds), len(values) / kinds
        squares = float(((counts - expected) ** 2 / expected).sum())  # of mean kinds - 1 and twice that variance
        assert squares < kinds - 1 + 4 * (2 * (kinds - 1)) ** 0.5


def test_an_augmentation_is_a_function_of_its_generator() -> None:
    for transform in (RandomErasing(), TrivialAugment(), RandAugment()):
        torch.manual_seed(1)
        first = transform(images(23), torch.Generator().manual_seed(7))
        torch.manual_seed(2)
        assert first.equal(transform(images(23), torch.Generator().manual_seed(7)))
        assert not first.equal(transform(images(23), torch.Generator().manual_seed(8)))
        assert first.shape == images(23).shape
        assert first.dtype == torch.uint8


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (RandomErasing, {"p": 1.5}, "p 1.5"),
        (RandomErasing, {"scale": (0.5, 0.2)}, "scale"),
        (RandomErasing, {"ratio": (0.0, 2.0)}, "ratio"),
        (RandomErasing, {"value": 300}, "value of RandomErasing is 300"),
        (RandAugment, {"operations": -1}, "operations -1"),
        (RandAugment, {"magnitude": 31}, "magnitude 31"),
    ],
)
def test_options_out_of_range_are_named(kind: type, options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        kind(**options)
