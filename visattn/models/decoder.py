"""The interface of caption decoders, on which decoding, objectives and metrics depend."""

from typing import Any

from torch import Tensor, nn

from visattn.attention import Glimpse, Memory


class Decoder(nn.Module):
    """A caption decoder: predicts words from an image's annotation vectors.

    `forward` and `step` compute the same function: `forward` for training, all words at once; `step` for decoding, one
    word at a time. Tests check that they agree.
    """

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        """Prepare annotation vectors (B, L, D) for the steps, once per image."""
        raise NotImplementedError

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Raise an `InputError` if the decoder's attention does not support a grid of (H, W) places."""

    def init(self, memory: Memory, captions: int = 1) -> Any:
        """The state before the first word, for K captions of each of the memory's B images.

        A state's `rows(captions, images)` selects the states of the captions (N′,), by index, with the memory's rows of
        the images; without images the memory is unchanged, and there must be the same number of consecutive captions
        per image. So beam search reorders captions without copying what depends only on the image.
        """
        raise NotImplementedError

    def step(self, state: Any, token: Tensor) -> tuple[Tensor, Glimpse, Any]:
        """The previous word (N,) to the logits (N, V) of the next, its glimpse, and the next state."""
        raise NotImplementedError

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        """Teacher forcing: previous words (N, T) to logits (N, T, V) and glimpses with a time axis.

        N = B K: the same number of consecutive captions per image of the memory.
        """
        raise NotImplementedError
