"""Recurrent caption decoders with any spatial attention, in Xu's or Luong's order of steps."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from visattn import fast
from visattn.attention import Glimpse, Memory, SoftAttention, SpatialAttention
from visattn.errors import require_choice, require_number
from visattn.fast.linear import Linear
from visattn.fast.unrolled import Unrolled
from visattn.models.decoder import Decoder
from visattn.models.positions import check_placed_size, placed
from visattn.vocabulary import PAD

InitialState = Literal["mean", "learned"]
Gates = Callable[[Tensor], Tensor]
"""The LSTM's inputs besides the word, with its hidden state (N, fed + H), to the gates' pre-activations (N, 4 H)."""


class LSTMState(NamedTuple):
    """The state between two steps.

    Attributes:
        hidden: (N, H).
        cell: (N, H).
        out: (N, H) the vector that predicted the last words: the hidden state (Xu), or the attentional vector (Luong).
        t: the step number; a tensor () while a graph is made of a step.
        memory: the memory of the images.
    """

    hidden: Tensor
    cell: Tensor
    out: Tensor
    t: int | Tensor
    memory: Memory

    def rows(self, captions: Tensor, images: Tensor | None = None) -> "LSTMState":
        """See `Decoder.init`."""
        memory = self.memory if images is None else self.memory.rows(images)
        return LSTMState(self.hidden[captions], self.cell[captions], self.out[captions], self.t, memory)


class RecurrentDecoder(Decoder):
    """One LSTM layer with attention; subclasses define the order of steps and how words are predicted.

    h₀ and c₀ come from the mean annotation vector through a tanh layer each (Xu 2015, section 3.1.2). With the option
    `initial_state: learned` they are parameters, so that the decoder knows of the image only what it attends to.

    The vectors of a convolutional map carry no position, so a decoder cannot tell which of two objects is left of the
    other. With the option `placed` they are projected to that size and normalised, and sinusoids of row and column are
    added (`grid_sinusoid`), as in `TransformerDecoder`; D is then that size.

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        attention: makes the mechanism from the sizes of query and values.
        hidden: H, size of the LSTM.
        embedding: E, size of a word's vector.
        dropout: on word vectors and on the vector that predicts words.
        placed: size of annotation vectors with positions, a multiple of 4; None leaves them unchanged, as published.
        initial_state: h₀ and c₀: from the "mean" annotation vector, as published, or "learned".
        fed: size of the LSTM's inputs besides the word and the hidden state.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        vocabulary_size: int,
        value_size: int,
        attention: Callable[[int, int], SpatialAttention],
        hidden: int,
        embedding: int,
        dropout: float,
        placed: int | None,
        initial_state: InitialState,
        fed: int,
    ) -> None:
        super().__init__()
        require_number("hidden", hidden, least=1)
        require_number("embedding", embedding, least=1)
        require_choice("initial_state", initial_state, get_args(InitialState))
        self.project: nn.Module | None = None
        if placed is not None:
            check_placed_size("placed", placed)
            self.project, self.norm_values = Linear(value_size, placed), nn.LayerNorm(placed)
            value_size = placed
        self.attention = attention(hidden, value_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding, padding_idx=PAD)
        self.initial: nn.Parameter | None = None
        if initial_state == "learned":
            self.initial = nn.Parameter(torch.zeros(2, hidden))
        else:
            self.init_hidden = Linear(value_size, hidden)
            self.init_cell = Linear(value_size, hidden)
        # The gates' pre-activations are a sum: the words' part is computed for all steps at once, the rest in the loop.
        self.gates_of_word = Linear(embedding, 4 * hidden)
        self.gates_of_state = Linear(fed + hidden, 4 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def advance(self, state: LSTMState, gates: Gates) -> tuple[Glimpse, LSTMState]:
        """One step of attention and LSTM."""
        raise NotImplementedError

    def logits(self, word: Tensor, out: Tensor, context: Tensor) -> Tensor:
        """Logits (…, V) from word vectors (…, E), the states' `out` (…, H) and contexts (…, D); … is N, or N and T."""
        raise NotImplementedError

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        if self.project is not None:
            values = placed(self.norm_values(self.project(values)), grid)
        return self.attention.prepare(values, grid, mask)

    def check_grid(self, grid: tuple[int, int]) -> None:
        self.attention.check_grid(grid)

    def init(self, memory: Memory, captions: int = 1) -> LSTMState:
        if self.initial is not None:
            hidden, cell = self.initial.unsqueeze(1).expand(-1, memory.values.shape[0] * captions, -1)
            return LSTMState(hidden, cell, torch.zeros_like(hidden), 0, memory)
        if memory.mask is None:
            with torch.autocast(
                memory.values.device.type, enabled=False
            ):  # autocast would convert all values to float32
                mean = memory.values.mean(dim=1)
        else:
            share = memory.mask / memory.mask.sum(dim=1, keepdim=True)
            mean = (share.to(memory.values.dtype).unsqueeze(1) @ memory.values).squeeze(1)
        hidden, cell = (
            torch.tanh(layer(mean)).repeat_interleave(captions, dim=0) for layer in (self.init_hidden, self.init_cell)
        )
        return LSTMState(hidden, cell, torch.zeros_like(hidden), 0, memory)

    def step(self, state: LSTMState, token: Tensor) -> tuple[Tensor, Glimpse, LSTMState]:
        word = self.dropout(self.embedding(token))
        glimpse, state = self.advance(state, lambda inputs: self.gates_of_word(word) + self.gates_of_state(inputs))
        return self.logits(word, state.out, glimpse.context), glimpse, state

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        words = self.dropout(self.embedding(tokens))
        given, layer = self.gates_of_word(words), self.gates_of_state
        gates = Unrolled(given, layer.weight) if fast.enabled() else lambda t, inputs: given[:, t] + layer(inputs)
        state = self.init(memory, len(tokens) // len(memory.values))
        glimpses, outs = [], []
        for t in range(tokens.shape[1]):
            glimpse, state = self.advance(state, partial(gates, t))
            glimpses.append(glimpse)
            outs.append(state.out)
        seen = Glimpse.stack(glimpses)
        return self.logits(words, torch.stack(outs, dim=1), seen.context), seen

    def lstm(self, state: LSTMState, gates: Gates, fed: Tensor) -> tuple[Tensor, Tensor]:
        """The LSTM's next hidden state and cell, (N, H) each (Xu 2015, eq. 1 to 3)."""
        summed = gates(torch.cat([fed, state.hidden], dim=-1))
        input_gate, forget_gate, output_gate, candidate = summed.chunk(4, dim=-1)
        cell = torch.sigmoid(forget_gate) * state.cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


class LSTMDecoder(RecurrentDecoder):
    """The decoder of "Show, Attend and Tell" (Xu 2015): it attends, then updates its state.

    Attention with the previous hidden state (eq. 4 to 6); the context times the gate β = σ(f_β(h)), scalar (section
    4.2.1); LSTM of previous word, previous hidden state and context (eq. 1 to 3); deep output of hidden state, context
    and previous word (eq. 7). The deep output has the tanh and the dropout of the authors' code, which the paper lacks.

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        attention: makes the mechanism from the sizes of query and values.
        hidden: H, size of the LSTM.
        embedding: E, size of a word's vector and of the deep output.
        dropout: on word vectors, hidden state and deep output.
        placed: None, or the size of annotation vectors with positions; see `RecurrentDecoder`.
        initial_state: "mean" or "learned"; see `RecurrentDecoder`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        value_size: int,
        attention: Callable[[int, int], SpatialAttention] = SoftAttention,
        hidden: int = 512,
        embedding: int = 512,
        dropout: float = 0.5,
        placed: int | None = None,
        initial_state: InitialState = "mean",
    ) -> None:
        context = placed or value_size
        super().__init__(
            vocabulary_size, value_size, attention, hidden, embedding, dropout, placed, initial_state, fed=context
        )
        self.beta = Linear(hidden, 1)
        self.out_hidden = Linear(hidden, embedding)
        self.out_context = Linear(context, embedding, bias=False)
        self.out = Linear(embedding, vocabulary_size)

    def advance(self, state: LSTMState, gates: Gates) -> tuple[Glimpse, LSTMState]:
        """The glimpse's context is returned multiplied by β, since it is used to predict the words."""
        glimpse = self.attention(state.hidden, state.memory, state.t)
        gate = torch.sigmoid(self.beta(state.hidden))
        glimpse = glimpse._replace(context=gate * glimpse.context, gate=gate.squeeze(-1).float() * glimpse.gate)
        hidden, cell = self.lstm(state, gates, glimpse.context)
        return glimpse, LSTMState(hidden, cell, hidden, state.t + 1, state.memory)

    def logits(self, word: Tensor, out: Tensor, context: Tensor) -> Tensor:
        """Deep output (eq. 7)."""
        deep = torch.tanh(word + self.out_hidden(self.dropout(out)) + self.out_context(context))
        return self.out(self.dropout(deep))


class LuongDecoder(RecurrentDecoder):
    """Luong's order (2015, section 3): it updates its state, then attends.

    LSTM of the previous word and the previous attentional vector ("input feeding", section 3.3); attention with the
    current hidden state; attentional vector h̃ = tanh(W [context; h]) (eq. 5); words predicted from h̃ only (eq. 6).

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        attention: makes the mechanism from the sizes of query and values.
        hidden: H, size of the LSTM and of the attentional vector.
        embedding: E, size of a word's vector.
        dropout: on word vectors and attentional vectors.
        placed: None, or the size of annotation vectors with positions; see `RecurrentDecoder`.
        initial_state: "mean" or "learned"; see `RecurrentDecoder`.
        input_feeding: whether the LSTM's input includes the previous attentional vector. Without it, and with a learned
            initial state, a word depends on the image only through its own glimpse.
    """

    def __init__(
        self,
        vocabulary_size: int,
        value_size: int,
        attention: Callable[[int, int], SpatialAttention] = SoftAttention,
        hidden: int = 512,
        embedding: int = 512,
        dropout: float = 0.5,
        placed: int | None = None,
        initial_state: InitialState = "mean",
        input_feeding: bool = True,
    ) -> None:
        fed = hidden if input_feeding else 0
        super().__init__(vocabulary_size, value_size, attention, hidden, embedding, dropout, placed, initial_state, fed)
        self.fed = fed
        self.attentional = Linear((placed or value_size) + hidden, hidden, bias=False)
        self.out = Linear(hidden, vocabulary_size)

    def advance(self, state: LSTMState, gates: Gates) -> tuple[Glimpse, LSTMState]:
        hidden, cell = self.lstm(state, gates, fed=state.out[:, : self.fed])
        glimpse = self.attention(hidden, state.memory, state.t)
        attentional = torch.tanh(self.attentional(torch.cat([glimpse.context, hidden], dim=-1)))
        return glimpse, LSTMState(hidden, cell, attentional, state.t + 1, state.memory)

    def logits(self, word: Tensor, out: Tensor, context: Tensor) -> Tensor:
        return self.out(self.dropout(out))
