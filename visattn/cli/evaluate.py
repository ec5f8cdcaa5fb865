r"""Score captions against references as the official COCO tool does: BLEU-1 to 4, ROUGE-L, CIDEr-D, without Java.

    visattn evaluate --references annotations/captions_val2017.json --candidates results.json
    visattn evaluate --references data/flickr8k/dataset_flickr8k.json --split val \
        --candidates runs/flickr8k_soft/predictions.json --output runs/scores.json

References: COCO's caption file ({"images", "annotations"}), or a Karpathy file, of which one split is taken and of
which the raw sentences are scored where it has them, else its tokens. Candidates: COCO's results, a list of
{"image_id", "caption"}, such as `visattn predict` writes; other keys are passed over. Image ids are compared as text:
9 and "9" are the same image, "009" is another. An image of a Karpathy file goes by its `cocoid`, else by the name of
its picture without the suffix.

Captions are tokenised by `visattn.metrics.ptb`, which follows the official tokeniser (docs/tokeniser.md lists where it
does not), or with --tokenizer java by that program; scores on other tokens are other scores. Captions in a script
without spaces between words need --tokenizer characters, or a tokenizer's file. What may be missing or odd:

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
without a word; versions. Beside them stands which share of the captions repeats a pair of words, as "a brown dog in
front of a brown dog" does. --output takes "scores", "per_image" (image id -> the same names), "signature", "counts" and
"notes".
"""

import json
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.program import command_parser, parse, program
from visattn.files import require_file, write_text
from visattn.studies.scores import evaluate


def table(scores: dict[str, float]) -> str:
    """The scores, a line each."""
    width = max(map(len, scores))
    return "\n".join(f"{name:<{width}}  {score:.4f}" for name, score in scores.items())


@program
def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("evaluate", __doc__)
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
        metavar="ptb|java|spaces|characters|FILE.json",
        default="ptb",
        help="ours, the official one in Java (the extra 'coco'), or none: captions are tokens with spaces between, and "
        "a Karpathy file's tokens are taken; for scripts without spaces between words every character, or what a "
        "tokenizer of Hugging Face's 'tokenizers' makes (default: ptb)",
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
    )
    if options.output is not None:
        write_text(options.output, json.dumps(result, ensure_ascii=False, indent=1))
    print(table(result["scores"]))
    counts = result["counts"]
    shares = counts["repeating_candidates"] / counts["images"], counts["repeating_references"] / counts["references"]
    print("captions that repeat a pair of words: {:.1%}, references {:.1%}".format(*shares))
    for note in result["notes"]:
        print(f"note: {note}")
    print(result["signature"])
