"""A captioner's decoder in the style of tutorials, for comparison.

After sgrvinod's "a-PyTorch-Tutorial-to-Image-Captioning" (`models.py`, `train.py`, `caption.py`), whose habits and
names are kept: annotation vectors are projected to keys at every word, the vocabulary is projected at every word, a
training batch is sorted by length and shrinks as its captions end, and beam search takes one image at a time and copies
its annotation vectors for each beam. The arithmetic is that of `LSTMDecoder` with soft attention (tanh in the score, a
scalar β, the deep output), so with its weights it says the same: tests compare logits, loss and captions.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from visattn.models import LSTMDecoder
from visattn.vocabulary import END, START


class Attention(nn.Module):
    """Additive attention."""

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim, bias=False)
        self.full_att = nn.Linear(attention_dim, 1, bias=False)

    def forward(self, encoder_out: Tensor, decoder_hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Annotation vectors (n, L, D) and hidden states (n, H) to contexts (n, D) and α (n, L)."""
        att1 = self.encoder_att(encoder_out)  # (n, L, A)
        att2 = self.decoder_att(decoder_hidden)  # (n, A)
        att = self.full_att(torch.tanh(att1 + att2.unsqueeze(1))).squeeze(2)
        alpha = att.softmax(dim=1)
        return (encoder_out * alpha.unsqueeze(2)).sum(dim=1), alpha


class Taught(NamedTuple):
    """What `TutorialDecoder.forward` returns, its rows sorted by length.

    Attributes:
        predictions: (N, T, V) logits, 0 after a caption's end.
        captions: (N, T + 1) as they were sorted.
        decode_lengths: of each caption, END counted.
        alphas: (N, T, L), 0 after a caption's end.
        sort_ind: (N,) where each row came from.
    """

    predictions: Tensor
    captions: Tensor
    decode_lengths: list[int]
    alphas: Tensor
    sort_ind: Tensor


