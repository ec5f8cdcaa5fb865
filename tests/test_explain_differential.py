"""Differential attention: maps against timm's own difference of two softmaxes, signed."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from visattn.cli import main
from visattn.errors import InputError
from visattn.explain import (
    LRP,
    GradCAM,
    GradientRollout,
    LeGrad,
    Raw,
    Relevance,
    Rollout,
    ValueNorm,
    ViT,
    as_read,
    record,
)
from visattn.explain.methods import METHODS, methods_of
from visattn.explain.place import AtPatches, patch_queries

NAMES = ["vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256", "vit_dlittle_patch16_reg1_gap_256"]
SIZE = (48, 80)
OPTIONS = {"img_size": SIZE, "depth": 2, "embed_dim": 24, "num_heads": 3}


def built(name, fused=True):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, **OPTIONS).eval()
    generator = torch.Generator().manual_seed(1)
    for key, parameter in model.named_parameters():
        if "lambda" in key:  # 0 or near it as they are initialised, where λ is the same in all models
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.4)
        elif parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5, generator=generator)
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return model


def pixels():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def differences(model, monkeypatch):
    """Each block's A₁ − λ A₂ (B, heads, N, N), from its own unfused softmax and λ."""
    caught, plain = [], torch.Tensor.softmax

    def softmax(self, *args, **options):
        caught.append(plain(self, *args, **options))
        return caught[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", softmax)
        model(pixels())
    shares = [part._compute_lambda() for part in model.modules() if hasattr(part, "_compute_lambda")]
    both = (weights.unflatten(1, (3, 2)) for weights in caught)
    return [weights[:, :, 0] - share * weights[:, :, 1] for weights, share in zip(both, shares, strict=True)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_maps_are_the_models_own_difference(name, fused, monkeypatch, one_thread):
    expected = differences(built(name, fused=False), monkeypatch)
    model = built(name, fused)
    vit = as_read(model, name, SIZE)
    assert type(vit) is ViT
    assert vit.signed
    for found, own in zip(vit.maps(pixels()), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        assert (found < 0).any()
    maps = Raw(layer=0)(vit, pixels())
    torch.testing.assert_close(maps.flatten(1), expected[0][..., 1:, 1:].mean((1, 2)), rtol=0, atol=1e-5)
    at = Raw(layer=1, head=2)(AtPatches(vit, [4, 11]), pixels()).flatten(1)
    for image, cell in enumerate((4, 11)):
        torch.testing.assert_close(at[image], expected[1][image, 2, 1 + cell, 1:], rtol=0, atol=1e-5)
    with torch.no_grad():
        before = model(pixels())
        with record(model) as attention:
            assert torch.equal(model(pixels()), before)
    assert [entry.shape for entry in attention] == [(2, 3, 16, 16)] * 2
    torch.testing.assert_close(attention[1].weights(slice(3, 5), [1]), expected[1][:, [1], 3:5], rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_those_by_the_difference(fused, monkeypatch):
    """A₁ − λ A₂ made a leaf in the unfused block, against the recorder's gradient by it."""
    model = built(NAMES[2], fused)
    vit = as_read(model, "differential", SIZE)
    judged = vit.judged(pixels(), torch.tensor([3, 5]))
    plain, kept, multiply = built(NAMES[2], fused=False), [], torch.Tensor.__matmul__

    def product(self, other):
        if self.shape[-2:] == (16, 16):
            self.retain_grad()
            kept.append(self)
        return multiply(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", product)
        logits = plain(pixels())
    (logits[0, 3] + logits[1, 5]).backward()
    for (call, of_out), own in zip(judged.layers, kept, strict=True):
        torch.testing.assert_close(call.gradient(of_out), own.grad, rtol=1e-4, atol=1e-5)
    for method in (Relevance(), GradientRollout(), LeGrad(), GradCAM()):
        assert method(vit, pixels()).isfinite().all()


def test_relevance_of_pixels_is_conserved():
    """Without biases, positions and the register; λ is a number, so nothing flows through it."""
    model = built(NAMES[2])
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "pos_embed" in name or "token" in name:
            parameter.data.zero_()
    vit = as_read(model, "differential", SIZE)
    with torch.no_grad():
        logits = model(pixels())[:, 3]
    torch.testing.assert_close(LRP()(vit, pixels(), torch.tensor([3, 3])).sum((1, 2)), logits, rtol=1e-3, atol=1e-4)


def test_what_needs_shares_is_refused():
    vit = as_read(built(NAMES[0]), "differential", SIZE)
    for method in (Rollout(), ValueNorm()):
        with pytest.raises(InputError, match="not defined"):
            method(vit, pixels())
    with pytest.raises(InputError, match="--queries"):
        patch_queries(vit)
    assert set(METHODS) - set(methods_of(vit)) == {"rollout", "value-norm"}


def test_the_command_shows_raw_attention_and_says_that_it_is_signed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "test_vit", lambda **options: built(NAMES[1]))
    Image.effect_noise(SIZE[::-1], 90).convert("RGB").save(tmp_path / "a.png")
    given = ["overlay", "--timm", "test_vit", "--weights", "random", str(tmp_path / "a.png"), "--export", "svg,npz"]
    assert main([*given, "--image-size", "48", "80", "--output", str(tmp_path / "out")]) == 0
    assert "λ" in (tmp_path / "out" / "a.svg").read_text()
    with np.load(tmp_path / "out" / "a.npz") as file:
        assert (file["layers"] < 0).any()
        assert "rollout" not in file
    assert main([*given, "--image-size", "48", "80", "--method", "rollout", "--output", str(tmp_path / "no")]) == 2
    assert "not defined" in capsys.readouterr().err
