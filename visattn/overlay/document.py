"""The common skeleton of HTML pages: self-contained, with a shared style and content security policy."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from types import MappingProxyType
from typing import Any

_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


def document(title: str, style: str, body: str, script: str, allowed: Mapping[str, str] = MappingProxyType({})) -> str:
    """An HTML page whose content security policy forbids the browser to fetch or run anything outside the page.

    Args:
        title: plain text; it is escaped here.
        style: CSS, after the shared style.
        body: HTML, in which external text must be escaped with `escaped`.
        script: JavaScript, the only script allowed to run.
        allowed: further rules of the policy by their names, or others in place of its own, such as `worker-src`; what
            `script-src` has here is allowed besides the script.

    Returns:
        The HTML; write it with `visattn.files.write_text`.
    """
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
        **allowed,
    }
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules["script-src"] = f"'sha256-{digest}' {allowed.get('script-src', '')}".strip()
    policy = "; ".join(f"{name} {value}" for name, value in rules.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def escaped(value: object) -> str:
    """Escape text for elements and quoted attributes; lone surrogates become "?"."""
    return escape(str(value).encode("utf-8", errors="replace").decode("utf-8"), quote=True)


def json_source(data: Any) -> str:
    """JSON that is safe inside an HTML element: only ASCII, without `<`, `>` and `&`."""
    out = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        out = out.replace(sign, f"\\u{ord(sign):04x}")
    return out


def picture_source(picture: bytes) -> str:
    """A data URL of the bytes of a PNG or JPEG file.

    Raises:
        ValueError: for other formats.
    """
    kind = next((kind for sign, kind in _KINDS.items() if picture.startswith(sign)), None)
    if kind is None:
        raise ValueError("a picture must be the bytes of a PNG or JPEG file")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


_STYLE = """
:root {
  color-scheme: light dark;
  --ground: light-dark(#fbfbfa, #131518); --card: light-dark(#fff, #1b1e22); --well: light-dark(#f1f2f3, #0e1012);
  --ink: light-dark(#1f2328, #e8eaed); --soft: light-dark(#59636e, #9da7b1); --line: light-dark(#e4e6e8, #2e3338);
  --link: light-dark(#3454a4, #9db8f5);
  --plain: light-dark(#eceff3, #2a2f36); --plain-ink: light-dark(#3b4653, #ccd4dd);
  --good: light-dark(#ddf3e2, #173a22); --good-ink: light-dark(#14602a, #93dca8);
  --bad: light-dark(#fbe3e1, #46211f); --bad-ink: light-dark(#94231b, #f5b3ad);
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0;
  background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  overflow-wrap: anywhere;
}
h1, h2, h3 { line-height: 1.25; margin: 0; text-wrap: balance; }
h1 { font-size: clamp(1.75rem, 1.3rem + 2vw, 2.6rem); font-weight: 650; letter-spacing: -0.015em; }
h2 { font-size: 1.4rem; font-weight: 620; letter-spacing: -0.01em; }
h3 {
  font-size: 1rem; font-weight: 600; gap: .3rem .75rem;
  display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between;
}
a { color: var(--link); text-underline-offset: .2em; text-decoration-thickness: 1px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
"""
