"""What a metric is: immutable parameters, and one way to judge the attributions of any explainer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, overload

from torch import Tensor

from pnpx.explainers.base import Explainer
from pnpx.explainers.named import Named
from pnpx.metrics.judge import judged
from pnpx.metrics.trial import Trial
from pnpx.parameters import as_plain, plain_numbers
from pnpx.registry import concrete
from pnpx.scores import Targets
from pnpx.structure import Structure

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


@dataclass(frozen=True)
class Metric(ABC, metaclass=Named):
    """Judges attributions by a number for each sample.

    A metric has parameters of its own only: the model, the place, extractors, targets and batch sizes are those of the
    explainer that it judges. So it works at the inputs and at layers, and the model is left as it was found.

    Of a sequence of layers of which one is computed from another, each is judged by itself, and the mean is given.
    """

    higher_is_better: ClassVar[bool]
    """Whether the explanation with the larger number is the better one."""

    def __post_init__(self) -> None:
        if not isinstance(getattr(self, "higher_is_better", None), bool):
            name = type(self).__name__
            raise TypeError(f"{name} must say higher_is_better = True or False, as an attribute of the class")
        for one in fields(self):
            object.__setattr__(self, one.name, plain_numbers(getattr(self, one.name)))

    @overload
    def evaluate(
        self, explainer: Explainer, inputs: Any, targets: Targets = None, attributions: Structure = None
    ) -> Tensor: ...

    @overload
    def evaluate(
        self, explainer: "TextExplainer", inputs: Any, targets: Any = None, attributions: Any = None
    ) -> list[Tensor]: ...

    def evaluate(
        self,
        explainer: "Explainer | TextExplainer",
        inputs: Any,
        targets: Targets = None,
        attributions: Structure = None,
    ) -> "Tensor | list[Tensor]":
        """One number a sample.

        Args:
            explainer: the one that is judged. For texts a `pnpx.text.TextExplainer`.
            inputs: a batch, as ``explainer.attribute`` takes it; or texts, as the text explainer does.
            targets: as ``explainer`` takes them; None: the predicted class.
            attributions: what ``explainer.attribute(inputs, targets)`` returned, or the list of explanations of a text
                explainer; None: they are computed.

        Returns:
            (batch,), or (batch, n_targets) for several targets a sample, in float64 on the CPU. For texts a list with a
            tensor, () or (n_targets,), for each. NaN where attributions are.

        Raises:
            TypeError: there is no explainer, or this metric cannot judge what it explains.
            ValueError: the attributions are none of these inputs, or what ``explainer.attribute`` raises.
        """
        found: Tensor | list[Tensor] = self._found(explainer, inputs, targets, attributions, "value")
        return found

    def _found(self, explainer: Any, inputs: Any, targets: Any, attributions: Any, name: str) -> Any:
        """What is called ``name`` of what was found."""
        if isinstance(explainer, Explainer):
            if attributions is None:
                attributions = explainer.attribute(inputs, targets)
            return self.of_batch(explainer, inputs, targets, attributions)[name]
        from pnpx.text.explainer import TextExplainer

        if not isinstance(explainer, TextExplainer):
            raise TypeError(
                f"a metric judges an explainer, such as pnpx.Gradient(model), but got a {type(explainer).__name__}"
            )
        found = explainer(inputs, targets) if attributions is None else list(attributions)
        return self.of_texts(explainer, inputs, targets, found, name) if found else []

    def of_batch(
        self, explainer: Explainer, inputs: Any, targets: Targets, attributions: Structure
    ) -> Mapping[str, Tensor]:
        """What is found of the attributions of a batch: "value", and whatever else is to be asked for by name."""
        return judged(explainer, inputs, targets, [attributions], self.measure)

    def of_texts(self, explainer: "TextExplainer", texts: Any, targets: Any, found: list[Any], name: str) -> Any:
        """What is called ``name`` of the explanations ``found`` of ``texts``, for each of them."""
        raise TypeError(
            f"{type(self).__name__} does not judge explanations of texts; choose another metric, or judge an "
            "explainer of the model at its embeddings"
        )

    @property
    def judges_texts(self) -> bool:
        """Whether it judges explanations of texts: by `of_texts`, or by an `evaluate` of its own."""
        kind = type(self)
        return kind.of_texts is not Metric.of_texts or kind.evaluate is not Metric.evaluate

    @abstractmethod
    def measure(self, trial: Trial) -> dict[str, Tensor]:
        """What is found for some samples: "value", (targets, batch), and perhaps more, (targets, batch, ...)."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The name and the parameters, as plain values for reports and files."""
        return {"name": type(self).__name__, **{one.name: as_plain(getattr(self, one.name)) for one in fields(self)}}


def all_metrics() -> dict[str, type[Metric]]:
    """The metrics by name: every concrete subclass of `Metric`, your own included, see `pnpx.registry.concrete`.

    >>> "MoRF" in all_metrics()
    True
    """
    return concrete(Metric)  # type: ignore[type-abstract]
