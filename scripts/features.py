"""`visattn features` from a checkout; `--help` says what it does."""

import sys

from visattn.cli import main

if __name__ == "__main__":
    sys.exit(main(["features", *sys.argv[1:]]))
