"""Images and maps of features: the input, the attributions pooled over channels, and these laid over the input."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from torch.nn import functional

from pnpx.plots.parts import Array
from pnpx.plots.style import FAINT, Scale, colour_bar, frame, panel_title
from pnpx.postprocess import pool

CRISP = 64
"""Images of at most so many pixels a side show their pixels; larger ones are smoothed when scaled."""

PANEL = 2.1
"""Inches of a panel's side."""


def as_image(values: Array) -> Array:
    """Values (channels, height, width) or (height, width) as (height, width, 3) colours between 0 and 1.

    Three channels are red, green and blue, four those and opacity, which is left out; any other number is averaged to
    grey. Values outside [0, 1], as those of standardised images, are scaled to it, all channels alike.
    """
    channels = values if values.ndim == 3 else values[None]
    channels = channels[:3] if len(channels) in (3, 4) else channels.mean(0, keepdims=True)
    channels = np.nan_to_num(channels)
    low, high = channels.min(initial=np.inf), channels.max(initial=-np.inf)
    if low < 0 or high > 1 or (len(channels) == 1 and high > low):
        channels = (channels - low) / (high - low) if high > low else np.full_like(channels, 0.5)
    picture: Array = np.moveaxis(np.broadcast_to(channels, (3, *channels.shape[1:])), 0, -1)
    return picture


def to_map(values: Array, pooling: str) -> Array:
    """Attributions (..., height, width) as (height, width), all other axes pooled together."""
    flat = torch.from_numpy(np.ascontiguousarray(values)).reshape(-1, *values.shape[-2:])
    result: Array = pool(flat, pooling, 0).numpy()
    return result


def overlay(picture: Array, values: Array, scale: Scale) -> Array:
    """The colours of a map over a faded picture (height, width, 3): large attributions hide it, small ones do not.

    A map of another resolution is scaled to that of the picture: bilinearly for large ones, else by repeating pixels.
    """
    large = max(picture.shape) > CRISP
    contrast = 0.5 if large else 0.3  # of few large pixels, which the colours would else turn muddy
    grey = 1 - contrast + contrast * picture.mean(-1, keepdims=True)
    resized = torch.from_numpy(np.ascontiguousarray(np.nan_to_num(values)))[None, None]
    if values.shape != picture.shape[:2]:
        resized = functional.interpolate(resized, picture.shape[:2], mode="bilinear" if large else "nearest-exact")
    heat: Array = resized[0, 0].numpy()
    opacity = 0.9 * np.clip(np.abs(heat) / (scale.limit or 1.0), 0, 1)[..., None] ** 0.6
    mixed: Array = (1 - opacity) * grey + opacity * scale.rgba(heat)[..., :3]
    return np.clip(mixed, 0, 1)


def show(axes: Axes, image: Array, title: str, scale: Scale | None = None) -> None:
    """A picture (height, width, 3), or a map (height, width) with its scale, as pixels."""
    smooth = "nearest" if max(image.shape[:2]) <= CRISP else "auto"
    if scale is None:
        axes.imshow(image, interpolation=smooth)
    else:
        axes.imshow(image, cmap=scale.cmap.with_extremes(bad=FAINT), norm=scale.norm, interpolation=smooth)
    frame(axes, ticks=False)
    panel_title(axes, title)


@dataclass(frozen=True)
class ImagePanel:
    """A row for each target: the picture, the map, and, where it helps, the map over the picture."""

    picture: Array | None
    """(height, width, 3) colours between 0 and 1, if the input is an image."""
    maps: Sequence[Array]
    """(height, width) for each target; none to show the picture alone."""
    texts: Sequence[str]
    scale: Scale
    over: bool | None = None
    """Whether to lay the maps over the picture; None: if they are large, or of another resolution."""

    @property
    def overlaid(self) -> bool:
        """Whether there is a map over the picture."""
        if self.picture is None or not self.maps:
            return False
        shape = self.maps[0].shape
        return (max(shape) > CRISP / 2 or shape != self.picture.shape[:2]) if self.over is None else self.over

    @property
    def columns(self) -> int:
        """How many images stand side by side."""
        return (self.picture is not None) + bool(self.maps) + self.overlaid

    def size(self) -> tuple[float, float]:
        """Its width and height, in inches."""
        height, width = self.maps[0].shape if self.picture is None else self.picture.shape[:2]
        ratio = min(max(height / max(width, 1), 0.3), 2.5)
        if not self.maps:
            return PANEL, PANEL * ratio
        return 0.7 + self.columns * PANEL, len(self.maps) * (0.3 + PANEL * ratio)

    def draw(self, parent: SubFigure) -> None:
        """Draw it on a figure of that size."""
        grid = parent.subplots(max(len(self.maps), 1), self.columns, squeeze=False)
        if self.picture is not None:
            for row in grid:
                show(row[0], self.picture, "input" if self.maps else "")
        for row, values, text in zip(grid, self.maps, self.texts, strict=False):
            heat, other = row[int(self.picture is not None)], self.picture is not None
            resized = other and self.picture is not None and values.shape != self.picture.shape[:2]
            resolution = "{}\N{MULTIPLICATION SIGN}{}".format(*values.shape) if resized else ""
            show(heat, values, " · ".join(filter(None, [text or "attribution", resolution])), self.scale)
            if self.overlaid and self.picture is not None:
                show(row[-1], overlay(self.picture, values, self.scale), "over the input")
            colour_bar(parent, self.scale, row[-1], shrink=0.86, pad=0.03, aspect=16)
