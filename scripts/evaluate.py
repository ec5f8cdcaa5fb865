r"""Score captions against references as the official COCO tool does: BLEU-1 to 4, ROUGE-L, CIDEr-D, without Java.

    uv run scripts/evaluate.py --references annotations/captions_val2017.json --candidates results.json
    uv run scripts/evaluate.py --references data/flickr8k/dataset_flickr8k.json --split val \
        --candidates runs/flickr8k_soft/predictions.json --output runs/scores.json

References: COCO's caption file ({"images", "annotations"}), or a Karpathy file, of which one split is taken and of
which the raw sentences are scored where it has them, else its tokens. Candidates: COCO's results, a list of
{"image_id", "caption"}, such as `visattn predict` writes; other keys are passed over. Image ids are compared as text:
9 and "9" are the same image, "009" is another. An image of a Karpathy file goes by its `cocoid`, else by the name of
its picture without the suffix.

Captions are tokenised by `visattn.metrics.ptb`, which follows the official tokeniser (docs/tokeniser.md lists where it
does not), or with --tokenizer java by that program; scores on other tokens are other scores. What may be missing or
odd:

- An image without a candidate is an error; with --partial it is left out, and counted.
- A candidate for an image without references, or a second one for the same image, is an error. An image without
  references and without a candidate is left out, and counted.
- A caption without a word stays, and is counted: a candidate scores 0, except for ROUGE-L against a reference without
  a word. Line breaks in captions are spaces.
- With one image alone CIDEr-D is 0 by definition, since all of its words are in all of the images; that is said.
  --frequencies counts elsewhere how many images have a word.

Printed and written are the scores (BLEU, ROUGE-L and METEOR in [0, 1], CIDEr-D in [0, 10]; papers print them times 100)
and a signature, to publish with them: what was scored; tok, the tokeniser; refs, references per image; df, whose words
CIDEr-D's document frequencies count, and the number of images; images, of how many where not all; empty, candidates
without a word; versions. --output takes "scores", "per_image" (image id -> the same names), "signature", "counts" and
"notes".
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visattn import __version__
from visattn.errors import InputError
from visattn.files import write_text
from visattn.metrics import DocumentFrequencies, caption_scores, ptb_tokenize
from visattn.metrics.official import java_tokenize, meteor, require
from visattn.program import program

Captions = dict[str, list[str]]  # image id -> what was said about it
Tokens = dict[str, list[list[str]]]
Tokenize = Callable[[Sequence[str]], list[list[str]]]

TOKENIZERS: dict[str, tuple[str, Tokenize]] = {  # option -> name in the signature, function
    "ptb": ("ptb-py", lambda captions: [ptb_tokenize(caption) for caption in captions]),
    "java": ("ptb-java", java_tokenize),
    "spaces": ("spaces", lambda captions: [caption.split() for caption in captions]),
}


class References(NamedTuple):
    """What a file of references says.

    Attributes:
        captions: image id -> its captions, at least one.
        name: of the file, with the splits that were taken.
        bare: how many images have no caption and are left out.
        stray: how many captions belong to no image of the file and are left out.
    """

    captions: Captions
    name: str
    bare: int
    stray: int = 0


def evaluate(
    references: Path,
    candidates: Path,
    split: str | None = None,
    tokenizer: str = "ptb",
    partial: bool = False,
    with_meteor: bool = False,
    frequencies: Path | None = None,
    frequencies_split: str | None = None,
) -> dict[str, Any]:
    """Score a file of candidates; see the head of this file.

    Args:
        references: COCO's caption file or a Karpathy file.
        candidates: a list of {"image_id", "caption"}.
        split: of a Karpathy file, several with commas between; None takes "test".
        tokenizer: "ptb", "java", or "spaces" where the captions are tokens with spaces between; it then takes a
            Karpathy file's tokens, too.
        partial: whether images may lack a candidate.
        with_meteor: whether to run METEOR, which needs Java.
        frequencies: references to count CIDEr-D's document frequencies in; None counts those of the scored images.
        frequencies_split: of a Karpathy file of those; None takes "train".

    Returns:
        What the output file holds.

    Raises:
        InputError: where a file or an option cannot be used, or the two files do not go together.
    """
    if with_meteor:
        require("METEOR")  # before the long work
    if tokenizer == "java":
        require("--tokenizer java")
    if frequencies is None and frequencies_split is not None:
        raise InputError("--frequencies-split goes with --frequencies; leave it out, or name the file")
    tok, tokenize = TOKENIZERS[tokenizer]
    tokens_given = tokenizer == "spaces"
    known = read_references(references, split or "test", split is not None, tokens_given)
    said = read_candidates(candidates)
    scored = pair(known, said, references, candidates, partial)

    reference_tokens = tokenized({image: known.captions[image] for image in scored}, tokenize)
    candidate_tokens = {image: caption for image, (caption,) in tokenized(said, tokenize).items()}
    df, document_frequencies = f"references({len(scored)})", None
    if frequencies is not None:
        other = read_references(frequencies, frequencies_split or "train", frequencies_split is not None, tokens_given)
        document_frequencies = DocumentFrequencies.of(tokenized(other.captions, tokenize))
        df = f"{other.name}({document_frequencies.images})"

    results = [caption_scores(reference_tokens, candidate_tokens, document_frequencies)]
    if with_meteor:
        results.append(meteor(reference_tokens, candidate_tokens))
    per_image = {image: {k: v for r in results for k, v in r.per_image[image].items()} for image in scored}
    counts = {
        "images": len(scored),
        "references": sum(map(len, reference_tokens.values())),
        "images_without_candidate": len(known.captions) - len(scored),
        "images_without_references": known.bare,
        "references_of_unknown_images": known.stray,
        "empty_candidates": sum(not caption for caption in candidate_tokens.values()),
        "empty_references": sum(not caption for captions in reference_tokens.values() for caption in captions),
    }
    numbers = sorted({len(captions) for captions in reference_tokens.values()})
    share = f"/{len(known.captions)}" if counts["images_without_candidate"] else ""
    java = [f"pycocoevalcap:{require('Java')}"] if with_meteor or tokenizer == "java" else []
    return {
        "scores": {name: score for result in results for name, score in result.corpus.items()},
        "per_image": per_image,
        "signature": "|".join(
            [
                "BLEU+ROUGE-L+CIDEr-D" + "+METEOR" * with_meteor,
                f"tok:{tok}",
                f"refs:{'-'.join(map(str, numbers[:: max(len(numbers) - 1, 1)]))}",
                f"df:{df}",
                f"images:{len(scored)}{share}",
                f"empty:{counts['empty_candidates']}",
                *java,
                f"visattn:{__version__}",
            ]
        ),
        "counts": counts,
        "notes": list(notes(counts, document_frequencies is None)),
    }


def notes(counts: dict[str, int], own_frequencies: bool) -> Iterable[str]:
    """A sentence for everything about the numbers that is not as usual."""
    if counts["images"] == 1 and own_frequencies:
        yield "one image alone: CIDEr-D is 0 by definition; --frequencies counts words in other images"
    for name, what in (
        ("images_without_candidate", "images without a candidate, left out"),
        ("images_without_references", "images without references, left out"),
        ("references_of_unknown_images", "references of images that the file does not list, left out"),
        ("empty_candidates", "candidates without a word, scored 0"),
        ("empty_references", "references without a word, kept as in the official tool"),
    ):
        if counts[name]:
            yield f"{what}: {counts[name]}"


def pair(known: References, said: Captions, references: Path, candidates: Path, partial: bool) -> list[str]:
    """The images to score, in the order of the references.

    Raises:
        InputError: where the two files do not go together.
    """
    strange = [image for image in said if image not in known.captions]
    if strange:
        raise InputError(
            f"{candidates} has candidates for {len(strange)} images without references in {known.name}, such as "
            f"{some(strange)}; leave them out, or give the right file of references or --split"
        )
    missing = [image for image in known.captions if image not in said]
    if missing and not partial:
        raise InputError(
            f"{candidates} has no candidate for {len(missing)} of the {len(known.captions)} images of {known.name}, "
            f"such as {some(missing)}; add them, or score the others alone with --partial"
        )
    scored = [image for image in known.captions if image in said]
    if not scored:
        raise InputError(f"{references} and {candidates} have no image in common; nothing can be scored")
    return scored


def some(images: Sequence[str]) -> str:
    """The first few ids."""
    return ", ".join(images[:3])


def tokenized(captions: Captions, tokenize: Tokenize) -> Tokens:
    """The words of every caption, tokenised in one go."""
    tokens = iter(tokenize([caption for several in captions.values() for caption in several]))
    return {image: [next(tokens) for _ in several] for image, several in captions.items()}


def read_candidates(path: Path) -> Captions:
    """Image id -> its one caption, from COCO's results.

    Raises:
        InputError: where the file is missing, of another layout, or names an image twice.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f'{path} is not a list of {{"image_id", "caption"}}; give COCO\'s results or predictions.json')
    if not entries:
        raise InputError(f"{path} has no candidate; give at least one")
    found = [(image_id(entry, "image_id", path), caption(entry, path)) for entry in entries]
    refuse_twice((image for image, _ in found), path, "candidates")
    return {image: [text] for image, text in found}


