"""Receptive field centres of tensor elements, propagated through sums, windows and products.

The arithmetic of `visattn.models.receptive_field`. Axis letters: B, C, H, W of a feature map.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visattn.images.geometry import pair

NEAR = 0.05  # pixels: places that differ by less are considered equal
NOWHERE = torch.tensor(torch.nan, dtype=torch.float64)

_numbers = itertools.count()  # ids of operations that move the grid


class Places(NamedTuple):
    """Places of a tensor's elements in the image; pairs are (vertical, horizontal), in pixels.

    Attributes:
        centre: two tensors of its shape, the receptive field centre of each element; NaN if it has none.
        pitch: distance between neighbouring places, as last known, since an axis of size 1 does not show it.
        reach: maximum distance from an element's centre to the edge of its receptive field.
        seen: (low, high) of all elements' receptive fields, on each axis.
        path: ids of the operations that have moved the grid so far.
    """

    centre: tuple[Tensor, Tensor]
    pitch: tuple[float, float]
    reach: tuple[float, float]
    seen: tuple[tuple[float, float], tuple[float, float]]
    path: tuple[int, ...] = ()

    def at(self, vertical: Tensor, horizontal: Tensor) -> "Places":
        """The same with other centres."""
        return self._replace(centre=(vertical, horizontal))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Places":
        """The same with the elements in another order."""
        return self.at(*map(move, self.centre))


def of_pixels(pixels: Tensor) -> Places:
    """The places of images (B, C, h, w): all channels of a pixel are at its centre."""
    height, width = pixels.shape[-2:]
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width))
    centre = y[:, None].expand(pixels.shape), x[None, :].expand(pixels.shape)
    return Places(centre, (1.0, 1.0), (0.5, 0.5), ((0.0, float(height)), (0.0, float(width))))


def added(known: Sequence[Places], shape: Sequence[int]) -> Places:
    """Places of a sum: those of the operand from which the others are derived, or else the mean."""
    paths = list(dict.fromkeys(p.path for p in known))
    stem = [path for path in paths if all(other[: len(path)] == path for other in paths)]
    deciding = [p for p in known if p.path == stem[0]] if stem else known
    centres = []
    for axis in (0, 1):
        mean = _mean([p.centre[axis] for p in deciding])
        if len(deciding) < len(known) and _core(mean).isnan().any():
            mean = torch.where(_core(mean).isnan(), _core(_mean([p.centre[axis] for p in known])), _core(mean))
        centres.append(mean.expand(shape))
    return together(known).at(*centres)


def _mean(several: Sequence[Tensor]) -> Tensor:
    if all(s is several[0] for s in several):
        return several[0]
    return torch.stack(torch.broadcast_tensors(*map(_core, several))).nanmean(dim=0)


def _core(centre: Tensor) -> Tensor:
    """A tensor with broadcast axes reduced to one element."""
    for dim, stride in enumerate(centre.stride()):
        if not stride and centre.shape[dim] > 1:
            centre = centre.narrow(dim, 0, 1)
    return centre


def reshaped(centre: Tensor, shape: Sequence[int]) -> Tensor:
    """`reshape` that keeps unchanged trailing axes broadcast."""
    shape = list(torch.empty(centre.shape, device="meta").reshape(shape).shape)
    kept = 0
    for n, m, stride in zip(centre.shape[::-1], shape[::-1], centre.stride()[::-1], strict=False):
        if n != m or stride:
            break
        kept += 1
    if not kept:
        return centre.reshape(shape)
    first: tuple[Any, ...] = (..., *(slice(0, 1),) * kept)
    core = centre[first].reshape(*shape[: len(shape) - kept], *(1,) * kept)
    return core.expand(shape)


def together(several: Sequence[Places]) -> Places:
    """Combine several `Places`, except for the centres: the widest values."""
    first, *others = several
    paths = list(dict.fromkeys(p.path for p in several))
    stem = min(paths, key=len)
    if any(path[: len(stem)] != stem for path in paths):
        shared = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
        stem = (*(step for step, *_ in shared), next(_numbers))
    first = first._replace(path=stem)
    for other in others:
        first = first._replace(
            pitch=pair(map(max, first.pitch, other.pitch)),
            reach=pair(map(max, first.reach, other.reach)),
            seen=pair((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(first.seen, other.seen, strict=True)),
        )
    return first


def channel_mean(centre: Tensor, groups: int) -> Tensor:
    """(B, C, …) to (B, groups, 1, …), the mean over each group's channels with a place."""
    batch, channels, *rest = centre.shape
    if not centre.stride(1) or channels == 1:  # all equal
        return centre[:, :1].unsqueeze(2).expand(batch, groups, 1, *rest)
    return centre.reshape(batch, groups, channels // groups, *rest).nanmean(dim=2, keepdim=True)


def plane(f: Tensor, pitch: tuple[int, float]) -> tuple[Tensor, Tensor, Tensor] | None:
    """(s, a, b), (N, G) each, for which f (N, G, H, W) = s + a i + b j wherever it is known; None if there are none.

    Args:
        f: places of the elements along one axis of the image.
        pitch: which of the last two axes that is, if it has only one element, and its pitch.
    """
    f = f if f.stride(1) else f[:, :1]  # all groups are equal
    steps = []
    for dim in (0, 1):
        step = f.diff(dim=2 + dim).flatten(2).nanmean(dim=2)
        alone = pitch[1] if f.shape[2 + dim] == 1 and dim == pitch[0] else 0.0
        steps.append(step.nan_to_num(alone))
    i, j = torch.arange(f.shape[2])[:, None], torch.arange(f.shape[3])[None, :]
    a, b = (step[..., None, None] for step in steps)
    start = (f - a * i - b * j).flatten(2).nanmean(dim=2)
    off = (f - a * i - b * j - start[..., None, None]).abs()
    if start.isnan().any() or (off > NEAR).any():
        return None
    return start, steps[0], steps[1]


def windows(
    places: Places,
    result: Tensor,
    size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    transposed: bool = False,
) -> Places | None:
    """Places after a two-dimensional convolution or pooling."""
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
        even = channel_mean(places.centre[axis], groups)
        apart = _apart(places.centre[axis], even)
        if same:
            centre, steps = even, [places.pitch[axis] if a == axis else 0.0 for a in (0, 1)]
        elif line := plane(even[:, :, 0], (axis, places.pitch[axis])):
            start, a, b = (part[..., None, None, None] for part in line)
            centre = start + a * rows[:, None] + b * columns[None, :]
            steps = [float(part.abs().max()) for part in line[1:]]
        else:
            return None
        along = 0 if steps[0] >= steps[1] else 1  # the axis of the tensor along this axis of the image
        factor = 1 / stride[along] if transposed else stride[along]
        pitches.append(steps[along] * factor)
        reaches.append(places.reach[axis] + half[along] * steps[along] + apart)
        (low, high), reach = _bounds(centre), reaches[axis]
        seen.append((max(low - reach, places.seen[axis][0]), min(high + reach, places.seen[axis][1])))
        centres.append(_collapsed(spread, centre, result))
    path = places.path if same else (*places.path, next(_numbers))
    return Places(pair(centres), pair(pitches), pair(reaches), pair(seen), path)


def _collapsed(spread: Callable[[Tensor], Tensor], centre: Tensor, result: Tensor) -> Tensor:
    """Centres for all channels, broadcast if they are equal."""
    first = centre[:, :1, 0]
    if torch.equal(first.expand(centre[:, :, 0].shape).nan_to_num(-1e9), centre[:, :, 0].nan_to_num(-1e9)):
        return first.expand(result.shape)
    return spread(centre)


def _apart(centre: Tensor, mean: Tensor) -> float:
    """The maximum distance of a group's channels from their mean."""
    if not centre.stride(1) or centre.shape[1] == 1:
        return 0.0
    batch, groups, _, *rest = mean.shape
    return float((centre.reshape(batch, groups, -1, *rest) - mean).abs().nan_to_num(0.0).max())


def _bounds(centre: Tensor) -> tuple[float, float]:
    """The smallest and the largest known place."""
    return float(centre.nan_to_num(torch.inf).min()), float(centre.nan_to_num(-torch.inf).max())


def _pair(n: Any) -> list[int]:
    n = list(n) if isinstance(n, list | tuple | torch.Size) else [n]
    return n * 2 if len(n) == 1 else n


def adaptive(places: Places, result: Tensor) -> Places | None:
    """Pooling to a given grid: a single cell has no place; otherwise windows must be equal."""
    sizes, grid = places.centre[0].shape[-2:], result.shape[-2:]
    if any(n % m for n, m in zip(sizes, grid, strict=True)) or tuple(grid) == (1, 1):
        return None
    size = [n // m for n, m in zip(sizes, grid, strict=True)]
    return windows(places, result, size, size, 0, 1, result.shape[1])


def resized(places: Places, result: Tensor, aligned: bool) -> Places | None:
    """Interpolation to another grid."""
    sizes, grid = places.centre[0].shape[-2:], result.shape[-2:]
    at, scale = [], []
    for n, m in zip(sizes, grid, strict=True):
        at.append(torch.arange(m) * ((n - 1) / max(m - 1, 1)) if aligned else (torch.arange(m) + 0.5) * n / m - 0.5)
        scale.append((n - 1) / max(m - 1, 1) if aligned else n / m)
    centres = []
    for axis in (0, 1):
        line = plane(places.centre[axis], (axis, places.pitch[axis]))
        if line is None:
            return None
        start, a, b = (part[..., None, None] for part in line)
        centres.append(start + a * at[0][:, None] + b * at[1][None, :])
    pitch = pair(p * s for p, s in zip(places.pitch, scale, strict=True))
    return places.at(*centres)._replace(pitch=pitch, path=(*places.path, next(_numbers)))


def _alike(centre: Tensor, dim: int | list[int]) -> Tensor:
    """The common place of all elements along `dim`, which is kept with size 1; NaN if places differ."""
    centre = _core(centre)
    low = centre.nan_to_num(torch.inf).amin(dim, keepdim=True)
    high = centre.nan_to_num(-torch.inf).amax(dim, keepdim=True)
    return torch.where(high - low <= NEAR, (low + high) / 2, torch.nan)


def _blended(centre: Tensor, dim: int | list[int]) -> Tensor:
    """The mean along `dim`; NaN if a single place remains, since it then covers all places."""
    mean = _core(centre).nanmean(dim, keepdim=True)
    low, high = _bounds(mean)
    return torch.full_like(mean, torch.nan) if high - low <= NEAR else mean


def product(left: Places | None, right: Places | None, result: Tensor) -> Places | None:
    """A matrix product: a row has the common place of the left one's elements, a column that of the right one's.

    So the result of attention is at its query's place, for any keys. A row of several places, such as four merged
    neighbours, is at their mean.
    """
    sides = [(p, dim) for p, dim in ((left, -1), (right, -2)) if p is not None]
    ways = [(p, dim, _alike) for p, dim in sides] + [(*sides[0], _blended)] * (len(sides) == 1)
    centres, apart = [], 0.0
    for axis in (0, 1):
        out = NOWHERE
        for places, dim, way in ways:
            if (unknown := out.isnan()).any():
                found = way(places.centre[axis], dim)
                if way is _blended:
                    apart = max(apart, float((_core(places.centre[axis]) - found).abs().nan_to_num(0.0).max()))
                out = torch.where(unknown, found, out)
        centres.append(out.expand(result.shape))
    merged = together([p for p, _ in sides]).at(*centres)
    if len(sides) == 1:
        path = (*merged.path, next(_numbers)) if apart else merged.path
        return merged._replace(reach=pair(r + apart for r in merged.reach), path=path)
    query = sides[0][0]
    asked = query if not any(_alike(c, -1).isnan().any() for c in query.centre) else merged
    return merged._replace(reach=(torch.inf, torch.inf), path=asked.path)


def attended(query: Places, result: Tensor) -> Places:
    """Fused attention: the result is at its query's place."""
    return query.at(*(_alike(c, -1).expand(result.shape) for c in query.centre))._replace(reach=(torch.inf, torch.inf))


def reduced(places: Places, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Places | None:
    """A mean, sum or maximum along axes."""
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


def chosen(places: Places, indices: Sequence[Any], result: Any) -> Places | None:
    """Elements chosen along one axis by numbers that are not known, where all elements along it have one place."""
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    if len(axes) != 1 or indices[axes[0]].dim() != 1:
        return None
    alike = [_alike(centre, axes) for centre in places.centre]  # NaN where they differ
    if any(found.isnan().any() for found in (*alike, *places.centre)):
        return None
    return places.at(*(centre.expand(result.shape) for centre in alike))
