"""Attention weights of any module, read from outside while it runs unchanged.

A fused kernel computes softmax(Q Kᵀ · scale + mask) V without storing the softmax. Here its calls are intercepted: the
queries and keys are those after all that the block did to them (norms, rotary positions), with its own mask and scale.
The weights are recomputed from them in float32, and each time a few rows are multiplied by V and compared with the
kernel's output. If a block computes the softmax itself, the softmax is tracked until it is multiplied by values.

Axis letters are those of `visattn.explain.calls`.
"""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from visattn.explain.calls import AttentionCall, DifferentialAttention, ExplicitAttention, FusedAttention, in_pieces


def running(known: Callable[[nn.Module], Any] = lambda module: True) -> nn.Module | None:
    """The innermost module, of those known, of which a method is running; None where there is none.

    Frames are searched, since hooks on modules would change which path PyTorch takes through some of them.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_argcount:
            first = frame.f_locals.get(frame.f_code.co_varnames[0])
            if isinstance(first, nn.Module) and known(first):
                return first
        frame = frame.f_back
    return None


def _heads_of(module: nn.Module | None) -> int | None:
    """The number of heads, from a module's attributes."""
    said = (getattr(module, name, None) for name in ("num_heads", "heads", "num_attention_heads", "n_heads"))
    return next((number for number in said if isinstance(number, int)), None)


def _layout(tensor: Tensor) -> tuple[int, int]:
    """Which axis of a block's queries or weights (…, N, d) counts heads, and how many; see `in_pieces`.

    Of four axes it is the second. Of three, the first counts pieces and heads together where the module that runs has
    several heads. Of more it is the one with as many elements as the module has heads, the one nearest in memory to a
    head's own part if there are several, since these stand together in the projection.
    """
    count = tensor.dim()
    if count == 4:
        return 1, tensor.shape[1]
    heads = _heads_of(running(lambda module: _heads_of(module) is not None))
    if count == 3:
        return 0, heads if heads and tensor.shape[0] % heads == 0 else 1
    if count < 3:
        return 0, 1
    alike = [axis for axis in range(1, count - 2) if tensor.shape[axis] == heads] or [1]
    axis = min(alike, key=tensor.stride)
    return axis, tensor.shape[axis]


def _fused(
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> FusedAttention:
    """A call of `scaled_dot_product_attention`, with the names of its arguments."""
    layout = _layout(query)
    # Of torch's CausalBias, whose module takes seconds to import.
    materialize = getattr(attn_mask, "_materialize", None)
    if materialize is not None:
        attn_mask = materialize(query.device)
    if attn_mask is not None and query.dim() != 4:
        attn_mask = in_pieces(attn_mask.expand(*out.shape[:-1], key.shape[-2]), layout)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(times, dim=-3) for x in (key, value))
    query, key, value = query.detach(), key.detach(), value.detach()
    if not out.dim() == 4 == query.dim() or not out.shape[:2] == query.shape[:2] == key.shape[:2] == value.shape[:2]:
        lead = out.shape[:-2]  # which may be broadcast
        query, key, value = (in_pieces(x.expand(*lead, *x.shape[-2:]), layout) for x in (query, key, value))
    return FusedAttention(query, key, value, attn_mask, scale, out, layout)


# Operations on a softmax before it is multiplied by values: layout, type, scale, sum, mixture.
_FOLLOWED = {
    *("to", "type", "type_as", "float", "half", "bfloat16", "contiguous", "clone", "detach", "nan_to_num"),
    *("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "permute", "transpose"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__itruediv__"),
    *("add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__isub__"),
    *("masked_fill", "masked_fill_", "linear", "__getitem__"),
}
_PRODUCTS = {"matmul", "__matmul__", "bmm"}
_BEGINNINGS = {F.scaled_dot_product_attention, torch.softmax, Tensor.softmax, F.softmax}
_SCALED = {"mul", "__mul__", "__rmul__"}
_LESS = {"sub", "__sub__"}


class _Softmax(NamedTuple):
    """A tensor derived from a softmax: the softmax's axis, from the end, and the tensor before dropout."""

    axis: int
    before: Tensor | None = None


