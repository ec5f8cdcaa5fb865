"""Vision models of transformers: maps against the library's own eager attention, preprocessing against its own."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from support.added import norms_of_what_is_added

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import Layered, Raw, Relevance, Rollout, ValueNorm, ViT, as_read, record, subject_of
from visattn.explain.features import hidden_states

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
SIZE, OTHER, PATCH = (40, 40), (24, 56), 8
PATCHES = {**SMALL, "image_size": 40, "patch_size": PATCH}
TEXTS = {**SMALL, "vocab_size": 53, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
WINDOWS = {
    "patch_size": 4,
    "embed_dim": 12,
    "depths": [2, 1],
    "num_heads": [2, 3],
    "window_size": 4,
    "image_size": (32, 64),
}


def class_token(a, prefix):
    return a[..., 0, prefix:]


def both_tokens(a, prefix):
    return a[..., :2, prefix:].mean(-2)


def patches(a, prefix):
    return a[..., prefix:, prefix:].mean(-2)


# Class of the model, its configuration and more of its options, tokens before the patches, which rows make a map
FAMILIES = {
    "vit": ("ViTForImageClassification", "ViT", {}, 1, class_token),
    "vit features": ("ViTModel", "ViT", {}, 1, class_token),
    "deit": ("DeiTForImageClassification", "DeiT", {}, 2, class_token),
    "deit distilled": ("DeiTForImageClassificationWithTeacher", "DeiT", {}, 2, both_tokens),
    "dinov2": ("Dinov2Model", "Dinov2", {}, 1, class_token),
    "dinov2 registers": ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegisters", {}, 5, class_token),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViT", {"num_register_tokens": 3}, 4, class_token),
    "clip": ("CLIPVisionModelWithProjection", "CLIPVision", {}, 1, class_token),
    "siglip": ("SiglipVisionModel", "SiglipVision", {}, 0, None),
    "beit": ("BeitForImageClassification", "Beit", {"use_relative_position_bias": True}, 1, patches),
    "beit token": ("BeitForImageClassification", "Beit", {"use_mean_pooling": False}, 1, class_token),
    "vit mae": ("ViTMAEModel", "ViTMAE", {}, 1, class_token),
    "blip": ("BlipVisionModel", "BlipVision", {}, 1, class_token),
    "ijepa": ("IJepaForImageClassification", "IJepa", {}, 0, patches),
    "data2vec": ("Data2VecVisionForImageClassification", "Data2VecVision", {}, 1, patches),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def sharpened(model):
    """Weights large enough that attention is far from even."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model.eval()


def made(kind, config, implementation=None):
    torch.manual_seed(0)
    kind = getattr(transformers, kind)
    return sharpened(kind._from_config(config, attn_implementation=implementation))


def built(family, implementation=None):
    kind, config, options, *_ = FAMILIES[family]
    return made(kind, getattr(transformers, f"{config}Config")(**PATCHES, **options), implementation)


def pixels(size=SIZE):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))


def own_attentions(family, images):
    """The model itself, with attention as the library writes it down, and its outputs with each layer's."""
    model, options = built(family, "eager"), {}
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        options["noise"] = torch.arange(25.0).expand(len(images), -1)
    with torch.no_grad():
        return model, model(images, output_attentions=True, **options)


@every_family
def test_features_are_the_librarys_own(family):
    """Of the first layer: some families put the last one's through their last norm."""
    model, options = built(family), {}
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
        options["noise"] = torch.arange(25.0).expand(2, -1)
    with torch.no_grad():
        own = model(pixels(), output_hidden_states=True, **options).hidden_states[1]
    found = hidden_states(ViT(model, family), pixels())
    assert found.shape == (2, 2, *own.shape[1:])
    torch.testing.assert_close(found[:, 0], own, rtol=1e-4, atol=1e-5)


