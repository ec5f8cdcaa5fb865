"""What test_processes.py has done by one process and by two: steps on a batch or on shares of it, then whole runs.

As a program, started by torchrun, it does its part of both: `shares.py STEPS.pt RUNS.json`.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from visattn.attention import HardAttention
from visattn.cli import main
from visattn.data import ShapesClasses
from visattn.data.batch import CaptionBatch
from visattn.decoding import Choice, Sampling
from visattn.models import GridPolicy, LSTMDecoder
from visattn.training import processes, regimes
from visattn.training.objectives import (
    ArcticReinforce,
    CaptionLoss,
    LeaveOneOut,
    LinearDecay,
    MovingAverage,
    Reinforce,
)
from visattn.training.regimes import ScheduledSampling, SelfCritical, TeacherForcing
from visattn.vocabulary import END, PAD, SPECIALS, START, Vocabulary

# ---------------------------------------------------------------- draws that are fixed, so that runs can be compared


class SecondPlace(HardAttention):
    """It "samples" the second most likely place; for further samples of the same caption, the third and so on."""

    draws = 1

    def draw(self, weights: Tensor) -> Tensor:
        which = 1 + torch.arange(len(weights)) % self.draws
        return weights.argsort(dim=-1, descending=True).gather(1, which.unsqueeze(1)).squeeze(1)


class Ranked(Sampling):
    """The k-th sample takes another of the three most likely words at every step."""

    def extend(self, totals: Tensor, log_probs: Tensor, t: int, images: Tensor) -> Choice:
        which = (torch.arange(self.width) + t) % 3
        likeliest = log_probs.detach().topk(3, dim=-1).indices  # (B, K, 3)
        tokens = likeliest[:, torch.arange(self.width), which]
        return Choice(None, tokens, tokens == END)


class StillClasses(ShapesClasses):
    """Without augmentation, which is random for each process's share."""

    def __init__(self, train_size: int = 23, val_size: int = 7, batch_size: int = 8) -> None:
        super().__init__(train_size, val_size, 7, batch_size=batch_size, eval_batch_size=3)
        self.padding, self.flip = 0, False


class SecondCell(GridPolicy):
    """It "draws" the second most likely cell."""

    def draw(self, probabilities: Tensor) -> Tensor:
        return probabilities.argsort(dim=-1, descending=True)[:, 1]


class Witness(Callback):
    """Writes each process's first random numbers and final weights to a file."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: object, pl_module: object) -> None:
        self.drawn = [random.random(), np.random.rand(), torch.rand(1).item()]

    def on_train_end(self, trainer: object, pl_module: nn.Module) -> None:
        saw = {
            "drawn": self.drawn,
            "best": float(trainer.checkpoint_callback.best_model_score),
            "logged": {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")},
            "weights": float(sum(p.double().abs().sum() for p in pl_module.parameters())),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(saw))


class Signalled(Callback):
    """Sends a signal to one process only, during the step after `steps`."""

    def __init__(self, number: int, rank: int, step: int) -> None:
        self.number, self.rank, self.step = number, rank, step

    def on_train_batch_start(self, trainer: object, pl_module: object, batch: object, index: int) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            os.kill(os.getpid(), self.number)


# ---------------------------------------------------------------- steps of a decoder

GRID, D, V, WORDS = (2, 3), 5, 13, 7
IMAGES = [f"image {i}" for i in range(8)]


def captions() -> Tensor:
    """(8, 9) of one to seven words; the even ones are short, so two shares have very different numbers of tokens."""
    rng = np.random.default_rng(5)
    tokens = torch.full((8, WORDS + 2), PAD)
    for i in range(8):
        words = rng.integers(len(SPECIALS), V, (1 if i % 2 == 0 else 5) + i // 3)
        tokens[i, : len(words) + 2] = torch.tensor([START, *words, END])
    return tokens


REGIMES: dict[str, Callable[[], tuple[regimes.Regime, CaptionLoss]]] = {
    "teacher forcing": lambda: (TeacherForcing(), CaptionLoss(0.5, label_smoothing=0.1)),
    "moving average": lambda: (
        TeacherForcing(),
        CaptionLoss(0.2, reinforce=Reinforce(0.7, 0.1, "to_go", MovingAverage(steps=3))),
    ),
    "leave one out": lambda: (TeacherForcing(), CaptionLoss(0.0, reinforce=Reinforce(baseline=LeaveOneOut(2)))),
    "the authors' weights": lambda: (TeacherForcing(), CaptionLoss(1.0, reinforce=ArcticReinforce())),
    "scheduled sampling": lambda: (ScheduledSampling(LinearDecay(0.0, start=0.0), likeliest=True), CaptionLoss(0.3)),
    "self-critical": lambda: (SelfCritical(samples=3), CaptionLoss()),
    "self-critical, greedy": lambda: (SelfCritical(samples=2, baseline="greedy"), CaptionLoss()),
}


class Step(nn.Module):
    """A regime's loss in a `forward` method, which DistributedDataParallel hooks into."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.regime, self.loss = REGIMES[name]()
        torch.manual_seed(2)
        attention = SecondPlace if self.loss.reinforce else HardAttention
        probability = 1.0 if self.loss.reinforce else 0.0
        self.decoder = LSTMDecoder(V, D, lambda q, d: attention(q, d, probability=probability), 11, 7, dropout=0.0)
        self.decoder.attention.draws = self.loss.copies(places=1, steps=1)
        with torch.no_grad():  # not so even that one word is as good as another
            for parameter in self.decoder.parameters():
                parameter.mul_(3)
        words = [*SPECIALS, *(f"w{i}" for i in range(V - len(SPECIALS)))]
        said = {
            name: [[words[i] for i in row if i > END]] for name, row in zip(IMAGES, captions().tolist(), strict=True)
        }
        self.regime.begin(said, Vocabulary(words), WORDS)

    def forward(self, values: Tensor, batch: CaptionBatch, step: int) -> Tensor:
        taught = self.regime.teach(self.decoder, self.decoder.prepare(values, GRID), batch, self.loss, step)
        self.logs = taught.logs
        return taught.loss


def steps(name: str) -> dict[str, Tensor]:
    """Three steps of plain descent on batches of 8, 7 and 8 captions: all that must not hang on who did what."""
    regimes.Sampling = Ranked
    rank, world = processes.rank(), processes.world()
    module = Step(name)
    model = DistributedDataParallel(module) if world > 1 else module
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    values, out = torch.randn(8, GRID[0] * GRID[1], D, generator=torch.Generator().manual_seed(3)), {}
    for step, size in enumerate((8, 7, 8)):
        own = slice(rank, size, world)
        tokens = captions()[own]
        tokens = tokens[:, : int((tokens != PAD).sum(dim=1).max())]  # each share is padded to its own longest
        ids = IMAGES[own]
        loss = model(values[own], CaptionBatch(None, None, torch.arange(len(ids)), tokens, ids), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out[f"{step} loss"] = processes.mean(loss)
        out |= {f"{step} {key}": processes.mean(value) for key, value in module.logs.items()}
        out |= {f"{step} ∂{key}": parameter.grad.clone() for key, parameter in module.named_parameters()}
        out |= {f"{step} {key}": buffer.clone() for key, buffer in module.named_buffers()}
    return out


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    found = {name: steps(name) for name in REGIMES}
    if processes.rank() == 0:
        torch.save(found, sys.argv[1])
    for run in json.loads(Path(sys.argv[2]).read_text()):
        if status := main(run):
            sys.exit(status)
