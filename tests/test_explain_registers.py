"""Test-time registers on a small Vision Transformer with a register neuron put into its weights by hand."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import LRP, Raw, Relevance, Rollout, as_read
from visattn.explain.features import features, hidden_states
from visattn.explain.place import AtPatches
from visattn.explain.registers import WithRegister, last_linear, register_neurons
from visattn.models import VisionTransformer

LAYER, NEURON, SPOT = 1, 29, (3, 6)  # a unit that is active where a patch is white, row 3, column 6


def images():
    """Noise, with a white patch of 16×16 pixels."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (3, 3, 160, 160), dtype=torch.uint8, generator=generator)
    pixels[:, :, 48:64, 96:112] = 255
    return pixels


def normalised():
    return (images() / 255 - 0.5) / 0.5


def plain(name="test_vit"):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def model():
    """The neuron's weights point to the white patch's token, and what it adds is 40 times as long as other tokens."""
    made, kept = plain(), []
    block = made.blocks[LAYER]
    with torch.no_grad():
        hook = block.norm2.register_forward_hook(lambda module, given, out: kept.append(out))
        made(normalised())
        hook.remove()
        white = kept[0][:, 1 + 10 * SPOT[0] + SPOT[1]].mean(dim=0)
        block.mlp.fc1.weight[NEURON] = 10 * white / white.square().sum()
        block.mlp.fc1.bias[NEURON] = -8
        block.mlp.fc2.weight[:, NEURON] = 40 * torch.randn(64, generator=torch.Generator().manual_seed(1)) / 8
    return made


def test_the_neuron_is_found(model):
    vit = as_read(model, "test_vit", (160, 160))
    found = register_neurons(vit, normalised().split(2), count=1)
    assert found == ([(LAYER, NEURON)], LAYER, 3, 300)
    more = register_neurons(vit, [normalised()], count=5)
    assert more.neurons[0] == (LAYER, NEURON)
    assert len(set(more.neurons)) == 5
    assert max(layer for layer, _ in more.neurons) <= LAYER


def test_the_outlier_moves_onto_the_register(model):
    vit = as_read(model, "test_vit", (160, 160))
    with torch.no_grad():
        before = model(normalised())
    other = WithRegister(vit, [(LAYER, NEURON)])
    assert (other.prefix, other.registers, vit.prefix) == (2, 1, 1)
    spot = 10 * SPOT[0] + SPOT[1]
    plain_norms, norms = (features(v, normalised()).norms[:, LAYER] for v in (vit, other))
    assert (plain_norms[:, 1 + spot] > 5 * plain_norms[:, 1:].median()).all()
    assert (norms[:, 2 + spot] < 2 * norms[:, 2:].median()).all()
    assert (norms[:, 1] > 5 * norms[:, 2:].median()).all()
    with torch.no_grad():
        assert torch.equal(model(normalised()), before)
        assert not torch.allclose(other.logits(normalised()), before)


