"""Sequences with a known alignment: trained mechanisms find it, untrained ones do not."""

import json
from datetime import date
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from visattn.cli import sequences
from visattn.studies.sequences import MECHANISMS, Dates, Reordering, SequenceModel, alignment, evaluate, train
from visattn.studies.sequences.dates import FIRST, FORMATS, LAST, ordinal, parts
from visattn.vocabulary import END, PAD, START

LENGTHS = (5, 7)
REVERSAL = Reordering("backwards", "abcdef", "abcdef", True, LENGTHS)
COPYING = Reordering("other letters", "abcdef", "αβγδεζ", False, LENGTHS)


# Shorter sequences of fewer symbols are learnt in fewer and smaller steps.
faster = partial(train, size=16, learning_rate=5e-3)


def batch_of(task, count=101):
    return task.batch(count, torch.Generator().manual_seed(77), "test")


@pytest.mark.parametrize("task", [REVERSAL, COPYING])
def test_each_target_stands_for_the_symbol_at_its_true_place(task):
    batch = batch_of(task)
    lengths = batch.mask.sum(dim=1).tolist()
    assert set(lengths) == {5, 6, 7}
    assert batch.truth.sum(dim=2).equal(batch.mask.long())
    for source, tokens, places, length in zip(batch.source, batch.tokens, batch.places, lengths, strict=True):
        said = source[:length].flip(0) if task.backwards else source[:length]
        assert tokens.tolist() == [START, *(said + 4).tolist(), END, *[PAD] * (7 - length)]
        forwards = list(range(length))
        assert places.tolist() == (forwards[::-1] if task.backwards else forwards) + [-1] * (7 - length)


def text_of(symbols, alphabet):
    return "".join(alphabet[symbol] for symbol in symbols)


def test_dates_are_written_as_people_write_them():
    task, ways = Dates(), [(day, layout) for day in (date(2009, 5, 3), date(1971, 9, 22)) for layout in FORMATS]
    batch = task.written(ways)
    texts = [text_of(row[seen], task.source) for row, seen in zip(batch.source, batch.mask, strict=True)]
    assert len(set(texts)) == len(ways)
    assert {"3rd of May, 2009", "May 3 09", "Sun 3 May 2009", "3.5.2009", "5/3/2009", "the 22nd of September 1971"} <= {
        *texts
    }
    iso = [text_of(row[1:-1] - 4, task.target) for row in batch.tokens]
    assert iso == ["2009-05-03"] * len(FORMATS) + ["1971-09-22"] * len(FORMATS)
    row = texts.index("3rd of May, 2009")
    fields = [text_of(batch.source[row][true], task.source) for true in batch.truth[row]]
    assert fields == ["2009"] * 4 + [""] + ["May"] * 2 + [""] + ["3rd"] * 2


def test_every_day_can_be_written_and_the_splits_share_none():
    task = Dates()
    train_days, test_days = ({*task.days[split].tolist()} for split in ("train", "test"))
    assert not train_days & test_days
    assert len(train_days | test_days) == (LAST - FIRST).days + 1
    years = [date(year, month, 28) for year in (1969, 2022) for month in range(1, 13)]
    written = ["".join(text for text, _ in parts(day, layout)) for day in years for layout in FORMATS]
    assert {*"".join(written)} <= {*task.source}
    assert max(map(len, written)) <= task.longest
    one, two = (task.batch(53, torch.Generator().manual_seed(7), "test") for _ in range(2))
    assert one.source.equal(two.source)
    for row in one.tokens:
        day = date.fromisoformat(text_of(row[1:-1] - 4, task.target))
        assert (day - FIRST).days in test_days


@pytest.mark.parametrize("day", [1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31])
def test_ordinals_have_english_endings(day):
    endings = {1: "st", 21: "st", 31: "st", 2: "nd", 22: "nd", 3: "rd", 23: "rd"}
    assert ordinal(day) == f"{day}{endings.get(day, 'th')}"


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
    scores = evaluate(faster(task, MECHANISMS[name], steps), batch_of(task))
    assert scores["alignment_accuracy"] > 0.9
    assert scores["token_accuracy"] > 0.9
    assert scores["sequence_accuracy"] <= scores["token_accuracy"]


def test_attention_beats_one_vector_with_the_same_encoder():
    task = COPYING._replace(lengths=(7, 7))
    fixed, soft = (
        evaluate(faster(task, MECHANISMS[name], 60, encoding="recurrent"), batch_of(task)) for name in ("fixed", "soft")
    )
    assert soft["token_accuracy"] > fixed["token_accuracy"] + 0.2


