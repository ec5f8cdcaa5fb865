"""README and docs/: their pages, and the commands that stand in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "visattn" / "pretrained").rglob("*.md")),
]


def commands(page: Path) -> list[list[str]]:
    """The words of every command in a page's shell blocks, and of whole ones in its prose, which begin with `uv run`.

    Continued lines are joined, comments removed, and commands joined by && taken apart.
    """
    text = page.read_text(encoding="utf-8")
    blocks = r"^ *```bash\n(.*?)```"
    lines = "\n".join(re.findall(blocks, text, flags=re.S | re.M)).replace("\\\n", " ").splitlines()
    prose = re.findall(r"`(uv run [^`…]+)`", re.sub(blocks, "", text, flags=re.S | re.M))
    parts = [part for line in [*lines, *prose] for part in shlex.join(shlex.split(line, comments=True)).split(" '&&' ")]
    return [shlex.split(part) for part in parts if part]


def of_visattn(words: list[str]) -> list[str] | None:
    """What `visattn` is given in a command; None for other programs."""
    return words[words.index("visattn") + 1 :] if "visattn" in words else None
