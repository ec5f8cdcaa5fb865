"""Positions of cells: from kernels, strides and padding, and from the pixels with gradients."""

import contextlib
import itertools
import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.images import CellShift, Geometry
from visattn.models import Encoder
from visattn.models.receptive_field import UnknownPlaceError, cell_centres


def lattice(layers, size=None):
    """(start, stride, cells) of layers (kernel, stride, padding before, padding after), in pixels from the edge."""
    start, jump, cells = 0.5, 1, size
    for kernel, stride, before, after in layers:
        start += ((kernel - 1) / 2 - before) * jump
        jump *= stride
        cells = cells and (cells + before + after - kernel) // stride + 1
    return start, jump, cells


layer = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)).filter(
    lambda one: max(one[2:]) <= one[0] // 2
)


@settings(max_examples=25, deadline=None)
@given(st.lists(layer, min_size=1, max_size=4), st.integers(59, 97), st.integers(61, 83))
def test_stacks_of_convolutions_look_where_kernels_strides_and_padding_put_them(layers, height, width):
    """The gradient of a middle cell, all weights 1, reaches the pixels around the place that is stated."""
    assume(min(lattice(layers, size)[2] for size in (height, width)) > 0)
    modules = []
    for n, (kernel, stride, before, after) in enumerate(layers):
        modules += [
            nn.ZeroPad2d((before, after, before, after)),
            nn.Conv2d(3 if n == 0 else 1, 1, kernel, stride, bias=False),
        ]
    network = nn.Sequential(*modules)
    for weight in network.parameters():
        nn.init.ones_(weight)
    pixels = torch.zeros(1, 3, height, width, requires_grad=True)
    features = network(pixels)
    grid = tuple(features.shape[-2:])
    cells = cell_centres(network, (height, width))
    for axis, size in enumerate((height, width)):
        start, stride, count = lattice(layers, size)
        assert grid[axis] == count
        assert cells.stride[axis] == pytest.approx(stride)
        assert cells[axis] + stride / 2 == pytest.approx(start)
    (gradient,) = torch.autograd.grad(features.sum(), pixels, retain_graph=True)
    seen = gradient[0, 0].nonzero()
    torch.testing.assert_close(torch.tensor(cells.seen), torch.stack([seen.amin(0), seen.amax(0) + 1]).float())
    middle = [n // 2 for n in grid]
    (gradient,) = torch.autograd.grad(features[0, 0, middle[0], middle[1]], pixels)
    jumps = [math.prod(s for _, s, _, _ in layers[:n]) for n in range(len(layers))]
    reach = sum((k - 1) * jump for (k, *_), jump in zip(layers, jumps, strict=True)) / 2
    for axis, size in enumerate((height, width)):
        place = cells[axis] + (middle[axis] + 0.5) * cells.stride[axis]
        if reach <= place <= size - reach:  # it looks at no padding
            reached = gradient[0, 0].sum(dim=1 - axis).nonzero().flatten() + 0.5
            assert float(reached[0] + reached[-1]) / 2 == pytest.approx(place)


HALF = (3, 2, 1, 1)
SAME = [(3, 2, 0, 1)]  # TensorFlow's padding of an even size
RESNET = [(7, 2, 3, 3), HALF, HALF, HALF, HALF]
INCEPTION = [(3, 2, 0, 0), (3, 1, 0, 0), (3, 1, 1, 1), (3, 2, 0, 0), (3, 1, 0, 0), *[(3, 2, 0, 0)] * 3]
BY_HAND = [
    ("resnet18", 224, RESNET),
    ("resnet18", 250, RESNET),
    ("efficientnet_b0", 300, [HALF, HALF, (5, 2, 2, 2), HALF, (5, 2, 2, 2)]),
    ("tf_efficientnet_lite0", 224, [*SAME * 2, (5, 2, 1, 2), *SAME, (5, 2, 1, 2)]),
    ("convnext_atto", 300, [(4, 4, 0, 0), *[(2, 2, 0, 0)] * 3]),
    ("vgg11", 227, [(2, 2, 0, 0)] * 5),
    ("inception_v3", 299, INCEPTION),
    ("pvt_v2_b0", 224, [(7, 4, 3, 3), HALF, HALF, HALF]),
    ("efficientformer_l1", 224, [HALF] * 5),
    ("mambaout_femto", 224, [HALF] * 5),
    ("poolformer_s12", 224, [(7, 4, 2, 2), HALF, HALF, HALF]),
    ("swin_tiny_patch4_window7_224", 224, [(4, 4, 0, 0), *[(2, 2, 0, 0)] * 3]),
    ("gcvit_xxtiny", 224, [HALF] * 5),
    ("hiera_tiny_224", 224, [(7, 4, 3, 3), *[(2, 2, 0, 0)] * 3]),
    ("focalnet_tiny_srf", 224, [(4, 4, 0, 0), *[(2, 2, 0, 0)] * 3]),
    ("mixer_s32_224", 224, [(32, 32, 0, 0)]),
    ("xcit_nano_12_p16_224", 224, [HALF] * 4),
    ("shvit_s1", 224, [HALF] * 6),
    ("vit_tiny_patch16_224", 224, [(16, 16, 0, 0)]),
]


@pytest.mark.parametrize(("backbone", "side", "layers"), BY_HAND)
def test_backbones_look_where_their_layers_on_paper_put_them(backbone, side, layers):
    encoder = Encoder(backbone)
    cells, grid = encoder.cell_shift((side, side)), encoder.grid((side, side))
    start, stride, count = lattice(layers, side)
    assert grid == (count, count)
    assert (*cells, *cells.stride) == pytest.approx((start - stride / 2,) * 2 + (stride,) * 2)


def test_what_is_known_of_a_size_is_not_taken_for_another():
    """TensorFlow's padding depends on the size."""
    encoder = Encoder("tf_efficientnet_lite0")
    even, odd = encoder.cell_shift((224, 225))
    assert even == pytest.approx(15.5)
    start, stride, _ = lattice([HALF, *[(3, 2, 1, 1)] * 4], 225)
    assert odd == pytest.approx(start - stride / 2)


def of(function, size=(24, 40), **options):
    """`cell_centres` of a function of pixels."""

    class Network(nn.Module):
        def forward(self, pixels):
            return function(pixels)

    return cell_centres(Network(), size, **options)


def merged(x):
    """Patch merging of four neighbours, channels last."""
    x = x.permute(0, 2, 3, 1)
    x = torch.cat([x[:, i::2, j::2] for i, j in itertools.product((0, 1), (0, 1))], dim=-1)
    return F.linear(x, torch.ones(7, 12, device=x.device)).permute(0, 3, 1, 2)


def attended(x, window=None):
    """Self-attention over all places, or within windows that were shifted by one."""
    shape = x.shape
    if window:
        h, w = (n // window for n in shape[-2:])
        x = torch.roll(x, (-1, -1), (2, 3)).reshape(1, 3, h, window, w, window).permute(0, 2, 4, 3, 5, 1)
        tokens = x.reshape(h * w, window**2, 3)
    else:
        tokens = x.flatten(2).transpose(1, 2)
    out = F.scaled_dot_product_attention(*(tokens.unsqueeze(1),) * 3).squeeze(1)
    if window:
        out = out.reshape(1, h, w, window, window, 3).permute(0, 5, 1, 3, 2, 4).reshape(shape)
        return torch.roll(out, (1, 1), (2, 3))
    return out.transpose(1, 2).reshape(shape)


def by_hand(x):
    """Attention without PyTorch's function: the weights times the values, the values first."""
    tokens = x.flatten(2)
    weights = (tokens.transpose(1, 2) @ tokens).softmax(dim=-1)
    return (tokens @ weights.transpose(1, 2)).reshape(x.shape)


def gated(x):
    return x * F.conv2d(x.mean((2, 3), keepdim=True), torch.ones(3, 3, 1, 1, device=x.device)).sigmoid()


def strips(x):
    """Coordinate attention: gates by row and by column."""
    return x * x.mean(3, keepdim=True).sigmoid() * x.mean(2, keepdim=True).sigmoid()


def mixed(x):
    """A mixer's layer over the places."""
    tokens = x.flatten(2)
    return x + F.linear(tokens, torch.ones(tokens.shape[-1], tokens.shape[-1], device=x.device)).reshape(x.shape)


def down(x, padding=1):
    return F.conv2d(x, torch.ones(3, 3, 3, 3, device=x.device), stride=2, padding=padding)


def conv1(x):
    return F.conv2d(x, torch.ones(5, x.shape[1], 1, 1, device=x.device))


def there_and_back(x):
    """A block whose branch goes to a coarser grid and back, and drifts on the way."""
    back = F.conv_transpose2d(down(x), torch.ones(3, 3, 4, 4, device=x.device), stride=2, padding=0)
    return x + back[:, :, : x.shape[2], : x.shape[3]]


def summed(x):
    """Linear attention within the pixels of 2×2 patches that have the same place in them: one context for each."""
    b, c, h, w = x.shape
    patches = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, c, 4, -1)
    context = (patches * patches.softmax(dim=-1)).sum(dim=-1, keepdim=True)
    out = patches.relu() * context.expand_as(patches)
    return x + out.reshape(b, c, 2, 2, h // 2, w // 2).permute(0, 1, 4, 2, 5, 3).reshape(x.shape)


KEPT = {"gates": gated, "strips": strips, "a mixer": mixed, "attention": attended, "by hand": by_hand}
KEPT["one context a place"] = summed
KEPT["shifted windows"] = lambda x: attended(x, window=4)
KEPT["there and back"] = there_and_back
KEPT["three times"] = lambda x: there_and_back(there_and_back(there_and_back(x)))
KEPT["a class token"] = lambda x: torch.cat([torch.zeros_like(x[:, :, 0, :1]), x.flatten(2)], 2)[..., 1:].view(x.shape)
KEPT["upsampled"] = lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
KEPT["shuffled"] = lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2)


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_the_grid_keeps_the_places(name):
    cells = of(KEPT[name])
    assert (*cells, *cells.stride) == (0, 0, 1, 1)
    cells = of(lambda x: down(KEPT[name](x)))
    assert (*cells, *cells.stride) == (-0.5, -0.5, 2, 2)


@pytest.mark.parametrize(
    ("name", "network", "shift", "stride"),
    [
        ("merged patches", merged, 0, 2),
        ("a picture unshuffled", lambda x: F.pixel_unshuffle(x, 4), 0, 4),
        ("every other", lambda x: x[:, :, ::2, ::2], -0.5, 2),
        ("padding to the right", lambda x: down(F.pad(x, (0, 1, 0, 1)), padding=0), 0.5, 2),
        ("a blurred pooling", lambda x: F.avg_pool2d(F.max_pool2d(x, 2, 1), 3, 2, 1), 0, 2),
        ("the mean of two branches", lambda x: down(x) + F.avg_pool2d(x, 2), -0.25, 2),
        ("two branches side by side", lambda x: conv1(torch.cat([down(x), F.avg_pool2d(x, 2)], 1)), -0.25, 2),
        ("adaptive pooling", lambda x: F.adaptive_avg_pool2d(x, (6, 10)), 0, 4),
    ],
)
def test_what_changes_the_grid_moves_the_places(name, network, shift, stride):
    cells = of(network)
    assert cells.stride == (stride, stride)
    assert tuple(cells) == pytest.approx((shift, shift))


def test_patches_that_do_not_divide_the_picture_do_not_see_what_is_over():
    patches = nn.Conv2d(3, 5, 8, 8)
    cells = cell_centres(patches, (43, 61))
    assert (*cells, *cells.stride) == (0, 0, 8, 8)
    assert cells.seen == ((0, 0), (40, 56))
    # An overlapping kernel sees all of it.
    assert cell_centres(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 8, 8)), (43, 61)).seen[1] == (
        41,
        57,
    )


