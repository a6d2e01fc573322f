"""Engines: who does the explaining of a run, beside the process that runs it."""

from inspect import signature
from typing import Any

from pnpx.engines.base import Done, Engine, Job, Saved, jobs
from pnpx.engines.local import Local
from pnpx.engines.ray import Ray
from pnpx.suggest import nearest

__all__ = ["ENGINES", "Done", "Engine", "Job", "Local", "Ray", "Saved", "engine", "jobs"]

ENGINES: dict[str, type[Engine]] = {"local": Local, "ray": Ray}
"""The engines by the names that configurations have for them."""


def engine(name: str, **parameters: Any) -> Engine:
    """The engine called ``name``, with its parameters.

    >>> engine("local", workers=4)
    Local(workers=4)

    Raises:
        LookupError: there is no such engine.
        TypeError: it has no such parameter, or one is of the wrong kind.
        ValueError: a number is out of range.
    """
    if name not in ENGINES:
        raise LookupError(f"no engine {name!r}; {nearest(name, ENGINES)}")
    known = signature(ENGINES[name]).parameters
    for given in parameters:
        if given not in known:
            raise TypeError(f"the engine {name!r} has no parameter {given!r}; {nearest(given, known)}")
    return ENGINES[name](**parameters)
