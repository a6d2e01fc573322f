"""Classes by their names: those of the package, and those that its users define."""

import inspect
from typing import TypeVar

T = TypeVar("T")

_PACKAGE = __name__.partition(".")[0] + "."


def concrete(root: type[T]) -> dict[str, type[T]]:
    """The concrete subclasses of ``root`` by name, in alphabetical order; none whose name has an underscore in front.

    Of several of one name, that of the package is found; of those with one base, such as a notebook's cell makes that
    runs twice, the last.
    """
    found: dict[str, type[T]] = {}
    waiting: list[type[T]] = [root]
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()  # in the order in which they were defined
        ours = kind.__name__ in found and found[kind.__name__].__module__.startswith(_PACKAGE)
        if not inspect.isabstract(kind) and not ours and not kind.__name__.startswith("_"):
            found[kind.__name__] = kind
    return dict(sorted(found.items()))
