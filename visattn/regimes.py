"""Training regimes, which differ in how often a captioner is fed its own words: never, sometimes or always.

A decoder that only ever heard the true words before the next ("teacher forcing") may be lost after an own mistake
("exposure bias"). A regime turns a batch into a loss; it drives the decoder, and knows neither encoder nor Lightning.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from visattn import processes
from visattn.attention import Memory
from visattn.data.batch import CaptionBatch
from visattn.decoding import Choice, Greedy, Sampling, Search, decode
from visattn.errors import InputError
from visattn.metrics import CiderReward, Facts, TruthReward
from visattn.models import Decoder
from visattn.models.mode import evaluating
from visattn.objectives import CaptionLoss, Schedule, SelfCriticalLoss
from visattn.objectives.self_critical import CriticKind
from visattn.vocabulary import END, PAD, START, Vocabulary

References = Mapping[str, Sequence[Sequence[str]]]
RewardKind = Literal["CIDEr-D", "truth"]


class Taught(NamedTuple):
    """The result of a regime for a batch. With several processes each has its share (`visattn.processes`).

    Attributes:
        loss: what is minimised.
        tokens: that it is an average over; those of this process.
        logs: numbers to log, without gradients.
        reinforce: the part of the loss through which places that were drawn learn by themselves, or None.
    """

    loss: Tensor
    tokens: int
    logs: dict[str, Tensor]
    reinforce: Tensor | None = None


class Regime:
    """The contract: `begin` before training, then `teach` for every batch.

    Attributes:
        signature: the choices that decide what a score is worth, in one line; empty if there are none.
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
        """Get ready.

        Args:
            references: the training captions, by image id.
            vocabulary: of the decoder.
            max_length: of a caption that the captioner generates, in words.
            facts: what is in an image, by its id; None if the data does not provide it.
        """

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        """A batch's loss. Where several processes have a share of the batch, all must come by.

        Args:
            decoder: in training mode.
            memory: of the batch's images.
            batch: its captions.
            loss: of captions given word by word.
            step: number of the training step, from 0.
        """
        raise NotImplementedError


class TeacherForcing(Regime):
    """Always the true words before the next: maximum likelihood."""

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        memory, tokens = rows(memory, batch, loss.draws)
        return forced(decoder, memory, tokens, tokens[:, :-1], loss, batch.regions)


class ScheduledSampling(Regime):
    """Each previous word is the true one with probability ε, else the decoder's own (Bengio 2015).

    The coin is tossed for each word. The own word is drawn from what the decoder says after the words that it really
    was given, own ones among them, so the inputs come out of the decoding loop; they are then taught as any others, in
    parallel, and as in the paper no gradient flows through the choice. A word is never replaced by END, since the true
    caption continues. The target remains the true caption.

    Args:
        schedule: how ε falls.
        likeliest: whether the own word is the most probable one instead of a drawn one (Bengio 2015 has both).
    """

    def __init__(self, schedule: Schedule, likeliest: bool = False) -> None:
        self.schedule, self.likeliest = schedule, likeliest

    def teach(self, decoder: Decoder, memory: Memory, batch: CaptionBatch, loss: CaptionLoss, step: int) -> Taught:
        memory, tokens = rows(memory, batch, loss.draws)
        truth = self.schedule.truth(step)
        heard = tokens[:, :-1]
        if truth < 1:
            heard = self.mix(decoder, memory, tokens, truth)
        taught = forced(decoder, memory, tokens, heard, loss, batch.regions)
        replaced = (heard != tokens[:, :-1]).sum() / processes.mean((tokens[:, 1:-1] > END).sum())
        return taught._replace(logs=taught.logs | {"truth": taught.loss.new_tensor(truth), "replaced": replaced})

    @torch.no_grad()
    def mix(self, decoder: Decoder, memory: Memory, tokens: Tensor, truth: float) -> Tensor:
        """Captions (N, T) with START as the inputs (N, T − 1) that the decoder hears."""
        target = memory.per_image(tokens[:, 1:])
        keep = torch.rand(target.shape, dtype=torch.float32, device=tokens.device) < truth
        mixed = decode(decoder, memory, _Mix(target, keep, self.likeliest), max_length=tokens.shape[1] - 2).tokens
        return torch.cat([tokens[:, :1], mixed[:, : tokens.shape[1] - 2]], dim=1)


class _Mix(Search):
    """The true words (B, K, T) where they are kept, and the decoder's own elsewhere; it ends where the truth ends."""

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
    """Captions of its own, sampled and rewarded: self-critical sequence training (Rennie et al. 2017).

    Meant for a captioner that has learnt by teacher forcing before (`--start_from`), at a small learning rate. The
    captions in a batch are not looked at, only its images. Samples come from the decoder as it trains, with dropout and
    drawn places, and the gradient flows through the very steps that drew them: it is on-policy. CIDEr-D has the
    document frequencies of the training captions, and END counts as a word (see `CiderReward`). An image whose captions
    in a batch went to two processes is sampled by both.

    Args:
        samples: captions drawn for each image.
        baseline: "mean" of an image's other samples, or the reward of its "greedy" caption.
        reward: "CIDEr-D" against the training captions, or "truth" (see `TruthReward`), which needs data that knows all
            that is in its images, such as generated scenes.

    Raises:
        InputError: if the mean has no other sample; if there is no such reward.
    """

    reads_captions = False

    def __init__(self, samples: int = 5, baseline: CriticKind = "mean", reward: RewardKind = "CIDEr-D") -> None:
        if samples < (2 if baseline == "mean" else 1):
            raise InputError(f"samples is {samples}; self-critical training with baseline '{baseline}' needs more")
        if reward not in get_args(RewardKind):
            raise InputError(f"reward is '{reward}'; it must be one of {', '.join(get_args(RewardKind))}")
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


def rows(memory: Memory, batch: CaptionBatch, draws: int = 1) -> tuple[Memory, Tensor]:
    """A memory for a batch's captions, and those captions, each `draws` times.

    Where each image has as many captions, in a row, they share its row of the memory; else rows are copied.
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
    regions: Tensor | None = None,
) -> Taught:
    """The loss of captions (N, T) with START, given the words (N, T − 1) that the decoder hears before each next.

    Regions are those of `CaptionBatch`, of each of its captions, which may stand here several times in a row.
    """
    logits, glimpses = decoder(memory, heard)
    if regions is not None:
        regions = regions.repeat_interleave(len(tokens) // len(regions), dim=0)
    losses = loss(logits, glimpses, tokens[:, 1:], regions)
    logs = {
        "cross_entropy": losses.cross_entropy,
        "doubly_stochastic": losses.doubly_stochastic,
        "accuracy": losses.accuracy,
    }
    if loss.supervision:
        logs["supervision"] = losses.supervision
    return Taught(losses.loss, int((tokens[:, 1:] != PAD).sum()), logs | losses.diagnostics, losses.reinforce)
