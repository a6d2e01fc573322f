"""Figures as PNG files, drawn once."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pnpx.atomic import write_whole
from pnpx.report.png import FINGERPRINT, holds_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110


def drawn(
    figure: Callable[[], "Figure"], picture: Path, fingerprint: str | None = None, again: bool = False
) -> Exception | None:
    """Draw a picture that is not there, damaged, of another ``fingerprint``, or ``again``; what went wrong, if it did.

    That of an explanation needs no ``fingerprint``: the store takes it away as soon as the explanation is another.

    Raises OSError if the picture cannot be written.
    """
    if not again and holds_picture(picture, fingerprint):
        return None
    try:
        with warnings.catch_warnings():
            # A font without the letters of a text: the picture shows boxes for them, and the page the letters.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            content = png(figure(), fingerprint)
    except Exception as error:  # a picture that fails ends nothing
        return error
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_whole(picture, content)
    return None


def png(figure: "Figure", fingerprint: str | None = None) -> bytes:
    """A figure as the content of a PNG file, which may keep a ``fingerprint`` of what it shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    # This canvas needs no display, whatever backend is configured; savefig would draw everything twice.
    known = {FINGERPRINT: fingerprint} if fingerprint is not None else {}
    FigureCanvasAgg(figure).print_png(content, metadata=known)  # type: ignore[no-untyped-call]
    return content.getvalue()
