"""The classifier: MixUp and CutMix in training."""

from functools import partial

import pytest
import torch

from visattn.errors import InputError
from visattn.models import VisionTransformer
from visattn.training.classifier import Classifier

NAMES = ["bear", "deer", "dog", "frog", "horse"]


def classifier(**options) -> Classifier:
    small = partial(VisionTransformer, patch=4, size=6, depth=1, heads=2)
    return Classifier(NAMES, (12, 20), "squash", model=small, **options)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(7, 3, 12, 20), torch.arange(7) % len(NAMES)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_a_share_of_the_batches_is_mixed(share):
    torch.manual_seed(0)
    mix = classifier(mixup=1.0, cutmix=1.0, mix_probability=share).mix
    images, labels = batch()
    mixed, count = 0, 400
    for _ in range(count):
        seen, wanted = mix(images, labels)
        if wanted is labels:
            assert seen is images
        else:
            assert wanted.shape == (7, len(NAMES))
            assert torch.allclose(wanted.sum(dim=1), torch.ones(7))
            mixed += 1
    deviation = (share * (1 - share) / count) ** 0.5
    assert abs(mixed / count - share) <= 3 * deviation


def test_label_shares_of_cutmix_match_the_pixels():
    torch.manual_seed(0)
    mix = classifier(cutmix=1.0).mix
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 12, 20)  # each image is its number
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    seen, wanted = mix(images, labels)
    for image, row in zip(seen, wanted, strict=True):
        classes = labels[image[0].long()]
        shares = torch.bincount(classes.flatten(), minlength=len(NAMES)) / classes.numel()
        assert torch.allclose(row, shares, atol=1e-6)


def test_nothing_is_mixed_unless_it_is_asked_for():
    assert classifier().mix is None


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_invalid_probabilities_are_refused(share):
    with pytest.raises(InputError, match=r"mix_probability is .*0 .*1"):
        classifier(cutmix=1.0, mix_probability=share)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_each_image_is_mixed_by_its_own_draws(mixup, cutmix):
    """Pixels are numbers of images: each is mixed with the one before, and its label has the pixels' shares."""
    torch.manual_seed(0)
    mix, count = classifier(mixup=mixup, cutmix=cutmix, mix_probability=0.6, mix_each=True).mix, 503
    labels = torch.arange(count) % len(NAMES)
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 3, 12, 20) + 1
    seen, wanted = mix(images, labels)
    assert torch.allclose(wanted.sum(dim=1), torch.ones(count))
    own = wanted[torch.arange(count), labels]
    other = labels.roll(1)
    mean = (own * (labels + 1) + (1 - own) * (other + 1)).view(-1, 1)
    assert torch.allclose(seen.mean(dim=(2, 3)), mean.expand(-1, 3), atol=1e-5)
    blended = (seen == seen[:, :, :1, :1]).flatten(1).all(dim=1) & (own < 1)  # every pixel has the same mixture
    pasted = (seen != images).flatten(1).any(dim=1) & ~blended
    limit = 4 * (0.6 * 0.4 * count) ** 0.5
    methods = (mixup > 0) + (cutmix > 0)
    for chosen, alpha in ((blended, mixup), (pasted, cutmix)):
        expected = 0.6 * count / methods if alpha else 0
        assert abs(int(chosen.sum()) - expected) <= (limit + 0.05 * count if alpha else 0)  # some rectangles are empty
    assert len(set(own[own < 1].tolist())) > 40


def test_draws_for_each_image_are_of_the_global_generator():
    mix, found = classifier(mixup=0.8, cutmix=1.0, mix_each=True).mix, []
    images, labels = batch()
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(mix(images, labels)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
