import json
import unicodedata
from pathlib import Path

import pytest

from visattn.errors import InputError
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary, clean_words, tokenize


def test_tokenize_lowers_and_drops_punctuation() -> None:
    assert tokenize("A man's T-shirt, on 2 dogs .") == ["a", "man's", "t-shirt", "on", "2", "dogs"]
    assert tokenize(" \n. !") == []
    assert tokenize("snake_case") == ["snake", "case"]


def test_tokenize_composes_and_keeps_other_scripts() -> None:
    assert tokenize(unicodedata.normalize("NFD", "Café im Grünen")) == ["café", "im", "grünen"]
    assert tokenize("собака бежит") == ["собака", "бежит"]


def test_captions_cannot_contain_special_tokens() -> None:
    assert not set(tokenize("a <end> dog <pad>")) & set(SPECIALS)
    vocabulary = Vocabulary.build([["a", "<end>"], ["a", "<end>"]])
    assert vocabulary.words == [*SPECIALS, "a"]
    assert vocabulary.encode(["<end>", "<pad>", "a"]) == [START, UNKNOWN, UNKNOWN, 4, END]


def test_build_counts_and_orders() -> None:
    captions = [["b", "a", "c"], ["b", "a"], ["b", "d"]]
    assert Vocabulary.build(captions).words == [*SPECIALS, "b", "a", "c", "d"]  # by count, then by name
    assert Vocabulary.build(captions, min_count=2).words == [*SPECIALS, "b", "a"]
    assert Vocabulary.build(captions, min_count=7).words == list(SPECIALS)


def test_encode_cuts_and_decode_undoes() -> None:
    vocabulary = Vocabulary([*SPECIALS, "a", "dog", "runs"])
    assert vocabulary.encode(["a", "dog", "runs"], max_length=2) == [START, 4, 5, END]
    assert vocabulary.decode(vocabulary.encode(["a", "dog", "runs"])) == ["a", "dog", "runs"]
    assert vocabulary.decode([START, 4, END, 5, PAD]) == ["a"]
    assert vocabulary.encode([]) == [START, END]


def test_an_invalid_vocabulary() -> None:
    with pytest.raises(InputError, match="must begin with <pad>, <start>, <end>, <unk>"):
        Vocabulary(["a", "b"])
    with pytest.raises(InputError, match="'a' occurs twice"):
        Vocabulary([*SPECIALS, "a", "b", "a"])


def test_words_of_scripts_with_vowel_signs_stay_whole() -> None:
    assert tokenize("हिन्दी में लिखा") == ["हिन्दी", "में", "लिखा"]
    assert tokenize("İstanbul'da ÇAY") == ["i̇stanbul'da", "çay"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_text_comes_back_as_it_went(form: str) -> None:
    caption = unicodedata.normalize(form, "Ein Mädchen isst Crème brûlée – 한국어 हिन्दी Việt")
    words = tokenize(caption)
    vocabulary = Vocabulary.build([words])
    want = ["ein", "mädchen", "isst", "crème", "brûlée", "한국어", "हिन्दी", "việt"]
    assert vocabulary.decode(vocabulary.encode(words)) == want
    assert vocabulary.decode(vocabulary.encode([unicodedata.normalize(form, word) for word in want])) == want


def test_given_tokens_become_words() -> None:
    tokens = ["Cafe\u0301", "two words", " ", "", None, 7, "bell\x07", "\u202e", "می\u200cخواهم", "\u200d", "\ud83d"]
    assert clean_words(tokens) == ["Café", "two", "words", "bell", "می\u200cخواهم"]


def test_a_vocabulary_file(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    for words in (["a", "dog"], [*SPECIALS, "a", "dog"]):
        path.write_text(json.dumps(words))
        assert Vocabulary.read(path).words == [*SPECIALS, "a", "dog"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('["a", "<end>"]', r"words\.json: the word '<end>' occurs twice"),
        ('["<start>", "a"]', r"'<start>' occurs twice"),
        ('["<pad>", "<start>", "<end>", "a"]', "occurs twice"),
        ('["a", "a"]', "'a' occurs twice"),
        ('["a", 7]', "7 cannot be in a vocabulary"),
        ('["a", ""]', "'' cannot be in"),
        ('["a", "b c"]', "'b c' cannot be in"),
        ('["a", "<end>\\u200b"]', "cannot be in"),
        ('["a", "cafe\\u0301"]', "cannot be in"),
        ('["a", "\\u001b[31m"]', "cannot be in"),
        ('{"a": 1}', r"words\.json is not a vocabulary"),
        ("a\ndog\n", r"words\.json cannot be read as JSON"),
    ],
)
def test_an_invalid_vocabulary_file(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        Vocabulary.read(tmp_path / "words.json")
    with pytest.raises(InputError, match=r"gone\.json: no such vocabulary file"):
        Vocabulary.read(tmp_path / "gone.json")
