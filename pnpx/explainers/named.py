"""Parameters that go by name: what a call that does not, or has another name, is answered with."""

import inspect
from abc import ABCMeta
from typing import Any

from torch import nn

from pnpx.suggest import nearest


class Named(ABCMeta):
    """Lets a misspelt parameter of an explainer be answered with the nearest name, one without a name with all."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        known = list(inspect.signature(cls.__init__).parameters)[1:]  # type: ignore[misc]
        if len(args) > 1:
            is_module, is_place = isinstance(args[1], nn.Module), isinstance(args[1], (str, nn.Module, list, tuple))
            what = f"a {type(args[1]).__name__}" if is_module else repr(args[1])
            advice = f"layer={'...' if is_module else what}" if is_place else nearest("", known[1:])
            raise TypeError(
                f"the model alone goes by position, and every other parameter of {cls.__name__} by its name, but got "
                f"{what} after the model; say which parameter that is: {advice}"
            )
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no parameter {name!r}; {nearest(name, known)}")
        return super().__call__(*args, **kwargs)
