"""Regimes: a decoder's inputs in scheduled sampling, and the gradient of self-critical training, by enumeration."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import shares
import torch
from test_decoders import DECODERS, GRID, B, D, L, V, decoder, every_decoder, every_decoder_but, values, vocabulary

from visattn.data.batch import CaptionBatch
from visattn.decoding import Sampling, decode
from visattn.errors import InputError
from visattn.models import LSTMDecoder
from visattn.training import regimes
from visattn.training.objectives import (
    CaptionLoss,
    ExponentialDecay,
    InverseSigmoidDecay,
    LeaveOneOut,
    LinearDecay,
    Reinforce,
    SelfCriticalLoss,
    WithoutReplacement,
)
from visattn.training.regimes import ScheduledSampling, SelfCritical, TeacherForcing
from visattn.vocabulary import END, PAD, SPECIALS, START, Vocabulary

CAPTIONS = torch.tensor(
    [
        [START, 5, 6, 7, 8, END, PAD],
        [START, 4, 5, END, PAD, PAD, PAD],
        [START, 9, 3, 9, 3, 11, END],
        [START, 4, 4, 4, 4, END, PAD],
        [START, 16, END, PAD, PAD, PAD, PAD],
        [START, 5, 6, 7, 9, 10, END],
    ]
)


def batch(each=2):
    owner = torch.arange(B).repeat_interleave(each)
    return CaptionBatch(None, None, owner, CAPTIONS[: len(owner)], [f"image {i}" for i in range(B)])


def test_schedules_are_those_of_the_paper():
    for schedule, expected in (
        (LinearDecay(0.01, start=0.9, least=0.25), [0.9, 0.83, 0.25]),
        (ExponentialDecay(0.99), [1, 0.99**7, 0.99**1000]),
        (InverseSigmoidDecay(50), [50 / 51, 50 / (50 + math.exp(7 / 50)), 50 / (50 + math.exp(20))]),
    ):
        assert [schedule.truth(step) for step in (0, 7, 1000)] == pytest.approx(expected)
    assert InverseSigmoidDecay(50).truth(round(50 * math.log(50))) == pytest.approx(0.5, abs=0.01)
    assert InverseSigmoidDecay(2).truth(10**6) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearDecay(-0.1),
        lambda: LinearDecay(0.1, start=0.5, least=0.6),
        lambda: ExponentialDecay(1),
        lambda: InverseSigmoidDecay(0.5),
        lambda: SelfCritical(samples=1),
        lambda: SelfCritical(samples=0, baseline="greedy"),
        lambda: SelfCriticalLoss("none"),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(InputError):
        make()


@every_decoder_but("sample")
def test_with_nothing_but_the_truth_scheduled_sampling_is_teacher_forcing(name):
    model, loss = decoder(DECODERS[name]), CaptionLoss()
    memory = model.prepare(values(), GRID)
    regimes = TeacherForcing(), ScheduledSampling(LinearDecay(0.0))
    one, other = (regime.teach(model, memory, batch(), loss, 5) for regime in regimes)
    assert torch.equal(one.loss, other.loss)
    assert one.tokens == other.tokens == int((CAPTIONS[:, 1:] != PAD).sum())
    assert other.logs["replaced"] == 0


@every_decoder_but("sample")
def test_own_words_are_sampled_after_the_mixed_inputs(name):
    """Half of the words replaced by the likeliest: step by step, as in the paper."""
    model = decoder(DECODERS[name], seed=3)
    memory = model.prepare(values(), GRID)
    regime = ScheduledSampling(LinearDecay(0.0), likeliest=True)
    torch.manual_seed(5)
    heard = regime.mix(model, memory, CAPTIONS, 0.5)
    torch.manual_seed(5)
    keep = torch.rand(B, 2, CAPTIONS.shape[1] - 1).flatten(0, 1) < 0.5
    state, expected = model.init(memory, 2), [CAPTIONS[:, 0]]
    for t in range(CAPTIONS.shape[1] - 2):
        logits, _, state = model.step(state, expected[-1])
        own = logits.index_fill(1, torch.tensor([PAD, START, END]), float("-inf")).argmax(1)
        truth = CAPTIONS[:, t + 1]
        expected.append(torch.where(keep[:, t] | (truth == END) | (truth == PAD), truth, own))
    expected = torch.stack(expected, dim=1)
    going = CAPTIONS[:, :-1] != PAD
    assert torch.equal(heard[going], expected[going])
    assert (heard != CAPTIONS[:, :-1]).any()
    assert torch.equal(
        heard <= END, CAPTIONS[:, :-1] <= END
    )  # PAD, START and END stay where they are, and come nowhere


def test_the_share_of_own_words_is_that_of_the_schedule():
    model = decoder()
    tokens = torch.full((B * 200, 13), 4)
    tokens[:, 0], tokens[:, -1] = START, END
    many = CaptionBatch(None, None, torch.arange(B).repeat_interleave(200), tokens, ["a", "b", "c"])
    memory = model.prepare(values(), GRID)
    torch.manual_seed(0)
    regime = ScheduledSampling(LinearDecay(0.1))
    taught = regime.teach(model, memory, many, CaptionLoss(), 3)
    heard = regime.mix(model, memory, tokens, 0.7)
    own = 1 - (heard == 4).float().mean().item()
    chance = 1 / (V - 3)  # that the own word is the true one; a hardly trained decoder's are nearly even
    assert taught.logs["truth"] == pytest.approx(0.7)
    assert own == pytest.approx(0.3 * (1 - chance) * 11 / 12 + 1 / 12, abs=0.02)
    assert taught.logs["replaced"].item() == pytest.approx(0.3 * (1 - chance), abs=0.02)


def test_captions_need_not_be_as_many_of_each_image():
    model, loss = decoder(), CaptionLoss()
    memory = model.prepare(values(), GRID)
    owner = torch.tensor([2, 0, 0, 1, 2, 2])
    uneven = CaptionBatch(None, None, owner, CAPTIONS, ["a", "b", "c"])
    taught = TeacherForcing().teach(model, memory, uneven, loss, 0)
    logits, glimpses = model(model.prepare(values()[owner], GRID), CAPTIONS[:, :-1])
    torch.testing.assert_close(taught.loss, loss(logits, glimpses, CAPTIONS[:, 1:]).loss)
    assert torch.isfinite(ScheduledSampling(LinearDecay(0.1)).teach(model, memory, uneven, loss, 9).loss)


@pytest.mark.parametrize("regime", [TeacherForcing, lambda: ScheduledSampling(LinearDecay(0.1)), SelfCritical])
@every_decoder
def test_every_parameter_takes_part_in_every_step(make, regime):
    """Several processes wait for each other's gradient of each; one that is missing would stop the training."""
    model, regime = decoder(make).train(), regime()
    regime.begin({f"image {i}": [["w0", "w1"]] for i in range(B)}, vocabulary(), max_length=5)
    torch.manual_seed(0)
    regime.teach(model, model.prepare(values(), GRID), batch(), CaptionLoss(), 3).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


