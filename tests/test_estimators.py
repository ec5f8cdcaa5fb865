"""Every estimator of the gradient of hard attention against the exact one, on a 3×3 grid and two words."""

import itertools

import pytest
import torch

from visattn.attention import (
    AdditiveScore,
    GumbelSoftmax,
    HardAttention,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
    prescribed,
)
from visattn.errors import InputError
from visattn.studies.estimators import (
    GRID,
    METHODS,
    PLACES,
    Scenes,
    compare_gradients,
    gradient_of,
    loss_of,
    make_decoder,
    make_scenes,
    measure,
    objective,
)
from visattn.training.objectives import (
    CaptionLoss,
    Enumeration,
    LearnedBaseline,
    Rebar,
    Reinforce,
    Relax,
    Vimco,
    WithoutReplacement,
)
from visattn.training.objectives.without_replacement import leave_one_out, stochastic_beams
from visattn.vocabulary import PAD

Q, D, COPIES = 7, 5, 37


def sharp_decoder(relaxation=None):
    """Sharper than at the start of training, so that places matter."""
    decoder = make_decoder(relaxation, seed=4)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
    return decoder.double()


def scenes(copies=1):
    one = make_scenes(1, torch.Generator().manual_seed(3), torch.float64)
    return Scenes(*(part.repeat(copies, *[1] * (part.dim() - 1)) for part in one))


def exact(estimator=Enumeration):
    return gradient_of(sharp_decoder(), objective(estimator()), scenes())


def estimates(method, count, copies=COPIES):
    """(count, P) gradients, each the mean over copies of one scene."""
    torch.manual_seed(11)
    decoder = sharp_decoder(method.relaxation and method.relaxation())
    loss = objective(method.estimator and method.estimator()).double()
    return torch.stack([gradient_of(decoder, loss, scenes(copies)) for _ in range(count)])


def test_enumeration_is_the_sum_over_all_sequences_of_places():
    """Against the definition, one sequence after the other, for all parameters of the decoder."""
    decoder, data = sharp_decoder(), scenes()
    heard, targets = data.tokens[:, :-1], data.tokens[:, 1:]
    expected = 0.0
    for places in itertools.product(range(PLACES), repeat=2):
        focus = torch.eye(PLACES, dtype=torch.float64)[list(places)].unsqueeze(0)
        logits, glimpses = decoder(prescribed(decoder.prepare(data.values, GRID), focus), heard)
        nll = -logits.log_softmax(-1).gather(2, targets.unsqueeze(2)).sum()
        expected = expected + glimpses.log_prob.sum().exp() * nll
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    truth = torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True)
    loss = loss_of(decoder, objective(Enumeration()), data)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


UNBIASED = {name: method for name, method in METHODS.items() if method.unbiased and name != "enumeration"}


@pytest.mark.parametrize("method", UNBIASED.values(), ids=UNBIASED)
def test_the_mean_of_unbiased_estimators_is_the_exact_gradient(method):
    found = compare_gradients(estimates(method, 40), exact())
    assert found["deviation"] < 3


@pytest.mark.parametrize("make", [lambda: Rebar(scale=0.3, temperature=2.0), lambda: Relax(scale=-0.7, hidden=5)])
def test_a_control_variate_leaves_no_bias_whatever_its_options(make):
    torch.manual_seed(2)
    estimator = make()
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    found = compare_gradients(estimates(METHODS["rebar"]._replace(estimator=lambda: estimator), 40), exact())
    assert found["deviation"] < 3


def test_this_test_would_notice():
    half = METHODS["rloo"]._replace(estimator=lambda: Reinforce(0.5, reward="to_go", baseline=rloo_baseline()))
    assert compare_gradients(estimates(half, 40), exact())["deviation"] > 6
    biased = compare_gradients(estimates(METHODS["straight-through"], 40), exact())
    assert biased["deviation"] > 6


def rloo_baseline():
    return METHODS["rloo"].estimator().baseline


def test_variance_falls_with_better_baselines_and_control_variates():
    variance = {
        name: measure(METHODS[name], sharp_decoder().float(), make_scenes(5, torch.Generator().manual_seed(1)), 60, 40)[
            "variance"
        ]
        for name in ("reinforce", "average", "rloo", "rebar")
    }
    assert variance["average"] < 0.5 * variance["reinforce"]
    assert variance["rloo"] < 0.5 * variance["average"]
    assert variance["rebar"] < 0.5 * variance["average"]


