"""Scores with a signature of how they were computed."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from visattn import __version__
from visattn.data.coco_words import objects
from visattn.data.instances import coco_instances
from visattn.errors import InputError
from visattn.metrics import (
    DocumentFrequencies,
    Mentions,
    caption_scores,
    hallucination_scores,
    ptb_tokenize,
    repeats_itself,
)
from visattn.metrics.official import java_tokenize, meteor, require
from visattn.studies.scores.files import Captions, References, pair, read_candidates, read_references
from visattn.vocabulary import Characters, phrases, read_tokens

NAMELESS = "no candidate names an object of COCO's categories in English, so there is no CHAIR"
MAX_PHRASES = 0.2  # maximum share of the references' letters

Tokens = dict[str, list[list[str]]]
Tokenize = Callable[[Sequence[str]], list[list[str]]]

TOKENIZERS: dict[str, tuple[str, Tokenize]] = {  # option -> name in the signature, function
    "ptb": ("ptb-py", lambda captions: [ptb_tokenize(caption) for caption in captions]),
    "java": ("ptb-java", java_tokenize),
    "spaces": ("spaces", lambda captions: [caption.split() for caption in captions]),
    "characters": ("characters", lambda captions: list(map(Characters().split, captions))),
}


def tokenizer_of(name: str) -> tuple[str, Tokenize]:
    """A tokenizer and its name in signatures: one of `TOKENIZERS`, or a JSON file of Hugging Face's `tokenizers`.

    Raises:
        InputError: if it is neither.
    """
    if name in TOKENIZERS:
        return TOKENIZERS[name]
    if not Path(name).is_file():
        raise InputError(f"the tokenizer must be {', '.join(TOKENIZERS)} or a JSON file; there is no file {name}")
    tokens = read_tokens(name)
    return tokens.name, lambda captions: list(map(tokens.split, captions))


def evaluate(
    references: Path,
    candidates: Path,
    split: str | None = None,
    tokenizer: str = "ptb",
    partial: bool = False,
    with_meteor: bool = False,
    frequencies: Path | None = None,
    frequencies_split: str | None = None,
    instances: Path | None = None,
) -> dict[str, Any]:
    """Score a file of candidates; see `visattn evaluate --help` for missing and unusual input.

    Args:
        references: COCO's caption file or a Karpathy file.
        candidates: a list of {"image_id", "caption"}, or of {"image", "caption"} with the path of an image file.
        split: splits of a Karpathy file, separated by commas; None uses "test".
        tokenizer: "ptb", "java", "characters", a file (see `tokenizer_of`), or "spaces" if captions are tokens
            separated by spaces, which also selects a Karpathy file's tokens.
        partial: whether images may lack a candidate.
        with_meteor: whether to run METEOR, which needs Java.
        frequencies: references for CIDEr-D's document frequencies; None uses those of the scored images.
        frequencies_split: splits of a Karpathy file of these; None uses "train".
        instances: COCO's instances of the images, to check the objects that candidates name; images are matched by id,
            or else by file name.

    Returns:
        The content of the output file.

    Raises:
        InputError: if a file or an option cannot be used, or the two files do not match.
    """
    if with_meteor:
        require("METEOR")  # before the long work
    if tokenizer == "java":
        require("--tokenizer java")
    if frequencies is None and frequencies_split is not None:
        raise InputError("--frequencies-split needs --frequencies; give the file, or leave it out")
    tok, tokenize = tokenizer_of(tokenizer)
    tokens_given = tokenizer == "spaces"
    known = read_references(references, split or "test", split is not None, tokens_given)
    said = read_candidates(candidates, known.files)
    scored = pair(known, said, references, candidates, partial)

    reference_tokens = tokenized({image: known.captions[image] for image in scored}, tokenize)
    candidate_tokens = {image: caption for image, (caption,) in tokenized(said, tokenize).items()}
    df, document_frequencies = f"references({len(scored)})", None
    if frequencies is not None:
        other = read_references(frequencies, frequencies_split or "train", frequencies_split is not None, tokens_given)
        document_frequencies = DocumentFrequencies.of(tokenized(other.captions, tokenize))
        df = f"{other.name}({document_frequencies.images})"

    mentions = named_objects(known, said, scored, instances)
    results = [caption_scores(reference_tokens, candidate_tokens, document_frequencies)]
    if with_meteor:
        results.append(meteor(reference_tokens, candidate_tokens))
    corpus = {name: score for result in results for name, score in result.corpus.items()}
    per_image = {image: {k: v for r in results for k, v in r.per_image[image].items()} for image in scored}
    if instances is not None:
        corpus |= hallucination_scores(list(mentions.values()))
        for image, found in mentions.items():
            per_image[image]["absent"] = list(found.absent)
    counts = {
        "images": len(scored),
        "references": sum(map(len, reference_tokens.values())),
        "images_without_candidate": len(known.captions) - len(scored),
        "images_without_references": known.bare,
        "references_of_unknown_images": known.stray,
        "empty_candidates": sum(not caption for caption in candidate_tokens.values()),
        "empty_references": sum(not caption for captions in reference_tokens.values() for caption in captions),
        "repeating_candidates": sum(map(repeats_itself, candidate_tokens.values())),
        "repeating_references": sum(map(repeats_itself, itertools.chain.from_iterable(reference_tokens.values()))),
        "images_without_instances": len(scored) - len(mentions),
        "named_objects": sum(len(found.named) for found in mentions.values()),
        "absent_objects": sum(len(found.absent) for found in mentions.values()),
    }
    numbers = sorted({len(captions) for captions in reference_tokens.values()})
    share = f"/{len(known.captions)}" if counts["images_without_candidate"] else ""
    java = [f"pycocoevalcap:{require('Java')}"] if with_meteor or tokenizer == "java" else []
    return {
        "scores": corpus,
        "per_image": per_image,
        "signature": "|".join(
            [
                "BLEU+ROUGE-L+CIDEr-D" + "+METEOR" * with_meteor,
                f"tok:{tok}",
                f"refs:{'-'.join(map(str, numbers[:: max(len(numbers) - 1, 1)]))}",
                f"df:{df}",
                f"images:{len(scored)}{share}",
                f"empty:{counts['empty_candidates']}",
                *([] if instances is None else [f"chair:{instances.name}({len(mentions)})"]),
                *java,
                f"visattn:{__version__}",
            ]
        ),
        "counts": counts,
        "notes": [
            *notes(counts, document_frequencies is None),
            *([NAMELESS] if instances is not None and not counts["named_objects"] else []),
            *_phrases(reference_tokens, tokenizer),
        ],
    }


def named_objects(
    known: References, said: Captions, scored: Sequence[str], instances: Path | None
) -> dict[str, Mentions]:
    """The objects that candidates name, and those in their images, by image.

    Args:
        known: references; what they name is in the image.
        said: candidates.
        scored: the images to check.
        instances: a file of annotated objects, which are in the image, too; images that are not in it are left out.

    Raises:
        InputError: if the file cannot be used, or has none of the images.
    """
    annotated = None if instances is None else coco_instances(instances)
    files = {image: file for file, image in known.files.items()}
    mentions = {}
    for image in scored:
        told = {name for caption in known.captions[image] for name in objects(caption)}
        key = None if annotated is None else annotated.find(image, files.get(image))
        if annotated is None or key is not None:
            present = told if annotated is None else told | annotated.present(key)
            mentions[image] = Mentions(tuple(objects(said[image][0])), frozenset(present))
    if not mentions:
        raise InputError(f"{instances} has none of the {len(scored)} scored images; give the instances of these")
    return mentions


def notes(counts: dict[str, int], own_frequencies: bool) -> Iterable[str]:
    """Notes on anything unusual about the scores."""
    if counts["images"] == 1 and own_frequencies:
        yield "only one image: CIDEr-D is 0 by definition; use --frequencies to count words in other images"
    for name, what in (
        ("images_without_candidate", "images left out, without a candidate"),
        ("images_without_references", "images left out, without references"),
        ("references_of_unknown_images", "references left out, without an image in the file"),
        ("images_without_instances", "images whose objects are unknown, not in the instances file"),
        ("empty_candidates", "candidates without words, scored 0"),
        ("empty_references", "references without words, kept as in the official tool"),
    ):
        if counts[name]:
            yield f"{what}: {counts[name]}"


def _phrases(references: Tokens, tokenizer: str) -> Iterable[str]:
    """A note if the references are in a script without spaces, so that whole phrases count as one word."""
    if tokenizer not in ("ptb", "java", "spaces"):
        return
    lines = itertools.chain.from_iterable(references.values())
    share, examples = phrases(Counter(itertools.chain.from_iterable(lines)))
    if share > MAX_PHRASES:
        yield (
            f"{share:.0%} of the references' letters are in whole phrases that count as one word, such as {examples}: "
            "use --tokenizer characters, or a tokenizer's file"
        )


def tokenized(captions: Captions, tokenize: Tokenize) -> Tokens:
    """The words of every caption, tokenised in a single call."""
    tokens = iter(tokenize([caption for several in captions.values() for caption in several]))
    return {image: [next(tokens) for _ in several] for image, several in captions.items()}
