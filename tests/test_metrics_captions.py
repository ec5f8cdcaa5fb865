"""Caption scores: the official tool's numbers, and laws."""

import math
import random
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from types import ModuleType

import pytest

from visattn.errors import InputError
from visattn.metrics import CiderD, DocumentFrequencies, caption_scores
from visattn.metrics.official import meteor

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")


def tokens(captions):
    """The words of a caption, or of each in a list or a dictionary."""
    if isinstance(captions, dict):
        return {image: tokens(value) for image, value in captions.items()}
    return captions.split() if isinstance(captions, str) else [tokens(caption) for caption in captions]


# Ours; among them two references equally close in length (dog), repeated words (cup), one word (train), none (cat),
# nothing in common (bus) and far too many words (boat).
REFERENCES = tokens(
    {
        "dog": ["a brown dog runs across the wet sand", "the dog runs on a beach", "a dog runs"],
        "kite": ["two children fly a red kite in the park", "a red kite above two children"],
        "cup": ["a white cup of tea on a table", "tea in a white cup"],
        "train": [
            "an old green train crosses the bridge",
            "a train on a bridge over the river",
            "the train is on the bridge",
            "a green train",
        ],
        "cat": ["a cat sleeps on the red sofa"],
        "bus": ["the bus waits at the corner", "a yellow bus at a stop"],
        "boat": ["a small boat", "the boat is on the river"],
    }
)
CANDIDATES = tokens(
    {
        "dog": "a dog is running across the beach",
        "kite": "a red kite above two children",
        "cup": "a a a a cup cup of of tea",
        "train": "train",
        "cat": "",
        "bus": "people eat pizza",
        "boat": "a boat on the river in the sun of the early morning near the old bridge",
    }
)

# What pycocoevalcap 1.2 (Bleu(4), Rouge, Cider) gives on these tokens.
OFFICIAL_CORPUS = (0.5476190476, 0.4090575049, 0.2999570084, 0.2362279259, 0.4220607088, 1.4573885835)
OFFICIAL = {
    "dog": (0.7142857142, 0.4879500364, 3.6246e-06, 1.04e-08, 0.6240409207, 1.3138910513),
    "kite": (0.9999999997, 0.9999999997, 0.9999999996, 0.9999999996, 1.0, 6.4738545085),
    "cup": (0.5555555555, 0.3726779962, 2.7072e-06, 7.6e-09, 0.4756335283, 1.1756399531),
    "train": (0.135335283, 0.0001353353, 1.35335e-05, 4.2797e-06, 0.4586466165, 1.0241464934),
    "cat": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "bus": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "boat": (0.375, 0.2236067977, 0.1528553544, 2.28942e-05, 0.3961038961, 0.2141880785),
}


def random_captions(seed, images):
    """References and candidates of `images` images, over 31 words that get rarer and rarer."""
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(31)]

    def caption():
        return draw.choices(words, [1 / (i + 1) for i in range(31)], k=draw.randint(5, 13))

    references = {f"image {i}": [caption() for _ in range(draw.randint(1, 5))] for i in range(images)}
    return references, {image: caption() for image in references}


def test_equals_the_official_tool():
    scores = caption_scores(REFERENCES, CANDIDATES)
    assert tuple(scores.corpus) == NAMES
    assert tuple(scores.corpus.values()) == pytest.approx(OFFICIAL_CORPUS, abs=1e-9)
    assert list(scores.per_image) == list(REFERENCES)
    for image, expected in OFFICIAL.items():
        assert tuple(scores.per_image[image]) == NAMES
        assert tuple(scores.per_image[image].values()) == pytest.approx(expected, abs=1e-9), image


def test_bounds():
    scores = caption_scores(*random_captions(seed=2, images=37))
    for values in (scores.corpus, *scores.per_image.values()):
        assert all(0 <= values[name] <= (10 if name == "CIDEr-D" else 1) for name in NAMES)