def attention_gradients(relaxation, cost, rows=20011):
    """The mean gradient of a cost of one sample with respect to the scores, its error, and the exact one."""
    torch.manual_seed(6)
    scores = torch.tensor([0.9, -0.4, 0.3, -1.1, float("-inf")], dtype=torch.float64)
    leaf = scores.repeat(rows, 1).requires_grad_()
    (found,) = torch.autograd.grad(cost(relaxation(leaf).focus).sum(), leaf)
    single = scores.clone().requires_grad_()
    (truth,) = torch.autograd.grad((single.softmax(0) * cost(torch.eye(5, dtype=torch.float64))).sum(), single)
    return found.mean(0), found.std(0) / rows**0.5, truth


def linear(focus):
    return focus @ torch.tensor([2.0, -1.0, 0.5, 3.0, 7.0], dtype=focus.dtype)


def quadratic(focus):
    return (
        (focus @ torch.tensor([[2.0, -1.0, 0.5, 3.0, 7.0], [1, 2, 3, -4, 1.0]], dtype=focus.dtype).T).square().sum(-1)
    )


def cubic(focus):
    return linear(focus) ** 3


@pytest.mark.parametrize(
    ("relaxation", "cost", "right"),
    [
        (StraightThrough(), linear, True),
        (StraightThrough(), quadratic, False),
        (ReinMax(), linear, True),
        (ReinMax(), quadratic, True),
        (ReinMax(), cubic, False),
        (ReinMax(temperature=2.0), quadratic, False),
        (StraightThroughGumbel(), quadratic, False),
        (GumbelSoftmax(1.0), quadratic, False),
    ],
)
def test_relaxations_are_exact_where_their_theory_says(relaxation, cost, right):
    mean, error, truth = attention_gradients(relaxation, cost)
    assert ((mean - truth).abs() < 3.3 * error + 1e-9).all() == right
    assert mean[4] == 0  # a masked place


