"""Texts as classes of models that compare images with texts: logits and gradients against the libraries' own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import LRP, GradCAM, GradientRollout, IntegratedGradients, LeGrad, Relevance, subject_of
from visattn.explain.pixels import pixel_gradient
from visattn.results import list_results
from visattn.tasks.app.readers import TextReader
from visattn.tasks.app.run import choose_reader

WORDS = ["a", "cat", "dog", "photo", "of"]
TEXTS = ["a cat", "a photo of a dog"]
COMPARING = ("clip", "metaclip_2", "chinese_clip", "siglip", "blip")
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
VISION = {**SMALL, "image_size": 40, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 11, "max_position_embeddings": 7, "bos_token_id": 1, "eos_token_id": 2}


def sharpened(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    return model.eval()


def tokenizer():
    """One token a word, between a first and a last one."""
    transformers = pytest.importorskip("transformers")
    import tokenizers

    vocabulary = {word: n for n, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)


def saved(name, folder):
    """A small model of transformers in a folder, with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    text = {**TEXT, "pad_token_id": 0}
    if name == "clip":
        config = transformers.CLIPConfig(vision_config=VISION, text_config=text, projection_dim=13)
    elif name == "blip":
        config = transformers.BlipConfig(vision_config=VISION, text_config=text, projection_dim=13)
    elif name == "metaclip_2":
        config = transformers.MetaClip2Config(vision_config=VISION, text_config=text, projection_dim=13)
    elif name == "chinese_clip":
        config = transformers.ChineseCLIPConfig(vision_config=VISION, text_config=text, projection_dim=13)
    else:
        config = transformers.SiglipConfig(vision_config=VISION, text_config=text)
    torch.manual_seed(0)
    model = sharpened(transformers.AutoModel.from_config(config))
    if name == "siglip":
        model.logit_bias.data.fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in COMPARING:
        folder = tmp_path_factory.mktemp(name)
        made[name] = (saved(name, folder), folder)
    return made


def noise(*size):
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", COMPARING)
def test_logits_and_their_gradients_are_the_librarys(name, folders):
    model, folder = folders[name]
    subject = subject_of(f"hf:{folder}", texts=TEXTS)
    assert subject.class_names == TEXTS
    padding = {"padding": "max_length", "max_length": 7} if name == "siglip" else {"padding": True}
    tokens = tokenizer()(TEXTS, return_tensors="pt", **padding)
    tokens.pop("token_type_ids", None)
    if name == "siglip":
        tokens.pop("attention_mask")
    pixels = subject.normalise(noise(40, 40)).requires_grad_()
    own = model(pixel_values=pixels, **tokens)
    torch.testing.assert_close(subject.vit.logits(pixels), own.logits_per_image, rtol=1e-5, atol=1e-5)
    expected = own.image_embeds @ own.text_embeds.T
    torch.testing.assert_close(subject.cosines(noise(40, 40)), expected.detach(), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(own.logits_per_image[:, 1].sum(), pixels)
    found, _ = pixel_gradient(subject.vit, pixels, torch.tensor([1, 1]))
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-5)


def test_texts_of_open_clip(monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 40, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 11, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 1}
    config = {"embed_dim": 7, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny", config)
    torch.manual_seed(0)
    subject = subject_of("open_clip:ViT-tiny", "random", texts=TEXTS)
    model, pixels = subject.vit.model, subject.normalise(noise(40, 40))
    with torch.no_grad():
        expected, _ = model.get_logits(pixels, open_clip.get_tokenizer("ViT-tiny")(TEXTS))
        torch.testing.assert_close(subject.vit.logits(pixels), expected, rtol=1e-5, atol=1e-5)
    for method in (Relevance(), GradientRollout(), LeGrad(), GradCAM(), IntegratedGradients(steps=2), LRP()):
        one, other = (method(subject.vit, pixels, torch.full((2,), n)) for n in range(2))
        assert one.shape == (2, 5, 5)
        assert one.isfinite().all()
        assert not torch.allclose(one, other)
    with pytest.raises(InputError, match="up to 11 tokens"):
        subject_of("open_clip:ViT-tiny", "random", texts=["a cat " * 5])


def test_legrad_is_that_of_the_authors_on_clip(folders):
    """Each layer's mean token, by the last norm and the projection, is compared with the text (their section 3)."""
    model, folder = folders["clip"]
    subject = subject_of(f"hf:{folder}", texts=TEXTS)
    pixels = subject.normalise(noise(40, 40))
    eager = type(model).from_pretrained(folder, attn_implementation="eager").eval()
    out = eager.vision_model(pixels, output_hidden_states=True, output_attentions=True)
    with torch.no_grad():
        text = eager.get_text_features(**tokenizer()(TEXTS, return_tensors="pt", padding=True)).pooler_output
    text, total = text / text.norm(dim=-1, keepdim=True), 0.0
    for tokens, weights in zip(out.hidden_states[1:], out.attentions, strict=True):
        feature = eager.visual_projection(eager.vision_model.post_layernorm(tokens.mean(1)))
        score = eager.logit_scale.exp() * (feature / feature.norm(dim=-1, keepdim=True)) @ text[0]
        (gradient,) = torch.autograd.grad(score.sum(), weights, retain_graph=True)
        total = total + gradient.clamp(min=0).mean((1, 2))[:, 1:] / 2
    found = LeGrad()(subject.vit, pixels, torch.tensor([0, 0]))
    torch.testing.assert_close(found.flatten(1), total, rtol=1e-4, atol=1e-6)


def test_relevance_of_a_text_is_conserved(tmp_path):
    """Without biases, positions and class token, all of the logit is relevance of the pixels."""
    transformers = pytest.importorskip("transformers")
    saved("siglip", tmp_path)
    model = transformers.SiglipModel.from_pretrained(tmp_path)
    for name, parameter in model.vision_model.named_parameters():
        if name.endswith("bias") or "position" in name:
            parameter.data.zero_()
    model.logit_bias.data.zero_()
    model.save_pretrained(tmp_path)
    subject = subject_of(f"hf:{tmp_path}", texts=["a cat"])
    pixels = subject.normalise(noise(40, 40))
    with torch.no_grad():
        logits = subject.vit.logits(pixels)[:, 0]
    found = LRP()(subject.vit, pixels).sum((1, 2))
    torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-3)


