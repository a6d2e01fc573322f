"""Whether a PNG file is whole (https://www.w3.org/TR/png-3)."""

from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LAST_CHUNK = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SHORTEST = 8 + 25 + 12
"""The bytes of the signature, the first chunk, IHDR, and the last."""


def is_whole(content: bytes) -> bool:
    """Whether ``content`` is a PNG from its signature to its last chunk: no other format, and not cut off."""
    return len(content) >= _SHORTEST and content.startswith(_SIGNATURE) and content.endswith(_LAST_CHUNK)


def holds_picture(path: Path) -> bool:
    """Whether ``path`` is a file that holds a whole PNG."""
    try:
        return path.is_file() and is_whole(path.read_bytes())
    except OSError:  # it cannot be read, and so not be shown either
        return False
