import unicodedata

import pytest

from visattn.errors import InputError
from visattn.vocabulary import END, PAD, SPECIALS, START, UNKNOWN, Vocabulary, tokenize


def test_tokenize_lowers_and_drops_punctuation() -> None:
    assert tokenize("A man's T-shirt, on 2 dogs .") == ["a", "man's", "t-shirt", "on", "2", "dogs"]
    assert tokenize(" \n. !") == []
    assert tokenize("snake_case") == ["snake", "case"]


def test_tokenize_composes_and_keeps_other_scripts() -> None:
    assert tokenize(unicodedata.normalize("NFD", "Café im Grünen")) == ["café", "im", "grünen"]
    assert tokenize("собака бежит") == ["собака", "бежит"]


def test_no_caption_smuggles_in_a_special_token() -> None:
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


def test_a_list_that_is_no_vocabulary() -> None:
    with pytest.raises(InputError, match="must begin with <pad>, <start>, <end>, <unk>"):
        Vocabulary(["a", "b"])
    with pytest.raises(InputError, match="'a' stands twice"):
        Vocabulary([*SPECIALS, "a", "b", "a"])
