"""Where a glimpse model looks next: distributions over locations, given its state.

A policy knows nothing about how it is trained: it returns the log-probability of what it drew, and an estimator of the
gradient (`visattn.training.objectives`) makes a loss of it.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from visattn.errors import require_choice, require_number

Evaluation = Literal["mean", "sample"]


class Fixation(NamedTuple):
    """One choice of a location for each picture.

    Attributes:
        location: (B, 2) in [−1, 1], vertical first; without gradient if it was drawn.
        log_prob: (B,) log-probability or log-density of the draw; 0 if nothing was drawn.
        entropy: (B,) of the distribution, in nats; 0 if there is none.
    """

    location: Tensor
    log_prob: Tensor
    entropy: Tensor

    @classmethod
    def fixed(cls, location: Tensor) -> "Fixation":
        """Of locations (B, 2) that were not drawn."""
        nothing = torch.zeros_like(location[:, 0])
        return cls(location, nothing, nothing)


class LocationPolicy(nn.Module):
    """The interface. A constructor takes `state_size` first; everything else has a default."""

    def forward(self, state: Tensor, t: int) -> Fixation:
        """The state (B, state_size) in which glimpse number `t` is chosen, from 0, to where it is taken."""
        raise NotImplementedError


class GaussianPolicy(LocationPolicy):
    """A normal distribution around a location that the network computes (Mnih 2014, section 3.1).

    The mean is tanh of a linear function of the state. A draw beyond the picture is moved to its border; its density is
    that of the draw itself, so the border changes what is seen and not the estimate of the gradient.

    Without a radius all means start at the centre, where glimpses see the same. With one, training starts from glimpses
    spread over a circle: glimpse t has the mean tanh(W h + b_t), and b_t is learned, too.

    Args:
        state_size: size of the state.
        std: standard deviation in each direction; the picture's side is 2.
        evaluation: what is used outside training: the mean of the distribution, or a "sample".
        radius: of the circle.
        points: number of places on it, the first above the centre, then clockwise; later glimpses begin again.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self, state_size: int, std: float = 0.2, evaluation: Evaluation = "mean", radius: float = 0.0, points: int = 6
    ) -> None:
        super().__init__()
        require_number("std of the location policy", std, above=0)
        require_number("radius of the location policy", radius, least=0, below=1)
        require_number("points of the location policy", points, least=1)
        require_choice("evaluation of the location policy", evaluation, get_args(Evaluation))
        self.std, self.evaluation = std, evaluation
        self.mean = nn.Linear(state_size, 2)
        nn.init.normal_(self.mean.weight, std=0.01)
        nn.init.zeros_(self.mean.bias)
        angles = torch.arange(points) * (2 * math.pi / points)
        circle = radius * torch.stack([-angles.cos(), angles.sin()], dim=1)
        self.starts = nn.Parameter(circle.atanh()) if radius else None

    def forward(self, state: Tensor, t: int) -> Fixation:
        mean = self.mean(state).float()
        if self.starts is not None:
            mean = mean + self.starts[t % len(self.starts)]
        mean = mean.tanh()
        if not self.training and self.evaluation == "mean":
            return Fixation.fixed(mean)
        drawn = (mean + self.std * torch.randn_like(mean)).detach()
        log_prob = -0.5 * ((drawn - mean) / self.std).square() - math.log(self.std * math.sqrt(2 * math.pi))
        entropy = torch.full_like(mean[:, 0], 2 * math.log(self.std) + 1 + math.log(2 * math.pi))
        return Fixation(drawn.clamp(-1, 1), log_prob.sum(dim=-1), entropy)


class GridPolicy(LocationPolicy):
    """A categorical distribution over the cells of a grid, whose centres are the locations.

    Args:
        state_size: size of the state.
        rows: cells from top to bottom.
        columns: cells from left to right.
        evaluation: what is used outside training: the most probable cell ("mean"), or a "sample".

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, state_size: int, rows: int = 8, columns: int = 8, evaluation: Evaluation = "mean") -> None:
        super().__init__()
        require_number("rows of the location policy", rows, least=1)
        require_number("columns of the location policy", columns, least=1)
        require_choice("evaluation of the location policy", evaluation, get_args(Evaluation))
        self.rows, self.columns, self.evaluation = rows, columns, evaluation
        self.scores = nn.Linear(state_size, rows * columns)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.zeros_(self.scores.bias)

    def forward(self, state: Tensor, t: int) -> Fixation:
        log_probs = self.scores(state).float().log_softmax(dim=-1)
        if not self.training and self.evaluation == "mean":
            return Fixation.fixed(self.centre(log_probs.argmax(dim=-1)).to(state.dtype))
        cell = self.draw(log_probs.exp())
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        return Fixation(self.centre(cell), log_probs.gather(1, cell[:, None])[:, 0], entropy)

    def draw(self, probabilities: Tensor) -> Tensor:
        """One cell for each row of (B, rows · columns)."""
        return probabilities.detach().multinomial(1)[:, 0]

    def centre(self, cell: Tensor) -> Tensor:
        """Numbers of cells (B,), row by row, to the locations of their centres (B, 2)."""
        row, column = cell // self.columns, cell % self.columns
        return torch.stack([(2 * row + 1) / self.rows - 1, (2 * column + 1) / self.columns - 1], dim=-1)


class RandomPolicy(LocationPolicy):
    """Uniform over the picture, whatever the state: what a learned policy must be better than.

    Args:
        state_size: ignored.
        extent: of the square around the centre that is drawn from, as a share of the picture's side.

    Raises:
        InputError: if `extent` is out of its range.
    """

    def __init__(self, state_size: int = 0, extent: float = 1.0) -> None:
        super().__init__()
        require_number("extent of the location policy", extent, least=0, most=1)
        self.extent = extent

    def forward(self, state: Tensor, t: int) -> Fixation:
        draw = torch.rand(len(state), 2, dtype=torch.float32, device=state.device)
        return Fixation.fixed((2 * draw - 1) * self.extent)


class CentrePolicy(LocationPolicy):
    """Always the centre of the picture."""

    def __init__(self, state_size: int = 0) -> None:
        super().__init__()

    def forward(self, state: Tensor, t: int) -> Fixation:
        return Fixation.fixed(state.new_zeros(len(state), 2))
