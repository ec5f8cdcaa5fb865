"""Image orientation from metadata, with tolerance for damaged metadata.

PIL reads metadata before pixels and fails if it is damaged or too large (text of more than 1 MB, broken EXIF, an
invalid resolution), even if the pixels are intact.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import ExifTags, Image
from PIL.Image import Transpose

# EXIF's orientations except 1, and the transformations to upright.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # TIFF's integer types
_LONGEST = 1 << 20  # bytes of compressed text to read
_EXIF = b"Exif\0\0"
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")


class Bare(NamedTuple):
    """An image file without metadata.

    Attributes:
        content: of the file, with everything needed to decode the pixels.
        orientation: 1 to 8, from EXIF or XMP; 1 if neither can be read.
    """

    content: bytes
    orientation: int


def orientation(image: Image.Image) -> int:
    """The orientation of an open image, 1 to 8; 1 if it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a broken tag raises many kinds of errors in PIL
        value = None
    if value in {1, *TURNS}:
        return value
    if image.format == "AVIF":  # it stores orientation elsewhere, and PIL applies it
        return 1
    keys = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
    exif, profile, *xmp = (_as_bytes(image.info.get(key)) for key in keys)
    found = _of_tiff(exif) or _of_tiff(_from_hexadecimal(profile))
    return found or next((int(match[1]) for part in xmp if (match := _XMP.search(part))), 1)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="replace") if isinstance(value, str) else b""


def without_metadata(content: bytes) -> Bare | None:
    """An image file without its metadata; None if the format is unknown."""
    for signature, strip in _KINDS:
        if signature.match(content):
            kept, dropped = strip(content)
            exif = (found for kind, part in dropped if kind == "exif" and (found := _of_tiff(part)))
            xmp = (int(match[1]) for kind, part in dropped if kind == "xmp" and (match := _XMP.search(part)))
            return Bare(kept, next(exif, None) or next(xmp, 1))
    return None


def has_metadata(head: bytes) -> bool:
    """Whether `without_metadata` knows a file's format, from its first 16 bytes."""
    return any(signature.match(head) for signature, _ in _KINDS)


def _of_tiff(data: bytes) -> int | None:
    """The orientation in an EXIF block or a TIFF file, even if other parts are broken."""
    while data.startswith(_EXIF):
        data = data[len(_EXIF) :]
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, at)
            if tag == ExifTags.Base.Orientation and kind in _NUMBERS and values:
                form = order + _NUMBERS[kind]
                near = values * struct.calcsize(form) <= 4
                place = at + 8 if near else struct.unpack_from(f"{order}I", data, at + 8)[0]
                (value,) = struct.unpack_from(form, data, place)
                return value if 1 <= value <= 8 else None
    except struct.error:  # truncated
        pass
    return None


def _from_hexadecimal(profile: bytes) -> bytes:
    """The bytes of ImageMagick's raw profile: its name, its length, and hexadecimal digits."""
    digits = re.match(rb"\s*\w+\s+\d+\s*([0-9a-fA-F\s]*)", profile)
    text = re.sub(rb"\s", b"", digits[1]) if digits else b""
    return bytes.fromhex(text[: len(text) // 2 * 2].decode())


_Stripped = tuple[bytes, list[tuple[str, bytes]]]  # a file, and the metadata removed from it: "exif", "xmp"


def _png(content: bytes) -> _Stripped:
    dropped: list[tuple[str, bytes]] = []
    kept, at = [content[:8]], 8
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + size
        if not kind[0] & 32 or kind == b"tRNS":  # critical chunks, by the case of the first letter
            kept.append(content[at:end])
            if kind == b"IEND" or end > len(content):
                break
        elif end <= len(content):
            dropped += _of_chunk(kind, content[at + 8 : end - 4])
        at = end
    else:  # truncated in metadata; PIL reports missing pixels
        kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    return b"".join(kept), dropped


def _of_chunk(kind: bytes, data: bytes) -> Iterator[tuple[str, bytes]]:
    if kind == b"eXIf":
        yield "exif", data
    elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp"):
        yield "xmp", data
    elif kind in (b"tEXt", b"zTXt") and re.match(rb"Raw profile type (exif|APP1)\0", data):
        text = data.partition(b"\0")[2]
        if kind == b"zTXt":
            try:
                text = zlib.decompressobj().decompress(text[1:], _LONGEST)
            except zlib.error:
                return
        yield "exif", _from_hexadecimal(text)


def _jpeg(content: bytes) -> _Stripped:
    kept, dropped, at = [content[:2]], [], 2
    while at + 4 <= len(content):
        marker = content[at + 1]
        if content[at] != 0xFF or marker == 0:  # garbage between two segments
            at = _next_table(content, at)
            continue
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == 0xDA:  # the pixels, to the end
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            if content[end : end + 1] != b"\xff":  # its length is wrong
                end = _next_table(content, at + 2)
            data = content[at + 4 : end]
            # Keep the segments that determine colours.
            if (marker == 0xE0 and data[:5] == b"JFIF\0" and len(data) == 14) or (
                marker == 0xEE and data[:5] == b"Adobe" and len(data) == 12
            ):
                kept.append(content[at:end])
            elif marker == 0xE1:
                dropped.append(("exif" if data.startswith(_EXIF) else "xmp", data))
        else:
            kept.append(content[at:end])
        at = end
    return b"".join([*kept, content[at:]]), dropped


def _next_table(content: bytes, at: int) -> int:
    """Position of the next segment needed for decoding."""
    found = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcb\xcd-\xcf\xda\xdb\xdd]").search(content, at)
    return found.start() if found else len(content)


def _webp(content: bytes) -> _Stripped:
    kept, dropped, at = [], [], 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        end = at + 8 + size + size % 2
        chunk = content[at:end]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~0b101100]) + chunk[9:]  # clear the flags for ICC, EXIF and XMP
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            kept.append(chunk)
        elif kind in (b"EXIF", b"XMP "):
            dropped.append((kind.decode().strip().lower(), content[at + 8 : at + 8 + size]))
        at = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body, dropped


# TIFF tags needed to decode the pixels.
_OF_PIXELS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293, 301}
    | {317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 334, 336, 338, 339, 340, 341, 347, *range(512, 522)}
    | {529, 530, 531, 532}
)


def _tiff(content: bytes) -> _Stripped:
    """The same file with only the tags needed for pixels in its first directory."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        entries = [content[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
        kept = [entry for entry in entries if struct.unpack(f"{order}H", entry[:2])[0] in _OF_PIXELS]
    except struct.error:
        return content, []
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)  # and no second directory
    return content[:start] + directory + content[start + len(directory) :], [("exif", content)]


def _avif(content: bytes) -> _Stripped:
    """The same file with the item types of EXIF and XMP replaced by "free"; orientation is stored elsewhere."""
    return re.sub(rb"(infe[\2\3]...(?:..|....)..)(?:Exif|mime)", rb"\1free", content, flags=re.DOTALL), []


_KINDS: list[tuple[re.Pattern[bytes], Callable[[bytes], _Stripped]]] = [
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8"), _jpeg),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff),
    (re.compile(rb"....ftyp(avif|avis|mif1)", re.DOTALL), _avif),
]