def test_repeating_the_reference_is_perfect():
    references, _ = random_captions(seed=3, images=17)
    references = {image: captions[:1] for image, captions in references.items()}
    scores = caption_scores(references, {image: captions[0] for image, captions in references.items()})
    for values in (scores.corpus, *scores.per_image.values()):
        assert [values[name] for name in NAMES] == pytest.approx([1, 1, 1, 1, 1, 10], abs=1e-6)


def test_order_of_images_and_references_changes_nothing():
    references, candidates = random_captions(seed=5, images=29)
    turned = {image: captions[::-1] for image, captions in reversed(references.items())}
    one, other = caption_scores(references, candidates), caption_scores(turned, candidates)
    assert other.corpus == pytest.approx(one.corpus, rel=1e-12)
    assert caption_scores(dict(reversed(references.items())), candidates).corpus == one.corpus  # to the bit


def test_doubled_references_change_nothing():
    references, candidates = random_captions(seed=7, images=19)
    one = caption_scores(references, candidates)
    two = caption_scores({image: [*captions, *captions] for image, captions in references.items()}, candidates)
    for image in references:
        assert two.per_image[image] == pytest.approx(one.per_image[image], rel=1e-12)


def test_corpus_is_the_mean_except_for_bleu():
    scores = caption_scores(REFERENCES, CANDIDATES)
    for name in NAMES:
        mean = sum(values[name] for values in scores.per_image.values()) / len(scores.per_image)
        assert (scores.corpus[name] == pytest.approx(mean)) == (not name.startswith("BLEU"))


def test_cider_by_hand():
    # "a" is in both images and weighs log 2 - log 2 = 0; every other n-gram weighs log 2. Of unigrams the candidate has
    # one that weighs and the reference two, of bigrams the same; one of each agrees. There are no 3-grams to share.
    references = tokens({"x": ["a dog runs"], "y": ["a cat"]})
    cosine = 1 / math.sqrt(2)
    expected = 10 * (cosine + cosine) / 4 * math.exp(-1 / (2 * 6**2))
    assert CiderD(references).score({"x": ["a", "dog"]}) == pytest.approx({"x": expected})


def test_cider_is_reusable_on_any_part():
    references, candidates = random_captions(seed=11, images=23)
    whole = caption_scores(references, candidates).per_image
    cider = CiderD(references)
    part = dict(list(candidates.items())[7:12])
    for _ in range(2):
        assert cider.score(part) == {image: whole[image]["CIDEr-D"] for image in part}
    several = [candidates["image 3"], references["image 3"][0], []]
    assert cider.score_image("image 3", several) == [cider.score({"image 3": words})["image 3"] for words in several]


def test_cider_with_frequencies_of_other_images():
    training, _ = random_captions(seed=13, images=41)
    references, candidates = random_captions(seed=17, images=11)
    frequencies = DocumentFrequencies.of(training)
    assert frequencies.images == 41
    assert frequencies.counts[("w0",)] == sum(any("w0" in caption for caption in group) for group in training.values())
    scores = caption_scores(references, candidates, frequencies)
    for image, candidate in candidates.items():  # an image's score no longer depends on the other images
        alone = caption_scores({image: references[image]}, {image: candidate}, frequencies)
        assert alone.per_image[image] == scores.per_image[image]
    own = caption_scores(references, candidates, DocumentFrequencies.of(references))
    assert own == caption_scores(references, candidates)
    assert own.corpus["CIDEr-D"] != pytest.approx(scores.corpus["CIDEr-D"])


def test_an_image_alone_has_no_cider():
    words = tokens("a dog runs on a beach")
    scores = caption_scores({"x": [words]}, {"x": words})
    assert scores.corpus["CIDEr-D"] == scores.per_image["x"]["CIDEr-D"] == 0
    assert scores.corpus["BLEU-4"] == pytest.approx(1)


