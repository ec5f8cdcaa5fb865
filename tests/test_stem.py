"""Convolutions before the transformer: the grid is what it says, and each of its cells looks around its own middle."""

import functools

import pytest
import torch
from torch import nn

from visattn.attention import MultiHeadSelfAttention
from visattn.errors import InputError
from visattn.explain import GradientRollout, Relevance, Rollout, ViT
from visattn.models import ConvolutionalStem, PatchEmbedding, VisionTransformer
from visattn.models.receptive_field import cell_centres

SIZE = (24, 40)


def seeded(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def vit(patch=8, widths=(5, 7, 11), size=SIZE):
    torch.manual_seed(0)
    embed = functools.partial(ConvolutionalStem, widths=widths)
    model = VisionTransformer(13, size, patch=patch, size=30, depth=3, heads=5, mlp_ratio=2.0, embed=embed).eval()
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.cls_token)
    return model


def images(count=2, size=SIZE, seed=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("patch", "widths"), [(2, (5,)), (4, (5, 7)), (8, (5, 7, 11))])
def test_a_patch_becomes_a_token_in_a_rectangle_too(patch, widths):
    tokens = ConvolutionalStem(patch, 13, widths)(images())
    assert tokens.shape == (2, 24 // patch, 40 // patch, 13)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_stem_makes_of_a_mirrored_image_the_mirrored_grid(axis):
    """It holds to the last token where every kernel is even about its output, and for no kernel that is off by half."""
    stem, mirrored = ConvolutionalStem(4, 13, (5, 7)), ConvolutionalStem(4, 13, (5, 7))
    seeded(stem)
    mirrored.load_state_dict({n: w.flip(2 + axis) if w.ndim == 4 else w for n, w in stem.state_dict().items()})
    mirrored.eval()
    torch.testing.assert_close(mirrored(images().flip(2 + axis)), stem(images()).flip(1 + axis), rtol=1e-4, atol=1e-4)


def test_a_halving_of_3_by_3_would_not_be_even():
    conv = nn.Conv2d(3, 5, 3, 2, padding=1)
    mirrored = nn.Conv2d(3, 5, 3, 2, padding=1)
    mirrored.load_state_dict({"weight": conv.weight.flip(3), "bias": conv.bias})
    assert not torch.allclose(mirrored(images().flip(3)), conv(images()).flip(3), atol=0.1)


class Features(nn.Module):
    """A stem as the feature extractor that `centre_shift` knows."""

    def __init__(self, stem):
        super().__init__()
        self.stem = stem

    def forward(self, pixels):
        return [self.stem(pixels).permute(0, 3, 1, 2)]


@pytest.mark.parametrize(("patch", "widths"), [(2, (5,)), (4, (5, 7)), (8, (5, 7, 11))])
def test_receptive_fields_are_centred_on_their_cells(patch, widths):
    cells = cell_centres(Features(ConvolutionalStem(patch, 13, widths)), SIZE)
    assert (cells, cells.stride) == ((0, 0), (patch, patch))


def test_a_bright_dot_lands_under_the_cell_that_covers_it():
    """With kernels that count all their pixels alike, whatever the pixel within the cell."""
    stem = ConvolutionalStem(4, 13, (5, 7)).eval()
    for parameter in stem.parameters():
        if parameter.ndim == 4:
            nn.init.constant_(parameter, 1 / parameter[0].numel())
    for y, x in [(0, 0), (3, 8), (10, 17), (13, 22), (17, 38), (23, 39)]:
        dot = torch.zeros(1, 3, *SIZE)
        dot[..., y, x] = 1
        changed = (stem(dot) - stem(torch.zeros_like(dot))).sum(-1)[0]
        assert divmod(int(changed.argmax()), changed.shape[1]) == (y // 4, x // 4)


def test_maps_are_those_of_the_transformer_on_the_stems_grid():
    model = vit()
    seen = ViT(model)
    assert (seen.patch, seen.prefix, seen.grid(SIZE)) == ((8, 8), 1, (3, 5))
    maps = torch.stack(seen.maps(images()), dim=1)
    torch.testing.assert_close(maps, model.attention_maps(images()).detach(), rtol=1e-4, atol=1e-5)
    for method in (Rollout(), GradientRollout(), Relevance()):
        found = method(seen, images(), torch.tensor([3, 11]))
        assert found.shape == (2, 3, 5)
        assert found.min() >= 0


def test_another_input_size_takes_interpolated_positions():
    assert vit()(images(size=(16, 56))).shape == (2, 13)


@pytest.mark.parametrize("size", [(24, 44), (20, 40)])
def test_sides_must_be_multiples_of_the_patch(size):
    with pytest.raises(InputError, match=f"{size[0]}×{size[1]} .*8×8"):
        vit()(images(size=size))


@pytest.mark.parametrize(
    ("patch", "widths", "message"),
    [
        (6, (5, 7), "patch of a convolutional stem is 6"),
        (1, (), "patch of a convolutional stem is 1"),
        (8, (5, 7), "with a patch of 8 needs 3 widths, one for each downsampling step, not 2"),
        (4, (5, 7, 11), "with a patch of 4 needs 2 widths, one for each downsampling step, not 3"),
    ],
)
def test_a_stem_halves(patch, widths, message):
    with pytest.raises(InputError, match=message):
        ConvolutionalStem(patch, 13, widths)


def test_the_default_is_the_patches_projection():
    torch.manual_seed(0)
    default = VisionTransformer(13, SIZE, patch=8, size=30, depth=1, heads=5)
    torch.manual_seed(0)
    stated = VisionTransformer(13, SIZE, patch=8, size=30, depth=1, heads=5, embed=PatchEmbedding)
    torch.testing.assert_close(default.state_dict(), stated.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_training_in_bfloat16_attends_as_the_fused_kernel_does(causal):
    """On a CPU it goes another way; outputs and gradients agree as far as eight bits go."""
    torch.manual_seed(0)
    attention = MultiHeadSelfAttention(30, 5, causal=causal).to(torch.bfloat16)
    x = torch.randn(3, 17, 30, dtype=torch.bfloat16)
    found = []
    for training in (True, False):
        attention.train(training).zero_grad()
        out = attention(x)
        out.float().square().sum().backward()
        found.append((out.float(), attention.qkv.weight.grad.float()))
    torch.testing.assert_close(found[0], found[1], rtol=0.03, atol=0.03 * float(found[1][1].abs().max()))
