"""Truth of captions: by hand, and by trying every matching of phrases with things; references and their corruptions."""

import itertools
import random
import re

import pytest

from visattn.data import ShapesCaptions
from visattn.data.shapes import COLOURS, GRAMMAR, RELATIONS, SHAPES, SIZES
from visattn.metrics import Facts, truth_scores

WORDS = sorted({"a", "an", "there", "is", "and", "<unk>", *SIZES, *COLOURS, *SHAPES, *" ".join(RELATIONS).split()})


def facts(*things, relations=None):
    """Things such as "small red circle"; each lies left of all that come after it."""
    kinds = [dict(zip(("size", "colour", "shape"), thing.split(), strict=True)) for thing in things]
    each = range(len(things))
    return Facts(kinds, relations or [["left of" if i < j else "right of" for j in each] for i in each], GRAMMAR)


SCENE = facts("small red circle", "large blue star", "small green cross")


def marked(text, scene=SCENE):
    """The caption with its false words in brackets."""
    false = scene.judge(text.split()).false
    return " ".join(f"[{word}]" if i in false else word for i, word in enumerate(text.split()))


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("a red circle left of a large blue star and a green cross", True),
        ("a small green cross right of a blue star and a red circle", True),
        ("a green cross right of a blue star", False),
        ("there is a blue star", False),
        ("an red circle", False),
    ],
)
def test_what_is_true(text, complete):
    verdict = SCENE.judge(text.split())
    assert verdict.true
    assert verdict.false == ()
    assert verdict.complete == complete
    assert (verdict.share == 1) == complete


@pytest.mark.parametrize(
    "text",
    [
        "a red circle [above] a blue star",
        "a red circle [right] [of] a blue star and a green cross",
        "there is a [large] red circle",
        "a red [star] left of a green cross",  # the blue star has the other half of it, and nothing else to be
        "a [small] blue star right of a small red circle",
        "a red circle left of a blue star and a [red] [circle]",  # twice the same thing is not two things
        "a [large] red circle [below] a blue star",
        "a small [green] circle left of a green cross",  # matched so that most phrases are true, whatever comes first
    ],
)
def test_false_words(text):
    words = text.replace("[", "").replace("]", "")
    assert marked(words) == text
    assert not SCENE.judge(words.split()).true


def test_phrases_without_a_thing():
    one = facts("small red circle")
    assert marked("a red circle above a blue star", one) == "a red circle [above] [a] [blue] [star]"
    assert marked("a blue star above a red circle", one) == "[a] [blue] [star] [above] a red circle"
    assert marked("a red circle above a red circle", one) == "a red circle [above] [a] [red] [circle]"
    two = facts("small red circle", "small blue star")
    text = "a red circle left of a blue star and a blue star"
    assert marked(text, two) == "a red circle left of a blue star [and] [a] [blue] [star]"
    assert not marked("a red circle", facts()).count(" circle")
    verdict = two.judge(text.split())
    assert (verdict.named, verdict.found, verdict.relation, verdict.true) == (3, 2, True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "there is",
        "red circle",
        "a circle",
        "a red",
        "a circle red",
        "a red small circle",
        "a small large red circle",
        "a red <unk>",
        "a red circle a blue star",
        "a red circle left a blue star",
        "a red circle left of",
        "a red circle left of a blue",
        "a red circle and a blue star",  # says nothing of how they lie
        "there is a red circle left of a blue star",
        "a red circle left of a blue star and",
        "a red circle left of a blue star a green cross",
        "a red circle left of a blue star above a green cross",
        "a dog runs",
    ],
)
def test_outside_the_grammar_nothing_is_true(text):
    verdict = SCENE.judge(text.split())
    assert not any((verdict.grammatical, verdict.exist, verdict.true, verdict.complete))
    assert verdict.relation is None
    assert verdict.share == 0
    assert verdict.false == tuple(range(len(text.split())))


def test_a_caption_is_a_list_of_words():
    with pytest.raises(TypeError, match="list of words"):
        SCENE.judge("a red circle")


PHRASE = re.compile(
    rf"an? (?:(?P<size>{'|'.join(SIZES)}) )?(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
)


def by_enumeration(scene, words):
    """Of every way to match phrases with different things the best: true phrases, and whether the relation holds.

    None outside the grammar.
    """
    text = " ".join(words)
    rest = PHRASE.sub("X", text)
    if not re.fullmatch(rf"X|there is X|X ({'|'.join(RELATIONS)}) X( and X)*", rest):
        return None
    phrases = [{k: w for k, w in match.groupdict().items() if w} for match in PHRASE.finditer(text)]
    relation = next((r for r in RELATIONS if r in rest), None)
    best = []
    for things in itertools.permutations([*range(len(scene.things)), *[None] * len(phrases)], len(phrases)):
        found = [
            thing is not None and phrase.items() <= scene.things[thing].items()
            for phrase, thing in zip(phrases, things, strict=True)
        ]
        holds = scene.relations[things[0]][things[1]] == relation if relation and all(found[:2]) else None
        best.append((sum(found), holds is not False, holds))
    count, holds = max(case[:2] for case in best)
    return count, len(phrases), holds, {case[2] for case in best if case[:2] == (count, holds)}


def compare(scene, words):
    """The verdict, after comparing it with the enumeration's."""
    verdict, expected = scene.judge(words), by_enumeration(scene, words)
    assert verdict.grammatical == (expected is not None), words
    if expected is not None:
        found, named, holds, relations = expected
        assert (verdict.found, verdict.named) == (found, named), words
        assert verdict.relation in relations, words
        assert verdict.true == (found == named and holds), words
        assert verdict.complete == (found == named == len(scene.things) and holds), words
    assert verdict.true == (not verdict.false), words
    assert (verdict.share == 1) == verdict.complete
    assert 0 <= verdict.share <= 1
    return verdict


