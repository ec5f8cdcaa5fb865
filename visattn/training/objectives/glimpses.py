"""The objective of glimpse models: name the class, look where that succeeds, and stop when it is known."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visattn.errors import require_choice, require_number
from visattn.models.glimpses import Scan
from visattn.training import processes
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

    A model that learns to stop after glimpse t with probability λ_t stops there in all with p_t = λ_t Π_{s<t} (1 − λ_s)
    (Banino 2021, "PonderNet", section 2), and all glimpses are taken in training. Stopping costs cost_t + price · t,
    with a price of each glimpse (Graves 2016, "Adaptive computation time") where PonderNet has a prior; going on costs
    what is expected under the later λ. Each decision is a classification of the cheaper choice, weighted by the
    difference A_t: |A_t| · −log p(cheaper) (Lagoudakis and Parr 2003, "Reinforcement learning as classification"). In
    its optimum λ_t ≥ 1/2 just where stopping is cheaper in expectation; and unlike the gradient of the expected cost it
    does not vanish where λ_t is nearly 0, as it is before the class can be told. It trains λ alone.

    Args:
        classify: train the class after the "last" glimpse, as published, or after "each", whose mean is then taken:
            the model can be stopped at any glimpse.
        cost: of a scan, for the locations: "error", 0 if the class is right and 1 if not, as published, or
            "likelihood", −log p of the true class. It is that of the last glimpse, or of each as in `classify`. For
            stopping it is that of the glimpse after which the model stops.
        estimator: of the gradient of the locations: anything with the `estimate` of `Reinforce`, and with a
            `baseline` that says how many draws it needs. The default assigns to a location the costs from its own
            glimpse on, less what the model's baseline network expects.
        samples: copies of each picture in a batch, each with its own scan, on top of those that the baseline needs.
        price: of a glimpse, for models that learn to stop: with "error", 0.01 says that a glimpse is worth taking if it
            saves one error in a hundred pictures. None where the model does not learn to stop.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        classify: Classify = "each",
        cost: Cost = "error",
        estimator: Reinforce | None = None,
        samples: int = 1,
        price: float | None = None,
    ) -> None:
        super().__init__()
        require_choice("classify", classify, get_args(Classify))
        require_choice("cost", cost, get_args(Cost))
        require_number("samples", samples, least=1, of="each picture")
        if price is not None:
            require_number("price", price, least=0, of="a glimpse")
        self.classify, self.cost, self.samples, self.price = classify, cost, samples, price
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
        losses = (nll * counted).sum(dim=1) + estimate.surrogate
        if self.price is None:
            return GlimpseLosses(losses, nll.detach(), estimate.diagnostics)
        numbers = torch.arange(1, count + 1, device=costs.device)
        decided = decisions(scan.stop, costs.detach() + self.price * numbers).sum(dim=1)
        rows = processes.mean(costs.new_tensor(batch))
        glimpses = (stopping(scan.stop.detach()) * numbers).sum() / rows
        return GlimpseLosses(losses + decided, nll.detach(), {**estimate.diagnostics, "glimpses": glimpses})


def decisions(logits: Tensor, costs: Tensor) -> Tensor:
    """(B, T − 1) |A_t| · −log p(cheaper choice) after each glimpse but the last; see `GlimpseLoss`.

    Args:
        logits: (B, T) of λ.
        costs: (B, T) of stopping after each glimpse.
    """
    chances, later, advantages = logits.detach().sigmoid(), costs[:, -1], []
    for t in reversed(range(costs.shape[1] - 1)):
        advantages.append(later - costs[:, t])  # of stopping
        later = later - chances[:, t] * advantages[-1]
    advantage = torch.stack(advantages[::-1], dim=1) if advantages else costs[:, :0]
    return advantage.abs() * F.softplus(-advantage.sign() * logits[:, :-1])


def stopping(logits: Tensor) -> Tensor:
    """(B, T) p_t = λ_t Π_{s<t} (1 − λ_s) of stopping after each glimpse, from the logits (B, T) of λ."""
    going = F.logsigmoid(-logits[:, :-1]).cumsum(dim=1)  # the last λ is 1, whose log would be −∞
    return logits.sigmoid() * F.pad(going, (1, 0)).exp()
