"""`visattn faithfulness` as a user runs it, on models of two training steps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.cli import faithfulness
from visattn.data import ShapesCaptions, ShapesClasses
from visattn.explain import GradientRollout, Raw, Relevance, Rollout
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier

FAST = ["--steps", "3", "--seeds", "2"]


@pytest.fixture
def run(tmp_path, capsys):
    def run(checkpoint, *words, fast=True):
        output = tmp_path / "new" / "faithful"
        arguments = ["--checkpoint", checkpoint, "--output", output, *(FAST if fast else []), *words]
        status = faithfulness.main([str(word) for word in arguments])
        said = capsys.readouterr()
        return status, said, json.loads((output / "faithfulness.json").read_text()) if status == 0 else {}

    return run


def grey(model, normalise):
    return (255 * normalise.mean).expand(3, *model.image_size)


def test_a_classifier_loses_its_class(run, classifier_checkpoint, tmp_path):
    status, said, found = run(classifier_checkpoint, "--data", "shapes", "--limit", 3)
    assert status == 0
    assert found["unit"] == "probability of the class"
    assert found["share"] == pytest.approx([0, 1365 / 4096, 2730 / 4096, 1])
    (group,) = found["groups"].values()
    assert (group["targets"], group["images"]) == (3, 3)
    assert list(group["maps"])[4:] == ["random maps", "distance to the centre"]
    assert "ablation" not in found
    model = load_model(classifier_checkpoint, Classifier)
    images = ShapesClasses(image_size=model.image_size).tensors("test")[0][:3]
    with torch.inference_mode():
        whole = model(images).softmax(dim=-1)
        nothing = model(grey(model, model.normalise)[None]).softmax(dim=-1)
    top = whole.argmax(dim=-1)
    assert [name for _, name, _ in found["targets"]] == [model.class_names[i] for i in top]
    first, last = whole[range(3), top].mean().item(), nothing[0, top].mean().item()
    for ways in group["maps"].values():
        deletion, insertion = ways["deletion"], ways["insertion"]
        assert deletion["curve"][0] == pytest.approx(first, abs=1e-5)
        assert deletion["curve"][-1] == pytest.approx(last, abs=1e-5)
        assert insertion["curve"][-1] == pytest.approx(first, abs=1e-5)
        for part in (deletion, insertion):
            assert part["area"] == pytest.approx(np.trapezoid(part["curve"], found["share"]))
    for name, ways in group["maps"].items():
        gap = ways["deletion"].get("minus random maps")
        if name != "random maps":
            expected = ways["deletion"]["area"] - group["maps"]["random maps"]["deletion"]["area"]
            assert gap["mean"] == pytest.approx(expected)
            assert gap["images"] == 3
    folder = tmp_path / "new" / "faithful"
    with Image.open(folder / "faithfulness.png") as figure:
        assert figure.size[0] == 1800
    assert (folder / "faithfulness.md").read_text().strip() in said.out
    names = [str(method) for method in (Raw(), Rollout(), GradientRollout(), Relevance())]
    assert list(group["maps"])[:-2] == names
    assert all(f"| {name} | " in said.out for name in names)
    assert "|steps:3|deletion:grey|insertion:blur(3, 1.43)|input:64x64|precision:32|images:3|seeds:0-1|" in said.out


def test_a_captioner_loses_its_words_and_its_attention(run, captioner_checkpoint):
    status, said, found = run(captioner_checkpoint, "--data", "shapes", "--limit", 3, "--curves", 2, "--units", "cells")
    assert status == 0
    model = load_model(captioner_checkpoint, Captioner)
    data = ShapesCaptions(image_size=model.image_size)
    examples = data.examples("test")[:3]
    images = torch.stack([data.load(example)[0] for example in examples])
    own = [caption for (caption,) in model.caption(images)]
    assert [name for _, name, _ in found["targets"]] == [word for caption in own[:2] for word in caption.words]
    assert {image for image, *_ in found["targets"]} == {"test-0", "test-1"}
    everything = found["groups"]["all words"]
    assert list(everything["maps"]) == ["attention", "relevance", "random maps", "distance to the centre"]
    assert everything["targets"] == len(found["targets"])
    read = model.read(images[:2], [caption.words for caption in own[:2]])
    whole = np.concatenate([caption.log_probs for caption in read])
    for ways in everything["maps"].values():
        assert ways["deletion"]["curve"][0] == pytest.approx(whole.mean(), abs=1e-4)
        assert ways["insertion"]["curve"][-1] == pytest.approx(whole.mean(), abs=1e-4)
    nothing = model.read(grey(model, model.encoder.normalise).expand(2, -1, -1, -1), [c.words for c in own[:2]])
    lost = whole - np.concatenate([caption.log_probs for caption in nothing])
    np.testing.assert_allclose([needed for *_, needed in found["targets"]], lost, atol=1e-4)

    variants = found["ablation"]["variants"]
    assert list(variants) == ["as trained", "uniform α", "shuffled α"]
    references = [[caption[: data.max_length] for caption in example.captions] for example in examples]
    log_probs = [model.read(images[n : n + 1].expand(5, -1, -1, -1), several) for n, several in enumerate(references)]
    tokens = sum(len(caption) + 1 for several in references for caption in several)
    total = sum(caption.log_prob for several in log_probs for caption in several)
    assert found["ablation"]["tokens"]["references"] == tokens
    assert variants["as trained"]["references_log_prob"] == pytest.approx(total / tokens, abs=1e-4)
    assert variants["as trained"]["captions_changed"] == 0
    assert "deviation" not in variants["uniform α"]
    assert set(variants["shuffled α"]["deviation"]) == set(variants["as trained"])
    assert len({round(numbers["references_log_prob"], 6) for numbers in variants.values()}) == 3
    assert "α ablated: 3 images; tokens: " in said.out
    assert "| uniform α | −" in said.out
    assert "|images:2|" in found["signature"]


def test_pictures_of_any_kind_have_no_references(run, hard_checkpoint, photographs):
    options = ["--insert-from", "grey", "--seeds", 1, "--seed", 7, "--method", "attention"]
    status, said, found = run(hard_checkpoint, photographs, *options)
    assert status == 0
    assert {image for image, *_ in found["targets"]} == {"turned", "wide"}
    numbers = found["ablation"]["variants"]["uniform α"]
    assert set(numbers) == {"own_log_prob", "captions_changed"}
    assert "CIDEr-D" not in said.out
    assert "|insertion:grey|" in found["signature"]
    assert "|seeds:7-7|" in found["signature"]
    for group in found["groups"].values():
        ways = group["maps"]["attention"]
        assert "relevance" not in group["maps"]
        assert ways["insertion"]["curve"][0] == pytest.approx(ways["deletion"]["curve"][-1], abs=1e-4)


def test_captioned_photographs(run, captioner_checkpoint, karpathy_root):
    options = ["--data", "photographs", "--root", karpathy_root, "--annotations", "dataset_flickr8k.json"]
    options += ["--split", "val", "--limit", 2, "--method", "attention", "--precision", "bf16"]
    status, _, found = run(captioner_checkpoint, *options)
    assert status == 0
    assert found["ablation"]["images"] == 2
    assert found["ablation"]["variants"]["as trained"]["CIDEr-D"] >= 0
    assert "|precision:bf16|" in found["signature"]


def test_classes_of_cifar(run, classifier_checkpoint, cifar_root):
    status, said, _ = run(classifier_checkpoint, "--data", "cifar10", "--root", cifar_root, "--limit", 2)
    assert status == 2  # pictures of 32 pixels are not what this model takes
    assert "--data cifar10 has images of 32×32 pixels, but the model takes 64×64" in said.err


def test_seeds_decide_everything(run, captioner_checkpoint):
    options = ["--data", "shapes", "--limit", 1, "--method", "attention"]
    first, again, other = (run(captioner_checkpoint, *options, "--seed", seed)[2] for seed in (3, 3, 5))
    assert first == again
    for part in ("groups", "ablation"):
        assert first[part] != other[part]


def test_mistakes_are_named(run, captioner_checkpoint, classifier_checkpoint, photographs, tmp_path):
    def fails(*words, checkpoint=captioner_checkpoint):
        status, said, _ = run(checkpoint, *words)
        assert status == 2
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return sentence

    assert "there is no checkpoint" in fails(photographs, checkpoint=tmp_path / "none.ckpt")
    assert "or a data set with --data" in fails()
    assert "or a data set with --data" in fails(photographs, "--data", "shapes")
    assert "--data photographs needs --root" in fails("--data", "photographs")
    assert "--data photographs needs --annotations" in fails("--data", "photographs", "--root", tmp_path)
    assert "--data shapes cannot take --root" in fails("--data", "shapes", "--root", tmp_path)
    assert "images cannot take --annotations" in fails(photographs, "--annotations", "a.json")
    assert "--data cifar10 does not fit a captioner" in fails("--data", "cifar10", "--root", tmp_path)
    one = {"images": [{"id": 1, "file_name": "wide.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    (photographs / "one.json").write_text(json.dumps(one))  # too few to hold out any for validation
    options = ["--data", "photographs", "--root", photographs, "--annotations", "one.json", "--pictures", "."]
    assert "one.json has no test or val split" in fails(*options)
    options = ["--data", "photographs", "--root", tmp_path, "--annotations", "a.json"]
    assert "--data photographs does not fit a classifier" in fails(*options, checkpoint=classifier_checkpoint)
    sentence = fails("--data", "shapes", "--method", "rollout")
    assert "--method rollout" in sentence
    for name in ("steps", "seeds", "batch-size", "limit", "curves"):
        assert f"--{name} is 0; it must be at least 1" in fails("--data", "shapes", f"--{name}", 0)
    sentence = fails("--data", "shapes", "--limit", 1, "--units", "cells", "--steps", 65)
    assert "steps is 65; it must be from 1 to 64" in sentence
