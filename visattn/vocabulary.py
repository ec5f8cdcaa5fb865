"""Tokenisation of captions, and vocabularies with the special tokens."""

import functools
import hashlib
import json
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visattn.errors import InputError, install

if TYPE_CHECKING:
    import tokenizers

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")

_JOINERS = "\u200c\u200d"  # invisible, but needed in Persian, Hindi and emoji


@functools.cache
def _word(ascii_only: bool) -> re.Pattern[str]:
    """Letters, digits and marks of any script, with inner apostrophes and hyphens.

    "<" and ">" are never part of a word, so a caption cannot contain special tokens.
    """
    marks = "" if ascii_only else "".join(c for c in map(chr, range(sys.maxunicode + 1)) if _is_mark(c))
    part = rf"[^\W_](?:[^\W_]|[{marks}])*" if marks else r"[^\W_]+"
    return re.compile(rf"{part}(?:['’-]{part})*")


def _is_mark(character: str) -> bool:
    """Whether it is a combining mark, such as a vowel sign of Hindi; `re` does not count these as word characters."""
    return unicodedata.category(character) in ("Mn", "Mc")


def tokenize(caption: str) -> list[str]:
    """The lower-cased words of a caption (NFC), without punctuation, like the tokens of the Karpathy splits."""
    # Lower-casing decomposes some letters, such as the Turkish "İ", so text is normalised before and after.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", caption).lower())
    return _word(text.isascii()).findall(text)


def clean_words(tokens: Iterable[object]) -> list[str]:
    """Words from external tokens: NFC, without control and other invisible characters.

    A token with white space is split; tokens that are not text, or have nothing visible, are dropped.
    """
    words = []
    for token in tokens:
        if isinstance(token, str):
            words += unicodedata.normalize("NFC", _visible(token)).split()
    return [word for word in words if word.strip(_JOINERS)]


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c for c in text if c.isprintable() or c.isspace() or c in _JOINERS)


# Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


def unspaced(word: str) -> int:
    """Number of letters of a word in scripts without spaces between words."""
    return 0 if word.isascii() else len(_UNSPACED.findall(word))


_LONG = 8  # letters; in those scripts few words are so long, but most phrases are


def phrases(counts: Mapping[str, int]) -> tuple[float, str]:
    """The share of letters in whole phrases of scripts without spaces, and the three most frequent such phrases.

    Args:
        counts: number of occurrences of each word.
    """
    letters = sum(len(word) * count for word, count in counts.items())
    found = Counter({word: n * count for word, count in counts.items() if (n := unspaced(word)) >= _LONG})
    return found.total() / max(1, letters), ", ".join(repr(word[:40]) for word, _ in found.most_common(3))


class Tokens(ABC):
    """A way to split captions into tokens.

    Attributes:
        spec: its description in checkpoints, from which `tokens_of` recreates it.
        name: its name in the signatures of scores.
    """

    spec: str
    name: str

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The tokens of a text."""

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """The text of a list of tokens."""

    def given(self, raw: str | None, tokens: list[Any] | None) -> list[str]:
        """The tokens of a caption given as text, as existing tokens, or both."""
        if raw is None:
            raw = _written(clean_words(tokens or []))
        return self.split(raw)

    def label(self, token: str) -> str:
        """A token as displayed by itself."""
        return token


class Words(Tokens):
    """Lower-cased words without punctuation; existing tokens are kept."""

    spec = name = "words"

    def split(self, text: str) -> list[str]:
        return tokenize(text)

    def join(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)

    def given(self, raw: str | None, tokens: list[Any] | None) -> list[str]:
        return self.split(raw or "") if tokens is None else clean_words(tokens)


class Characters(Tokens):
    """Characters (NFC) with their combining marks, such as the vowels of Thai; a space is a token, too."""

    spec = name = "characters"

    def split(self, text: str) -> list[str]:
        return _character().findall(" ".join(_visible(unicodedata.normalize("NFC", text)).split()))

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens)

    def label(self, token: str) -> str:
        return "␣" if token == " " else token


@functools.cache
def _character() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if _is_mark(c) or unicodedata.category(c) == "Me")
    return re.compile(rf".[{marks}{_JOINERS}]*")


class Subwords(Tokens):
    """The tokens of a tokenizer of Hugging Face's `tokenizers`, saved as JSON.

    Its special tokens are not added, and its unknown token becomes `UNKNOWN`. As for words, the vocabulary consists of
    the tokens in the training captions.

    Args:
        spec: the JSON.

    Raises:
        InputError: if it is not a tokenizer's JSON, or the library is not installed.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.name = f"tokenizers-{hashlib.sha256(spec.encode()).hexdigest()[:8]}"
        _subwords(spec)

    def split(self, text: str) -> list[str]:
        tokenizer, unknown = _subwords(self.spec)
        text = text.encode(errors="replace").decode()  # it does not accept lone surrogates
        try:
            found = tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises plain exceptions
            raise InputError(f"the tokenizer cannot read the caption {text[:80]!r}: {error}") from error
        tokens, at = [], 0
        for token, number, (start, stop) in zip(found.tokens, found.ids, found.offsets, strict=True):
            if unknown is None and any(map(str.isalnum, text[at:start])):  # it skips unknown text silently
                tokens.append(SPECIALS[UNKNOWN])
            tokens.append(SPECIALS[UNKNOWN] if number == unknown else token)
            at = max(at, stop)
        return tokens + [SPECIALS[UNKNOWN]] * (unknown is None and any(map(str.isalnum, text[at:])))

    def join(self, tokens: Sequence[str]) -> str:
        decoder = _subwords(self.spec)[0].decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens)).strip()

    def label(self, token: str) -> str:
        text = self.join([token])
        return token if "\ufffd" in text or not text else text


