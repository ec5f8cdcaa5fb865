"""Compiled or wrapped models have the maps of the module inside; unsupported modules are refused by name."""

import copy

import pytest
import timm
import torch
from torch import nn

from visattn.errors import InputError
from visattn.explain import GradientRollout, Raw, Relevance, Rollout, ViT, timm_subject
from visattn.models import VisionTransformer

METHODS = [Raw(), Rollout(), GradientRollout(), Relevance()]


def timms():
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), depth=2, embed_dim=30, num_heads=5, num_classes=7
    )
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model.eval()


def ours():
    torch.manual_seed(0)
    return VisionTransformer(7, (32, 48), patch=16, size=30, depth=2, heads=5).eval()


def whole(model):
    return torch.compile(model, backend="eager")


def in_place(model):
    model.compile(backend="eager")
    return model


def blocks(model):
    for number, block in enumerate(model.blocks):
        model.blocks[number] = torch.compile(block, backend="eager")
    return model


def row_of_blocks(model):
    model.blocks = torch.compile(model.blocks, backend="eager")
    return model


def attention(model):
    for block in model.blocks:
        block.attn.compile(backend="eager")
    return model


def parallel(model):
    return nn.DataParallel(model)


def both(model):
    return nn.DataParallel(whole(blocks(model)))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("wrap", [whole, in_place, blocks, row_of_blocks, attention, parallel, both])
@pytest.mark.parametrize("build", [timms, ours])
def test_maps_are_those_of_the_module_inside(build, wrap):
    if build is ours and wrap is row_of_blocks:
        pytest.skip("ours takes its last block by its number, which a compiled row does not have")
    model, pixels = build(), torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    right = [method(ViT(model), pixels) for method in METHODS]
    logits = model(pixels)
    wrapped = wrap(copy.deepcopy(model)).train()
    kept = {name: parameter.clone() for name, parameter in wrapped.named_parameters()}
    with torch.no_grad():
        before = wrapped(pixels)
    for method, expected in zip(METHODS, right, strict=True):
        torch.testing.assert_close(method(ViT(wrapped), pixels), expected, rtol=1e-5, atol=1e-6)
    assert all(part.training for part in wrapped.modules())
    for name, parameter in wrapped.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, kept[name])
    with torch.no_grad():
        torch.testing.assert_close(wrapped(pixels), before)
        torch.testing.assert_close(wrapped.eval()(pixels), logits)


def test_parts_that_evaluate_stay_so():
    model = timms().train()
    model.blocks[0].eval()
    modes = [part.training for part in model.modules()]
    Relevance()(ViT(model), torch.zeros(1, 3, 32, 48))
    assert [part.training for part in model.modules()] == modes


@pytest.mark.filterwarnings("ignore")
def test_programs_are_refused():
    model, pixels = timms(), torch.zeros(1, 3, 32, 48)
    exported = torch.export.export(model, (pixels,))
    for program in (torch.jit.trace(model, pixels), exported, exported.module(), model.forward):
        with pytest.raises(InputError, match="give the module"):
            ViT(program)


@pytest.mark.parametrize("size", [(112, 112), (32, 64), (48, 32), (0, 0), (1, 1)])
def test_another_size_is_refused(size):
    vit = ViT(timms(), "mine")
    for ask in (vit.rows, vit.maps, vit.judged, lambda pixels: Raw()(vit, pixels)):
        with pytest.raises(InputError, match=r"mine"):
            ask(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 1, 32, 48),
        torch.zeros(1, 4, 32, 48),
        torch.zeros(3, 32, 48),
        torch.zeros(1, 1, 3, 32, 48),
        torch.zeros(1, 3, 32, 48, dtype=torch.uint8),
        [[1.0]],
        None,
    ],
    ids=["grey", "alpha", "single", "video", "bytes", "list", "none"],
)
def test_no_images_are_refused(pixels):
    for build in (timms, ours):
        with pytest.raises(InputError, match="takes"):
            Raw()(ViT(build()), pixels)


@pytest.mark.parametrize("targets", [7, [7], [-1], [0, 1], [0.5], [[0]], [True]])
def test_invalid_targets(targets):
    with pytest.raises(InputError, match="class"):
        Relevance()(ViT(timms()), torch.zeros(1, 3, 32, 48), torch.tensor(targets))


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 150)},
        {"image_size": (-16, 32)},
        {"image_size": (10**9, 10**9)},
        {"image_size": (32,)},
        {"image_size": (32.5, 32)},
        {"image_size": 0},
        {"image_size": (2048 + 16, 2048)},
        {"in_chans": 1},
        {"depth": -1},
        {"num_heads": 7},
        {"patch_size": 0},
        {"num_classes": -3},
        {"no_such_option": 1},
    ],
    ids=str,
)
def test_invalid_model_options(options):
    with pytest.raises(InputError):
        timm_subject("vit_tiny_patch16_224", "random", **{"depth": 1, **options})


@pytest.mark.parametrize("weights", ["random", "pretrained", "absent.pth"])
def test_an_unknown_tag(weights):
    with pytest.raises(InputError, match=r"nosuchtag.*augreg"):
        timm_subject("vit_tiny_patch16_224.nosuchtag", weights)
