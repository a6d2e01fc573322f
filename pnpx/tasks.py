"""What a run does: one explainer at one place of one model, for all its samples, and what the report says of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from pnpx.explainers import Explainer
from pnpx.explanation import Explanation
from pnpx.fingerprint import digest, of_explainer
from pnpx.metrics import Metric
from pnpx.panels import Output, output_of, panel_of
from pnpx.removal import suited
from pnpx.store import Record
from pnpx.structure import Structure, mirror, tensors
from pnpx.subjects import Subject
from pnpx.text import TextExplainer, TextExplanation
from pnpx.text.samples import TextSamples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnpx.report import Panel


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """One explainer at one place of one model, for all its samples; ``folder`` is where its results go."""

    subject: Subject
    explainer: Any
    parameters: Mapping[str, Any]
    layer: str | None
    folder: str

    record: ClassVar[type[Record]]
    """The class of its explanations."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The name of the explainer."""

    @abstractmethod
    def explain(self, indices: Sequence[int]) -> Sequence[Record]:
        """The explanations of some samples, each by itself, with what is known of the data."""

    def suited(self, metric: Metric) -> Metric:
        """``metric`` with what suits the data, where it has its defaults."""
        return metric

    @abstractmethod
    def evaluate(self, metric: Metric, explanations: Mapping[int, Any]) -> dict[int, list[float]]:
        """What a metric says of explanations, by the indices of their samples: a value for each target."""

    @abstractmethod
    def explainer_print(self) -> str:
        """The fingerprint of the explainer."""

    @abstractmethod
    def input_figure(self, explanation: Any) -> "Callable[[], Figure] | None":
        """What draws the sample; None if the page shows it without a figure."""

    @abstractmethod
    def output(self, explanation: Any) -> Output:
        """What the model gave for the sample."""

    @abstractmethod
    def panel(self, explanation: Any, picture: Path) -> "Panel":
        """What the page says of an explanation."""

    @property
    def units(self) -> str:
        """Of what there is a score, where that is not the same for all explainers of a place: "word", "token", ..."""
        return ""

    @property
    def label(self) -> str:
        """The name of the explainer among those of its model, with a number where several have it."""
        return Path(self.folder).parent.name

    def name(self, index: int) -> str:
        """The name under which the explanation of sample ``index`` is stored."""
        return f"{self.folder}/{index:04d}"

    def fingerprint(self, index: int, version: str) -> str:
        """The fingerprint of the explanation of sample ``index``, by this version of pnpx."""
        return digest(version, self.subject.fingerprint, self.explainer_print(), *self.subject.data.identity(index))

    def __str__(self) -> str:
        at = "the inputs" if self.layer is None else self.layer
        return f"{self.title} at {at} of {self.subject.name}"


@dataclass(frozen=True, eq=False)
class TensorTask(Task):
    """The task for samples that are tensors; ``removal`` is what suits metrics, see `pnpx.removal`."""

    explainer: Explainer
    removal: Mapping[str, Any] = field(default_factory=dict)

    record = Explanation

    @property
    def title(self) -> str:
        return type(self.explainer).__name__

    def explain(self, indices: Sequence[int]) -> Sequence[Explanation]:
        data: Any = self.subject.data
        batch = self.explainer.explain(data.take(indices))
        if not isinstance(batch, Explanation):
            raise TypeError(f"explain must return an Explanation for a batch, but returned a {type(batch).__name__}")
        described = replace(
            batch,
            seconds=batch.seconds / len(indices),
            kind=data.kind,
            class_names=data.class_names,
            feature_names=data.feature_names,
        )
        return list(described)

    def suited(self, metric: Metric) -> Metric:
        return suited(metric, self.removal, at_inputs=self.layer is None)

    def evaluate(self, metric: Metric, explanations: Mapping[int, Explanation]) -> dict[int, list[float]]:
        data: Any = self.subject.data
        attributions = _joined(list(explanations.values()))
        found = metric.evaluate(self.explainer, data.take(list(explanations)), None, attributions)
        return {index: row.reshape(-1).tolist() for index, row in zip(explanations, found, strict=True)}

    def explainer_print(self) -> str:
        return of_explainer(self.explainer)

    def input_figure(self, explanation: Explanation) -> "Callable[[], Figure]":
        from pnpx.plots import plot_input

        return lambda: plot_input(explanation)

    def output(self, explanation: Explanation) -> Output:
        return output_of(explanation)

    def panel(self, explanation: Explanation, picture: Path) -> "Panel":
        return panel_of(explanation, self.title, self.layer, self.parameters, picture)


@dataclass(frozen=True, eq=False)
class TextTask(Task):
    """The task for texts; ``generation`` goes to the model's ``generate``."""

    explainer: TextExplainer
    generation: Mapping[str, Any]

    record = TextExplanation

    @property
    def title(self) -> str:
        return self.explainer.method.__name__

    @property
    def units(self) -> str:
        return str(self.explainer.granularity)

    def explain(self, indices: Sequence[int]) -> Sequence[TextExplanation]:
        data = self.subject.data
        if not isinstance(data, TextSamples):
            raise TypeError(f"texts are explained here, but the samples are {data.name!r}")
        # What the model is to generate with is for texts of which the continuation is not given.
        given = [index for index in indices if data.inputs[index].target is not None]
        free = [index for index in indices if data.inputs[index].target is None]
        targets = [data.inputs[index].target for index in given]
        found = dict(zip(given, self.explainer(data.take(given), targets), strict=True))
        found |= zip(free, self.explainer(data.take(free), None, **self.generation), strict=True)
        return [found[index] for index in indices]

    def evaluate(self, metric: Metric, explanations: Mapping[int, TextExplanation]) -> dict[int, list[float]]:
        data: Any = self.subject.data
        found = metric.evaluate(self.explainer, data.take(list(explanations)), None, list(explanations.values()))
        return {index: row.reshape(-1).tolist() for index, row in zip(explanations, found, strict=True)}

    def explainer_print(self) -> str:
        explainer = self.explainer
        own = (explainer.granularity, explainer.aggregation, explainer.reduce, explainer.replacement)
        method = of_explainer(explainer.method(explainer.model, **explainer.parameters))
        return digest(method, own, self.generation)

    def input_figure(self, explanation: TextExplanation) -> None:
        return None

    def output(self, explanation: TextExplanation) -> Output:
        return output_of(explanation)

    def panel(self, explanation: TextExplanation, picture: Path) -> "Panel":
        return panel_of(explanation, self.title, self.layer, self.parameters, picture)


def _joined(explanations: Sequence[Explanation]) -> Structure:
    """The attributions of samples that were explained alike, put together as those of one batch."""
    first = explanations[0]
    columns = zip(*(tensors(one.attributions) for one in explanations), strict=True)
    return mirror(
        first.attributions, [torch.cat(column, axis) for column, axis in zip(columns, first.batch_axes, strict=True)]
    )