@every_family
@pytest.mark.parametrize("implementation", [None, "eager"])
def test_maps_are_the_librarys_own(family, implementation):
    *_, prefix, rows = FAMILIES[family]
    model = built(family, implementation)
    vit = as_read(model, family, SIZE)
    assert type(vit) is ViT
    assert (vit.prefix, vit.depth, vit.grid(SIZE)) == (prefix, 2, (5, 5))
    matrices, maps = vit.maps(pixels()), vit.rows(pixels())
    model, out = own_attentions(family, pixels())
    for layer, own in enumerate(out.attentions):
        torch.testing.assert_close(matrices[layer], own, rtol=0, atol=1e-5)
        if rows is None:  # the latent query of an attention pooling, as PyTorch's module itself tells
            head, tokens = model.head, out.last_hidden_state
            with torch.no_grad():
                share = head.attention(head.probe.expand(2, -1, -1), tokens, tokens)[1]  # the mean of its heads
            expected = torch.einsum("bqn,bhnm->bhm", share, own)
        else:
            expected = rows(own, prefix)
        torch.testing.assert_close(maps[:, layer].flatten(-2), expected, rtol=0, atol=1e-5)


@every_family
def test_value_norm_is_the_length_of_what_a_patch_adds(family):
    model = built(family)
    vit = as_read(model, family, SIZE)
    with record(model) as attention:
        vit.logits(pixels())
    names = [entry.name for entry in attention if entry.shape[2] > 1]  # one query is an attention pooling
    module = model.get_submodule(names[1].removesuffix(".attention") if family == "data2vec" else names[1])
    seen = vit.run(pixels(), lambda *_: None)
    added = norms_of_what_is_added(vit.logits, module, pixels(), 1, vit.prefix + 25)
    torch.testing.assert_close(ValueNorm()(vit, pixels()), vit.read(added, seen), rtol=1e-3, atol=1e-5)


@every_family
def test_outputs_stay_as_they_are_and_what_is_read_is_the_model_s(family, one_thread):
    model = built(family)
    vit = as_read(model, family, SIZE)
    with torch.no_grad():
        plain = vit.logits(pixels())
        with record(model) as attention:
            assert torch.equal(vit.logits(pixels()), plain)
        assert torch.equal(vit.run(pixels(), lambda *_: None).logits, plain)
        if family != "vit mae":
            own = model(pixels())
            assert torch.equal(own[0] if vit.classes else plain, plain)
    assert len(attention) == 2 + (family == "siglip")


@every_family
def test_images_of_another_size_and_every_method(family):
    model = built(family)
    vit = ViT(model, family)
    images = pixels(OTHER)
    assert Raw(0)(vit, images).shape == (2, 3, 7)
    assert Rollout()(vit, images).shape == (2, 3, 7)
    if vit.classes:
        assert Relevance()(vit, images).shape == (2, 3, 7)
    cells = vit.cells(OTHER)
    assert (*cells, *cells.stride, cells.seen) == (0, 0, PATCH, PATCH, ((0, 0), OTHER))


