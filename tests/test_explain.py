"""Maps of any Vision Transformer: they reproduce the block's output, and each method follows its equations."""

import inspect

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.explain import GradientRollout, Raw, Relevance, Rollout, ViT, rollout
from visattn.explain.calls import FusedAttention
from visattn.explain.reading import intercepted
from visattn.models import VisionTransformer

SMALL = {"depth": 3, "embed_dim": 30, "num_heads": 5, "num_classes": 7}
# name of timm, options, (h, w), and what the seam must find: the grid and the tokens before it
TIMM = {
    "class token": ("vit_tiny_patch16_224", {"img_size": (48, 80)}, (48, 80), (3, 5), 1),
    "dynamic size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}, (80, 48), (5, 3), 1),
    "distillation token": ("deit_tiny_distilled_patch16_224", {"img_size": (48, 80)}, (48, 80), (3, 5), 2),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": (48, 80), "patch_size": 16}, (48, 80), (3, 5), 5),
    "registers, average": ("vit_medium_patch16_reg4_gap_256", {"img_size": (48, 80)}, (48, 80), (3, 5), 4),
    "average": ("vit_medium_patch16_gap_240", {"img_size": (48, 80)}, (48, 80), (3, 5), 0),
    "average of all": (
        "vit_tiny_patch16_224",
        {"img_size": (48, 80), "global_pool": "avg", "pool_include_prefix": True},
        (48, 80),
        (3, 5),
        1,
    ),
    "attention pooling": ("vit_base_patch16_siglip_224", {"img_size": (48, 80)}, (48, 80), (3, 5), 0),
    "attention pooling, class token": (
        "vit_tiny_patch16_224",
        {"img_size": (48, 80), "global_pool": "map"},
        (48, 80),
        (3, 5),
        1,
    ),
    "q/k norm": ("vit_tiny_patch16_224", {"img_size": (48, 80), "qk_norm": True}, (48, 80), (3, 5), 1),
    "relative bias": ("beit_base_patch16_224", {"img_size": (48, 80)}, (48, 80), (3, 5), 1),
    "relative bias, shared": (
        "beit_base_patch16_224",
        {"img_size": (48, 80), "use_shared_rel_pos_bias": True, "use_rel_pos_bias": False},
        (48, 80),
        (3, 5),
        1,
    ),
    "relative positions": ("vit_relpos_small_patch16_224", {"img_size": (48, 80)}, (48, 80), (3, 5), 0),
    "rotary": ("eva02_tiny_patch14_224", {"img_size": (42, 70), "embed_dim": 40}, (42, 70), (3, 5), 1),
    "rotary, mixed": ("vit_small_patch16_rope_mixed_224", {"img_size": (48, 80), "embed_dim": 40}, (48, 80), (3, 5), 1),
    "parallel block": (
        "vit_tiny_patch16_224",
        {"img_size": (48, 80), "block_fn": ParallelScalingBlock},
        (48, 80),
        (3, 5),
        1,
    ),
}


def is_known(case):
    """Whether this release of timm has the model and its options."""
    return timm.is_model(case[0]) and (
        "pool_include_prefix" not in case[1]
        or "pool_include_prefix" in inspect.signature(timm.models.VisionTransformer).parameters
    )


KNOWN = [name for name in TIMM if is_known(TIMM[name])]
every_timm = pytest.mark.parametrize("case", [TIMM[name] for name in KNOWN], ids=KNOWN)


def scrambled(model, seed=0, std=0.3):
    """A model with random values for all parameters, so that nothing is uniform or zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=std, generator=generator)
    return model.eval()


def timms(case):
    name, options, *_ = case
    return scrambled(timm.create_model(name, **(SMALL | options)))


def ours(seed=0, depth=3, classes=7):
    return scrambled(VisionTransformer(classes, (24, 40), patch=8, size=30, depth=depth, heads=5, mlp_ratio=2.0), seed)


def images(size, count=2, seed=1):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def explicit(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """Attention by its definition, instead of the fused kernel, with stored weights."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    weights = (scores if attn_mask is None else scores + attn_mask).softmax(-1)
    weights.requires_grad_() if not weights.requires_grad else weights.retain_grad()
    KEPT.append(weights)
    return weights @ value


KEPT: list[torch.Tensor] = []


@pytest.fixture
def definition(monkeypatch):
    """Runs a model with explicit attention: its logits and every weight, in the graph."""

    def run(model, pixels):
        KEPT.clear()
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", explicit)
            logits = model(pixels)
        return logits, list(KEPT)

    return run


def every_map(vit, pixels, layers=None, heads=None):
    """`maps` in one tensor (B, layers, heads, N, N)."""
    return torch.stack(vit.maps(pixels, layers, heads), dim=1)


