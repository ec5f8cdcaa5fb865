"""The Python tokeniser against the official one: what that gave for these captions, and laws."""

import random
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from visattn.errors import InputError
from visattn.metrics import ptb_tokenize
from visattn.metrics.official import java_tokenize
from visattn.metrics.ptb import PUNCTUATION

java_only = pytest.mark.skipif(
    find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="the official tokeniser needs the extra 'coco' and Java",
)

# Captions of ours, and what Stanford CoreNLP 3.4.1's PTBTokenizer and pycocoevalcap 1.2 made of them (OpenJDK 17).
OFFICIAL = [
    ("A dog runs on the beach .", "a dog runs on the beach"),
    ("A Dog, a cat; and: a bird!", "a dog a cat and a bird"),
    ("Two men (one old) and {three} [boys].", "two men -lrb- one old -rrb- and -lcb- three -rcb- -lsb- boys -rsb-"),
    ('"Stop," it says.', "stop it says"),
    ("'Stop', it says.", "stop it says"),
    ("It is a ``sign''.", "it is a sign"),
    ("“Curly” and ‘single’ «angular» quotes", "curly and single angular quotes"),
    ("A man's dog isn't the boys' dog.", "a man 's dog is n't the boys dog"),
    ("They can't, won't and don't; he'll say I'm late.", "they ca n't wo n't and do n't he 'll say i 'm late"),
    ("She'd've gone, we're here, you've seen", "she 'd 've gone we 're here you 've seen"),
    ("It’s a sign that doesn’t light", "it 's a sign that does n't light"),
    ("DON'T ASK, IT'S CLOSED", "do n't ask it 's closed"),
    ("A dog that cannot swim is gonna get wet", "a dog that can not swim is gon na get wet"),
    ("I wanna, gotta, gimme, lemme", "i wan na got ta gim me lem me"),
    ("'Tis the season, 'twas cold", "'t is the season 't was cold"),
    ("A sign at o'clock and ma'am, y'all", "a sign at o'clock and ma'am y' all"),
    ("O'Brien and d'Artagnan at L'Oreal in Hawai'i", "o'brien and d'artagnan at l'oreal in hawai'i"),
    ("rock 'n' roll and rock'n'roll", "rock 'n' roll and rock 'n' roll"),
    ("Give 'em a ride 'til 'cause", "give 'em a ride 'til 'cause"),
    ("Cars of the '50s, the 1960's and '08 models", "cars of the '50s the 1960 's and '08 models"),
    ("c'mon, li'l cap'n, s'mores", "c'mon li'l cap'n s'mores"),
    ("a qur'an and a g'day", "a qur an and a g day"),
    ("a kid's toy, the kids' toys, boss's desk", "a kid 's toy the kids toys boss 's desk"),
    (
        "Mr. and Mrs. Smith met Dr. No on Elm St. in Washington, D.C.",
        "mr. and mrs. smith met dr. no on elm st. in washington d.c.",
    ),
    ("at 5 p.m. or 5:30 a.m. on Jan. 5th", "at 5 p.m. or 5:30 a.m. on jan. 5th"),
    ("a U.S. flag and a U.S.-made car from the U.S.A.", "a u.s. flag and a u.s.-made car from the u.s.a."),
    ("e.g. toys, i.e. dolls, etc.", "e.g. toys i.e. dolls etc."),
    ("vs. Inc. Ltd. Jr. Ave. Blvd.", "vs. inc. ltd. jr. ave. blvd."),
    ("No. 7 is not no. Said no.", "no. 7 is not no said no"),
    ("a player with No. seven", "a player with no seven"),
    ("He took vitamin C. The dog slept", "he took vitamin c the dog slept"),
    ("He took vitamin C. then slept", "he took vitamin c. then slept"),
    ("J. K. Rowling and J.K. Rowling", "j. k. rowling and j.k. rowling"),
    ("A man runs.The dog sits", "a man runs.the dog sits"),
    ("wait!what and wait?what but wait;what", "wait!what and wait?what but wait what"),
    ("hello... hello.. hello…  . . . end", "hello hello hello end"),
    ("a -- b - c — d – e --- f", "a b c d e f"),
    ("What?! No!! Oh! Why???", "what ?! no !! oh why ???"),
    ("t-shirt, state-of-the-art, X-ray, co-op-, -end", "t-shirt state-of-the-art x-ray co-op end"),
    ("a 2-year-old with 20-30 toys and a B-52", "a 2-year-old with 20-30 toys and a b-52"),
    (
        "1,000 people, 3.5 miles, .5 inch, 1/2 cup, 1 1/2 cups, 24/7",
        "1,000 people 3.5 miles .5 inch 1/2 cup 1 1/2 cups 24/7",
    ),
    ("½ cup and 1½ and ⅓", "1/2 cup and 1 1/2 and 1/3"),
    ("$5, $ 3.50, US$5, £5, €5, 50¢, 50%, ¥100", "$ 5 $ 3.50 us$ 5 # 5 $ 5 50 cents 50 % ¥ 100"),
    ("#1 fan, # 2, #tag, #tag2, @user, @ home", "# 1 fan # 2 #tag #tag 2 @user @ home"),
    ("fish & chips, AT&T, R&B, M&M's, salt &amp; pepper", "fish & chips at&t r&b m&m 's salt & pepper"),
    (
        "and/or, his/her, w/ cheese, w/o cheese, black/white/red, 1/2/3/4",
        "and/or his/her w / cheese w/o cheese black/white/red 1/2/3 / 4",
    ),
    ("http://www.example.com/a?b=1. and www.foo.org, foo.com", "http://www.example.com/a?b=1 and www.foo.org foo.com"),
    ("me@example.com or photo.jpg or 1.jpg", "me@example.com or photo.jpg or 1.jpg"),
    (":) :-( ;-) :D =P <3 ^_^", ":-rrb- :--lrb- ;--rrb- :d =p < 3 ^_^"),
    ("<b>bold</b> and < or > and <br />", "<b> bold </b> and < or > and <br />"),
    ("C++, C#, *star* **two** _under_ a_b ~ ^ | \\ + = ==", "c++ c# * star * ** two ** _ under _ a_b ~ ^ | \\ + = = ="),
    ('5\'10" tall, 6\' 2", 12" x 12"', "5 10 tall 6 2 12 x 12"),
    ("90s 1st 2nd 3D 4x4 10am 3:30pm 12/25/2010 555-1234", "90s 1st 2nd 3d 4x4 10am 3:30 pm 12/25/2010 555-1234"),
    ("café naïve Zürich ﬁsh Ångström ß ñandú", "café naïve zürich ﬁsh ångström ß ñandú"),
    ("日本語 と 한국어 и русский", "日本語 と 한국어 и русский"),
    ("emoji 😀 here 👍🏽 and ❤ ☕ ★ ©®™ °C", "emoji here and ❤ ☕ ★ © ® ™ ° c"),
    ("soft\xadhyphen zero\u200bwidth non breaking", "softhyphen zero width non breaking"),
    ("tab\ttab  two   spaces", "tab tab two spaces"),
    ("ÉCOLE À PARIS İstanbul", "école à paris i̇stanbul"),
    ("red,white,and blue", "red white and blue"),
    ("1,2,3 and 1, 2, 3 and 12:30:45", "1,2,3 and 1 2 3 and 12:30:45"),
    ("-5 degrees, +5, ±5, 5-6", "-5 degrees +5 ± 5 5-6"),
    ("A.B.C. a.b. x.y.z", "a.b.c. a.b. x.y.z"),
    ("ma'am 'quoted words' and 'a'", "ma'am quoted words and a"),
    ('A man in a "Best Dad" t-shirt\'s sleeve', "a man in a best dad t-shirt 's sleeve"),
    ("n't 's 're", "n't 's 're"),
    ("say &quot;hi&quot; &lt;now&gt;", "say hi < now >"),
    ("Ph.D. student, M.D., B.A.", "ph.d. student m.d. b.a."),
    ("don`t don´t", "do n`t don ´ t"),
    ("-----", "-----"),
    ("", ""),
    ("...", ""),
    ("!", ""),
    ("Cafe\u0301 cre\u0300me", "cafe\u0301 cre\u0300me"),
    ("1\u00a01/2 of a pie", "1 1/2 of a pie"),
    ("a \x93quoted\x94 \x91word\x92 \x96 \x85", "a quoted word"),
]