def read_references(path: Path, split: str, split_asked: bool, tokens_given: bool) -> References:
    """The captions of a file of references.

    Args:
        path: COCO's caption file or a Karpathy file.
        split: of a Karpathy file, several with commas between.
        split_asked: whether somebody asked for that split, which a file of COCO does not have.
        tokens_given: whether to take a Karpathy file's tokens where it has raw sentences, too.

    Raises:
        InputError: where the file is missing, of another layout, or names an image twice, or has no such split or no
            caption.
    """
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if split_asked:
            raise InputError(f"{path} is in COCO's layout and knows no splits; leave out the option for them")
        found, stray = coco(content, path)
        name = path.name
    elif isinstance(entries, list) and any(isinstance(entry, dict) and "sentences" in entry for entry in entries):
        found, stray = karpathy(entries, path, split, tokens_given), 0
        name = f"{path.name}[{split}]"
    else:
        raise InputError(
            f"{path} is neither COCO's caption file (images and annotations) nor in the Karpathy layout (images with "
            "sentences); give one of the two"
        )
    captions = {image: several for image, several in found.items() if several}
    if not captions:
        raise InputError(f"{path} has no caption; give a file of references")
    return References(captions, name, len(found) - len(captions), stray)


def coco(content: dict[str, Any], path: Path) -> tuple[Captions, int]:
    """The captions of each image, and how many belong to no image that the file lists."""
    found = [(image_id(entry, "image_id", path), caption(entry, path)) for entry in content["annotations"]]
    images = content.get("images", [{"id": image} for image in dict.fromkeys(image for image, _ in found)])
    if not isinstance(images, list):
        raise InputError(f"{path} is not COCO's caption file: its images are no list")
    listed = [image_id(entry, "id", path) for entry in images]
    refuse_twice(listed, path, "entries")
    captions: Captions = {image: [] for image in listed}
    stray = 0
    for image, text in found:
        if image in captions:
            captions[image].append(text)
        else:
            stray += 1
    return captions, stray


