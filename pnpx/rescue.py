"""Explaining samples together, and where that fails each by itself, so that a bad one takes no other along."""

from collections.abc import Sequence

import torch

from pnpx.store import Record
from pnpx.subjects import one_line
from pnpx.tasks import Task


def explained(task: Task, indices: Sequence[int]) -> tuple[dict[int, Record], dict[int, Exception]]:
    """The explanations of some samples by index, and what went wrong with each of the others.

    Where the first, the last and the middle one fail alike, the others are taken to as well, and not tried: what fails
    for every sample is to cost little more than one try, and bad samples often stand side by side. Nor are they tried
    where memory runs out.
    """
    found: dict[int, Record] = {}
    failed: dict[int, Exception] = {}
    error = _failure(task, indices, found)
    if error is None or len(indices) == 1 or _is_memory(error):
        return found, {} if error is None else dict.fromkeys(indices, error)
    for index in dict.fromkeys((indices[0], indices[-1], indices[len(indices) // 2], *indices)):
        error = _failure(task, [index], found)
        if error is None:
            continue
        failed[index] = error
        all_alike = not found and len(failed) == 3 and len(set(map(one_line, failed.values()))) == 1
        if _is_memory(error) or all_alike:
            return found, {one: failed.get(one, error) for one in indices if one not in found}
    return found, failed


def _failure(task: Task, indices: Sequence[int], found: dict[int, Record]) -> Exception | None:
    """Explain some samples together and put what comes of it in ``found``; the error if that fails."""
    try:
        found |= zip(indices, task.explain(indices), strict=True)
    except Exception as error:  # whatever it is, the other explainers go on, and the report says it
        return error
    return None


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