def test_every_reference_is_true_and_complete():
    data = ShapesCaptions(train_size=307, seed=3)
    counts = set()
    for example in data.examples("train"):
        for caption in example.captions:
            verdict = compare(data.facts(example.id), caption)
            assert verdict.complete
            counts.add((verdict.things, verdict.relation))
    assert counts == {(1, None), (2, True), (3, True)}


def test_every_corruption_of_a_word_is_judged_as_by_enumeration():
    data = ShapesCaptions(train_size=23, seed=5)
    outcomes = {True: 0, False: 0, None: 0}
    for example in data.examples("train"):
        scene, caption = data.facts(example.id), example.captions[0]
        for i, word in itertools.product(range(len(caption)), WORDS):
            verdict = compare(scene, [*caption[:i], word, *caption[i + 1 :]])
            outcomes[verdict.true if verdict.grammatical else None] += 1
            if word != caption[i] and {word, caption[i]} != {"a", "an"}:
                assert not verdict.true
                assert i in verdict.false or verdict.found < verdict.named
    assert min(outcomes.values()) > 100


def corrected(words, false):
    """Every caption that has other words of the same kind where some are false."""
    choices, i = [], 0
    while i < len(words):
        relation = next((r for r in RELATIONS if words[i : i + len(r.split())] == r.split()), words[i])
        kind = next((kind for kind in (SIZES, COLOURS, SHAPES, RELATIONS) if relation in kind), [relation])
        choices.append(list(kind) if i in false else [relation])
        i += len(relation.split())
    return [" ".join(choice).split() for choice in itertools.product(*choices)]


def test_with_other_words_for_the_false_ones_a_caption_is_true():
    data, draw = ShapesCaptions(train_size=41, seed=13), random.Random(17)
    several = 0
    for example in data.examples("train"):
        scene = data.facts(example.id)
        for caption in example.captions:
            words = list(caption)
            for _ in range(2):
                i = draw.randrange(len(words))
                kind = next((kind for kind in (SIZES, COLOURS, SHAPES, ("above", "below")) if words[i] in kind), None)
                words[i] = draw.choice(list(kind)) if kind else words[i]
            false = scene.judge(words).false
            assert any(scene.judge(other).true for other in corrected(words, false)), words
            for i in false:  # and not with fewer
                assert (
                    not any(scene.judge(other).true for other in corrected(words, set(false) - {i})) or len(false) > 2
                )
            several += len(false) > 1
    assert several > 10


def test_words_left_out_and_put_in():
    data = ShapesCaptions(train_size=11, seed=7)
    for example in data.examples("train"):
        scene, caption = data.facts(example.id), example.captions[1]
        for i in range(len(caption) + 1):
            compare(scene, caption[:i] + caption[i + 1 :])
            for word in WORDS:
                compare(scene, [*caption[:i], word, *caption[i:]])


def test_any_sentence_of_any_scene():
    """Scenes in which things may be alike, too, in two sizes, colours and shapes alone, so that much is nearly true."""
    draw = random.Random(11)
    kinds = [f"{s} {c} {t}" for s in SIZES for c in ("red", "blue") for t in ("circle", "star")]
    shares = {True: [], False: []}
    for _ in range(2000):
        things = draw.choices(kinds, k=draw.randint(0, 4))
        relations = [[draw.choice(RELATIONS) for _ in things] for _ in things]
        phrases = [f"a {' '.join(draw.choice(kinds).split()[draw.randint(0, 1) :])}" for _ in range(draw.randint(1, 4))]
        if draw.random() < 0.5:  # of what is there
            phrases = [f"a {thing}" for thing in draw.sample(things, len(things))][: len(phrases)] or phrases
        text = phrases[0] if len(phrases) == 1 else f"{phrases[0]} {draw.choice(RELATIONS)} {' and '.join(phrases[1:])}"
        verdict = compare(facts(*things, relations=relations), text.split())
        shares[verdict.true].append(verdict.share)
    assert min(map(len, shares.values())) > 100
    assert sum(shares[True]) / len(shares[True]) > sum(shares[False]) / len(shares[False])


def test_many_phrases_take_no_time():
    text = "a red circle left of a blue star" + " and a green cross" * 997
    assert SCENE.judge(text.split()).found == 3


def test_scores_of_a_set():
    texts = ["a red circle", "a red circle left of a blue star and a green cross", "a red circle above a blue star"]
    texts += ["a red star left of a green cross", "a dog"]
    verdicts = [SCENE.judge(text.split()) for text in texts]
    verdicts.append(facts("small red circle").judge(["a", "red", "circle"]))
    scores = truth_scores(verdicts)
    assert scores == {
        "true": 3 / 6,
        "complete": 2 / 6,
        "exist": 4 / 6,
        "relation": 1 / 2,
        "outside_grammar": 1 / 6,
        "true_1": 1,
        "true_3": 2 / 5,
    }
    assert "relation" not in truth_scores(verdicts[-1:])
    with pytest.raises(ValueError, match="no caption"):
        truth_scores([])


def test_shares_by_hand():
    shares = {
        "a red circle": 1 / 4,  # of three things and a relation
        "a red circle left of a blue star": 3 / 4,
        "a red circle above a blue star": 2 / 4,
        "a red circle above a blue star and a green cross": 3 / 4,
        "a red circle left of a blue star and a green star": 3 / 5,  # one is false, another is left out
        "a red circle left of a blue star and a green cross": 1,
    }
    for text, share in shares.items():
        assert SCENE.judge(text.split()).share == share
