"""Our Vision Transformer is timm's, and its maps are what it used."""

import pytest
import timm
import torch

from visattn.errors import InputError
from visattn.models import VisionTransformer


def ours_and_timms(size=(24, 40), **options):
    timms = timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=8, embed_dim=30, depth=3, num_heads=5, mlp_ratio=2.0, num_classes=7, **options
    ).eval()
    ours = VisionTransformer(7, size, patch=8, size=30, depth=3, heads=5, mlp_ratio=2.0).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in timms.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    ours.load_state_dict(timms.state_dict())
    return ours, timms


def test_logits_equal_timms_with_the_same_state_dict():
    ours, timms = ours_and_timms()
    assert list(ours.state_dict()) == list(timms.state_dict())
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-4)


def test_a_named_timm_model_loads():
    timms = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=(32, 48)).eval()
    ours = VisionTransformer(5, (32, 48), patch=16, size=192, depth=12, heads=3).eval()
    ours.load_state_dict(timms.state_dict())
    images = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-4)


def test_other_input_sizes_interpolate_positions_as_timm_does():
    ours, timms = ours_and_timms(dynamic_img_size=True)
    images = torch.randn(2, 3, 16, 56, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), timms(images), rtol=1e-4, atol=1e-4)
    assert ours.attention_maps(images).shape == (2, 3, 5, 1 + 14, 1 + 14)


def test_maps_are_the_weights_that_made_the_output():
    model, _ = ours_and_timms()
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(2))
    maps = model.attention_maps(images)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 5, 16))
    x = model.tokens(images)
    for layer, block in enumerate(model.blocks):
        normed = block.norm1(x)
        value = block.attn.qkv(normed)[..., 60:].unflatten(-1, (5, -1)).transpose(1, 2)
        attended = block.attn.proj((maps[:, layer] @ value).transpose(1, 2).flatten(2))
        x = x + attended
        x = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(model.head(model.norm(x)[:, 0]), model(images), rtol=1e-4, atol=1e-4)


def test_logits_are_the_same_by_every_way_through_the_model_and_so_are_gradients():
    model, _ = ours_and_timms()
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    parameters = list(model.parameters())

    def run(logits):
        return [logits, *torch.autograd.grad(logits.square().sum(), parameters)]

    every_token = model.head(model.norm(model.blocks(model.tokens(images)))[:, 0])
    expected = run(every_token)
    for logits in (model(images), model.plain_forward(images), model.with_weights(images)[0]):
        for one, other in zip(run(logits), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize(("size", "message"), [((24, 41), "24×41 pixels"), ((0, 8), "0×8 pixels")])
def test_sides_must_be_multiples_of_the_patch(size, message):
    with pytest.raises(InputError, match=message):
        VisionTransformer(7, size, patch=8, size=30, heads=5)
