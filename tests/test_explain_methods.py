"""Each further method is what its equation says, and what the libraries people use for it compute."""

import pytest
import timm
import torch
from test_explain import TIMM, every_timm, images, ours, scrambled, timms
from torch import nn
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.explain import LRP, GradCAM, IntegratedGradients, Layered, LeGrad, ValueNorm, ViT
from visattn.explain.lrp import ConservativeRules
from visattn.explain.place import AtPatches
from visattn.models import VisionTransformer

CLASS_METHODS = [LeGrad(), LRP(), IntegratedGradients(3), GradCAM()]
TARGETS = torch.tensor([3, 5])


def same_in_timm(model):
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=(24, 40), patch_size=8, embed_dim=30, depth=3, num_heads=5, mlp_ratio=2.0, num_classes=7
    ).eval()
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("method", [ValueNorm(), ValueNorm(1, 2), *CLASS_METHODS], ids=str)
def test_ours_and_timms_have_the_same_maps_alone_and_in_a_batch(method):
    one, pixels = ours(), images((24, 40), 3)
    expected = method(ViT(same_in_timm(one)), pixels)
    assert expected.shape == (3, 3, 5)
    bound = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(method(ViT(one), pixels), expected, rtol=1e-3, atol=bound)
    alone = torch.cat([method(ViT(one), pixels[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-3, atol=bound)


@pytest.mark.parametrize("method", CLASS_METHODS, ids=str)
def test_without_a_target_the_likeliest_class_is_explained(method):
    vit, pixels = ViT(ours(seed=6)), images((24, 40), 5)
    with torch.inference_mode():
        likeliest = vit.model(pixels).argmax(-1)
        torch.testing.assert_close(method(vit, pixels), method(vit, pixels, likeliest))
        assert not torch.allclose(method(vit, pixels), method(vit, pixels, (likeliest + 1) % 7))


@pytest.mark.parametrize("method", CLASS_METHODS, ids=str)
def test_mode_parameters_and_gradients_stay_as_they_were(method):
    model = timms(TIMM["class token"]).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    method(ViT(model), images((48, 80)))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --------------------------------------------------------------------------------------------------------- value norm


@every_timm
def test_value_norm_is_the_norm_of_what_each_patch_adds(case):
    model, (name, _, size, grid, _) = timms(case), case
    vit, pixels = ViT(model, name), images(size)
    if not isinstance(getattr(getattr(model.blocks[1], "attn", None), "proj", None), nn.Linear):
        with pytest.raises(InputError, match="value-norm"):
            ValueNorm(1)(vit, pixels)
        return
    calls = []
    with torch.no_grad():
        vit.run(pixels, lambda layer, call: calls.append(call))
    seen = vit.run(pixels, lambda *_: None)
    projection = model.blocks[1].attn.proj.weight
    weights, value = calls[1].weights(), calls[1].value
    size = value.shape[-1]
    parts = projection.split(size, dim=1)  # of each head
    # every vector that is added, written out: (B, queries, keys, D)
    added = sum(torch.einsum("bnm,bmd->bnmd", weights[:, h], value[:, h] @ parts[h].T) for h in range(5))
    expected = vit.read(added.norm(dim=-1), seen)
    assert expected.shape[1:] == grid
    torch.testing.assert_close(ValueNorm(1)(vit, pixels), expected.detach(), rtol=1e-3, atol=1e-4)


def test_value_norm_of_a_head_is_its_weight_times_the_length_of_its_value():
    model = ours()
    vit, pixels, calls = ViT(model), images((24, 40)), []
    with torch.no_grad():
        vit.run(pixels, lambda layer, call: calls.append(call))
    value = calls[2].value[:, 4] @ model.blocks[2].attn.proj.weight[:, 24:].T
    expected = calls[2].weights()[:, 4, 0, 1:] * value[:, 1:].norm(dim=-1)
    torch.testing.assert_close(ValueNorm(-1, 4)(vit, pixels).flatten(1), expected.detach(), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="no head 5"):
        ValueNorm(head=5)(vit, pixels)


# ------------------------------------------------------------------------------------------------------------- LeGrad


def torchvisions():
    """torchvision's ViT and timm's, with the same random weights."""
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    one = scrambled(
        vision.VisionTransformer(
            image_size=40, patch_size=8, num_layers=3, num_heads=5, hidden_dim=30, mlp_dim=60, num_classes=7
        )
    )
    state = {"cls_token": one.class_token, "pos_embed": one.encoder.pos_embedding}
    for source, target in (("conv_proj", "patch_embed.proj"), ("encoder.ln", "norm"), ("heads.head", "head")):
        state |= {f"{target}.{kind}": one.get_parameter(f"{source}.{kind}") for kind in ("weight", "bias")}
    names = {"ln_1": "norm1", "ln_2": "norm2", "self_attention.out_proj": "attn.proj"}
    names |= {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}
    for n in range(3):
        layer = f"encoder.layers.encoder_layer_{n}"
        for kind in ("weight", "bias"):
            state[f"blocks.{n}.attn.qkv.{kind}"] = one.get_parameter(f"{layer}.self_attention.in_proj_{kind}")
            for source, target in names.items():
                state[f"blocks.{n}.{target}.{kind}"] = one.get_parameter(f"{layer}.{source}.{kind}")
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=40, patch_size=8, embed_dim=30, depth=3, num_heads=5, mlp_ratio=2.0, num_classes=7
    ).eval()
    other.load_state_dict(state)
    pixels = images((40, 40))
    torch.testing.assert_close(one(pixels), other(pixels), rtol=1e-4, atol=1e-4)
    return one, other


def test_legrad_is_torchcams():
    methods = pytest.importorskip("torchcam.methods")
    one, other = torchvisions()
    pixels = images((40, 40), 1)
    for layers in ((1, 2), (0, 1, 2)):
        with methods.LeGrad(one, [one.encoder.layers[n] for n in layers]) as extractor:
            one(pixels)
            (expected,) = extractor(5, normalized=False)
        found = LeGrad(layers)(ViT(other), pixels, torch.tensor([5]))
        ratio = found / expected.view_as(found)  # torchcam may scale a map as a whole
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=1e-3)


def test_legrad_is_the_papers_by_explicit_attention(monkeypatch):
    model, pixels = ours(), images((24, 40), 1)
    kept = []

    def explicit(query, key, value, *_, **__):
        kept.append((query @ key.mT * query.shape[-1] ** -0.5).softmax(-1))
        return kept[-1] @ value

    monkeypatch.setattr(F, "scaled_dot_product_attention", explicit)
    x, scores = model.tokens(pixels), []
    for block in model.blocks:
        x = block(x)
        scores.append(model.head(model.norm(x.mean(1)))[0, 5])
    gradients = [torch.autograd.grad(s, a, retain_graph=True)[0] for s, a in zip(scores, kept, strict=True)]
    expected = torch.stack([g.clamp(min=0).mean(dim=(0, 1, 2)) for g in gradients]).mean(0)[1:].view(1, 3, 5)
    monkeypatch.undo()
    torch.testing.assert_close(LeGrad()(ViT(model), pixels, torch.tensor([5])), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["registers", "registers, average", "distillation token", "rotary"])
def test_legrad_of_the_last_layer_starts_from_the_models_own_head(name):
    """Of the mean token, so that a model that averages all its tokens gives its own logits."""
    case = TIMM[name]
    found = LeGrad()(ViT(timms(case)), images(case[2]), TARGETS)
    assert found.shape == (2, *case[3])
    assert (found >= 0).all()
    assert found.amax() > 0


def test_legrad_refuses_a_head_that_needs_all_tokens():
    case = TIMM["attention pooling"]
    with pytest.raises(InputError, match="LeGrad needs a head"):
        LeGrad()(ViT(timms(case), case[0]), images(case[2]))


# ---------------------------------------------------------------------------------------------------------------- LRP


@pytest.mark.parametrize("name", ["class token", "registers, average", "attention pooling", "rotary", "q/k norm"])
def test_relevance_is_conserved(name):
    """Pixels and all that is added to them, biases and tokens, share the logit: nothing is lost or made up."""
    case = TIMM[name]
    model, pixels = timms(case), images(case[2], 1).requires_grad_()
    plain = model(pixels).detach()
    with ConservativeRules():
        logits = model(pixels)
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-4)
    added = [p for n, p in model.named_parameters() if n.endswith(("bias", "token", "pos_embed", "latent"))]
    sources = [pixels, *added]
    found = torch.autograd.grad(logits[0, 3], sources, allow_unused=True)
    total = sum((s * g).sum() for s, g in zip(sources, found, strict=True) if g is not None)
    torch.testing.assert_close(total, plain[0, 3], rtol=1e-3, atol=1e-3)
    relevance = LRP()(ViT(model), pixels.detach(), torch.tensor([3]))
    torch.testing.assert_close(relevance.sum(), (pixels * found[0]).sum().detach(), rtol=1e-3, atol=1e-4)


