"""The example that trains a head of COCO's categories on a frozen Vision Transformer."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from visattn.explain import timm_subject

PATH = Path(__file__).parent.parent / "docs" / "examples" / "coco_head.py"
COUNTS = {"apple": 11, "frog": 13, "ship": 2}
COLOURS = {"apple": (200, 30, 30), "frog": (30, 190, 40), "ship": (90, 90, 90)}


@pytest.fixture(scope="module")
def head():
    spec = importlib.util.spec_from_file_location("coco_head", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(tmp_path):
    """Photographs in the colour of their largest thing; a corner of each, too small to count, is outlined as a ship."""
    rng, images, things = np.random.default_rng(0), [], []
    (tmp_path / "images").mkdir()
    names = list(COUNTS)
    for name in [name for name, count in COUNTS.items() for _ in range(count)]:
        number = len(images)
        images.append({"id": number, "file_name": f"{number}.png", "height": 163, "width": 179})
        pixels = np.clip(np.array(COLOURS[name]) + rng.integers(-25, 26, (163, 179, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / f"{number}.png")
        for category, side in ((name, 110), ("ship", 20)):
            outline = [[40, 30, 40 + side, 30, 40 + side, 30 + side, 40, 30 + side]]
            things.append({"image_id": number, "category_id": names.index(category), "segmentation": outline})
    Image.new("RGB", (163, 179)).save(tmp_path / "images" / "unlisted.png")
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    content = {"images": images, "annotations": things, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def test_a_head_is_trained_and_written_with_what_it_has_not_seen(head, photographs, capsys):
    torch.manual_seed(0)
    weights = photographs / "w.pth"
    torch.save(timm.create_model("test_vit", num_classes=5).state_dict(), weights)
    out = photographs / "head"
    words = ["--timm", "test_vit", "--weights", weights, "--image-size", "160", "--fewest", "3", "--output", out]
    words += ["--instances", photographs / "instances.json", photographs / "images"]
    assert head.main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "24 photographs of 2 categories; the most frequent: 54.2%" in said
    assert "right in cross-validation: 100.0%" in said
    assert (out / "names.txt").read_text().split() == ["apple", "frog"]
    held_out = sorted((out / "held_out").iterdir())
    assert len(held_out) == 5
    found = timm_subject("test_vit", out / "weights.safetensors", ["apple", "frog"])
    for path in held_out:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(found.see(image)[0])).permute(2, 0, 1)[None]
        assert found.class_names[found.probabilities(pixels).argmax()] == ("frog" if int(path.stem) > 10 else "apple")
    before, after = torch.load(weights), found.vit.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items() if not name.startswith("head"))


def test_the_regression_is_at_the_least_loss(head):
    generator = torch.Generator().manual_seed(1)
    x = 3 + 5 * torch.randn(37, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (37,), generator=generator)
    weight, bias = head.fitted(x, labels, 3, 0.01)
    mean, std = x.mean(0), x.std(0)
    of_standard = (weight * std).requires_grad_()
    constant = (bias + weight @ mean).requires_grad_()
    loss = F.cross_entropy((x - mean) / std @ of_standard.T + constant, labels) + 0.005 * of_standard.square().sum()
    for gradient in torch.autograd.grad(loss, (of_standard, constant)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-5)


def test_folds_hold_as_many_of_each_label(head):
    labels = torch.arange(3).repeat_interleave(torch.tensor([11, 5, 2]))
    fold = head.dealt(labels, 5, seed=0)
    counts = torch.stack([(fold[labels == n]).bincount(minlength=5) for n in range(3)])
    assert (counts.max(1).values - counts.min(1).values <= 1).all()
    assert not torch.equal(fold, head.dealt(labels, 5, seed=1))


def test_too_few_photographs_are_named(head, photographs, capsys):
    words = ["--timm", "test_vit", "--weights", "random", "--image-size", "160", "--fewest", "12"]
    places = ["--instances", photographs / "instances.json", "--output", photographs / "head", photographs / "images"]
    assert head.main([str(word) for word in (*words, *places)]) == 2
    assert "--fewest" in capsys.readouterr().err
    assert not (photographs / "head").exists()
