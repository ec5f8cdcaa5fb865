"""The contract of every caption decoder: decoding, objectives and metrics know nothing else of it."""

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

    def init(self, memory: Memory) -> Any:
        """The state before the first word. A state's `rows(index)` picks captions, as a beam search does."""
        raise NotImplementedError

    def step(self, state: Any, token: Tensor) -> tuple[Tensor, Glimpse, Any]:
        """The previous word (B,) to logits (B, V) of the next, what was seen for it, and the next state."""
        raise NotImplementedError

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        """Teacher forcing: previous words (B, T) to logits (B, T, V) and glimpses with a time axis."""
        raise NotImplementedError
