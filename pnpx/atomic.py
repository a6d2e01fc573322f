"""Files that are written whole or not at all."""

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` at one stroke: a reader, or a program cut off, never leaves or finds half of it.

    Where ``path`` is a link, the file that it leads to is written, and the link stays.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist.
        IsADirectoryError: ``path`` is a folder.
        FileExistsError: it is something else than a file, such as a device.
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(path) if os.path.islink(path) else path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder of {os.fspath(path)!r} does not exist; make it first, as by mkdir")
    refuse_folder(path)
    if os.path.lexists(target) and not target.is_file():  # one that was replaced would be a device no more
        raise FileExistsError(f"{os.fspath(path)!r} must be a file or not exist, but is a device, or the like; "
                              "name a file")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            draft.write_bytes(content)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        # It names the draft, which whoever gave the path knows nothing of, or, of a full disk, no file at all.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def refuse_folder(path: str | os.PathLike[str]) -> None:
    """Raise IsADirectoryError if ``path``, to be a file, is a folder."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{os.fspath(path)!r} must be a file, but is a folder; name a file, such as one in it")
