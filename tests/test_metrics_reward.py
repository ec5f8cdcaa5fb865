"""The reward is CIDEr-D, with END counted as a word."""

import math
import random

import numpy as np
import pytest

from visattn.errors import InputError
from visattn.metrics import CiderD
from visattn.metrics.reward import CiderReward
from visattn.vocabulary import END, PAD, SPECIALS, START, Vocabulary

WORDS = [f"w{i}" for i in range(31)]  # they get rarer and rarer
KNOWN = 19  # the vocabulary has only the first ones


def random_caption(draw, words, shortest=0):
    return draw.choices(words, [1 / (i + 1) for i in range(len(words))], k=draw.randint(shortest, 13))


def random_references(seed, images=23):
    """References in all words, one to seven for an image, now and then an empty one."""
    draw = random.Random(seed)
    return {f"image {i}": [random_caption(draw, WORDS) for _ in range(draw.randint(1, 7))] for i in range(images)}


def random_samples(seed, references, samples=5):
    """Image ids, captions in known words, and whether each caption ended."""
    draw = random.Random(seed)
    ids = [image for image in references for _ in range(samples)]
    captions = [random_caption(draw, WORDS[:KNOWN]) for _ in ids]
    for i in range(0, len(ids), 3):  # some that share more with a reference
        captions[i] = [word for word in draw.choice(references[ids[i]]) if word in WORDS[:KNOWN]]
    return ids, captions, [draw.random() < 0.7 for _ in ids]


def vocabulary(words=WORDS[:KNOWN]):
    return Vocabulary([*SPECIALS, *words])


def as_tokens(captions, ended, vocabulary, width=17):
    """(N, T) ids: words, END where the caption ended, PAD."""
    rows = [vocabulary.encode(words)[1:][: len(words) + e] for words, e in zip(captions, ended, strict=True)]
    return np.array([row + [PAD] * (width - len(row)) for row in rows])


def plain(references, ids, captions, ended, end):
    """The same by `CiderD`, on words."""
    if end:
        references = {image: [[*words, "<end>"] for words in group] for image, group in references.items()}
        captions = [[*words, "<end>"] if e else words for words, e in zip(captions, ended, strict=True)]
    cider = CiderD(references)
    return np.array([cider.score_image(image, [words])[0] for image, words in zip(ids, captions, strict=True)])


def one(reward, image, caption, vocabulary, ended=True):
    return reward([image], as_tokens([caption.split()], [ended], vocabulary))[0]


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_equals_cider_d_on_words(end, seed):
    references = random_references(seed)
    ids, captions, ended = random_samples(seed + 100, references)
    used = {word for group in references.values() for words in group for word in words}
    assert len(used - set(WORDS[:KNOWN])) > 5  # words that the vocabulary lacks
    assert {(bool(words), e) for words, e in zip(captions, ended, strict=True)} >= {(True, True), (True, False)}
    assert [] in captions

    rewards = CiderReward(references, vocabulary().words, end)(ids, as_tokens(captions, ended, vocabulary()))
    assert rewards.dtype == np.float64
    np.testing.assert_allclose(rewards, plain(references, ids, captions, ended, end), rtol=0, atol=1e-9)
    assert rewards.max() > 1
    assert rewards.min() == 0


@pytest.mark.parametrize("end", [True, False])
def test_repeated_words_are_clipped_as_in_cider_d(end):
    references = {"x": [["a", "cup", "of", "a", "tea", "a"], ["a", "a", "cup"]], "y": [["a", "dog"]], "z": [["tea"]]}
    vocab = vocabulary(["a", "cup", "of", "tea", "dog"])
    captions = [["a"] * 7, ["a", "a"], ["cup"] * 3 + ["a"], ["dog", "dog", "of", "dog", "dog", "of"], ["a", "dog"] * 4]
    ids, ended = ["x", "x", "x", "y", "y"], [True, True, False, True, True]
    rewards = CiderReward(references, vocab.words, end)(ids, as_tokens(captions, ended, vocab))
    np.testing.assert_allclose(rewards, plain(references, ids, captions, ended, end), rtol=0, atol=1e-9)
    assert (rewards > 0).all()