# What captions are made of when nobody minds: in any order, with and without spaces between.
PIECES = """a A the The dog Dog dogs cannot gonna don't ISN'T he's I'm we'll I've y'all o'clock O'Brien 'tis 'em 'n'
    'til kids' boss's Mr. Dr. St. U.S. p.m. e.g. etc. Ave. No. vs. Inc. Jr. B. x. Ph.D. 1 10 1,000 3.5 .5 1/2 ½ $5 $
    50% % £ € 5¢ 1990's '90s 90s 1st 3D 4x4 B-52 t-shirt state-of-the-art 2-year-old 20-30 555-1234 3:30pm 12/25/2010
    - -- — – ... .. … ! ? !! ?! ; : , . " ' `` \'\' ` “ ” ‘ ’ « » ( ) [ ] { } < > <b> </p> & &amp; and/or his/her w/ /
    \\ | ~ ^ * ** _ + = @ # #1 #tag @user :) ;D é café ﬁ 日本 😀 ® ™ ° × · • it’s don’t 5'10" 6' 2" AT&T C++ dog.cat
    dog!cat red,white T.V. D.C. J.K. 1. 2) (a) wi-fi e-mail photo.jpg"""


@pytest.mark.parametrize(("caption", "tokens"), OFFICIAL)
def test_equals_the_official_tokens(caption, tokens):
    assert ptb_tokenize(caption) == tokens.split()


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029"])
def test_line_breaks_are_spaces(line_break):
    assert ptb_tokenize(f"A dog{line_break}runs.{line_break}") == ["a", "dog", "runs"]
    assert ptb_tokenize(line_break) == []


