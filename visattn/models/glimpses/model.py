"""The recurrent model of visual attention: look, remember, decide where to look next, name the class."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visattn.errors import require_number
from visattn.images.geometry import pair
from visattn.models.glimpses.networks import ConvolutionalTrunk, GlimpseNetwork
from visattn.models.glimpses.policy import GaussianPolicy, LocationPolicy
from visattn.models.glimpses.retina import Retina, Sensor


class Scan(NamedTuple):
    """What a model saw and said, glimpse by glimpse; T glimpses of B pictures.

    Attributes:
        logits: (B, T, classes) after each glimpse.
        locations: (B, T, 2) in [−1, 1], vertical first; see `visattn.models.glimpses.retina`.
        log_prob: (B, T) of the locations that were drawn; 0 for the others.
        entropy: (B, T) of their distributions.
        values: (B, T) the cost of the rest of the scan that the baseline network expects before each glimpse.
        stop: (B, T) logits of the probability of stopping after each glimpse, if it is reached; +∞ after the last, and
            −∞ after the others without learned stopping.
    """

    logits: Tensor
    locations: Tensor
    log_prob: Tensor
    entropy: Tensor
    values: Tensor
    stop: Tensor

    def taken(self, threshold: float = 0.5) -> Tensor:
        """(B,) glimpses until the probability of stopping first reaches a threshold in (0, 1], from 1 to T."""
        return (self.stop.sigmoid() >= threshold).int().argmax(dim=1) + 1

    def answer(self, taken: Tensor) -> Tensor:
        """(B, classes) logits after as many glimpses as `taken` (B,) says."""
        return self.logits[torch.arange(len(taken), device=taken.device), taken - 1]


class GlimpseModel(nn.Module):
    """Recurrent visual attention (Mnih 2014), with the context network of Ba 2015 as an option.

    Glimpse g_t = f(sensor(x, l_t), l_t) (Mnih, section 3.1, "glimpse network"), state h_t = LSTM(g_t, h_{t−1}), class
    from h_t, and the next location l_{t+1} ~ π(h_t). Without a context network the first location is chosen in the
    state 0, and so is the same for all pictures, but for the draw.

    With a context network (Ba 2015, section 3) a second LSTM r_t = LSTM(h_t, r_{t−1}) chooses the locations. Its first
    state is the context network's view of the whole picture at low resolution, so it chooses the first location too;
    the class never sees that view and must come from glimpses.

    With `stop` the model decides after each glimpse whether it has seen enough, with probability λ_t (Banino 2021,
    "PonderNet", section 2); outside training it stops as soon as λ_t ≥ 1/2. λ_t = σ(w log(1 − p_t) + b), where p_t is
    the probability of the likeliest class. `scan` takes all glimpses in any case.

    Args:
        classes: number of classes.
        image_size: (h, w) of the pictures.
        glimpses: T, how many are taken.
        hidden: size of the states.
        sensor: makes the sensor from the image size.
        policy: makes the location policy from the size of the state that it sees.
        glimpse: makes the glimpse network from the sensor and the size of its output.
        context: makes the context network from the image size and the size of its output, or None.
        detach: end the gradient of locations, stopping and baseline at the state h_t, so that only the classification
            shapes what is remembered; with a context network the second LSTM is trained by the locations in any case.
        stop: learn when to stop; needs an objective with a `price`.

    Raises:
        InputError: if an option is out of its range, here or in one of the parts.
    """

    def __init__(
        self,
        classes: int,
        image_size: tuple[int, int],
        glimpses: int = 6,
        hidden: int = 128,
        sensor: Callable[[tuple[int, int]], Sensor] = Retina,
        policy: Callable[[int], LocationPolicy] = GaussianPolicy,
        glimpse: Callable[[Sensor, int], nn.Module] = GlimpseNetwork,
        context: Callable[[tuple[int, int], int], nn.Module] | None = None,
        detach: bool = True,
        stop: bool = False,
    ) -> None:
        super().__init__()
        require_number("glimpses", glimpses, least=1)
        require_number("hidden", hidden, least=1)
        self.image_size, self.glimpses, self.hidden, self.detach = pair(image_size), glimpses, hidden, detach
        self.sensor = sensor(self.image_size)
        self.glimpse = glimpse(self.sensor, hidden)
        self.core = nn.LSTMCell(hidden, hidden)
        self.context = context(self.image_size, hidden) if context else None
        self.locator = nn.LSTMCell(hidden, hidden) if context else None
        self.policy = policy(hidden)
        self.value = nn.Linear(hidden, 1)
        self.head = nn.Linear(hidden, classes)
        self.stop = nn.Linear(1, 1) if stop else None
        for layer in (self.value, *([] if self.stop is None else [self.stop])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to the logits (B, classes) after the last glimpse.

        With learned stopping that is each image's own last one; nothing more is computed once all have stopped.
        """
        if self.stop is None:
            return self.scan(images).logits[:, -1]
        steps = []
        for step in self._steps(images):
            steps.append(step)
            if bool((torch.stack([each.stop for each in steps]) >= 0).any(dim=0).all()):
                break
        scan = _stacked(steps)
        return scan.answer(scan.taken())

    def scan(self, images: Tensor) -> Scan:
        """Take all glimpses at normalised images (B, 3, h, w)."""
        return _stacked(list(self._steps(images)))

    def _steps(self, images: Tensor) -> Iterator[Scan]:
        """Each glimpse as a scan without its axis T."""
        zeros = images.new_zeros(len(images), self.hidden)
        core, locator = (zeros, zeros), (zeros, zeros)
        if self.context is not None:
            locator = self.context(images), zeros
        for t in range(self.glimpses):
            if t and self.locator is not None:
                locator = self.locator(self._towards_locations(core[0]), locator)
            state = locator[0] if self.locator is not None else self._towards_locations(core[0])
            fixation = self.policy(state, t)
            value = self.value(state.detach() if self.detach else state)[:, 0]
            location = fixation.location.to(images.dtype)
            core = self.core(self.glimpse(self.sensor(images, location), location), core)
            logits = self.head(core[0])
            enough = self._enough(logits, t)
            yield Scan(logits, location, fixation.log_prob, fixation.entropy, value, enough)

    def _enough(self, logits: Tensor, t: int) -> Tensor:
        """(B,) logits of stopping after glimpse `t`, from 0, with these logits of the class."""
        if t == self.glimpses - 1:
            return torch.full_like(logits[:, 0], math.inf)
        if self.stop is None:
            return torch.full_like(logits[:, 0], -math.inf)
        likeliest = self._towards_locations(logits).float().softmax(dim=-1).amax(dim=-1, keepdim=True)
        unsure = (1 - likeliest).clamp(min=1e-6).log()  # in float32 1 − p has hardly smaller values
        return self.stop(unsure.to(logits.dtype))[:, 0]

    def _towards_locations(self, state: Tensor) -> Tensor:
        return state.detach() if self.detach else state


def _stacked(steps: Sequence[Scan]) -> Scan:
    return Scan(*(torch.stack(part, dim=1) for part in zip(*steps, strict=True)))


class WholeView(nn.Module):
    """The same backbone on the whole picture at full resolution: what a glimpse model is measured against.

    Args:
        classes: number of classes.
        image_size: (h, w) of the pictures.
        hidden: size of the vector that is classified.
        widths: channels of the convolutions; each halves the picture.

    Raises:
        InputError: if the picture is too small for so many halvings.
    """

    def __init__(
        self,
        classes: int,
        image_size: tuple[int, int],
        hidden: int = 128,
        widths: Sequence[int] = (16, 32, 64, 64, 64),
    ) -> None:
        super().__init__()
        self.trunk = ConvolutionalTrunk(3, image_size, hidden, widths)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to logits (B, classes)."""
        return self.head(self.trunk(images).relu())
