"""The glimpse model: its retina is crop and mean, its gradient is that of the location, its estimate is exact."""

import itertools
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from visattn.errors import InputError
from visattn.models import (
    CentrePolicy,
    ContextNetwork,
    GaussianPolicy,
    GlimpseModel,
    GlimpseNetwork,
    GridPolicy,
    LocationPolicy,
    RandomPolicy,
    Retina,
    WholeView,
)
from visattn.models.glimpses import coverage
from visattn.training.objectives import GlimpseLoss, LearnedValue, LeaveOneOut, MovingAverage, NoBaseline, Reinforce
from visattn.training.objectives.glimpses import decisions, stopping

SIZE = (29, 23)


def pictures(count, size=SIZE, seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def location_of(corner, side, size=SIZE):
    """The location whose square of that side has this upper left corner."""
    return [2 * (at + side / 2) / n - 1 for at, n in zip(corner, size, strict=True)]


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("edge", "replicate")])
@pytest.mark.parametrize("middle", [(14, 11), (0, 0), (29, 23), (3, 20), (29, 1)])
def test_a_glimpse_is_crop_and_mean_also_at_borders(padding, mode, middle):
    images = pictures(2)
    retina = Retina(SIZE, size=5, scales=2, growth=4, padding=padding)
    assert retina.squares == (5, 20)
    padded = F.pad(images, (20,) * 4, mode=mode)
    for side, channels in zip(retina.squares, (slice(0, 3), slice(3, 6)), strict=True):
        corner = [at - side // 2 for at in middle]  # an odd square cannot have its corner where an even one has
        glimpse = retina(images, torch.tensor([location_of(corner, side)] * 2))
        top, left = (at + 20 for at in corner)
        crop = padded[:, :, top : top + side, left : left + side]
        by_hand = crop.unflatten(2, (5, -1)).unflatten(4, (5, -1)).mean(dim=(3, 5))
        torch.testing.assert_close(glimpse[:, channels], by_hand, rtol=1e-4, atol=1e-5)


def test_pictures_of_a_batch_have_their_own_locations():
    images, locations = pictures(7), torch.rand(7, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    retina = Retina(SIZE, size=3, scales=3)
    apart = torch.cat([retina(images[i : i + 1], locations[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(retina(images, locations), apart)


@pytest.mark.parametrize("padding", ["zeros", "edge"])
def test_finite_differences_confirm_the_gradient_of_the_location(padding):
    images = pictures(3).double()
    retina = Retina(SIZE, size=3, scales=2, growth=3, padding=padding).double()
    locations = torch.tensor([[0.123, -0.317], [-0.981, 0.877], [0.711, 0.993]], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda at: retina(images, at), (locations,), eps=1e-5)


def test_coverage_counts_pixels_once():
    twice = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[-1.0, -1.0], [1.0, 1.0]]])
    shares = coverage((4, 8), (16, 32), twice)
    assert shares.tolist() == [64 / 512, 2 * 16 / 512]


class Forced(GridPolicy):
    """A grid policy whose draws are given."""

    def draw(self, probabilities):
        cells = self.cells[self.asked % len(self.cells)].expand(len(probabilities))
        self.asked += 1
        return cells


def grid_model(policy):
    torch.manual_seed(0)
    model = GlimpseModel(
        3,
        (11, 11),
        glimpses=2,
        hidden=7,
        sensor=partial(Retina, size=3, scales=1),
        policy=policy,
        glimpse=partial(GlimpseNetwork, widths=(5,), where=2),
        context=partial(ContextNetwork, side=4, widths=(5,)),
    )
    for parameter in model.parameters():  # far from uniform, so that choices matter
        parameter.data += 0.3 * torch.randn(parameter.shape)
    model.head.weight.data *= 20
    return model


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("baseline", [NoBaseline, MovingAverage, LearnedValue, partial(LeaveOneOut, 2)])
def test_the_policy_gradient_is_that_of_enumeration_over_a_3x3_grid(baseline):
    images, labels = pictures(1, (11, 11)), torch.tensor([1])

    def parameters(model):
        """What only the locations train."""
        return [p for name, p in model.named_parameters() if name.startswith(("policy.", "context.", "locator."))]

    model = grid_model(partial(Forced, rows=3, columns=3))
    expected = 0.0
    for cells in itertools.product(range(9), repeat=2):  # Σ p(l₁) p(l₂ | l₁) cost
        model.policy.cells, model.policy.asked = torch.tensor(cells), 0
        scan = model.scan(images)
        cost = F.cross_entropy(scan.logits[:, -1], labels).detach()
        expected = expected + scan.log_prob.sum().exp() * cost
    exact = flat(torch.autograd.grad(expected, parameters(model)))

    model = grid_model(partial(GridPolicy, rows=3, columns=3))
    rule = Reinforce(reward="to_go", baseline=baseline())
    objective, copies = GlimpseLoss(classify="last", cost="likelihood", estimator=rule), 200
    estimates = []
    for _ in range(60):
        losses = objective(model.scan(images.expand(copies, -1, -1, -1)), labels.expand(copies)).losses
        estimates.append(flat(torch.autograd.grad(losses.mean(), parameters(model))))
    estimates = torch.stack(estimates)
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    off = (estimates.mean(dim=0) - exact).abs() / error.clamp(min=1e-9)
    assert exact.abs().max() > 5 * error.max()  # so that it could be seen
    assert (off <= 3).float().mean() > 0.95  # of hundreds of numbers a few are farther off by chance
    assert off.max() < 6


def test_without_a_context_network_all_pictures_have_the_same_first_location():
    torch.manual_seed(0)
    model = GlimpseModel(5, SIZE, glimpses=3, hidden=7, sensor=partial(Retina, size=5, scales=2))
    scan = model.scan(pictures(2))
    assert scan.logits.shape == (2, 3, 5)
    assert scan.locations.shape == (2, 3, 2)
    assert scan.log_prob.all()
    first, second, _ = model.eval().scan(pictures(2)).locations.unbind(dim=1)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(second[0], second[1])


def test_evaluation_repeats_itself_and_does_not_draw():
    model = GlimpseModel(5, SIZE, glimpses=3, hidden=7, sensor=partial(Retina, size=5, scales=1)).eval()
    one, other = model.scan(pictures(2)), model.scan(pictures(2))
    assert torch.equal(one.locations, other.locations)
    assert not one.log_prob.any()
    torch.testing.assert_close(model(pictures(2)), one.logits[:, -1])


def test_the_class_does_not_see_the_context():
    """With the same locations, another context leaves the logits as they are."""
    torch.manual_seed(0)
    model = GlimpseModel(
        *(5, SIZE, 2, 7), partial(Retina, size=5, scales=1), CentrePolicy, context=partial(ContextNetwork, side=8)
    )
    before = model(pictures(2))
    for parameter in model.context.parameters():
        parameter.data.normal_()
    assert torch.equal(model(pictures(2)), before)


def stopping_model(glimpses=4):
    torch.manual_seed(0)
    return GlimpseModel(5, SIZE, glimpses=glimpses, hidden=7, sensor=partial(Retina, size=5, scales=1), stop=True)


def test_stopping_has_the_probability_of_coming_so_far_and_no_farther():
    logits = torch.tensor([[0.3, -1.1, 2.0, torch.inf]])
    a, b, c = torch.tensor([0.3, -1.1, 2.0]).sigmoid().tolist()
    expected = [a, (1 - a) * b, (1 - a) * (1 - b) * c, (1 - a) * (1 - b) * (1 - c)]
    assert stopping(logits)[0].tolist() == pytest.approx(expected)
    never = torch.tensor([[-torch.inf, -torch.inf, torch.inf]])  # a model that does not learn to stop
    assert stopping(never)[0].tolist() == [0, 0, 1]


def test_decisions_are_weighted_by_what_they_save():
    """Three glimpses, by hand: the second decision is compared with the last cost, the first with what then follows."""
    logits, costs = torch.tensor([[0.3, -1.1, torch.inf]]), torch.tensor([[0.5, 0.9, 0.25]])
    later = torch.tensor(-1.1).sigmoid() * 0.9 + torch.tensor(1.1).sigmoid() * 0.25
    first = (later - 0.5).abs() * -F.logsigmoid(torch.tensor(0.3) * (later - 0.5).sign())
    second = 0.65 * -F.logsigmoid(torch.tensor(1.1))  # going on is cheaper
    torch.testing.assert_close(decisions(logits, costs), torch.stack([first, second])[None])
    assert decisions(torch.tensor([[torch.inf]]), costs[:, :1]).shape == (1, 0)


@pytest.mark.parametrize(("wrong", "stops"), [(3, True), (5, False)])
def test_the_optimum_stops_just_where_that_is_cheaper(wrong, stops):
    """A second glimpse mends all errors, `wrong` of 20, and costs as much as four of them."""
    costs = torch.zeros(20, 2)
    costs[:wrong, 0], costs[:, 1] = 1.0, 0.2
    logit = torch.zeros(1, requires_grad=True)
    for _ in range(400):
        logits = torch.stack([logit.expand(20), torch.full((20,), torch.inf)], dim=1)
        (gradient,) = torch.autograd.grad(decisions(logits, costs).sum(), [logit])
        logit.data -= 0.2 * gradient
    saved, lost = 0.2 * (20 - wrong), 0.8 * wrong
    assert logit.sigmoid().item() == pytest.approx(saved / (saved + lost), abs=1e-3)
    assert (logit.item() > 0) == stops


def test_decisions_do_not_fade_where_stopping_is_improbable():
    logits = torch.tensor([[-20.0, torch.inf]], requires_grad=True)
    (gradient,) = torch.autograd.grad(decisions(logits, torch.tensor([[0.0, 0.5]])).sum(), [logits])
    assert gradient[0].tolist() == pytest.approx([-0.5, 0.0])


def test_a_model_stops_where_it_says_and_answers_with_what_it_has_seen_by_then():
    model = stopping_model().eval()
    torch.nn.init.constant_(model.stop.weight, -40.0)
    with torch.no_grad():
        model.stop.bias.copy_(40 * (1 - model.scan(pictures(23)).logits.softmax(-1).amax(-1)).log().median())
    images = pictures(23)
    scan, answers = model.scan(images), model(images)
    counts = []
    for i in range(len(images)):
        stop = next(t for t in range(4) if scan.stop[i, t] >= 0)
        torch.testing.assert_close(answers[i], scan.logits[i, stop])
        torch.testing.assert_close(model(images[i : i + 1])[0], scan.logits[i, stop], rtol=1e-4, atol=1e-5)
        counts.append(stop + 1)
    assert scan.taken().tolist() == counts
    assert len(set(counts)) > 1
    assert (scan.taken(1.0) == 4).all()


def test_nothing_is_looked_at_once_all_have_stopped(monkeypatch):
    model, seen = stopping_model().eval(), []
    torch.nn.init.constant_(model.stop.bias, 3.0)
    monkeypatch.setattr(model.sensor, "forward", lambda *given, own=model.sensor.forward: seen.append(1) or own(*given))
    model(pictures(2))
    assert len(seen) == 1
    model.scan(pictures(2))
    assert len(seen) == 1 + 4


def test_without_learned_stopping_all_glimpses_are_taken():
    model = GlimpseModel(5, SIZE, glimpses=3, hidden=7, sensor=partial(Retina, size=5, scales=1)).eval()
    assert model.scan(pictures(2)).taken().tolist() == [3, 3]


def test_the_price_decides_how_long_is_looked():
    """Nothing is gained by a second glimpse: any price ends it; without a price nothing does."""
    labels = torch.tensor([1, 4, 0])
    chances = []
    for price in (0.0, 0.5):
        model = stopping_model(2)
        for _ in range(30):
            scan = model.scan(pictures(3))
            same = scan._replace(logits=scan.logits[:, :1].expand(-1, 2, -1).detach().requires_grad_())
            (gradient,) = torch.autograd.grad(GlimpseLoss(price=price)(same, labels).losses.sum(), [model.stop.bias])
            model.stop.bias.data -= gradient
        chances.append(model.stop.bias.sigmoid().item())
    assert chances[0] == 0.5
    assert chances[1] > 0.9


def test_gaussian_policy_has_the_density_of_its_draws():
    torch.manual_seed(0)
    policy = GaussianPolicy(7, std=0.3)
    state = torch.randn(2000, 7)
    fixation = policy(state, 1)
    assert fixation.location.abs().max() <= 1
    mean = policy.mean(state).tanh()
    inside = (fixation.location.abs() < 1).all(dim=-1)
    density = torch.distributions.Normal(mean, 0.3)
    torch.testing.assert_close(
        fixation.log_prob[inside], density.log_prob(fixation.location).sum(-1)[inside], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(fixation.entropy, density.entropy().sum(-1))
    assert torch.equal(policy.eval()(state, 1).location, mean)


def test_scans_may_start_from_a_circle_which_is_learned():
    policy = GaussianPolicy(7, radius=0.5, points=4).eval()
    torch.nn.init.zeros_(policy.mean.weight)
    means = torch.stack([policy(torch.zeros(1, 7), t).location[0] for t in range(5)])
    expected = torch.tensor([[-0.5, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, -0.5], [-0.5, 0.0]])
    torch.testing.assert_close(means, expected, atol=1e-6, rtol=1e-5)
    policy.train()(torch.zeros(3, 7), 1).log_prob.sum().backward()
    assert policy.starts.grad.any(dim=1).tolist() == [False, True, False, False]
    assert "starts" not in GaussianPolicy(7).state_dict()


def test_fixed_policies():
    state = torch.zeros(100, 7)
    random = RandomPolicy(7, extent=0.5)(state, 0).location
    assert 0.3 < random.abs().max() <= 0.5
    assert not CentrePolicy(7)(state, 0).location.any()
    cells = GridPolicy(7, rows=2, columns=4).centre(torch.arange(8))
    assert cells[5].tolist() == [0.5, -0.25]


def test_the_learned_baseline_learns_the_expected_cost():
    baseline = LearnedValue(weight=1.0)
    values = torch.zeros(1, 3, requires_grad=True)
    costs, mask = torch.tensor([[2.0, 1.0, 0.5]]), torch.ones(1, 3, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(baseline.error(baseline(costs, mask, values), costs, mask).sum(), values)
    torch.testing.assert_close(gradient, -2 * costs)
    with pytest.raises(InputError, match="baseline network"):
        baseline(costs, mask)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Retina((16, 40), size=5, scales=3), "largest square.*20×20.*16×40"),
        (lambda: Retina((16, 40), size=5, scales=2**31), "largest square.*20×20.*16×40"),
        (lambda: Retina(SIZE, size=0), "size of the retina is 0"),
        (lambda: Retina(SIZE, scales=0), "scales of the retina is 0"),
        (lambda: Retina(SIZE, growth=1), "growth of the retina is 1"),
        (lambda: Retina(SIZE, size=3, padding="mirror"), "padding.*mirror"),
        (lambda: GlimpseModel(5, SIZE, glimpses=0), "glimpses is 0"),
        (lambda: GlimpseModel(5, SIZE, hidden=0), "hidden is 0"),
        (lambda: GlimpseModel(5, SIZE), "largest square"),
        (lambda: GaussianPolicy(7, std=0.0), "std"),
        (lambda: GaussianPolicy(7, evaluation="draw"), "evaluation.*draw"),
        (lambda: GaussianPolicy(7, radius=1.0), "radius"),
        (lambda: GaussianPolicy(7, radius=0.5, points=0), "points"),
        (lambda: GridPolicy(7, rows=0), "rows"),
        (lambda: RandomPolicy(7, extent=1.5), "extent"),
        (lambda: GlimpseNetwork(Retina(SIZE, size=3, scales=1), 7, widths=(2, 2, 2)), "widths"),
        (lambda: GlimpseNetwork(Retina(SIZE, size=3, scales=1), 7, widths=()), "widths"),
        (lambda: ContextNetwork(SIZE, 7, side=24), "side of the context network is 24"),
        (lambda: WholeView(5, SIZE, widths=(2,) * 7), "widths"),
        (lambda: GlimpseLoss(classify="first"), "classify"),
        (lambda: GlimpseLoss(cost="time"), "cost"),
        (lambda: GlimpseLoss(samples=0), "samples"),
        (lambda: GlimpseLoss(price=-0.1), "price"),
        (lambda: GlimpseLoss(price=float("nan")), "price"),
        (lambda: LearnedValue(weight=-1.0), "weight"),
    ],
)
def test_options_out_of_range_are_named(make, named):
    with pytest.raises(InputError, match=named):
        make()


def test_a_policy_must_be_defined():
    with pytest.raises(NotImplementedError):
        LocationPolicy()(torch.zeros(1, 7), 0)
