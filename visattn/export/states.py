"""A decoder's state as named tensors: the inputs and outputs of the step graph. N = B: one caption per image."""

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from visattn.attention import HeadsMemory, Memory
from visattn.errors import InputError
from visattn.models import Decoder, LSTMDecoder, LuongDecoder, TransformerDecoder
from visattn.models.lstm_decoder import LSTMState
from visattn.models.transformer_decoder import TransformerState


class StateTensors(Protocol):
    """Conversion between a state and its tensors.

    Attributes:
        growing: the tensors that grow with each word, and their growing axis.
    """

    growing: ClassVar[dict[str, int]]

    @staticmethod
    def pack(state: Any) -> dict[str, Tensor]:
        """The state's tensors by name."""

    @staticmethod
    def unpack(tensors: dict[str, Tensor], memory: Any) -> Any:
        """The state with these tensors; others are ignored."""


class XuTensors:
    """For `LSTMDecoder`, which predicts words from the hidden state: hidden and cell (N, H), step number ()."""

    growing: ClassVar[dict[str, int]] = {}

    @staticmethod
    def pack(state: LSTMState) -> dict[str, Tensor]:
        return {"hidden": state.hidden, "cell": state.cell, "t": torch.as_tensor(state.t)}

    @staticmethod
    def unpack(tensors: dict[str, Tensor], memory: Memory) -> LSTMState:
        return LSTMState(tensors["hidden"], tensors["cell"], tensors["hidden"], tensors["t"], memory)


class LuongTensors:
    """For `LuongDecoder`: as for `LSTMDecoder`, and the attentional vector (N, H), which is fed to the next step."""

    growing: ClassVar[dict[str, int]] = {}

    @staticmethod
    def pack(state: LSTMState) -> dict[str, Tensor]:
        return {**XuTensors.pack(state), "attentional": state.out}

    @staticmethod
    def unpack(tensors: dict[str, Tensor], memory: Memory) -> LSTMState:
        return XuTensors.unpack(tensors, memory)._replace(out=tensors["attentional"])


class CacheTensors:
    """For `TransformerDecoder`: keys and values of the t words so far, (N, layers, heads, t, d) each."""

    growing: ClassVar[dict[str, int]] = {"cache_keys": 3, "cache_values": 3}

    @staticmethod
    def pack(state: TransformerState) -> dict[str, Tensor]:
        keys, values = (torch.stack(part, dim=1) for part in zip(*state.caches, strict=True))
        return {"cache_keys": keys, "cache_values": values}

    @staticmethod
    def unpack(tensors: dict[str, Tensor], memory: HeadsMemory) -> TransformerState:
        keys, values = tensors["cache_keys"], tensors["cache_values"]
        return TransformerState(tuple(zip(keys.unbind(1), values.unbind(1), strict=True)), keys.shape[3], memory)


_OF_DECODER: dict[type[Decoder], type[StateTensors]] = {
    LSTMDecoder: XuTensors,
    LuongDecoder: LuongTensors,
    TransformerDecoder: CacheTensors,
}
"""Decoders from outside the package have a class attribute `state_tensors`."""


def state_tensors(decoder: Decoder) -> type[StateTensors]:
    """The `StateTensors` of a decoder.

    Raises:
        InputError: if there is none, so that no step graph can be written.
    """
    kind = type(decoder)
    if (own := getattr(kind, "state_tensors", None)) is not None:
        return own
    known = [of for cls, of in _OF_DECODER.items() if issubclass(kind, cls) and kind.init is cls.init]
    if not known:
        raise InputError(
            f"{kind.__name__} does not define how its states become tensors, which ONNX needs; add a class attribute "
            "state_tensors (see visattn.export.states.StateTensors), or export with --format safetensors"
        )
    return known[0]
