"""What a run does: one explainer at one place of one model, for all its samples, and what the report says of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pnpx.explainers import Explainer
from pnpx.explanation import Explanation
from pnpx.fingerprint import digest, of_explainer
from pnpx.store import FINGERPRINT, Record
from pnpx.subjects import Subject
from pnpx.text import TextExplainer, TextExplanation
from pnpx.text.samples import TextSamples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pnpx.report import Panel


@dataclass(frozen=True)
class Output:
    """What a model gave for a sample, in words: ``what``, such as a class, was "predicted", or else ``how``.

    Where no explanation tells it, there is none.
    """

    what: str | None = None
    probability: float | None = None
    how: str = "predicted"


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
    """The task for samples that are tensors."""

    explainer: Explainer

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

    def explainer_print(self) -> str:
        return of_explainer(self.explainer)

    def input_figure(self, explanation: Explanation) -> "Callable[[], Figure]":
        from pnpx.plots import plot_input

        return lambda: plot_input(explanation)

    def output(self, explanation: Explanation) -> Output:
        if explanation.prediction is None:
            return Output("no class")
        probability = None if explanation.probability is None else float(explanation.probability[0])
        return Output(explanation.label(int(explanation.prediction[0])), probability)

    def panel(self, explanation: Explanation, picture: Path) -> "Panel":
        from pnpx.report import Panel

        targets = explanation.targets
        if targets is None or targets.is_floating_point():
            target = "the output"
        elif explanation.indices:
            target = str(tuple(targets[0].tolist()))
        else:
            target = ", ".join(explanation.label(int(one)) for one in targets.reshape(-1))
        return Panel(
            explainer=self.title,
            layer=self.layer,
            parameters=self.parameters,
            png=picture,
            target=target,
            seconds=explanation.seconds,
            notes={name: f"{float(value.reshape(-1)[0]):.3g}" for name, value in explanation.diagnostics.items()},
        )


@dataclass(frozen=True, eq=False)
class TextTask(Task):
    """The task for texts; ``generation`` goes to the model's ``generate``."""

    explainer: TextExplainer
    generation: Mapping[str, Any]

    record = TextExplanation

    @property
    def title(self) -> str:
        return self.explainer.method.__name__

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

    def explainer_print(self) -> str:
        explainer = self.explainer
        own = (explainer.granularity, explainer.aggregation, explainer.reduce, explainer.replacement)
        method = of_explainer(explainer.method(explainer.model, **explainer.parameters))
        return digest(method, own, self.generation)

    def input_figure(self, explanation: TextExplanation) -> None:
        return None

    def output(self, explanation: TextExplanation) -> Output:
        if explanation.prediction is not None:
            return Output(explanation.prediction, explanation.probability)
        if explanation.generation:
            return Output(explanation.texts[-1], how="continuation")
        return Output(", ".join(explanation.target_names), how="explained")

    def panel(self, explanation: TextExplanation, picture: Path) -> "Panel":
        from pnpx.report import Panel

        described = {name: value for name, value in explanation.explainer.items() if name != FINGERPRINT}
        return Panel(
            explainer=self.title,
            layer=self.layer,
            parameters=self.parameters,
            png=picture,
            target="" if explanation.generation else ", ".join(explanation.target_names),
            seconds=explanation.seconds,
            notes={},
            text=replace(explanation, explainer=described),
        )