def test_a_recurrent_model_does_not_see_padding_and_reads_any_length():
    torch.manual_seed(0)
    model = SequenceModel(REVERSAL, MECHANISMS["fixed"], "recurrent").eval()
    long = batch_of(REVERSAL._replace(lengths=(11, 13)), 5)
    values = model.remember(long).values
    alone = long._replace(source=long.source[:, :11], mask=long.mask[:, :11])
    for row, length in enumerate(long.mask.sum(dim=1)):
        assert not values[row, length:].any()
        if length == 11:
            torch.testing.assert_close(model.remember(alone).values[row], values[row, :11])
    assert alignment(model, long).weights.shape == (5, 13, 13)


@pytest.mark.parametrize("name", MECHANISMS)
def test_untrained_mechanism_does_neither_and_looks_at_no_padding(name):
    torch.manual_seed(0)
    model, batch = SequenceModel(REVERSAL, MECHANISMS[name]).eval(), batch_of(REVERSAL)
    scores = evaluate(model, batch)
    assert scores["alignment_accuracy"] < 0.5
    assert scores["token_accuracy"] < 0.5
    seen = alignment(model, batch)
    assert seen.weights.shape == (101, 7, 7)
    assert (seen.weights[~batch.mask[:, None].expand(-1, 7, -1)] == 0).all()


def test_monotonic_window_cannot_hold_the_true_place_of_a_reversal():
    model, batch = faster(REVERSAL, MECHANISMS["local-m"], 1), batch_of(REVERSAL)
    weights = alignment(model, batch).weights
    at_true = weights.gather(2, batch.places.clamp(min=0).unsqueeze(2)).squeeze(2)
    within = (batch.places - torch.arange(7)).abs() <= 2
    assert (at_true[batch.mask & within] > 0).all()
    assert (at_true[batch.mask & ~within] == 0).all()


def test_training_is_the_same_again():
    one, two = (train(COPYING, MECHANISMS["hard"], 2, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_program_writes_all_documented_files(tmp_path, capsys):
    output = tmp_path / "out"
    words = ["--steps", "2", "--seeds", "1", "--mechanisms", "hard", "local-m", "--output", str(output)]
    assert sequences.main(words) == 0
    results = json.loads((output / "results.json").read_text())
    rows = results["results"]
    assert [(row["task"], row["mechanism"]) for row in rows] == [
        (task, mechanism) for task in ("reversal", "copying") for mechanism in ("hard", "local-m")
    ]
    scores = {"token_accuracy", "sequence_accuracy", "alignment_accuracy", "entropy"}
    for row in rows:
        assert set(row) == {"task", "mechanism", "seed", "seconds", *scores}
        assert 0 <= row["alignment_accuracy"] < 1
    with Image.open(output / "alignment.png") as picture:
        assert picture.format == "PNG"
    assert (output / "sequences.md").read_text() in capsys.readouterr().out
    assert not (output / "lengths.png").exists()
    assert sequences.main(words) == 2
    assert "not empty" in capsys.readouterr().err


def test_program_measures_lengths_beyond_those_of_training(tmp_path):
    words = ["--task", "copying", "--mechanisms", "fixed", "soft", "--steps", "1", "--seeds", "0", "1"]
    words += ["--train-lengths", "1", "3", "--lengths", "7", "2", "--output", str(tmp_path)]
    assert sequences.main(words) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["encoder"] == "recurrent"
    assert [(row["mechanism"], row["seed"]) for row in results["results"]] == [
        (name, seed) for seed in (0, 1) for name in ("fixed", "soft")
    ]
    right = np.mean(
        [row["by_length"]["7"]["token_accuracy"] for row in results["results"] if row["mechanism"] == "soft"]
    )
    assert f" {right:.0%} |\n" in (tmp_path / "sequences.md").read_text()
    with Image.open(tmp_path / "lengths.png") as picture:
        assert picture.format == "PNG"


def test_program_trains_on_dates(tmp_path):
    words = ["--task", "dates", "--mechanisms", "fixed", "--steps", "1", "--output", str(tmp_path)]
    assert sequences.main(words) == 0
    (row,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert row["task"] == "dates"
    assert (tmp_path / "alignment.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mechanisms", "soft", "psychic"], "--mechanisms is 'psychic'"),
        (["--mechanisms", "fixed"], "--encoder recurrent"),
        (["--encoder", "places", "--lengths", "7"], "--encoder is places"),
        (["--encoder", "places", "--task", "dates"], "--encoder is places"),
        (["--task", "dates", "--lengths", "7"], "--lengths does not apply"),
        (["--train-lengths", "7", "5"], "--train-lengths is 7 5"),
        (["--lengths", "0"], "--lengths is 0"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(words, message, tmp_path, capsys):
    assert sequences.main([*words, "--output", str(tmp_path / "out")]) == 2
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in sentence
    assert not (tmp_path / "out").exists()
