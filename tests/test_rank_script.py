"""`visattn rank` as a user runs it, on models of two training steps and drawn weights."""

import json
from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
from conftest import write_cifar
from PIL import Image
from torch import nn

from visattn.cli import rank
from visattn.data import CIFAR10, ShapesClasses
from visattn.errors import InputError
from visattn.explain import LRP, METHODS, Raw, Subject, ViT
from visattn.explain.randomisation import shuffled
from visattn.images import ModelInput
from visattn.metrics import grounding, rank_correlation
from visattn.models import VisionTransformer
from visattn.tasks.rank import read_examples
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

FAST = ["--steps", "2", "--groups", "3", "--seeds", "2"]
CATEGORIES = ["cat", "dog", "frog", "ship", "truck"]


@pytest.fixture
def run(tmp_path, capsys):
    def run(*words):
        output = tmp_path / "new" / "rank"
        status = rank.main([str(word) for word in ("--output", output, *FAST, *words)])
        said = capsys.readouterr()
        return status, said, json.loads((output / "rank.json").read_text()) if status == 0 else {}

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of timm's smallest Vision Transformer, for 5 classes, drawn."""
    model = timm.create_model("test_vit", num_classes=5)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(model.state_dict(), path)
    return path


def test_maps_of_scenes_are_scored_and_ordered(run, classifier_checkpoint, tmp_path):
    words = ["--checkpoint", classifier_checkpoint, "--data", "shapes", "--limit", "3", "--insert-from", "grey"]
    status, said, found = run(*words, "--method", "raw", "--method", "lrp")
    assert status == 0
    assert set(found["maps"]) == {"raw", "lrp", "random maps", "distance to the centre"}
    coefficients = [part["saco"]["mean"] for part in found["maps"].values()]
    assert coefficients == sorted(coefficients, reverse=True)

    model = load_model(classifier_checkpoint, Classifier)
    data, vit = ShapesClasses(image_size=model.image_size, test_size=3), model.subject().vit
    images = data.tensors("test")[0][:3]
    pixels = model.normalise(images)
    with torch.no_grad():
        probability, target = model(images).softmax(-1).max(-1)
    assert [image["class"] for image in found["images"]] == [model.class_names[t] for t in target]
    assert [image["probability"] for image in found["images"]] == pytest.approx(probability.tolist(), rel=1e-4)
    for name, method in (("raw", Raw()), ("lrp", LRP())):
        maps = method(vit, pixels, target).numpy()
        with shuffled(vit):
            others = method(vit, pixels, target).numpy()
        correlations = [rank_correlation(a, b) for a, b in zip(maps, others, strict=True)]
        assert [image["scores"][name]["randomised"] for image in found["images"]] == pytest.approx(
            correlations, abs=1e-4
        )
        for n, image in enumerate(found["images"]):
            scores, scene = image["scores"][name], data.scene("test", n)
            right = image["class"] == model.class_names[n % 6]
            assert ("mass" in scores) == right
            if right:
                mask = scene.mask(scene.things[:1], 64)
                expected = grounding([maps[n].clip(min=0)], [mask], 15 * 64 / 224)
                assert (scores["pointing"], scores["mass"]) == pytest.approx(
                    (expected.pointing, expected.mass), abs=1e-4
                )
        part = found["maps"][name]
        for score in ("deletion", "insertion", "saco", "randomised"):
            values = [image["scores"][name][score] for image in found["images"]]
            assert part[score]["mean"] == pytest.approx(np.mean(values))
            assert part[score]["low"] <= part[score]["mean"] <= part[score]["high"]
            assert part[score]["images"] == 3
        assert part["inferences"] > 0
    folder = tmp_path / "new" / "rank"
    assert (folder / "rank.md").read_text().strip() in said.out
    assert "| conservative LRP | " in said.out
    assert "|steps:2|SaCo:K3,mean colour|deletion:grey|insertion:grey|input:64x64|images:3|seeds:0-1|" in said.out
    with Image.open(folder / "rank.png") as figure:
        assert figure.format == "PNG"


