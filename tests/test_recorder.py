"""Recorded attention is the module's own, and recording changes nothing."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.explain import record


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_vit(seed=0):
    torch.manual_seed(seed)
    options = {"img_size": (32, 48), "depth": 2, "embed_dim": 30, "num_heads": 5, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


def fused(model, flag):
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = flag
    return model


def transformers_vit(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=30, num_hidden_layers=2, num_attention_heads=5, intermediate_size=20, image_size=32, patch_size=16
    )
    config._attn_implementation = kind
    return transformers.ViTModel(config).eval()


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(30, 5, 20, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


class Kernel(nn.Module):
    """The fused kernel alone."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value, **self.options)


class Talking(nn.Module):
    """Heads are mixed after the softmax (Shazeer et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, query, key, value):
        weights = (query @ key.transpose(-2, -1)).softmax(dim=-1)
        self.used = self.mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.drop(self.used) @ value


class Einsum(nn.Module):
    def forward(self, query, key, value):
        self.used = torch.einsum("bhqd,bhkd->bhqk", query, key).softmax(-1)
        return torch.einsum("bhqk,bhkd->bhqd", self.used, value)


class Transposed(nn.Module):
    def forward(self, query, key, value):
        self.used = F.softmax(query @ key.mT, dim=-1)
        return (value.mT @ self.used.transpose(-2, -1)).mT


class OverChannels(nn.Module):
    """Linear attention: keys' softmax is over channels, and summed over places: no weights of places."""

    def forward(self, query, key, value):
        return query @ (key.softmax(-1).transpose(-2, -1) @ value)


QKV = (drawn(2, 5, 7, 6), drawn(2, 5, 11, 6, seed=1), drawn(2, 5, 11, 6, seed=2))
PIXELS = drawn(2, 3, 32, 48)


@pytest.mark.parametrize(
    "build",
    [
        tiny_vit,
        lambda: fused(tiny_vit(), False),
        encoder,
        lambda: transformers_vit("eager"),
        lambda: transformers_vit("sdpa"),
        Talking,
        Einsum,
        Transposed,
    ],
    ids=["timm", "timm eager", "encoder", "transformers eager", "transformers sdpa", "talking", "einsum", "transposed"],
)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_bit_identical(build, training, one_thread):
    model = build().train(training)
    inputs = QKV
    if hasattr(model, "patch_embed"):
        inputs = (PIXELS,)
    elif hasattr(model, "config"):
        inputs = (PIXELS[..., :32],)
    elif isinstance(model, nn.TransformerEncoder):
        inputs = (drawn(2, 7, 30),)

    def run():
        torch.manual_seed(3)
        given = [x.clone().requires_grad_() for x in inputs]
        out = model(*given)
        out = getattr(out, "last_hidden_state", out)
        return [out, *torch.autograd.grad(out.square().sum(), given)]

    plain = run()
    with record(model) as attention:
        recorded = run()
    assert attention
    for one, other in zip(plain, recorded, strict=True):
        assert torch.equal(one, other)
    if not training and not isinstance(model, nn.TransformerEncoder):
        with torch.no_grad(), record(model):
            out = model(*inputs)
            assert torch.equal(getattr(out, "last_hidden_state", out), plain[0])


