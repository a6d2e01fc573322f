"""Which of the things that a configuration says is at fault where an explainer cannot be made, or cannot explain."""

from collections.abc import Callable, Collection, Sequence
from itertools import combinations

import torch

from pnpx.subjects import one_line

Attempt = Callable[[Collection[str]], object]
"""Tries what was asked for, with the named parts of it left out; raises if that fails."""


def faults(attempt: Attempt, given: Sequence[str]) -> list[tuple[str, Exception]]:
    """The parts of what was ``given`` that make ``attempt`` fail, each with the error it brings about.

    A part is at fault if leaving it out mends what fails: so an error needs not say which parameter it is of, and
    explainers of the user's own are examined as well. Where two are wrong, it takes both. What fails whatever is left
    out is no fault of what was given, but of the model or the data. Memory that runs out is nobody's.
    """
    error = _failure(attempt, ())
    if error is None:
        return []
    for size in (1, 2):
        for group in combinations(given, size):
            if _failure(attempt, group) is None:
                alone = [(name, _failure(attempt, {*group} - {name})) for name in group]
                return [(name, found or error) for name, found in alone]
    return []


def in_words(error: Exception) -> str:
    """What ``error`` says, in one line; its class too where the words alone do not tell what kind of thing happened."""
    if isinstance(error, (TypeError, ValueError, LookupError, RuntimeError)) and error.args and str(error.args[0]):
        return " ".join(str(error.args[0]).split())
    return one_line(error)


def _failure(attempt: Attempt, left_out: Collection[str]) -> Exception | None:
    try:
        attempt(left_out)
    except torch.cuda.OutOfMemoryError:
        return None
    except Exception as error:  # of any kind: models and explainers of the user's own are tried
        return error
    return None