def test_the_bias_of_gumbel_softmax_vanishes_with_its_temperature_and_its_variance_grows():
    bias, spread = [], []
    for temperature in (1.0, 0.3, 0.05):
        mean, error, truth = attention_gradients(GumbelSoftmax(temperature), quadratic, rows=400_009)
        bias.append((mean - truth).norm() / truth.norm())
        spread.append(error.norm())
    assert bias[0] > 2 * bias[1]
    assert bias[1] > 2 * bias[2]
    assert bias[2] < 0.1
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("relaxation", [StraightThrough(), StraightThroughGumbel(), ReinMax(), GumbelSoftmax()])
def test_the_forward_pass_samples_places(relaxation):
    torch.manual_seed(0)
    evaluation = "argmax" if relaxation.discrete else "expected"
    attention = HardAttention(Q, D, AdditiveScore, probability=1.0, evaluation=evaluation, relaxation=relaxation)
    values, query = torch.randn(1, 6, D), torch.randn(1, Q).expand(20011, -1)
    seen = attention(query, attention.prepare(values, (2, 3)), 0)
    shares = torch.zeros(6).index_add(0, seen.focus.argmax(1), torch.ones(20011)) / 20011
    torch.testing.assert_close(shares, seen.weights[0], rtol=0, atol=3 * 0.5 / 20011**0.5)
    assert bool((seen.focus.max(1).values == 1).all()) == relaxation.discrete
    torch.testing.assert_close(seen.context, seen.focus @ values[0])
    assert torch.all(seen.log_prob == 0)  # trained by its own derivative
    gradients = torch.autograd.grad(seen.context.square().sum(), list(attention.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in gradients)


def test_without_samples_a_relaxation_is_soft_attention():
    """Rows whose coin falls on α use α itself."""
    torch.manual_seed(0)
    attention = HardAttention(Q, D, probability=0.5, relaxation=ReinMax())
    memory = attention.prepare(torch.randn(101, 6, D), (2, 3))
    seen = attention(torch.randn(101, Q), memory, 0)
    assert torch.equal(seen.focus[~memory.drawn], seen.weights[~memory.drawn])
    assert torch.all(seen.focus[memory.drawn].max(1).values == 1)


@pytest.mark.parametrize("make", [Enumeration, WithoutReplacement])
def test_with_the_coin_on_soft_nothing_is_added(make):
    """Images whose coin falls on α have the plain gradient, though they are copied for every sequence."""
    decoder, data = sharp_decoder(), scenes()
    decoder.attention.probability = 1e-9
    found = gradient_of(decoder, objective(make()), data)
    decoder.attention.probability = 0.0
    torch.testing.assert_close(found, gradient_of(decoder, objective(None), data), rtol=1e-4, atol=1e-7)


def all_sequences(decoder, data):
    """(81,) the probability of each sequence of places."""
    focus = Enumeration().focus(decoder, decoder.prepare(data.values, GRID), data.tokens[:, :-1].repeat(81, 1), None)
    memory = prescribed(decoder.prepare(data.values, GRID), focus.double())
    return decoder(memory, data.tokens[:, :-1].repeat(81, 1))[1].log_prob.sum(1).exp().detach()


def test_stochastic_beams_sample_without_replacement():
    """How often each sequence is one of two, against p(s) + Σ p(s') p(s) / (1 − p(s'))."""
    decoder, data, many = sharp_decoder(), scenes(), 4001
    heard = data.tokens[:, :-1].repeat(2 * many, 1)
    torch.manual_seed(7)
    memory = decoder.prepare(data.values, GRID)
    places = stochastic_beams(decoder, memory, heard, torch.ones_like(heard, dtype=torch.bool), 2).argmax(-1)
    found = (places @ torch.tensor([PLACES, 1])).view(many, 2)
    assert (found[:, 0] != found[:, 1]).all()
    p = all_sequences(decoder, data)
    second = p * ((p / (1 - p)).sum() - p / (1 - p))
    shares = torch.bincount(found.flatten(), minlength=81) / many
    error = ((p + second) * (1 - p - second) / many).sqrt()
    assert ((shares - p - second).abs() < 4 * error + 1 / many).all()
    assert ((torch.bincount(found[:, 0], minlength=81) / many - p).abs() < 4 * (p / many).sqrt() + 1 / many).all()


def test_leave_one_out_ratios_by_hand():
    """p(S) as the sum over all orders in which S can be drawn; a batch with a set of very improbable sequences."""

    def of_set(p, members):
        total = 0.0
        for order in itertools.permutations(members):
            rest, one = p.sum(), 1.0
            for s in order:
                one, rest = one * p[s] / rest, rest - p[s]
            total += one
        return total

    def without(p, s):
        return p.index_fill(0, torch.tensor(s), 0.0)

    p = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.15], dtype=torch.float64)
    members = [0, 2, 3]
    one, two = torch.zeros(3, dtype=p.dtype), torch.eye(3, dtype=p.dtype) * p[members]
    for i, s in enumerate(members):
        others = [x for x in members if x != s]
        one[i] = p[s] * of_set(without(p, s), others) / of_set(p, members)
        for j, other in enumerate(members):
            if i != j:
                left = [x for x in others if x != other]
                two[i, j] = p[other] * of_set(without(without(p, s), other), left) / of_set(without(p, s), others)
    found = leave_one_out(torch.stack([p[members].log(), torch.tensor([-300.0, -307.0, -290.0]).double()]))
    torch.testing.assert_close(found[0][0], one)
    torch.testing.assert_close(found[1][0], two)
    torch.testing.assert_close(found[0][1], torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(found[1][1], 0.5 * (1 - torch.eye(3, dtype=torch.float64)))


@pytest.mark.parametrize(("draws", "words"), [(81, 2), (83, 2), (9, 1), (11, 1)])
def test_all_sequences_without_replacement_are_the_exact_gradient(draws, words):
    """Also where there are fewer than draws, and if the rest of the caption is padding."""
    data = scenes()
    data.tokens[:, 1 + words :] = PAD
    exact = gradient_of(sharp_decoder(), objective(Enumeration()), data)
    found = gradient_of(sharp_decoder(), objective(WithoutReplacement(draws)), data)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


def test_vimco_is_the_gradient_of_its_bound():
    """For two samples of one step: the 81 pairs of places, enumerated."""
    decoder, data = sharp_decoder(), scenes()
    data = Scenes(data.values, data.tokens[:, :2], data.places)
    heard, targets = data.tokens[:, :-1], data.tokens[:, 1:]
    focus = torch.eye(PLACES, dtype=torch.float64).unsqueeze(1)
    memory = prescribed(decoder.prepare(data.values, GRID), focus)
    logits, glimpses = decoder(memory, heard.expand(PLACES, -1))
    likelihood = logits.log_softmax(-1)[:, 0, targets[0, 0]]
    log_prob = glimpses.log_prob[:, 0]
    pairs = log_prob[:, None] + log_prob
    bound = torch.logaddexp(likelihood[:, None], likelihood) - torch.tensor(2.0).log()
    parameters = list(decoder.attention.parameters())
    truth = torch.cat([g.flatten() for g in torch.autograd.grad(-(pairs.exp() * bound).sum(), parameters)])
    torch.manual_seed(1)
    many = Scenes(*(part.repeat(COPIES, *[1] * (part.dim() - 1)) for part in data))
    loss, samples = objective(Vimco(draws=2)), []
    for _ in range(60):
        tokens = many.tokens.repeat_interleave(2, dim=0)
        seen = decoder(decoder.prepare(many.values, GRID), tokens[:, :-1])
        gradients = torch.autograd.grad(loss(*seen, tokens[:, 1:]).loss, parameters)
        samples.append(torch.cat([g.flatten() for g in gradients]))
    assert compare_gradients(torch.stack(samples), truth)["deviation"] < 3


def test_a_learned_baseline_learns_what_depends_on_the_caption():
    torch.manual_seed(0)
    baseline, mask = LearnedBaseline(steps=3), torch.ones(64, 3, dtype=torch.bool)
    known = torch.randn(64, 3, 6)
    costs = 5 + 2 * known[..., 4]
    optimizer = torch.optim.Adam(baseline.parameters(), 0.02)
    errors = []
    for _ in range(200):
        optimizer.zero_grad()
        value = baseline(costs, mask, known)
        baseline.error(value, costs, mask).mean().backward()
        optimizer.step()
        errors.append((value - costs).square().mean().item())
    assert errors[-1] < 0.1 * costs.var()


def test_learned_parts_leave_the_decoder_its_gradient():
    """The baseline's error reaches only the baseline, though both are in one loss."""
    decoder, data = sharp_decoder(), scenes(13)
    gradients = []
    for weight in (0.1, 1000.0):
        loss = objective(Reinforce(reward="to_go", baseline=LearnedBaseline(weight=weight))).double()
        torch.manual_seed(5)
        gradients.append(gradient_of(decoder, loss, data))
    assert torch.equal(*gradients)


def prescribe_without_samples():
    prescribed(HardAttention(Q, D).eval().prepare(torch.randn(1, 6, D), (2, 3)), torch.zeros(1, 1, 6))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Enumeration(limit=0), ["limit is 0"]),
        (lambda: Enumeration(limit=100).copies(9, 3), ["limit is 100", "9 places at 3 steps", "729"]),
        (lambda: Enumeration(limit=8).check(HardAttention(Q, D), 9), ["limit is 8"]),
        (lambda: Enumeration().check(HardAttention(Q, D, coin="step"), 9), ["coin is 'step'", "Enumeration"]),
        (lambda: Rebar().check(HardAttention(Q, D, coin="batch"), 9), ["coin is 'batch'", "Rebar"]),
        (lambda: Rebar(temperature=0.0), ["temperature is 0.0"]),
        (lambda: Rebar(reward="step"), ["reward is 'step'", "Rebar"]),
        (lambda: Rebar(reward="bleu"), ["reward is 'bleu'"]),
        (lambda: Relax(hidden=0), ["hidden is 0"]),
        (lambda: Vimco(draws=1), ["draws is 1"]),
        (lambda: WithoutReplacement(draws=1), ["draws is 1"]),
        (lambda: WithoutReplacement(reward="to_go"), ["reward is 'to_go'", "caption"]),
        (lambda: WithoutReplacement(reward="bleu"), ["reward is 'bleu'"]),
        (
            lambda: WithoutReplacement().check(HardAttention(Q, D, coin="step"), 9),
            ["coin is 'step'", "WithoutReplacement"],
        ),
        (lambda: LearnedBaseline(hidden=0), ["hidden is 0"]),
        (lambda: LearnedBaseline(weight=0.0), ["weight is 0.0"]),
        (lambda: GumbelSoftmax(0.0), ["temperature is 0.0"]),
        (lambda: StraightThroughGumbel(-1.0), ["temperature is -1.0"]),
        (lambda: ReinMax(0.5), ["temperature is 0.5"]),
        (lambda: HardAttention(Q, D, relaxation=GumbelSoftmax()), ["evaluation is 'argmax'", "GumbelSoftmax"]),
        (prescribe_without_samples, ["HardAttention"]),
    ],
)
def test_options_out_of_range_are_refused(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words)


def test_several_copies_belong_to_the_estimator():
    assert CaptionLoss(reinforce=Enumeration()).copies(9, 2) == 81
    assert CaptionLoss(reinforce=Vimco(draws=3)).copies(9, 2) == 3
    assert CaptionLoss(reinforce=METHODS["rloo"].estimator()).copies(9, 2) == 4
    assert CaptionLoss(reinforce=WithoutReplacement(draws=5)).copies(9, 2) == 5
    assert CaptionLoss().copies(9, 2) == 1