@pytest.mark.parametrize(("kind", "implementation"), [("Swin", None), ("Swin", "eager"), ("Swinv2", "eager")])
def test_windows_are_laid_on_the_image_with_their_shift_undone(kind, implementation):
    """The library gives the last block's windows of each stage; what is attended to on average is laid out by hand."""
    config = getattr(transformers, f"{kind}Config")(**WINDOWS)
    model = made(f"{kind}ForImageClassification", config, implementation)
    images, found = pixels((32, 64)), {}
    vit = as_read(model, kind, (32, 64))
    assert type(vit) is Layered
    assert vit.depth == 3
    with torch.no_grad():
        vit.run(images, lambda layer, call: found.update({layer: vit.received(layer, call)}))
        own = made(f"{kind}ForImageClassification", config, "eager")(images, output_attentions=True).attentions
    for maps, weights, (height, width), shift in zip((found[1], found[2]), own, ((8, 16), (4, 8)), (2, 0), strict=True):
        received = weights.mean(-2).unflatten(0, (2, height // 4, width // 4)).unflatten(-1, (4, 4))
        laid = received.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3) / (height * width / 16)
        torch.testing.assert_close(maps, laid.roll((shift, shift), (-2, -1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "part"),
    [
        ("CLIPModel", {"vision_config": PATCHES, "text_config": TEXTS}, "CLIPVisionModel"),
        ("SiglipModel", {"vision_config": PATCHES, "text_config": TEXTS}, "SiglipVisionModel"),
        ("BlipForConditionalGeneration", {"vision_config": PATCHES, "text_config": TEXTS}, "BlipVisionModel"),
        ("ViTMAEForPreTraining", PATCHES, "ViTMAEModel"),
        ("ViTForMaskedImageModeling", PATCHES, "ViTModel"),
    ],
)
def test_of_a_model_of_texts_or_of_a_pretext_task_the_image_part_is_read(kind, config, part):
    name = kind.partition("For")[0].removesuffix("Model")
    model = made(kind, getattr(transformers, f"{name}Config")(**config))
    vit = ViT(model)
    assert type(vit._network).__name__ == part
    assert Raw()(vit, pixels()).shape == (2, 5, 5)


def test_classifiers_of_averaged_patches_are_read_by_those():
    for name in ("CLIP", "Siglip"):
        config = getattr(transformers, f"{name}Config")(vision_config=PATCHES, text_config=TEXTS, num_labels=3)
        model = made(f"{name}ForImageClassification", config)
        vit, prefix = ViT(model), int(name == "CLIP")
        assert vit.classes == 3
        matrix = vit.maps(pixels(), [1])[0]
        torch.testing.assert_close(vit.rows(pixels(), [1])[:, 0].flatten(-2), patches(matrix, prefix))
        assert Relevance()(vit, pixels()).shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("ConvNext", {"num_stages": 2, "hidden_sizes": [12, 24], "depths": [1, 1]}, "softmax for each query"),
        ("ResNet", {"embedding_size": 12, "hidden_sizes": [12, 24], "depths": [1, 1]}, "softmax for each query"),
        ("Bert", {**SMALL, "vocab_size": 31}, "takes no images"),
    ],
)
def test_what_has_no_attention_to_places_is_refused(kind, config, why):
    name = kind if kind == "Bert" else f"{kind}ForImageClassification"
    kind = f"{kind}Model" if kind == "Bert" else name
    config = getattr(transformers, f"{name.partition('For')[0]}Config")(**config)
    with pytest.raises(InputError, match=f"a thing is not a Vision Transformer.*{why}"):
        as_read(getattr(transformers, kind)(config).eval(), "a thing", (64, 64))


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


PROCESSORS = {
    "squashed": ("ViT", {"size": {"height": 40, "width": 40}}),
    "cropped": ("CLIP", {"size": {"shortest_edge": 47}, "crop_size": {"height": 40, "width": 40}}),
    "squashed and cropped": (
        "DeiT",
        {"size": {"height": 53, "width": 47}, "crop_size": {"height": 40, "width": 40}},
    ),
    "own statistics": ("Bit", {"size": {"shortest_edge": 43}, "crop_size": 40, "image_mean": [0.1, 0.2, 0.3]}),
    "from -1 to 1": ("ViT", {"size": {"height": 40, "width": 40}, "rescale_factor": 1 / 127.5, "do_normalize": False}),
    "padded by the crop": ("CLIP", {"size": {"shortest_edge": 31}, "crop_size": {"height": 40, "width": 40}}),
}
every_processor = pytest.mark.parametrize("processor", PROCESSORS)
sides = pytest.mark.parametrize("shape", [(61, 97), (97, 61), (31, 31)])


@pytest.fixture
def folder(tmp_path):
    """Writes a model, and a processor if one is named, as `save_pretrained` does."""

    def write(kind="ViTForImageClassification", config=None, processor=None, **labels):
        config = transformers.ViTConfig(**PATCHES, **labels) if config is None else config
        made(kind, config).save_pretrained(tmp_path / "model")
        if processor is not None:
            name, options = PROCESSORS.get(processor, (processor, {}))
            getattr(transformers, f"{name}ImageProcessor")(**options).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return write


