"""Files that are written whole or not at all."""

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` at one stroke: a reader, or a program cut off, never leaves or finds half of it."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder of {os.fspath(path)!r} does not exist; make it first, as by mkdir")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        draft.write_bytes(content)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
