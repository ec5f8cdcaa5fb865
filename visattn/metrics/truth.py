"""Truth of captions of generated scenes: whether each named object exists and is where the caption says.

Caption scores compare words: "left of" for "right of" costs little, but makes a caption false. If everything in a scene
is known, a caption can be checked against the scene itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from visattn.errors import InputError
from visattn.metrics.reward import check_tokens
from visattn.vocabulary import END, Vocabulary

ARTICLES = ("a", "an")


class Phrase(NamedTuple):
    """A noun phrase in a caption, such as "a small red circle".

    Attributes:
        said: the words after the article by kind: "size" (optional), "colour", "shape".
        start: index of the article.
        stop: index after the shape.
    """

    said: Mapping[str, str]
    start: int
    stop: int


class Sentence(NamedTuple):
    """A caption, parsed.

    Attributes:
        phrases: at least one.
        relation: between the first two things; None if only one is named.
    """

    phrases: list[Phrase]
    relation: str | None


class Grammar(NamedTuple):
    """The grammar of captions of a scene.

    A phrase is an article, an optional size, a colour and a shape. A sentence is one phrase, optionally after "there
    is"; or two phrases with a relation between them, and optionally more, each after "and". So a sentence that names
    two things must state their relation. "a" and "an" are interchangeable.

    Attributes:
        sizes: words.
        colours: words.
        shapes: words.
        relations: of one or several words, none of them a prefix of another.
    """

    sizes: tuple[str, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    relations: tuple[str, ...]

    def parse(self, words: Sequence[str]) -> Sentence | None:
        """The parsed sentence; None if the words are not in the grammar."""
        words = list(words)
        start = 2 if words[:2] == ["there", "is"] else 0
        first = self._phrase(words, start)
        if first is None:
            return None
        if first.stop == len(words):
            return Sentence([first], None)
        relation = next((r for r in self.relations if words[first.stop :][: len(r.split())] == r.split()), None)
        if relation is None or start:
            return None
        phrases, at = [first], first.stop + len(relation.split())
        while (phrase := self._phrase(words, at)) is not None:
            phrases.append(phrase)
            if phrase.stop == len(words):
                return Sentence(phrases, relation)
            if words[phrase.stop] != "and":
                return None
            at = phrase.stop + 1
        return None

    def _phrase(self, words: list[str], start: int) -> Phrase | None:
        """The phrase that begins at `start`, if any."""
        kinds = {"size": self.sizes, "colour": self.colours, "shape": self.shapes}
        if not set(words[start + 1 : start + 2]) & set(self.sizes):
            del kinds["size"]
        article, *said = words[start : start + 1 + len(kinds)] or [""]
        if article not in ARTICLES or len(said) < len(kinds):
            return None
        if not all(word in known for word, known in zip(said, kinds.values(), strict=True)):
            return None
        return Phrase(dict(zip(kinds, said, strict=True)), start, start + 1 + len(kinds))


class Verdict(NamedTuple):
    """How much of a caption is true.

    Attributes:
        things: number of things in the scene.
        named: phrases in the caption; 0 if it is outside the grammar.
        found: phrases that are true, each of a different thing.
        relation: whether it holds; None if none is stated, or one of its things does not exist.
        false: indices of the false words; all, if the caption is outside the grammar.
    """

    things: int
    named: int
    found: int
    relation: bool | None
    false: tuple[int, ...]

    @property
    def grammatical(self) -> bool:
        """Whether the caption is in the grammar."""
        return self.named > 0

    @property
    def exist(self) -> bool:
        """Whether everything named exists, each phrase as a different thing."""
        return self.grammatical and self.found == self.named

    @property
    def true(self) -> bool:
        """Whether nothing is false."""
        return self.exist and self.relation is not False

    @property
    def complete(self) -> bool:
        """Whether the caption is true and names everything."""
        return self.true and self.found == self.things

    @property
    def share(self) -> float:
        """True claims divided by all claims made or omitted, in [0, 1]; 1 if the caption is complete.

        The existence of a thing is a claim, and so is the relation if the scene has, or the caption names, two things.
        """
        if not self.grammatical:
            return 0.0
        related = max(self.named, self.things) > 1
        return (self.found + (self.relation is True)) / (self.named + self.things - self.found + related)


class Facts(NamedTuple):
    """What is in a scene.

    Attributes:
        things: the "size", "colour" and "shape" of each.
        relations: `relations[i][j]` is the one relation of thing i to j that holds; `relations[i][i]` is not read.
        grammar: of its captions.
    """

    things: Sequence[Mapping[str, str]]
    relations: Sequence[Sequence[str]]
    grammar: Grammar

    def judge(self, words: Sequence[str]) -> Verdict:
        """Check a caption.

        Each phrase is assigned a different thing, so that as many phrases as possible are true; then, so that the
        relation holds if possible; then, so that the fewest words are false. The words of a relation are false if it
        does not hold between the assigned things, even if these are not exactly as named. A phrase without a thing is
        false as a whole, including the relation or "and" that joins it to the rest.

        Args:
            words: of the caption, without special tokens.

        Raises:
            TypeError: if the caption is a string instead of a list of words.
        """
        if isinstance(words, str):
            raise TypeError(f"a caption must be a list of words, not the string {words!r}")
        sentence = self.grammar.parse(words)
        if sentence is None:
            return Verdict(len(self.things), 0, 0, None, tuple(range(len(words))))
        phrases, matched = sentence.phrases, self._match(sentence)
        false: list[int] = []
        for n, (phrase, thing) in enumerate(zip(phrases, matched, strict=True)):
            if thing is None:
                start = phrases[n - 1].stop if n else phrase.start
                false += range(start, phrases[1].start if n == 0 and len(phrases) > 1 else phrase.stop)
            else:
                false += self._wrong(phrase, thing)
        found = [not self._wrong(phrase, thing) for phrase, thing in zip(phrases, matched, strict=True)]
        relation, related = None, [thing for thing in matched[:2] if thing is not None]
        if sentence.relation is not None and len(related) == 2:
            first, second = related
            holds = self.relations[first][second] == sentence.relation
            relation = holds if all(found[:2]) else None
            false += () if holds else range(phrases[0].stop, phrases[1].start)
        return Verdict(len(self.things), len(phrases), sum(found), relation, tuple(sorted(set(false))))

    def _wrong(self, phrase: Phrase, thing: int | None) -> list[int]:
        """Indices of a phrase's words that are not true of a thing; all but the article if `thing` is None."""
        known = {} if thing is None else self.things[thing]
        words = enumerate(phrase.said.items(), start=phrase.start + 1)
        return [at for at, (kind, word) in words if known.get(kind) != word]

    def _match(self, sentence: Sentence) -> list[int | None]:
        """The thing that each phrase is about; None for phrases in excess of the things.

        Dynamic programming over phrases: the best assignment is kept for each set of things used. Nothing else matters
        to later phrases, since the relation concerns only the first two, and the first phrase's set has one thing.
        """
        # Things used -> (false phrases, false relations, false words), and the things in order.
        best: dict[frozenset[int], tuple[tuple[int, int, int], list[int | None]]] = {frozenset(): ((0, 0, 0), [])}
        for n, phrase in enumerate(sentence.phrases):
            wrong = {thing: len(self._wrong(phrase, thing)) for thing in (*range(len(self.things)), None)}
            longer: dict[frozenset[int], tuple[tuple[int, int, int], list[int | None]]] = {}
            for used, ((phrases, relations, words), matched) in best.items():
                first = matched[0] if n == 1 else None
                for thing in (thing for thing in wrong if thing not in used):
                    astray = False
                    if first is not None and thing is not None:
                        astray = self.relations[first][thing] != sentence.relation
                    judged = not phrases and not wrong[thing]
                    cost = phrases + (wrong[thing] > 0), relations + (astray and judged), words + wrong[thing] + astray
                    things = used if thing is None else used | {thing}
                    if things not in longer or cost < longer[things][0]:
                        longer[things] = cost, [*matched, thing]
            best = longer
        return min(best.values(), key=lambda found: found[0])[1]