def test_it_is_the_papers_arithmetic(model):
    """With the register as one more token, written out."""
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(normalised()))
        x = torch.cat([x[:, :1], torch.zeros(3, 1, 64), x[:, 1:]], dim=1)
        for layer, block in enumerate(model.blocks):
            x = x + block.attn(block.norm1(x))
            hidden = block.mlp.act(block.mlp.fc1(block.norm2(x)))
            if layer == LAYER:
                hidden[:, 1, NEURON] = hidden[:, 2:, NEURON].max(dim=1).values
                hidden[:, 2:, NEURON] = 0
            x = x + block.mlp.fc2(hidden)
        expected = model.head(model.norm(x[:, 0]))
        other = WithRegister(as_read(model, "test_vit", (160, 160)), [(LAYER, NEURON)])
        torch.testing.assert_close(other.logits(normalised()), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(hidden_states(other, normalised(), [-1])[:, 0], x, rtol=1e-4, atol=1e-4)
    for weights in other.maps(normalised()):
        assert weights.shape[-2:] == (102, 102)
    for method in (Raw(), Rollout(), Relevance(), LRP()):
        assert method(other, normalised()).shape == (3, 10, 10)
    own = other.maps(normalised(), [-1])[0].mean(1)
    torch.testing.assert_close(Raw()(other, normalised()).flatten(1), own[:, 0, 2:])
    torch.testing.assert_close(Raw()(AtPatches(other, [7] * 3), normalised()).flatten(1), own[:, 9, 2:])


def others():
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31}
    yield VisionTransformer(5, (40, 40), patch=8, size=24, depth=2, heads=3)
    yield torchvision.models.VisionTransformer(40, 8, 2, 3, 24, 31, num_classes=7)
    options = {"img_size": 40, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "class_token": False}
    yield timm.create_model("vit_tiny_patch16_224", global_pool="avg", **options)
    yield timm.create_model("vit_tiny_patch16_224", global_pool="map", **options)
    transformers = pytest.importorskip("transformers")
    sizes |= {"image_size": 40, "patch_size": 8}
    yield transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
    yield transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes))
    yield transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, num_register_tokens=3))
    yield transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes))


def test_models_of_every_library_take_one():
    pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    for model in others():
        vit = as_read(model.eval(), type(model).__name__, (40, 40))
        neurons = [(0, 5), (1, 11), (1, 13)]
        other = WithRegister(vit, neurons)
        silent = []
        handle = last_linear(vit, 1).register_forward_hook(lambda m, given, out, kept=silent: kept.append(given[0]))
        maps, found = Raw()(other, pixels), features(other, pixels)
        handle.remove()
        assert maps.shape == (2, 5, 5)
        assert found.norms.shape == (2, 2, other.prefix + 25)
        assert (silent[0][:, other.prefix :, [11, 13]] == 0).all()
        assert (silent[0][:, other.prefix :, 5] != 0).any()
        assert other.logits(pixels).shape == vit.logits(pixels).shape


def test_what_can_have_none_is_refused():
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    with pytest.raises(InputError, match="no outliers"):
        register_neurons(as_read(plain(), "test_vit", (160, 160)), [pixels])
    beit = timm.create_model("beit_base_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2).eval()
    vit = as_read(beit, "beit", (32, 32))
    with pytest.raises(InputError, match="beit takes no further token"):
        Raw()(WithRegister(vit, [(0, 3)]), pixels[..., :32, :32])
    swin = as_read(timm.create_model("swin_tiny_patch4_window7_224", depths=(1,)).eval(), "swin", (224, 224))
    with pytest.raises(InputError, match="no one grid"):
        WithRegister(swin, [(0, 3)])


@pytest.mark.parametrize("command", ["overlay", "features"])
def test_the_commands_say_what_moved(command, model, tmp_path, capsys):
    torch.save(model.state_dict(), tmp_path / "built.pth")
    torch.save(plain().state_dict(), tmp_path / "plain.pth")
    Image.fromarray(images()[0].permute(1, 2, 0).numpy()).save(tmp_path / "spot.png")
    given = [command, "--timm", "test_vit", str(tmp_path / "spot.png"), "--precision", "32"]
    given += ["--test-time-registers", "1"]
    assert main([*given, "--weights", str(tmp_path / "built.pth"), "--output", str(tmp_path / "out")]) == 0
    assert "0 of 100 patches have norms above 3 times the median, 1 without" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "spot.npz") as file:
        assert file["raw" if command == "overlay" else "norms"].shape[-2:] == (10, 10)
    if command == "features":
        (entry,) = json.loads((tmp_path / "out" / "features.json").read_text())
        assert entry["artefacts"] == 0
    assert main([*given, "--weights", str(tmp_path / "plain.pth"), "--output", str(tmp_path / "no")]) == 2
    assert "no outliers" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
