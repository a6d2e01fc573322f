"""From an explainer's ``layer`` and ``output_layer`` to the attributor that takes its gradients."""

from collections.abc import Sequence

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


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module in what ``torch.compile``, ``DataParallel`` or the distributed wrappers made of it."""
    while (name := _wrapping(model)) is not None:
        model = getattr(model, name)
    return model


def _wrapping(model: nn.Module) -> str | None:
    """Under which name a wrapper holds the wrapped module; None if ``model`` is no wrapper."""
    if type(model).__name__ == "OptimizedModule":
        return "_orig_mod"
    return "module" if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else None


def _inside(model: nn.Module, layer: str | nn.Module) -> str | nn.Module:
    """``layer`` as it is called inside the wrappers: what is named from outside works as well."""
    while (name := _wrapping(model)) is not None:
        if isinstance(layer, str):
            layer = layer.removeprefix(f"{name}.")
        model = getattr(model, name)
    return layer
