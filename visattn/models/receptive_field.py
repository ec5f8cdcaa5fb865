"""Receptive field centres of a feature map's cells, which may differ from the middles of the cells.

A 3×3 convolution of stride 2 with one pixel of padding on each side is centred on pixel 2i, half a pixel before the
middle of pixels 2i and 2i + 1. Five of them in a row, as in a ResNet, put a cell of 32 pixels 15.5 pixels to the upper
left of its square; TensorFlow's padding, kept by timm's `tf_…` models, puts it as far to the lower right. If the stride
does not divide the image, cells are not equal shares of it either: EfficientNet-B3 at 300 pixels has ten cells of 32.
A map drawn on a plain grid is misplaced by that much.

So the network is run once without numbers (PyTorch's "meta" device), while the receptive field centres of the elements
are propagated through every operation, from kernels, strides, padding and the order of elements. Attention and gates
leave a centre unchanged; a convolution over channels of several places takes their mean. Unsupported operations are
rejected, never guessed. If two branches with different centres are added, as in the shortcuts of a ResNet-D, the result
is in the middle, since the weights decide between them. A branch that returns to the grid it came from does not move
the centres.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from visattn.errors import InputError
from visattn.images import CellShift
from visattn.models.mode import evaluating
from visattn.models.places import (
    NEAR,
    NOWHERE,
    Places,
    adaptive,
    added,
    attended,
    channel_mean,
    chosen,
    of_pixels,
    plane,
    product,
    reduced,
    reshaped,
    resized,
    together,
    windows,
)

_aten = torch.ops.aten

# Operations that only change the order or the number of elements: elements keep their places.
_MOVES = {
    _aten.view, _aten._unsafe_view, _aten.reshape, _aten.permute, _aten.transpose, _aten.t, _aten.expand, _aten.slice,
    _aten.select, _aten.squeeze, _aten.unsqueeze, _aten.cat, _aten.stack, _aten.split, _aten.split_with_sizes,
    _aten.chunk, _aten.unbind, _aten.roll, _aten.flip, _aten.repeat, _aten.im2col, _aten.pixel_shuffle,
    _aten.pixel_unshuffle, _aten.channel_shuffle, _aten.narrow, _aten.movedim, _aten.repeat_interleave, _aten.unfold,
    _aten._reshape_copy, _aten.alias,
}  # fmt: skip
_POOLS = {_aten.max_pool2d_with_indices, _aten.max_pool2d, _aten.avg_pool2d}
_RESIZES = {
    _aten.upsample_nearest2d, _aten.upsample_bilinear2d, _aten.upsample_bicubic2d, _aten._upsample_bilinear2d_aa,
    _aten._upsample_bicubic2d_aa, _aten._upsample_nearest_exact2d,
}  # fmt: skip
_PADS = {_aten.constant_pad_nd, _aten.reflection_pad2d, _aten.replication_pad2d}
_PRODUCTS = {
    _aten.mm: (0, 1), _aten.bmm: (0, 1), _aten.matmul: (0, 1), _aten.addmm: (1, 2), _aten.baddbmm: (1, 2),
}  # fmt: skip
_REDUCTIONS = {
    _aten.mean, _aten.sum, _aten.amax, _aten.amin, _aten.max, _aten.min, _aten.var, _aten.std, _aten.var_mean,
    _aten.std_mean, _aten.norm, _aten.linalg_vector_norm, _aten.logsumexp, _aten.argmax, _aten.prod,
}  # fmt: skip
# Operations that keep every element in its place, besides those that PyTorch tags as pointwise.
_IN_PLACE = {
    _aten.clone, _aten._to_copy, _aten.detach, _aten.contiguous, _aten.native_layer_norm, _aten.native_group_norm,
    _aten.native_batch_norm, _aten._native_batch_norm_legit, _aten._native_batch_norm_legit_no_training,
    _aten._batch_norm_with_update, _aten.cudnn_batch_norm, _aten._fused_rms_norm, _aten._softmax, _aten._safe_softmax,
    _aten._log_softmax, _aten.softmax, _aten.native_dropout, _aten.dropout, _aten.hardswish, _aten.hardswish_,
    _aten.mish_, _aten.gelu_, _aten._prelu_kernel, _aten.masked_fill, _aten.masked_fill_,
}  # fmt: skip
_ATTENTIONS = {
    _aten.scaled_dot_product_attention, _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_attention_math, _aten._scaled_dot_product_fused_attention_overrideable,
    _aten._scaled_dot_product_efficient_attention, _aten._scaled_dot_product_flash_attention,
}  # fmt: skip


class UnknownPlaceError(InputError):
    """A network whose receptive fields cannot be derived."""


def cell_centres(network: nn.Module, image_size: tuple[int, int], channels_last: bool = False) -> CellShift:
    """Receptive field centres of a feature map's cells, with every pixel counted equally.

    Args:
        network: from normalised images (1, 3, h, w) to one feature map (1, C, H, W), alone or as the only one of a
            list. It is not run with numbers and not changed.
        image_size: (h, w) of its input.
        channels_last: whether the feature map is (1, H, W, C).

    Raises:
        UnknownPlaceError: if an operation of the network is not supported, or the cells form no regular grid.
    """
    tracing, features = followed(network, image_size)
    (features,) = features if isinstance(features, list | tuple) else (features,)
    places = tracing.of(features)
    if places is None or features.dim() != 4:
        raise UnknownPlaceError(tracing.why())
    if channels_last:
        places = places.moved(lambda t: t.permute(0, 3, 1, 2))
    even = [channel_mean(t, 1)[:, :, 0] for t in places.centre]
    lines = [line for a in (0, 1) if (line := plane(even[a], (a, places.pitch[a]))) is not None]
    if len(lines) < 2:
        raise UnknownPlaceError(tracing.why())
    (y, dy, zero_y), (x, zero_x, dx) = ([float(part) for part in line] for line in lines)
    if abs(zero_y) > NEAR or abs(zero_x) > NEAR or min(dy, dx) <= 0:
        raise UnknownPlaceError(tracing.why())
    low, high = zip(*places.seen, strict=True)
    return CellShift((y - dy / 2, x - dx / 2), (dy, dx), (low, high))


def followed(
    network: nn.Module,
    image_size: tuple[int, int],
    run: Callable[[nn.Module, Tensor], Any] = lambda network, pixels: network(pixels),
) -> tuple["Tracing", Any]:
    """Run a network without numbers on an image of (h, w) pixels: what was followed, and what the network gave.

    Args:
        network: any; it is not changed, since `run` gets a copy of it without numbers.
        image_size: in pixels.
        run: takes the copy and pixels (1, 3, h, w).
    """
    tracing = Tracing()
    with torch.inference_mode(False), torch.no_grad():
        parts = [part for module in network.modules() for part in vars(module).values() if isinstance(part, Tensor)]
        tensors = (*network.parameters(), *network.buffers(), *parts)
        copied = {id(t): t.detach().to("meta", torch.float32 if t.is_floating_point() else None) for t in tensors}
        stand_in = copy.deepcopy(network, copied)
        pixels = torch.empty(1, 3, *image_size, device="meta", dtype=torch.float32)
        tracing.put(pixels, of_pixels(pixels))
        with evaluating(stand_in), tracing:
            return tracing, run(stand_in, pixels)


class Tracing(TorchDispatchMode):
    """Follows places through every operation that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Places]] = {}  # with the tensor, so that its id is not reused
        self._lost: list[str] = []

    def put(self, tensor: Tensor, places: Places) -> None:
        """Set the receptive field centres of a tensor's elements."""
        self._known[id(tensor)] = tensor, places

    def of(self, tensor: Any) -> Places | None:
        """The receptive field centres of a tensor's elements, or None if it has no places."""
        return self._known.get(id(tensor), (None, None))[1] if isinstance(tensor, Tensor) else None

    @property
    def lost(self) -> list[str]:
        """The operations that could not be followed."""
        return list(dict.fromkeys(self._lost))

    def why(self) -> str:
        """The error message for an unsupported network."""
        lost = f" (unsupported: {', '.join(self.lost)})" if self._lost else ""
        return f"the positions of its feature map's cells cannot be derived{lost}"

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [t for a in (*args, *kwargs.values()) for t in (a if isinstance(a, list | tuple) else (a,))]
        if any(self.of(t) is not None for t in tensors):
            results = out if isinstance(out, list | tuple) else (out,)
            found = self._follow(func, args, kwargs, tensors, results)
            for result, places in zip(results, found, strict=False):
                if places is not None and isinstance(result, Tensor):
                    self.put(result, places)
        return out

    def _follow(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Any], results: Sequence[Any]
    ) -> Sequence[Places | None]:
        kind, first, result = func.overloadpacket, self.of(args[0]) if args else None, results[0]
        if kind in _MOVES:
            return self._move(func, args, kwargs, tensors, len(results))
        if kind is _aten.convolution and first:
            _, weight, _, stride, padding, dilation, transposed, _, groups = args
            if weight.dim() == 4:
                return [windows(first, result, weight.shape[2:], stride, padding, dilation, groups, transposed)]
        elif kind in _POOLS and first and result.dim() == 4:
            given: list[Any] = [*args[1:5], *((), 0, 1)[len(args) - 2 :]]
            size, stride, padding, dilation = given
            dilation = 1 if kind is _aten.avg_pool2d else dilation  # its argument at this index is another one
            return [windows(first, result, size, stride or size, padding, dilation, result.shape[1])] * len(results)
        elif kind is _aten._adaptive_avg_pool2d and first:
            return [adaptive(first, result)]
        elif kind in _RESIZES and first and result.dim() == 4:
            aligned = "nearest" not in str(kind) and len(args) > 2 and args[2] is True
            return [resized(first, result, aligned)]
        elif kind in _PADS and first:
            return [first.moved(lambda t: F.pad(t, args[1], value=torch.nan))]
        elif kind in _PRODUCTS:
            left, right = (self.of(args[n]) for n in _PRODUCTS[kind])
            return [product(left, right, result)]
        elif kind in _ATTENTIONS and first:
            return [attended(first, result)]
        elif kind in _REDUCTIONS and first and not any(isinstance(a, Tensor) for a in args[1:]):
            return [reduced(first, args, kwargs, r) for r in results]
        elif kind is _aten.index and first and (places := chosen(first, args[1], result)) is not None:
            return [places]
        elif kind is _aten.copy_:
            return [self._overwritten(args[0], args[1])]
        elif kind in _IN_PLACE or torch.Tag.pointwise in func.tags:
            return [self._elementwise(tensors, r) for r in results]
        self._lose(func)
        return [None] * len(results)

    def _lose(self, func: Any) -> None:
        self._lost.append(str(func.overloadpacket).removeprefix("aten."))

    def _overwritten(self, old: Tensor, new: Any) -> Places | None:
        if old._base is not None:  # a view of another tensor, which is changed, too
            self._known.pop(id(old._base), None)
            self._lost.append("copy_ to a part of a tensor")
            return None
        return self._elementwise([new], old)

    def _move(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Any], count: int
    ) -> Sequence[Places | None]:
        known = [p for t in tensors if (p := self.of(t)) is not None]

        def centre(argument: Any, axis: int) -> Any:
            if isinstance(argument, list | tuple):
                return type(argument)(centre(a, axis) for a in argument)
            if not isinstance(argument, Tensor):
                return argument
            places = self.of(argument)
            return NOWHERE.expand(argument.shape) if places is None else places.centre[axis]

        try:
            moved = [_applied(func, [centre(a, axis) for a in args], kwargs) for axis in (0, 1)]
        except (RuntimeError, NotImplementedError):
            self._lose(func)
            return [None] * count
        axes = [m if isinstance(m, list | tuple) else (m,) for m in moved]
        merged = together(known)
        return [merged.at(y, x) for y, x in zip(*axes, strict=True)]

    def _elementwise(self, tensors: list[Any], result: Any) -> Places | None:
        """Combine elementwise; operands without places, such as weights or gates, have no effect."""
        known = [p for t in tensors if (p := self.of(t)) is not None]
        if not known or not isinstance(result, Tensor):
            return None
        shapes = [p.centre[0].shape for p in known]
        return added(known, result.shape) if _fit(shapes, result.shape) else None  # not for a norm's mean and variance


def _fit(shapes: Sequence[torch.Size], shape: torch.Size) -> bool:
    """Whether each of the shapes can be broadcast to `shape`."""
    return all(
        len(s) <= len(shape) and all(n in (1, m) for n, m in zip(s[::-1], shape[::-1], strict=False)) for s in shapes
    )


def _applied(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Apply a function to places; broadcast channels, which share memory, are copied if a view is impossible."""
    kwargs = {name: value for name, value in kwargs.items() if name != "memory_format"}
    if func.overloadpacket in (_aten.view, _aten._unsafe_view, _aten._reshape_copy):
        return reshaped(args[0], args[1])
    return func(*args, **kwargs)
