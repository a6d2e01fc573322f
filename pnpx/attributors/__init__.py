"""Where gradients are taken: at a model's inputs, or inside it. The place is chosen by an explainer's ``layer``."""

from pnpx.attributors.base import Attributor, Bound
from pnpx.attributors.beside import Point
from pnpx.attributors.choose import attributor_for
from pnpx.attributors.guard import left_as_found
from pnpx.attributors.input import InputAttributor
from pnpx.attributors.layer import LayerAttributor
from pnpx.attributors.places import ArgumentPlace, Layer, ModulePlace, Place, resolve, resolve_all
from pnpx.attributors.value import Value
from pnpx.attributors.wrapping import unwrapped

__all__ = [
    "ArgumentPlace",
    "Attributor",
    "Bound",
    "InputAttributor",
    "Layer",
    "LayerAttributor",
    "ModulePlace",
    "Place",
    "Point",
    "Value",
    "attributor_for",
    "left_as_found",
    "resolve",
    "resolve_all",
    "unwrapped",
]
