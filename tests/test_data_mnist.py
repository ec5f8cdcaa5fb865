"""MNIST in larger pictures, and cluttered scenes: functions of seed, split and index."""

import pytest
import torch

from visattn.data import MNIST, ShapesCluttered
from visattn.data.loading import BatchName
from visattn.data.shapes import COLOURS
from visattn.errors import InputError
from visattn.training.callbacks.validation_images import examples_of


@pytest.fixture
def root(mnist_root):
    return mnist_root


def batch(data, loader, number=0, epoch=0):
    dataset = getattr(data, f"{loader}_dataloader")().dataset
    return dataset[BatchName(epoch, number)] if loader == "train" else dataset.__getitems__([number, number + 1])


def test_the_digit_alone_is_torchvisions(root):
    data = MNIST(root, download=False, val_fraction=0.0)
    images, labels = data.tensors("train")
    assert images.shape == (37, 3, 28, 28)
    shown = batch(data, "train")
    order = [data.ids("train").index(name) for name in shown.ids]
    assert torch.equal(shown.images, images[order])
    assert torch.equal(shown.labels, labels[order])


def test_a_digit_stands_whole_somewhere_in_a_larger_picture(root):
    data = MNIST(root, download=False, side=61)
    shown, (digits, _) = batch(data, "test", 3), data.tensors("test")
    places = set()
    for picture, digit in zip(shown.images, digits[3:5], strict=True):
        y, x = (int(at[0]) for at in (picture[0].any(1).nonzero(), picture[0].any(0).nonzero()))
        assert torch.equal(picture[:, y : y + 28, x : x + 28], digit)
        assert picture.sum() == digit.sum()
        places.add((y, x))
    assert len(places) == 2


def test_clutter_adds_pieces_and_covers_nothing(root):
    plain, cluttered = (MNIST(root, download=False, side=61, clutter=n) for n in (0, 5))
    one, other = batch(plain, "test").images, batch(cluttered, "test").images
    assert (other >= one).all()
    assert (other[0] != one[0]).any()


def test_examples_of_callbacks_are_pictures_as_they_are_validated(root):
    data = MNIST(root, download=False, side=61, clutter=3)
    pictures = {name: image for part in [batch(data, "val")] for name, image in zip(part.ids, part.images, strict=True)}
    shown = {example.id: example for example in examples_of(data, 10**6)}
    for name, picture in pictures.items():
        assert torch.equal(shown[name].tensor, picture)
        assert shown[name].original.shape == (61, 61, 3)


def test_padding_is_compared_with_the_picture(root):
    assert batch(MNIST(root, download=False, side=60, padding=30), "train").images.shape[2:] == (60, 60)
    with pytest.raises(InputError, match=r"padding is 60.* 60$"):
        batch(MNIST(root, download=False, side=60, padding=60), "train")


def test_training_pictures_may_be_shifted(root):
    plain, shifted = (MNIST(root, download=False, side=40, padding=n) for n in (0, 2))
    one, other = batch(plain, "train"), batch(shifted, "train")
    assert one.ids == other.ids
    inner = one.images[:, :, 2:-2, 2:-2]
    found = [
        {(y, x) for y in range(5) for x in range(5) if torch.equal(moved[:, y : y + 36, x : x + 36], picture)}
        for moved, picture in zip(other.images, inner, strict=True)
    ]
    assert all(found)
    assert len(set().union(*found)) > 3
    assert torch.equal(batch(plain, "test").images, batch(shifted, "test").images)


def test_evaluation_shows_the_same_pictures_and_every_epoch_others(root):
    data = [MNIST(root, download=False, side=40, clutter=1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(batch(data[0], "val").images, batch(data[1], "val").images)
    digits = data[0].tensors("train")[0][:5]
    shown = [d.arrange(digits, range(5), "train", epoch) for d, epoch in ((data[0], 0), (data[1], 0), (data[0], 1))]
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], data[2].arrange(digits, range(5), "train", 0))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"side": 27}, "side is 27"), ({"clutter": -1}, "clutter is -1"), ({"val_fraction": 1.0}, "val_fraction")],
)
def test_options_of_mnist_are_checked(tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        MNIST(tmp_path, **options)


def test_mnist_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="does not contain MNIST"):
        MNIST(tmp_path, download=False).tensors("test")


@pytest.mark.parametrize("question", ["mark", "shape", "colour"])
def test_the_class_of_a_cluttered_scene_is_the_answer(question):
    data = ShapesCluttered(train_size=7, question=question, clutter=3)
    for index in range(7):
        marked = data.scene("train", index)
        large, mark = marked.scene.things[0], marked.marks[0]
        assert large.size == "large"
        answer = {"mark": mark.colour, "shape": mark.shape, "colour": large.colour}[question]
        assert answer == data.class_names[index % len(data.class_names)]
        assert all(mark.colour != thing.colour for mark, thing in zip(marked.marks, marked.scene.things, strict=True))
        assert len({(thing.shape, thing.colour) for thing in marked.scene.things}) == 3


def test_the_large_thing_and_its_mark_have_their_colours_where_they_are():
    data = ShapesCluttered(train_size=5, question="mark", image_size=(101, 101))
    images, labels = data.tensors("train")
    for index in range(5):
        thing = data.scene("train", index).scene.things[0]
        pixel = images[index, :, int(thing.y * 101), int(thing.x * 101)]
        assert pixel.tolist() == list(COLOURS[data.class_names[labels[index]]])


@pytest.mark.parametrize(
    ("options", "named"),
    [({"clutter": -1}, "clutter"), ({"question": "size"}, "question.*size"), ({"image_size": (64, 96)}, "square")],
)
def test_options_of_cluttered_scenes_are_checked(options, named):
    with pytest.raises(InputError, match=named):
        ShapesCluttered(**options)
