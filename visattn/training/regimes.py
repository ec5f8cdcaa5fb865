"""Training regimes, which differ in how often a captioner is fed its own words: never, sometimes or always.

A decoder trained only on true previous words ("teacher forcing") may fail after its own mistakes ("exposure bias"). A
regime computes the loss of a batch; it runs the decoder, and does not depend on the encoder or Lightning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from visattn.attention import Glimpse, Memory, SampledMemory
from visattn.data.batch import CaptionBatch
from visattn.decoding import Choice, Greedy, Sampling, Search, decode
from visattn.errors import InputError, require_choice
from visattn.metrics import CiderReward, Facts, TruthReward
from visattn.models import Decoder
from visattn.models.mode import evaluating
from visattn.training import processes
from visattn.training.objectives import CaptionLoss, Schedule, SelfCriticalLoss, rerun_of
from visattn.training.objectives.self_critical import CriticKind
from visattn.vocabulary import END, PAD, START, Vocabulary

References = Mapping[str, Sequence[Sequence[str]]]
RewardKind = Literal["CIDEr-D", "truth"]


class Taught(NamedTuple):
    """The result of a regime for a batch. With several processes each has its share (`visattn.training.processes`).

    Attributes:
        loss: the objective.
        tokens: number of tokens that it is averaged over, in this process.
        logs: values to log, without gradients.
        reinforce: the part of the loss that trains sampled places, or None.
    """

    loss: Tensor
    tokens: int
    logs: dict[str, Tensor]
    reinforce: Tensor | None = None


class Regime:
    """The interface: `begin` before training, then `teach` for every batch.

    Attributes:
        signature: settings that scores depend on, in one line; empty if there are none.
        needs_facts: whether the data must provide the content of its images (`facts`).
        reads_captions: whether the decoder is given the batch's captions, word by word.
    """

    signature = ""
    needs_facts = False
    reads_captions = True

    def begin(
        self,
        references: References,
        vocabulary: Vocabulary,
        max_length: int,
        facts: Callable[[str], Facts | None] | None = None,
    ) -> None:
        """Prepare for training.

        Args:
            references: the training captions, by image id.
            vocabulary: the decoder's vocabulary.
            max_length: maximum length of a generated caption, in words.
            facts: the content of an image, by its id; None if the data does not provide it.
        """

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        """A batch's loss. If several processes share the batch, all must call this method.

        Args:
            decoder: in training mode.
            memory: of the batch's images.
            batch: its captions.
            loss: of captions given word by word.
            step: number of the training step, from 0.
        """
        raise NotImplementedError


class TeacherForcing(Regime):
    """Teacher forcing: always the true previous words (maximum likelihood)."""

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        draws = copies(memory, batch, loss)
        memory, tokens = rows(memory, batch, draws)
        return forced(decoder, memory, tokens, tokens[:, :-1], loss, draws, batch.regions)


class ScheduledSampling(Regime):
    """Each previous word is the true one with probability ε, else the decoder's own (Bengio 2015).

    The choice is random for each word. The decoder's own word is sampled after the inputs that it was actually given,
    including own words, so the inputs come from the decoding loop; the loss is then computed in parallel, and as in the
    paper no gradient flows through the choice. A word is never replaced by END, since the true caption continues. The
    target remains the true caption.

    Args:
        schedule: schedule of ε.
        likeliest: whether the own word is the most probable one instead of a sample (Bengio 2015 has both).
    """

    def __init__(self, schedule: Schedule, likeliest: bool = False) -> None:
        self.schedule, self.likeliest = schedule, likeliest

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        draws = copies(memory, batch, loss)
        memory, tokens = rows(memory, batch, draws)
        truth = self.schedule.truth(step)
        heard = tokens[:, :-1]
        if truth < 1:
            heard = self.mix(decoder, memory, tokens, truth)
        taught = forced(decoder, memory, tokens, heard, loss, draws, batch.regions)
        replaced = (heard != tokens[:, :-1]).sum() / processes.mean((tokens[:, 1:-1] > END).sum())
        return taught._replace(logs=taught.logs | {"truth": taught.loss.new_tensor(truth), "replaced": replaced})

    @torch.no_grad()
    def mix(self, decoder: Decoder, memory: Memory, tokens: Tensor, truth: float) -> Tensor:
        """Captions (N, T) with START as the inputs (N, T − 1) of the decoder."""
        target = memory.per_image(tokens[:, 1:])
        keep = torch.rand(target.shape, dtype=torch.float32, device=tokens.device) < truth
        mixed = decode(decoder, memory, _Mix(target, keep, self.likeliest), max_length=tokens.shape[1] - 2).tokens
        return torch.cat([tokens[:, :1], mixed[:, : tokens.shape[1] - 2]], dim=1)


class _Mix(Search):
    """The true words (B, K, T) if kept, otherwise the decoder's own; ends where the true caption ends."""

    def __init__(self, truth: Tensor, keep: Tensor, likeliest: bool) -> None:
        self.truth, self.keep = truth, keep
        self.own = Greedy() if likeliest else Sampling(truth.shape[1])
        self.width = self.best = truth.shape[1]

    def forbidden(self, t: int) -> list[int]:
        return [PAD, START]

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        truth, keep = self.truth[images, :, t], self.keep[images, :, t]
        words = log_probs.index_fill(-1, torch.tensor([END], device=log_probs.device), float("-inf"))
        own = self.own.extend(totals, words, t, images).tokens
        tokens = torch.where(keep | (truth <= END), truth, own)
        return Choice(None, tokens, truth == END)


