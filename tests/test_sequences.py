"""Sequences with a known alignment: trained mechanisms find it, untrained ones do not."""

import json

import pytest
import torch
from PIL import Image

from visattn.cli import sequences
from visattn.studies.sequences import MECHANISMS, SequenceModel, Task, alignment, evaluate, make_batch, train
from visattn.vocabulary import END, PAD, START

LENGTHS = (5, 7)
REVERSAL = Task("backwards", "abcdef", "abcdef", True)
COPYING = Task("other letters", "abcdef", "αβγδεζ", False)


@pytest.fixture(autouse=True)
def faster(monkeypatch):
    """Shorter sequences of fewer symbols are learnt in fewer and smaller steps."""
    monkeypatch.setattr("visattn.studies.sequences.BATCH", 16)
    monkeypatch.setattr("visattn.studies.sequences.LEARNING_RATE", 5e-3)


def batch_of(task, count=101):
    return make_batch(task, count, torch.Generator().manual_seed(77), LENGTHS)


@pytest.mark.parametrize("task", [REVERSAL, COPYING])
def test_each_target_stands_for_the_symbol_at_its_true_place(task):
    batch = batch_of(task)
    lengths = batch.mask.sum(dim=1).tolist()
    assert set(lengths) == {5, 6, 7}
    for source, tokens, places, length in zip(batch.source, batch.tokens, batch.places, lengths, strict=True):
        said = source[:length].flip(0) if task.backwards else source[:length]
        assert tokens.tolist() == [START, *(said + 4).tolist(), END, *[PAD] * (7 - length)]
        forwards = list(range(length))
        assert places.tolist() == (forwards[::-1] if task.backwards else forwards) + [-1] * (7 - length)


@pytest.mark.parametrize(
    ("name", "task", "steps"),
    [
        ("soft", REVERSAL, 60),
        ("hard", REVERSAL, 130),
        ("local-p", REVERSAL, 70),
        ("multi-head", REVERSAL, 60),
        ("local-m", COPYING, 80),
    ],
)
def test_trained_mechanism_looks_at_the_true_place_and_solves_the_task(name, task, steps):
    scores = evaluate(train(task, MECHANISMS[name], steps, lengths=LENGTHS), batch_of(task))
    assert scores["alignment_accuracy"] > 0.9
    assert scores["token_accuracy"] > 0.9


@pytest.mark.parametrize("name", MECHANISMS)
def test_untrained_mechanism_does_neither_and_looks_at_no_padding(name):
    torch.manual_seed(0)
    model, batch = SequenceModel(REVERSAL, MECHANISMS[name], LENGTHS[1]).eval(), batch_of(REVERSAL)
    scores = evaluate(model, batch)
    assert scores["alignment_accuracy"] < 0.5
    assert scores["token_accuracy"] < 0.5
    seen = alignment(model, batch)
    assert seen.weights.shape == (101, 7, 7)
    assert (seen.weights[~batch.mask[:, None].expand(-1, 7, -1)] == 0).all()


def test_monotonic_window_cannot_hold_the_true_place_of_a_reversal():
    model, batch = train(REVERSAL, MECHANISMS["local-m"], 1, lengths=LENGTHS), batch_of(REVERSAL)
    weights = alignment(model, batch).weights
    at_true = weights.gather(2, batch.places.clamp(min=0).unsqueeze(2)).squeeze(2)
    within = (batch.places - torch.arange(7)).abs() <= 2
    assert (at_true[batch.mask & within] > 0).all()
    assert (at_true[batch.mask & ~within] == 0).all()


def test_training_is_the_same_again():
    one, two = (train(COPYING, MECHANISMS["hard"], 2, seed=3, lengths=LENGTHS).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_program_writes_all_documented_files(tmp_path, capsys):
    output = tmp_path / "out"
    words = ["--steps", "2", "--seed", "1", "--mechanisms", "hard", "local-m", "--output", str(output)]
    assert sequences.main(words) == 0
    results = json.loads((output / "results.json").read_text())
    rows = results["results"]
    assert [(row["task"], row["mechanism"]) for row in rows] == [
        (task, mechanism) for task in ("reversal", "copying") for mechanism in ("hard", "local-m")
    ]
    for row in rows:
        assert set(row) == {"task", "mechanism", "token_accuracy", "alignment_accuracy", "entropy", "seconds"}
        assert 0 <= row["alignment_accuracy"] < 1
    with Image.open(output / "alignment.png") as picture:
        assert picture.format == "PNG"
    printed = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in printed[:5]}) == 1  # the table's lines are aligned
    assert sequences.main(words) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mechanisms", "soft", "psychic"], "--mechanisms has 'psychic'"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(words, message, tmp_path, capsys):
    assert sequences.main([*words, "--output", str(tmp_path / "out")]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in sentence
    assert not (tmp_path / "out").exists()