def test_channels_in_another_order_stay_where_they_are():
    """Even if the order is not known, as that of a buffer: all channels have one place."""
    plain = of(lambda x: x)
    assert of(lambda x: x[:, torch.tensor([2, 0, 1, 1], device=x.device)]) == plain


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (lambda x: torch.fft.fft2(x).real, "fft"),
        (lambda x: x.sort(dim=3).values, "sort"),
        (lambda x: x.cumsum(dim=2), "cumsum"),
        (lambda x: x[:, :, torch.randperm(x.shape[2], device=x.device)], "index"),
        (lambda x: F.grid_sample(x, torch.zeros(1, 5, 7, 2, device=x.device), align_corners=True), "grid_sampler"),
        (lambda x: F.adaptive_avg_pool2d(x, (5, 7)), "cannot be derived"),
        (lambda x: x.transpose(2, 3), "cannot be derived"),
        (lambda x: x.flip(3), "cannot be derived"),
        (lambda x: x.mean(dim=(2, 3), keepdim=True).expand(x.shape), "cannot be derived"),
    ],
)
def test_unsupported_layers_are_refused_and_named(network, word):
    with pytest.raises(UnknownPlaceError, match=word):
        of(network)


def test_a_part_that_is_written_over_is_not_trusted():
    def network(x):
        y = x * 1
        y[:, :, :, 1:] = x[:, :, :, :-1]
        return y

    with pytest.raises(UnknownPlaceError, match="copy_"):
        of(network)


