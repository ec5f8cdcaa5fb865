"""The REINFORCE estimator against the truth: every sequence of places enumerated."""

import functools
import itertools

import pytest
import torch
from lightning import Trainer

from visattn.attention import Glimpse, HardAttention
from visattn.data import ShapesCaptions
from visattn.errors import InputError
from visattn.models import Decoder, Encoder, LSTMDecoder, LuongDecoder
from visattn.training.captioner import Captioner
from visattn.training.objectives import (
    ArcticReinforce,
    CaptionLoss,
    LeaveOneOut,
    MovingAverage,
    NoBaseline,
    Reinforce,
    gradient_share,
)
from visattn.training.optimization import Optimization
from visattn.vocabulary import PAD

GRID, D, Q, V = (1, 3), 5, 7, 11
TARGETS = torch.tensor([[4, 9, 2]])  # two words and END: 27 sequences of places
COPIES, BATCHES = 180, 64

BASELINES = {
    "none": NoBaseline,
    "moving average": MovingAverage,
    "moving average a step": lambda: MovingAverage(steps=3),
    "leave one out": lambda: LeaveOneOut(draws=3),
}


class Prescribed(HardAttention):
    """Draws what it is told to."""

    def draw(self, weights):
        return torch.full((len(weights),), next(self.places))


def model(attention=HardAttention):
    torch.manual_seed(4)
    made = LSTMDecoder(V, D, lambda q, d: attention(q, d, probability=1.0), hidden=Q, embedding=13, dropout=0.0)
    with torch.no_grad():  # sharper than at the start of training, so that places matter
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.double(), torch.randn(1, 3, D, dtype=torch.float64)


def inputs(copies):
    return torch.tensor([[1, 4, 9]]).repeat(copies, 1), TARGETS.repeat(copies, 1)


