"""From an explainer's ``layer`` and ``output_layer`` to the attributor that takes its gradients."""

from torch import nn

from pnpx.attributors.base import Attributor
from pnpx.attributors.input import InputAttributor
from pnpx.attributors.layer import LayerAttributor
from pnpx.attributors.places import Layer, ModulePlace, resolve, resolve_all


def attributor_for(
    model: nn.Module, layer: Layer = None, output_layer: str | nn.Module | None = None, replay: bool = True
) -> Attributor:
    """The attributor at ``layer``: at the inputs where it is None.

    Raises:
        LookupError: there is no such layer; see `resolve`.
    """
    tap = None
    if output_layer is not None:
        place = resolve(model, output_layer)
        if not isinstance(place, ModulePlace) or place.side != "output":
            raise ValueError(f"output_layer must be the output of a module, but is {output_layer!r}")
        tap = place
    if layer is None:
        return InputAttributor(model, tap)
    several = not isinstance(layer, (str, nn.Module))
    return LayerAttributor(model, resolve_all(model, layer), tap, several, replay)