@functools.lru_cache(maxsize=4)
def _subwords(spec: str) -> "tuple[tokenizers.Tokenizer, int | None]":
    """A tokenizer, and its id for unknown tokens."""
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            f"these captions use a tokenizer, which needs the package tokenizers: {install('tokenizers')}"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(spec)
    except Exception as error:  # the library raises plain exceptions
        raise InputError(
            f"not a tokenizer file of Hugging Face's tokenizers ({' '.join(str(error).split())[:200]})"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = json.loads(spec)["model"]
    named = model.get("unk_token")
    return tokenizer, model.get("unk_id") if named is None else tokenizer.token_to_id(named)


def _written(words: Sequence[str]) -> str:
    """Join words with spaces, except between words of scripts without spaces."""
    text = ""
    for word in words:
        text += " " * bool(text and not (unspaced(text[-1]) and unspaced(word[0]))) + word
    return text


def tokens_of(spec: str) -> Tokens:
    """The tokenisation: "words", "characters", or the JSON of a tokenizer.

    Raises:
        InputError: if it is none of these.
    """
    return Words() if spec == Words.spec else Characters() if spec == Characters.spec else Subwords(spec)


def read_tokens(name: str, folder: Path | None = None) -> Tokens:
    """The same, with a tokenizer's file given by its path, relative to `folder` or to the working directory.

    Raises:
        InputError: if there is no such file, or it is not a tokenizer.
    """
    if name in (Words.spec, Characters.spec):
        return tokens_of(name)
    path = next((path for path in ((folder or Path()) / name, Path(name)) if path.is_file()), None)
    if path is None:
        raise InputError(f"tokens must be words, characters or the JSON file of a tokenizer; {name!r} is not a file")
    try:
        return tokens_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a tokenizer: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


class Vocabulary:
    """A fixed list of tokens; ids 0 to 3 are the special ones.

    Args:
        words: all tokens in the order of their ids, the four special ones first (see `Vocabulary.build`).
        tokens: unit of the captions: "words", "characters", or the JSON of a tokenizer.

    Attributes:
        tokens: splits and joins captions.

    Raises:
        InputError: if the special tokens are not first, or a token is repeated, empty or, for words, not in NFC or with
            white space or invisible characters.
    """

    def __init__(self, words: Sequence[str], tokens: str = "words") -> None:
        self.words, self.tokens = list(words), tokens_of(tokens)
        if tuple(self.words[: len(SPECIALS)]) != SPECIALS:
            raise InputError(
                f"a vocabulary must begin with {', '.join(SPECIALS)}; this one begins with {self.words[:4]}"
            )
        for word in self.words:
            if not isinstance(word, str) or not word or (tokens == Words.spec and clean_words([word]) != [word]):
                raise InputError(
                    f"{word!r} cannot be in a vocabulary: words are non-empty text in Unicode NFC, without "
                    "white space and invisible characters"
                )
        twice = [word for word, count in Counter(self.words).items() if count > 1]
        if twice:
            raise InputError(f"the word {twice[0]!r} occurs twice in the vocabulary")
        # Without the special tokens: a caption that spells one out gets UNKNOWN.
        self.ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 1, tokens: str = "words") -> "Vocabulary":
        """The words of tokenised captions that occur at least `min_count` times, the most frequent first."""
        return cls.of_counts(Counter(word for caption in captions for word in caption), min_count, tokens)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], min_count: int = 1, tokens: str = "words") -> "Vocabulary":
        """The same, from the number of occurrences of each word."""
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls([*SPECIALS, *(word for word in kept if word not in SPECIALS)], tokens)

    @classmethod
    def read(cls, path: Path, tokens: str = "words") -> "Vocabulary":
        """The vocabulary in a JSON file: a list of words in the order of their ids, with or without the special tokens.

        Raises:
            InputError: if the file is missing, or is not a valid list of words.
        """
        try:
            words = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such vocabulary file") from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}); a vocabulary is a list of words") from error
        if not isinstance(words, list):
            raise InputError(f"{path} is not a vocabulary: its JSON is not a list of words")
        try:
            return cls(words if tuple(words[: len(SPECIALS)]) == SPECIALS else [*SPECIALS, *words], tokens)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str], max_length: int | None = None) -> list[int]:
        """Ids between START and END; words beyond `max_length` are dropped, unknown ones become UNKNOWN."""
        return [START, *map(self._id, words[:max_length]), END]

    def _id(self, word: str) -> int:
        found = self.ids.get(word)
        return self.ids.get(unicodedata.normalize("NFC", word), UNKNOWN) if found is None else found

    def join(self, words: Sequence[str]) -> str:
        """The text of a caption's tokens."""
        return self.tokens.join(words)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words of `ids` up to the first END; PAD and START are skipped."""
        words = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words
