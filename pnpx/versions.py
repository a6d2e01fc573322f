"""The versions that the numbers depend on."""

import platform
from collections.abc import Mapping
from importlib.metadata import version


def versions() -> Mapping[str, str]:
    """Those of pnpx, Python, torch and NumPy."""
    from pnpx import __version__

    return {
        "pnpx": __version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }
