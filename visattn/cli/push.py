"""Upload an exported model to the Hugging Face hub, with a model card.

    visattn export --checkpoint runs/flickr8k_soft/best.ckpt --output exported/flickr8k
    visattn push exported/flickr8k ORG/NAME --license cc-by-4.0 --dry-run     # shows the card and the files
    visattn push exported/flickr8k ORG/NAME --license cc-by-4.0 --private
    visattn caption --checkpoint hf:ORG/NAME photo.jpg

FOLDER is checked first: it must be a whole exported model, and hold no pickles and no code. Its files are committed
together: model.json, model.safetensors and ONNX graphs; scores.json, as `visattn evaluate --output` writes it; an
example image (--picture, or the first in the folder), stored without its metadata; and README.md, the folder's own or
one that is written from all these. Other files stay where they are.

The package huggingface_hub (extra hub) does it: log in with `hf auth login` or set HF_TOKEN; HF_ENDPOINT is the server.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from visattn.cli.models import add_import_option
from visattn.cli.program import command_parser, parse, program
from visattn.errors import InputError


@program
def main(args: Sequence[str] | None = None) -> None:
    """Command-line entry point."""
    parser = command_parser("push", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder written by 'visattn export'")
    parser.add_argument("repository", metavar="ORG/NAME", help="repository on the hub, created if missing")
    parser.add_argument("--private", action="store_true", help="create the repository for its owner alone")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to, created if missing (default: main)")
    parser.add_argument("--message", default="Upload with visattn", help="commit message (default: %(default)s)")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="licence of the weights as the hub names it, such as apache-2.0, cc-by-4.0 or other (default: unknown)",
    )
    parser.add_argument("--picture", type=Path, metavar="IMAGE", help="example image for the card")
    parser.add_argument("--dry-run", action="store_true", help="check the folder and print the card; upload nothing")
    add_import_option(parser)
    options = parse(parser, args)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,60}", options.license):
        raise InputError(f"--license is {options.license!r}; give it as the hub names it, such as apache-2.0 or other")
    if not options.message.strip():
        raise InputError("--message is empty; say what the commit is")

    from visattn.export.hub import address_of
    from visattn.tasks.push import CARD, prepare, upload

    address = address_of(options.repository)
    if options.revision is not None:
        if address.revision:
            raise InputError(f"both {address} and --revision name a branch; give one")
        address = address_of(f"{address.repository}@{options.revision}")
    files, left_out = prepare(options.folder, address, options.license, options.picture)
    if options.dry_run:
        print(files[CARD].decode())
    for name, data in files.items():
        print(f"{name}  {len(data) / 1e6:.2f} MB")
    for name in left_out:
        print(f"{name}  stays here")
    if options.dry_run:
        print(f"nothing was uploaded to {address.repository}; leave out --dry-run")
    else:
        print(upload(files, address, options.message, options.private))
        print(f"use it with --checkpoint {address}")
