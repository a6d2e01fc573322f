"""Parameters that go by name: what a call that does not, or has another name, is answered with."""

import inspect
from abc import ABCMeta
from inspect import Parameter
from typing import Any

from torch import nn

from pnpx.suggest import nearest


class Named(ABCMeta):
    """Lets a misspelt parameter of an explainer be answered with the nearest name, one without a name with all."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
        if {one.kind for one in parameters} & {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
            return super().__call__(*args, **kwargs)  # which names there are is the matter of what it calls
        known = [one.name for one in parameters]
        first = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
        if 0 < len(first) < len(args):
            given, root = args[len(first)], next(kind for kind in reversed(cls.__mro__) if isinstance(kind, Named))
            others = sorted(known[len(first) :], key=lambda name: name in root.__annotations__)  # its own ones first
            is_module, is_place = isinstance(given, nn.Module), isinstance(given, (str, nn.Module, list, tuple))
            what = f"a {type(given).__name__}" if is_module else repr(given)
            advice = f"layer={'...' if is_module else what}" if is_place and "layer" in others else nearest("", others)
            alone = "the model alone goes" if len(first) == 1 else f"{', '.join(first)} alone go"
            raise TypeError(
                f"{alone} by position, and every other parameter of {cls.__name__} by its name, but got {what} after "
                f"{'the model' if len(first) == 1 else first[-1]}; say which parameter that is: {advice}"
            )
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no parameter {name!r}; {nearest(name, known)}")
        return super().__call__(*args, **kwargs)
