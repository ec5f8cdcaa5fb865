"""timm's Vision Transformers as subjects: their own preprocessing on original pixels, weights and names of classes."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from visattn.errors import InputError
from visattn.explain import Relevance, timm_subject
from visattn.explain.libraries.timm import timm_fitting

SMALL = {"depth": 2, "embed_dim": 30, "num_heads": 5}
NAME = "vit_tiny_patch16_224"
CONFIG = {"interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
FITS = {
    "crop": {"crop_pct": 0.9, "crop_mode": "center", "size": (112, 112)},
    "crop to a rectangle": {"crop_pct": 0.875, "crop_mode": "center", "size": (96, 160)},
    "squash": {"crop_pct": 1.0, "crop_mode": "squash", "size": (96, 160)},
    "squash and crop": {"crop_pct": 0.95, "crop_mode": "squash", "size": (112, 112)},
    "pad": {"crop_pct": 1.0, "crop_mode": "border", "size": (112, 112)},
    "pad and crop": {"crop_pct": 0.9, "crop_mode": "border", "size": (112, 112)},
}
every_fit = pytest.mark.parametrize("config", FITS.values(), ids=FITS)
sides = pytest.mark.parametrize("size", [(427, 640), (501, 333), (113, 112), (37, 211)], ids=str)


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@sides
@every_fit
def test_the_input_is_timms_to_the_last_bit(config, size):
    image, options = noise(*size), CONFIG | config
    expected = create_transform(options["size"], **{key: options[key] for key in options if key != "size"})(image)
    fitted, geometry = timm_fitting(options).at()(image)
    mean, std = (torch.tensor(CONFIG[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close((torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255 - mean) / std, expected)
    assert geometry.original == size
    assert geometry.input == options["size"] == (fitted.height, fitted.width)


@sides
@every_fit
def test_a_bright_dot_comes_back_to_its_pixels(config, size):
    """Where the input has a blot, the geometry says where it is in the original, within a pixel of either."""
    fit = timm_fitting(CONFIG | config).at()
    height, width = size
    dark = np.zeros((height, width, 3), dtype=np.uint8)
    without, _ = fit(Image.fromarray(dark))
    for y, x in ((height // 2 - 3, width // 2 + 2), (height // 2 + 7, width // 2 - 5)):
        picture = dark.copy()
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
        fitted, geometry = fit(Image.fromarray(picture))
        light = np.asarray(fitted, dtype=float).sum(-1) - np.asarray(without, dtype=float).sum(-1)
        light[light < 0.5 * light.max()] = 0
        centre = np.array([(np.indices(light.shape)[axis] + 0.5)[light > 0].mean() for axis in (0, 1)])
        found = geometry.to_original(centre)
        tolerance = np.maximum(1, 1 / np.array(geometry.scale))
        assert (np.abs(found - (y + 0.5, x + 0.5)) <= tolerance).all()


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_sides_that_differ_too_much_are_refused(mode):
    fit = timm_fitting(CONFIG | {"crop_pct": 0.9, "crop_mode": mode, "size": (112, 112)}).at()
    image = Image.new("RGB", (50_000, 1))
    if mode == "squash":
        assert fit(image)[0].size == (112, 112)
    else:
        with pytest.raises(InputError, match="50000×1 pixels cannot be resized to 112×112"):
            fit(image)


def test_a_subject_is_the_model_as_timm_runs_it(tmp_path):
    """Its file's classes, its own normalisation: probabilities equal those of timm's own pipeline."""
    source = timm.create_model(NAME, num_classes=11, **SMALL).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    image = noise(427, 640)
    expected = source(create_transform(**resolve_model_data_config(source))(image)[None]).softmax(-1)
    for file in ("w.safetensors", "w.pth"):
        subject = timm_subject(NAME, tmp_path / file, **SMALL)
        pixels = torch.from_numpy(np.array(subject.see(image)[0])).permute(2, 0, 1)[None]
        torch.testing.assert_close(subject.probabilities(pixels), expected, rtol=1e-4, atol=1e-6)
        assert subject.class_names == [str(n) for n in range(11)]


def test_weights_of_another_size_are_resampled(tmp_path, caplog):
    save_file(timm.create_model(NAME, num_classes=5, **SMALL).state_dict(), tmp_path / "w.safetensors")
    with caplog.at_level("INFO", "visattn"):
        subject = timm_subject(NAME, tmp_path / "w.safetensors", image_size=(48, 80), **SMALL)
    assert "position embeddings resampled from 14×14 to 3×5" in caplog.text
    assert subject.vit.grid((48, 80)) == (3, 5)
    fitted, geometry = subject.see(noise(100, 100))
    assert fitted.size == (80, 48)
    assert geometry.input == (48, 80)
    assert Relevance()(subject.vit, torch.randn(1, 3, 48, 80)).shape == (1, 3, 5)


def test_classes_are_named_after_imagenet_where_they_are_as_many():
    names = timm_subject(NAME, "random", **SMALL).class_names
    assert (names[0], names[207], names[281]) == ("tench", "golden retriever", "tabby")
    assert (names[134], names[517]) == ("crane (134)", "crane (517)")  # a bird and a machine
    assert len(set(names)) == 1000
    assert timm_subject(NAME, "random", num_classes=3, **SMALL).class_names == ["0", "1", "2"]
    assert timm_subject(NAME, "random", ["a", "b"], num_classes=2, **SMALL).class_names == ["a", "b"]
    assert timm_subject(NAME, "random", num_classes=0, **SMALL).class_names == []


def test_a_target_is_found_by_name_or_number():
    subject = timm_subject(NAME, "random", ["dog", "Cat", "Dog", "12"], num_classes=4, **SMALL)
    assert [subject.target(name) for name in ("cat", "3", "12")] == [1, 3, 3]
    for name, message in (
        ("dog", "2 classes of vit_tiny_patch16_224 are named 'dog'; give a number: 0, 2"),
        ("4", "vit_tiny_patch16_224 has no class '4'; it has 4 classes, numbered from 0"),
        ("ca", "similar: Cat"),
        ("-1", "no class '-1'"),
    ):
        with pytest.raises(InputError, match=message):
            subject.target(name)


def test_a_map_is_the_methods_for_the_class_asked_for_or_the_likeliest():
    torch.manual_seed(5)
    subject = timm_subject(NAME, "random", ["dog", "cat", "bat"], num_classes=3, **SMALL)
    torch.nn.init.normal_(subject.vit.model.head.weight)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (71, 53, 3), dtype=np.uint8))
    fitted, geometry = subject.see(picture)
    images = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
    likeliest = int(subject.probabilities(images).argmax())
    for number, target in [(likeliest, None), (0, "dog"), (1, "1"), (2, "bat")]:
        weights, found = subject.map(picture, Relevance(), target)
        expected = Relevance()(subject.vit, subject.normalise(images), torch.tensor([number]))[0]
        np.testing.assert_allclose(weights, expected.numpy(), rtol=1e-5, atol=1e-8)
        assert found == geometry
    with pytest.raises(InputError, match="cow"):
        subject.map(picture, Relevance(), "cow")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_tinny", {}, "timm has no model named 'vit_tinny'"),
        ("resnet10t", {"weights": "random"}, "resnet10t is not a Vision Transformer"),
        ("resnet10t", {"weights": "random", "image_size": (64, 64)}, "timm cannot create resnet10t with img_size"),
        (NAME, {"weights": "none.pth"}, "there is no weights file none.pth"),
        (NAME, {"weights": "random", "class_names": ["a"], **SMALL}, "1 class names were given, but .* has 1000"),
        (NAME, {"weights": "random", "image_size": (8, 48), **SMALL}, "48×8 pixels is smaller than a patch"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(InputError, match=message):
        timm_subject(name, **options)


def test_wrong_weights_are_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet.safetensors")
    for file in ("bad.safetensors", "bad.pth", "resnet.safetensors"):
        with pytest.raises(InputError, match=f"{file} does not hold weights of {NAME}"):
            timm_subject(NAME, tmp_path / file, **SMALL)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(InputError, match=r"timm's hub \(\w*Error: .*--weights random"):
        timm_subject(NAME)


def test_pictures_smaller_than_a_patch_are_refused():
    subject = timm_subject(NAME, "random", **SMALL)
    with pytest.raises(InputError, match=r"15×40 .*vit_tiny_patch16_224, 16×16"):
        subject.see(Image.new("RGB", (15, 40)))
    assert subject.see(Image.new("RGB", (16, 16)))[0].size == (224, 224)


def test_pixels_that_fill_no_patch_are_not_seen():
    """Pixels that timm drops at the right and at the bottom have no effect, and no map covers them."""
    subject = timm_subject(NAME, "random", image_size=(43, 61), **SMALL)
    assert subject.vit.grid((43, 61)) == (2, 3)
    _, geometry = subject.see(noise(86, 122))
    laid = geometry.to_original_map(np.arange(6, dtype=np.float32).reshape(2, 3), "nearest")
    for y, x in ((11, 7), (61, 91), (31, 43)):
        seen = geometry.to_input(np.array([y + 0.5, x + 0.5])) // 16
        assert laid[y, x] == 3 * seen[0] + seen[1]
    *_, bottom, right = geometry.visible()
    assert np.isnan(laid[int(bottom) + 1 :]).all()
    assert np.isnan(laid[:, int(right) + 1 :]).all()
    pixels = torch.randn(1, 3, 43, 61)
    cut = pixels.clone()
    cut[:, :, 32:] = 0
    cut[..., 48:] = 0
    with torch.no_grad():
        torch.testing.assert_close(subject.vit.model(pixels), subject.vit.model(cut))


def test_patches_that_are_padded_see_all():
    subject = timm_subject(NAME, "random", image_size=(43, 61), dynamic_img_pad=True, **SMALL)
    cells = subject.vit.cells((43, 61))
    assert subject.vit.grid((43, 61)) == (3, 4)
    assert (*cells, *cells.stride, cells.seen[1]) == (0, 0, 16, 16, (43, 61))


def test_a_hybrids_cells_are_where_its_convolutions_look():
    """The middle cell's token reacts most to a dot at the cell's stated centre."""
    vit = timm_subject("vit_tiny_r_s16_p8_224", "random", depth=1).vit
    cells, size = vit.cells((224, 224)), 224
    assert vit.grid((size, size)) == (7, 7)
    torch.manual_seed(0)
    middles = []
    for _ in range(3):
        pixels = torch.randn(1, 3, size, size, requires_grad=True)
        tokens = vit.model.patch_embed(pixels)
        (gradient,) = torch.autograd.grad((tokens[0, 24] * torch.randn(tokens.shape[-1])).sum(), pixels)
        weight = gradient[0].square().sum((0, 1))
        middles.append(float((weight * (torch.arange(size) + 0.5)).sum() / weight.sum()))
    assert (3 + 0.5) * cells.stride[1] + cells[1] == pytest.approx(np.mean(middles), abs=3)
    assert cells != (0, 0)