def test_an_encoder_that_cannot_be_followed_is_named(monkeypatch):
    encoder = Encoder("test_convnext")
    monkeypatch.setattr(encoder.body, "forward", lambda x: [torch.fft.fft2(x).real])
    with pytest.raises(InputError, match=r"'test_convnext'.*fft"):
        encoder.cell_shift((64, 64))


def test_a_map_of_one_cell_lies_around_its_place():
    cells = cell_centres(nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 5, 3, 2, 1)), (3, 4))
    assert (cells[0] + cells.stride[0] / 2, cells.stride[0]) == (0.5, 4)
    assert np.isfinite(Geometry.identity((3, 4))._replace(cell_shift=cells).to_original_map(np.ones((1, 1)))).all()


def test_the_network_is_left_as_it_is_and_none_of_its_numbers_count():
    encoder = Encoder("test_efficientnet")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = encoder.cell_shift((64, 64))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(math.nan)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert cell_centres(encoder.body, (64, 64)) == expected
        assert Encoder("test_efficientnet").cell_shift((64, 64)) == expected
    assert cell_centres(encoder.double().body, (64, 64)) == expected


class Remembers(nn.Module):
    """Has a part under two names, and keeps tensors of its last run."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(3, 3, 3, 2, 1)
        self.ramp = torch.arange(3.0)[:, None, None]
        self.kept = {}

    def forward(self, pixels):
        self.last = self.kept["last"] = self.second(self.first(pixels)) + self.ramp
        return self.last


def test_a_network_that_shares_and_keeps_tensors_is_left_as_it_is():
    network, pixels = Remembers(), torch.randn(1, 3, 16, 24)
    expected = network(pixels)
    network.kept.clear()
    assert cell_centres(network, (16, 24)) == pytest.approx((-1.5, -1.5))
    assert network.kept == {}
    assert network.last is expected
    assert torch.equal(network(pixels), expected)


@pytest.mark.parametrize("backbone", ["coat_tiny", "lambda_resnet26t"])
def test_backbones_with_shared_parts_and_weights_of_five_axes_encode_after_their_places_are_known(backbone):
    encoder = Encoder(backbone).eval()
    with contextlib.suppress(InputError):
        encoder.cell_shift((224, 224))
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).values.isfinite().all()


def test_a_cell_shift_is_a_pair_and_compares_with_all_it_has():
    cells = CellShift((1.5, -2.0), (4.0, 8.0), ((0.0, 0.0), (40.0, 56.0)))
    assert cells == (1.5, -2.0)
    assert cells == CellShift((1.5, -2.0), (4.0, 8.0), ((0.0, 0.0), (40.0, 56.0)))
    assert cells != CellShift((1.5, -2.0), (4.0, 7.0), ((0.0, 0.0), (40.0, 56.0)))


# A few that are small, of many kinds; `--every-backbone` takes one of each arrangement of strided layers in timm.
SAMPLE = ["test_resnet", "test_nfnet", "test_byobnet", "test_mambaout", "test_convnext", "test_vit2", "efficientvit_b0"]
SAMPLE += [
    "edgenext_xx_small",
    "mobilenetv4_conv_small_050",
    "repghostnet_050",
    "levit_128s",
    "pit_ti_224",
    "hgnetv2_b0",
]


def gradient_centre(encoder, side):
    """(2,) the middle of the squared gradient of a middle cell at random weights, of three draws, and the cell.

    Gates are left out: they see the whole image, and in deep networks with random weights their gradient outweighs all.
    """
    body, centres = encoder.body.eval(), []
    for part in body.modules():
        if type(part).__name__ in ("SqueezeExcite", "SEModule", "SqueezeExciteCl", "EffectiveSEModule", "EcaModule"):
            part.register_forward_hook(lambda part, given, gated: given[0])
    for _ in range(3):
        pixels = torch.randn(1, 3, side, side, requires_grad=True)
        (features,) = body(pixels)
        features = features.movedim(-1, 1) if features.shape[-1] == encoder.size else features
        cell = [n // 2 for n in features.shape[2:]]
        value = (features[0, :, cell[0], cell[1]] * torch.randn(features.shape[1])).sum()
        weight = torch.autograd.grad(value, pixels)[0][0].square().sum(0)
        middle = torch.arange(side) + 0.5
        centres.append([float((weight.sum(1 - axis) * middle).sum() / weight.sum()) for axis in (0, 1)])
    return np.mean(centres, axis=0), cell


def arrangements():
    """Of timm's networks with the same module, input size and strided layers the smallest one, for each such group."""
    smallest = {}
    for name in timm.list_models():
        with torch.device("meta"):
            network = timm.create_model(name)
        side = timm.get_pretrained_cfg(name).input_size[-1]
        strided = [
            (type(layer).__name__, *(str(getattr(layer, part, None)) for part in ("kernel_size", "stride", "padding")))
            for layer in network.modules()
            if isinstance(getattr(layer, "stride", None), int | tuple) and np.max(layer.stride) > 1
        ]
        kind = type(network).__module__, type(network).__name__, side, tuple(strided)
        smallest[kind] = min(smallest.get(kind, (np.inf, "")), (sum(p.numel() for p in network.parameters()), name))
    return [name for _, name in sorted(smallest.values())]