def test_photographs_with_outlines(run, weights, photographs, tmp_path):
    """The predicted category's outline, in the part that the model sees; a picture without one is not counted."""
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CATEGORIES))
    instances = tmp_path / "instances.json"
    polygon = [[20.0, 10.0, 50.0, 10.0, 50.0, 40.0, 20.0, 40.0]]
    content = {
        "images": [{"id": 1, "file_name": "wide.jpg", "width": 61, "height": 47}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": n, "segmentation": polygon, "iscrowd": 0} for n in range(1, 6)
        ],
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(CATEGORIES)],
    }
    instances.write_text(json.dumps(content))
    words = ["--timm", "test_vit", "--weights", weights, "--classes", names, "--instances", instances]
    status, _, found = run(*words, "--method", "raw", photographs)
    assert status == 0
    scored = {image["id"]: image["scores"]["raw"] for image in found["images"]}
    assert "mass" in scored["wide"]
    assert "mass" not in scored["turned"]
    assert found["maps"]["raw"]["mass"]["images"] == 1


def test_every_method_is_ranked_unless_some_are_asked_for(run, classifier_checkpoint):
    status, _, found = run("--checkpoint", classifier_checkpoint, "--data", "shapes", "--limit", "1")
    assert status == 0
    assert set(found["maps"]) == {*METHODS, "random maps", "distance to the centre"}


def test_shuffled_weights_are_the_same_numbers_elsewhere():
    model = timm.create_model("test_vit", num_classes=5)
    vit = ViT(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    learnt, token = Raw()(vit, pixels), torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    with shuffled(vit, 3):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
        assert not torch.equal(model.head.weight, before["head.weight"])
        other = Raw()(vit, pixels)
        with torch.no_grad():  # LeGrad reads each layer by the same head
            torch.testing.assert_close(vit.token_head(token), model.head(model.fc_norm(model.norm(token))))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with shuffled(vit, 3):
        assert torch.equal(Raw()(vit, pixels), other)
    assert not torch.allclose(other, learnt)
    with pytest.raises(RuntimeError, match="stop"), shuffled(vit, 3):
        raise RuntimeError("stop")
    assert torch.equal(Raw()(vit, pixels), learnt)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "cifar10"], "--data cifar10 needs --root"),
        (["--data", "shapes", "--root", "x"], "cannot take --root"),
        ([], "give either images and folders, or a data set"),
        (["--data", "shapes", "--instances", "x.json"], "--instances is for images"),
        (["--data", "shapes", "--groups", "1"], "--groups is 1; it must be at least 2"),
        (["--data", "shapes", "--weights", "x"], "--weights needs --model or --timm"),
    ],
)
def test_mistakes_are_one_sentence(run, classifier_checkpoint, words, sentence):
    status, said, _ = run("--checkpoint", classifier_checkpoint, *words)
    assert status == 2
    assert sentence in said.err
    assert said.err.count("\n") <= 2


def test_a_model_without_classes_and_of_other_classes_is_refused(run, weights):
    status, said, _ = run("--timm", "test_vit", "--weights", weights, "--data", "shapes")
    assert status == 2
    assert "has other classes than test_vit" in said.err


def subject_of(size, names):
    model = VisionTransformer(len(names), size, patch=8, size=12, depth=1, heads=3)
    return Subject(ViT(model, "a model"), nn.Identity(), ModelInput(size, "squash").fit_image, names)


def test_images_of_a_data_set_have_the_size_that_the_model_takes(tmp_path, monkeypatch):
    asked = {"images": [], "instances": None, "split": None, "limit": 3}
    scenes = read_examples(
        subject_of((40, 40), ShapesClasses().class_names), Namespace(data="shapes", root=None, **asked)
    )
    assert [tuple(scene[1].shape) for scene in scenes] == 3 * [(3, 40, 40)]
    options = Namespace(data="cifar10", root=write_cifar(tmp_path, monkeypatch), **asked)
    assert len(read_examples(subject_of((32, 32), CIFAR10.names.split()), options)) == 3
    with pytest.raises(InputError, match=r"32×32 .* 40×40"):
        read_examples(subject_of((40, 40), CIFAR10.names.split()), options)