class TutorialDecoder(nn.Module):
    """The decoder; sizes as in `LSTMDecoder`."""

    def __init__(
        self, vocab_size: int, encoder_dim: int, decoder_dim: int, embed_dim: int, attention_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.decode_step = nn.LSTMCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, 1)
        self.out_hidden = nn.Linear(decoder_dim, embed_dim)
        self.out_context = nn.Linear(encoder_dim, embed_dim, bias=False)
        self.fc = nn.Linear(embed_dim, vocab_size)

    @classmethod
    def of(cls, decoder: LSTMDecoder) -> "TutorialDecoder":
        """With the weights of a decoder with soft, additive attention."""
        vocab_size, embed_dim = decoder.embedding.weight.shape
        score, hidden = decoder.attention.score, decoder.out_hidden.in_features
        sizes = (vocab_size, decoder.init_hidden.in_features, hidden, embed_dim, score.key.out_features)
        own = cls(*sizes, decoder.dropout.p)
        same = {
            "attention.encoder_att": score.key,
            "attention.decoder_att": score.query,
            "attention.full_att": score.energy,
            "embedding": decoder.embedding,
            "init_h": decoder.init_hidden,
            "init_c": decoder.init_cell,
            "f_beta": decoder.beta,
            "out_hidden": decoder.out_hidden,
            "out_context": decoder.out_context,
            "fc": decoder.out,
        }
        for name, module in same.items():
            own.get_submodule(name).load_state_dict(module.state_dict())
        of_context, of_hidden = decoder.gates_of_state.weight.data.split((sizes[1], hidden), dim=1)
        inputs = torch.cat([decoder.gates_of_word.weight.data, of_context], dim=1)
        cell = {"weight_ih": inputs, "weight_hh": of_hidden, "bias_ih": decoder.gates_of_word.bias.data}
        state = {name: _as_pytorch(weight) for name, weight in cell.items()}
        own.decode_step.load_state_dict(state | {"bias_hh": torch.zeros_like(state["bias_ih"])})
        return own.to(decoder.out.weight.device).train(decoder.training)

    def init_hidden_state(self, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """h₀ and c₀."""
        mean_encoder_out = encoder_out.mean(dim=1)
        return torch.tanh(self.init_h(mean_encoder_out)), torch.tanh(self.init_c(mean_encoder_out))

    def word(
        self, embedding: Tensor, encoder_out: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One word: logits, α, h and c."""
        awe, alpha = self.attention(encoder_out, h)
        awe = torch.sigmoid(self.f_beta(h)) * awe
        h, c = self.decode_step(torch.cat([embedding, awe], dim=1), (h, c))
        deep = torch.tanh(embedding + self.out_hidden(self.dropout(h)) + self.out_context(awe))
        return self.fc(self.dropout(deep)), alpha, h, c

    def forward(self, encoder_out: Tensor, encoded_captions: Tensor, caption_lengths: Tensor) -> Taught:
        """Teacher forcing.

        Args:
            encoder_out: (N, L, D), one for each caption.
            encoded_captions: (N, T + 1) START, the words, END, then padding.
            caption_lengths: (N,) tokens of each, START and END counted.
        """
        caption_lengths, sort_ind = caption_lengths.sort(dim=0, descending=True)
        encoder_out, encoded_captions = encoder_out[sort_ind], encoded_captions[sort_ind]
        embeddings = self.dropout(self.embedding(encoded_captions))
        h, c = self.init_hidden_state(encoder_out)
        decode_lengths = (caption_lengths - 1).tolist()
        batch, longest = len(encoder_out), max(decode_lengths)
        predictions = torch.zeros(batch, longest, self.fc.out_features, device=encoder_out.device)
        alphas = torch.zeros(batch, longest, encoder_out.shape[1], device=encoder_out.device)
        for t in range(longest):
            batch_size_t = sum(length > t for length in decode_lengths)
            preds, alpha, h, c = self.word(
                embeddings[:batch_size_t, t], encoder_out[:batch_size_t], h[:batch_size_t], c[:batch_size_t]
            )
            predictions[:batch_size_t, t] = preds.float()
            alphas[:batch_size_t, t] = alpha.float()
        return Taught(predictions, encoded_captions, decode_lengths, alphas, sort_ind)


def loss(taught: Taught) -> Tensor:
    """Cross-entropy and the doubly stochastic penalty, per token as `CaptionLoss` has them."""
    targets = taught.captions[:, 1:]
    scores = pack_padded_sequence(taught.predictions, taught.decode_lengths, batch_first=True).data
    targets = pack_padded_sequence(targets, taught.decode_lengths, batch_first=True).data
    penalty = ((1.0 - taught.alphas.sum(dim=1)) ** 2).sum() / len(targets)
    return F.cross_entropy(scores, targets) + penalty


@torch.no_grad()
def beam_search(decoder: TutorialDecoder, encoder_out: Tensor, beam_size: int, max_length: int) -> list[int]:
    """The likeliest caption of one image (1, L, D), in tokens, END left out."""
    k, vocab_size = beam_size, decoder.fc.out_features
    encoder_out = encoder_out.expand(k, *encoder_out.shape[1:])
    k_prev_words = torch.full((k, 1), START, device=encoder_out.device)
    seqs = k_prev_words
    seqs_alpha = torch.ones(k, 1, encoder_out.shape[1], device=encoder_out.device)
    top_k_scores = torch.zeros(k, 1, device=encoder_out.device)
    complete_seqs: list[list[int]] = []
    complete_seqs_scores: list[float] = []
    h, c = decoder.init_hidden_state(encoder_out)
    for step in range(1, max_length + 1):
        embeddings = decoder.embedding(k_prev_words).squeeze(1)
        logits, alpha, h, c = decoder.word(embeddings, encoder_out, h, c)
        scores = top_k_scores.expand(-1, vocab_size) + F.log_softmax(logits.float(), dim=1)
        if step == 1:  # all k are the same
            top_k_scores, top_k_words = scores[0].topk(k, 0)
        else:
            top_k_scores, top_k_words = scores.view(-1).topk(k, 0)
        prev_word_inds, next_word_inds = top_k_words // vocab_size, top_k_words % vocab_size
        seqs = torch.cat([seqs[prev_word_inds], next_word_inds.unsqueeze(1)], dim=1)
        seqs_alpha = torch.cat([seqs_alpha[prev_word_inds], alpha[prev_word_inds].unsqueeze(1)], dim=1)
        incomplete_inds = [ind for ind, next_word in enumerate(next_word_inds.tolist()) if next_word != END]
        complete_inds = list(set(range(len(next_word_inds))) - set(incomplete_inds))
        if complete_inds:
            complete_seqs.extend(seqs[complete_inds].tolist())
            complete_seqs_scores.extend(top_k_scores[complete_inds].tolist())
        k -= len(complete_inds)
        if k == 0:
            break
        seqs, seqs_alpha = seqs[incomplete_inds], seqs_alpha[incomplete_inds]
        h, c = h[prev_word_inds[incomplete_inds]], c[prev_word_inds[incomplete_inds]]
        encoder_out = encoder_out[prev_word_inds[incomplete_inds]]
        top_k_scores = top_k_scores[incomplete_inds].unsqueeze(1)
        k_prev_words = next_word_inds[incomplete_inds].unsqueeze(1)
    if not complete_seqs:  # none ended; the tutorial stops with an error here
        complete_seqs, complete_seqs_scores = seqs.tolist(), top_k_scores.flatten().tolist()
    best = complete_seqs[complete_seqs_scores.index(max(complete_seqs_scores))]
    return [token for token in best[1:] if token != END]


def _as_pytorch(gates: Tensor) -> Tensor:
    """Rows for input, forget and output gate and the candidate, as PyTorch's cell has them: the candidate third."""
    input_gate, forget_gate, output_gate, candidate = gates.chunk(4)
    return torch.cat([input_gate, forget_gate, candidate, output_gate])
