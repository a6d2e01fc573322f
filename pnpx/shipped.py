"""The configurations that come with pnpx."""

from pathlib import Path

from pnpx.source import ConfigError
from pnpx.suggest import nearest

_HERE = Path(__file__).parent


def configs() -> dict[str, Path]:
    """The shipped configurations by name: inside the package once installed, beside it in the source tree."""
    folder = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(config: str) -> Path:
    """The file that ``config`` means: one that is there, or a shipped one, ``"digits"`` or ``"configs/digits.yaml"``.

    A pipe, such as ``/dev/stdin`` or a shell's ``<(...)``, is a file here.

    Raises :class:`ConfigError` with the nearest shipped name if there is neither.
    """
    path, shipped = Path(config), configs()
    try:
        if path.is_file() or path.is_fifo():
            return path
        there = path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        shown = config if len(config) <= 200 else f"{config[:200]}..."
        raise ConfigError([f"{shown}: cannot be read: {error.strerror}"]) from None
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if name in shipped and path.parent in (Path(), Path("configs")):
        return shipped[name]
    if there:
        what = "a folder" if path.is_dir() else "a device, or the like"
        raise ConfigError([f"{config}: must be a YAML file, but is {what}"])
    raise ConfigError([f"{config}: there is no such file, nor a shipped configuration; {nearest(name, shipped)}"])


def title(path: Path) -> str:
    """The first line of comment in a configuration, which says what it is for."""
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""
