"""Whether a PNG file is whole, and what it is known to show (https://www.w3.org/TR/png-3)."""

import struct
from pathlib import Path

FINGERPRINT = "pnpx fingerprint"
"""The keyword of the text, in a PNG, that tells what it shows."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LAST_CHUNK = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SHORTEST = 8 + 25 + 12
"""The bytes of the signature, the first chunk, IHDR, and the last."""


def is_whole(content: bytes) -> bool:
    """Whether ``content`` is a PNG from its signature to its last chunk: no other format, and not cut off."""
    return len(content) >= _SHORTEST and content.startswith(_SIGNATURE) and content.endswith(_LAST_CHUNK)


def fingerprint_of(content: bytes) -> str | None:
    """The text that the keyword `FINGERPRINT` has in a whole PNG, before its pixels; None if there is none."""
    start = len(_SIGNATURE)
    while start + 12 <= len(content):  # each chunk: the length of its data, its name, the data, a checksum
        length, name = struct.unpack_from(">I4s", content, start)
        if name in (b"IDAT", b"IEND"):
            break
        if name == b"tEXt":
            keyword, _, text = content[start + 8 : start + 8 + length].partition(b"\0")
            if keyword.decode("latin-1") == FINGERPRINT:
                return text.decode("latin-1")
        start += 12 + length
    return None


def holds_picture(path: Path, fingerprint: str | None = None) -> bool:
    """Whether ``path`` is a file that holds a whole PNG, and, if one is given, with this ``fingerprint``."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:  # it cannot be read, and so not be shown either
        return False
    return is_whole(content) and fingerprint in (None, fingerprint_of(content))