@every_processor
@sides
def test_the_input_is_the_processors_own(processor, shape, folder):
    subject = subject_of(f"hf:{folder(processor=processor)}")
    name, options = PROCESSORS[processor]
    own = getattr(transformers, f"{name}ImageProcessor")(**options)(images=noise(*shape), return_tensors="pt")
    fitted, geometry = subject.see(noise(*shape))
    ours = subject.normalise(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None])
    torch.testing.assert_close(ours, own["pixel_values"], rtol=0, atol=1e-5)
    assert (geometry.original, geometry.input) == (shape, (40, 40))


def test_dinov3s_input_is_its_processors_within_one_of_255_levels(folder):
    """Which resizes numbers from 0 to 1, and here whole ones from 0 to 255."""
    options = {"size": {"height": 40, "width": 40}}
    processor = transformers.DINOv3ViTImageProcessor(**options)
    path = folder("DINOv3ViTModel", transformers.DINOv3ViTConfig(**PATCHES))
    processor.save_pretrained(path)
    subject = subject_of(f"hf:{path}")
    own = processor(images=noise(61, 97), return_tensors="pt")["pixel_values"]
    ours = subject.normalise(torch.from_numpy(np.array(subject.see(noise(61, 97))[0])).permute(2, 0, 1)[None])
    assert (ours - own).abs().max() < 1 / 255 / 0.22


@every_processor
@sides
def test_a_patch_lies_where_its_pixels_come_from(processor, shape, folder):
    """Of a ramp, the mean over a patch of the input says where the patch's centre was in the original."""
    subject = subject_of(f"hf:{folder(processor=processor)}")
    grid = subject.vit.grid((40, 40))
    for axis in (0, 1):
        ramp = 4 + 2.5 * np.indices(shape)[axis]
        fitted, geometry = subject.see(Image.fromarray(np.repeat(ramp.round()[..., None], 3, -1).astype(np.uint8)))
        light = np.asarray(fitted, dtype=float)[..., 0].reshape(5, PATCH, 5, PATCH).mean((1, 3))
        inside = np.asarray(fitted)[..., 0].reshape(5, PATCH, 5, PATCH).min((1, 3)) > 0  # no padding in the patch
        centres = np.stack(np.meshgrid(*geometry.centres(grid), indexing="ij"), -1)
        expected = (light - 4) / 2.5 + 0.5
        within = inside[1:-1, 1:-1]
        found = geometry.to_original(centres)[1:-1, 1:-1, axis]
        assert np.abs(found - expected[1:-1, 1:-1])[within].max() < 0.6
        assert within.any()


@pytest.mark.parametrize(("processor", "shape"), [("ViT", (61, 97)), ("cropped", (61, 97)), ("cropped", (97, 31))])
def test_an_input_of_another_size_is_covered(processor, shape, folder):
    subject = subject_of(f"hf:{folder(processor=processor)}", image_size=(24, 56))
    fitted, geometry = subject.see(noise(*shape))
    assert fitted.size == (56, 24)
    assert subject.vit.grid((24, 56)) == (3, 7)
    if processor == "cropped":
        assert geometry.scale == pytest.approx((geometry.scale[1],) * 2, rel=0.03)
        assert min(geometry.offset) >= 0
    else:
        assert geometry.scale == pytest.approx((24 / 61, 56 / 97))
    pixels = subject.normalise(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None])
    assert Raw()(subject.vit, pixels).shape == (1, 3, 7)


