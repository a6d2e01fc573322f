"""Judging stored explanations: what metrics say is kept beside each explanation, so that no run asks twice."""

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from pnpx.atomic import write_whole
from pnpx.fingerprint import of_metric
from pnpx.metrics import Metric
from pnpx.store import Record, Store
from pnpx.subjects import one_line
from pnpx.tasks import Task

Values = Mapping[int, Sequence[float]]
"""What a metric says by the index of a sample: a value for each of its targets."""

_OF, _VALUES = "explanation", "values"
_TRIES = 3
"""Where a metric fails alike for the first so many explanations, one by one, the others are not tried."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics, by the names that they go by in tables, and where what they say is kept.

    With ``force`` they are asked again of what they were asked before, but for what workers have ``saved`` in this run:
    the folders of tasks, with the indices of samples.
    """

    metrics: Mapping[str, Metric]
    store: Store
    force: bool = False
    saved: Set[tuple[str, int]] = frozenset()

    def of(
        self, task: Task, explanations: Mapping[int, Record], prints: Mapping[int, str]
    ) -> tuple[dict[str, Values], dict[str, Exception]]:
        """What the metrics say of some explanations of a task, and what went wrong with those that say nothing.

        Args:
            task: what made them.
            explanations: by the indices of their samples.
            prints: their fingerprints. What was found of an explanation with another one does not count.
        """
        if not self.metrics:
            return {}, {}
        known = {index: self._known(task.name(index), prints[index]) for index in explanations}
        found: dict[str, Values] = {}
        failed: dict[str, Exception] = {}
        for name, metric in self.metrics.items():
            suited = task.suited(metric)
            key = of_metric(suited)
            wanted = [
                index
                for index in explanations
                if key not in known[index] or (self.force and (task.folder, index) not in self.saved)
            ]
            made, error = _judged(task, suited, {index: explanations[index] for index in wanted})
            if error is not None:
                failed[name] = error
            for index in wanted:
                before = known[index].pop(key, None)  # what is asked again counts no more, also where that fails
                if index in made:
                    known[index][key] = list(made[index])
                if index in made or before is not None:
                    self._keep(task.name(index), prints[index], known[index])
            found[name] = {index: known[index][key] for index in explanations if key in known[index]}
        return found, failed

    def _known(self, name: str, fingerprint: str) -> dict[str, list[float]]:
        """By the fingerprints of metrics, what was found before of the explanation stored as ``name``."""
        try:
            kept: Any = json.loads(self.store.scores(name).read_text(encoding="utf-8"))
            if kept[_OF] != fingerprint:
                return {}
            return {str(key): [float(value) for value in values] for key, values in kept[_VALUES].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}  # there is nothing, or it is damaged: to be found again

    def _keep(self, name: str, fingerprint: str, known: Mapping[str, Sequence[float]]) -> None:
        # JSON has no name for what is not finite.
        plain = {key: [one if math.isfinite(one) else str(one) for one in values] for key, values in known.items()}
        content = json.dumps({_OF: fingerprint, _VALUES: plain})
        path = self.store.scores(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.encode())


def _judged(task: Task, metric: Metric, explanations: Mapping[int, Record]) -> tuple[Values, Exception | None]:
    """What a metric says of some explanations; where it fails, of each by itself, and the first error."""
    try:
        return (task.evaluate(metric, explanations) if explanations else {}), None
    except Exception as error:  # whatever it is, the other metrics go on, and the report says it
        first = error
    found: dict[int, Sequence[float]] = {}
    said: list[str] = []
    for index, one in explanations.items() if len(explanations) > 1 else ():
        if not found and len(said) == _TRIES and len(set(said)) == 1:
            break  # it fails for all alike
        try:
            found |= task.evaluate(metric, {index: one})
        except Exception as error:
            first = error
            said.append(one_line(error))
    return found, first
