"""visattn features: principal components, similarity, norms of tokens, artefacts, and what the command writes."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

import visattn.cli.features as command
from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import Layered, ViT
from visattn.explain import features as views
from visattn.explain.place import patch_at
from visattn.images import Geometry
from visattn.overlay.features import painted_over
from visattn.tasks import features as task

SWIN = {"img_size": 32, "window_size": 4, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 3)}


def drawn(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def of_timm(**options):
    shape = {"img_size": (24, 40), "patch_size": 8, "embed_dim": 22, "depth": 3, "num_heads": 2, "num_classes": 5}
    return drawn(timm.models.VisionTransformer(**{**shape, **options}))


def of_torchvision():
    return drawn(torchvision.models.VisionTransformer(40, 8, 2, 3, 24, 31, num_classes=7))


def of_open_clip():
    pytest.importorskip("open_clip")
    from open_clip.transformer import VisionTransformer

    return drawn(VisionTransformer(40, 8, width=24, layers=2, heads=3, mlp_ratio=2.0, output_dim=7))


def of_transformers(kind="Dinov2WithRegisters"):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
    config = getattr(transformers, f"{kind}Config")(**sizes, image_size=40, patch_size=8)
    return drawn(getattr(transformers, f"{kind}Model")(config))


def count_hooks(model):
    return sum(len(part._forward_hooks) for part in model.modules())


def pixels(height, width, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


# A model, its blocks, the size of its images, tokens before the patches, registers
MODELS = {
    "timm": (of_timm, lambda m: m.blocks, (24, 40), 1, 0),
    "timm, registers": (lambda: of_timm(reg_tokens=3), lambda m: m.blocks, (24, 40), 4, 3),
    "timm, no class token": (
        lambda: of_timm(class_token=False, reg_tokens=2, global_pool="avg"),
        lambda m: m.blocks,
        (24, 40),
        2,
        2,
    ),
    "torchvision": (of_torchvision, lambda m: m.encoder.layers, (40, 40), 1, 0),
    "open_clip": (of_open_clip, lambda m: m.transformer.resblocks, (40, 40), 1, 0),
    "dinov2 registers": (of_transformers, lambda m: m.encoder.layer, (40, 24), 5, 4),
    "vit": (lambda: of_transformers("ViT"), None, (40, 40), 1, 0),
}


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_what_the_blocks_give_on(name):
    """Read by hand, layer by layer; norms are theirs; the model's output and hooks are as before."""
    make, blocks_of, size, prefix, registers = MODELS[name]
    model, images, caught = make(), pixels(*size), []
    with torch.no_grad():
        before = model(images)
        if blocks_of is None:
            expected = torch.stack(model(images, output_hidden_states=True).hidden_states[1:], dim=1)
        else:
            keep = [b.register_forward_hook(lambda m, given, out: caught.append(out)) for b in blocks_of(model)]
            model(images)
            for handle in keep:
                handle.remove()
            expected = torch.stack([out[0] if isinstance(out, tuple) else out for out in caught], dim=1)
    vit, hooks = ViT(model), count_hooks(model)  # transformers has some of its own
    assert (vit.prefix, vit.registers) == (prefix, registers)
    states = views.hidden_states(vit, images)
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    assert states.shape[:2] == (2, vit.depth)
    assert torch.equal(views.hidden_states(vit, images, [-1, 0]), states[:, [-1, 0]])
    found = views.features(vit, images, layer=1)
    torch.testing.assert_close(found.norms, states.square().sum(-1).sqrt())
    assert torch.equal(found.patches, states[:, 1, prefix:])
    assert found.grid == (size[0] // 8, size[1] // 8)
    with torch.no_grad():
        after = model(images)
    assert torch.equal(*(out if isinstance(out, torch.Tensor) else out.last_hidden_state for out in (before, after)))
    assert count_hooks(model) == hooks


def test_outputs_are_the_same_to_the_bit_while_features_are_read():
    model, images = of_timm(), pixels(24, 40)
    outputs = []
    handle = model.register_forward_hook(lambda module, given, out: outputs.append(out))
    with torch.no_grad():
        model(images)
        views.features(ViT(model), images)
    handle.remove()
    assert torch.equal(*outputs)


def test_hooks_are_gone_after_an_error():
    model = of_timm()
    with pytest.raises(InputError, match="takes normalised images"):
        views.features(ViT(model), torch.zeros(3))
    assert count_hooks(model) == 0


def test_norms_by_layer_names_the_tokens_before_the_patches():
    vit = ViT(of_timm(reg_tokens=3))
    norms = np.random.default_rng(0).random((3, 4 + 15)).astype(np.float32)
    lines = views.norms_by_layer(norms, vit)
    assert set(lines) == {"largest patch", "median patch", "class token", "registers, mean"}
    np.testing.assert_array_equal(lines["class token"], norms[:, 0])
    np.testing.assert_allclose(lines["registers, mean"], norms[:, 1:4].mean(1))
    np.testing.assert_array_equal(lines["median patch"], np.sort(norms[:, 4:])[:, 7])
    np.testing.assert_array_equal(lines["largest patch"], norms[:, 4:].max(1))


def test_principal_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(3)
    given = (rng.normal(size=(97, 13)) @ rng.normal(size=(13, 13)) + 5).astype(np.float32)
    found = views.principal_components(given)
    _, values, right = np.linalg.svd(given.astype(float) - given.astype(float).mean(0), full_matrices=False)
    signed = right[:3] * np.sign(np.take_along_axis(right[:3], np.abs(right[:3]).argmax(1)[:, None], 1))
    np.testing.assert_allclose(found.vectors, signed, atol=1e-5)
    np.testing.assert_allclose(found.explained, (values**2 / (values**2).sum())[:3], rtol=1e-5)
    np.testing.assert_allclose(found.of(given), (given - given.mean(0)) @ signed.T, atol=1e-3)
    mirrored = views.principal_components(given[::-1])
    np.testing.assert_allclose(mirrored.vectors, found.vectors, atol=1e-6)  # signs do not depend on the order


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (7, 2)])
def test_fewer_than_three_components(shape):
    given = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    found = views.principal_components(given)
    count = min(shape[0] - 1, shape[1])
    assert found.vectors.shape == (3, shape[1])
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), [1] * count + [0] * (3 - count), atol=1e-6)
    assert np.all(found.explained[count:] == 0)
    assert found.explained.sum() == pytest.approx(min(count, 1))
    shown = found.of(given)
    assert np.all(views.colours(shown, views.colour_ends(shown))[:, count:] == 0.5)


