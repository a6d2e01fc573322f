"""What metrics of faithfulness share: groups of features are taken away, and the score is followed."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from pnpx.baselines import Baseline, require_finite
from pnpx.explainers.base import Explainer
from pnpx.explainers.games import Game
from pnpx.masks import Groups, check_groups
from pnpx.metrics.base import Metric
from pnpx.metrics.judge import judged
from pnpx.metrics.texts import each_text, played
from pnpx.metrics.trial import Trial
from pnpx.scores import INFERENCE_MODES, InferenceMode, Targets
from pnpx.structure import Structure
from pnpx.suggest import nearest

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


@dataclass(frozen=True)
class Faithfulness(Metric):
    """Takes groups of features away at the place that is explained, and compares the score with the attributions.

    What a group counts for is the sum of the attributions of all its elements, in all tensors, with their signs. Where
    an explainer pooled channels, each of them has an equal part of what was found; where it gives each element of a
    group of its own what the whole group is worth, so has each element.

    Explainers are compared by the same groups and the same baseline, whatever one of them has of its own. The groups of
    a text are its units, whatever the layer that was explained.

    Args:
        groups: which features are taken away together, see `pnpx.masks.Groups`; None: elements of vectors, steps of
            sequences, patches of images.
        baseline: what takes their place, as an input; see `pnpx.explainers.perturbation.PerturbationExplainer`.
        replacement: the same, as a value at the layer itself; then ``baseline`` is not used. For texts, where a metric
            judges them: a token, "zero" or "delete"; None: the mask, pad or unknown token, as of a
            `pnpx.text.explainer.TextExplainer` that is not told.
        inference_mode: the scores: "logits", "softmax" or "log_softmax" of the output; None: see the metric.
    """

    _: KW_ONLY
    groups: Groups = None
    baseline: Baseline = 0.0
    replacement: Any = None
    inference_mode: InferenceMode | None = None

    probable: ClassVar[bool] = True
    """Whether scores are probabilities if nothing is said, where classes are told apart; else the explainer's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.groups)
        require_finite("baseline", self.baseline)
        if not isinstance(self.replacement, str):
            require_finite("replacement", self.replacement, infinite=True)
        if self.inference_mode is not None and self.inference_mode not in INFERENCE_MODES:
            raise ValueError(
                f"inference_mode must be None or one of {INFERENCE_MODES}, but is {self.inference_mode!r}; "
                f"{nearest(str(self.inference_mode), INFERENCE_MODES)}"
            )

    @abstractmethod
    def along(self, trial: Trial, game: Game, relevance: Tensor) -> dict[str, Tensor]:
        """What is found, as of `measure`, from what groups count for, (targets, batch, groups)."""

    def measure(self, trial: Trial) -> dict[str, Tensor]:
        return self.along(trial, *trial.groups())

    def of_texts(self, explainer: "TextExplainer", texts: Any, targets: Any, found: list[Any], name: str) -> Any:
        """By taking units away from the text, whatever the layer that was explained."""
        values = []
        for text, target, one in each_text(texts, targets, found):
            softmax = self.probable and one.probabilities is not None  # there are several outputs to choose from
            mode = self.inference_mode or ("softmax" if softmax else None)
            own = type(self).__name__
            values.append(played(explainer, text, target, one, self.along, self.replacement, mode, own)[name])
        return values

    def of_batch(
        self, explainer: Explainer, inputs: Any, targets: Targets, attributions: Structure
    ) -> Mapping[str, Tensor]:
        own: dict[str, Any] = {"groups": self.groups, "baseline": self.baseline, "replacement": self.replacement}
        if self.inference_mode is not None:
            own["inference_mode"] = self.inference_mode
        else:
            own["probable"] = self.probable and explainer.score == "classification"
        return judged(explainer, inputs, targets, [attributions], self.measure, **own, name=type(self).__name__)