def test_empty_captions():
    references = {"x": [["a", "dog"], ["a"]], "y": [["a", "cat"], []]}
    scores = caption_scores(references, {"x": [], "y": ["a", "cat"]})
    assert set(scores.per_image["x"].values()) == {0}
    assert scores.per_image["y"]["ROUGE-L"] == 1
    # The official tool again, whatever one thinks of it: saying nothing where a reference says nothing.
    assert caption_scores(references, {"x": [], "y": []}).per_image["y"] == dict.fromkeys(NAMES, 0) | {"ROUGE-L": 1}


def test_ids_must_agree():
    words = ["a", "dog"]
    with pytest.raises(InputError, match="'y' has references but no candidate"):
        caption_scores({"x": [words], "y": [words], "z": [words]}, {"x": words})
    with pytest.raises(InputError, match="'y' has a candidate but no references"):
        caption_scores({"x": [words]}, {"x": words, "y": words})
    with pytest.raises(InputError, match="'y' has no references"):
        caption_scores({"x": [words], "y": []}, {"x": words, "y": words})
    with pytest.raises(InputError, match="at least one image"):
        caption_scores({}, {})
    with pytest.raises(InputError, match="'y' has a candidate but no references"):
        CiderD({"x": [words]}).score({"y": words})


def test_a_string_is_not_a_caption():
    with pytest.raises(TypeError, match="'a dog'"):
        caption_scores({"x": [["a", "dog"]]}, {"x": "a dog"})
    with pytest.raises(TypeError, match="'a dog'"):
        caption_scores({"x": ["a dog"]}, {"x": ["a", "dog"]})


# What METEOR 1.5 gives on these tokens, called through pycocoevalcap 1.2.
METEOR = 0.242671931719349
METEORS = (0.3421502493652208, 1.0, 0.24199977925134392, 0.1875, 0.0, 0.0, 0.3101086888860041)


@pytest.mark.skipif(
    find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="METEOR needs the extra 'coco' and Java",
)
def test_meteor_is_the_official_one():
    scores = meteor(REFERENCES, CANDIDATES)
    assert scores.corpus == pytest.approx({"METEOR": METEOR}, abs=1e-12)
    assert list(scores.per_image) == list(REFERENCES)
    assert [values["METEOR"] for values in scores.per_image.values()] == pytest.approx(METEORS, abs=1e-12)
    references = {"x": [["a", "dog", "|||", "runs"], []], "y": [["a", "cat"]]}
    assert meteor(references, {"x": ["a", "dog", "runs"], "y": []}).per_image["x"]["METEOR"] == 1


def test_meteor_asks_for_the_same_images():
    with pytest.raises(InputError, match="'y' has references but no candidate"):
        meteor({"x": [["a"]], "y": [["a"]]}, {"x": ["a"]})
    with pytest.raises(InputError, match="'y' has a candidate but no references"):
        meteor({"x": [["a"]]}, {"x": ["a"], "y": ["a"]})


def test_meteor_that_stops_is_named_and_waits_for_nothing(monkeypatch):
    class Meteor:
        """As in pycocoevalcap, which keeps its lock after an error and waits for it when it is collected."""

        def __init__(self):
            pipe = subprocess.PIPE
            program = "import sys; print('Could not reserve enough space\\nand more', file=sys.stderr)"
            self.meteor_p = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe)
            self.lock = threading.Lock()

        def compute_score(self, references, candidates):
            self.lock.acquire()
            return float(self.meteor_p.stdout.readline().strip())

        def __del__(self):
            assert self.lock.acquire(timeout=10)

    module = ModuleType("pycocoevalcap.meteor.meteor")
    module.Meteor = Meteor
    monkeypatch.setitem(sys.modules, "pycocoevalcap", ModuleType("pycocoevalcap"))
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor", ModuleType("pycocoevalcap.meteor"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("visattn.metrics.official.require", lambda what: "1.2")
    with pytest.raises(InputError, match=r"Java and 2 GB.*Could not reserve enough space$"):
        meteor(REFERENCES, CANDIDATES)
