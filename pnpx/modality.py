"""What sort of data is explained, and what follows from it: which elements belong together, where the channels are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pnpx.baselines import Baseline
from pnpx.detector import Traits
from pnpx.masks import Groups, Patches
from pnpx.suggest import nearest

MODALITIES = ("image", "series", "tabular", "text")

_UNITS = {"image": "patches", "series": "steps", "tabular": "elements", "text": "tokens"}
_WINDOWS = 64  # at most, as patches of images: as many passes, or more, each


@dataclass(frozen=True)
class Modality:
    """A sort of data, and the defaults that follow from it.

    Args:
        name: "image", "series", "tabular" or "text", which here is token ids.
        unit: what is switched off as one, in words: "patches", "steps", "windows", "elements", "tokens".
        groups: the ``groups`` of perturbation explainers; None: their own choice by shape serves.
        channel_axis: that of explainers; None: their own choice by shape serves.
        baseline: what is absent, as an input.
    """

    name: str
    unit: str
    groups: Groups = None
    channel_axis: int | None = None
    baseline: Baseline = 0.0

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of explainers at the inputs that differ from these explainers' own defaults."""
        given = {"groups": self.groups, "channel_axis": self.channel_axis}
        return {name: value for name, value in given.items() if value is not None}


def modality_of(values: Sequence[Tensor], traits: Traits, name: str | None = None) -> Modality:
    """What sort of data the explained tensors are.

    Integers are token ids where the model has an embedding. Else (batch, features) is a table, unless the model reads
    it step by step; (batch, steps, features) and (batch, channels, steps) are series; with more axes it is an image.
    Of several tensors that with the most axes tells. What cannot be seen, such as a grey image (batch, height, width),
    or a vector that is a series, can be said by ``name``.

    >>> import torch
    >>> from pnpx.detector import detect
    >>> model = torch.nn.LSTM(4, 3)
    >>> modality_of([torch.zeros(2, 100, 4)], detect(model))
    Modality(name='series', unit='windows of 2 steps', groups=2, channel_axis=None, baseline=0.0)

    Args:
        values: the tensors, (batch, ...) each.
        traits: of the model.
        name: what they are, if it is known.

    Raises:
        ValueError: there is no modality of that name, or no tensor.
    """
    if name is not None and name not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, but is {name!r}; "
                         f"{nearest(str(name), MODALITIES)}")
    if not values:
        raise ValueError("a modality is that of the tensors that are explained, but there are none; give at least one")
    floats = [value for value in values if value.is_floating_point()]
    widest = max(floats or values, key=lambda value: value.ndim)
    alone = len(values) == 1
    found = name or _seen(widest, traits)
    channel = None
    if found == "series":
        channel = _channel_axis(values, traits)
    return _with_defaults(found, widest, alone, channel)


def _seen(value: Tensor, traits: Traits) -> str:
    """The modality that shape and dtype tell."""
    if not value.is_floating_point() and "embedding" in traits:
        return "text"
    if value.ndim > 3:
        return "image"
    by_steps = traits.series_channels or any(kind in traits for kind in ("lstm", "gru", "rnn"))
    return "series" if value.ndim == 3 or (value.ndim == 2 and by_steps) else "tabular"


def _channel_axis(values: Sequence[Tensor], traits: Traits) -> int | None:
    """1 where series are (batch, channels, steps), as convolutions read them; None for (batch, steps, features)."""
    series = [value for value in values if value.ndim == 3]
    taken = traits.series_channels
    # A later convolution takes what an earlier one gives, which may be as many as there are steps.
    first = any(value.shape[1] in taken[:1] for value in series)
    return 1 if first and all(value.shape[1] in taken for value in series) else None


def _with_defaults(name: str, value: Tensor, alone: bool, channel: int | None) -> Modality:
    unit, shape = _UNITS[name], tuple(value.shape[1:])
    if not alone:
        return Modality(name, unit if name == "text" else "groups of elements", channel_axis=channel)
    if name == "series" and 1 <= len(shape) <= 2:
        steps = shape[0] if channel is None else shape[1]
        size = -(-steps // _WINDOWS)
        if size > 1:
            return Modality(name, f"windows of {size} steps", size, channel)
    elif name == "image" and len(shape) == 2:  # without an axis of channels
        size = -(-max(shape) // round(_WINDOWS**0.5))
        return Modality(name, unit, Patches(size).number(shape, None))
    elif name in ("tabular", "text") and len(shape) > 1 and (name == "tabular" or not value.is_floating_point()):
        return Modality(name, unit, "elements")
    return Modality(name, unit, channel_axis=channel)