def test_colours_are_robust():
    """A far outlier does not take the colour from the others."""
    line = np.repeat(np.arange(101.0)[:, None], 3, axis=1)
    shown = views.colours(line, views.colour_ends(line))
    np.testing.assert_allclose(shown[[0, 2, 50, 98, 100], 0], [0, 0, 0.5, 1, 1], atol=1e-6)
    far = line.copy()
    far[100] = 1e6
    np.testing.assert_allclose(views.colours(far, views.colour_ends(far)), shown, atol=1e-6)


def test_similarity_by_hand():
    found = views.similarity(np.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0], [0.0, -2.0], [0.0, 0.0]]), 0)
    np.testing.assert_allclose(found, [1, 1, 0, -0.8, 0], atol=1e-6)


def test_a_planted_artefact_is_found():
    norms = np.random.default_rng(5).uniform(9, 11, 53)
    assert not views.artefacts(norms).any()
    assert "none of 53 patches have norms above 3 times" in task.verdict_on(norms)
    norms[17] = 101
    assert np.flatnonzero(views.artefacts(norms)).tolist() == [17]
    assert "1 of 53 patches has a norm above 3 times the median" in task.verdict_on(norms)
    assert not views.artefacts(norms, 11.5).any()
    assert not views.artefacts(np.zeros(7)).any()


def test_a_token_with_a_planted_norm_is_framed(tmp_path, monkeypatch):
    """One patch of the model's first layer is made ten times as long: the entry, the arrays and the frame say so."""
    model = of_timm(num_classes=0)

    def plant(module, given, out):
        out = out.clone()
        out[:, 1 + 7] *= 10 * out[:, 1:].norm(dim=-1).median() / out[:, 1 + 7].norm()
        return out

    model.blocks[0].register_forward_hook(plant)
    framed = []
    sheet = task.feature_sheet
    monkeypatch.setattr(task, "feature_sheet", lambda *a, **k: framed.append(a[1].artefacts) or sheet(*a, **k))
    path = saved(tmp_path / "a.png", 48, 80)
    subject = task.Subject(ViT(model), Normalise(), fit, [])
    (entry,) = task.feature_views(subject, [path], tmp_path / "out", layer=0, device="cpu")
    assert (entry["artefacts"], entry["patches"]) == (1, 15)
    assert "1 of 15 patches has a norm above 3 times" in entry["verdict"]
    assert np.flatnonzero(framed[0]).tolist() == [7]


class Normalise(torch.nn.Module):
    def forward(self, images):
        return images.float() / 255


def fit(image):
    return image.resize((40, 24)), Geometry(
        (image.height, image.width), (24, 40), (24 / image.height, 40 / image.width), (0.0, 0.0)
    )


def saved(path, height, width, seed=0):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(picture).save(path)
    return path