def test_fused_and_written_weights_are_equal():
    recorded = []
    for flag in (True, False):
        model = fused(tiny_vit(), flag)
        with record(model) as attention, torch.no_grad():
            model(PIXELS)
        assert [entry.name for entry in attention] == ["blocks.0.attn", "blocks.1.attn"]
        assert [entry.shape for entry in attention] == [(2, 5, 7, 7)] * 2
        recorded.append([entry.weights() for entry in attention])
    torch.testing.assert_close(recorded[0], recorded[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_transformers_weights_are_its_own(kind):
    model = transformers_vit(kind)
    with record(model) as attention, torch.no_grad():
        model(PIXELS[..., :32])
        expected = transformers_vit("eager")(PIXELS[..., :32], output_attentions=True).attentions
    assert len(attention) == len(expected) == 2
    for entry, weights in zip(attention, expected, strict=True):
        torch.testing.assert_close(entry.weights(), weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("build", [Talking, Einsum, Transposed])
def test_what_values_are_multiplied_by_is_recorded(build):
    torch.manual_seed(0)
    model = build()
    with record(model) as attention:
        model(*QKV)
    (entry,) = attention
    assert (entry.name, entry.heads, entry.queries, entry.keys) == ("", 5, 7, 11)
    assert torch.equal(entry.weights(), model.used)
    assert torch.equal(entry.weights(slice(2, 5), [4, 1]), model.used[:, [4, 1], 2:5])


def test_attention_over_channels_is_none():
    with record(model := OverChannels()) as attention:
        model(*QKV)
    assert attention == []


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_multihead_attention_of_pytorch(need, grad):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(30, 5, batch_first=True).eval()
    query, memory = drawn(2, 7, 30), drawn(2, 11, 30, seed=1)
    ignored = torch.zeros(2, 11, dtype=torch.bool)
    ignored[1, 6:] = True
    with torch.set_grad_enabled(grad):
        plain, expected = model(query, memory, memory, ignored, average_attn_weights=False)
        with record(model) as attention:
            out, _ = model(query, memory, memory, ignored, need_weights=need)
    (entry,) = attention
    assert (entry.name, entry.shape) == ("", (2, 5, 7, 11))
    torch.testing.assert_close(entry.weights(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out, plain)


def test_encoder_of_pytorch_leaves_its_fast_path():
    model, x = encoder(), drawn(2, 7, 30)
    with torch.no_grad():
        fast = model(x)
        with record(model) as attention:
            plain = model(x)
        layer = model.layers[0]
        _, expected = layer.self_attn(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(plain, fast)
    assert [entry.name for entry in attention] == ["layers.0.self_attn", "layers.1.self_attn"]
    torch.testing.assert_close(attention[0].weights(), expected, rtol=0, atol=1e-5)


def test_grouped_queries_and_other_axes():
    query, key, value = drawn(2, 6, 7, 4), drawn(2, 3, 11, 4, seed=1), drawn(2, 3, 11, 4, seed=2)
    model = Kernel(enable_gqa=True)
    with record(model) as attention:
        out = model(query, key, value)
    torch.testing.assert_close(attention[0].weights() @ value.repeat_interleave(2, 1), out)
    query, key, value = (drawn(2, 3, 5, n, 4, seed=n) for n in (7, 11, 11))
    mask = drawn(5, 7, 11) > 0
    model = Kernel(attn_mask=mask)
    with record(model) as attention:
        out = model(query, key, value)
    assert attention[0].shape == (10, 3, 7, 11)
    expected = (query @ key.mT / 2).masked_fill(~mask, float("-inf")).softmax(-1)
    torch.testing.assert_close(attention[0].weights().view(2, 5, 3, 7, 11).transpose(1, 2), expected)
    model = Kernel(is_causal=True)
    with record(model) as attention:
        out = model(query[:, 0, 0], key[:, 0, 0], value[:, 0, 0])
    assert attention[0].shape == (2, 1, 7, 11)
    torch.testing.assert_close(attention[0].weights()[:, 0] @ value[:, 0, 0], out)


def test_causal_masks_as_objects():
    from torch.nn.attention.bias import causal_lower_right

    with record(model := Kernel(attn_mask=causal_lower_right(7, 11))) as attention:
        out = model(*QKV)
    torch.testing.assert_close(attention[0].weights() @ QKV[2], out)


def test_heads_that_stand_elsewhere():
    """Pieces and heads together in front, as in SAM; heads behind the windows, as in Twins."""

    class Many(Kernel):
        num_heads = 5

    flat = [x.flatten(0, 1) for x in QKV]
    with record(model := Many()) as attention:
        model(*flat)
        model(*(x.unsqueeze(1).expand(-1, 3, -1, -1, -1) for x in QKV))
    plain = (QKV[0] @ QKV[1].mT * 6**-0.5).softmax(-1)
    torch.testing.assert_close(attention[0].weights(), plain)
    torch.testing.assert_close(attention[1].weights(), plain.repeat_interleave(3, 0))


def test_rows_without_any_key_weigh_nothing():
    mask = torch.ones(7, 11, dtype=torch.bool)
    mask[3] = False
    with record(model := Kernel(attn_mask=mask)) as attention:
        model(*QKV)
    assert torch.equal(attention[0].weights().sum(-1)[0, 0, 3], torch.tensor(0.0))


@pytest.mark.parametrize("flag", [True, False])
def test_what_is_not_asked_for_is_not_kept(flag):
    model = fused(tiny_vit(), flag)
    with torch.no_grad():
        with record(model) as attention:
            model(PIXELS)
        with record(model, rows=slice(0, 1), heads=[3], where=lambda name: name.startswith("blocks.1")) as chosen:
            model(PIXELS)
    (entry,) = chosen
    assert (entry.name, entry.shape) == ("blocks.1.attn", (2, 5, 7, 7))
    assert entry.weights().shape == (2, 1, 1, 7)
    assert entry.weights().untyped_storage().nbytes() == 2 * 7 * 4
    torch.testing.assert_close(entry.weights(), attention[1].weights(slice(0, 1), [3]))


def test_other_models_are_not_recorded():
    one, other = tiny_vit(), tiny_vit(1)
    with record(one.blocks[1]) as attention, torch.no_grad():
        one(PIXELS)
        other(PIXELS)
    assert [entry.name for entry in attention] == ["attn"]


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled_models_are_recorded_as_written():
    model = tiny_vit()
    with record(model) as attention, torch.no_grad():
        model(PIXELS)
    wrapped = torch.compile(tiny_vit(), backend="eager")
    with torch.no_grad():
        wrapped(PIXELS)
        with record(wrapped) as again:
            wrapped(PIXELS)
    assert [entry.name for entry in again] == [entry.name for entry in attention]
    torch.testing.assert_close(again[1].weights(), attention[1].weights())


def test_mistakes_are_named():
    with pytest.raises(InputError, match="cannot be recorded"), record(len):
        pass
    model = tiny_vit()
    with record(model) as attention:
        model(PIXELS)
    with pytest.raises(InputError, match="5 recorded heads"):
        attention[0].weights(heads=[5])
    with pytest.raises(InputError, match="5 heads"), record(model, heads=[-1]):
        model(PIXELS)