REFERENCES = {"image 0": [["w0", "w1"], ["w1", "w1", "w0"]], "image 1": [["w2", "w0"], ["w0", "zebra"]], "x": [["w1"]]}


def toy():
    """Three words, at most two of them; the reward is CIDEr-D against two references."""
    torch.manual_seed(1)
    model = LSTMDecoder(7, D, hidden=13, embedding=19).eval()
    regime = SelfCritical(samples=3)
    regime.begin(REFERENCES, Vocabulary([*SPECIALS, "w0", "w1", "w2"]), max_length=2)
    return model, regime


def exact_gradient(model, regime, memory):
    """Of the expected reward: Σ_y r(y) ∇p(y) over every caption, with respect to the output's bias."""
    expected = 0
    for caption in [(w, *rest) for w in (4, 5, 6) for rest in [(END,), *itertools.product((4, 5, 6), (END, PAD))]]:
        tokens = torch.tensor([caption if len(caption) == 3 else (*caption, PAD)])
        logits, _ = model(memory, torch.cat([torch.tensor([[START]]), tokens[:, :-1]], dim=1))
        banned = logits.clone()
        banned[..., [PAD, START, 3]] = float("-inf")
        banned[:, 0, END] = float("-inf")
        steps = banned.log_softmax(-1).gather(2, tokens[..., None])[0, :, 0]
        if caption[-1] == PAD:  # cut after two words, where the third step would have been anything but END
            probability = steps[:2].sum().exp() * (1 - banned.log_softmax(-1)[0, 2, END].exp())
        else:
            probability = steps[: len(caption)].sum().exp()
        expected = expected + probability * regime.reward(["image 0"], tokens.numpy())[0]
    return torch.autograd.grad(expected, model.out.bias)[0]


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_the_mean_of_self_critical_gradients_is_the_gradient_of_the_expected_reward(baseline):
    model, regime = toy()
    regime.loss = SelfCriticalLoss(baseline)
    memory = model.prepare(values(1), GRID)
    exact = exact_gradient(model, regime, memory)
    torch.manual_seed(0)
    many = memory.rows(torch.zeros(200, dtype=torch.long))
    group = CaptionBatch(None, None, torch.arange(200), torch.tensor([[START, 4, END]] * 200), ["image 0"] * 200)
    estimates = []
    for _ in range(40):
        taught = regime.teach(model, many, group, CaptionLoss(), 0)
        # The loss is the sum over 600 captions by the number of their tokens.
        estimates.append(-torch.autograd.grad(taught.loss, model.out.bias)[0] * taught.tokens / 600)
    estimates = torch.stack(estimates)
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert torch.all((estimates.mean(0) - exact).abs() <= 3.5 * error + 1e-7)
    assert exact.abs().max() > 20 * error.max()