def test_relevance_without_biases_is_the_logit():
    model = ours()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "token", "pos_embed")):
            parameter.data.zero_()
    pixels = images((24, 40))
    logits = model(pixels).detach().gather(1, TARGETS[:, None]).squeeze(1)
    torch.testing.assert_close(LRP()(ViT(model), pixels, TARGETS).sum(dim=(1, 2)), logits, rtol=1e-3, atol=1e-4)


def test_relevance_is_the_rules_by_hand():
    """One layer, two patches: each step of the propagation written down as a share of what it received."""
    generator = torch.Generator().manual_seed(2)
    model = VisionTransformer(3, (4, 8), patch=4, size=6, depth=1, heads=2, mlp_ratio=1.0).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    pixels = torch.randn(1, 3, 4, 8, generator=generator)
    block = model.blocks[0]
    with torch.no_grad():
        x = model.tokens(pixels)[0]  # (3, 6)

        def norm(x, layer):
            scale = 1 / (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * layer.weight
            return (x - x.mean(-1, keepdim=True)) * scale + layer.bias, scale

        def share(inputs, weight, out, relevance):
            """Relevance of inputs (…, I) of a linear layer (O, I), in proportion to what each adds to each output."""
            return torch.einsum("...i,oi,...o->...i", inputs, weight, relevance / out)

        def before_norm(x, scale, out, relevance):
            centring = torch.eye(6) - 1 / 6
            return torch.einsum("...i,oi,...o,...o->...i", x, centring, scale, relevance / out)

        normed, scale1 = norm(x, block.norm1)
        query, key, value = block.attn.qkv(normed).view(3, 3, 2, 3).permute(1, 2, 0, 3)  # (heads, tokens, 3) each
        weights = (query @ key.mT * 3**-0.5).softmax(-1)
        mixed = (weights @ value).permute(1, 0, 2).reshape(3, 6)
        attended = block.attn.proj(mixed)
        middle = x + attended
        normed2, scale2 = norm(middle, block.norm2)
        hidden = block.mlp.fc1(normed2)
        after = block.mlp.fc2(F.gelu(hidden))
        top = middle + after
        normed3, scale3 = norm(top, model.norm)
        logit = model.head(normed3)[0, 1]

        relevance = torch.zeros(3, 3)
        relevance[0, 1] = logit
        out = model.head(normed3)
        r = before_norm(top, scale3, normed3, share(normed3, model.head.weight, out, relevance))
        r_middle, r_after = r * middle / top, r * after / top
        r_hidden = share(F.gelu(hidden), block.mlp.fc2.weight, after, r_after)  # an activation passes it on
        r_middle = r_middle + before_norm(
            middle, scale2, normed2, share(normed2, block.mlp.fc1.weight, hidden, r_hidden)
        )
        r_x, r_attended = r_middle * x / middle, r_middle * attended / middle
        r_mixed = share(mixed, block.attn.proj.weight, attended, r_attended).view(3, 2, 3).permute(1, 0, 2)
        r_value = value * (weights.mT @ (r_mixed / (weights @ value)))
        flat = torch.zeros(3, 18)
        flat[:, 12:] = r_value.permute(1, 0, 2).reshape(3, 6)
        r_x = r_x + before_norm(x, scale1, normed, share(normed, block.attn.qkv.weight, block.attn.qkv(normed), flat))
        patches = pixels[0].unfold(2, 4, 4).permute(2, 0, 1, 3).reshape(2, 48)  # (patch, 3 channels × 4 × 4)
        kernel = model.patch_embed.proj.weight.view(6, 48)
        expected = share(patches, kernel, x[1:], r_x[1:]).sum(-1)
    found = LRP()(ViT(model), pixels, torch.tensor([1]))
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-3, atol=1e-4)


