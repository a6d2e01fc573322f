"""What metrics take away, and what they put in its place, where they do not say it themselves: as suits the data."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.metrics import Metric
from pnpx.metrics.faithfulness import Faithfulness
from pnpx.recommender import Recommendation

_NAMES = ("groups", "baseline")


def removal_of(recommendations: Sequence[Recommendation]) -> dict[str, Any]:
    """The groups and the baseline of the explainers that were recommended for taking something away, at the inputs.

    The same for all of them: they follow from the modality, and from the token that pads.
    """
    for one in recommendations:
        if isinstance(one.explainer, PerturbationExplainer) and one.layer is None:
            return {name: one.parameters[name] for name in _NAMES if name in one.parameters}
    return {}


def suited(metric: Metric, removal: Mapping[str, Any], at_inputs: bool) -> Metric:
    """``metric`` with the groups and the baseline of ``removal``, where it has its defaults.

    What belongs together is said of the inputs: at a layer groups stay as they are.

    >>> from pnpx.metrics import AbPC
    >>> [suited(one, {"groups": 3}, at_inputs=True).groups for one in (AbPC(), AbPC(groups=2))]
    [3, 2]
    >>> print(suited(AbPC(), {"groups": 3, "baseline": 1}, at_inputs=False))
    AbPC(groups=None, baseline=1, replacement=None, inference_mode=None, n_steps=10)
    """
    if not isinstance(metric, Faithfulness) or metric.replacement is not None:
        return metric
    defaults = {one.name: one.default for one in fields(metric)}
    own = {
        name: value
        for name, value in removal.items()
        if (at_inputs or name != "groups") and getattr(metric, name) is defaults[name]
    }
    return replace(metric, **own)