def flat(decoder, value):
    gradients = torch.autograd.grad(value, list(decoder.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def exact(reward):
    """The gradient of the expected cost, by enumeration; of the expected cost of each word alone for "step"."""
    decoder, values = model(Prescribed)
    tokens, targets = inputs(1)
    total = 0.0
    for places in itertools.product(range(3), repeat=3):
        decoder.attention.places = iter(places)
        logits, glimpses = decoder(decoder.prepare(values, GRID), tokens)
        nll = -logits.log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        probability = glimpses.log_prob.sum().exp()
        if reward == "step":  # what it is blind to: a place's share in the costs of later words
            blind = (nll.detach() * glimpses.log_prob).sum() + nll.sum()
            total = total + probability.detach() * blind
        else:
            total = total + probability * nll.sum()
    return flat(decoder, total)


@functools.cache
def estimates(reward, baseline, weight=1.0):
    """(BATCHES, P) the gradients of one caption's cost as batches of drawn places estimate them."""
    decoder, values = model()
    tokens, targets = inputs(COPIES)
    loss = CaptionLoss(doubly_stochastic=0.0, reinforce=Reinforce(weight, reward=reward, baseline=baseline()))
    torch.manual_seed(11)
    out = []
    for _ in range(BATCHES):
        memory = decoder.prepare(values.expand(COPIES, -1, -1), GRID)
        logits, glimpses = decoder(memory, tokens)
        out.append(flat(decoder, loss(logits, glimpses, targets).loss * 3))  # 3 tokens a caption
    return torch.stack(out)


def deviations(samples, truth):
    """In standard errors, along seven random directions in the space of parameters."""
    directions = torch.randn(len(truth), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = samples @ directions
    return (along.mean(0) - truth @ directions) / (along.std(0) / len(samples) ** 0.5)


@pytest.mark.parametrize(
    ("baseline", "reward"),
    [*itertools.product(BASELINES, ("caption", "to_go")), ("none", "step"), ("leave one out", "step")],
)
def test_the_mean_of_the_estimator_is_the_exact_gradient(baseline, reward):
    assert deviations(estimates(reward, BASELINES[baseline]), exact(reward)).abs().max() < 3


def test_the_test_has_enough_power():
    """Half of the weight, or a reward that is blind to later words, is more than three standard errors away."""
    assert deviations(estimates("caption", NoBaseline, weight=0.5), exact("caption")).abs().max() > 6
    assert deviations(estimates("step", BASELINES["leave one out"]), exact("caption")).abs().max() > 6


def test_a_baseline_lowers_the_variance_and_so_does_a_later_reward():
    variance = {
        (name, reward): estimates(reward, baseline)[30:].var(0).sum()  # when the average has settled
        for name, baseline in BASELINES.items()
        for reward in ("caption", "to_go")
    }
    for reward in ("caption", "to_go"):
        none = variance["none", reward]
        assert variance["moving average a step", reward] < 0.5 * none
        assert variance["leave one out", reward] < 0.7 * none
    assert variance["moving average", "caption"] < 0.5 * variance["none", "caption"]
    assert variance["none", "to_go"] < variance["none", "caption"]


def example(seed=0, copies=1):
    generator = torch.Generator().manual_seed(seed)
    b, t, v, places = 6, 5, 11, 7
    logits = torch.randn(b, t, v, generator=generator).repeat(copies, 1, 1)
    weights = torch.randn(b, t, places, generator=generator).softmax(-1).repeat(copies, 1, 1)
    log_prob = weights[..., 0].log()
    log_prob[1::2] = 0  # the coin fell on α
    targets = torch.tensor([[4, 5, 6, 7, 2], [8, 9, 2, PAD, PAD]]).repeat(3 * copies, 1)
    weights.requires_grad_()
    log_prob.requires_grad_()
    gate = torch.ones_like(log_prob)
    return logits, Glimpse(torch.zeros(b * copies, t, 1), weights, weights, log_prob, gate), targets


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize("reward", ["caption", "to_go", "step", "mean"])
def test_duplicating_a_batch_changes_nothing(baseline, reward):
    outcomes = []
    for copies in (1, 3):
        loss = CaptionLoss(0.2, reinforce=Reinforce(0.7, entropy=0.1, reward=reward, baseline=baseline()))
        for seed in (0, 1):  # the second batch is judged by what the first left behind
            logits, glimpses, targets = example(seed, copies)
            losses = loss(logits, glimpses, targets)
        gradients = torch.autograd.grad(losses.loss, [glimpses.weights, glimpses.log_prob])
        outcomes.append([losses.loss, *(g.unflatten(0, (copies, -1)).sum(0) for g in gradients)])
        outcomes[-1] += losses.diagnostics.values()
    for once, thrice in zip(*outcomes, strict=True):
        torch.testing.assert_close(once, thrice)


def test_the_published_moving_average():
    baseline = MovingAverage(decay=0.9)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    costs = torch.tensor([[4.0, 4.0, 4.0], [2.0, 0.0, 0.0]])  # a caption of 4 nats, another of 2
    assert torch.all(baseline(costs, mask) == 0)
    torch.testing.assert_close(baseline(costs * 2, mask), torch.full((2, 3), 0.1 * 3.0))
    torch.testing.assert_close(baseline.eval()(costs, mask), torch.full((2, 3), 0.9 * 0.3 + 0.1 * 6.0))
    torch.testing.assert_close(baseline(costs, mask), torch.full((2, 3), 0.9 * 0.3 + 0.1 * 6.0))  # not in evaluation


def test_an_average_for_each_step_waits_for_captions_that_long():
    baseline = MovingAverage(decay=0.0, steps=3)
    costs = torch.tensor([[5.0, 3.0, 1.0, 7.0], [1.0, 0.0, 0.0, 0.0]])
    baseline(costs, torch.tensor([[True, True, False, False], [True, False, False, False]]))
    torch.testing.assert_close(baseline.average, torch.tensor([3.0, 3.0, 0.0]))
    baseline(costs, torch.tensor([[True, True, True, True], [True, False, False, False]]))
    torch.testing.assert_close(baseline.average, torch.tensor([3.0, 3.0, 4.0]))


def test_leave_one_out_by_hand():
    costs = torch.tensor([[3.0], [6.0], [9.0], [1.0], [1.0], [7.0]])
    baseline = LeaveOneOut(draws=3)(costs, torch.ones(6, 1, dtype=torch.bool))
    torch.testing.assert_close(baseline, torch.tensor([[7.5], [6.0], [4.5], [4.0], [4.0], [1.0]]))


def test_the_weights_of_the_original_code():
    """Its loss, written as `capgen.py` has it, has the gradient of ours times tokens / captions."""
    ours = CaptionLoss(doubly_stochastic=0.0, reinforce=ArcticReinforce())
    average = 0.0
    for seed in range(3):
        logits, glimpses, targets = example(seed)
        targets = targets.where(targets != PAD, 3)  # its batches hold captions of one length
        logits.requires_grad_()
        nll = -logits.log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
        cost = nll.detach().mean(1)
        literal = (
            nll.sum() / 6
            + 0.1 * ((cost - average)[:, None] * glimpses.log_prob).sum()
            + 0.002 * (glimpses.weights * glimpses.weights.log()).sum()
        )
        average = 0.9 * average + 0.1 * cost.mean()
        leaves = [logits, glimpses.weights, glimpses.log_prob]
        expected = torch.autograd.grad(literal, leaves)
        losses = ours(logits, glimpses, targets)
        assert losses.reinforce is not None
        for gradient, truth in zip(torch.autograd.grad(losses.loss * 5, leaves), expected, strict=True):
            torch.testing.assert_close(gradient, truth)


def test_diagnostics_say_what_happened():
    logits, glimpses, targets = example()
    reinforce = Reinforce(baseline=NoBaseline())
    diagnostics = CaptionLoss(reinforce=reinforce)(logits, glimpses, targets).diagnostics
    nll = -logits.log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
    costs = nll[::2].sum(1)  # the odd rows were not drawn, the even ones are five words long
    torch.testing.assert_close(diagnostics["advantage"], costs.mean())
    torch.testing.assert_close(diagnostics["advantage_variance"], costs.var(correction=0))
    assert diagnostics["baseline"] == 0
    assert diagnostics["drawn"].item() == pytest.approx(15 / 24)
    assert diagnostics["entropy"] < torch.tensor(7.0).log()


def test_reinforce_is_off_in_evaluation():
    logits, glimpses, targets = example()
    loss = CaptionLoss(doubly_stochastic=0.0, reinforce=Reinforce()).eval()
    losses = loss(logits, glimpses, targets)
    torch.testing.assert_close(losses.loss, losses.cross_entropy)
    assert losses.reinforce is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LeaveOneOut(draws=1), r"draws is 1; .*leave-one-out"),
        (lambda: MovingAverage(decay=1.0), "decay is 1.0"),
        (lambda: MovingAverage(steps=0), "steps is 0"),
        (lambda: Reinforce(weight=-1), "weight is -1"),
        (lambda: Reinforce(reward="bleu"), "reward is 'bleu'; it must be one of caption, to_go, step, mean"),
    ],
)
def test_options_out_of_range_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_a_loss_says_how_much_of_its_gradient_a_part_has():
    x, unused = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(3, requires_grad=True)
    part = 3 * x[0]  # gradient (3, 0), the rest (0, 1)
    assert gradient_share(part, part + x[1], [x, unused]).item() == pytest.approx(0.75)


class Outside(Decoder):
    """A decoder that holds another, and has nothing but the interface."""

    def __init__(self, words: int, size: int) -> None:
        super().__init__()
        self.inner = LuongDecoder(words, size, HardAttention, hidden=11, embedding=7)

    def prepare(self, values, grid, mask=None):
        return self.inner.prepare(values, grid, mask)

    def init(self, memory, captions=1):
        return self.inner.init(memory, captions)

    def step(self, state, token):
        return self.inner.step(state, token)

    def forward(self, memory, tokens):
        return self.inner(memory, tokens)


@pytest.mark.filterwarnings("ignore")
def test_a_decoder_from_outside_is_trained_with_reinforce(tmp_path):
    data = ShapesCaptions(train_size=8, val_size=2, test_size=0, batch_size=20)
    encoder, loss = Encoder("test_resnet", stage=2), CaptionLoss(reinforce=Reinforce())
    module = Captioner(data.output_names, data.image_size, data.fit, encoder, Outside, loss, Optimization())
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_steps=1, log_every_n_steps=1, limit_val_batches=0, **quiet)
    trainer.fit(module, data)
    assert 0 <= trainer.callback_metrics["train/reinforce_gradient_share"] <= 1
