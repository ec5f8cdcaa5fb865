r"""The official COCO tool's tokenisation in Python; published scores use these tokens.

The official tool passes all captions to Stanford CoreNLP 3.4.1's PTBTokenizer (`-preserveLines -lowerCase`), then drops
punctuation. `ptb_tokenize` does the same to one caption, by rules derived from the program's output on every string of
up to three ASCII characters, every word of up to four letters, 290,000 English words and every character of Unicode's
first plane. On 38,153 captions of Flickr8k and COCO the tokens are identical; the remaining differences are counted and
listed in docs/tokeniser.md. `visattn.metrics.official` runs the program itself.

As in the original, all rules are tried at each position and the longest match wins, lookahead included; in a tie, the
first. A rule's first group is the token.

Quirks of the official tokens: brackets are kept, as "-lrb-" and the like, since the tool looks for them in upper case
after lower-casing; so are "!!", "?!", "&" and "%"; contractions are split ("do n't", "it 's"); words joined by a full
stop without a space stay together ("runs.the"); abbreviations keep their full stop; there is no Unicode normalisation,
so "é" and "e" with a combining accent differ.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

# Tokens dropped by the official tool. It also lists brackets, in upper case, which never occur after lower-casing.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Character classes. Characters in none of them (spaces, controls, emoji and all else beyond Unicode's first plane)
# separate words and are dropped.
_NUMERALS = (  # in Python's \w, but neither letters nor decimal digits; and all beyond the first plane
    "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u2080-\u2089\u2150-\u218b\u2460-\u249b\u24b6-\u24ff\u2776-\u2793"
    "\u3007\u3021-\u3029\u3038-\u303a\u3192-\u3195\u3220-\u3229\u3248-\u324f\u3251-\u325f\u3280-\u3289\u32b1-\u32bf"
    "\U00010000-\U0010ffff"
)
_MARKS = (  # accents and vowel signs, which may occur in words
    "\u02c2-\u02df\u02e5-\u036f\u0375\u0384\u0385\u03f6\u0483-\u0487\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4"
    "\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06ed\u06fd\u06fe\u070f\u0711\u0730-\u074a\u07a6-\u07b0"
    "\u07eb-\u07f3\u0900-\u0903\u093c-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u09d7\u09e2\u09e3"
    "\u0a01-\u0a03\u0a3c-\u0a4f\u0a81-\u0a83\u0abc-\u0acf\u0b82\u0bbe-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d48"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u1885\u1886"
)
_SYMBOLS = (  # each is a token
    "#%&+,/:;<=>@\\\\^|~\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0"
    "\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d"
    "\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017\u201f-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044"
    "\u2070-\u208e\u20a4\u2100-\u214f\u2155-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20"
    "\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6"
)
_LETTER = rf"(?:[^\W\d_{_NUMERALS}]|[{_MARKS}])"
_LETTER_OR_DIGIT = rf"(?:[^\W_{_NUMERALS}]|[{_MARKS}])"
_ALNUM = rf"[^\W_{_NUMERALS}]"  # without marks
_APOSTROPHE = "(?:['\u0092\u2019]|&apos;)"
_QUOTE = "(?:[`'\u0091\u0092\u2018\u2019\u201b]|&apos;)"  # everything that is typed for an apostrophe
_STRAIGHT = {
    **dict.fromkeys("\u0091\u2018\u201b\u2039", "`"),
    **dict.fromkeys("\u0092\u2019\u203a", "'"),
    **dict.fromkeys("\u0093\u201c\u00ab", "``"),
    **dict.fromkeys("\u0094\u201d\u00bb", "''"),
}

# Patterns.
_WORD = rf"{_LETTER}{_LETTER_OR_DIGIT}*(?:[.!?]{_LETTER}{_LETTER_OR_DIGIT}*)*"
_ELIDED = rf"[dDoOlL]{_QUOTE}"  # d'Orsay, O'Neill, l'eau
_JOINED = rf"(?:{_ELIDED}{_ALNUM})?{_ALNUM}+(?:[-_\u058a\u2010\u2011](?:{_ELIDED})?{_ALNUM}+)*"  # t-shirt, 2x4, a_b
_CLITIC = rf"{_APOSTROPHE}(?:[msd]|re|ve|ll)"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+\."
_TAG = r"<(?:/?[A-Za-z][A-Za-z0-9_:.-]*(?:\s[^<>]*)?/?|[!?][A-Za-z-][^<>]*)>"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"  # a part of "and/or"

# Abbreviations that keep their full stop; the first three lists do so even if the next word follows without a space.
_ENDING = r"""ph\.d al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est
    etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct
    okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"""
_ENDING_NOT_SMALL = "az ark del ill la mass miss ore pa tex wash"  # "ill." is not Illinois
_ENDING_NOT_CAPITALS = "ppte pptes ppty pptys pte ptes pty ptys"
_TITLES = """adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft
    gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep
    reps rev sen sens sfc sgt spc st ste supt supts treas vs wm"""
_TITLES_NOT_CAPITALS = "mfg mtg"
_BEFORE_NUMBERS = "art ca fig figs no nos op p pp prop"
# Words that, if capitalised, show that the full stop after a single letter ends a sentence ("vitamin C. The ...").
_STARTERS = """a about according additionally after an as at but earlier he her here however if in it last many more
    now once one other our she since so some such that the their then there these they this we what when while yet
    you"""
_FILES = """bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps
    py sql tar txt wav x xml zip"""
# Words not split at an apostrophe, besides those that the rules match by a pattern.
_WITH_APOSTROPHE = [
    *("c'mon", "e'er", "ev'ry", "he'er", "li'l", "nat'l", "nor'easter", "s'mores"),
    *(pattern.replace("'", _APOSTROPHE) for pattern in ("'em", "'till?", "'n'", "[djl]'", "ol'", "cap'n", "c'est")),
    *(pattern.replace("'", _QUOTE) for pattern in ("'cause", "hallowe'en", "o'o")),
]

_SPELLED = {  # tokens that are replaced
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "\u00a2": "cents",
    "\u00a3": "#",
    **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$"),
    "\u00bc": "1/4",
    "\u00bd": "1/2",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
}


class _Rule(NamedTuple):
    """A pattern whose first group is the token; without a group, the match is dropped."""

    pattern: re.Pattern[str]
    rewrite: Callable[[str], str] | None = None


def _any(words: str) -> str:
    """A pattern for any of the words, case-insensitive."""
    return f"(?i:{'|'.join(words.split())})"


def _any_not_small(words: str) -> str:
    return "|".join(form for word in words.split() for form in dict.fromkeys((word.capitalize(), word.upper())))


def _any_not_capitals(words: str) -> str:
    return "|".join(form for word in words.split() for form in (word, word.capitalize()))


def _straighten(token: str) -> str:
    return "".join(_STRAIGHT.get(character, character) for character in token.replace("&apos;", "'"))


def _face(token: str) -> str:
    return token.replace("(", "-lrb-").replace(")", "-rrb-")


def _ampersand(token: str) -> str:
    return token.replace("&amp;", "&")


def _rule(pattern: str, rewrite: Callable[[str], str] | None = None) -> _Rule:
    return _Rule(re.compile(pattern), rewrite)


_KEEPS_ITS_STOP = "|".join((_any(_ENDING), _any_not_small(_ENDING_NOT_SMALL), _any_not_capitals(_ENDING_NOT_CAPITALS)))
_TITLE = f"{_any(_TITLES)}|{_any_not_capitals(_TITLES_NOT_CAPITALS)}"
_NOT_IN_ADDRESSES = r"\s\"<>|(){}"

_RULES = [
    # Two words in one: "can not", "gon na", "'t is".
    _rule(r"(?i:(can)not|(gon|wan)na|(got)ta|(gim|lem)me|('t)(?:is|was))"),
    # Markup.
    _rule(rf"({_TAG})"),
    _rule(r"((?i:&(?:amp|lt|gt);))"),
    _rule(r"(&(?:HT|TL|UR|LR|QC|QL|QR|#\d+);)"),
    _rule(r"(?i:&(?:apos|nbsp|quot|odq|cdq|mdash|MD);)"),
    # Words, without a contraction that follows.
    _rule(rf"({_WORD})(?i:{_CLITIC})"),
    _rule(rf"([A-Za-z]*[A-MO-Za-mo-z])(?i:n{_QUOTE}t)"),
    _rule(rf"({_WORD})"),
    _rule(rf"([A-HJ-XZdlno]{_QUOTE}{_LETTER}{{2,}})"),  # O'Brien
    _rule(rf"({_LETTER}+[aeiouyAEIOUY]{_QUOTE}[aeiouA-Z]{_LETTER}*)"),  # ma'am, Hawai'i
    _rule(rf"((?i:{'|'.join(_WITH_APOSTROPHE)}))"),
    _rule(rf"((?i:y{_APOSTROPHE})){_LETTER}"),  # y' all
    _rule(rf"((?i:{_APOSTROPHE}n))\s"),  # rock 'n roll
    _rule(rf"({_APOSTROPHE}[2-9]0s)"),  # '90s
    _rule(rf"({_APOSTROPHE}\d\d)\s"),  # '08
    # Addresses and names.
    _rule(rf"((?i:https?://[^{_NOT_IN_ADDRESSES}]+[^{_NOT_IN_ADDRESSES}.!?,-]))"),
    _rule(rf"((?i:www\.(?:[a-z0-9-]+\.)+[a-z]{{2,4}}(?:/[^{_NOT_IN_ADDRESSES}]*[^{_NOT_IN_ADDRESSES}.!?,-])?))"),
    _rule(rf"(<?[A-Za-z0-9][^{_NOT_IN_ADDRESSES}]{{0,63}}@(?:[^{_NOT_IN_ADDRESSES}.]+\.)*[^{_NOT_IN_ADDRESSES}.]+)"),
    _rule(rf"(@[A-Za-z_][A-Za-z_0-9]*|#{_LETTER}+)"),
    _rule(r"((?i:c\+\+|[cf]#))"),
    # Contractions by themselves; an apostrophe that opens a quotation.
    _rule(rf"((?i:{_CLITIC}))[^A-Za-z]", _straighten),
    _rule(r"(')[A-Za-z]\S"),
    _rule(rf"((?i:{_CLITIC}))", _straighten),
    _rule(rf"((?i:n{_QUOTE}t))", _straighten),
    # Numbers, and words joined by hyphens and slashes.
    _rule(r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})"),
    _rule(r"([+-]?(?:\d*(?:[.:,]\d+)+|\d+))"),
    _rule(r"((?:\d{1,4}[- \u00a0])?\d{1,4}\\?/\d{1,4})"),
    _rule(rf"({_SLASHED}(?:\\?/{_SLASHED}){{1,2}})"),
    _rule(rf"({_JOINED})"),
    _rule(rf"([A-Za-z0-9][A-Za-z0-9.,]{{0,63}}(?:-(?:{_ACRONYM}|[A-Za-z0-9]+))+)"),
    _rule(r"([A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)", _ampersand),  # AT&T
    # Abbreviations.
    _rule(rf"((?:{_KEEPS_ITS_STOP})\.)[\s\S]{{2}}"),
    _rule(rf"((?:{_KEEPS_ITS_STOP}|{_TITLE})\.)"),
    _rule(rf"({_any(_BEFORE_NUMBERS)}\.)\s?\d"),
    _rule(rf"({_ACRONYM})"),
    _rule(r"([A-Za-z]\.)"),
    # The next caption is assumed to begin with one of the starters, as most captions do.
    _rule(rf"([A-Za-z])\.(?:\s*\n|[ \t\u00a0]+(?:(?:{_any_not_small(_STARTERS)})\s|M[rs]\.\s|{_TAG}\s))"),
    _rule(rf"((?i:[a-z0-9]+(?:\.[a-z0-9]+)*\.{_any(_FILES)}))[\s.,?!]"),
    _rule(rf"((?:{_WORD}|{_JOINED})\.)[,;:\u3001]"),
    # Emoticons.
    _rule(r"([<>]?[:;=][-o'*]?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _face),
    _rule(r"([-^x=~<>']_[-^x=~<>'])"),
    # Punctuation.
    _rule(r"\.{3,5}|\.(?: \.){2,4}|[.\u0085\u2026]"),
    _rule(r"-{1,4}(?!-)|[\u0096\u0097\u2013-\u2015]"),
    _rule(r"''|[\"']"),
    _rule(r"([?!]+|-{5,}|\\\*|\*+|_+|##+|@@+|<<|>>)"),
    _rule(r"([`\u0091-\u0094\u00ab\u00bb\u2018-\u201e\u2039\u203a]{1,2})", _straighten),
    _rule(r"([A-Z]*\$)"),
    _rule(rf"([{_SYMBOLS}{re.escape(''.join(c for c in _SPELLED if len(c) == 1))}])"),
]
_PLAIN = re.compile(r"(?!(?i:cannot|gonna|gotta|gimme|lemme|wanna)\b)[A-Za-z]+(?=[ \n])")  # fast path for most words


def ptb_tokenize(caption: str) -> list[str]:
    """The tokens of one caption: lower-cased, without punctuation; possibly none.

    Line breaks count as spaces.
    """
    text = " ".join(caption.splitlines()).replace("\u00ad", "") + "\n"  # U+00AD, the soft hyphen, is ignored
    tokens: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
        elif plain := _PLAIN.match(text, at):
            tokens.append(plain[0].lower())
            at = plain.end() + 1
        else:
            token, at = _longest(text, at)
            tokens += token.lower().split()  # markup may contain spaces
    return [token for token in tokens if token not in PUNCTUATION]


def _longest(text: str, at: int) -> tuple[str, int]:
    """The token at a position ("" if none), and the position after it."""
    best, rewrite = None, None
    for rule in _RULES:
        match = rule.pattern.match(text, at)
        if match and (best is None or match.end() > best.end()):
            best, rewrite = match, rule.rewrite
    if best is None:
        return "", at + 1
    if best.lastindex is None:
        return "", best.end()
    token = best[best.lastindex]
    token_end = best.end(best.lastindex)
    return rewrite(token) if rewrite else _SPELLED.get(token.lower(), token), token_end