def test_references_too_short_for_four_words():
    references = {"x": [["a", "dog"]], "y": [["cat"], []]}
    vocab = vocabulary(["a", "dog", "cat"])
    ids, captions, ended = ["x", "y", "x"], [["a", "dog"], ["cat"], ["a", "cat", "a", "dog", "a"]], [True, False, True]
    for end in (True, False):
        rewards = CiderReward(references, vocab.words, end)(ids, as_tokens(captions, ended, vocab))
        np.testing.assert_allclose(rewards, plain(references, ids, captions, ended, end), rtol=0, atol=1e-9)
        assert rewards[0] > 1


def test_words_past_sixteen_bits_are_not_confused():
    words = [f"v{i}" for i in range(2**17 + 1)]
    vocab = vocabulary(words)
    draw = random.Random(7)
    near = [*range(5), *range(2**16, 2**16 + 5), *range(2**17 - 4, 2**17 + 1)]  # equal in their lower 16 bits

    def caption():
        return [f"v{i}" for i in draw.choices(near, k=11)]

    references = {f"image {i}": [caption(), caption()] for i in range(13)}
    ids, captions = [*references] * 3, [caption() for _ in range(39)]
    ended = [True] * 39
    rewards = CiderReward(references, vocab.words)(ids, as_tokens(captions, ended, vocab))
    np.testing.assert_allclose(rewards, plain(references, ids, captions, ended, end=True), rtol=0, atol=1e-9)
    shifted = [[f"v{int(word[1:]) + 2**16}" for word in ("v0", "v1", "v2", "v3")], ["v0", "v1", "v2", "v3"]]
    alone = CiderReward({"x": [shifted[1]], "y": [["v9"]]}, vocab.words, end=False)
    assert alone(["x", "x"], as_tokens(shifted, [True, True], vocab)) == pytest.approx([0, 10])


def test_a_reward_depends_on_its_own_row_alone():
    references = random_references(11)
    reward, vocab = CiderReward(references, vocabulary().words), vocabulary()
    ids, captions, ended = random_samples(13, references)
    tokens = as_tokens(captions, ended, vocab)
    rewards = reward(ids, tokens)
    order = np.random.default_rng(17).permutation(len(ids))
    assert reward([ids[i] for i in order], tokens[order]) == pytest.approx(rewards[order], rel=1e-12)
    assert reward(ids * 2, np.concatenate([tokens, tokens])) == pytest.approx(np.tile(rewards, 2), rel=1e-12)
    for i in range(0, len(ids), 7):
        assert reward([ids[i]], tokens[i : i + 1]) == pytest.approx(rewards[i : i + 1], rel=1e-12)
    assert reward(ids, np.pad(tokens, ((0, 0), (0, 3)))) == pytest.approx(rewards, rel=1e-12)


def test_the_order_of_references_changes_nothing():
    references = random_references(19)
    turned = {image: group[::-1] for image, group in reversed(references.items())}
    ids, captions, ended = random_samples(23, references)
    tokens = as_tokens(captions, ended, vocabulary())
    rewards = [CiderReward(r, vocabulary().words)(ids, tokens) for r in (references, turned)]
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-12)


def test_by_hand():
    # "a" and "<end>" are in both images and weigh log 2 - log 2 = 0, every other n-gram weighs log 2. "a dog <end>" has
    # one unigram that weighs, "a dog runs <end>" has two, and they share one; of two and of three bigrams they share
    # one; of longer n-grams none.
    references = {"x": [["a", "dog", "runs"]], "y": [["a", "cat"]]}
    vocab = vocabulary(["a", "dog", "runs", "cat"])
    reward = CiderReward(references, vocab.words)
    expected = 10 * (1 / math.sqrt(2) + 1 / math.sqrt(6)) / 4 * math.exp(-1 / (2 * 6**2))
    assert one(reward, "x", "a dog", vocab) == pytest.approx(expected)
    assert one(reward, "x", "a dog runs", vocab) == pytest.approx(10)
    # Cut after its last word: all unigrams that weigh, two of three bigrams, one of two 3-grams, not the one 4-gram.
    cut = 10 * (1 + math.sqrt(2 / 3) + math.sqrt(1 / 2)) / 4 * math.exp(-1 / (2 * 6**2))
    assert one(reward, "x", "a dog runs", vocab, ended=False) == pytest.approx(cut)