def test_a_baseline_lowers_the_variance():
    model, regime = toy()
    memory = model.prepare(values(1), GRID)
    variances = []
    for baseline in ("mean", None):
        regime.loss = SelfCriticalLoss("greedy" if baseline is None else baseline)
        if baseline is None:
            regime.loss._baseline = lambda rewards, greedy: torch.zeros_like(rewards)
        torch.manual_seed(0)
        group = CaptionBatch(None, None, torch.arange(1), torch.tensor([[START, 4, END]]), ["image 0"])
        estimates = [
            torch.autograd.grad(regime.teach(model, memory, group, CaptionLoss(), 0).loss, model.out.bias)[0]
            for _ in range(300)
        ]
        variances.append(torch.stack(estimates).var(0).sum())
    assert variances[0] < variances[1]


def test_the_leave_one_out_baseline_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, 3.0, 3.0]])
    log_probs = torch.arange(6.0).requires_grad_()
    SelfCriticalLoss()(log_probs, 11, rewards).backward()
    advantage = torch.tensor([1 - 4, 2 - 3.5, 6 - 1.5, 0 - 3, 3 - 1.5, 3 - 1.5])
    torch.testing.assert_close(log_probs.grad, -advantage / 11)
    log_probs.grad = None
    SelfCriticalLoss("greedy")(log_probs, 11, rewards, torch.tensor([1.0, 2.0])).backward()
    advantage = torch.tensor([0.0, 1, 5, -2, 1, 1])
    torch.testing.assert_close(log_probs.grad, -advantage / 11)


