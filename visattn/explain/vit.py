"""Access to the attention of a Vision Transformer, visattn's or that of another library.

Axis letters: B images, N = prefix + H W tokens, the grid's in reading order after the prefix (class token, distillation
token, registers), heads of a layer.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from visattn.errors import InputError
from visattn.explain.calls import AttentionCall
from visattn.explain.layouts import UnreadableError, image_part, interface_of, layout_of
from visattn.explain.reading import intercepted, uncompiled
from visattn.explain.targets import checked_targets, require_classes, total_score
from visattn.images import CellShift, Geometry
from visattn.models import VisionTransformer
from visattn.models.mode import evaluating
from visattn.models.receptive_field import UnknownPlaceError, cell_centres


class Logits(NamedTuple):
    """Outputs of a run of the model.

    Attributes:
        logits: (B, classes), or features if the model has no classes.
        grid: (H, W) of the patches.
        pool: the model's attention pooling over the tokens, one query per image; None if it has none.
    """

    logits: Tensor
    grid: tuple[int, int]
    pool: AttentionCall | None


class Reading(NamedTuple):
    """A computation on the layers' attention while the model runs, for a single run. See `ViT.read_together`.

    Attributes:
        on_call: called with each layer's number and attention.
        result: computes the result (B, …) from the finished run.
    """

    on_call: Callable[[int, AttentionCall], None]
    result: Callable[[Logits], Tensor]


class ViT:
    """Any Vision Transformer whose layers attend over one grid of patches, visattn's or that of another library.

    Known are timm, transformers, torchvision and OpenCLIP (`visattn.explain.layouts`).

    Classes are predicted from some of the last layer's tokens. N × N weights become a map of H × W by taking their
    rows: the class token's; the mean of those of class and distillation token; the mean of the patches' rows if patches
    are averaged; or their mean weighted by the attention of a latent query (averaged over its heads). The patches'
    entries of that row are the map; nothing is rescaled.

    Args:
        model: the network, from normalised images (B, 3, h, w) to logits; if it is compiled or wrapped for several
            devices, the inner module is used.
        name: name for messages.

    Attributes:
        model: as given.
        depth: number of layers, counted from 0; -1 is the last.
        patch: (h, w) of a patch, in pixels.
        prefix: number of tokens before those of the grid.
        classes: number of classes; 0 where the model gives features.
        channels: of images; None where it is not known.
        one_grid: whether all layers attend from one set of tokens to the same, so that layers can be multiplied.
        blocks: the layers' modules, whose outputs are all tokens (B, N, D); empty if they are not known.
        registers: number of registers, the last of the tokens before those of the grid.
        token_head: a token as the last block gives it on, (B, D), to logits (B, classes) or features; None where the
            head takes no single token.
        signed: whether weights may be negative: those of differential attention, A₁ − λ A₂.

    Raises:
        InputError: if the model is not such a network; the message gives the reason.
    """

    one_grid = True
    blocks: Sequence[nn.Module] = ()
    registers = 0
    token_head: Callable[[Tensor], Tensor] | None = None
    signed = False

    def __init__(self, model: nn.Module, name: str = "the model") -> None:
        self._open(model, name)
        try:
            self._layout = layout = layout_of(self._network)
        except UnreadableError as error:
            raise self._refuse(str(error)) from error
        self.depth, self.patch, self.prefix = layout.depth, layout.patch, layout.prefix
        self._rows, self._latent = layout.rows, layout.latent
        self.blocks, self.registers, self.token_head = layout.blocks, layout.registers, layout.token_head
        self.signed = layout.signed

    def _open(self, model: nn.Module, name: str) -> None:
        """Read how a network is run; see `Interface`."""
        self.model, self.name = model, name
        unwrapped = self._unwrapped(model)
        try:
            self._network = network = image_part(unwrapped)
            self._interface = interface_of(network)
        except UnreadableError as error:
            raise self._refuse(str(error)) from error
        self._called = model if network is unwrapped else network
        own = network.plain_forward if isinstance(network, VisionTransformer) else network
        self._logits = functools.partial(self._interface.run, own)
        self.classes, self.channels = self._interface.classes, self._interface.channels

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, h, w), or features, as fast as the model computes them."""
        return self._interface.run(self._called, images)

    def _unwrapped(self, model: nn.Module) -> nn.Module:
        """The inner network of a compiled or wrapped one."""
        while True:
            if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
                model = model.module
            elif uncompiled(model) is not model:
                model = uncompiled(model)
            else:
                break
        # Traced programs no longer contain the calls that maps are read from.
        traced = torch.jit.ScriptModule | torch.jit.ScriptFunction | torch.fx.GraphModule
        if isinstance(model, traced) or any(isinstance(part, traced) for part in getattr(model, "modules", list)()):
            raise self._refuse("it is a traced or exported program; give the module that it was made from")
        if not isinstance(model, nn.Module):
            raise self._refuse(f"it is {type(model).__name__}, and no torch.nn.Module; give the module itself")
        return model

    def reads(self, size: tuple[int, int]) -> bool:
        """Whether a run on images of (h, w) pixels is read as it should be; none is computed, only shapes are."""
        if isinstance(self._network, VisionTransformer):
            return True  # its plain forward, which is read, is not the one that a functional call runs
        named = (*self._network.named_parameters(), *self._network.named_buffers())
        tensors = {name: tensor.to("meta") for name, tensor in named}
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        probe = copy.copy(self)
        probe._logits = functools.partial(
            self._interface.run, lambda *args, **options: functional_call(self._network, tensors, args, options)
        )
        with torch.no_grad():
            try:
                probe.run(torch.empty(1, self.channels or 3, *size, device="meta", dtype=dtype), lambda *_: None)
            except InputError:
                return False
            except (RuntimeError, NotImplementedError):  # what cannot run without numbers is not known to be misread
                return True
        return True

    def require(self, method: str) -> None:
        """Nothing: every method is defined where all layers share one grid. A subclass may raise an `InputError`."""

    def _refuse(self, reason: str) -> InputError:
        return InputError(
            f"{self.name} is not a Vision Transformer with readable maps: {reason}; choose one such as "
            "vit_small_patch16_224"
        )

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the patches of an image of (h, w) pixels.

        Raises:
            InputError: if it is smaller than a patch, or the model needs another size.
        """
        fixed = self._layout.fixed
        if fixed is not None and fixed != tuple(size):
            raise InputError(f"{self.name} takes images of {fixed[1]}×{fixed[0]} pixels, not {size[1]}×{size[0]}")
        if size[0] < self.patch[0] or size[1] < self.patch[1]:
            raise InputError(
                f"an input of {size[1]}×{size[0]} pixels is smaller than a patch of {self.name}, "
                f"{self.patch[1]}×{self.patch[0]}"
            )
        return self._layout.grid(*size)

    def cells(self, size: tuple[int, int]) -> CellShift:
        """Receptive field centres of a map's cells for an input of (h, w) pixels, for `Geometry.cell_shift`.

        Pixels at the right and bottom that do not fill a patch are not seen; a hybrid's cells depend on its
        convolutions.

        Raises:
            InputError: if they cannot be derived, or as `grid`.
        """
        grid = self.grid(size)
        if self._layout.embedding is None:
            return Geometry.identity(size).cells(grid)
        try:
            return cell_centres(self._layout.embedding(grid), size, channels_last=True)
        except UnknownPlaceError as error:
            raise InputError(f"the maps of {self.name} cannot be overlaid on an image: {error}") from error

    def layer(self, number: int) -> int:
        """A layer's number from 0.

        Raises:
            InputError: if there is no such layer.
        """
        if not -self.depth <= number < self.depth:
            raise InputError(
                f"{self.name} has no layer {number}; its {self.depth} layers are numbered 0 to {self.depth - 1}, "
                "and -1 is the last"
            )
        return number % self.depth

    def run(self, images: Tensor, on_call: Callable[[int, AttentionCall], None]) -> Logits:
        """Run the model on normalised images (B, 3, h, w), in evaluation mode, its fused attention as it is.

        Args:
            images: on the model's device.
            on_call: called with each layer's number and attention while the model runs.

        Raises:
            InputError: if a layer attends to anything but all tokens of each image.
        """
        if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
            kind = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"{self.name} takes normalised images, floating-point (B, channels, h, w), not {kind}")
        if self.channels not in (None, images.shape[1]):
            raise InputError(f"{self.name} takes images with {self.channels} channels, not {images.shape[1]}")
        height, width = images.shape[-2:]
        return self._run(images, self.grid((height, width)), on_call)

    def _run(self, images: Tensor, grid: tuple[int, int], on_call: Callable[[int, AttentionCall], None]) -> Logits:
        tokens, count, pool = self.prefix + grid[0] * grid[1], 0, None

        def counted(call: AttentionCall) -> None:
            nonlocal count, pool
            pooling = self._latent or self._layout.unread
            if count == self.depth and pooling and call.shape[2] == 1 and pool is None:
                pool = call
                return
            shape = call.shape
            if count == self.depth:
                raise self._refuse(f"it attends more often than its {self.depth} blocks")
            if (shape[0], *shape[2:]) != (len(images), tokens, tokens):
                raise self._refuse(
                    f"its attention number {count} has {shape[2]} queries and {shape[3]} keys in {shape[0]} "
                    f"pieces, where {len(images)} images have {tokens} tokens each"
                )
            count += 1
            on_call(count - 1, call)

        try:
            with evaluating(self._network), intercepted(counted):
                logits = self._logits(images)
        except AssertionError as error:  # a library's checks of sizes
            raise InputError(f"{self.name} does not take images of {tuple(images.shape)}: {error}") from error
        if count != self.depth or (self._latent and pool is None):
            raise self._refuse(
                f"of its {self.depth} blocks {count} attend through PyTorch's scaled_dot_product_attention"
            )
        return Logits(logits, grid, pool if self._latent else None)

    def read(self, matrix: Tensor, seen: Logits) -> Tensor:
        """The patches' entries in the rows of the class tokens: (B, …, N, N), rows over tokens, to (B, …, H, W)."""
        return self._read(matrix[..., self._rows, :], seen)

    def _read(self, rows: Tensor, seen: Logits) -> Tensor:
        """`read`, given only the rows that it needs."""
        if seen.pool is None:
            row = rows.mean(dim=-2)
        else:
            share = seen.pool.weights().mean(dim=1)  # (B, 1, n), of the last n tokens: all, or all but the prefix
            rows = rows[..., -share.shape[-1] :, :]
            row = (share.view(len(share), *(1,) * (rows.dim() - 3), *share.shape[1:]) @ rows).squeeze(-2)
        return row[..., self.prefix :].unflatten(-1, seen.grid)

    @torch.no_grad()
    def maps(
        self, images: Tensor, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> list[Tensor]:
        """All attention weights, of each layer (B, heads, N, N), float32; rows sum to 1.

        Memory use is that of the result; only the layers and heads requested are computed.

        Args:
            images: normalised (B, 3, h, w).
            layers: layer numbers, in this order; None for all.
            heads: head numbers; None for all.

        Raises:
            InputError: if there is no such layer or head.
        """
        chosen = [self.layer(number) for number in (range(self.depth) if layers is None else layers)]
        kept: dict[int, Tensor] = {}

        def on_call(layer: int, call: AttentionCall) -> None:
            if layer in chosen:
                kept[layer] = call.weights(heads=self._heads(heads, call))

        self.run(images, on_call)
        return [kept[layer] for layer in chosen]

    @torch.no_grad()
    def rows(self, images: Tensor, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Tensor:
        """Attention of the class tokens to the patches: (B, layers, heads, H, W), float32.

        As `read` of `maps`, but if a class token is used, only its row is computed.
        """
        return self.read_together(images, [self.reading_rows(layers, heads)])[1][0]

    def reading_rows(self, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Reading:
        """`rows`, for a run shared with other readings."""
        chosen = [self.layer(number) for number in (range(self.depth) if layers is None else layers)]
        kept: dict[int, Tensor] = {}

        def on_call(layer: int, call: AttentionCall) -> None:
            if layer in chosen:
                rows = call.weights(self._rows, self._heads(heads, call))
                # The mean is the row, unless the latent query, which comes last, weights the rows.
                kept[layer] = rows if self._latent else rows.mean(dim=2, keepdim=True)

        return Reading(on_call, lambda seen: torch.stack([self._read(kept[layer], seen) for layer in chosen], dim=1))

    @torch.no_grad()
    def read_together(self, images: Tensor, readings: Sequence[Reading]) -> tuple[Logits, list[Tensor]]:
        """Run the model once on normalised images (B, 3, h, w); returns the run and the result of each reading.

        Under autocast the model runs in its type, and the readings compute in float32.
        """

        def on_call(layer: int, call: AttentionCall) -> None:
            with torch.autocast(call.value.device.type, enabled=False):
                for reading in readings:
                    reading.on_call(layer, call)

        seen = self.run(images, on_call)
        with torch.autocast(seen.logits.device.type, enabled=False):
            return seen, [reading.result(seen) for reading in readings]

    def _heads(self, heads: Sequence[int] | None, call: AttentionCall) -> list[int] | slice:
        if heads is None:
            return slice(None)
        count = call.shape[1]
        for head in heads:
            if not 0 <= head < count:
                raise InputError(f"{self.name} has no head {head}; its {count} heads are numbered 0 to {count - 1}")
        return list(heads)

    def judged(self, images: Tensor, targets: Tensor | None = None) -> "Judged":
        """Run the model and compute the gradient of a class logit with respect to each layer's attention output.

        Args:
            images: normalised (B, 3, h, w).
            targets: (B,) the class of each image; None uses the likeliest.

        Raises:
            InputError: if the model has no classes, or no such class.
        """
        require_classes(self.classes, self.name)
        calls: list[AttentionCall] = []

        def on_call(layer: int, call: AttentionCall) -> None:
            call.out.requires_grad_()  # where all parameters are frozen it does not yet
            calls.append(call)

        with torch.inference_mode(False), torch.enable_grad():
            seen = self.run(images.detach().clone(), on_call)
            chosen = total_score(seen.logits, checked_targets(seen.logits, targets, self.name))
            outs = [call.out for call in (*calls, *([seen.pool] if seen.pool else []))]
            gradients = torch.autograd.grad(chosen, outs)
        detached = Logits(seen.logits.detach(), seen.grid, seen.pool)
        return Judged(detached, list(zip(calls, gradients, strict=False)), gradients[-1] if seen.pool else None)


class Judged(NamedTuple):
    """A run, with gradients for a class.

    Attributes:
        seen: the run.
        layers: each layer's attention, and the gradient of the class logit by its output; first layer first.
        of_pool: the gradient by the output of `seen.pool`; None if there is none.
    """

    seen: Logits
    layers: list[tuple[AttentionCall, Tensor]]
    of_pool: Tensor | None