class AttentionInterceptor(TorchFunctionMode):
    """Passes every attention call to a function, after its output is computed."""

    def __init__(self, on_call: Callable[[AttentionCall], None]) -> None:
        super().__init__()
        self.on_call = on_call
        self._known: Any = WeakIdKeyDictionary()  # of tensors alive that were made of a softmax, a _Softmax each
        self._pair: list[FusedAttention] = []  # the calls of a module whose attention is differential
        self._scaled: tuple[Tensor, Tensor] | None = None  # the second one's output times λ, and λ

    def __torch_function__(
        self, function: Callable[..., Any], kinds: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        out = function(*args, **kwargs)
        if function not in _BEGINNINGS and not self._known.data and not self._pair:
            return out  # most functions: nothing is tracked yet
        if function is F.scaled_dot_product_attention:
            call = _fused(out, *args, **kwargs)
            if hasattr(running(), "lambda_q1"):  # what the weights are is known when both outputs are subtracted
                self._pair = [*self._pair[-1:], call]
            else:
                self.on_call(call)
        elif isinstance(out, Tensor):
            name = getattr(function, "__name__", "")
            if len(self._pair) == 2:
                self._subtract(name, out, args)
            self._follow(name, out, args, kwargs)
        return out

    def _subtract(self, name: str, out: Tensor, args: tuple) -> None:
        """Track the outputs of two calls until λ times the second is subtracted from the first."""
        first, second = self._pair
        if name in _SCALED and any(part is second.out for part in args):
            factors = [part for part in args if isinstance(part, Tensor) and part is not second.out]
            if len(factors) == 1 and factors[0].numel() == 1:
                self._scaled = out, factors[0].detach()
        elif name in _LESS and self._scaled is not None and args[0] is first.out and args[1] is self._scaled[0]:
            share = self._scaled[1]
            self._pair, self._scaled = [], None
            self.on_call(DifferentialAttention(first, second, share, out))

    def _multi_head(self, *args: Any, **kwargs: Any) -> Any:
        """PyTorch's function, without its check for overrides, which would hide the calls in it."""
        original: Any = F.multi_head_attention_forward
        names = {**vars(F), "has_torch_function": lambda tensors: False}
        inside = types.FunctionType(original.__code__, names, original.__name__, original.__defaults__)
        inside.__kwdefaults__ = original.__kwdefaults__
        with self:
            return inside(*args, **kwargs)

    def _follow(self, name: str, out: Tensor, args: tuple, kwargs: dict[str, Any]) -> None:
        """Track softmaxes and tensors derived from them, until they are multiplied by values."""
        if name == "softmax":
            axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if out.dim() >= 2 and axis in (-1, out.dim() - 1):
                self._known[out] = _Softmax(-1)
        elif self._known and (name in _FOLLOWED or name in _PRODUCTS or name in ("dropout", "einsum")):
            given = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)]
            source = next((part for part in given if part in self._known), None)
            if source is None:
                return
            known: _Softmax = self._known[source]
            if name in (*_PRODUCTS, "einsum") and len(given) != 2:
                return
            if name in _PRODUCTS:
                self._multiplied(given[0], given[1], out)
            elif name == "einsum":
                self._summed(args[0], given[0], given[1], out)
            elif name == "dropout":
                if out is not source:
                    self._known[out] = known._replace(before=source if known.before is None else known.before)
            elif (axis := _axis_after(name, known.axis, source, out, args[1:])) is not None:
                self._known[out] = _Softmax(axis)

    def _multiplied(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """Weights @ values, or valuesᵀ @ weightsᵀ."""
        if left in self._known and self._known[left].axis == -1:
            self._explicit(left, right, out, False)
        elif right in self._known and self._known[right].axis == -2:
            self._explicit(right, left, out, True)

    def _summed(self, equation: Any, one: Tensor, two: Tensor, out: Tensor) -> None:
        """The same by einsum, where its axes are those of a product of matrices."""
        if not isinstance(equation, str) or "->" not in equation or "." in equation:
            return
        terms, made = equation.replace(" ", "").split("->")
        for weights, value, (w, v) in ((one, two, terms.split(",")), (two, one, terms.split(",")[::-1])):
            if weights in self._known and self._known[weights].axis == -1:
                size = [letter for letter in v if letter not in w]
                if len(size) == 1 and made == f"{w[:-1]}{size[0]}" and set(v) == {*w[:-2], w[-1], *size}:
                    with torch._C.DisableTorchFunction():
                        value = torch.einsum(f"{v}->{w[:-2]}{w[-1]}{size[0]}", value)
                    self._explicit(weights, value, out, False)
                    return

    def _explicit(self, weights: Tensor, value: Tensor, out: Tensor, transposed: bool) -> None:
        before = self._known[weights].before
        given = weights if before is None or before.shape != weights.shape else before
        given, value = given.detach(), value.detach()
        if transposed:
            given, value = given.mT, value.mT
        layout = _layout(value if value.dim() == given.dim() else given)
        value = value.expand(*given.shape[:-2], *value.shape[-2:])
        self.on_call(ExplicitAttention(in_pieces(given, layout), in_pieces(value, layout), out, layout, transposed))


def _axis_after(name: str, axis: int, source: Tensor, out: Tensor, options: tuple) -> int | None:
    """The axis of the softmax, from the end, after a function of `_FOLLOWED`; None if unknown."""
    if name in ("transpose", "permute"):
        order = list(range(source.dim()))
        if name == "permute":
            order = list(options[0] if len(options) == 1 else options)
        elif len(options) == 2:
            first, second = options
            order[first], order[second] = order[second], order[first]
        return [number % source.dim() for number in order].index(source.dim() + axis) - source.dim()
    if name == "linear" and axis == -1:
        return None  # mixed over keys
    if name == "__getitem__":  # parts of what comes before queries and keys, such as one of two softmaxes
        index = options[0] if isinstance(options[0], tuple) else options
        whole = all(isinstance(part, int | slice) for part in index) and len(index) <= source.dim() - 2
        return axis if whole and axis == -1 else None
    same = out.dim() >= -axis and out.shape[axis] == source.shape[axis] and out.numel() >= source.numel()
    return axis if same else None


@contextmanager
def intercepted(on_call: Callable[[AttentionCall], None]) -> Iterator[None]:
    """A context in which `on_call` is called for each attention call of this thread, in order.

    Compiled modules run eagerly, since compiled code cannot be intercepted.
    """
    # Where nothing has been compiled yet, a stance would import all of the compiler.
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with stance, AttentionInterceptor(on_call):
        yield


def uncompiled(module: Any) -> Any:
    """The module that was passed to `torch.compile`, which shares its parameters; other modules as they are."""
    while isinstance(module, nn.Module) and "_orig_mod" in module._modules:
        module = module._orig_mod
    return module
