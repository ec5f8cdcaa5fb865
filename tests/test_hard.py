"""Hard attention: what is sampled, when, and extreme values of its options."""

import csv

import pytest
import torch
from conftest import CONFIGS, SMALL_SHAPES, fit

from visattn.attention import GeneralScore, HardAttention, SoftAttention
from visattn.errors import InputError
from visattn.models import LSTMDecoder, LuongDecoder
from visattn.training.objectives import CaptionLoss, MovingAverage, Reinforce
from visattn.vocabulary import PAD

B, GRID, D, Q, V = 5, (2, 7), 11, 13, 17
L = 14


def glimpse(mode="train", n=B, seed=0, **options):
    torch.manual_seed(seed)
    attention = HardAttention(Q, D, **options).train(mode == "train")
    values = torch.randn(n, L, D)
    return attention(torch.randn(n, Q), attention.prepare(values, GRID), 0), values


def test_one_place_is_drawn_and_is_the_context():
    seen, values = glimpse(probability=1.0)
    assert torch.all(seen.focus.sum(1) == 1)
    assert torch.all(seen.focus.max(1).values == 1)
    place = seen.focus.argmax(1)
    torch.testing.assert_close(seen.context, values[torch.arange(B), place])
    torch.testing.assert_close(seen.log_prob, seen.weights.gather(1, place[:, None])[:, 0].log())
    torch.testing.assert_close(seen.weights.sum(1), torch.ones(B))


def test_draws_follow_the_weights():
    attention = HardAttention(Q, D)
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).expand(20011, 5)
    torch.manual_seed(3)
    counts = attention.draw(weights).bincount(minlength=5) / 20011
    torch.testing.assert_close(counts, weights[0], rtol=0, atol=3 * 0.5 / 20011**0.5)
    assert counts[4] == 0


@pytest.mark.parametrize(("coin", "share_rows", "share_steps"), [("image", 0, 1), ("step", 0, 0), ("batch", 1, 0)])
def test_coin_options(coin, share_rows, share_steps):
    torch.manual_seed(1)
    attention = HardAttention(Q, D, probability=0.3, coin=coin)
    memory = attention.prepare(torch.randn(401, L, D), GRID)
    drawn = torch.stack([attention(torch.randn(401, Q), memory, t).log_prob != 0 for t in range(67)], dim=1)
    assert bool((drawn == drawn[:, :1]).all()) == bool(share_steps)
    assert bool((drawn == drawn[:1]).all()) == bool(share_rows)
    independent = {"image": 401, "step": 401 * 67, "batch": 67}[coin]
    assert drawn.float().mean().item() == pytest.approx(0.3, abs=4 * 0.46 / independent**0.5)
    owners = torch.tensor([3, 3, 8])
    if coin == "image":  # the captions and draws of one image share its coin
        assert torch.equal(memory.rows(owners).drawn, memory.drawn[owners])


def test_outside_training_the_option_says_what_is_used():
    best, values = glimpse("eval", evaluation="argmax")
    assert torch.equal(best.focus.argmax(1), best.weights.argmax(1))
    torch.testing.assert_close(best.context, values[torch.arange(B), best.weights.argmax(1)])
    expected, _ = glimpse("eval", evaluation="expected")
    assert torch.equal(expected.focus, expected.weights)
    assert torch.all(expected.log_prob == 0)
    drawn, _ = glimpse("eval", n=4001, evaluation="sample")
    assert torch.all(drawn.focus.max(1).values == 1)
    assert 0.05 < (drawn.focus.argmax(1) != drawn.weights.argmax(1)).float().mean() < 1


def test_temperature_divides_the_scores():
    hot, _ = glimpse("eval", temperature=2.0)
    plain, _ = glimpse("eval")
    torch.testing.assert_close(hot.weights, plain.weights.sqrt() / plain.weights.sqrt().sum(1, keepdim=True))


def test_masked_places_are_never_drawn():
    torch.manual_seed(0)
    attention = HardAttention(Q, D, probability=1.0)
    mask = torch.arange(L).expand(2003, -1) < 3
    seen = attention(torch.randn(2003, Q), attention.prepare(torch.randn(2003, L, D), GRID, mask), 0)
    assert torch.all(seen.focus[:, 3:] == 0)
    assert torch.isfinite(seen.log_prob).all()
    seen.log_prob.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in attention.parameters())


