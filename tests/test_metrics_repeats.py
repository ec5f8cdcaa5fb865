"""Captions with repetitions, by the same rule as the decoding option `no_repeat`."""

import math

import pytest
import torch

from visattn.decoding.loop import repeats
from visattn.metrics import repeat_share, repeats_itself


@pytest.mark.parametrize(
    ("caption", "longest"),
    [
        ("a brown dog is standing in front of a brown dog", 3),
        ("a dog and a cat", 1),
        ("the red red red ball", 2),  # the two runs overlap
        ("a man runs", 0),
        ("", 0),
    ],
)
def test_the_longest_repeated_ngram(caption, longest):
    found = [run for run in range(1, 6) if repeats_itself(caption.split(), run)]
    assert found == list(range(1, longest + 1))


def test_no_repeat_prevents_it():
    generator = torch.Generator().manual_seed(7)
    for _ in range(53):
        tokens = torch.randint(4, 9, (11,), generator=generator)
        for run in (1, 2, 3):
            banned = [bool(repeats(tokens[None, :t], run, 13)[0, tokens[t]]) for t in range(11)]
            assert any(banned) == repeats_itself(list(map(str, tokens.tolist())), run)


def test_shares():
    captions = [caption.split() for caption in ("a dog a dog", "a dog", "dogs", "")]
    assert repeat_share(captions) == 0.25
    assert repeat_share(captions, 1) == 0.25
    assert math.isnan(repeat_share([]))