# --------------------------------------------------------------------------------- integrated gradients and Grad-CAM


def test_integrated_gradients_are_captums():
    captum = pytest.importorskip("captum.attr")
    model, pixels = timms(TIMM["class token"]), images((48, 80))
    whole = captum.IntegratedGradients(model).attribute(pixels, 0.0, TARGETS, n_steps=13, method="riemann_middle")
    expected = whole.sum(1).unfold(1, 16, 16).unfold(2, 16, 16).sum((-2, -1))
    found = IntegratedGradients(13)(ViT(model), pixels, TARGETS)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_add_up_to_what_the_picture_changes():
    model, pixels = timms(TIMM["registers, average"]), images((48, 80))
    with torch.no_grad():
        change = (model(pixels) - model(torch.zeros_like(pixels))).gather(1, TARGETS[:, None]).squeeze(1)
    found = IntegratedGradients(64)(ViT(model), pixels, TARGETS).sum(dim=(1, 2))
    torch.testing.assert_close(found, change, rtol=0.05, atol=0.05)


def test_grad_cam_is_pytorch_grad_cams():
    package = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, pixels = timms(TIMM["class token"]), images((48, 80))

    def reshape(tokens):
        return tokens[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)

    layer = model.blocks[-1].norm1
    with package.GradCAM(model=model, target_layers=[layer], reshape_transform=reshape) as cam:
        outputs = cam.activations_and_grads(pixels)
        sum(targets.ClassifierOutputTarget(t)(o) for t, o in zip(TARGETS.tolist(), outputs, strict=True)).backward()
        kept = cam.activations_and_grads
        features, gradients = (part[0].detach().numpy() for part in (kept.activations, kept.gradients))
        expected = cam.get_cam_image(pixels, layer, None, features, gradients, False)
    found = GradCAM()(ViT(model), pixels, TARGETS)
    torch.testing.assert_close(found, torch.from_numpy(expected).clamp(min=0), rtol=1e-3, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("method", CLASS_METHODS, ids=str)
def test_a_model_without_classes_and_a_class_that_is_not_there_are_refused(method):
    case = TIMM["class token"]
    features = scrambled(timm.create_model(case[0], **(case[1] | {"depth": 2, "num_classes": 0})))
    with pytest.raises(InputError, match="no classes"):
        method(ViT(features, "it"), images(case[2]))
    with pytest.raises(InputError, match="no class 7"):
        method(ViT(ours()), images((24, 40)), torch.tensor([0, 7]))
    with pytest.raises(InputError, match="one per image"):
        method(ViT(ours()), images((24, 40)), torch.tensor([0]))


def test_windows_have_pixels_attributions_and_no_product_of_layers():
    model = scrambled(
        timm.create_model(
            "swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=12, num_heads=(2, 2), img_size=32, num_classes=7
        ),
        std=0.1,
    )
    vit, pixels = Layered(model, "swin", (32, 32)), images((32, 32))
    for method in (LRP(), IntegratedGradients(2)):
        found = method(vit, pixels, TARGETS)
        assert found.shape == (2, *vit.grid((32, 32)))
        assert found.abs().sum() > 0
    with pytest.raises(InputError, match="swin has no one grid"):
        AtPatches(vit, [0, 0])
    for method in (ValueNorm(), LeGrad(), GradCAM()):
        with pytest.raises(InputError, match="not defined for swin"):
            method(vit, pixels, TARGETS)