@every_timm
def test_maps_are_those_of_the_definition_and_make_the_output(case, definition):
    model, (_, _, size, grid, prefix) = timms(case), case
    vit = ViT(model, case[0])
    pixels = images(size)
    assert vit.grid(size) == grid
    assert vit.prefix == prefix
    maps = every_map(vit, pixels)
    tokens = prefix + grid[0] * grid[1]
    assert maps.shape == (2, 3, 5, tokens, tokens)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 5, tokens))
    logits, weights = definition(model, pixels)
    torch.testing.assert_close(maps, torch.stack([w.detach() for w in weights[:3]], dim=1), rtol=1e-4, atol=1e-5)
    calls = []
    with torch.no_grad(), intercepted(calls.append):
        torch.testing.assert_close(model(pixels), logits, rtol=1e-3, atol=1e-3)
    for layer, call in enumerate(calls[:3]):
        torch.testing.assert_close(maps[:, layer] @ call.value, call.out, rtol=1e-4, atol=1e-4)


@every_timm
def test_rows_are_what_the_classes_are_read_from(case, definition):
    """Against each way to pool, written down again."""
    model, (name, options, size, grid, prefix) = timms(case), case
    vit = ViT(model, name)
    pixels = images(size)
    maps = every_map(vit, pixels)
    if model.global_pool == "token":
        row = maps[..., : 2 if "distilled" in name else 1, :].mean(-2)
    elif model.global_pool == "avg":
        row = maps[..., 0 if options.get("pool_include_prefix") else prefix :, :].mean(-2)
    else:
        pool = definition(model, pixels)[1][-1].mean(1).squeeze(1)  # (B, patches), in older releases of timm all tokens
        row = torch.einsum("bn,blhnm->blhm", pool, maps[..., -pool.shape[1] :, :])
    expected = row[..., prefix:].unflatten(-1, grid)
    torch.testing.assert_close(vit.rows(pixels), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vit.rows(pixels, [2, -3], [4]), expected[:, [2, 0], 4:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Raw(1)(vit, pixels), expected[:, 1].mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Raw(0, 3)(vit, pixels), expected[:, 0, 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "method", [Raw(), Raw(1, 2), Rollout(), Rollout("max", 0.3), GradientRollout(), Relevance()], ids=str
)
def test_ours_and_timms_have_the_same_maps(method):
    one = ours()
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=(24, 40), patch_size=8, embed_dim=30, depth=3, num_heads=5, mlp_ratio=2.0, num_classes=7
    ).eval()
    other.load_state_dict(one.state_dict())
    pixels = images((24, 40), 3)
    expected = method(ViT(other), pixels)
    torch.testing.assert_close(method(ViT(one), pixels), expected, rtol=1e-3, atol=1e-5)
    alone = torch.cat([method(ViT(one), pixels[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-3, atol=1e-5)


def test_maps_chosen_by_layer_and_head_are_those_of_all():
    model = ours()
    vit, pixels = ViT(model), images((24, 40))
    maps = every_map(vit, pixels)
    torch.testing.assert_close(maps, model.attention_maps(pixels))
    torch.testing.assert_close(every_map(vit, pixels, [2, -3], [4, 1]), maps[:, [2, 0]][:, :, [4, 1]])


def test_unfused_blocks_are_read_and_stay_unfused():
    model = timms(TIMM["class token"])
    vit, pixels = ViT(model), images((48, 80))
    expected = every_map(vit, pixels)
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(every_map(vit, pixels), expected)
    assert not any(block.attn.fused_attn for block in model.blocks)


def test_reading_leaves_the_mode_and_the_gradients_as_they_were():
    model = timms(TIMM["class token"]).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():  # not even there are gradients in the way
        Relevance()(ViT(model), images((48, 80)))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_and_autocast_are_read_in_float32():
    vit, pixels = ViT(timms(TIMM["class token"])), images((48, 80))
    exact = every_map(vit, pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = every_map(vit, pixels)
    half = every_map(ViT(vit.model.bfloat16()), pixels.bfloat16())
    for maps in (mixed, half):
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 5, 16))
        assert (maps - exact).abs().mean() < 0.02


def test_weights_that_do_not_make_the_output_are_refused():
    class Scaled(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    calls = []
    with intercepted(calls.append):
        Scaled()(torch.randn(2, 3, 13, 5, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(RuntimeError, match="do not make its output"):
        calls[0].weights()


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("kind", ["none", "bool", "added", "causal"])
def test_masks_and_scales_are_read(kind, scale):
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 3, n, 5, generator=generator) for n in (7, 11, 11))
    mask = {
        "bool": torch.rand(2, 1, 7, 11, generator=generator) < 0.7,
        "added": torch.randn(3, 7, 11, generator=generator),
    }
    options = {"attn_mask": mask.get(kind), "is_causal": kind == "causal", "scale": scale}
    calls = []
    with intercepted(calls.append):
        out = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(calls[0].weights() @ value, out)
    torch.testing.assert_close(calls[0].weights(slice(2, 5), [2, 0]) @ value[:, [2, 0]], out[:, [2, 0], 2:5])


# ------------------------------------------------------------------------------------------------------------ rollout


def test_rollout_is_the_product_by_hand():
    maps = torch.rand(3, 2, 5, 7, 7, generator=torch.Generator().manual_seed(3)).softmax(-1)
    eye = torch.eye(7)
    a, b, c = ((layer[1].mean(0) + eye) / 2 for layer in maps)
    torch.testing.assert_close(rollout(maps)[1], c @ b @ a)


def test_rollout_discards_the_smallest_of_each_image():
    weights = torch.tensor([[[[0.1, 0.9], [0.6, 0.4]], [[0.3, 0.7], [0.8, 0.2]]]])  # (1, 2 heads, 2, 2)
    # largest of heads: .3 .9 / .8 .4; without the smallest half: 0 .9 / .8 0; with I: 1 .9 / .8 1
    expected = torch.tensor([[[1 / 1.9, 0.9 / 1.9], [0.8 / 1.8, 1 / 1.8]]])
    torch.testing.assert_close(rollout([weights], "max", 0.5), expected)


@pytest.mark.parametrize("discard", [0.0, 0.4, 0.9, 0.99])
@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_rows_of_a_rollout_sum_to_one(fusion, discard):
    maps = (3 * torch.randn(5, 2, 3, 11, 11, generator=torch.Generator().manual_seed(5))).softmax(-1)
    torch.testing.assert_close(rollout(maps, fusion, discard).sum(-1), torch.ones(2, 11))


@pytest.mark.parametrize("options", [{}, {"fusion": "max", "discard": 0.3}, {"fusion": "min"}], ids=str)
def test_rollout_of_a_model_is_that_of_its_maps(options):
    vit, pixels = ViT(ours()), images((24, 40))
    expected = rollout(torch.stack(vit.maps(pixels)), **options)[:, 0, 1:].unflatten(-1, (3, 5))
    torch.testing.assert_close(Rollout(**options)(vit, pixels), expected)


def test_a_rollout_keeps_one_layer_of_weights_however_deep_the_model(monkeypatch):
    places, read = [], FusedAttention.weights

    def weights(call, into=None):
        places.append(read(call, into=into))
        return places[-1]

    monkeypatch.setattr(FusedAttention, "weights", weights)
    Rollout()(ViT(ours(depth=7)), images((24, 40)))
    assert len(places) == 7
    assert len({place.data_ptr() for place in places}) == 1


# ---------------------------------------------------------------------------------------------------------- gradients


@every_timm
def test_gradients_are_autograds_through_explicit_attention(case, definition):
    model = timms(case)
    vit, pixels = ViT(model, case[0]), images(case[2])
    targets = torch.tensor([3, 5])
    judged = vit.judged(pixels, targets)
    logits, weights = definition(model, pixels)
    expected = torch.autograd.grad(logits.gather(1, targets.unsqueeze(1)).sum(), weights)
    for (call, of_out), gradient in zip(judged.layers, expected, strict=False):
        found = call.gradient(of_out)
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("name", ["class token", "distillation token", "average", "attention pooling"])
def test_relevance_is_the_papers_by_explicit_attention(name, definition):
    """Equations 5 and 6, each image by itself."""
    case = TIMM[name]
    model, (_, _, size, grid, prefix) = timms(case), case
    pixels, targets = images(size), torch.tensor([3, 5])
    found = Relevance()(ViT(model), pixels, targets)
    assert (found >= 0).all()
    for b in range(2):
        logits, weights = definition(model, pixels[b : b + 1])
        gradients = torch.autograd.grad(logits[0, targets[b]], weights)
        parts = [(a * g).clamp(min=0).mean(1)[0] for a, g in zip(weights, gradients, strict=True)]
        eye = torch.eye(len(parts[0]))
        relevance = eye
        for part in parts[:3]:
            relevance = relevance + part @ relevance
        added = relevance - eye
        if name == "class token":
            row = relevance[0]  # as in the authors' notebook
        elif name == "distillation token":
            row = (added[0] + added[1]) / 2
        elif name == "average":
            row = added.mean(0)
        else:
            row = (parts[3] @ (added / added.sum(-1, keepdim=True) + eye))[0]
        torch.testing.assert_close(found[b], row[prefix:].view(grid), rtol=1e-3, atol=1e-6)


def test_gradient_rollout_is_the_product_by_hand(definition):
    model, pixels = ours(), images((24, 40), 1)
    logits, weights = definition(model, pixels)
    gradients = torch.autograd.grad(logits[0, 4], weights)
    eye = product = torch.eye(16)
    for a, g in zip(weights, gradients, strict=True):
        passed = (a * g)[0].mean(0).clamp(min=0) + eye
        product = passed / passed.sum(-1, keepdim=True) @ product
    found = GradientRollout()(ViT(model), pixels, torch.tensor([4]))
    torch.testing.assert_close(found[0], product[0, 1:].view(3, 5), rtol=1e-4, atol=1e-6)


def test_without_a_target_the_likeliest_class_is_explained():
    vit, pixels = ViT(ours(seed=6)), images((24, 40), 5)
    likeliest = vit.model(pixels).argmax(-1)
    assert len(set(likeliest.tolist())) > 1
    torch.testing.assert_close(Relevance()(vit, pixels), Relevance()(vit, pixels, likeliest))
    other = (likeliest + 1) % 7
    assert not torch.allclose(Relevance()(vit, pixels), Relevance()(vit, pixels, other))


def one_patch_decides():
    """A ViT of one layer and one head that says class 1 as far as some patch is bright; its class token finds it.

    Of a token's three numbers the first two are its brightness, positive and negative (the norm leaves their order),
    and the third says that it is the class token.
    """
    model = VisionTransformer(2, (24, 40), patch=8, size=3, depth=1, heads=1, mlp_ratio=1.0).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.patch_embed.proj.weight.data[0] = 1 / 192
    model.patch_embed.proj.weight.data[1] = -1 / 192
    model.cls_token.data[0, 0] = torch.tensor([0.0, 0.0, 1.0])
    block = model.blocks[0]
    block.norm1.weight.data.fill_(1)
    block.attn.qkv.weight.data[0, 2] = 2.0  # the class token asks for what is bright
    block.attn.qkv.weight.data[3, 0] = 2.0
    block.attn.qkv.weight.data[6, 0] = 1.0  # and takes the brightness
    block.attn.proj.weight.data[0, 0] = 1.0
    model.norm.weight.data.fill_(1)
    model.head.weight.data[1, 0] = 1.0
    return model


@pytest.mark.parametrize("place", [0, 7, 14])
def test_relevance_points_at_the_patch_that_decides(place):
    pixels = -torch.ones(1, 3, 24, 40)
    row, column = divmod(place, 5)
    pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    vit = ViT(one_patch_decides())
    dark = vit.model(-torch.ones(1, 3, 24, 40))
    assert vit.model(pixels)[0, 1] > dark[0, 1]
    relevance = Relevance()(vit, pixels, torch.tensor([1]))[0].flatten()
    assert relevance.argmax() == place
    assert relevance[place] > 0.5 * relevance.sum()


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("resnet10t", {}, "no row of transformer blocks"),
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)},
            "attends within windows",
        ),
        ("vit_tiny_patch16_224", {"global_pool": "max", "depth": 1}, "pooled by 'max'"),
    ],
)
def test_other_models_are_refused(name, options, reason):
    with pytest.raises(InputError, match=f"{name} is not .*: .*{reason}"):
        ViT(timm.create_model(name, **options), name)


