"""Random parts of training images, and the regions in them."""

import numpy as np
import pytest
import torch

from visattn.data.views import Part, View, random_parts

SIZE = (53, 71)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_the_whole_image_is_the_image():
    image = torch.randint(256, (3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert View().of_image(image).equal(image)
    assert View(Part(0, 0, *SIZE)).of_image(image).equal(image)
    assert View(mirrored=True).of_image(image).equal(image.flip(-1))
    mask = box(3, 5, 7, 11)
    assert (View(Part(0, 0, *SIZE)).of_mask(mask) == mask).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("part", [(11, 13, 31, 43), (0, 0, 47, 71), (22, 0, 31, 29), (3, 2, 5, 7)])
def test_a_region_stays_on_its_object(part, mirrored):
    """A white object on black, cropped as an image and as a mask."""
    mask = box(17, 19, 13, 23)
    image = torch.from_numpy(np.where(mask, 255, 0).astype(np.uint8)).expand(3, *SIZE)
    view = View(Part(*part), mirrored)
    seen, region = view.of_image(image)[0].numpy(), view.of_mask(mask)
    assert (seen.shape, region.shape) == (SIZE, SIZE)
    sure = (seen < 32) | (seen > 223)  # not an edge, which resizing blurs
    assert sure.mean() > 0.9
    assert ((seen > 127) == region)[sure].all()


def test_parts_are_inside_and_as_large_as_asked():
    parts = np.array(random_parts(997, SIZE, 0.3, torch.Generator().manual_seed(2)))
    begin, sides = parts[:, :2], parts[:, 2:]
    assert (begin >= 0).all()
    assert (begin + sides <= SIZE).all()
    shares = sides / SIZE
    area = shares.prod(axis=1)
    assert area.min() >= 0.3 - 0.02  # sides are rounded to pixels
    assert area.max() <= 1
    assert abs(np.median(area) - 0.65) < 0.05
    ratios = shares[:, 0] / shares[:, 1]
    assert 3 / 4 - 0.05 <= ratios.min() < 0.8 < 1.25 < ratios.max() <= 4 / 3 + 0.05
    free = SIZE - sides
    places = (begin / np.maximum(free, 1))[free > 5]
    assert places.min() < 0.1
    assert places.max() > 0.9
    assert abs(places.mean() - 0.5) < 0.03
    assert set(random_parts(5, SIZE, 1.0, torch.Generator())) == {Part(0, 0, *SIZE)}
