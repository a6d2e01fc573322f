"""From an explainer's ``layer`` and ``output_layer`` to the attributor that takes its gradients."""

from collections.abc import Sequence

from torch import nn

from pnpx.attributors.base import Attributor
from pnpx.attributors.input import InputAttributor
from pnpx.attributors.layer import LayerAttributor
from pnpx.attributors.places import Layer, ModulePlace, resolve, resolve_all
from pnpx.attributors.wrapping import unwrapped, wrapping


def attributor_for(
    model: nn.Module, layer: Layer = None, output_layer: str | nn.Module | None = None, replay: bool = True
) -> Attributor:
    """The attributor at ``layer``: at the inputs where it is None.

    Raises:
        LookupError: there is no such layer; see `resolve`.
    """
    inner = unwrapped(model)
    tap = None
    if output_layer is not None:
        place = resolve(inner, _inside(model, output_layer))
        if not isinstance(place, ModulePlace) or place.side != "output":
            raise ValueError(f"output_layer must be the output of a module, but is {output_layer!r}")
        tap = place
    if layer is None:
        return InputAttributor(inner if tap else model, tap)
    if isinstance(layer, (str, nn.Module)):
        return LayerAttributor(inner, resolve_all(inner, _inside(model, layer)), tap, False, replay)
    names = [_inside(model, one) for one in layer] if isinstance(layer, Sequence) else layer
    return LayerAttributor(inner, resolve_all(inner, names), tap, True, replay)


def _inside(model: nn.Module, layer: str | nn.Module) -> str | nn.Module:
    """``layer`` as it is called inside the wrappers: what is named from outside works as well."""
    while (name := wrapping(model)) is not None:
        if isinstance(layer, str):
            layer = layer.removeprefix(f"{name}.")
        model = getattr(model, name)
    return layer
