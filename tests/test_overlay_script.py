"""visattn overlay: methods, classes and timm's models, as a user asks for them."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from visattn.cli import overlay
from visattn.data.inputs import read_fitted
from visattn.explain import record, rollout, timm_subject
from visattn.images import Geometry
from visattn.images.reading import list_images
from visattn.tasks import overlay as work
from visattn.tasks.overlay import overlay_images
from visattn.training.checkpoints import load_model
from visattn.training.classifier import Classifier


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


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("cat\ndog\nfrog\nship\ntruck\n")
    return path


METHODS = [word for name in overlay.METHODS for word in ("--method", name)]


def run(*words):
    return overlay.main([str(word) for word in words])


def test_all_methods_for_a_model_of_timm(weights, classes, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    model = ["--timm", "test_vit", "--weights", weights, "--classes", classes]
    options = ["--target", "Frog", "--layer", "1", "--head", "0", "--fusion", "max", "--discard", "0.5"]
    assert run(*model, *METHODS, *options, "--output", output, photographs) == 0
    entries = json.loads((output / "classes.json").read_text())
    assert [entry["overlay"] for entry in entries] == ["turned.png", "wide.png"]
    for entry in entries:
        with Image.open(output / entry["overlay"]) as sheet:
            assert sheet.format == "PNG"
        with np.load(output / entry["overlay"].replace("png", "npz")) as file:
            assert file["classes"].tolist() == ["cat", "dog", "frog", "ship", "truck"]
            assert file["target"] == 2
            assert entry["class"] == file["classes"][file["probabilities"].argmax()]
            assert file["layers"].shape[2:] == (10, 10)
            for name in ("raw", "rollout", "gradient_rollout", "relevance"):
                assert file[name].shape == (10, 10)
            np.testing.assert_allclose(file["raw"], file["layers"][1, 0], rtol=1e-5)
            assert (file["relevance"] >= 0).all()
            geometry = Geometry.from_array(file["geometry"])
            assert geometry.input == (160, 160)
            assert geometry.original == {"turned.png": (71, 43), "wide.png": (47, 61)}[entry["overlay"]]
            assert min(geometry.scale) * min(geometry.original) > 160  # timm's crop keeps less than all
    assert f"wide.jpg: {entries[1]['class']}" in capsys.readouterr().out


@pytest.mark.parametrize(("names", "runs"), [(["rollout", "raw"], 1), (list(overlay.METHODS), 6 + 32)])
def test_methods_share_a_run_of_the_model(names, runs, classifier_checkpoint, photographs, tmp_path):
    """All but those of a gradient, and the probabilities with them; each is what it is alone.

    Integrated gradients take 32 runs.
    """
    subject, counted = load_model(classifier_checkpoint, Classifier).subject("vit"), []
    subject.vit.model.blocks[0].register_forward_hook(lambda *_: counted.append(1))
    methods = {name: work.METHODS[name]() for name in names}
    overlay_images(subject, [photographs], tmp_path / "out", methods, exports=("npz",))
    assert len(counted) == runs
    paths = list_images([photographs])
    images = torch.stack([item.tensor for item in read_fitted(paths, subject.see)])
    pixels = subject.normalise(images)
    alone = {"probabilities": subject.probabilities(images), "layers": subject.vit.rows(pixels)}
    alone |= {name.replace("-", "_"): method(subject.vit, pixels) for name, method in methods.items()}
    for i, path in enumerate(paths):
        with np.load(tmp_path / "out" / f"{path.stem}.npz") as file:
            for name, maps in alone.items():
                np.testing.assert_array_equal(file[name], maps[i].numpy(), name)


def test_at_a_pixel_the_map_is_its_patchs_row(classifier_checkpoint, photographs, tmp_path):
    """Of the recorded weights, in both images, although their sizes put the pixel into different patches."""
    words = ["--checkpoint", classifier_checkpoint, "--at", "31,29", "--method", "raw", "--method", "rollout"]
    words += ["--method", "value-norm", "--layer", "1"]
    assert run(*words, "--output", tmp_path / "out", photographs) == 0
    subject = load_model(classifier_checkpoint, Classifier).subject("vit")
    places = []
    for item in read_fitted(list_images([photographs]), subject.see):
        pixels = subject.normalise(item.tensor[None])
        with record(subject.vit.model) as attention:
            subject.vit.model.plain_forward(pixels)
        y, x = item.geometry.to_input((29.5, 31.5))
        place = int(y // 8) * 8 + int(x // 8)
        places.append(place)
        expected = torch.stack([act.weights()[0, :, 1 + place, 1:] for act in attention]).unflatten(-1, (8, 8))
        matrix = rollout([act.weights() for act in attention])[0, 1 + place, 1:].view(8, 8)
        with np.load(tmp_path / "out" / f"{item.name}.npz") as file:
            assert file["asked"] == place
            np.testing.assert_allclose(file["layers"], expected.detach(), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(file["raw"], expected[1].mean(0).detach(), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(file["rollout"], matrix.detach(), rtol=1e-4, atol=1e-6)
            assert file["value_norm"].shape == (8, 8)
    assert len(set(places)) == 2
    with Image.open(tmp_path / "out" / "wide.png") as sheet:
        assert sheet.format == "PNG"


def test_a_model_without_classes_is_asked_about_a_pixel(photographs, tmp_path):
    subject = timm_subject("test_vit", "random", num_classes=0)
    overlay_images(subject, [photographs], tmp_path, exports=("sheet",), at=(31, 29))
    with Image.open(tmp_path / "wide.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize(
    ("at", "options", "sentence"),
    [
        ("61,5", [], "has 61×47 pixels, counted from 0, so there is no pixel 61,5"),
        ("0,5", [], "outside the part that the model sees"),
        ("30,30", ["--method", "legrad"], "--at cannot be combined with --method legrad"),
    ],
)
def test_a_pixel_that_no_patch_sees_is_one_sentence(weights, photographs, tmp_path, capsys, at, options, sentence):
    words = ["--timm", "test_vit", "--weights", weights, "--at", at, *options, "--output", tmp_path / "out"]
    assert run(*words, photographs / "wide.jpg") == 2
    assert sentence in capsys.readouterr().err


def test_a_pixel_that_a_later_picture_lacks_is_found_before_any_is_written(
    classifier_checkpoint, photographs, tmp_path, capsys
):
    words = ["--checkpoint", classifier_checkpoint, "--at", "20,60", "--batch-size", "1", "--output", tmp_path / "out"]
    assert run(*words, photographs) == 2  # turned.jpg, which comes first, has it
    assert "wide.jpg has 61×47 pixels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_batches_and_single_images_give_the_same(classifier_checkpoint, photographs, tmp_path):
    for size in ("1", "2"):
        words = ["--checkpoint", classifier_checkpoint, *METHODS, "--batch-size", size]
        assert run(*words, "--output", tmp_path / size, photographs) == 0
    for name in ("wide.npz", "turned.npz"):
        with np.load(tmp_path / "1" / name) as one, np.load(tmp_path / "2" / name) as two:
            assert set(one) == set(two)
            for key in set(one) - {"classes"}:
                np.testing.assert_allclose(one[key], two[key], rtol=1e-4, atol=1e-7)


def test_the_target_is_what_is_explained(weights, photographs, tmp_path):
    maps = {}
    for target in ("0", "4", None):
        words = [
            "--timm",
            "test_vit",
            "--weights",
            weights,
            "--method",
            "relevance",
            "--output",
            tmp_path / str(target),
        ]
        assert run(*words, *([] if target is None else ["--target", target]), photographs) == 0
        with np.load(tmp_path / str(target) / "wide.npz") as file:
            maps[int(file["target"])] = file["relevance"]
            if target is None:
                assert file["target"] == file["probabilities"].argmax()
    assert not np.allclose(maps[0], maps[4])


def test_overlay_of_a_model_without_classes(photographs, tmp_path):
    words = ["--timm", "test_vit", "--weights", "random", "--output", tmp_path / "out", photographs]
    subject = timm_subject("test_vit", "random", num_classes=0)
    entries = overlay_images(subject, [photographs], tmp_path / "features", exports=("svg",))
    assert [set(entry) for entry in entries] == [{"image", "overlay", "files"}] * 2
    assert ">attention, each on its own scale:</text>" in (tmp_path / "features" / "wide.svg").read_text()
    assert run(*words) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--timm", "resnet10t", "--weights", "random"], "resnet10t is not a Vision Transformer"),
        (["--timm", "test_vit", "--weights", "random", "--method", "raw", "--layer", "99"], "test_vit has no layer 99"),
        (["--timm", "test_vit", "--weights", "random", "--method", "raw", "--head", "99"], "test_vit has no head 99"),
        (
            ["--timm", "test_vit", "--weights", "random", "--method", "relevance", "--target", "gryphon"],
            "test_vit has no class 'gryphon'; it has 1000",
        ),
        (["--timm", "test_vit", "--weights", "random", "--image-size", "8", "8"], "smaller than a patch of test_vit"),
        (["--timm", "test_vit", "--layer", "1", "--method", "rollout"], "--layer is for --method raw"),
        (["--timm", "test_vit", "--fusion", "max", "--method", "raw"], "--fusion is for --method rollout and gradient"),
        (["--timm", "test_vit", "--discard", "1"], "the share to discard is 1.0"),
        (["--timm", "test_vit", "--target", "tabby"], "--target is for --method gradient-rollout and relevance"),
        (["--timm", "test_vit", "--weights", "random", "--classes", "none.txt"], "there is no file none.txt"),
        (["--timm", "test_vit", "--batch-size", "0"], "--batch-size is 0"),
        (["--checkpoint", "none.ckpt", "--weights", "random"], "--weights needs --model"),
    ],
)
def test_mistakes_are_one_sentence(options, sentence, photographs, tmp_path, capsys):
    assert run(*options, "--output", tmp_path / "out", photographs) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence in line
    assert not (tmp_path / "out" / "classes.json").exists()


def test_an_image_smaller_than_a_patch_is_named(tmp_path, capsys):
    Image.new("RGB", (9, 40)).save(tmp_path / "tiny.png")
    assert run("--timm", "test_vit", "--weights", "random", "--output", tmp_path / "out", tmp_path / "tiny.png") == 2
    assert "tiny.png: an image of 9×40 pixels is smaller than a patch of test_vit" in capsys.readouterr().err


@pytest.mark.parametrize("model", [[], ["--timm", "test_vit", "--checkpoint", "x.ckpt"]], ids=["none", "both"])
def test_overlay_takes_one_model(model, photographs, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        run(*model, "--output", tmp_path / "out", photographs)
    assert exit_.value.code == 2
