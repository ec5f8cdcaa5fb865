"""Exposure bias: values worked out by hand, and laws."""

import math

import numpy as np
import pytest

from visattn.metrics.exposure import ExposureSums, teacher_forced_captions
from visattn.vocabulary import END, PAD, SPECIALS, UNKNOWN, Vocabulary

# Two images; the first has two references, the second one, with a word that is not in the vocabulary.
TARGETS = np.array([[5, 7, END, PAD], [5, 11, 13, END], [7, UNKNOWN, END, PAD]])
CHOICES = np.array([[5, 11, END, 17], [7, 11, END, END], [5, UNKNOWN, END, 17]])
LOG_PROBS = np.log([[0.5, 0.25, 0.5, 1], [0.125, 0.5, 0.25, 0.5], [0.25, 0.5, 1, 1]])
GENERATED = np.array([[5, 11, END], [7, 5, END]])
OWNER = np.array([0, 0, 1])


def random_images(seed, images=11, vocabulary=13, longest=7):
    """Arguments of `count` for images of one to five references; END is drawn like any word."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), rng.integers(1, 6, images))
    targets, choices, generated = (
        rng.integers(END, vocabulary, (rows, longest)) for rows in (len(owner), len(owner), images)
    )
    targets[:, -1] = END
    return targets, np.log(rng.random(targets.shape)), choices, generated, owner


def rows_of(arguments, chosen):
    """The arguments of some of the images, in this order."""
    *references, generated, owner = arguments
    rows = np.concatenate([np.flatnonzero(owner == image) for image in chosen])
    place = {image: n for n, image in enumerate(chosen)}
    return *(part[rows] for part in references), generated[list(chosen)], np.array([place[i] for i in owner[rows]])


def assert_same(one, other):
    for name, a, b in zip(one._fields, one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12, err_msg=name)


def test_by_hand():
    sums = ExposureSums.count(TARGETS, LOG_PROBS, CHOICES, GENERATED, OWNER)
    gap = sums.by_position()
    two = math.log(2)
    assert gap.tokens.tolist() == [3, 3, 3, 1]
    assert gap.loss == pytest.approx([(1 + 3 + 2) / 3 * two, (2 + 1 + 1) / 3 * two, (1 + 2 + 0) / 3 * two, two])
    assert gap.teacher_forced == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])  # UNKNOWN for UNKNOWN is not right
    assert gap.free_running == pytest.approx([1, 1 / 3, 2 / 3, 0])  # at the end, the caption has stopped before
    assert gap.teacher_forced_any == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert gap.free_running_any == pytest.approx([1, 2 / 3, 1, 0])
    assert gap.another_reference == pytest.approx([1, 0, 0, 0])  # of the first image alone
    assert sums.overall() == pytest.approx(
        {
            "loss": 14 / 10 * two,
            "teacher_forced": 5 / 10,
            "free_running": 6 / 10,
            "gap": -1 / 10,
            "teacher_forced_any": 7 / 10,
            "free_running_any": 8 / 10,
            "gap_any": -1 / 10,
            "another_reference": 2 / 7,
        }
    )


def test_by_brute_force():
    targets, log_probs, choices, generated, owner = arguments = random_images(0)
    lines = [line[: line.index(END) + 1] for line in targets.tolist()]
    found = ExposureSums.count(*arguments).by_position()
    for t in range(7):
        here = [i for i, line in enumerate(lines) if len(line) > t]
        expected = {"loss": [], "teacher_forced": [], "free_running": []}
        expected |= {"teacher_forced_any": [], "free_running_any": [], "another_reference": []}
        for i in here:
            said = generated[owner[i]].tolist()
            said = said[t] if END not in said[:t] else None
            others = [
                lines[j][t] if len(lines[j]) > t else None for j in range(len(lines)) if j != i and owner[j] == owner[i]
            ]
            true, choice = lines[i][t], choices[i, t]
            expected["loss"].append(-log_probs[i, t])
            expected["teacher_forced"].append(choice == true != UNKNOWN)
            expected["free_running"].append(said == true != UNKNOWN)
            expected["teacher_forced_any"].append(choice != UNKNOWN and choice in (true, *others))
            expected["free_running_any"].append(said not in (None, UNKNOWN) and said in (true, *others))
            if others:
                expected["another_reference"].append(np.mean([other == true != UNKNOWN for other in others]))
        assert found.tokens[t] == len(here)
        for name, values in expected.items():
            assert getattr(found, name)[t] == pytest.approx(np.mean(values)), (name, t)


def test_a_perfect_model_has_no_gap():
    targets, *_ = random_images(1)
    targets[targets == UNKNOWN] = 5
    sums = ExposureSums.count(targets, 0.0 * targets, targets, targets, np.arange(len(targets)))
    gap, overall = sums.by_position(), sums.overall()
    assert (gap.teacher_forced == 1).all()
    assert (gap.free_running == 1).all()
    assert (gap.loss == 0).all()
    assert overall["gap"] == overall["gap_any"] == overall["loss"] == 0
    assert np.isnan(gap.another_reference).all()  # no image has two references
    assert math.isnan(overall["another_reference"])


def test_batches_may_be_split_and_come_in_any_order():
    arguments = random_images(2)
    whole = ExposureSums.count(*arguments)
    order = np.random.default_rng(3).permutation(11).tolist()
    parts = [ExposureSums.count(*rows_of(arguments, order[start : start + 3])) for start in range(0, 11, 3)]
    assert_same(ExposureSums.together(parts), whole)
    assert_same(ExposureSums.together(parts[::-1]), whole)
    assert_same(ExposureSums.count(*rows_of(arguments, order)), whole)
    shuffled = np.random.default_rng(4).permutation(len(arguments[-1]))  # an image's references need not be neighbours
    *references, generated, owner = arguments
    mixed = (*(part[shuffled] for part in references), generated, owner[shuffled])
    assert_same(ExposureSums.count(*mixed), whole)


def test_sums_grow_with_longer_captions():
    short = ExposureSums.count(*random_images(5, longest=3))
    long = ExposureSums.count(*random_images(6, longest=7))
    both = ExposureSums.together([short, long])
    assert len(short.tokens) == 3
    assert_same(both, ExposureSums.together([long, short]))
    assert both.tokens.tolist() == [*(short.tokens + long.tokens[:3]), *long.tokens[3:]]
    assert both.by_position().loss[3:] == pytest.approx(long.by_position().loss[3:])


def test_what_stands_after_the_end_is_not_counted():
    targets, log_probs, choices, generated, owner = random_images(7)
    targets[:, 4] = END  # five tokens at most
    plain = ExposureSums.count(targets[:, :5], log_probs[:, :5], choices[:, :5], generated, owner)
    after = (targets == END).cumsum(1) - (targets == END) > 0
    assert after[:, :5].any()
    for filling in (PAD, 5, END):
        other = np.where(after, filling, targets), np.where(after, np.nan, log_probs), np.where(after, 5, choices)
        ended = (generated == END).cumsum(1) - (generated == END) > 0
        said = np.pad(np.where(ended, filling, generated), ((0, 0), (0, 3)))
        assert_same(ExposureSums.count(*other, said, owner), plain)
    assert len(plain.tokens) == 5


def test_a_caption_that_was_cut_is_wrong_from_there_on():
    targets = np.array([[5, 7, 11, 13, END]])
    for generated, right in (([5, 7, PAD], [1, 1, 0, 0, 0]), ([5, 7], [1, 1, 0, 0, 0]), ([5, 7, END], [1, 1, 0, 0, 0])):
        sums = ExposureSums.count(targets, 0.0 * targets, targets, np.array([generated]), np.array([0]))
        assert sums.by_position().free_running.tolist() == right
        assert sums.by_position().free_running_any.tolist() == right


def test_a_model_with_the_references_distribution_scores_as_another_reference():
    # Each image has its own chain of words, five references, and a caption drawn from it or of its likeliest words.
    images, words, length, references = 401, 17, 7, 5
    rng = np.random.default_rng(8)
    chain = rng.dirichlet(np.full(words, 0.1), (images, words + 1))  # of the next word, after the start and each word
    owner = np.repeat(np.arange(images), references)

    def write(owner, greedy=False):
        line = [np.full(len(owner), -1)]
        for _ in range(length):
            law = chain[owner, line[-1] + 1]
            drawn = (rng.random((len(owner), 1)) > law.cumsum(1)).sum(1).clip(max=words - 1)
            line.append(law.argmax(1) if greedy else drawn)
        return np.stack(line, axis=1)

    true = write(owner)
    law = chain[owner[:, None], true[:, :-1] + 1]
    log_probs = np.log(np.take_along_axis(law, true[:, 1:, None], 2)[..., 0])
    drawn, likeliest = write(np.arange(images)), write(np.arange(images), greedy=True)
    targets, drawn, likeliest = (part[:, 1:] + 4 for part in (true, drawn, likeliest))
    choices = law.argmax(-1) + 4
    numbers = ExposureSums.count(targets, log_probs, choices, drawn, owner).overall()
    spread = (drawn[owner] == targets).reshape(images, -1).mean(1).std() / math.sqrt(images)
    assert abs(numbers["free_running"] - numbers["another_reference"]) < 3 * spread
    assert numbers["gap"] > 0.2  # with no exposure bias whatever
    sums = ExposureSums.count(targets, log_probs, choices, likeliest, owner)
    assert sums.overall()["free_running"] > numbers["another_reference"] + 3 * spread
    assert sums.overall()["gap_any"] > 0.1
    gap = sums.by_position()
    assert gap.free_running[0] == gap.teacher_forced[0]  # nothing has been written yet


def test_teacher_forced_captions_are_the_choices_after_the_first_reference():
    vocabulary = Vocabulary([*SPECIALS, "a", "dog", "runs", "red"])  # ids 4 to 7
    targets = np.array([[4, 5, END, PAD], [4, 5, 6, END], [4, 7, 5, END], [4, END, PAD, PAD]])
    choices = np.array([[4, 7, 6, 5], [5, 5, 5, 5], [4, END, 5, END], [6, 6, 6, 6]])
    owner = np.array([1, 0, 0, 1])
    # Image 0: its first reference is row 1, with four tokens. Image 1: row 0, with three.
    lines = teacher_forced_captions(targets, choices, owner, vocabulary)
    assert lines == [["dog"] * 4, ["a", "red", "runs"]]
    (line,) = teacher_forced_captions(targets[2:3], choices[2:3], owner[2:3], vocabulary)
    assert line == ["a"]  # up to its own first END


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": TARGETS[0]}, r"targets must be \(B, T\)"),
        ({"targets": np.zeros((3, 4), int)}, "at least one token"),
        ({"first_choices": CHOICES[:, :3]}, r"first_choices must have the targets' shape \(3, 4\), not \(3, 3\)"),
        ({"log_probs": LOG_PROBS[:2]}, r"log_probs must have the targets' shape \(3, 4\), not \(2, 4\)"),
        ({"log_probs": -LOG_PROBS}, "logarithms"),
        ({"log_probs": np.full((3, 4), np.nan)}, "logarithms"),
        ({"owner": OWNER[:2]}, r"owner must be \(B,\) = \(3,\)"),
        ({"owner": np.array([0, 0, 2])}, "each of the 2 rows"),
        ({"owner": np.array([0, 0, 0])}, "each of the 2 rows"),
        ({"owner": np.array([0, 0, -1])}, "each of the 2 rows"),
        ({"generated": GENERATED[0]}, "rows of generated"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    good = {
        "targets": TARGETS,
        "log_probs": LOG_PROBS,
        "first_choices": CHOICES,
        "generated": GENERATED,
        "owner": OWNER,
    }
    with pytest.raises(ValueError, match=message):
        ExposureSums.count(**(good | change))
