"""torchvision's and OpenCLIP's transformers: maps against their own attention, preprocessing against their own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from support.added import norms_of_what_is_added

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import Layered, Raw, Relevance, Rollout, ValueNorm, ViT, as_read, record, subject_of
from visattn.explain.libraries.open_clip import open_clip_fitting
from visattn.explain.libraries.torchvision import torchvision_fitting

SMALL = {"num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 31}


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def drawn(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model.eval()


def pixels(*size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def own_attentions(model, images):
    """What each `nn.MultiheadAttention` of a model itself says of its weights (B, heads, N, M), when asked for them."""
    caught = []

    def ask(module, args, options, out):
        options = options | {"need_weights": True, "average_attn_weights": False}
        caught.append(type(module).forward(module, *args, **options)[1])

    parts = [part for part in model.modules() if isinstance(part, torch.nn.MultiheadAttention)]
    hooks = [part.register_forward_hook(ask, with_kwargs=True) for part in parts]
    model(images)
    for hook in hooks:
        hook.remove()
    return caught


def test_torchvisions_vision_transformer():
    torch.manual_seed(0)
    model = drawn(torchvision.models.VisionTransformer(40, 8, 2, 3, 24, 31, num_classes=7))
    torch.nn.init.normal_(model.encoder.pos_embedding)
    vit, images = as_read(model, "torchvision's", (40, 40)), pixels(40, 40)
    assert type(vit) is ViT
    assert (vit.depth, vit.prefix, vit.classes, vit.grid((40, 40))) == (2, 1, 7, (5, 5))
    maps = vit.rows(images)
    for layer, own in enumerate(own_attentions(model, images)):
        torch.testing.assert_close(maps[:, layer].flatten(-2), own[..., 0, 1:], rtol=0, atol=1e-5)
    assert Relevance()(vit, images).shape == Rollout()(vit, images).shape == (2, 5, 5)
    with pytest.raises(InputError, match="takes images of 40×40 pixels, not 48×40"):
        Raw()(vit, pixels(40, 48))


def test_value_norm_of_torchvisions():
    model = drawn(torchvision.models.VisionTransformer(40, 8, 2, 3, 24, 31, num_classes=7))
    vit, images = as_read(model, "torchvision's", (40, 40)), pixels(40, 40)
    added = norms_of_what_is_added(model, model.encoder.layers[1].self_attention, images, 1, 26)
    torch.testing.assert_close(ValueNorm()(vit, images).flatten(1), added[:, 0, 1:], rtol=1e-3, atol=1e-5)


def test_torchvisions_outputs_stay_as_they_are(one_thread):
    """To the last bit where PyTorch does not take its fast path of whole attention modules, which hides attention."""
    model = drawn(torchvision.models.VisionTransformer(40, 8, 2, 3, 24, 31, num_classes=7))
    swin = drawn(torchvision.models.SwinTransformer([4, 4], 12, [2, 1], [2, 3], [4, 4], num_classes=7))
    for network, images in ((model, pixels(40, 40)), (swin, pixels(32, 64))):
        plain = network(images)  # with gradients: no fast path
        with record(network) as attention:
            assert torch.equal(network(images), plain)
        assert len(attention) == (2 if network is model else 3)
        with torch.no_grad(), record(network):
            torch.testing.assert_close(network(images), plain)


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_torchvisions_windows_are_laid_on_the_image(name, monkeypatch):
    """Against the softmax that torchvision itself takes, windows laid out by hand and their shift undone."""
    parts = torchvision.models.swin_transformer
    block, merging = parts.SwinTransformerBlock, parts.PatchMerging
    if "v2" in name:
        block, merging = parts.SwinTransformerBlockV2, parts.PatchMergingV2
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer(
        [4, 4], 12, [2, 1], [2, 3], [4, 4], num_classes=7, block=block, downsample_layer=merging
    )
    images, found, caught = pixels(32, 64), {}, []
    vit = as_read(drawn(swin), name, (32, 64))
    assert type(vit) is Layered
    with torch.no_grad():
        vit.run(images, lambda layer, call: found.update({layer: vit.received(layer, call)}))
        softmax = torch.nn.functional.softmax
        with monkeypatch.context() as patch:
            patch.setattr(parts.F, "softmax", lambda *a, **k: caught.append(softmax(*a, **k)) or caught[-1])
            swin(images)
    assert len(found) == len(caught) == 3
    for layer, (height, width, shift) in enumerate([(8, 16, 0), (8, 16, 2), (4, 8, 0)]):
        received = caught[layer].mean(-2).unflatten(0, (2, height // 4, width // 4)).unflatten(-1, (4, 4))
        laid = received.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3) / (height * width / 16)
        torch.testing.assert_close(found[layer], laid.roll((shift, shift), (-2, -1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_v2_t"])
@pytest.mark.parametrize("shape", [(261, 397), (397, 261), (100, 100)])
def test_the_input_is_torchvisions_own(name, shape):
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    size = (preset.crop_size[0],) * 2
    fitted, geometry = torchvision_fitting(preset, size).at()(noise(*shape))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    ours = (torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(ours, preset(noise(*shape)))
    assert (geometry.original, geometry.input) == (shape, size)


def test_weights_of_a_file_and_another_size(tmp_path, monkeypatch):
    """A small model by a large one's name."""
    make = torchvision.models.vision_transformer._vision_transformer
    small = {"num_layers": 1, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 31}
    patched = "torchvision.models.vision_transformer._vision_transformer"
    monkeypatch.setattr(patched, lambda **options: make(**options | small))
    torch.save(torchvision.models.vit_b_32(num_classes=5).state_dict(), tmp_path / "w.pth")
    subject = subject_of("torchvision:vit_b_32", tmp_path / "w.pth", image_size=96)
    assert subject.class_names == ["0", "1", "2", "3", "4"]
    assert subject.vit.grid((96, 96)) == (3, 3)
    fitted, geometry = subject.see(noise(100, 150))
    assert fitted.size == (96, 96)
    assert geometry.cells((3, 3)).stride == (32, 32)
    torch.save({"a": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth does not hold weights of vit_b_32"):
        subject_of("torchvision:vit_b_32", tmp_path / "other.pth")
    with pytest.raises(InputError, match="square images only"):
        subject_of("torchvision:vit_b_32", "random", image_size=(96, 64))


def test_torchvisions_names_are_imagenets():
    subject = subject_of("torchvision:swin_t", "random", image_size=(64, 96))
    assert (subject.class_names[0], len(set(subject.class_names))) == ("tench", 1000)
    assert subject.vit.grid((64, 96)) == (16, 24)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision:vit_tinny", {}, "no classifier named 'vit_tinny'.*vit_b_16"),
        ("torchvision:resnet18", {"weights": "random"}, "resnet18 is not a Vision Transformer.*softmax"),
        ("torchvision:swin_t", {"weights": "none.pth"}, "there is no weights file none.pth"),
        ("timm:vit_tinny", {}, "timm has no model named"),
        ("vit_b_16", {}, "names no model of a known library"),
        ("hf:", {}, "names no model of a known library"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(InputError, match=message):
        subject_of(name, **options)


def test_a_server_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def offline(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"vit_b_16 .*no route to host.*--weights random"):
        subject_of("torchvision:vit_b_16")


@pytest.mark.parametrize(("name", "extra"), [("hf:x", "transformers"), ("open_clip:x", "open_clip")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(InputError, match=rf"{extra} is not .*visattn\[{extra}\]"):
        subject_of(name)


def test_the_command_takes_models_of_every_library(photographs, tmp_path, capsys):
    given = ["overlay", str(photographs), "--weights", "random", "--export", "npz", "--output"]
    assert main([*given, str(tmp_path / "a"), "--model", "timm:test_vit"]) == 0
    with np.load(tmp_path / "a" / "wide.npz") as file:
        assert file["raw"].shape == (10, 10)
    assert main([*given, str(tmp_path / "b"), "--model", "timm:no_such_model"]) == 2
    assert "timm has no model named" in capsys.readouterr().err


# OpenCLIP


@pytest.fixture
def open_clip():
    return pytest.importorskip("open_clip")


def tower(open_clip, **options):
    torch.manual_seed(0)
    given = {"image_size": 40, "patch_size": 8, "width": 24, "layers": 2, "heads": 3, "mlp_ratio": 2, "output_dim": 7}
    return drawn(open_clip.transformer.VisionTransformer(**given | options))


@pytest.mark.parametrize("pooling", ["tok", "avg"])
def test_open_clips_own_tower(open_clip, pooling):
    model, images = tower(open_clip, pool_type=pooling), pixels(40, 40)
    vit = as_read(model, "a tower", (40, 40))
    assert type(vit) is ViT
    assert vit.logits(images).shape == (2, 7)
    maps = vit.rows(images)
    for layer, own in enumerate(own_attentions(model, images)):
        expected = own[..., 0, 1:] if pooling == "tok" else own[..., 1:, 1:].mean(-2)
        torch.testing.assert_close(maps[:, layer].flatten(-2), expected, rtol=0, atol=1e-5)
    plain = model(images)
    with record(model) as attention:
        assert torch.equal(model(images), plain)
    assert len(attention) == 2


def test_value_norm_of_open_clips_towers(open_clip):
    model, images = tower(open_clip), pixels(40, 40)
    added = norms_of_what_is_added(model, model.transformer.resblocks[1].attn, images, 1, 26)
    found = ValueNorm()(as_read(model, "a tower", (40, 40)), images)
    torch.testing.assert_close(found.flatten(1), added[:, 0, 1:], rtol=1e-3, atol=1e-5)
    scaled = as_read(tower(open_clip, scale_heads=True), "a scaled tower", (40, 40))
    with pytest.raises(InputError, match="a scaled tower rescales"):
        ValueNorm()(scaled, images)


def test_a_tower_of_timm_and_one_with_latent_queries(open_clip):
    model = drawn(open_clip.timm_model.TimmModel("test_vit", 7, image_size=160, pool="avg", proj="linear"))
    images = pixels(160, 160)
    vit, alone = (as_read(part, "timm's", (160, 160)) for part in (model, model.trunk))
    assert type(vit) is ViT
    assert vit.logits(images).shape == (2, 7)
    torch.testing.assert_close(vit.rows(images), alone.rows(images))
    coca = tower(open_clip, output_dim=6, attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=3)
    assert type(as_read(coca, "latent queries", (40, 40))) is Layered


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("shape", [(61, 97), (97, 61)])
def test_the_input_is_open_clips_own(open_clip, mode, shape):
    config = open_clip.transform.PreprocessCfg(size=(40, 40), resize_mode=mode, fill_color=0)
    own = open_clip.transform.image_transform_v2(config, is_train=False)(noise(*shape))
    fitted, geometry = open_clip_fitting(open_clip, config).at()(noise(*shape))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    torch.testing.assert_close((torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255 - mean) / std, own)
    assert geometry.input == (40, 40)
    expected = {"shortest": (40 / 61,) * 2, "longest": (40 / 97,) * 2, "squash": (40 / shape[0], 40 / shape[1])}[mode]
    assert geometry.scale == pytest.approx(expected, rel=0.03)


def test_open_clips_models_by_name(open_clip, tmp_path, monkeypatch):
    config = {
        "embed_dim": 7,
        "vision_cfg": {"image_size": 40, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8},
    }
    config["text_cfg"] = {"context_length": 5, "vocab_size": 13, "width": 24, "heads": 3, "layers": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", config)
    subject = subject_of("open_clip:ViT-tiny", "random")
    assert (subject.class_names, subject.vit.depth, subject.vit.grid((40, 40))) == ([], 2, (5, 5))
    torch.manual_seed(0)
    own = open_clip.create_model("ViT-tiny")
    torch.save(own.state_dict(), tmp_path / "w.pt")
    subject = subject_of("open_clip:ViT-tiny", tmp_path / "w.pt")
    torch.testing.assert_close(subject.vit.logits(pixels(40, 40)), own.eval().visual(pixels(40, 40)))
    assert subject.see(noise(61, 97))[1].scale == pytest.approx((40 / 61, 40 / 61), rel=0.03)
    assert subject_of("open_clip:ViT-tiny", "random", image_size=56).vit.grid((56, 56)) == (7, 7)
    for name, options, message in (
        ("ViT-tinny", {}, "OpenCLIP has no model named 'ViT-tinny'"),
        ("ViT-B-32", {}, "several weights; give one of open_clip:ViT-B-32/openai"),
        ("ViT-B-32/none", {}, "no weights named 'none'"),
        ("ViT-tiny", {"weights": tmp_path / "nothing.pt"}, "there is no weights file"),
        ("ViT-tiny", {"weights": "random", "class_names": ["a"]}, "1 class names were given"),
    ):
        with pytest.raises(InputError, match=message):
            subject_of(f"open_clip:{name}", **options)


def test_of_open_clips_resnets_the_attention_pooling_is_read(open_clip):
    """Its query is the mean of the last grid, which is a key itself and has no place."""
    model, images = drawn(open_clip.modified_resnet.ModifiedResNet((1, 1, 1, 1), 7, 4, 96, 8)), pixels(96, 96)
    vit = as_read(model, "a resnet", (96, 96))
    assert (type(vit), vit.depth, vit.grid((96, 96))) == (Layered, 1, (3, 3))
    with torch.no_grad(), record(model) as attention:
        model(images)
    torch.testing.assert_close(vit.rows(images)[:, 0].flatten(-2), attention[0].weights()[..., 0, 1:])


def test_a_library_is_imported_only_when_it_is_asked_for():
    code = "import sys, visattn.explain; print(sorted({'transformers', 'open_clip'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
