"""The decoder of "Show, Attend and Tell" (Xu 2015), around any spatial attention."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visattn.attention import Glimpse, Memory, SoftAttention, SpatialAttention
from visattn.models.decoder import Decoder
from visattn.vocabulary import PAD


class LSTMState(NamedTuple):
    """What a step hands to the next: hidden (B, H), cell (B, H), the number of the step, and the image's memory."""

    hidden: Tensor
    cell: Tensor
    t: int
    memory: Memory

    def rows(self, index: Tensor) -> "LSTMState":
        """The states of `index` (N,)."""
        return LSTMState(self.hidden[index], self.cell[index], self.t, self.memory.rows(index))


class LSTMDecoder(Decoder):
    """One attentive LSTM layer.

    Equations of Xu 2015: h₀ and c₀ from the mean annotation vector through a tanh layer each (section 3.1.2); attention
    with the previous hidden state (eq. 4 to 6); the context times the gate β = σ(f_β(h)), scalar (section 4.2.1);
    LSTM of previous word, previous hidden state and context (eq. 1 to 3); deep output of hidden state, context and
    previous word (eq. 7). The deep output has the tanh and the dropout of the authors' code, which the paper lacks.

    Args:
        vocabulary_size: V.
        value_size: D, size of an annotation vector.
        attention: makes the mechanism from the sizes of query and values.
        hidden: H, size of the LSTM.
        embedding: E, size of a word's vector and of the deep output.
        dropout: on word vectors, hidden state and deep output.
    """

    def __init__(
        self,
        vocabulary_size: int,
        value_size: int,
        attention: Callable[[int, int], SpatialAttention] = SoftAttention,
        hidden: int = 512,
        embedding: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.attention = attention(hidden, value_size)
        self.embedding = nn.Embedding(vocabulary_size, embedding, padding_idx=PAD)
        self.init_hidden = nn.Linear(value_size, hidden)
        self.init_cell = nn.Linear(value_size, hidden)
        self.beta = nn.Linear(hidden, 1)
        # The gates' pre-activations are a sum: the words' part is computed for all steps at once, the rest in the loop.
        self.gates_of_word = nn.Linear(embedding, 4 * hidden)
        self.gates_of_state = nn.Linear(value_size + hidden, 4 * hidden, bias=False)
        self.out_hidden = nn.Linear(hidden, embedding)
        self.out_context = nn.Linear(value_size, embedding, bias=False)
        self.out = nn.Linear(embedding, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()

    def prepare(self, values: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Memory:
        return self.attention.prepare(values, grid, mask)

    def check_grid(self, grid: tuple[int, int]) -> None:
        self.attention.check_grid(grid)

    def init(self, memory: Memory) -> LSTMState:
        if memory.mask is None:
            mean = memory.values.mean(dim=1)
        else:
            share = memory.mask / memory.mask.sum(dim=1, keepdim=True)
            mean = (share.to(memory.values.dtype).unsqueeze(1) @ memory.values).squeeze(1)
        return LSTMState(torch.tanh(self.init_hidden(mean)), torch.tanh(self.init_cell(mean)), 0, memory)

    def step(self, state: LSTMState, token: Tensor) -> tuple[Tensor, Glimpse, LSTMState]:
        word = self.dropout(self.embedding(token))
        glimpse, state = self._advance(state, self.gates_of_word(word))
        return self._logits(word, state.hidden, glimpse.context), glimpse, state

    def forward(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, Glimpse]:
        words = self.dropout(self.embedding(tokens))
        gates = self.gates_of_word(words)
        state = self.init(memory)
        glimpses, hidden = [], []
        for t in range(tokens.shape[1]):
            glimpse, state = self._advance(state, gates[:, t])
            glimpses.append(glimpse)
            hidden.append(state.hidden)
        seen = Glimpse.stack(glimpses)
        return self._logits(words, torch.stack(hidden, dim=1), seen.context), seen

    def _advance(self, state: LSTMState, gates_of_word: Tensor) -> tuple[Glimpse, LSTMState]:
        """Attend, then update the LSTM. The glimpse's context comes back times β: it is what the words are made of."""
        glimpse = self.attention(state.hidden, state.memory, state.t)
        glimpse = glimpse._replace(context=torch.sigmoid(self.beta(state.hidden)) * glimpse.context)
        gates = gates_of_word + self.gates_of_state(torch.cat([glimpse.context, state.hidden], dim=-1))
        input_gate, forget_gate, output_gate, candidate = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(forget_gate) * state.cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
        hidden = torch.sigmoid(output_gate) * torch.tanh(cell)
        return glimpse, LSTMState(hidden, cell, state.t + 1, state.memory)

    def _logits(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Deep output (eq. 7), for one step (B, ·) or for all at once (B, T, ·)."""
        deep = torch.tanh(word + self.out_hidden(self.dropout(hidden)) + self.out_context(context))
        return self.out(self.dropout(deep))