def test_blocks_that_attend_otherwise_are_refused_when_they_run():
    talking = timm.create_model("cait_xxs24_224", img_size=32, depth=2, embed_dim=12, num_heads=2)
    with pytest.raises(InputError, match=r"the model is not .*: its attention"):
        Rollout()(ViT(talking), images((32, 32)))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda vit, x: Raw(3)(vit, x), "has no layer 3; its 3 layers are numbered 0 to 2"),
        (lambda vit, x: Raw(-4)(vit, x), "has no layer -4"),
        (lambda vit, x: Raw(0, 5)(vit, x), "has no head 5; its 5 heads are numbered 0 to 4"),
        (
            lambda vit, x: Relevance()(vit, x, torch.tensor([0, 7])),
            "has 7 classes, numbered from 0; there is no class 7",
        ),
        (lambda vit, x: vit.grid((24, 7)), "7×24 pixels is smaller than a patch of the model, 8×8"),
        (lambda vit, x: Rollout("median"), "fusion of heads is 'median'; it must be one of mean, max, min"),
        (lambda vit, x: Rollout(discard=1.0), "share to discard is 1.0"),
    ],
)
def test_mistakes_are_named(ask, message):
    with pytest.raises(InputError, match=message):
        ask(ViT(ours()), images((24, 40)))


def test_a_model_without_classes_has_maps_but_no_relevance():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(48, 80), depth=2, embed_dim=30, num_heads=5, num_classes=0
    )
    vit = ViT(model.eval(), "features")
    assert Rollout()(vit, images((48, 80))).shape == (2, 3, 5)
    with pytest.raises(InputError, match="features has no classes"):
        Relevance()(vit, images((48, 80)))