def karpathy(entries: list[Any], path: Path, split: str, tokens_given: bool) -> Captions:
    """The captions of each image of the splits."""
    wanted = split.split(",")
    there = Counter(str(entry.get("split")) for entry in entries if isinstance(entry, dict))
    if absent := [name for name in wanted if name not in there]:
        splits = ", ".join(f"{name} ({count})" for name, count in there.items())
        raise InputError(
            f"{path} has no {absent[0]} split; it has {splits}: choose with --split or --frequencies-split"
        )
    found: list[tuple[str, list[str]]] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("sentences"), list):
            raise InputError(f"{path} is not in the Karpathy layout: {short(entry)} has no list of sentences")
        if entry.get("split") in wanted:
            key = "cocoid" if "cocoid" in entry else "filename"
            name = image_id(entry, key, path)
            several = [sentence(s, path, tokens_given) for s in entry["sentences"]]
            found.append((name if key == "cocoid" else Path(name).stem, several))
    refuse_twice((image for image, _ in found), path, "entries")
    return dict(found)


def sentence(entry: Any, path: Path, tokens_given: bool) -> str:
    """A caption of a Karpathy file: the raw sentence, else its tokens, or the other way round."""
    raw, tokens = (entry.get("raw"), entry.get("tokens")) if isinstance(entry, dict) else (None, None)
    joined = " ".join(tokens) if isinstance(tokens, list) and all(isinstance(t, str) for t in tokens) else None
    for text in (joined, raw) if tokens_given else (raw, joined):
        if isinstance(text, str) and text:
            return text
    if raw is None and joined is None:
        raise InputError(f"{path} is not in the Karpathy layout: the sentence {short(entry)} has no raw or tokens")
    return ""


