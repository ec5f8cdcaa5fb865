"""Pretrained weights from a package or timm's hub; otherwise an error that says how to get them."""

import hashlib
import json
import os

import matplotlib.cbook
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from visattn.data.inputs import to_tensor
from visattn.errors import InputError
from visattn.export import ExportedCaptioner, load_captioner
from visattn.images import fit_image
from visattn.models import Encoder, LuongDecoder, weights
from visattn.tasks.export import export
from visattn.vocabulary import SPECIALS, Vocabulary

BACKBONE = "test_efficientnet"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that carries weights of a small backbone under names of its own; the file and timm's state."""
    torch.manual_seed(5)
    state = timm.create_model(BACKBONE).state_dict()
    (tmp_path / "carrier" / "models").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").touch()
    path = tmp_path / "carrier" / "models" / "a.pth"
    torch.save({f"_{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(state.items())}, path)
    known = weights.Package("the-carrier", "carrier", "models/a.pth", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(weights, "PACKAGES", {BACKBONE: known})
    return path, state


@pytest.mark.parametrize("stage", [-1, 2, "head"])
def test_a_package_gives_what_a_file_of_the_same_weights_gives(stage, package, no_hub, tmp_path, caplog):
    torch.save(package[1], tmp_path / "same.pth")
    ours, theirs = (Encoder(BACKBONE, stage, source) for source in ("pretrained", str(tmp_path / "same.pth")))
    with caplog.at_level("INFO", logger="visattn"):
        ours.load_weights()
    theirs.load_weights()
    assert f"weights of {BACKBONE}: the package the-carrier" in caplog.text
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_other_weights_in_the_package_are_refused(package):
    path, state = package
    torch.save({name: value + 1 for name, value in state.items()}, path)
    with pytest.raises(InputError, match=r"a\.pth .*expected weights.* the-carrier"):
        Encoder(BACKBONE, weights="pretrained").load_weights()
    path.unlink()
    with pytest.raises(InputError, match=r"a\.pth is missing; .* the-carrier"):
        Encoder(BACKBONE, weights="pretrained").load_weights()


def test_missing_package_and_hub_give_advice(no_hub, monkeypatch):
    sentence = r"test_vit could not be downloaded from timm's hub \(cannot reach the hub\); give a weights file"
    with pytest.raises(InputError, match=sentence):
        Encoder("test_vit", weights="pretrained").load_weights()
    missing = weights.Package("the-carrier", "no_such_carrier", "a.pth", "")
    monkeypatch.setattr(weights, "PACKAGES", {BACKBONE: missing})
    with pytest.raises(InputError, match=r"extra photos.*the-carrier.*weights"):
        Encoder(BACKBONE, weights="pretrained").load_weights()


def test_the_package_of_efficientnet_lite2_knows_a_uniform():
    """Class 652 of ImageNet is "military uniform"; the photograph of Grace Hopper, public domain, is matplotlib's."""
    model = timm.create_model("tf_efficientnet_lite2").eval()
    model.load_state_dict(weights.of_package("tf_efficientnet_lite2"))
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        picture, _ = fit_image(Image.open(file).convert("RGB"), (260, 260), "crop")
    pixels = Encoder("tf_efficientnet_lite2").normalise(to_tensor(picture)[None])
    with torch.inference_mode():
        assert model(pixels).argmax().item() == 652


def test_weights_of_another_layout_in_the_package_are_a_sentence(package, monkeypatch):
    path, state = package
    torch.save(dict(list(state.items())[:-3]), path)
    known = weights.Package("the-carrier", "carrier", "models/a.pth", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "PACKAGES", {BACKBONE: known})
    with pytest.raises(InputError, match="do not fit the backbone 'test_efficientnet'"):
        Encoder(BACKBONE, weights="pretrained").load_weights()


@pytest.mark.skipif("VISATTN_HUB" not in os.environ, reason="needs the network: set VISATTN_HUB=1")
def test_the_package_and_timms_hub_give_equal_features(monkeypatch):
    package, hub = (Encoder("tf_efficientnet_lite2", -1, "pretrained").eval() for _ in range(2))
    package.load_weights()
    monkeypatch.setattr(weights, "PACKAGES", {})
    hub.load_weights()
    images = torch.randint(0, 256, (2, 3, 288, 288), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(package(images).values, hub(images).values, rtol=1e-4, atol=1e-4)


@pytest.fixture
def captioner(package):
    """One whose encoder has its pretrained weights, which are to be left out of its folder."""
    torch.manual_seed(3)
    encoder = Encoder(BACKBONE, 2, "pretrained", train_from=None).eval()
    encoder.load_weights()
    words = [*SPECIALS, "a", "dog", "runs"]
    options = {"hidden": 11, "embedding": 13, "placed": 8}
    decoder = LuongDecoder(len(Vocabulary(words)), encoder.size, **options).eval()
    parts = {
        "encoder": {"class_path": "visattn.models.Encoder", "init_args": {"backbone": BACKBONE, "stage": 2}},
        "decoder": {"class_path": "visattn.models.LuongDecoder", "init_args": options},
    }
    return ExportedCaptioner(encoder, decoder, Vocabulary(words), (96, 64), "squash", 7, parts, "pretrained")


def test_a_folder_without_its_encoders_weights(captioner, no_hub, tmp_path, monkeypatch):
    images = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    folder = tmp_path / "out"
    assert export(captioner, folder, images)["safetensors"].within(0)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert all(name.startswith("decoder.") for name in file.keys())  # noqa: SIM118
    with pytest.raises(InputError, match="without its encoder's weights"):  # nothing is fetched unasked
        load_captioner(folder)
    again = load_captioner(folder, pretrained=True)
    assert not again.encoder.training
    assert again.encoder_weights == "pretrained"
    torch.testing.assert_close(again.encoder(images), captioner.encoder(images), rtol=0, atol=0)
    described = json.loads((folder / "model.json").read_text())
    assert described["encoder_weights"] == "pretrained"
    for wrong in ("hub", 3, None):
        (folder / "model.json").write_text(json.dumps(described | {"encoder_weights": wrong}))
        with pytest.raises(InputError, match=r"model\.json: encoder_weights must be one of"):
            load_captioner(folder, pretrained=True)
    (folder / "model.json").write_text(json.dumps(described))
    monkeypatch.setattr(weights, "PACKAGES", {})
    with pytest.raises(InputError, match=r"timm's hub \(cannot reach the hub\)$"):
        load_captioner(folder, pretrained=True)


def test_other_weights_than_the_pretrained_are_not_left_out(captioner, no_hub, tmp_path):
    with torch.no_grad():
        next(captioner.encoder.parameters()).add_(1e-6)
    images = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    with pytest.raises(InputError, match="not the pretrained ones"):
        export(captioner, tmp_path / "out", images)
    assert not (tmp_path / "out").exists()
    assert export(captioner._replace(encoder_weights="file"), tmp_path / "out", images)["safetensors"].within(0)
    torch.testing.assert_close(load_captioner(tmp_path / "out").encoder(images), captioner.encoder(images))