def test_painted_patches_lie_where_the_model_saw_them():
    """A crop's edges are hatched, and each patch's middle has its colour."""
    image = np.zeros((24, 40, 3), np.uint8)
    geometry = Geometry((24, 40), (24, 24), (1.0, 1.0), (0.0, 8.0))
    colours = np.random.default_rng(6).random((3, 3, 3)).astype(np.float32)
    painted = painted_over(image, colours, geometry, "nearest")
    middles = painted[4::8, 12:36:8].reshape(3, 3, 3)
    expected = np.round(255 * (0.12 + 0.8 * colours))
    np.testing.assert_allclose(middles, expected, atol=1)
    assert np.all(np.ptp(painted[:, :8].astype(int), axis=-1) == 0)  # grey


def run(*words):
    return command.main([str(word) for word in words])


@pytest.mark.parametrize("over", ["run", "image"])
def test_the_command_writes_sheets_and_arrays(over, photographs, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["--checkpoint", "vit-cifar10", "--output", output, "--at", "23,29", "--layer", "1", "--pca", over]
    assert run(*words, "--artefacts", "1.05", photographs) == 0
    entries = json.loads((output / "features.json").read_text())
    said = capsys.readouterr().out
    colours = []
    for entry, stem in zip(entries, ("turned", "wide"), strict=True):
        assert entry["files"] == [f"{stem}.png", f"{stem}.npz"]
        assert entry["verdict"] in said
        with Image.open(output / f"{stem}.png") as sheet:
            assert sheet.width > sheet.height > 200
        with np.load(output / f"{stem}.npz") as file:
            found = dict(file)
        assert found["pca"].shape == found["colours"].shape == (8, 8, 3)
        assert found["components"].shape == (3, len(found["mean"]))
        np.testing.assert_allclose(found["components"] @ found["components"].T, np.eye(3), atol=1e-5)
        depth = len(found["norms"])
        assert found["norms"].shape == (depth, 8, 8)
        assert found["prefix_norms"].shape == (depth, 1)
        assert found["layer"] == 1
        norms = found["norms"][1]
        np.testing.assert_array_equal(found["artefacts"], norms > 1.05 * np.median(norms))
        assert entry["artefacts"] == found["artefacts"].sum() > 0
        geometry = Geometry.from_array(found["geometry"])
        assert found["asked"] == patch_at(23, 29, geometry, (8, 8), stem)
        assert found["similarity"].flat[found["asked"]] == pytest.approx(1)
        np.testing.assert_allclose(found["explained"], entry["explained"], rtol=1e-6)
        colours.append(found["components"])
    assert np.array_equal(*colours) == (over == "run")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--layer", "99"], "has no layer 99"),
        (["--at", "61,3"], "there is no pixel 61,3"),
        (["--at", "1,20"], "outside the part that the model sees"),
        (["--artefacts", "0.5"], "--artefacts is 0.5"),
        (["--weights", "random"], "--weights needs --model"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, tmp_path, capsys):
    path = saved(tmp_path / "wide.png", 47, 61)
    assert run("--checkpoint", "vit-cifar10", "--output", tmp_path / "out", path, *words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_one_sentence(tmp_path, capsys):
    path = saved(tmp_path / "a.png", 47, 61)
    words = ["--model", "timm:absent_vit", "--weights", "random", "--output", str(tmp_path / "out"), str(path)]
    assert main(["features", *words]) == 2
    assert "absent_vit" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_models_without_one_grid_are_refused(tmp_path):
    model = timm.create_model("swin_tiny_patch4_window7_224", **SWIN).eval()
    vit = Layered(model, "swin", (32, 32))
    with pytest.raises(InputError, match="swin has no one grid"):
        views.hidden_states(vit, pixels(32, 32))
    path = saved(tmp_path / "a.png", 47, 61)
    with pytest.raises(InputError, match="visattn features needs"):
        task.feature_views(task.Subject(vit, Normalise(), fit, []), [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_that_are_not_finite_are_refused(tmp_path):
    model = of_timm()
    torch.nn.init.constant_(model.blocks[1].mlp.fc2.bias, torch.inf)
    path = saved(tmp_path / "a.png", 48, 80)
    with pytest.raises(InputError, match="not all finite"):
        task.feature_views(task.Subject(ViT(model), Normalise(), fit, []), [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_images_to_hold_are_refused(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(task, "MOST", 1000)
    words = ["--checkpoint", "vit-cifar10", "--output", tmp_path / "out", photographs]
    assert run(*words) == 2
    assert "use fewer images, or --pca image" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert run(*words, "--pca", "image") == 0


def test_the_users_files_are_not_overwritten(photographs, capsys):
    before = saved(photographs / "wide.png", 7, 11).read_bytes()
    assert run("--checkpoint", "vit-cifar10", "--output", photographs, photographs / "wide.jpg") == 2
    assert "is not from an earlier run" in capsys.readouterr().err.splitlines()[-1]
    assert (photographs / "wide.png").read_bytes() == before


def test_choices_of_options_match_the_functions():
    assert task.Over.__args__ == command.OVER
    assert views.ARTEFACT == command.ARTEFACT
