"""Transformers whose layers attend within windows, to pooled keys, on several grids, or from a later class token.

The place of each key in the image does not come from a table of architectures. The network runs once on meta tensors,
and every element is tracked from the pixels on (`visattn.models.receptive_field`), through windows, shifts, pooling and
any other reordering of tokens. The weights of a run are then added up at the places of their keys.

Axis letters: B images, P pieces of an image (windows), N queries, M keys, H W a grid.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.reading import intercepted
from visattn.explain.vit import Judged, Logits, Reading, ViT
from visattn.images import CellShift
from visattn.images.geometry import pair
from visattn.models.mode import evaluating
from visattn.models.places import NEAR
from visattn.models.receptive_field import followed

AT_ONCE = 2**26  # weights computed at once, where a layer's map is the mean of many rows: 256 MB
Axis = tuple[float, float, int]  # the first place in pixels, the pitch, and how many


class Layer(NamedTuple):
    """The places of a layer's keys.

    Attributes:
        shape: (P, heads, N, M).
        cell: (P, M) int64, the number of each key's cell in reading order; -1 for keys of no place, such as a class
            token's and padding.
        axes: of the grid, vertical and horizontal.
        rows: (P, N) bool, the queries that the layer's map is the mean of.
        queries: (P, N) int64, the number of each query's cell, as `cell`.
        query_axes: of the queries' grid; where none of them has a place, those of the keys'.
    """

    shape: tuple[int, int, int, int]
    cell: Tensor
    axes: tuple[Axis, Axis]
    rows: Tensor
    queries: Tensor
    query_axes: tuple[Axis, Axis]

    @property
    def unplaced(self) -> Tensor:
        """(M,) bool, the keys before the first with a place, where the image is not cut into pieces: class tokens."""
        return _unplaced(self.cell)

    def slots(self, cell: Tensor, cells: int, tokens: int) -> Tensor:
        """Cells (P, N) of queries or keys, with class tokens after all cells, and what is neither after those.

        Args:
            cell: numbers, -1 for what has no place.
            cells: how many the grid has.
            tokens: places for class tokens.
        """
        token = cells + torch.arange(cell.shape[1])
        token = torch.where(_unplaced(cell) & (token < cells + tokens), token, cells + tokens)
        return torch.where(cell >= 0, cell, token)

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.axes[0][2], self.axes[1][2]


def _unplaced(cell: Tensor) -> Tensor:
    """Of cells (P, M), those before the first with a place, (M,) bool; none where there are several pieces."""
    return (cell[0] >= 0).cumsum(dim=0) == 0 if len(cell) == 1 else torch.zeros_like(cell[0], dtype=torch.bool)


class Layered(ViT):
    """A transformer of any library, from images to logits, that `ViT` cannot read as layers over one grid.

    Its layers are its attention calls over places of the image, in their order; those over channels are left out. A
    layer's map is what its class token attends to, where classes are read from one, and else the mean over all queries
    that have a place: what is attended to on average, in all windows together. Keys at the same place add up. Nothing
    is rescaled: a map sums to 1, less what goes to class tokens and padding. Where layers have several grids, maps are
    on the finest, and a coarser cell's weight is spread evenly over the finest cells nearest to it. A model without
    timm's `global_pool` is taken to read its classes from the first token, where that has no place.

    Args:
        model: the network, from normalised images (B, 3, h, w) to logits.
        name: what messages call it.
        size: (h, w) of its images, the only one it then takes; None is that of the model's configuration.

    Attributes: those of `ViT`; `prefix` is 0.

    Raises:
        InputError: where no layer attends to places, or these cannot be told; the sentence says why.
    """

    one_grid = False

    def __init__(self, model: nn.Module, name: str = "the model", size: tuple[int, int] | None = None) -> None:
        self._open(model, name)
        self._latent, self._rows, self.prefix = False, slice(None), 0
        self.size = pair(size or self._interface.size)
        self._calls = self._follow()
        self._layers = [call for call in self._calls if call is not None]
        if not self._layers:
            raise self._refuse(self._why)
        self.depth = len(self._layers)
        self._finest = max(self._layers, key=lambda layer: layer.grid[0] * layer.grid[1])
        self.patch = pair(max(1, round(pitch)) for _, pitch, _ in self._finest.axes)

    def _follow(self) -> list[Layer | None]:
        """Each attention call of a run on meta tensors; None where it is not over places."""
        found: list[AttentionCall] = []
        try:
            with intercepted(found.append), _Convolutions(found) as convolutions:
                tracing, _ = followed(self._network, self.size, self._interface.run)
        except Exception as error:  # whatever a network trips over that was not made for this size, or to be followed
            raise self._refuse(
                f"it cannot be followed on images of {self.size[1]}×{self.size[0]} pixels "
                f"({type(error).__name__}: {' '.join(str(error).split())[:150]})"
            ) from error
        lost = tracing.lost
        self._why = "none of its layers weighs places by a softmax for each query"
        if found and lost:
            self._why = f"where its tokens look cannot be followed through {', '.join(lost)}"
        elif found:
            self._why = "it attends over channels, which gives no map of the image"
        classes = self._interface.class_tokens
        layers: list[Layer | None] = []
        for call in found:
            keys, queries = tracing.of(call.value), tracing.of(call.by_query)
            grid = None if keys is None else _grid_of(pair(keys.centre), keys.pitch)
            if grid is None:
                layers.append(None)
                continue
            cell, axes = grid
            pieces, _, count, _ = call.shape
            asked = None if queries is None else _grid_of(pair(queries.centre), queries.pitch)
            asked_cell, asked_axes = (torch.full((pieces, count), -1), axes) if asked is None else asked
            placed = torch.zeros(pieces, count, dtype=torch.bool)
            if queries is not None:
                placed = ~torch.stack([_shared(centre) for centre in queries.centre]).isnan().any(0)
            rows = placed
            if not placed.any():
                rows = torch.ones_like(placed)
            elif classes and pieces == 1 and not placed[0, :classes].any():
                rows = (torch.arange(count) < classes).expand(1, -1)
            layers.append(Layer(call.shape, cell, axes, rows, asked_cell, asked_axes))
        self._convolved = convolutions.between
        return layers

    @property
    def why_no_rollout(self) -> str | None:
        """Why rollout is not defined for the model, or None if it is."""
        if None in self._calls:
            return "some of its layers attend to other things than places of the image"
        if self._convolved:
            return "convolutions between its layers mix neighbouring places, which attention does not show"
        if any(len(getattr(part, "attns", ())) > 1 for part in self._network.modules()):
            return "its blocks attend several times in parallel"
        if any("AttentionDownsample" in type(part).__name__ for part in self._network.modules()):
            return "some of its attention replaces tokens, and adds nothing to them"
        if any(hasattr(part, "proj_w") for part in self._network.modules()):
            return "its heads are mixed after the softmax, so that weights may be negative"
        asked = [tuple(axis[2] for axis in layer.query_axes) for layer in self._layers]
        before = [self._finest.grid, *asked[:-1]]
        seen = [layer.grid for layer in self._layers]
        falls = all(a <= c and b <= d for (a, b), (c, d) in zip((*asked, *seen), (*before, *before), strict=True))
        return None if len(asked) > 1 and falls else "its grids do not go from finer to coarser"

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the finest layer's grid, for images of (h, w) pixels.

        Raises:
            InputError: where the model was made for another size.
        """
        if tuple(size) != self.size:
            raise InputError(
                f"{self.name} takes images of {self.size[1]}×{self.size[0]} pixels, and not of {size[1]}×{size[0]}"
            )
        return self._finest.grid

    def cells(self, size: tuple[int, int]) -> CellShift:
        """Where the cells of a map look in an input of (h, w) pixels, for `Geometry.cell_shift`."""
        self.grid(size)
        shift = pair(start - pitch / 2 for start, pitch, _ in self._finest.axes)
        stride = pair(pitch for _, pitch, _ in self._finest.axes)
        return CellShift(shift, stride, ((0.0, 0.0), pair(map(float, self.size))))

    def _run(self, images: Tensor, grid: tuple[int, int], on_call: Callable[[int, AttentionCall], None]) -> Logits:
        count = 0
        numbers = {n: layer for layer, n in enumerate(n for n, call in enumerate(self._calls) if call is not None)}

        def counted(call: AttentionCall) -> None:
            nonlocal count
            number, expected = numbers.get(count), self._calls[count] if count < len(self._calls) else None
            count += 1
            if expected is not None and number is not None:
                pieces, *rest = expected.shape
                if call.shape != (len(images) * pieces, *rest):
                    raise self._refuse(f"its attention number {count - 1} has another shape than on meta tensors")
                on_call(number, call)

        with evaluating(self._network), intercepted(counted):
            logits = self._logits(images)
        if count != len(self._calls):
            raise self._refuse(f"it attends {count} times, and {len(self._calls)} times on meta tensors")
        return Logits(logits, grid, None)

    def read(self, matrix: Tensor, seen: Logits) -> Tensor:
        """No matrix of all tokens exists here.

        Raises:
            InputError: always.
        """
        self._refuse_method("a map of several layers", "they do not share one grid")

    def received(self, layer: int, call: AttentionCall, heads: Sequence[int] | slice = slice(None)) -> Tensor:
        """A layer's map: weights (B P, heads, N, M) to (B, heads, H, W) of its own grid; see the class."""
        place = self._layers[layer]
        pieces, _, _, keys = place.shape
        asked = place.rows.any(dim=0).nonzero().flatten().tolist()
        received: Any = 0.0
        count = max(1, AT_ONCE // (call.shape[0] * call.shape[1] * keys))
        for first in range(asked[0], asked[-1] + 1, count):
            rows = slice(first, min(first + count, asked[-1] + 1))
            weights = call.weights(rows, heads).unflatten(0, (-1, pieces))  # (B, P, heads, rows, M)
            received = received + torch.einsum("bphnm,pn->bphm", weights, place.rows[:, rows].to(weights))
        received = received / place.rows.sum()
        cell = place.cell.to(received.device)
        height, width = place.grid
        # Keys of no place are added to a last cell, which is left out.
        out = received.new_zeros(*received.shape[::2], height * width + 1)
        index = torch.where(cell < 0, height * width, cell).flatten()
        out.index_add_(2, index, received.transpose(1, 2).flatten(2))
        return out[..., :-1].unflatten(-1, (height, width))

    def _on_finest(self, layer: int, maps: Tensor) -> Tensor:
        """Maps (…, H, W) of a layer on the finest layer's grid, each cell's weight evenly among those nearest to it."""
        return spread(maps, self._layers[layer].axes, self._finest.axes)

    def reading_rows(self, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Reading:
        """Maps of layers on the finest grid, of a run that others read, too: (B, layers, heads, H, W), float32.

        Where the layers have different numbers of heads, and none are chosen, the mean of the heads is in their place.
        """
        chosen = [self.layer(number) for number in (range(self.depth) if layers is None else layers)]
        alike = heads is not None or len({self._layers[layer].shape[1] for layer in chosen}) == 1
        kept: dict[int, Tensor] = {}

        def on_call(layer: int, call: AttentionCall) -> None:
            if layer in chosen:
                maps = self._on_finest(layer, self.received(layer, call, self._heads(heads, call)))
                kept[layer] = maps if alike else maps.mean(dim=1, keepdim=True)

        return Reading(on_call, lambda seen: torch.stack([kept[layer] for layer in chosen], dim=1))

    def require(self, method: str) -> None:
        """Refuse what multiplies layers, but rollout where it is defined.

        Raises:
            InputError: for all but raw attention and rollout; for rollout, if attention is not all that mixes places.
        """
        if method != "attention rollout":
            self._refuse_method(method, "its layers do not all attend from one set of tokens to the same")
        if self.why_no_rollout is not None:
            self._refuse_method(method, self.why_no_rollout)

    def _refuse_method(self, method: str, reason: str) -> NoReturn:
        raise InputError(f"{method} is not defined for {self.name}, since {reason}; choose raw, which reads one layer")

    def judged(self, images: Tensor, targets: Tensor | None = None) -> Judged:
        """As `require`."""
        self._refuse_method("a method that follows gradients through all layers", "they do not share one grid")


def as_read(model: nn.Module, name: str = "the model", size: tuple[int, int] | None = None) -> ViT:
    """A transformer as `ViT`, or, where its layers do not share one grid of patches, as `Layered`.

    Args:
        model: as that of either.
        name: what messages call it.
        size: (h, w) of the images that it will be given; None is that of the model's configuration.

    Raises:
        InputError: where it is neither; the sentence says why.
    """
    try:
        vit = ViT(model, name)
    except InputError:
        return Layered(model, name, size)
    taken = pair(size or vit._interface.size)
    vit.grid(taken)
    return vit if vit.reads(taken) else Layered(model, name, size)


def spread(maps: Tensor, own: tuple[Axis, Axis], finer: tuple[Axis, Axis]) -> Tensor:
    """Maps (…, H, W) on a finer grid, each cell's weight evenly among those nearest to it."""
    for dim, coarse, fine in zip((-2, -1), own, finer, strict=True):
        if coarse == fine:
            continue
        centres = fine[0] + fine[1] * torch.arange(fine[2], dtype=torch.float64)
        nearest = ((centres - coarse[0]) / coarse[1]).add(0.5).floor().long().clamp(0, coarse[2] - 1).to(maps.device)
        shares = torch.bincount(nearest, minlength=coarse[2])[nearest].to(maps)
        maps = maps.index_select(dim, nearest) / (shares.unsqueeze(-1) if dim == -2 else shares)
    return maps


class _Convolutions(TorchFunctionMode):
    """Notes whether convolutions that mix neighbours run between attention calls.

    Args:
        calls: a list that grows by each attention call.
    """

    def __init__(self, calls: list[AttentionCall]) -> None:
        super().__init__()
        self._calls = calls
        self._at: list[int] = []  # how many calls came before each

    @property
    def between(self) -> bool:
        """Whether one ran after an attention call and before another."""
        return any(0 < number < len(self._calls) for number in self._at)

    def __torch_function__(
        self, function: Callable[..., Any], kinds: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("conv1d", "conv2d"):
            weight, stride = args[1], kwargs.get("stride", args[3] if len(args) > 3 else 1)
            strides = (stride,) * (weight.dim() - 2) if isinstance(stride, int) else tuple(stride)
            if any(side > step for side, step in zip(weight.shape[2:], strides, strict=True)):
                self._at.append(len(self._calls))
        return function(*args, **kwargs)


def _shared(centre: Tensor) -> Tensor:
    """Of a place of each element (P, heads, N, d), that of each row (P, N); NaN where elements differ."""
    low, high = (f(f(centre, 3), 1) for f in (torch.amin, torch.amax))  # NaN where any is
    return torch.where(high - low <= NEAR, (low + high) / 2, torch.nan)


def _grid_of(centres: tuple[Tensor, Tensor], pitch: tuple[float, float]) -> tuple[Tensor, tuple[Axis, Axis]] | None:
    """The cells (P, M) of keys at these places (P, heads, M, d), and the grid's axes; None where they lie on none."""
    numbers, axes = [], []
    for centre, last_known in zip(centres, pitch, strict=True):
        place = _shared(centre)
        known = place[~place.isnan()]
        if not len(known):
            return None
        values = known.unique()
        values = values[torch.cat([torch.ones(1, dtype=torch.bool), values.diff() > NEAR])]
        step = float(values.diff().min()) if len(values) > 1 else last_known
        start = float(values[0])
        number = (place - start) / step
        if (number - number.round()).abs().nan_to_num(0.0).max() * step > NEAR:
            return None
        numbers.append(number.round().nan_to_num(-1.0).long())
        axes.append((start, step, int(numbers[-1].max()) + 1))
    nowhere = torch.minimum(*numbers) < 0
    return torch.where(nowhere, -1, numbers[0] * axes[1][2] + numbers[1]), pair(axes)
