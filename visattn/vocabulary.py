"""Words to ids and back, with the special tokens in one place."""

import functools
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from visattn.errors import InputError

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")

_JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are written


@functools.cache
def _word(ascii_only: bool) -> re.Pattern[str]:
    """Letters, digits and marks of any script, with inner apostrophes and hyphens.

    "<" and ">" can never be part of a word, so no caption can smuggle in a special token.
    """
    marks = "" if ascii_only else "".join(c for c in map(chr, range(sys.maxunicode + 1)) if _is_mark(c))
    part = rf"[^\W_](?:[^\W_]|[{marks}])*" if marks else r"[^\W_]+"
    return re.compile(rf"{part}(?:['’-]{part})*")


def _is_mark(character: str) -> bool:
    """Whether it belongs to the letter before it, as the vowels of Hindi do; to `re` it is no part of a word."""
    return unicodedata.category(character) in ("Mn", "Mc")


def tokenize(caption: str) -> list[str]:
    """The lower-cased words of a caption (NFC), without punctuation: the form of the Karpathy splits' tokens."""
    # Lower-casing takes some letters apart, such as the Turkish "İ": normalised before it, for one outcome, and after.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", caption).lower())
    return _word(text.isascii()).findall(text)


def clean_words(tokens: Iterable[object]) -> list[str]:
    """Tokens that somebody else made, as words: NFC, without control and other invisible characters.

    A token with white space in it is several words; what is no text, or has nothing visible, is none.
    """
    words = []
    for token in tokens:
        if isinstance(token, str):
            if not token.isprintable():
                token = "".join(c for c in token if c.isprintable() or c.isspace() or c in _JOINERS)
            words += unicodedata.normalize("NFC", token).split()
    return [word for word in words if word.strip(_JOINERS)]


class Vocabulary:
    """A fixed list of words; ids 0 to 3 are the special tokens.

    Args:
        words: every word in the order of its id, the four special tokens first (`Vocabulary.build` makes such a list).

    Raises:
        InputError: where the special tokens are not first, a word stands twice, or what stands there is no word: empty,
            with white space or invisible characters in it, or not in NFC.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        if tuple(self.words[: len(SPECIALS)]) != SPECIALS:
            raise InputError(
                f"a vocabulary must begin with {', '.join(SPECIALS)}; this one begins with {self.words[:4]}"
            )
        for word in self.words:
            if not isinstance(word, str) or clean_words([word]) != [word]:
                raise InputError(
                    f"{word!r} is no word of a vocabulary: words are text in Unicode's form NFC, not empty, without "
                    "white space and invisible characters"
                )
        twice = [word for word, count in Counter(self.words).items() if count > 1]
        if twice:
            raise InputError(f"the word {twice[0]!r} stands twice in the vocabulary")
        # Without the special tokens: a caption that spells one out gets UNKNOWN.
        self.ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 1) -> "Vocabulary":
        """The vocabulary of tokenised training captions: words seen at least `min_count` times, most frequent first."""
        return cls.of_counts(Counter(word for caption in captions for word in caption), min_count)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], min_count: int = 1) -> "Vocabulary":
        """The same, where it is known already how often each word was seen."""
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls([*SPECIALS, *(word for word in kept if word not in SPECIALS)])

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """The vocabulary in a JSON file: a list of words in the order of their ids, with or without the special tokens.

        Raises:
            InputError: where the file is missing, is no such list, or its list is no vocabulary.
        """
        try:
            words = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such vocabulary file") from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}); a vocabulary is a list of words") from error
        if not isinstance(words, list):
            raise InputError(f"{path} is no vocabulary: its JSON is no list of words")
        try:
            return cls(words if tuple(words[: len(SPECIALS)]) == SPECIALS else [*SPECIALS, *words])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str], max_length: int | None = None) -> list[int]:
        """Ids between START and END; words beyond `max_length` are cut off, unknown ones become UNKNOWN."""
        normal = (unicodedata.normalize("NFC", word) for word in words[:max_length])
        return [START, *(self.ids.get(word, UNKNOWN) for word in normal), END]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of `ids` up to the first END; PAD and START are left out."""
        words = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words
