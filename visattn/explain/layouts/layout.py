"""What has to be known of a network before its attention can be read as maps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Interface(NamedTuple):
    """How a network of some library is run on images alone.

    Attributes:
        run: takes the network, or a function with its signature, and normalised images (B, channels, h, w); returns
            logits (B, classes), or features (B, …) if the model has no classes.
        classes: number of classes; 0 where the model gives features.
        size: (h, w) of the images that the network was made for.
        channels: of images; None where it is not known.
        class_tokens: number of tokens before all others that classes are read from; 0 where they are read otherwise.
    """

    run: Callable[[Callable[..., Any], Tensor], Tensor]
    classes: int
    size: tuple[int, int]
    channels: int | None = None
    class_tokens: int = 0


class Layout(NamedTuple):
    """How the layers of a network attend over one grid of patches.

    Attributes:
        depth: number of layers.
        patch: (h, w) of a patch, in pixels.
        prefix: number of tokens before those of the grid.
        rows: the tokens that classes are read from; all, if a latent query attends to them.
        grid: (h, w) of an image to (H, W) of its patches.
        embedding: a grid to a module from images (1, channels, h, w) to features (1, H, W, D), whose places are those
            of the patches; None where patches are squares that divide the image evenly.
        latent: whether classes are read by a latent query that attends to the last layer's tokens.
        unread: whether such a query attends, and classes are not read from it.
        fixed: (h, w) of the only images that the network takes; None where it takes others, too.
        blocks: the layers' modules, whose outputs are all tokens (B, N, D).
        registers: how many of the tokens before the grid's are registers; they are the last of them.
        token_head: a token as the last block gives it on, (B, D), to logits or features (B, …), by the last norm and
            the head; None where the head takes no single token.
        signed: whether weights may be negative, as those of differential attention.
    """

    depth: int
    patch: tuple[int, int]
    prefix: int
    rows: slice
    grid: Callable[[int, int], tuple[int, int]]
    embedding: Callable[[tuple[int, int]], nn.Module] | None
    latent: bool = False
    unread: bool = False
    fixed: tuple[int, int] | None = None
    blocks: Sequence[nn.Module] = ()
    registers: int = 0
    token_head: Callable[[Tensor], Tensor] | None = None
    signed: bool = False


class UnreadableError(Exception):
    """Why the maps of a network cannot be read, as the rest of a sentence."""


class ChannelsLast(nn.Module):
    """A convolution's features (1, D, H, W) as (1, H, W, D)."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels).permute(0, 2, 3, 1)


def square_patches(convolution: nn.Conv2d) -> dict[str, Any]:
    """The grid and the embedding of a `Layout` whose patches come from one convolution, pixels to tokens."""
    (top, left), size = convolution.stride, convolution.kernel_size
    if convolution.padding not in ((0, 0), "valid") or tuple(size) != (top, left):
        raise UnreadableError("its patches overlap or are padded")
    return {"grid": lambda h, w: (h // top, w // left), "embedding": lambda grid: ChannelsLast(convolution)}
