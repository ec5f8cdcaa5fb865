r"""Score captions against references like the official COCO tool: BLEU-1 to 4, ROUGE-L and CIDEr-D, without Java.

    visattn evaluate --references annotations/captions_val2017.json --candidates results.json
    visattn evaluate --references data/flickr8k/dataset_flickr8k.json --split val \
        --candidates runs/flickr8k_soft/predictions.json --output runs/scores.json

References: a COCO caption file ({"images", "annotations"}), or one split of a Karpathy file; its raw sentences are
scored if it has them, otherwise its tokens. Candidates: COCO's results format, a list of {"image_id", "caption"}, as
written by `visattn predict`; other keys are ignored. Image ids are compared as text: 9 and "9" are the same image,
"009" is another. An image in a Karpathy file is identified by its `cocoid`, or else by its file name without suffix. In
the captions.json of `visattn caption`, whose entries have no id, images are identified by the names of their files.

Captions are tokenised by `visattn.metrics.ptb`, which follows the official tokeniser (docs/tokeniser.md lists the
differences), or with --tokenizer java by the official program; scores on other tokens are not comparable. Captions in a
script without spaces between words need --tokenizer characters or a tokenizer file. Missing and unusual input:

- An image without a candidate is an error; with --partial it is left out and counted.
- A candidate for an image without references, or a second candidate for the same image, is an error. An image without
  references and without a candidate is left out and counted.
- A caption without words is kept and counted; such a candidate scores 0, except for ROUGE-L against a reference without
  words. Line breaks in captions count as spaces.
- With a single image CIDEr-D is 0 by definition, since every word occurs in all images; a note says so. --frequencies
  takes document frequencies from other references.

Prints and writes the scores (BLEU, ROUGE-L and METEOR in [0, 1], CIDEr-D in [0, 10]; papers print them times 100) and a
signature to publish with them: what was scored; tok, the tokeniser; refs, references per image; df, the source of
CIDEr-D's document frequencies and its number of images; images, with the total if not all were scored; empty,
candidates without words; chair, the instances file and how many of the images it has; versions. It also reports the
share of captions that repeat a pair of words, such as "a brown dog in front of a brown dog", and of the objects they
name (COCO's 80 categories, English nouns) the share that no reference names. With --instances, COCO's annotated
objects, that share becomes CHAIR (Rohrbach et al. 2018): CHAIR-i of named objects are neither annotated nor in a
reference, CHAIR-s of captions name one; object_recall is the share of the categories in the images that captions name,
mentions the named objects per caption. --output writes "scores", "per_image" (image id -> the same names, and "absent"
objects), "signature", "counts" and "notes".
"""

from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program
from visattn.files import require_file, write_json
from visattn.studies.scores import evaluate


def table(scores: dict[str, float]) -> str:
    """The scores, one per line."""
    width = max(map(len, scores))
    return "\n".join(f"{name:<{width}}  {score:.4f}" for name, score in scores.items())


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("evaluate", __doc__)
    parser.add_argument(
        "--references", type=Path, required=True, metavar="FILE.json", help="COCO caption file or Karpathy file"
    )
    parser.add_argument(
        "--candidates",
        type=Path,
        required=True,
        metavar="FILE.json",
        help='list of {"image_id", "caption"}, or captions.json',
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.json", help="write all scores, including those of each image, to this file"
    )
    parser.add_argument("--split", help="split of a Karpathy file, or several separated by commas (default: test)")
    parser.add_argument(
        "--tokenizer",
        metavar="ptb|java|spaces|characters|FILE.json",
        default="ptb",
        help="ptb: visattn's own; java: the official one (needs the extra 'coco'); spaces: captions are tokens "
        "separated by spaces, and a Karpathy file's own tokens are used; for scripts without spaces between words, "
        "characters or a file of Hugging Face's 'tokenizers' (default: ptb)",
    )
    parser.add_argument("--partial", action="store_true", help="leave out images without a candidate")
    parser.add_argument("--meteor", action="store_true", help="also compute METEOR; needs the extra 'coco' and Java")
    parser.add_argument(
        "--frequencies",
        type=Path,
        metavar="FILE.json",
        help="references for CIDEr-D's document frequencies (default: the references scored against, as published)",
    )
    parser.add_argument(
        "--frequencies-split", metavar="SPLIT", help="split of a Karpathy --frequencies file (default: train)"
    )
    parser.add_argument("--instances", type=Path, metavar="FILE.json", help="COCO's instances of the images, for CHAIR")
    options = parse(parser, args, "output")
    if options.output is not None:
        require_file(options.output)
    result = evaluate(
        options.references,
        options.candidates,
        split=options.split,
        tokenizer=options.tokenizer,
        partial=options.partial,
        with_meteor=options.meteor,
        frequencies=options.frequencies,
        frequencies_split=options.frequencies_split,
        instances=options.instances,
    )
    if options.output is not None:
        write_json(options.output, result)
    print(table(result["scores"]))
    counts = result["counts"]
    shares = counts["repeating_candidates"] / counts["images"], counts["repeating_references"] / counts["references"]
    print("captions that repeat a pair of words: {:.1%}, references {:.1%}".format(*shares))
    if counts["named_objects"] and options.instances is None:
        share = counts["absent_objects"] / counts["named_objects"]
        print(f"objects named by captions: {counts['named_objects']}, {share:.1%} of them by no reference")
    for note in result["notes"]:
        print(f"note: {note}")
    print(result["signature"])
