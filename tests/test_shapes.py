"""Scenes, captions and masks of Shapes are true and depend on (seed, index) alone."""

import numpy as np
import pytest
import torch

from visattn.data import ShapesCaptions, ShapesClasses
from visattn.data.shapes import COLOURS, RELATIONS, SHAPES
from visattn.errors import InputError

SIZES = {"train_size": 31, "val_size": 13, "test_size": 7}


def test_a_scene_depends_on_seed_and_name_alone():
    one, two = ShapesCaptions(**SIZES), ShapesCaptions(train_size=3)
    assert one.scene("train-2") == two.scene("train-2")
    assert one.examples("train")[2] == two.examples("train")[2]
    assert torch.equal(one.load(one.examples("train")[2])[0], two.load(two.examples("train")[2])[0])
    assert one.scene("train-2") != one.scene("val-2")
    assert one.scene("train-2") != ShapesCaptions(seed=1).scene("train-2")


@pytest.mark.parametrize("things", [3, 5])
def test_captions_are_true(things):
    data = ShapesCaptions(train_size=101, things=things)
    assert {len(data.scene(example.id).things) for example in data.examples("train")} == set(range(1, things + 1))
    seen = set()
    for example in data.examples("train"):
        scene = data.scene(example.id)
        assert len(example.captions) == 5
        assert all(data.facts(example.id).judge(caption).complete for caption in example.captions)
        assert max(map(len, example.captions)) <= data.max_length
        for caption in example.captions:
            text = " ".join(caption)
            named = [
                {i for i, thing in enumerate(scene.things) if thing in things}
                for word, things in zip(caption, scene.referents(caption), strict=True)
                if word in SHAPES
            ]
            assert all(len(group) == 1 for group in named)
            assert set.union(*named) == set(range(len(scene.things)))
            relation = next((relation for relation in RELATIONS if relation in text), None)
            seen.add(relation)
            if relation:
                a, b = (scene.things[group.copy().pop()] for group in named[:2])
                holds = {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
                assert holds[relation]
            assert "a orange" not in text
    assert seen == {None, *RELATIONS}


@pytest.mark.parametrize("things", [0, 6])
def test_too_many_things_are_refused(things):
    with pytest.raises(InputError, match=r"things is .* 1 and .* 5"):
        ShapesCaptions(things=things)


def test_masks_cover_the_named_colour():
    data = ShapesCaptions(**SIZES)
    for example in data.examples("val"):
        picture = data.load(example)[0].permute(1, 2, 0).numpy().astype(int)
        caption = example.captions[0]
        things = data.scene(example.id).referents(caption)
        for word, mask, named in zip(caption, data.regions(example.id, caption), things, strict=True):
            assert (mask is None) == (not named)
            if mask is not None:
                assert word in SHAPES or word in COLOURS or word in ("small", "large")
                near = np.abs(picture - COLOURS[named[0].colour]).sum(-1) < 40
                assert (mask & near).sum() > 0.6 * mask.sum()
                assert (near & ~mask).sum() < 0.6 * mask.sum() or sum(
                    t.colour == named[0].colour for t in data.scene(example.id).things
                ) > 1


def test_words_that_name_nothing_there_have_no_region():
    data = ShapesCaptions(**SIZES)
    scene = data.scene("val-0")
    absent = next(shape for shape in SHAPES if all(thing.shape != shape for thing in scene.things))
    there = scene.things[0].shape
    words = ["a", absent, "above", "a", there]
    assert [region is None for region in data.regions("val-0", words)] == [True, True, True, True, False]


def test_batches_and_vocabulary():
    data = ShapesCaptions(**SIZES, batch_size=11)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape[1:] == (3, 64, 64)
    assert len(batch.owner) == len(batch.tokens) == 11
    assert len(batch.ids) == 3  # 11 captions of five an image
    assert batch.owner.tolist() == sorted(batch.owner.tolist())
    assert data.output_names == data.vocabulary
    evaluation = list(data.val_dataloader())
    assert sum(len(b.ids) for b in evaluation) == 13
    assert sum(len(b.tokens) for b in evaluation) == 65


def test_the_class_is_the_large_ones_colour_and_classes_are_balanced():
    data = ShapesClasses(train_size=24, val_size=12, test_size=6)
    images, labels = data.tensors("train")
    assert images.shape == (24, 3, 64, 64)
    assert torch.bincount(labels).tolist() == [4] * 6
    for index in range(12):
        things = data.scene("val", index).things
        assert [thing.size for thing in things] == ["large", "small", "small"]
        assert things[0].colour == data.output_names[index % 6]


@pytest.mark.parametrize("kind", [ShapesCaptions, ShapesClasses])
def test_scenes_are_square(kind):
    with pytest.raises(InputError, match="64×96"):
        kind(image_size=(64, 96))
