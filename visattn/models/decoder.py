"""The interface of caption decoders, on which decoding, objectives and metrics depend."""

from typing import Any

from torch import Tensor, nn

from visattn.attention import Glimpse, Memory


class Decoder(nn.Module):
    """Words from an image's annotation vectors.

    `forward` and `step` are two ways through the same function: `forward` for training, all words at once; `step` for
    decoding, a word at a time. A test holds them together.
    """

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """Annotation vectors (B, L, D) to what the steps need of them, computed once per image."""
        raise NotImplementedError

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Raise an `InputError` where the decoder's attention cannot look at a grid of (H, W) places."""

    def init(self, memory: Memory, captions: int = 1) -> Any:
        """The state before the first word, of so many captions K of each of the memory's B images.

        A state's `rows(captions, images)` are the states of the captions (N′,), by number, with the memory's rows of
        the images; or with the memory as it is, where no images are given: then the captions must be as many of each
        image, in a row. So a beam search reorders captions without copying what depends on the image alone.
        """
        raise NotImplementedError

    def step(self, state: Any, token: Tensor) -> tuple[Tensor, Glimpse, Any]:
        """The previous word (N,) to logits (N, V) of the next, what was seen for it, and the next state."""
        raise NotImplementedError

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        """Teacher forcing: previous words (N, T) to logits (N, T, V) and glimpses with a time axis.

        N = B K: as many captions of each image of the memory, in a row.
        """
        raise NotImplementedError
