"""Where an explanation looks: a forward argument, or the input or output of one call of a module."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from pnpx.extractors import Signature
from pnpx.suggest import nearest

Layer: TypeAlias = str | nn.Module | Sequence[str | nn.Module] | None
"""What the ``layer`` argument of an explainer may be; None: the inputs."""

_SPEC = re.compile(r"(?P<name>[^:#]*)(?:#(?P<call>\d+))?(?::(?P<side>input|output|argument))?(?:#(?P<late>\d+))?")


@dataclass(frozen=True)
class ArgumentPlace:
    """A forward argument of the model."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ModulePlace:
    """One side of one call of a module. ``call`` counts from 1; None: the only one."""

    path: str
    module: nn.Module = field(repr=False)
    side: str = "output"
    call: int | None = None

    def __str__(self) -> str:
        number = "" if self.call is None else f"#{self.call}"
        return f"{self.path or '(the model)'}{number}" + ("" if self.side == "output" else ":input")


Place: TypeAlias = ArgumentPlace | ModulePlace


def resolve(model: nn.Module, layer: str | nn.Module) -> Place:
    """The place that ``layer`` means in ``model``.

    A string is a dotted module path, ``"path:input"`` or ``"path:output"`` (the default), ``"path#2"`` for the second
    call of a module that runs several times, or the name of a forward argument.

    >>> str(resolve(nn.Sequential(nn.ReLU()), "0#2:input"))
    '0#2:input'

    Raises:
        LookupError: there is no such module or argument.
        ValueError: the string is not written as above, or names both a module and an argument.
        TypeError: ``layer`` is neither a string nor a module.
    """
    if isinstance(layer, nn.Module):
        # The identity decides: modules may compare by value.
        for path, module in model.named_modules():
            if module is layer:
                return ModulePlace(path, module)
        raise LookupError(
            f"the layer must be a module of the model explained, but this {type(layer).__name__} is none of them; "
            "give its path instead, such as 'encoder.layer.0'"
        )
    if not isinstance(layer, str):
        raise TypeError(f"a layer must be a str or a module, or a sequence of them, but is {layer!r}")
    match = _SPEC.fullmatch(layer)
    if match is None or (match["call"] and match["late"]):
        raise ValueError(
            "a layer is written 'path', 'path:input', 'path:output' or 'path#2' for a module's second call, "
            f"not {layer!r}"
        )
    name, side, number = match["name"], match["side"], match["call"] or match["late"]
    call = None if number is None else int(number)
    if call == 0:
        raise ValueError(f"calls of a module count from 1, but the layer is {layer!r}")
    modules = dict(model.named_modules(remove_duplicate=False))
    arguments = Signature(model).names
    is_module = name in modules and bool(name or side or number)
    if side == "argument" or (name in arguments and side is None and number is None):
        if is_module and side is None:
            raise ValueError(
                f"{name!r} is both a module and a forward argument of the model; write '{name}:output' for the module, "
                f"'{name}:argument' for the argument"
            )
        if name not in arguments:
            raise LookupError(f"no forward argument {name!r} in the model; {nearest(name, arguments)}")
        return ArgumentPlace(name)
    if not is_module:
        if name in arguments:
            raise LookupError(f"{name!r} is a forward argument of the model, without sides or calls; write {name!r} "
                              f"alone")
        raise LookupError(f"no module {name!r} in the model; {nearest(name, [*filter(None, modules), *arguments])}")
    return ModulePlace(name, modules[name], side or "output", call)


def resolve_all(model: nn.Module, layer: str | nn.Module | Sequence[str | nn.Module]) -> tuple[Place, ...]:
    """The places that ``layer``, one or a sequence of them, means in ``model``; errors as of `resolve`."""
    if isinstance(layer, (str, nn.Module)):
        return (resolve(model, layer),)
    if not isinstance(layer, Sequence) or not layer:
        raise TypeError(f"a layer must be a str or a module, or a sequence of at least one of them, but is {layer!r}")
    places = tuple(resolve(model, one) for one in layer)
    for index, place in enumerate(places):
        if any(_same(place, other) for other in places[:index]):
            raise ValueError(f"the layers must differ, but {str(place)!r} is given twice")
    return places


def _same(one: Place, other: Place) -> bool:
    if isinstance(one, ModulePlace) and isinstance(other, ModulePlace):
        return one.module is other.module and one.side == other.side and (one.call or 1) == (other.call or 1)
    return one == other
