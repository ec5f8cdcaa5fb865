"""Words to ids and back, with the special tokens in one place."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from visattn.errors import InputError

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")

# Letters, digits and marks of any script, with inner apostrophes and hyphens; "<" and ">" can never be part of a word,
# so no caption can smuggle in a special token.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def tokenize(caption: str) -> list[str]:
    """The lower-cased words of a caption (NFC), without punctuation: the form of the Karpathy splits' tokens."""
    return _WORD.findall(unicodedata.normalize("NFC", caption).lower())


class Vocabulary:
    """A fixed list of words; ids 0 to 3 are the special tokens.

    Args:
        words: every word in the order of its id, the four special tokens first (`Vocabulary.build` makes such a list).

    Raises:
        InputError: where the special tokens are not first, or a word stands twice.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        if tuple(self.words[: len(SPECIALS)]) != SPECIALS:
            raise InputError(
                f"a vocabulary must begin with {', '.join(SPECIALS)}; this one begins with {self.words[:4]}"
            )
        twice = [word for word, count in Counter(self.words).items() if count > 1]
        if twice:
            raise InputError(f"the word {twice[0]!r} stands twice in the vocabulary")
        # Without the special tokens: a caption that spells one out gets UNKNOWN.
        self.ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 1) -> "Vocabulary":
        """The vocabulary of tokenised training captions: words seen at least `min_count` times, most frequent first."""
        counts = Counter(word for caption in captions for word in caption)
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls([*SPECIALS, *(word for word in kept if word not in SPECIALS)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str], max_length: int | None = None) -> list[int]:
        """Ids between START and END; words beyond `max_length` are cut off, unknown ones become UNKNOWN."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in words[:max_length]), END]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of `ids` up to the first END; PAD and START are left out."""
        words = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words