def test_the_command_draws_a_map_for_each_text(folders, tmp_path, capsys):
    folder = folders["clip"][1]
    Image.fromarray(noise(61, 97)[0].permute(1, 2, 0).numpy()).save(tmp_path / "noise.png")
    given = ["overlay", "--model", f"hf:{folder}", str(tmp_path / "noise.png"), "--output", str(tmp_path / "out")]
    asked = [*given, "--text", TEXTS[0], "--text", TEXTS[1], "--method", "legrad", "--method", "raw"]
    assert main(asked) == 0
    assert "with 'a cat'" in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "out" / "classes.json").read_text())
    with np.load(tmp_path / "out" / "noise.npz") as file:
        assert file["texts"].tolist() == TEXTS
        assert list(entry["cosines"].values()) == pytest.approx(file["cosines"].tolist())
        assert file["legrad_0"].shape == file["legrad_1"].shape == file["raw"].shape == (5, 5)
        assert not np.allclose(file["legrad_0"], file["legrad_1"])
    (reading,) = list_results(tmp_path / "out")
    names = list(reading.read().maps)
    assert names == ["layers", "a cat: legrad", "a photo of a dog: legrad", "raw"]
    assert main(["view", "--output", str(tmp_path / "view.html"), str(tmp_path / "out")]) == 0
    for options, message in (
        (["--text", "a cat", "--target", "a cat", "--method", "relevance"], "--target exclude"),
        (["--text", "a cat", "--method", "raw"], "--text is for"),
        (["--text", "  "], "is empty"),
        (["--text", "a " * 9], "up to 7 tokens"),
        (["--method", "relevance"], "--text"),
    ):
        assert main([*given, *options]) == 2
        assert message in capsys.readouterr().err


def test_of_a_single_text_the_results_are_those(folders, tmp_path):
    Image.fromarray(noise(61, 97)[0].permute(1, 2, 0).numpy()).save(tmp_path / "noise.png")
    given = ["overlay", "--model", f"hf:{folders['clip'][1]}", str(tmp_path / "noise.png"), "--text", "a cat"]
    assert main([*given, "--output", str(tmp_path / "out")]) == 0
    (listed,) = list_results(tmp_path / "out")
    reading = listed.read()
    assert reading.answer == ("a cat", None)
    assert list(reading.maps) == ["layers", "relevance"]


def test_the_app_compares_a_photograph_with_what_is_typed(folders, tmp_path):
    Image.fromarray(noise(61, 97)[0].permute(1, 2, 0).numpy()).save(tmp_path / "noise.png")
    subject = subject_of(f"hf:{folders['clip'][1]}")
    reader = TextReader(subject, "clip", "32")
    seen = reader.look(tmp_path / "noise.png")
    assert list(seen.choices) == []
    assert list(reader.choose(seen, 0).steps) == ["rollout", "last layer"]
    for text in TEXTS:
        answer = reader.read(seen, f"  {text} ")
        compared = subject.comparing(TEXTS)
        assert (answer.text, list(answer.steps)) == (text, ["relevance", "rollout", "last layer"])
        (cosine,) = compared.cosines(seen.item.tensor[None])[:, TEXTS.index(text)]
        assert answer.score == f"cosine {cosine:.3f}".replace("-", "−")
        with Image.open(tmp_path / "noise.png") as image:
            expected, _ = compared.map(image, Relevance(), text)
        np.testing.assert_allclose(answer.maps[0], expected, rtol=1e-4, atol=1e-6)
    (tmp_path / "files").mkdir()
    assert [path.name for path in reader.write(seen, answer, tmp_path / "files")] == ["noise.png", "noise.html"]
    (listed,) = list_results(tmp_path / "files" / "maps")
    assert listed.read().answer.text == TEXTS[1]
    for text, message in (("", "is empty"), ("a " * 9, "up to 7 tokens")):
        with pytest.raises(InputError, match=message):
            reader.read(seen, text)
    options = {"model": f"hf:{folders['clip'][1]}", "device": "cpu", "precision": "32"}
    names = ("checkpoint", "timm", "weights", "classes", "image_size")
    assert isinstance(choose_reader(SimpleNamespace(**dict.fromkeys(names), **options)), TextReader)


@pytest.mark.parametrize("model", ["timm:test_vit", "hf"])
def test_a_model_that_reads_no_texts_says_so(model, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    if model == "hf":
        transformers.ViTModel(transformers.ViTConfig(**VISION)).save_pretrained(tmp_path / "vit")
        model = f"hf:{tmp_path / 'vit'}"
    Image.new("RGB", (61, 97)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert main(["overlay", "--model", model, "--text", "a cat", str(tmp_path / "a.png"), "--output", str(out)]) == 2
    said = capsys.readouterr().err
    assert "--text" in said
    assert not out.exists()


def test_a_folder_without_tokenizer_says_so(folders, tmp_path):
    folders["clip"][0].save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no tokenizer"):
        subject_of(f"hf:{tmp_path}", texts=["a cat"])