def test_a_folder_without_a_processor_gets_its_familys_and_says_so(folder, caplog):
    with caplog.at_level("INFO", "visattn"):
        subject = subject_of(f"hf:{folder()}")
    assert "ViTImageProcessor" in caplog.text
    assert "preprocessor_config.json" in caplog.text
    assert subject.see(noise(61, 97))[0].size == (40, 40)
    assert subject.normalise.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    config = transformers.Dinov2Config(**PATCHES)
    subject = subject_of(f"hf:{folder('Dinov2Model', config)}")
    assert subject.see(noise(61, 97))[0].size == (224, 224)
    assert subject.normalise.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert subject.class_names == []


def test_weights_and_labels_are_the_folders(folder):
    path = folder(processor="ViT", id2label={0: "a cat, sleeping", 1: "a dog", 2: "a frog"})
    subject = subject_of(f"hf:{path}")
    assert subject.class_names == ["a cat, sleeping", "a dog", "a frog"]
    assert subject.target("A Dog") == 1
    own = made("ViTForImageClassification", transformers.ViTConfig(**PATCHES, num_labels=3))
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        expected = own(subject.normalise(images)).logits.softmax(-1)
    torch.testing.assert_close(subject.probabilities(images), expected)
    assert not torch.allclose(subject_of(f"hf:{path}", "random").probabilities(images), expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("./nowhere", {}, "there is no folder nowhere"),
        ("EMPTY", {}, "does not hold a model of transformers"),
        ("MODEL", {"weights": "w.safetensors"}, "takes no weights file"),
        ("MODEL", {"class_names": ["a"]}, "1 class names were given, but .* has 2"),
        ("MODEL", {"image_size": (4, 40)}, "smaller than a patch"),
        ("MODEL", {"image_size": 5000}, "1 to 4096 pixels"),
    ],
)
def test_mistakes_are_named(name, options, message, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    name = {"EMPTY": str(tmp_path / "empty"), "MODEL": str(folder(processor="ViT"))}.get(name, name)
    with pytest.raises(InputError, match=message):
        subject_of(f"hf:{name}", **options)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "hf:owner/name", "open_clip:ViT-B-32/openai"])
def test_a_hub_that_cannot_be_reached_is_asked_once(name, monkeypatch, tmp_path):
    """Not six times, with seconds between."""
    constants, waits = pytest.importorskip("huggingface_hub").constants, []
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing answers
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(InputError, match="could not be"):
        subject_of(name)
    assert waits == []
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def offline(*args, **options):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(InputError, match=r"owner/name .*connect to the hub.*save_pretrained"):
        subject_of("hf:owner/name")


def test_incomplete_weights_and_odd_processors_are_refused(folder):
    path = folder(processor="ViT")
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match="lacks weights of ViTForImageClassification"):
        subject_of(f"hf:{path}")
    (path / "config.json").write_text(json.dumps(settings))
    for change, message in (
        ({"size": {"shortest_edge": 40}}, "gives each image another size"),
        ({"do_pad": True}, "cannot be laid back"),
        ({"size": {"longest_edge": 40}}, "cannot be laid back"),
    ):
        processor = json.loads((path / "preprocessor_config.json").read_text())
        (path / "preprocessor_config.json").write_text(json.dumps(processor | change))
        with pytest.raises(InputError, match=message):
            subject_of(f"hf:{path}")
        (path / "preprocessor_config.json").write_text(json.dumps(processor))


def test_overlay_shows_a_folder(folder, photographs, tmp_path, capsys):
    path = folder(processor="cropped", id2label={0: "cat", 1: "dog"})
    given = ["overlay", str(photographs), "--model", f"hf:{path}", "--output", str(tmp_path / "out")]
    assert main([*given, "--method", "relevance", "--target", "dog", "--export", "sheet,npz"]) == 0
    with np.load(tmp_path / "out" / "wide.npz") as file:
        assert file["relevance"].shape == (5, 5)
        assert file["target"] == 1
    assert (tmp_path / "out" / "wide.png").is_file()
    assert main([*given[:2], "--model", "vit:what", "--output", str(tmp_path / "other")]) == 2
    assert "names no model of a known library" in capsys.readouterr().err
