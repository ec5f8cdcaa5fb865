"""Rollout of windows, of merged and pooled tokens: against products of matrices over all tokens, laid out by hand."""

import pytest
import test_explain_families as families
import timm
import torch
from timm.models.swin_transformer import window_partition

from visattn.errors import InputError
from visattn.explain import GradientRollout, Layered, Raw, Relevance, Rollout, as_read, rollout
from visattn.explain.methods import methods_of


def matrix(weights, asked, seen, rows, columns):
    """Weights (P, N, M) with the cells of queries (P, N) and keys (P, M) as (rows, columns); -1 are left out."""
    out = torch.zeros(rows, columns)
    for piece in range(len(weights)):
        q, k = asked[piece] >= 0, seen[piece] >= 0
        out[asked[piece][q][:, None], seen[piece][k][None]] += weights[piece][q][:, k]
    return out


def merging(height, width):
    """(H W / 4, H W): each cell of the coarser grid is the mean of four."""
    fine = torch.arange(height * width).view(height, width)
    coarse = fine.div(width, rounding_mode="floor") // 2 * (width // 2) + fine % width // 2
    return torch.zeros(height * width // 4, height * width).scatter_(0, coarse.flatten()[None], 0.25)


def windows(grid, size, shift=(0, 0)):
    """The cells (P, N) in each window of a grid that is padded to whole windows and rolled back by the shift."""
    cells = torch.arange(grid[0] * grid[1]).view(grid).roll([-n for n in shift], (0, 1))
    padded = torch.full([-(-n // s) * s for n, s in zip(grid, size, strict=True)], -1)
    padded[: grid[0], : grid[1]] = cells
    return window_partition(padded[None, ..., None].float(), size).flatten(1).long()


def through(grid, layers):
    """The mean of the rows of a product of layers, (A + I) / 2 or a merging, the first layer first."""
    product = torch.eye(grid[0] * grid[1])
    for layer in layers:
        square = layer.shape[0] == layer.shape[1]
        product = ((layer + torch.eye(len(layer))) / 2 if square else layer) @ product
    return product.mean(0).view(grid)


def of_image(weights, image, images=2):
    """(B P, heads, N, M) to the mean of heads (P, N, M) of an image."""
    return weights.unflatten(0, (images, -1))[image].mean(1)


def of_swin(model, ws, image):
    (first, second), (last,) = (list(stage.blocks) for stage in model.layers)
    layers = []
    for block, w, grid in zip((first, second), ws, [(8, 16)] * 2, strict=False):
        cells = windows(grid, block.window_size, block.shift_size)
        layers.append(matrix(of_image(w, image), cells, cells, 128, 128))
    cells = windows((4, 8), last.window_size, last.shift_size)
    return [*layers, merging(8, 16), matrix(of_image(ws[2], image), cells, cells, 32, 32)]


def of_sam(model, ws, image):
    layers = []
    for number, w in enumerate(ws):  # (B P heads, N, M)
        cells = torch.arange(35)[None] if number == 1 else windows((5, 7), (3, 3))
        layers.append(matrix(of_image(w.unflatten(0, (-1, 2)), image), cells, cells, 35, 35))
    return layers


def of_hiera(model, ws, image):
    layers, grid = [], (16, 24)

    def cells(number, tokens):
        """The cell of each token before block `number`."""
        order = model.reroll(torch.arange(float(tokens)).view(1, -1, 1), max(number - 1, 0)).flatten().long()
        return torch.empty_like(order).scatter_(0, order, torch.arange(tokens))

    for number, (block, w) in enumerate(zip(model.blocks, ws, strict=True)):
        weights = w[image].mean(0)  # (units, N, M), or (N, M) where it is global
        weights = weights if weights.dim() == 3 else weights[None]
        units, queries, keys = weights.shape
        token = torch.arange(units)[:, None] + units * torch.arange(keys)
        before = cells(number, units * keys)
        if block.attn.q_stride == 1:
            layers.append(matrix(weights, before[token], before[token], units * keys, units * keys))
            continue
        after = cells(number + 1, units * queries)
        attended = matrix(weights, after[token[:, :queries]], before[token], units * queries, units * keys)
        layers.append((attended + merging(*grid)) / 2)  # pooled queries are added to pooled tokens
        grid = (grid[0] // 2, grid[1] // 2)
    return layers


@pytest.mark.parametrize(
    ("family", "by_hand", "grid"),
    [("swin", of_swin, (8, 16)), ("swinv2", of_swin, (8, 16)), ("sam", of_sam, (5, 7)), ("hiera", of_hiera, (16, 24))],
)
def test_it_is_the_product_of_matrices_of_all_tokens(family, by_hand, grid, monkeypatch):
    model, pixels = families.built(family)
    vit = as_read(model, family, families.FAMILIES[family][2])
    assert type(vit) is Layered
    assert "rollout" in methods_of(vit)
    ws = families.softmaxes(model, pixels, monkeypatch)
    families.unfused(model, True)
    found = Rollout()(vit, pixels)
    for image in range(2):
        torch.testing.assert_close(found[image], through(grid, by_hand(model, ws, image)), rtol=0, atol=1e-6)


def test_class_tokens_that_come_late_and_first_tokens_that_are_no_class_token(monkeypatch):
    """ConViT's class token joins its last layer; NaFlexViT's registers are there from the first."""
    model, pixels = families.built("convit")
    vit = as_read(model, "convit", (48, 48))
    patch, place, again, there, last = families.softmaxes(model, pixels, monkeypatch)
    layers = []
    for block, a, b in zip(model.blocks, (patch, again), (place, there), strict=False):
        gate = block.attn.gating_param.view(1, -1, 1, 1).sigmoid()
        mixed = (1 - gate) * a + gate * b
        alone = torch.nn.functional.pad(mixed / mixed.sum(-1, keepdim=True), (1, 0, 1, 0))
        alone[..., 0, 0] = 1  # no class token yet: it stays what it is
        layers.append(alone)
    found = rollout([*layers, last])[:, 0, 1:].unflatten(-1, (3, 3))
    torch.testing.assert_close(Rollout()(vit, pixels), found.detach(), rtol=0, atol=1e-6)

    model, pixels = families.built("naflex")
    vit = as_read(model, "naflex", (48, 48))
    found = rollout(families.softmaxes(model, pixels, monkeypatch))[:, 4:, 4:].mean(1).unflatten(-1, (3, 3))
    torch.testing.assert_close(Rollout()(vit, pixels), found, rtol=0, atol=1e-6)
    largest = rollout(families.softmaxes(model, pixels, monkeypatch), "max")[:, 4:, 4:].mean(1).unflatten(-1, (3, 3))
    torch.testing.assert_close(Rollout("max")(vit, pixels), largest, rtol=0, atol=1e-6)


def test_long_rows_are_taken_in_pieces(monkeypatch):
    model, pixels = families.built("sam")
    vit = as_read(model, "sam", (80, 112))
    whole = Rollout()(vit, pixels)
    monkeypatch.setattr("visattn.explain.layered_rollout.AT_ONCE", 2 * 2 * 35 * 11)
    torch.testing.assert_close(Rollout()(vit, pixels), whole)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("pvt", "convolutions between"),
        ("cait", "may be negative"),
        ("xcit", "other things than places"),
        ("parallel", "in parallel"),
        ("tnt", "from finer to coarser"),
        ("levit", "adds nothing"),
    ],
)
def test_where_it_is_not_defined_it_is_refused_with_the_reason(family, why):
    model, pixels = families.built(family)
    vit = as_read(model, family, families.FAMILIES[family][2])
    with pytest.raises(InputError, match=f"{family}.*{why}"):
        Rollout()(vit, pixels)
    assert "rollout" not in methods_of(vit)


def test_discarding_needs_matrices():
    model = timm.create_model("swin_tiny_patch4_window7_224", **families.SWIN).eval()
    with pytest.raises(InputError, match="--discard"):
        Rollout(discard=0.5)(as_read(model, "swin", (32, 64)), torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize("family", ["swin", "vit of patches alone"])
def test_under_autocast_rows_are_multiplied_in_float32(family):
    """In bfloat16 the map would not sum to 1 by some thousandths."""
    name, options, size = ("swin_tiny_patch4_window7_224", families.SWIN, (32, 64))
    if family != "swin":
        name, size = "vit_tiny_patch16_224", (48, 80)
        options = {"img_size": size, "depth": 3, "class_token": False, "global_pool": "avg"}
    torch.manual_seed(0)
    vit = as_read(timm.create_model(name, **options).eval(), name, size)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        for found in (Rollout()(vit, pixels), Raw()(vit, pixels)):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.sum((1, 2)), torch.ones(2), rtol=0, atol=2e-6)


def test_under_autocast_relevance_is_multiplied_in_float32():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=(48, 80), depth=3, num_classes=7).eval()
    torch.nn.init.normal_(model.head.weight, std=3.0)
    vit = as_read(model, "vit", (48, 80))
    pixels, targets = torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(2)), torch.tensor([3, 5])
    with torch.autocast("cpu", torch.bfloat16):
        judged, found = vit.judged(pixels, targets), Relevance()(vit, pixels, targets)
        rolled = GradientRollout()(vit, pixels, targets)
    products = [call.weights() * call.gradient(of_out) for call, of_out in judged.layers]
    relevance = torch.eye(16)
    for product in products:
        relevance = relevance + product.clamp(min=0).mean(1) @ relevance
    torch.testing.assert_close(found.flatten(1), relevance[:, 0, 1:], rtol=1e-4, atol=1e-7)
    expected = rollout([product.mean(1, keepdim=True).clamp(min=0) for product in products])[:, 0, 1:]
    torch.testing.assert_close(rolled.flatten(1), expected, rtol=1e-4, atol=1e-7)