def backbones(metafunc_config):
    return arrangements() if metafunc_config.getoption("--every-backbone") else SAMPLE


def pytest_generate_tests(metafunc):
    if "a_backbone" in metafunc.fixturenames:
        metafunc.parametrize("a_backbone", backbones(metafunc.config))


def test_backbones_look_where_their_gradients_do(a_backbone):
    """Within half a cell of the gradient's centre, which the first weights and the picture's border move."""
    torch.manual_seed(0)
    try:
        encoder = Encoder(a_backbone)
    except (InputError, RuntimeError, AttributeError, TypeError) as error:  # not one that gives feature maps
        pytest.skip(str(error))
    side = timm.get_pretrained_cfg(a_backbone).input_size[-1]
    try:
        cells = encoder.cell_shift((side, side))
    except InputError as error:
        pytest.skip(str(error))
    off = beside_gradients(encoder, side, cells)
    if off >= 0.5:  # the border cuts off less of what a cell sees of a larger image, where the network takes one
        off = beside_gradients(encoder, 3 * side, encoder.cell_shift((3 * side, 3 * side)))
    assert off < 0.5


def beside_gradients(encoder, side, cells):
    """The distance of a cell's place from its gradient's centre, in cells."""
    centre, cell = gradient_centre(encoder, side)
    place = [(i + 0.5) * stride + shift for i, stride, shift in zip(cell, cells.stride, cells, strict=True)]
    return np.abs((centre - place) / cells.stride).max()