class SelfCritical(Regime):
    """Self-critical sequence training (Rennie et al. 2017): sampled captions with a reward.

    Use it with a small learning rate on a captioner trained by teacher forcing (`--start_from`). Only the images of a
    batch are used, not its captions. Samples come from the decoder in training mode, with dropout and sampled places,
    and the gradient flows through the steps that sampled them: it is on-policy. CIDEr-D uses the document frequencies
    of the training captions, and END counts as a word (see `CiderReward`). An image whose captions are split between
    two processes is sampled by both.

    Args:
        samples: captions sampled per image.
        baseline: "mean" of an image's other samples, or the reward of its "greedy" caption.
        reward: "CIDEr-D" against the training captions, or "truth" (see `TruthReward`), which needs data with the
            content of its images, such as generated scenes.

    Raises:
        InputError: if the mean has no other sample; if there is no such reward.
    """

    reads_captions = False

    def __init__(self, samples: int = 5, baseline: CriticKind = "mean", reward: RewardKind = "CIDEr-D") -> None:
        if samples < (2 if baseline == "mean" else 1):
            raise InputError(f"samples is {samples}; self-critical training with baseline '{baseline}' needs more")
        require_choice("reward", reward, get_args(RewardKind))
        self.samples = samples
        self.loss = SelfCriticalLoss(baseline)
        self.needs_facts = reward == "truth"
        self.reward: CiderReward | TruthReward | None = None

    @property
    def signature(self) -> str:
        baseline = f"leave-one-out({self.samples})" if self.loss.baseline == "mean" else f"greedy({self.samples})"
        unbegun = TruthReward.signature if self.needs_facts else "CIDEr-D|eos:counted"
        reward = unbegun if self.reward is None else self.reward.signature
        return f"SCST|baseline:{baseline}|reward:{reward}"

    def begin(
        self,
        references: References,
        vocabulary: Vocabulary,
        max_length: int,
        facts: Callable[[str], Facts | None] | None = None,
    ) -> None:
        if self.needs_facts:
            self.reward = TruthReward(facts or (lambda _: None), vocabulary)
        else:
            self.reward = CiderReward(references, vocabulary)
        self.max_length = max_length

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        sampled = decode(decoder, memory, Sampling(self.samples), self.max_length)
        rewards = self._rewards(batch.ids, sampled.tokens)
        greedy = None
        if self.loss.baseline == "greedy":
            with torch.no_grad(), evaluating(decoder):
                greedy = self._rewards(batch.ids, decode(decoder, memory, Greedy(), self.max_length).tokens)[:, 0]
        tokens = int((sampled.tokens != PAD).sum())
        images, mean_tokens = processes.mean(torch.tensor([len(batch.ids), tokens], device=rewards.device))
        captions = images * self.samples
        value = self.loss(sampled.log_prob + sampled.places_log_prob.sum(dim=1), mean_tokens, rewards, greedy)
        logs = {
            "reward": rewards.sum() / captions,
            "unfinished": (sampled.tokens != END).all(dim=1).sum() / captions,
            "words": (sampled.tokens > END).sum() / captions,
        }
        if self.samples > 1:
            logs["reward_deviation"] = rewards.std(dim=1).sum() / images
        if greedy is not None:
            logs["greedy_reward"] = greedy.sum() / images
        return Taught(value, tokens, logs)

    def _rewards(self, ids: list[str], tokens: Tensor) -> Tensor:
        """(B, K) of the captions (B K, T)."""
        repeated = [name for name in ids for _ in range(len(tokens) // len(ids))]
        rewards = torch.from_numpy(self.reward(repeated, tokens.cpu().numpy()))
        return rewards.float().view(len(ids), -1).to(tokens.device)


def copies(memory: Memory, batch: CaptionBatch, loss: CaptionLoss) -> int:
    """How often each caption of a batch occurs in it, so that the loss can compare its samples."""
    return loss.copies(memory.values.shape[1], batch.tokens.shape[1] - 1)


def rows(memory: Memory, batch: CaptionBatch, draws: int = 1) -> tuple[Memory, Tensor]:
    """A memory for a batch's captions, and those captions, each `draws` times.

    If each image has the same number of consecutive captions, they share its row of the memory; otherwise rows are
    copied.
    """
    count = len(batch.ids)
    each = len(batch.owner) // count
    grouped = torch.arange(count, device=batch.owner.device).repeat_interleave(each)
    if not torch.equal(batch.owner, grouped):
        memory = memory.rows(batch.owner)
    return memory, batch.tokens.repeat_interleave(draws, dim=0)


def forced(
    decoder: Decoder,
    memory: Memory,
    tokens: Tensor,
    heard: Tensor,
    loss: CaptionLoss,
    draws: int = 1,
    regions: Tensor | None = None,
) -> Taught:
    """The loss of captions (N, T) with START, each `draws` times, given the decoder's inputs (N, T − 1).

    Regions are those of `CaptionBatch`, for each of its captions, which may be repeated here.
    """
    targets = tokens[:, 1:]
    memory = loss.placed(decoder, memory, heard, targets)
    logits, glimpses = decode_copies(decoder, memory, heard, draws)
    if regions is not None:
        regions = regions.repeat_interleave(len(tokens) // len(regions), dim=0)
    losses = loss(logits, glimpses, targets, regions, rerun_of(decoder, memory, heard, targets))
    logs = {
        "cross_entropy": losses.cross_entropy,
        "doubly_stochastic": losses.doubly_stochastic,
        "accuracy": losses.accuracy,
    }
    if loss.supervision:
        logs["supervision"] = losses.supervision
    return Taught(losses.loss, int((tokens[:, 1:] != PAD).sum()), logs | losses.diagnostics, losses.reinforce)


def decode_copies(decoder: Decoder, memory: Memory, heard: Tensor, draws: int) -> tuple[Tensor, Glimpse]:
    """The decoder's logits and glimpses for inputs (N, T), in which each caption occurs `draws` times in a row.

    Copies differ in their sampled places. Where an image's coin says that none are sampled, one copy is computed, with
    the first one's inputs, and serves as all of them. On a GPU, where rows cost little, and for compiled decoders,
    which one size suits better, all are computed.
    """
    drawn = memory.drawn if isinstance(memory, SampledMemory) else None
    if draws == 1 or drawn is None or heard.device.type != "cpu" or decoder._compiled_call_impl or bool(drawn.all()):
        return decoder(memory, heard)
    order, parts = [], []
    numbers = memory.per_image(torch.arange(len(heard)))
    for images, times in ((drawn.nonzero().flatten(), 1), ((~drawn).nonzero().flatten(), draws)):
        if len(images):
            order.append(numbers[images].flatten())
            own = memory.rows(images)
            if times > 1:
                own = replace(own, focus=None)  # prescribed for each copy, and not used
            logits, glimpses = decoder(own, heard[order[-1][::times]])
            parts.append([part.repeat_interleave(times, dim=0) for part in (logits, *glimpses)])
    back = torch.cat(order).argsort()
    logits, *glimpse = (torch.cat(part)[back] for part in zip(*parts, strict=True))
    return logits, Glimpse(*glimpse)
