"""Linear layers with oneDNN have the values and derivatives of PyTorch's."""

import pytest
import torch
import torch.autograd.forward_ad as forward
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from visattn.fast.linear import Linear, linear, onednn_is_taken

SHAPE, IN, OUT = (3, 43), 257, 131  # of more multiplications than oneDNN is started for
OPERATOR = torch.ops.mkldnn._linear_pointwise


@pytest.fixture(autouse=True)
def wanted(monkeypatch):
    monkeypatch.setenv("VISATTN_ONEDNN", "1")
    if not onednn_is_taken():
        pytest.skip("this PyTorch has no oneDNN")


def layer(**options):
    torch.manual_seed(0)
    return Linear(IN, OUT, **options)


def operators(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_flop_counts()["Global"]


def views():
    """Inputs as they occur in models: contiguous, strided, transposed, and expanded."""
    torch.manual_seed(1)
    return {
        "whole": torch.randn(*SHAPE, IN),
        "every other row": torch.randn(SHAPE[0], 2 * SHAPE[1], IN)[:, ::2],
        "every other column": torch.randn(*SHAPE, 2 * IN)[..., ::2],
        "turned": torch.randn(SHAPE[1], SHAPE[0], IN).transpose(0, 1),
        "columns first": torch.randn(IN, 127).T,
        "one row": torch.randn(1, IN).expand(127, -1),
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", views())
def test_values_and_gradients_are_pytorchs(name, bias):
    model = layer(bias=bias)
    x = views()[name].requires_grad_()
    inputs = (x, *model.parameters())
    expected = F.linear(*inputs)
    assert OPERATOR in operators(lambda: model(x))
    assert model(x).shape == expected.shape
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    towards = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(model(x), inputs, towards), torch.autograd.grad(expected, inputs, towards), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turn", [lambda w: w.T.contiguous().T, lambda w: torch.cat([w, w], 1)[:, :IN]])
def test_a_weight_may_be_a_view(turn):
    x, weight = torch.randn(*SHAPE, IN), turn(layer().weight.detach())
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight.contiguous()), rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_one_number_everywhere():
    model = layer()
    x = torch.randn(*SHAPE, IN)
    model(x).sum().backward()
    rows = x.flatten(0, 1).sum(0).expand(OUT, -1)
    torch.testing.assert_close(model.weight.grad, rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.bias.grad, torch.full((OUT,), float(SHAPE[0] * SHAPE[1])))


def test_second_derivatives_are_pytorchs():
    model, x = layer(), torch.randn(*SHAPE, IN, requires_grad=True)

    def curvature(y):
        (of_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(of_x.square().sum(), [x, model.weight])

    for ours, theirs in zip(curvature(model(x)), curvature(F.linear(x, model.weight, model.bias)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # PyTorch's own
def test_forward_derivatives_are_pytorchs():
    model, x = layer().requires_grad_(False), torch.randn(*SHAPE, IN)
    along, of_weight, of_bias = torch.randn_like(x), torch.randn(OUT, IN), torch.randn(OUT)
    with forward.dual_level():
        inputs = [forward.make_dual(*pair) for pair in ((x, along), (model.weight, of_weight), (model.bias, of_bias))]
        ours = forward.unpack_dual(linear(*(one.requires_grad_() for one in inputs))).tangent
        theirs = forward.unpack_dual(F.linear(*inputs)).tangent
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_function_transforms_go_on_working():
    weight, x = layer().weight.detach(), torch.randn(5, *SHAPE, IN)
    each = vmap(grad(lambda w, x: linear(x, w).square().sum()), (None, 0))(weight, x)
    one = grad(lambda w: F.linear(x[2], w).square().sum())(weight)
    torch.testing.assert_close(each[2], one, rtol=1e-4, atol=1e-2)


def test_operations_are_counted_as_pytorchs_are():
    model = layer()
    x = torch.randn(*SHAPE, IN, requires_grad=True)
    ours = operators(lambda: model(x).sum().backward())
    assert set(ours) == {OPERATOR}
    assert sum(ours.values()) == 3 * 2 * SHAPE[0] * SHAPE[1] * IN * OUT


@pytest.mark.parametrize(
    "change",
    [
        lambda m, x: (m, x[:, :1]),  # too small
        lambda m, x: (m.double(), x.double()),
        lambda m, x: (m.bfloat16(), x.bfloat16()),
        lambda m, x: (m.to("meta"), x.to("meta")),
        lambda m, x: (m, x[:0]),
    ],
)
def test_small_layers_use_pytorchs_own(change):
    model, x = change(layer(), torch.randn(*SHAPE, IN))
    assert OPERATOR not in operators(lambda: model(x))
    ours, theirs = model(x), F.linear(x, model.weight, model.bias)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert ours.is_meta or torch.equal(ours, theirs)


def test_autocast_keeps_its_precision():
    model, x = layer(), torch.randn(*SHAPE, IN)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
        assert OPERATOR not in operators(lambda: model(x))


def test_it_can_be_switched_off(monkeypatch):
    model, x = layer(), torch.randn(*SHAPE, IN)
    assert OPERATOR in operators(lambda: model(x))
    monkeypatch.setenv("VISATTN_ONEDNN", "0")
    assert not onednn_is_taken()
    assert OPERATOR not in operators(lambda: model(x))
    assert torch.equal(model(x), F.linear(x, model.weight, model.bias))


def test_its_state_is_a_linear_layers():
    model = torch.nn.Linear(IN, OUT)
    model.load_state_dict(layer().state_dict())
    assert torch.equal(model.weight, layer().weight)
