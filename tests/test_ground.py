"""`visattn ground` as a user runs it, on a tiny data set in COCO's layout."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.cli import ground

# The cat has no outline, and the last picture has no instance.
CAPTIONS = {
    3: ["A red circle left of a dog", "There is a large dog above a small dog"],
    5: ["A person with a dog"],
    7: ["A blue square"],
    11: ["A cat and a dog", "a cat"],
    13: ["two people"],
}


@pytest.fixture
def root(tmp_path):
    """Dogs are the left half of four pictures, a person the right quarter of one, a cat somewhere in one."""
    root = tmp_path / "coco"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = []
    for i in CAPTIONS:
        Image.fromarray(rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 74, "width": 106})
    captions = [{"image_id": i, "caption": caption} for i, several in CAPTIONS.items() for caption in several]
    left, right = [0, 0, 53, 0, 53, 74, 0, 74], [79.5, 0, 106, 0, 106, 74, 79.5, 74]
    things = [{"image_id": i, "category_id": 1, "segmentation": [left]} for i in (3, 5, 7, 11)]
    things.append({"image_id": 5, "category_id": 2, "segmentation": [right]})
    things.append({"image_id": 11, "category_id": 4, "bbox": [1, 2, 3, 4]})
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}, {"id": 4, "name": "cat"}]
    (root / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    instances = {"images": images, "annotations": things, "categories": categories}
    (root / "instances.json").write_text(json.dumps(instances))
    return root


@pytest.fixture(scope="module")
def knows_dogs(captioner_checkpoint, tmp_path_factory):
    """The captioner of shapes, with its rarest word renamed."""
    checkpoint = torch.load(captioner_checkpoint, weights_only=True)
    checkpoint["hyper_parameters"]["output_names"][-1] = "dog"
    path = tmp_path_factory.mktemp("dogs") / "best.ckpt"
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def run(captioner_checkpoint, root, tmp_path, capsys):
    def run(*options, checkpoint=captioner_checkpoint):
        words = ["--checkpoint", checkpoint, "--root", root, "--annotations", "captions.json"]
        words += ["--instances", "instances.json", "--output", tmp_path / "new" / "scores.json", *options]
        status = ground.main([str(word) for word in words])
        return status, capsys.readouterr(), tmp_path / "new" / "scores.json"

    return run


def test_words_of_shapes_name_nothing_and_references_are_scored(run, knows_dogs):
    status, said, output = run("--batch-size", 2, checkpoint=knows_dogs)
    assert status == 0
    assert "no generated word names an annotated thing" in said.out
    result = json.loads(output.read_text())
    assert result["rows"]["generated"] == {"words": 0} | dict.fromkeys(
        ["pointing", "pointing_uniform", "pointing_centre", "mass", "mass_uniform", "mass_centre"]
    )
    row = result["rows"]["ground truth"]
    assert row["words"] == 5
    assert row["mass_uniform"] == pytest.approx(0.5)  # the dog is half of the image
    assert row["mass_centre"] == pytest.approx(0.5, abs=1e-3)
    assert row["pointing_centre"] == 1  # the centre lies within the tolerance of the dog's edge
    assert 0 < row["mass"] < 1
    assert result["categories"] == {"dog": 5}
    assert result["unknown_words"] == 1  # the person
    assert result["images"] == {"tested": 5, "scored": 3}
    assert result["fit"] == "squash"
    lines = said.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("generated "))
    header, generated, truth = lines[at - 1 : at + 2]
    assert header.split() == ["words", *list(row)[1:]]
    assert generated.split() == ["generated", "0", *"––––––"]
    assert truth.split()[:3] == ["ground", "truth", "5"]
    assert len(header) == len(generated) == len(truth)
    assert "most often named by the references: dog 5" in said.out
    assert "1 more words of the references are unknown to the model" in said.out


def test_generated_words_are_scored_where_they_name_something(run, monkeypatch):
    def name(words):
        return ["dog" if word in ("circle", "square", "triangle", "star", "cross", "a") else None for word in words]

    for module in ("photographs", "coco_words"):
        monkeypatch.setattr(f"visattn.data.{module}.categories", name)
    status, said, output = run()
    assert status == 0
    assert "no generated word" not in said.out
    result = json.loads(output.read_text())
    row, found = result["rows"]["generated"], result["objects"]
    assert row["words"] > 0
    # The last picture has no dog and, as words are read here, no caption that names one.
    assert found["images"] == 5
    assert found["CHAIR-s"] == pytest.approx(1 / 5)
    (absent,) = found["absent"]
    assert (absent["image"], set(absent["absent"])) == ("13", {"dog"})
    assert found["CHAIR-i"] == pytest.approx(len(absent["absent"]) / (5 * found["mentions"]))
    assert "in 20.0% of 5 captions (CHAIR-s)" in said.out
    assert row["mass_uniform"] == pytest.approx(0.5)
    assert row["pointing_centre"] == 1
    assert 0 <= row["pointing"] <= 1


def test_nothing_to_score_is_reported_but_not_an_error(run, root):
    content = json.loads((root / "instances.json").read_text())
    (root / "instances.json").write_text(json.dumps(content | {"annotations": []}))
    status, said, output = run("--limit", 2)
    assert status == 0
    assert "no generated word names an annotated thing\nno reference's word names an annotated thing" in said.out
    assert "NaN" not in output.read_text()
    assert json.loads(output.read_text())["images"] == {"tested": 2, "scored": 0}


def test_options_change_what_is_tested(run, root, knows_dogs):
    (root / "images").rename(root / "pictures")
    status, _, output = run("--images", "pictures", "--fit", "crop", "--limit", 1, checkpoint=knows_dogs)
    assert status == 0
    result = json.loads(output.read_text())
    assert result["fit"] == "crop"
    assert result["images"] == {"tested": 1, "scored": 1}
    # A crop to 37 of the 53 columns leaves 18.5 of the dog's 26.5.
    assert result["rows"]["ground truth"]["mass_uniform"] == pytest.approx(0.5, abs=0.02)


def test_a_file_with_splits_gives_its_test_images(run, root):
    def split(names):
        sentences = [{"tokens": ["a", "dog"]}]
        images = [{"filename": f"{i}.png", "split": s, "sentences": sentences} for i, s in names.items()]
        (root / "karpathy.json").write_text(json.dumps({"images": images}))
        status, _, output = run("--annotations", "karpathy.json")
        assert status == 0
        return json.loads(output.read_text())["images"]["tested"]

    assert split({3: "train", 5: "val", 7: "val", 11: "test"}) == 1
    assert split({3: "train", 5: "val", 7: "val", 11: "train"}) == 2


def test_images_of_other_splits_are_not_needed(run, root):
    """COCO's val2014 alone has the test images of Karpathy's file."""
    splits = {3: "train", 5: "val", 7: "test", 11: "test"}
    sentences = [{"tokens": ["a", "dog"]}]
    images = [{"filename": f"{i}.png", "split": s, "sentences": sentences} for i, s in splits.items()]
    (root / "karpathy.json").write_text(json.dumps({"images": images}))
    for i in (3, 5):
        (root / "images" / f"{i}.png").unlink()
    status, _, output = run("--annotations", "karpathy.json")
    assert status == 0
    assert json.loads(output.read_text())["images"]["tested"] == 2
    (root / "images" / "7.png").unlink()
    status, said, _ = run("--annotations", "karpathy.json")
    assert status == 2
    assert "1 of 2 annotated images" in said.err


def test_mistakes_are_named_and_leave_no_output(run, root, classifier_checkpoint, tmp_path):
    def fails(*options, **more):
        status, said, output = run(*options, **more)
        assert status == 2
        assert not output.exists()
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        return sentence

    assert "there is no checkpoint" in fails(checkpoint=tmp_path / "none.ckpt")
    assert "a checkpoint of visattn.training.captioner.Captioner is needed" in fails(checkpoint=classifier_checkpoint)
    assert "gone.json: no such" in fails("--instances", "gone.json")
    assert "gone.json: no such annotation file" in fails("--annotations", "gone.json")
    assert "limit is 0" in fails("--limit", 0)
    assert f"{tmp_path} is a folder; name a file with --output" in fails("--output", tmp_path)
    content = json.loads((root / "instances.json").read_text())
    content["images"] = []
    (root / "instances.json").write_text(json.dumps(content))
    assert "instances.json has none of the 5" in fails()


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_:
        ground.main(["--help"])
    assert exit_.value.code == 0
    assert "--instances" in capsys.readouterr().out
