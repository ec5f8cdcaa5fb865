"""The official COCO tokeniser and METEOR, run as the original Java programs.

Both come with pycocoevalcap (the extra `coco`): Stanford CoreNLP 3.4.1's PTBTokenizer, and METEOR 1.5
(Denkowski & Lavie 2014), which takes 2 GB of memory. Both are loaded only when used.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from visattn.errors import InputError, install
from visattn.metrics.captions import Candidates, CaptionScores, References, _check_candidates

EXTRA = "pycocoevalcap"

# Characters that the tokeniser treats as line ends, and so as ends of captions; and lone surrogates.
_NOT_IN_A_LINE = re.compile("[\n\v\f\r\u2028\u2029\ud800-\udfff]")
_HAS_WORDS = re.compile("[A-Za-z]")


def require(what: str) -> str:
    """Check that pycocoevalcap and Java are installed, and return pycocoevalcap's version.

    Args:
        what: what needs them; the error message begins with it.

    Raises:
        InputError: if either is missing.
    """
    try:
        found = version(EXTRA)
    except PackageNotFoundError as error:
        raise InputError(f"{what} needs {EXTRA}, which is not installed: {install('coco')}") from error
    if shutil.which("java") is None:
        raise InputError(f"{what} needs Java, but there is no program 'java' on the PATH; install a Java runtime")
    return found


def java_tokenize(captions: Sequence[str]) -> list[list[str]]:
    """The official tokens of each caption, lower-cased and without punctuation; possibly none.

    Line breaks count as spaces. (The official tool handles only newlines this way; other line breaks make it assign
    captions to the wrong images.) The last token of a caption that ends in a single letter with a full stop ("vitamin
    C.") depends on how the next caption begins.

    Raises:
        InputError: if pycocoevalcap or Java is missing, or Java fails.
    """
    require("the official tokeniser")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = {i: [{"caption": _NOT_IN_A_LINE.sub(" ", caption)}] for i, caption in enumerate(captions)}
    if not lines:
        return []
    found = PTBTokenizer().tokenize(lines)
    tokens = [found[i][0].split() for i in lines if i in found]
    if len(tokens) < len(lines) or (not any(tokens) and any(map(_HAS_WORDS.search, captions))):
        raise InputError("the Java tokeniser lost captions; check that 'java -version' works")
    return tokens


def meteor(references: References, candidates: Candidates) -> CaptionScores:
    """METEOR of one candidate for each image, in [0, 1], under the name "METEOR".

    The score of the set is computed from pooled statistics, so it is not the mean. An empty candidate scores 0.

    Args:
        references: image id -> its tokenised captions, at least one.
        candidates: image id -> a tokenised caption; the same ids.

    Raises:
        InputError: if pycocoevalcap or Java is missing, Java fails, or the ids of the two are not the same set.
    """
    _check_candidates(references, candidates)
    require("METEOR")
    from pycocoevalcap.meteor.meteor import Meteor

    with _running(Meteor()) as tool:
        corpus, per_image = tool.compute_score(
            {image: [_line(caption) for caption in captions] for image, captions in references.items()},
            {image: [_line(candidates[image])] for image in references},
        )
    return CaptionScores(
        {"METEOR": corpus}, {image: {"METEOR": score} for image, score in zip(references, per_image, strict=True)}
    )


@contextmanager
def _running(tool: Any) -> Iterator[Any]:
    """Always end METEOR's process, and report its error output if it stops early."""
    process = tool.meteor_p
    try:
        yield tool
    except (ValueError, OSError) as error:  # no answer, or not a number
        process.kill()
        said = process.stderr.read().decode(errors="replace").strip() or "no error output"
        raise InputError(f"METEOR's program, which needs Java and 2 GB, stopped: {said.splitlines()[0]}") from error
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):  # of output not yet written
                pipe.close()
        if tool.lock.locked():  # not released after an error, which would deadlock its destructor
            tool.lock.release()


def _line(words: Sequence[str]) -> str:
    """A caption in the input format of METEOR's program, in which "|||" separates captions."""
    return " ".join(" ".join(words).replace("|||", "").split())
