"""Where the channels of what is explained are, as far as the module tells at which it is explained."""

from torch import nn

from pnpx.attributors import Attributor, ModulePlace
from pnpx.attributors.layer import LayerAttributor

CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveAvgPool1d,
)
"""The modules that take and give (batch, channels, length)."""


def channel_axis_at(attributor: Attributor) -> int | None:
    """The axis of the channels, counted from the end, at modules that have it before the length; None: not known."""
    if not isinstance(attributor, LayerAttributor):
        return None
    modules = [place.module if isinstance(place, ModulePlace) else None for place in attributor.places]
    return -2 if all(isinstance(module, CHANNELS_FIRST) for module in modules) else None
