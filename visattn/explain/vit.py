"""Access to the attention of a Vision Transformer, visattn's or timm's.

Axis letters: B images, N = prefix + H W tokens, the grid's in reading order after the prefix (class token, distillation
token, registers), heads of a layer.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import Format
from torch import Tensor, nn
from torch.func import functional_call

from visattn.errors import InputError
from visattn.explain.reading import Act, overheard, uncompiled
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
    pool: Act | None


class Reading(NamedTuple):
    """A computation on the layers' attention while the model runs, for a single run. See `ViT.read_together`.

    Attributes:
        hear: called with each layer's number and attention.
        result: computes the result (B, …) from the finished run.
    """

    hear: Callable[[int, Act], None]
    result: Callable[[Logits], Tensor]


class ViT:
    """Any Vision Transformer whose layers attend over one grid of patches, visattn's or timm's.

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

    Raises:
        InputError: if the model is not such a network; the message gives the reason.
    """

    one_grid = True

    def __init__(self, model: nn.Module, name: str = "the model") -> None:
        self.model, self.name = model, name
        self._network = model = self._unwrapped(model)
        first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
        self.channels = None if first is None or "patch" not in _name_of(model, first) else first.in_channels
        if isinstance(model, VisionTransformer):
            self._grid_of = model.grid_of
            self.patch, self.prefix, self.classes = (model.patch, model.patch), 1, model.head.out_features
            self._rows, self._latent, self.channels = slice(0, 1), False, 3
            self._logits = model.plain_forward
        else:
            self._logits = model
            self._read_timm()
        self.depth = len(uncompiled(model.blocks))

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

    def _read_timm(self) -> None:
        """The properties of timm's Vision Transformers, regardless of their class."""
        model: Any = self._network
        self._check_softmax()
        embed, blocks = (uncompiled(getattr(model, part, None)) for part in ("patch_embed", "blocks"))
        if any("Window" in type(module).__name__ for module in model.modules()):
            raise self._refuse("it attends within windows, so no layer's map is one of the whole image")
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(embed, "dynamic_feat_size"):
            raise self._refuse("it has no row of transformer blocks over one grid of patches")
        if any(len(getattr(uncompiled(block), "attns", ())) > 1 for block in blocks):
            raise self._refuse("its blocks attend several times in parallel, so a layer has no one map")
        self._grid_of = lambda *size: tuple(embed.dynamic_feat_size(size))
        # A hybrid's patch is one of its convolutions' grid.
        ratio = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else embed.patch_size
        self.patch = tuple(ratio)
        self.prefix, self.classes = getattr(model, "num_prefix_tokens", 1), model.num_classes
        pooling = getattr(model, "global_pool", "token")
        patches = slice(0 if getattr(model, "pool_include_prefix", False) else self.prefix, None)
        if pooling not in ("token", "avg", "map"):
            raise self._refuse(f"its classes are pooled by '{pooling}', and 'token', 'avg' and 'map' can be followed")
        self._latent = pooling == "map"
        class_tokens = slice(0, 2 if hasattr(model, "head_dist") else 1)
        self._rows = {"token": class_tokens, "avg": patches, "map": slice(None)}[pooling]

    def _check_softmax(self) -> None:
        if any(
            "DiffAttention" in type(part).__name__ or hasattr(part, "lambda_q1") for part in self._network.modules()
        ):
            raise self._refuse("its attention is differential: what it weighs by is the difference of two softmaxes")

    def reads(self, size: tuple[int, int]) -> bool:
        """Whether a run on images of (h, w) pixels is read as it should be; none is computed, only shapes are."""
        named = (*self._network.named_parameters(), *self._network.named_buffers())
        tensors = {name: tensor.to("meta") for name, tensor in named}
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        probe = copy.copy(self)
        probe._logits = lambda images: functional_call(self._network, tensors, images)
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
        embed = uncompiled(getattr(self._network, "patch_embed", None))
        taken = getattr(embed, "img_size", None)
        if taken is not None and getattr(embed, "strict_img_size", False) and tuple(taken) != tuple(size):
            raise InputError(f"{self.name} takes images of {taken[1]}×{taken[0]} pixels, not {size[1]}×{size[0]}")
        if size[0] < self.patch[0] or size[1] < self.patch[1]:
            raise InputError(
                f"an input of {size[1]}×{size[0]} pixels is smaller than a patch of {self.name}, "
                f"{self.patch[1]}×{self.patch[0]}"
            )
        return self._grid_of(*size)

    def cells(self, size: tuple[int, int]) -> CellShift:
        """Receptive field centres of a map's cells for an input of (h, w) pixels, for `Geometry.cell_shift`.

        Pixels at the right and bottom that do not fill a patch are not seen; a hybrid's cells depend on its
        convolutions.

        Raises:
            InputError: if they cannot be derived, or as `grid`.
        """
        grid = self.grid(size)
        if isinstance(self._network, VisionTransformer):  # whole patches; its stem keeps cells on their own squares
            return Geometry.identity(size).cells(grid)
        try:
            return cell_centres(_Patches(uncompiled(self._network.patch_embed), grid), size, channels_last=True)
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

    def run(self, images: Tensor, hear: Callable[[int, Act], None]) -> Logits:
        """Run the model on normalised images (B, 3, h, w), in evaluation mode, its fused attention as it is.

        Args:
            images: on the model's device.
            hear: called with each layer's number and attention while the model runs.

        Raises:
            InputError: if a layer attends to anything but all tokens of each image.
        """
        if not isinstance(images, Tensor) or images.dim() != 4 or not images.is_floating_point():
            kind = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise InputError(f"{self.name} takes normalised images, floating-point (B, channels, h, w), not {kind}")
        if self.channels not in (None, images.shape[1]):
            raise InputError(f"{self.name} takes images with {self.channels} channels, not {images.shape[1]}")
        height, width = images.shape[-2:]
        return self._run(images, self.grid((height, width)), hear)

    def _run(self, images: Tensor, grid: tuple[int, int], hear: Callable[[int, Act], None]) -> Logits:
        tokens, count, pool = self.prefix + grid[0] * grid[1], 0, None

        def heard(look: Act) -> None:
            nonlocal count, pool
            if count == self.depth and self._latent and look.shape[2] == 1 and pool is None:
                pool = look
                return
            shape = look.shape
            if count == self.depth:
                raise self._refuse(f"it attends more often than its {self.depth} blocks")
            if (shape[0], *shape[2:]) != (len(images), tokens, tokens):
                raise self._refuse(
                    f"its attention number {count} has {shape[2]} queries and {shape[3]} keys in {shape[0]} "
                    f"pieces, where {len(images)} images have {tokens} tokens each"
                )
            count += 1
            hear(count - 1, look)

        try:
            with evaluating(self._network), overheard(heard):
                logits = self._logits(images)
        except AssertionError as error:  # timm's checks of sizes
            raise InputError(f"{self.name} does not take images of {tuple(images.shape)}: {error}") from error
        if count != self.depth or self._latent != (pool is not None):
            raise self._refuse(
                f"of its {self.depth} blocks {count} attend through PyTorch's scaled_dot_product_attention"
            )
        return Logits(logits, grid, pool)

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

        def hear(layer: int, look: Act) -> None:
            if layer in chosen:
                kept[layer] = look.weights(heads=self._heads(heads, look))

        self.run(images, hear)
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

        def hear(layer: int, look: Act) -> None:
            if layer in chosen:
                rows = look.weights(self._rows, self._heads(heads, look))
                # The mean is the row, unless the latent query, which comes last, weights the rows.
                kept[layer] = rows if self._latent else rows.mean(dim=2, keepdim=True)

        return Reading(hear, lambda seen: torch.stack([self._read(kept[layer], seen) for layer in chosen], dim=1))

    @torch.no_grad()
    def read_together(self, images: Tensor, readings: Sequence[Reading]) -> tuple[Logits, list[Tensor]]:
        """Run the model once on normalised images (B, 3, h, w); returns the run and the result of each reading."""

        def hear(layer: int, look: Act) -> None:
            for reading in readings:
                reading.hear(layer, look)

        seen = self.run(images, hear)
        return seen, [reading.result(seen) for reading in readings]

    def _heads(self, heads: Sequence[int] | None, look: Act) -> list[int] | slice:
        if heads is None:
            return slice(None)
        count = look.shape[1]
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
        looks: list[Act] = []

        def hear(layer: int, look: Act) -> None:
            look.out.requires_grad_()  # where all parameters are frozen it does not yet
            looks.append(look)

        with torch.inference_mode(False), torch.enable_grad():
            seen = self.run(images.detach().clone(), hear)
            chosen = total_score(seen.logits, checked_targets(seen.logits, targets, self.name))
            outs = [look.out for look in (*looks, *([seen.pool] if seen.pool else []))]
            gradients = torch.autograd.grad(chosen, outs)
        detached = Logits(seen.logits.detach(), seen.grid, seen.pool)
        return Judged(detached, list(zip(looks, gradients, strict=False)), gradients[-1] if seen.pool else None)


class _Patches(nn.Module):
    """The patch embedding of timm's Vision Transformers, as a feature map (1, H, W, D)."""

    def __init__(self, embed: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.embed, self.grid = embed, grid

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embed(pixels)
        if tokens.dim() == 4 and Format(getattr(self.embed, "output_fmt", "NCHW")) is Format.NCHW:
            return tokens.permute(0, 2, 3, 1)
        return tokens if tokens.dim() == 4 else tokens.unflatten(1, self.grid)


def _name_of(model: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is part)


class Judged(NamedTuple):
    """A run, with gradients for a class.

    Attributes:
        seen: the run.
        layers: each layer's attention, and the gradient of the class logit by its output; first layer first.
        of_pool: the gradient by the output of `seen.pool`; None if there is none.
    """

    seen: Logits
    layers: list[tuple[Act, Tensor]]
    of_pool: Tensor | None
