"""Training and measurement of the sequence study's models."""

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from visattn.attention import Glimpse, HardAttention
from visattn.decoding import decode
from visattn.metrics import entropy
from visattn.studies.sequences.model import Encoding, Mechanism, SequenceModel
from visattn.studies.sequences.tasks import Batch, Task
from visattn.training.objectives import CaptionLoss, LeaveOneOut, Reinforce
from visattn.vocabulary import PAD

BATCH, LEARNING_RATE = 32, 3e-3
# Of hard attention; with a lower entropy weight some places are never sampled.
DRAWS, ENTROPY = 4, 0.2


def train(
    task: Task,
    mechanism: Mechanism,
    steps: int,
    seed: int = 0,
    encoding: Encoding = "places",
    title: str | None = None,
    size: int = BATCH,
    learning_rate: float = LEARNING_RATE,
) -> SequenceModel:
    """Train a model from random weights.

    Args:
        task: the task.
        mechanism: makes the attention.
        steps: number of batches.
        seed: of weights, sequences and samples.
        encoding: see `SequenceModel`.
        title: of a progress bar on a terminal; None for no bar.
        size: sequences of a batch.
        learning_rate: of Adam, constant for three quarters of the steps; then it falls to 0.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SequenceModel(task, mechanism, encoding)
    draws = isinstance(model.decoder.attention, HardAttention)
    rule = Reinforce(entropy=ENTROPY, reward="to_go", baseline=LeaveOneOut(DRAWS)) if draws else None
    loss = CaptionLoss(doubly_stochastic=0.0, reinforce=rule)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 4 * (1 - step / steps)))
    for _ in tqdm(range(steps), desc=title, unit="step", leave=False, disable=title is None or None):
        batch = task.batch(size, generator)
        owner = torch.arange(size).repeat_interleave(DRAWS if draws else 1)
        memory, tokens = model.remember(batch).rows(owner), batch.tokens[owner]
        losses = loss(*model.decoder(memory, tokens[:, :-1]), tokens[:, 1:])
        optimizer.zero_grad()
        losses.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return model.eval()


@torch.no_grad()
def alignment(model: SequenceModel, batch: Batch) -> Glimpse:
    """The glimpses for each target symbol under teacher forcing, (B, T, …), without END."""
    _, glimpses = model.decoder(model.remember(batch), batch.tokens[:, :-1])
    return Glimpse(*(part[:, :-1] for part in glimpses))


@torch.no_grad()
def evaluate(model: SequenceModel, batch: Batch) -> dict[str, float]:
    """Scores of a model in evaluation mode.

    Returns:
        token_accuracy: share of correct tokens, including END, in freely generated sequences.
        sequence_accuracy: share of generated sequences without a mistake.
        alignment_accuracy: of the target symbols that have a true place, share with the largest weight (for hard
            attention: the sampled place) at such a place.
        entropy: of the weights, mean over these target symbols, in nats.
    """
    target = batch.tokens[:, 1:]
    generated = decode(model.decoder, model.remember(batch), max_length=target.shape[1] - 1).tokens
    generated = F.pad(generated, (0, target.shape[1] - generated.shape[1]), value=PAD)
    right, counted = generated == target, target != PAD
    seen, placed = alignment(model, batch), batch.truth.any(dim=-1)
    hits = batch.truth.gather(2, seen.focus.argmax(dim=-1, keepdim=True)).squeeze(2)
    return {
        "token_accuracy": right[counted].float().mean().item(),
        "sequence_accuracy": (right | ~counted).all(dim=1).float().mean().item(),
        "alignment_accuracy": hits[placed].float().mean().item(),
        "entropy": float(entropy(seen.weights[placed].numpy()).mean()),
    }