@pytest.mark.parametrize("decoder", [LSTMDecoder, LuongDecoder])
@pytest.mark.parametrize("coin", ["image", "step", "batch"])
def test_without_draws_hard_is_soft_bit_for_bit(decoder, coin):
    """Loss and every gradient, in training with dropout, with the objective of hard attention."""
    outcomes = []
    for attention, reinforce in (
        (lambda q, d: SoftAttention(q, d, GeneralScore), None),
        (lambda q, d: HardAttention(q, d, GeneralScore, probability=0.0, coin=coin), Reinforce()),
    ):
        torch.manual_seed(7)
        model = decoder(V, D, attention, hidden=Q, embedding=19, dropout=0.3)
        torch.manual_seed(8)
        memory = model.prepare(torch.randn(B, L, D), GRID)
        tokens = torch.randint(4, V, (B, 7))
        logits, glimpses = model(memory, tokens[:, :-1])
        loss = CaptionLoss(doubly_stochastic=0.3, reinforce=reinforce)(logits, glimpses, tokens[:, 1:]).loss
        loss.backward()
        outcomes.append([loss.detach(), *(p.grad for p in model.parameters())])
    for soft, hard in zip(*outcomes, strict=True):
        assert torch.equal(soft, hard)


def test_the_penalty_reaches_attention_though_places_are_drawn():
    gradients = []
    for penalty in (0.0, 1.0):
        torch.manual_seed(2)
        model = LSTMDecoder(V, D, lambda q, d: HardAttention(q, d, probability=1.0), hidden=Q, embedding=19)
        tokens = torch.randint(4, V, (B, 5))
        logits, glimpses = model(model.prepare(torch.randn(B, L, D), GRID), tokens[:, :-1])
        CaptionLoss(doubly_stochastic=penalty)(logits, glimpses, tokens[:, 1:]).loss.backward()
        gradients.append(model.attention.score.energy.weight.grad)
    assert gradients[0] is None or torch.all(gradients[0] == 0)  # drawing has no derivative
    assert gradients[1].abs().max() > 1e-4


@pytest.mark.parametrize("coin", ["image", "step", "batch"])
def test_nothing_is_drawn_in_a_soft_start(coin):
    torch.manual_seed(2)
    attention = HardAttention(Q, D, probability=1.0, coin=coin, soft_start=0.4)
    values, query = torch.randn(B, L, D), torch.randn(B, Q)
    for progress, drawn in ((0.0, 0), (0.39, 0), (0.4, B), (1.0, B)):
        attention.progress = progress
        seen = attention(query, attention.prepare(values, GRID), 0)
        assert (seen.log_prob != 0).sum() == drawn
        assert torch.equal(seen.focus, seen.weights) == (not drawn)
    attention.progress = 0.0
    assert torch.all(attention.eval()(query, attention.prepare(values, GRID), 0).focus.amax(1) == 1), "only training"


def test_a_soft_start_ends_in_the_middle_of_training(tmp_path):
    """And a training that is resumed is as far as it was."""
    options = ["--config", str(CONFIGS / "attention" / "hard.yaml"), *SMALL_SHAPES, "--data.init_args.batch_size=3"]
    options += ["--model.init_args.decoder.init_args.attention.init_args.soft_start=0.5"]
    options += ["--model.init_args.decoder.init_args.attention.init_args.probability=1"]
    options += ["--trainer.limit_train_batches=3", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    fit("shapes_captioner.yaml", tmp_path, *options)
    fit(
        "shapes_captioner.yaml",
        tmp_path,
        *options,
        "--trainer.max_epochs=3",
        "--ckpt_path",
        str(tmp_path / "last.ckpt"),
    )
    drawn = []
    for path in sorted(tmp_path.glob("logs/version_*/metrics.csv")):
        drawn += [
            float(row["train/drawn"]) for row in csv.DictReader(path.read_text().splitlines()) if row["train/drawn"]
        ]
    assert drawn == [0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_draws_are_seeded():
    first, again, other = (glimpse(probability=1.0, n=101, seed=s)[0].focus for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"soft_start": 1.0}, "soft_start is 1.0"),
        ({"coin": "word"}, "coin is 'word'; it must be one of image, step, batch"),
        ({"evaluation": "mean"}, "evaluation is 'mean'; it must be one of argmax, sample, expected"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        HardAttention(Q, D, **options)


def test_padding_of_a_caption_counts_for_nothing():
    torch.manual_seed(0)
    model = LSTMDecoder(V, D, lambda q, d: HardAttention(q, d, probability=1.0), hidden=Q, embedding=19, dropout=0.0)
    tokens = torch.randint(4, V, (B, 5))
    wide = torch.cat([tokens, torch.full((B, 3), PAD)], dim=1)
    losses = []
    for words in (tokens, wide):
        torch.manual_seed(1)
        memory = model.prepare(torch.randn(B, L, D), GRID)
        logits, glimpses = model(memory, words[:, :-1])
        loss = CaptionLoss(reinforce=Reinforce(entropy=0.1, baseline=MovingAverage()))
        losses.append(loss(logits, glimpses, words[:, 1:]).loss)
    torch.testing.assert_close(*losses)
