"""Where do the cells of a feature map look? Not always at the middle of an even share of the picture.

A 3×3 convolution of stride 2 with one pixel of padding on each side is centred on pixel 2i, half a pixel before the
middle of pixels 2i and 2i + 1. Five of them in a row, as in a ResNet, put a cell of 32 pixels 15.5 pixels to the upper
left of its square; TensorFlow's padding, kept by timm's `tf_…` models, puts it as far to the lower right. Where the
stride does not divide the picture, cells are not even shares of it either: EfficientNet-B3 at 300 pixels has ten cells
of 32. A map drawn on a plain grid is off by that much.

So the network is run once without numbers (PyTorch's "meta" device), and every operation also says where the elements
of its result look, known from kernels, strides, padding and the order of elements alone. Attention and gates leave an
element where it is; a convolution over channels of several places looks at their mean. What cannot be followed
is refused, never guessed. Where two branches look at different places and are added, as in the shortcuts of a ResNet-D,
the cell is in the middle of the two: the weights decide between them. What comes back to the grid that it left is added
to a cell that has not moved.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from visattn.errors import InputError
from visattn.geometry import CellShift
from visattn.models.mode import evaluating

_NEAR = 0.05  # pixels: places that differ by less are one, whatever float32 made of them
_NOWHERE = torch.tensor(torch.nan, dtype=torch.float64)
_aten = torch.ops.aten

# Operations that only change the order or the number of elements: an element takes its place with it.
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
# Besides those that PyTorch itself calls pointwise, what keeps every element in its place.
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


class _Places(NamedTuple):
    """What is known of where the elements of a tensor look; pairs are (vertical, horizontal), in pixels.

    Attributes:
        centre: two tensors of its shape, the middle of what each element looks at; NaN where it is no place's.
        pitch: from one place to the next, as last known: an axis of one place does not show it.
        reach: how far from its middle an element looks, at most.
        seen: (low, high) of what all elements together look at, for either axis.
        path: the operations, by number, that have moved the grid so far.
    """

    centre: tuple[Tensor, Tensor]
    pitch: tuple[float, float]
    reach: tuple[float, float]
    seen: tuple[tuple[float, float], tuple[float, float]]
    path: tuple[int, ...] = ()

    def at(self, *centre: Tensor) -> "_Places":
        """The same with other middles."""
        return self._replace(centre=centre)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "_Places":
        """The same, its elements in another order."""
        return self.at(*map(move, self.centre))


class UnknownPlaceError(InputError):
    """A network whose cells cannot be told where they look."""


def cell_centres(network: nn.Module, image_size: tuple[int, int], channels_last: bool = False) -> CellShift:
    """Where the cells of a feature map look: the middle of their receptive fields, every pixel counted alike.

    Args:
        network: from normalised images (1, 3, h, w) to one feature map (1, C, H, W), alone or as the only one of a
            list. It is neither run with numbers nor changed.
        image_size: (h, w) of its input.
        channels_last: whether the feature map is (1, H, W, C).

    Raises:
        UnknownPlaceError: where an operation of the network cannot be followed, or the cells lie on no regular grid.
    """
    with torch.inference_mode(False), torch.no_grad():
        named = (*network.named_parameters(), *network.named_buffers())
        tensors = {n: t.to("meta", torch.float32 if t.is_floating_point() else None) for n, t in named}
        pixels = torch.empty(1, 3, *image_size, device="meta", dtype=torch.float32)
        tracing = _Tracing()
        tracing.put(pixels, _of_pixels(pixels))
        with evaluating(network), tracing:
            features = functional_call(network, tensors, pixels)
    (features,) = features if isinstance(features, list | tuple) else (features,)
    places = tracing.of(features)
    if places is None or features.dim() != 4:
        raise UnknownPlaceError(tracing.why())
    if channels_last:
        places = places.moved(lambda t: t.permute(0, 3, 1, 2))
    even = [_channel_mean(t, 1)[:, :, 0] for t in places.centre]
    lines = [_plane(even[a], (a, places.pitch[a])) for a in (0, 1)]
    if None in lines:
        raise UnknownPlaceError(tracing.why())
    (y, dy, zero_y), (x, zero_x, dx) = ([float(part) for part in line] for line in lines)
    if abs(zero_y) > _NEAR or abs(zero_x) > _NEAR or min(dy, dx) <= 0:
        raise UnknownPlaceError(tracing.why())
    low, high = zip(*places.seen, strict=True)
    return CellShift((y - dy / 2, x - dx / 2), (dy, dx), (low, high))


def _of_pixels(pixels: Tensor) -> _Places:
    height, width = pixels.shape[-2:]
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width))
    centre = y[:, None].expand(pixels.shape), x[None, :].expand(pixels.shape)
    return _Places(centre, (1.0, 1.0), (0.5, 0.5), ((0.0, float(height)), (0.0, float(width))))


class _Tracing(TorchDispatchMode):
    """Follows places through every operation that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, _Places]] = {}  # with the tensor, so that its number is not given again
        self._lost: list[str] = []

    def put(self, tensor: Tensor, places: _Places) -> None:
        """State where a tensor's elements look."""
        self._known[id(tensor)] = tensor, places

    def of(self, tensor: Any) -> _Places | None:
        """Where a tensor's elements look, or None where they are no places'."""
        return self._known.get(id(tensor), (None, None))[1] if isinstance(tensor, Tensor) else None

    def why(self) -> str:
        """The sentence for a network that could not be followed."""
        lost = f" (it cannot be followed through {', '.join(dict.fromkeys(self._lost))})" if self._lost else ""
        return f"where the cells of its feature map look is not known{lost}"

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
    ) -> Sequence[_Places | None]:
        kind, first, result = func.overloadpacket, self.of(args[0]) if args else None, results[0]
        if kind in _MOVES:
            return self._move(func, args, kwargs, tensors, len(results))
        if kind is _aten.convolution and first:
            _, weight, _, stride, padding, dilation, transposed, _, groups = args
            if weight.dim() == 4:
                return [_window(first, result, weight.shape[2:], stride, padding, dilation, groups, transposed)]
        elif kind in _POOLS and first:
            size, stride, padding, dilation = (*args[1:5], *((), 0, 1)[len(args) - 2 :])
            dilation = 1 if kind is _aten.avg_pool2d else dilation  # its argument there is another
            return [_window(first, result, size, stride or size, padding, dilation, result.shape[1])] * len(results)
        elif kind is _aten._adaptive_avg_pool2d and first:
            return [_adaptive(first, result)]
        elif kind in _RESIZES and first:
            aligned = "nearest" not in str(kind) and len(args) > 2 and args[2] is True
            return [_resized(first, result, aligned)]
        elif kind in _PADS and first:
            return [first.moved(lambda t: F.pad(t, args[1], value=torch.nan))]
        elif kind in _PRODUCTS:
            return [_product(*(self.of(args[n]) for n in _PRODUCTS[kind]), result)]
        elif kind in _ATTENTIONS and first:
            return [_attended(first, result)]
        elif kind in _REDUCTIONS and first and not any(isinstance(a, Tensor) for a in args[1:]):
            return [_reduced(first, args, kwargs, r) for r in results]
        elif kind is _aten.copy_:
            return [self._overwritten(args[0], args[1])]
        elif kind in _IN_PLACE or torch.Tag.pointwise in func.tags:
            return [self._elementwise(tensors, r) for r in results]
        self._lose(func)
        return [None] * len(results)

    def _lose(self, func: Any) -> None:
        self._lost.append(str(func.overloadpacket).removeprefix("aten."))

    def _overwritten(self, old: Tensor, new: Any) -> _Places | None:
        if old._base is not None:  # a part of another tensor, which is then not what it was
            self._known.pop(id(old._base), None)
            self._lost.append("copy_ to a part of a tensor")
            return None
        return self._elementwise([new], old)

    def _move(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Any], count: int
    ) -> Sequence[_Places | None]:
        known = [p for t in tensors if (p := self.of(t)) is not None]

        def centre(argument: Any, axis: int) -> Any:
            if isinstance(argument, list | tuple):
                return type(argument)(centre(a, axis) for a in argument)
            if not isinstance(argument, Tensor):
                return argument
            places = self.of(argument)
            return _NOWHERE.expand(argument.shape) if places is None else places.centre[axis]

        try:
            moved = [_applied(func, [centre(a, axis) for a in args], kwargs) for axis in (0, 1)]
        except (RuntimeError, NotImplementedError):
            self._lose(func)
            return [None] * count
        axes = [m if isinstance(m, list | tuple) else (m,) for m in moved]
        together = _together(known)
        return [together.at(y, x) for y, x in zip(*axes, strict=True)]

    def _elementwise(self, tensors: list[Any], result: Any) -> _Places | None:
        """Elements of one place each; whatever has none, a weight or a gate, changes nothing."""
        known = [p for t in tensors if (p := self.of(t)) is not None]
        if not known or not isinstance(result, Tensor):
            return None
        shapes = [p.centre[0].shape for p in known]
        return _sum(known, result.shape) if _fit(shapes, result.shape) else None  # not for a norm's mean and spread