def truth_scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Scores of a set of captions, by name.

    Returns:
        The share of captions that are `true` and `complete`; `exist`, in which everything named exists; `relation`,
        the share of relations between existing things that hold, if any are stated; `outside_grammar`; and `true_1`,
        `true_2`, …, the share of true captions of scenes with so many things.

    Raises:
        ValueError: if there is no caption.
    """
    if not verdicts:
        raise ValueError("there are no captions to score")

    def mean(values: Sequence[bool]) -> float:
        return sum(values) / len(values)

    scores = {name: mean([getattr(verdict, name) for verdict in verdicts]) for name in ("true", "complete", "exist")}
    relations = [verdict.relation for verdict in verdicts if verdict.relation is not None]
    if relations:
        scores["relation"] = mean(relations)
    scores["outside_grammar"] = mean([not verdict.grammatical for verdict in verdicts])
    for things in sorted({verdict.things for verdict in verdicts}):
        scores[f"true_{things}"] = mean([verdict.true for verdict in verdicts if verdict.things == things])
    return scores


def is_truth_score(name: str) -> bool:
    """Whether `truth_scores` has a score of that name."""
    return name in ("true", "complete", "exist", "relation", "outside_grammar") or name.startswith("true_")


class TruthReward:
    """The share of true claims of generated token ids: a reward for self-critical training, beside `CiderReward`.

    The share (`Verdict.share`) is 1 if a caption is true and complete, and falls with every false or omitted claim;
    truth alone could be had by naming one thing. A caption without END is unfinished, and gets 0.

    Args:
        facts: the content of an image by its id; called once per image.
        vocabulary: of the ids.
    """

    signature = "truth|eos:required"

    def __init__(self, facts: Callable[[str], Facts | None], vocabulary: Vocabulary) -> None:
        self._find, self._vocabulary = facts, vocabulary
        self._known: dict[str, Facts] = {}

    def __call__(self, ids: Sequence[str], tokens: np.ndarray) -> np.ndarray:
        """The rewards of N captions, (N,) float64 in [0, 1]; arguments as in `CiderReward.__call__`.

        Raises:
            InputError: if the content of an image is unknown.
            ValueError: if `tokens` are not (N, T), or not ids of the vocabulary.
        """
        check_tokens(tokens, len(ids), len(self._vocabulary))
        rewards = np.zeros(len(ids))
        for n, (image, row) in enumerate(zip(ids, tokens.tolist(), strict=True)):
            if image not in self._known:
                facts = self._find(image)
                if facts is None:
                    raise InputError(f"the content of image {image!r} is unknown, so truth cannot be the reward")
                self._known[image] = facts
            if END in row:
                text = self._vocabulary.join(self._vocabulary.decode(row))
                rewards[n] = self._known[image].judge(text.split()).share
        return rewards