def test_an_unfinished_caption_gains_only_where_end_is_not_counted():
    references = {
        "beach": [caption.split() for caption in ("a man rides a horse on a beach", "a woman riding a horse")],
        "road": [caption.split() for caption in ("a dog on a road", "a brown dog")],
        "cup": [caption.split() for caption in ("a cup of tea", "the cup is white")],
    }
    vocab = Vocabulary.build(words for group in references.values() for words in group)
    whole, fragment = "a man riding a horse", "a man riding a horse on a"
    ignored, counted = (CiderReward(references, vocab.words, end) for end in (False, True))
    assert one(ignored, "beach", fragment, vocab) > one(ignored, "beach", whole, vocab)
    assert one(counted, "beach", fragment, vocab) < one(counted, "beach", whole, vocab)


def test_empty_captions_and_no_captions():
    references = random_references(29)
    for end in (True, False):
        reward = CiderReward(references, vocabulary().words, end)
        assert reward(["image 0"] * 2, np.array([[END, PAD], [PAD, PAD]])).tolist() == [0, 0]
        assert reward(["image 0"], np.zeros((1, 0), int)).tolist() == [0]
        assert reward([], np.zeros((0, 11), int)).shape == (0,)


def test_an_image_alone_has_no_reward():
    vocab = vocabulary(["a", "dog"])
    assert one(CiderReward({"x": [["a", "dog"]]}, vocab.words), "x", "a dog", vocab) == 0


def test_signature_names_the_choices():
    references = random_references(31)
    assert CiderReward(references, vocabulary().words).signature == "CIDEr-D|eos:counted|df:references(23)"
    assert CiderReward(references, vocabulary().words, False).signature == "CIDEr-D|eos:ignored|df:references(23)"


def test_references_and_vocabulary_are_checked():
    vocab = vocabulary(["a", "dog"])
    with pytest.raises(InputError, match="at least one image"):
        CiderReward({}, vocab.words)
    with pytest.raises(InputError, match="'y' has no references"):
        CiderReward({"x": [["a"]], "y": []}, vocab.words)
    with pytest.raises(InputError, match="must begin with <pad>"):
        CiderReward({"x": [["a"]]}, ["a", "dog"])
    with pytest.raises(TypeError, match="'a dog'"):
        CiderReward({"x": ["a dog"]}, vocab.words)


def test_captions_to_reward_are_checked():
    vocab = vocabulary(["a", "dog"])  # ids 4 and 5
    reward = CiderReward({"x": [["a", "dog", "barks"]], "y": [["a"]]}, vocab.words)  # "barks" is kept as 6 inside
    with pytest.raises(InputError, match="'z' has a caption but no references"):
        reward(["x", "z"], np.array([[4, END], [5, END]]))
    with pytest.raises(ValueError, match="token 6 is not of this vocabulary"):
        reward(["x"], np.array([[4, 6, END]]))
    for tokens in ([[START, 4, END]], [[4, PAD, 5]], [[4, END, 5]], [[4, PAD, END]], [[4, END, END]], [[4, -1, PAD]]):
        with pytest.raises(ValueError, match="must be words, END"):
            reward(["x"], np.array(tokens))
    with pytest.raises(ValueError, match="a row for each of 2 ids"):
        reward(["x", "y"], np.array([[4, END]]))
    with pytest.raises(ValueError, match="a row for each of 1 ids"):
        reward(["x"], np.array([4]))
