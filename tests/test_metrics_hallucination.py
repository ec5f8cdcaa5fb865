"""CHAIR: objects that captions name and images lack."""

import pytest

from visattn.metrics import Mentions, hallucination_scores


def caption(named, present):
    return Mentions(tuple(named.split()), frozenset(present.split()))


def test_scores_by_hand():
    """Seven mentions, three of them false, in two of five captions; three of nine categories are named."""
    captions = [
        caption("person dog dog", "person dog kite"),
        caption("cat person cat", "person"),  # the same false object twice
        caption("bus", "train car"),
        caption("", "bench boat cup"),
        caption("", ""),
    ]
    assert [said.absent for said in captions] == [(), ("cat", "cat"), ("bus",), (), ()]
    scores = hallucination_scores(captions)
    assert scores == pytest.approx({"CHAIR-i": 3 / 7, "CHAIR-s": 2 / 5, "mentions": 7 / 5, "object_recall": 3 / 9})


def test_what_is_undefined_is_left_out():
    assert hallucination_scores([caption("", "")]) == {"mentions": 0}
    assert hallucination_scores([caption("", "dog")]) == {"object_recall": 0, "mentions": 0}
    assert hallucination_scores([caption("dog", "")]) == {"CHAIR-s": 1, "mentions": 1, "CHAIR-i": 1}
    with pytest.raises(ValueError, match="no caption"):
        hallucination_scores([])
