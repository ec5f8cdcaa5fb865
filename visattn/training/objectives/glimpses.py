"""The objective of glimpse models: name the class, and look where that succeeds."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.models.glimpses import Scan
from visattn.training.objectives.reinforce import LearnedValue, Reinforce

Classify = Literal["last", "each"]
Cost = Literal["error", "likelihood"]


class GlimpseLosses(NamedTuple):
    """Result of `GlimpseLoss`.

    Attributes:
        losses: (B,) whose sum is to be minimised; the value is meaningless, as that of a surrogate.
        nll: (B, T) −log p of the true class after each glimpse, without gradient.
        diagnostics: scalars of the estimator, see `Reinforce`.
    """

    losses: Tensor
    nll: Tensor
    diagnostics: dict[str, Tensor]


class GlimpseLoss(nn.Module):
    """Cross-entropy of the class, and an estimate of the gradient of the locations (Mnih 2014, eq. 2 and 3).

    Args:
        classify: train the class after the "last" glimpse, as published, or after "each", whose mean is then taken:
            the model can be stopped at any glimpse.
        cost: of a scan, for the locations: "error", 0 if the class is right and 1 if not, as published, or
            "likelihood", −log p of the true class. It is that of the last glimpse, or of each as in `classify`.
        estimator: of the gradient of the locations: anything with the `estimate` of `Reinforce`, and with a
            `baseline` that says how many draws it needs. The default assigns to a location the costs from its own
            glimpse on, less what the model's baseline network expects.
        samples: copies of each picture in a batch, each with its own scan, on top of those that the baseline needs.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        classify: Classify = "each",
        cost: Cost = "error",
        estimator: Reinforce | None = None,
        samples: int = 1,
    ) -> None:
        super().__init__()
        for name, value, kinds in (("classify", classify, Classify), ("cost", cost, Cost)):
            if value not in get_args(kinds):
                raise InputError(f"{name} is '{value}'; it must be one of {', '.join(get_args(kinds))}")
        if samples < 1:
            raise InputError(f"samples is {samples}; the objective needs at least 1 scan of each picture")
        self.classify, self.cost, self.samples = classify, cost, samples
        self.estimator = estimator or Reinforce(reward="to_go", baseline=LearnedValue())

    @property
    def draws(self) -> int:
        """Consecutive copies of each picture that `forward` needs."""
        return self.samples * self.estimator.baseline.draws

    def forward(self, scan: Scan, labels: Tensor) -> GlimpseLosses:
        """A scan of pictures and their labels (B,), each in `draws` copies one after the other."""
        batch, count = scan.logits.shape[:2]
        logits = scan.logits.float()
        nll = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(count), reduction="none")
        nll = nll.unflatten(0, (batch, count))
        counted = torch.ones_like(nll) if self.classify == "each" else F.one_hot(labels.new_tensor(count - 1), count)
        counted = counted / counted.sum(dim=-1, keepdim=True)
        costs = nll if self.cost == "likelihood" else (logits.argmax(dim=-1) != labels[:, None]).float()
        mask = torch.ones_like(nll, dtype=torch.bool)
        estimate = self.estimator.estimate(
            (costs * counted).detach(), scan.log_prob, scan.entropy, mask, scan.values.float()
        )
        return GlimpseLosses((nll * counted).sum(dim=1) + estimate.surrogate, nll.detach(), estimate.diagnostics)