def test_drawn_places_are_judged_by_the_same_reward():
    """With hard attention α learns from the caption's reward."""
    model, regime = decoder(DECODERS["LSTMDecoder hard sample"]), SelfCritical(samples=3)
    regime.begin({"image 0": [["w0"]], "image 1": [["w1"]], "image 2": [["w5", "w2"]]}, vocabulary(), 5)
    model.attention.probability = 1.0
    model.train()
    torch.manual_seed(0)
    memory = model.prepare(values(), GRID)
    sampled = decode(model, memory, Sampling(3), 5)
    assert torch.all((sampled.places_log_prob < 0) == (sampled.tokens != PAD))
    said = sampled.tokens != PAD
    assert torch.all(sampled.focus[said].sum(-1) == 1)
    taught = regime.teach(model, memory, batch(), CaptionLoss(), 0)
    (gradient,) = torch.autograd.grad(taught.loss, model.attention.score.energy.weight)
    assert gradient.abs().sum() > 0


def test_logs_and_signature_say_what_was_done():
    model, regime = toy()
    memory = model.prepare(values(2), GRID)
    two = CaptionBatch(None, None, torch.arange(2), torch.tensor([[START, 4, END]] * 2), ["image 0", "image 1"])
    torch.manual_seed(0)
    logs = regime.teach(model, memory, two, CaptionLoss(), 0).logs
    assert set(logs) == {"reward", "reward_deviation", "unfinished", "words"}
    assert 0 <= logs["reward"] <= 10
    assert regime.signature == "SCST|baseline:leave-one-out(3)|reward:CIDEr-D|eos:counted|df:references(3)"
    greedy = SelfCritical(samples=1, baseline="greedy")
    greedy.begin(REFERENCES, Vocabulary([*SPECIALS, "w0", "w1", "w2"]), max_length=2)
    assert greedy.signature.startswith("SCST|baseline:greedy(1)|")
    assert "greedy_reward" in greedy.teach(model.train(), memory, two, CaptionLoss(), 0).logs
    assert model.training


def test_training_on_rewards_raises_them():
    model, regime = toy()
    memory = model.prepare(values(2), GRID)
    two = CaptionBatch(None, None, torch.arange(2), torch.tensor([[START, 4, END]] * 2), ["image 0", "image 1"])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    torch.manual_seed(0)
    rewards = []
    for step in range(60):
        taught = regime.teach(model, model.prepare(values(2), GRID), two, CaptionLoss(), step)
        optimizer.zero_grad()
        taught.loss.backward()
        optimizer.step()
        rewards.append(taught.logs["reward"].item())
    assert np.mean(rewards[-10:]) > 2 * np.mean(rewards[:10])
    assert memory.values.shape == (2, L, D)


@pytest.mark.parametrize("drawn", [[True, False, True], [False] * 3, [True] * 3])
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("estimator", [Reinforce(baseline=LeaveOneOut(3)), WithoutReplacement(3)])
def test_a_caption_whose_places_are_not_sampled_is_computed_once(drawn, each, estimator, monkeypatch):
    """With `draws` copies, the loss and gradients are those of computing every copy."""
    monkeypatch.setattr(shares.SecondPlace, "draws", 3)
    model = LSTMDecoder(V, D, lambda q, d: shares.SecondPlace(q, d, probability=1.0), 11, 7, dropout=0.0)
    loss, found, computed = CaptionLoss(0.4, reinforce=estimator), [], []
    model.register_forward_pre_hook(lambda module, args: computed.append(len(args[1])))
    for once in (True, False):
        memory = dataclasses.replace(model.prepare(values(), GRID), drawn=torch.tensor(drawn))
        model.zero_grad()
        torch.manual_seed(5)
        if not once:
            monkeypatch.setattr(regimes, "decode_copies", lambda decoder, memory, heard, draws: decoder(memory, heard))
        taught = TeacherForcing().teach(model, memory, batch(each), loss, 0)
        taught.loss.backward()
        found.append({"loss": taught.loss, "drawn": taught.logs["drawn"]})
        found[-1] |= {name: part.grad.clone() for name, part in model.named_parameters()}
    assert sum(computed[:-1]) == each * sum(3 if coin else 1 for coin in drawn)
    assert computed[-1] == 3 * 3 * each
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
