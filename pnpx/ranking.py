"""From what metrics say of explanations to an order of the explainers."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pnpx.suggest import nearest


@dataclass(frozen=True)
class Value:
    """What a metric says of one explanation: of one target of one sample."""

    explainer: str
    """By the name that it goes by in a ranking."""
    metric: str
    sample: int
    target: int
    """Which of the targets of the sample, from 0."""
    value: float


@dataclass(frozen=True)
class Row:
    """An explainer in a ranking."""

    explainer: str
    rank: int | None
    """From 1; equal means share one. None where the metric that decides says nothing of it."""
    means: Mapping[str, float]
    """By metric, over the samples that count; metrics that say nothing of the explainer are not there."""


@dataclass(frozen=True)
class Ranking:
    """Explainers of one place of one model, the best first."""

    metrics: Mapping[str, bool]
    """The metrics by name, each with whether higher is better."""
    by: str
    """The metric that decides the order."""
    rows: Sequence[Row]
    counts: Mapping[str, int]
    """By metric, over how many explanations, of targets of samples, the means go: those that all explainers have."""

    def best(self, metric: str) -> float | None:
        """The best mean of a metric; None where fewer than two explainers have one."""
        found = [row.means[metric] for row in self.rows if metric in row.means]
        if len(found) < 2:
            return None
        return max(found) if self.metrics[metric] else min(found)

    def is_best(self, row: Row, metric: str) -> bool:
        """Whether no explainer has a better mean of a metric than that of ``row``."""
        best = self.best(metric)
        return best is not None and row.means.get(metric) == best

    def __str__(self) -> str:
        """A table in plain text, the best first."""
        if not self.metrics:
            return f"{', '.join(row.explainer for row in self.rows)}; no metric judges them"
        arrows = {metric: "higher is better" if up else "lower is better" for metric, up in self.metrics.items()}
        head = ["rank", "explainer", *self.metrics]
        lines = [head] + [
            [
                "-" if row.rank is None else str(row.rank),
                row.explainer,
                *(f"{row.means[metric]:.4g}" if metric in row.means else "-" for metric in self.metrics),
            ]
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        table = [
            "  ".join(
                cell.ljust(width) if column == 1 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        said = "; ".join(f"{metric}: {arrow}" for metric, arrow in arrows.items())
        return "\n".join([*table, f"ranked by {self.by}, over {self.counts[self.by]} values each ({said})"])

    def _repr_html_(self) -> str:
        """The same as a table of a notebook, the best mean of each metric in bold."""
        heads = "".join(f"<th>{html.escape(name)} {'↑' if up else '↓'}</th>" for name, up in self.metrics.items())
        lines = []
        for row in self.rows:
            cells = []
            for metric in self.metrics:
                said = f"{row.means[metric]:.4g}" if metric in row.means else "-"
                cells.append(f"<td>{f'<b>{said}</b>' if self.is_best(row, metric) else said}</td>")
            rank = "-" if row.rank is None else row.rank
            lines.append(f"<tr><td>{rank}</td><td>{html.escape(row.explainer)}</td>{''.join(cells)}</tr>")
        by = f"rank by {html.escape(self.by)}, over {self.counts.get(self.by, 0)}"
        return (
            f"<table><thead><tr><th>{by}</th><th>explainer</th>{heads}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>"
        )


def unranked(explainers: Sequence[str]) -> Ranking:
    """Explainers that no metric judges.

    >>> print(unranked(["Gradient", "Lime"]))
    Gradient, Lime; no metric judges them
    """
    return Ranking({}, "", [Row(name, None, {}) for name in explainers], {})


def rank(explainers: Sequence[str], values: Iterable[Value], metrics: Mapping[str, bool], by: str) -> Ranking:
    """The ``explainers`` in the order in which the metric ``by`` has them.

    Explainers are compared over what all of them have: a mean over fewer samples, the easier ones perhaps, would be no
    match for the others. So of each metric the explanations count, targets of samples, of which it says something for
    every explainer of which it says anything. NaN says nothing, nor does a mean that is NaN, as of infinity either way.

    Args:
        explainers: their names, each once; in this order where there is nothing to choose.
        values: what the metrics say.
        metrics: those that are asked, each with whether higher is better.
        by: one of them.

    Raises:
        LookupError: ``by`` is none of them.

    >>> found = [Value("a", "AbPC", 0, 0, 0.1), Value("b", "AbPC", 0, 0, 0.3), Value("b", "AbPC", 1, 0, -0.5)]
    >>> print(rank(["a", "b", "c"], found, {"AbPC": True}, "AbPC"))
    rank  explainer  AbPC
       1  b           0.3
       2  a           0.1
       -  c             -
    ranked by AbPC, over 1 values each (AbPC: higher is better)
    """
    if by not in metrics:
        raise LookupError(f"explainers are ranked by one of the metrics, but there is none {by!r}; "
                          f"{nearest(by, metrics)}")
    values = list(values)
    means: dict[str, dict[str, float]] = {explainer: {} for explainer in explainers}
    counts = {}
    for metric in metrics:
        of_each: dict[str, dict[tuple[int, int], float]] = {}
        for one in values:
            if one.metric == metric and not math.isnan(one.value):
                of_each.setdefault(one.explainer, {})[one.sample, one.target] = one.value
        common = set.intersection(*map(set, of_each.values())) if of_each else set()
        counts[metric] = len(common)
        for explainer, found in of_each.items():
            if common:
                means[explainer][metric] = sum(found[key] for key in sorted(common)) / len(common)
    sign = -1 if metrics[by] else 1
    keys = {name: sign * found[by] for name, found in means.items() if by in found and not math.isnan(found[by])}
    ranks = {explainer: 1 + sum(other < key for other in keys.values()) for explainer, key in keys.items()}
    ordered = sorted(explainers, key=lambda explainer: ranks.get(explainer, len(explainers) + 1))
    rows = [Row(explainer, ranks.get(explainer), means[explainer]) for explainer in ordered]
    return Ranking(dict(metrics), by, rows, counts)


Place: TypeAlias = tuple[str | None, str]
"""Where an explainer explains, None: at the inputs; and what has a score there, such as "word", if that may differ."""


def rank_places(
    places: Mapping[Place, Sequence[str]], values: Mapping[Place, Sequence[Value]], metrics: Mapping[str, bool], by: str
) -> list[tuple[str | None, str, Ranking]]:
    """The explainers of each place, ranked. Where all have the same units, these are not named; see `rank` and
    `unranked`, which is for no ``metrics``."""
    several = len({units for _, units in places}) > 1
    return [
        (
            layer,
            units if several else "",
            rank(names, values.get((layer, units), []), metrics, by) if metrics else unranked(names),
        )
        for (layer, units), names in places.items()
    ]