def _fit(shapes: Sequence[torch.Size], shape: torch.Size) -> bool:
    """Whether each of the shapes can be broadcast to `shape`."""
    return all(
        len(s) <= len(shape) and all(n in (1, m) for n, m in zip(s[::-1], shape[::-1], strict=False)) for s in shapes
    )


def _sum(known: Sequence[_Places], shape: Sequence[int]) -> _Places:
    """Elements of several places: where those are from which the others have come, and else the mean."""
    paths = list(dict.fromkeys(p.path for p in known))
    stem = [path for path in paths if all(other[: len(path)] == path for other in paths)]
    deciding = [p for p in known if p.path == stem[0]] if stem else known
    centres = []
    for axis in (0, 1):
        mean = _mean([p.centre[axis] for p in deciding])
        if len(deciding) < len(known) and _core(mean).isnan().any():
            mean = torch.where(_core(mean).isnan(), _core(_mean([p.centre[axis] for p in known])), _core(mean))
        centres.append(mean.expand(shape))
    return _together(known).at(*centres)


def _mean(several: Sequence[Tensor]) -> Tensor:
    if all(s is several[0] for s in several):
        return several[0]
    return torch.stack(torch.broadcast_tensors(*map(_core, several))).nanmean(dim=0)


def _applied(func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A move of places; those of broadcast channels, which share memory, are copied where a view cannot be had."""
    kwargs = {name: value for name, value in kwargs.items() if name != "memory_format"}
    if func.overloadpacket in (_aten.view, _aten._unsafe_view, _aten._reshape_copy):
        return _reshaped(args[0], args[1])
    return func(*args, **kwargs)


def _core(centre: Tensor) -> Tensor:
    """A tensor without its copies: axes along which it is broadcast have one element."""
    for dim, stride in enumerate(centre.stride()):
        if not stride and centre.shape[dim] > 1:
            centre = centre.narrow(dim, 0, 1)
    return centre


def _reshaped(centre: Tensor, shape: Sequence[int]) -> Tensor:
    """`reshape`, which leaves last axes broadcast where they stay as they are."""
    shape = list(torch.empty(centre.shape, device="meta").reshape(shape).shape)
    kept = 0
    for n, m, stride in zip(centre.shape[::-1], shape[::-1], centre.stride()[::-1], strict=False):
        if n != m or stride:
            break
        kept += 1
    if not kept:
        return centre.reshape(shape)
    core = centre[(..., *(slice(0, 1),) * kept)].reshape(*shape[: len(shape) - kept], *(1,) * kept)
    return core.expand(shape)


_numbers = itertools.count()


def _together(several: Sequence[_Places]) -> _Places:
    """What several know apart from the middles: the widest of it."""
    first, *others = several
    paths = list(dict.fromkeys(p.path for p in several))
    stem = min(paths, key=len)
    if any(path[: len(stem)] != stem for path in paths):
        shared = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
        stem = (*(step for step, *_ in shared), next(_numbers))
    first = first._replace(path=stem)
    for other in others:
        first = first._replace(
            pitch=tuple(map(max, first.pitch, other.pitch)),
            reach=tuple(map(max, first.reach, other.reach)),
            seen=tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(first.seen, other.seen, strict=True)),
        )
    return first


def _channel_mean(centre: Tensor, groups: int) -> Tensor:
    """(B, C, …) to (B, groups, 1, …), the mean over each group's channels, and over all that know a place."""
    batch, channels, *rest = centre.shape
    if not centre.stride(1) or channels == 1:  # all alike
        return centre[:, :1].unsqueeze(2).expand(batch, groups, 1, *rest)
    return centre.reshape(batch, groups, channels // groups, *rest).nanmean(dim=2, keepdim=True)


def _plane(f: Tensor, pitch: tuple[int, float]) -> tuple[Tensor, Tensor, Tensor] | None:
    """The (s, a, b), each (N, G), of which f (N, G, H, W) is s + a i + b j wherever it is known; None where it is not.

    Args:
        f: where the elements look, along one axis of the picture.
        pitch: which of the last two axes that is, if it has one element only, and its pitch.
    """
    f = f if f.stride(1) else f[:, :1]  # groups that are all alike
    steps = []
    for dim in (0, 1):
        step = f.diff(dim=2 + dim).flatten(2).nanmean(dim=2)
        alone = pitch[1] if f.shape[2 + dim] == 1 and dim == pitch[0] else 0.0
        steps.append(step.nan_to_num(alone))
    i, j = torch.arange(f.shape[2])[:, None], torch.arange(f.shape[3])[None, :]
    a, b = (step[..., None, None] for step in steps)
    start = (f - a * i - b * j).flatten(2).nanmean(dim=2)
    off = (f - a * i - b * j - start[..., None, None]).abs()
    if start.isnan().any() or (off > _NEAR).any():
        return None
    return start, *steps


def _window(
    places: _Places,
    result: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool = False,
) -> _Places | None:
    """A convolution or a pooling of two-dimensional windows."""
    size, stride, padding, dilation = (_pair(n) for n in (size, stride, padding, dilation))
    half = [(k - 1) / 2 * d for k, d in zip(size, dilation, strict=True)]
    batch, channels, height, width = result.shape

    def spread(t: Tensor) -> Tensor:  # (B, groups, 1, H, W) to (B, channels, H, W)
        return t.expand(batch, groups, channels // groups, height, width).reshape(result.shape)

    same = not transposed and stride == [1, 1] and half == [float(p) for p in padding]
    if transposed:
        rows, columns = (
            (torch.arange(n) + p - h) / s for n, s, p, h in zip((height, width), stride, padding, half, strict=True)
        )
    else:
        rows, columns = (
            torch.arange(n) * s + h - p for n, s, p, h in zip((height, width), stride, padding, half, strict=True)
        )
    centres, pitches, reaches, seen = [], [], [], []
    for axis in (0, 1):
        even = _channel_mean(places.centre[axis], groups)
        apart = _apart(places.centre[axis], even)
        if same:
            centre, steps = even, [places.pitch[axis] if a == axis else 0.0 for a in (0, 1)]
        elif line := _plane(even[:, :, 0], (axis, places.pitch[axis])):
            start, a, b = (part[..., None, None, None] for part in line)
            centre = start + a * rows[:, None] + b * columns[None, :]
            steps = [float(part.abs().max()) for part in line[1:]]
        else:
            return None
        along = 0 if steps[0] >= steps[1] else 1  # which axis of the tensor runs along this axis of the picture
        factor = 1 / stride[along] if transposed else stride[along]
        pitches.append(steps[along] * factor)
        reaches.append(places.reach[axis] + half[along] * steps[along] + apart)
        low, high = float(_finite_min(centre)) - reaches[axis], -float(_finite_min(-centre)) + reaches[axis]
        seen.append((max(low, places.seen[axis][0]), min(high, places.seen[axis][1])))
        centres.append(_collapsed(spread, centre, result))
    path = places.path if same else (*places.path, next(_numbers))
    return _Places(tuple(centres), tuple(pitches), tuple(reaches), tuple(seen), path)


def _collapsed(spread: Callable[[Tensor], Tensor], centre: Tensor, result: Tensor) -> Tensor:
    """Middles for all channels; where they are alike, in memory for one of them only."""
    first = centre[:, :1, 0]
    if torch.equal(first.expand(centre[:, :, 0].shape).nan_to_num(-1e9), centre[:, :, 0].nan_to_num(-1e9)):
        return first.expand(result.shape)
    return spread(centre)


def _apart(centre: Tensor, mean: Tensor) -> float:
    """How far the channels of a group lie from their mean, at most."""
    if not centre.stride(1) or centre.shape[1] == 1:
        return 0.0
    batch, groups, _, *rest = mean.shape
    return -float(_finite_min(-(centre.reshape(batch, groups, -1, *rest) - mean).abs()))


def _finite_min(t: Tensor) -> Tensor:
    return t.nan_to_num(torch.inf).min()


def _pair(n: Any) -> list[int]:
    n = list(n) if isinstance(n, list | tuple | torch.Size) else [n]
    return n * 2 if len(n) == 1 else n


def _adaptive(places: _Places, result: Tensor) -> _Places | None:
    """Pooling to a given grid: to a single cell, which has no place; or by windows, where they are all alike."""
    sizes, grid = places.centre[0].shape[-2:], result.shape[-2:]
    if any(n % m for n, m in zip(sizes, grid, strict=True)) or tuple(grid) == (1, 1):
        return None
    size = [n // m for n, m in zip(sizes, grid, strict=True)]
    return _window(places, result, size, size, 0, 1, result.shape[1])


def _resized(places: _Places, result: Tensor, aligned: bool) -> _Places | None:
    """Interpolation to another grid."""
    sizes, grid = places.centre[0].shape[-2:], result.shape[-2:]
    at, scale = [], []
    for n, m in zip(sizes, grid, strict=True):
        at.append(torch.arange(m) * ((n - 1) / max(m - 1, 1)) if aligned else (torch.arange(m) + 0.5) * n / m - 0.5)
        scale.append((n - 1) / max(m - 1, 1) if aligned else n / m)
    centres = []
    for axis in (0, 1):
        line = _plane(places.centre[axis], (axis, places.pitch[axis]))
        if line is None:
            return None
        start, a, b = (part[..., None, None] for part in line)
        centres.append(start + a * at[0][:, None] + b * at[1][None, :])
    pitch = tuple(p * s for p, s in zip(places.pitch, scale, strict=True))
    return places.at(*centres)._replace(pitch=pitch, path=(*places.path, next(_numbers)))


def _alike(centre: Tensor, dim: int | Sequence[int]) -> Tensor:
    """The place that all elements along `dim` share, as that axis of one element; NaN where they share none."""
    centre = _core(centre)
    low = centre.nan_to_num(torch.inf).amin(dim, keepdim=True)
    high = centre.nan_to_num(-torch.inf).amax(dim, keepdim=True)
    return torch.where(high - low <= _NEAR, (low + high) / 2, torch.nan)


def _blended(centre: Tensor, dim: int | Sequence[int]) -> Tensor:
    """The mean along `dim`; NaN if that leaves one place for all, since what knows every place is at none."""
    mean = _core(centre).nanmean(dim, keepdim=True)
    one = -_finite_min(-mean) - _finite_min(mean) <= _NEAR
    return torch.full_like(mean, torch.nan) if one else mean


def _product(left: _Places | None, right: _Places | None, result: Tensor) -> _Places | None:
    """A matrix product: a row is where the left one's elements all look, or a column where the right one's do.

    So attention's result is where its query is, whatever the keys. A row of several places, such as four neighbours
    that are merged, is at their mean.
    """
    sides = [(p, dim) for p, dim in ((left, -1), (right, -2)) if p is not None]
    ways = [(p, dim, _alike) for p, dim in sides] + [(*sides[0], _blended)] * (len(sides) == 1)
    centres, apart = [], 0.0
    for axis in (0, 1):
        out = _NOWHERE
        for places, dim, way in ways:
            if (unknown := out.isnan()).any():
                found = way(places.centre[axis], dim)
                if way is _blended:
                    apart = max(apart, float((_core(places.centre[axis]) - found).abs().nan_to_num(0.0).max()))
                out = torch.where(unknown, found, out)
        centres.append(out.expand(result.shape))
    together = _together([p for p, _ in sides]).at(*centres)
    if len(sides) == 1:
        path = (*together.path, next(_numbers)) if apart else together.path
        return together._replace(reach=tuple(r + apart for r in together.reach), path=path)
    asked = left if not any(_alike(c, -1).isnan().any() for c in left.centre) else together
    return together._replace(reach=(torch.inf, torch.inf), path=asked.path)


def _attended(query: _Places, result: Tensor) -> _Places:
    return query.at(*(_alike(c, -1).expand(result.shape) for c in query.centre))._replace(reach=(torch.inf, torch.inf))


def _reduced(places: _Places, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> _Places | None:
    """A mean, sum or largest along axes."""
    if not isinstance(result, Tensor):
        return None
    dims = next(
        (a for a in (*args[1:], kwargs.get("dim")) if isinstance(a, int | list | tuple) and a is not True), None
    )
    dims = list(range(places.centre[0].dim())) if dims is None or dims == [] else dims
    dims = [d % places.centre[0].dim() for d in ([dims] if isinstance(dims, int) else dims)]
    centres, path = [], places.path
    for centre in places.centre:
        found = _alike(centre, dims)
        if found.isnan().any():
            path = (*places.path, next(_numbers))
            found = torch.where(found.isnan(), _blended(centre, dims), found)
        found = found.expand([1 if d in dims else n for d, n in enumerate(centre.shape)])
        if found.dim() != result.dim():
            for d in sorted(dims, reverse=True):
                found = found.squeeze(d)
        if found.shape != result.shape:
            return None
        centres.append(found)
    return places.at(*centres)._replace(path=path)