def test_a_single_letter_ends_the_caption_as_before_one_that_begins_with_a():
    assert ptb_tokenize("He took vitamin C.") == ["he", "took", "vitamin", "c"]
    assert ptb_tokenize("vitamin C. A dog") == ["vitamin", "c", "a", "dog"]
    assert ptb_tokenize("vitamin C. Dogs") == ["vitamin", "c.", "dogs"]


def test_any_string_gives_words():
    draw = random.Random(3)
    for _ in range(2003):
        caption = "".join(chr(draw.choice([draw.randrange(256), draw.randrange(0x10FFFF)])) for _ in range(17))
        for token in ptb_tokenize(caption):
            assert token.split() == [token]
            assert token not in PUNCTUATION
            assert token == token.lower()


def test_long_nonsense_ends():
    for piece in ("a", "a,", "a-", "a.", "'", "<a ", "@a", "1/", "A&", ". ", "😀"):
        assert len(ptb_tokenize(piece * 5003)) <= 2 * 5003


@java_only
def test_the_official_program_agrees():
    captions = [caption for caption, _ in OFFICIAL]
    assert java_tokenize(captions) == [tokens.split() for _, tokens in OFFICIAL]
    assert java_tokenize([]) == []
    assert java_tokenize(["", "A dog.", ""]) == [[], ["a", "dog"], []]
    # Neither a line break nor half of a character moves a caption to another image.
    assert java_tokenize(["x\ry\u2028z", "a \ud83d b", "c"]) == [["x", "y", "z"], ["a", "b"], ["c"]]


@java_only
def test_the_official_program_agrees_on_random_strings_but_for_a_few():
    draw, pieces = random.Random(5), PIECES.split()
    captions = [
        "".join(draw.choice(pieces) + draw.choice(("", " ", " ")) for _ in range(draw.randint(1, 7)))
        for _ in range(5003)
    ]
    followed = [line for caption in captions for line in (caption, "The end")]  # single letters: see docs/tokeniser.md
    official = java_tokenize(followed)[::2]
    differing = [caption for caption, tokens in zip(captions, official, strict=True) if ptb_tokenize(caption) != tokens]
    assert len(differing) < 0.002 * len(captions), differing


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("visattn.metrics.official.version", lambda name: "1.2")
    monkeypatch.setattr("visattn.metrics.official.shutil.which", lambda name: None)
    with pytest.raises(InputError, match="no program 'java' on the PATH"):
        java_tokenize(["a dog"])
    monkeypatch.undo()

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("visattn.metrics.official.version", missing)
    with pytest.raises(InputError, match=r"pycocoevalcap.*pip install 'visattn\[coco\]'"):
        java_tokenize(["a dog"])


@pytest.mark.parametrize("given", [{}, {0: [""], 1: [""]}, {0: ["a dog"]}], ids=["none", "empty", "one of two"])
def test_captions_that_java_loses_are_noticed(monkeypatch, given):
    module = ModuleType("pycocoevalcap.tokenizer.ptbtokenizer")
    module.PTBTokenizer = lambda: SimpleNamespace(tokenize=lambda captions: given)
    monkeypatch.setitem(sys.modules, "pycocoevalcap", ModuleType("pycocoevalcap"))
    monkeypatch.setitem(sys.modules, "pycocoevalcap.tokenizer", ModuleType("pycocoevalcap.tokenizer"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("visattn.metrics.official.require", lambda what: "1.2")
    with pytest.raises(InputError, match="tokeniser lost captions"):
        java_tokenize(["a dog", "a cat"])