def caption(entry: Any, path: Path) -> str:
    """The text of an entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get("caption"), str):
        raise InputError(
            f"{path}: the caption of {short(entry)} is no text; each entry needs an image_id and a caption"
        )
    return entry["caption"]


def image_id(entry: Any, key: str, path: Path) -> str:
    """The id of an entry's image as text."""
    name = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise InputError(f"{path}: the {key} of {short(entry)} is neither a whole number nor text; mend the entry")
    return str(name)


def refuse_twice(images: Iterable[str], path: Path, what: str) -> None:
    """Raise an `InputError` where an image stands twice."""
    twice = [image for image, count in Counter(images).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has several {what} for {len(twice)} images, such as {some(twice)}; leave one for each"
        )


def short(value: Any) -> str:
    """A value of a file as a message shows it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]} …"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: where the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); is it the right file?") from error


def table(scores: dict[str, float]) -> str:
    """The scores, a line each."""
    width = max(map(len, scores))
    return "\n".join(f"{name:<{width}}  {score:.4f}" for name, score in scores.items())


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--references", type=Path, required=True, metavar="FILE.json", help="COCO's caption file or a Karpathy file"
    )
    parser.add_argument(
        "--candidates", type=Path, required=True, metavar="FILE.json", help='a list of {"image_id", "caption"}'
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file for all numbers, also of each image")
    parser.add_argument("--split", help="of a Karpathy file; several with commas between (default: test)")
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        default="ptb",
        help="ours, the official one in Java (the extra 'coco'), or none: captions are tokens with spaces between, and "
        "a Karpathy file's tokens are taken (default: ptb)",
    )
    parser.add_argument("--partial", action="store_true", help="leave out images without a candidate")
    parser.add_argument("--meteor", action="store_true", help="METEOR, too; needs the extra 'coco' and Java")
    parser.add_argument(
        "--frequencies",
        type=Path,
        metavar="FILE.json",
        help="references to count CIDEr-D's document frequencies in (default: those that are scored, as published)",
    )
    parser.add_argument("--frequencies-split", metavar="SPLIT", help="of a Karpathy file (default: train)")
    options = parser.parse_args(args)
    if options.output is not None:
        if options.output.is_dir():
            raise InputError(f"{options.output} is a folder; name a file with --output")
        inputs = (options.references, options.candidates, options.frequencies)
        if options.output.exists() and any(path and path.exists() and path.samefile(options.output) for path in inputs):
            raise InputError(f"{options.output} is one of the files to read; name another with --output")
        options.output.parent.mkdir(parents=True, exist_ok=True)
    result = evaluate(
        options.references,
        options.candidates,
        split=options.split,
        tokenizer=options.tokenizer,
        partial=options.partial,
        with_meteor=options.meteor,
        frequencies=options.frequencies,
        frequencies_split=options.frequencies_split,
    )
    if options.output is not None:
        write_text(options.output, json.dumps(result, ensure_ascii=False, indent=1))
    print(table(result["scores"]))
    for note in result["notes"]:
        print(f"note: {note}")
    print(result["signature"])


if __name__ == "__main__":
    sys.exit(main())
