"""What metrics say of all the explanations of a run, gathered for its table and its rankings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pnpx.evaluation import Values
from pnpx.plan import Plan
from pnpx.ranking import Place, Ranking, Value, rank_places
from pnpx.store import Record
from pnpx.subjects import Subject
from pnpx.tables import ScoreRow
from pnpx.tasks import Task


@dataclass
class Scoreboard:
    """The values of a run as it goes on; ``rows`` are those of its table."""

    plan: Plan
    rows: list[ScoreRow] = field(default_factory=list)
    values: dict[Subject, dict[Place, list[Value]]] = field(default_factory=dict)

    def note(self, task: Task, explanations: Mapping[int, Record], judged: Mapping[str, Values]) -> None:
        """Take in what metrics, by name, say of some explanations of a task."""
        for metric, values in judged.items():
            for index, of_targets in values.items():
                for target, value in enumerate(of_targets):
                    found = Value(task.label, metric, index, target, value)
                    values_of_model = self.values.setdefault(task.subject, {})
                    values_of_model.setdefault((task.layer, task.units), []).append(found)
                    self.rows.append(
                        ScoreRow(
                            model=task.subject.name,
                            explainer=task.label,
                            parameters=task.parameters,
                            layer=task.layer,
                            sample=index,
                            target=target,
                            metric=metric,
                            value=value,
                            higher_is_better=self.plan.metrics[metric].higher_is_better,
                            seconds=explanations[index].seconds,
                        )
                    )

    def rankings(self, subject: Subject) -> list[tuple[str | None, str, Ranking]]:
        """The explainers of each place of a model, and of each kind of units there, ranked; none where nothing judges
        them."""
        metrics = {name: metric.higher_is_better for name, metric in self.plan.metrics.items()}
        if not metrics:
            return []
        by = self.plan.settings.rank_by or next(iter(metrics))
        places: dict[Place, list[str]] = {}
        for task in self.plan.tasks:
            if task.subject is subject:
                places.setdefault((task.layer, task.units), []).append(task.label)
        return rank_places(places, self.values.get(subject, {}), metrics, by)
