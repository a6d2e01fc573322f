"""For those who write metrics: the properties that each must have, whatever it judges.

>>> from pnpx.metrics import Sparseness
>>> check_metric(Sparseness, models=["linear"])

In a test suite each property is a test of its own::

    @pytest.mark.parametrize("examination", metric_examinations(MyMetric), ids=str)
    def test_my_metric(examination):
        examination.run()
"""

from collections.abc import Sequence

from pnpx.metrics.base import Metric
from pnpx.metrics.faithfulness import Faithfulness
from pnpx.testing import judgement
from pnpx.testing.examination import Examination, Property, run_all
from pnpx.testing.models import available, case

EVERY_PLACE: tuple[Property, ...] = (
    judgement.gives_a_number_a_sample,
    judgement.same_in_chunks_of_any_size,
    judgement.same_alone_as_in_a_batch,
    judgement.given_attributions_equal_computed_ones,
    judgement.finite_on_constant_maps,
    judgement.leaves_everything_as_found,
    judgement.repeatable_without_global_randomness,
)
"""Properties examined at places of every model."""

ONE_MODEL: tuple[Property, ...] = (
    judgement.true_maps_beat_others,
    judgement.wrong_attributions_are_errors,
    judgement.parameters_are_fixed_and_plain,
)
"""Properties examined at the inputs of a linear model; the first only of metrics of faithfulness."""


def metric_examinations(
    kind: type[Metric], models: Sequence[str] | None = None, thorough: bool = True
) -> list[Examination]:
    """All that is to be examined about ``kind``, for parametrising a test.

    Args:
        kind: of metric.
        models: names of cases; None: all that are `available`.
        thorough: examine every place of a model. Otherwise one place, not the same for each property and each model.
    """
    names = available() if models is None else models
    found: list[Examination] = []
    turn = sum(map(ord, kind.__name__))
    for name in names:
        layers = case(name).layers
        if kind.__name__ == "Sensitivity":  # which adds noise to inputs
            layers = layers if case(name).layers[0] is None else ()
        for number, holds in enumerate(EVERY_PLACE if layers else ()):
            for layer in layers if thorough else [layers[(turn + number) % len(layers)]]:
                found.append(Examination(kind, holds, name, layer))
    if "linear" in names:
        some = ONE_MODEL if issubclass(kind, Faithfulness) else ONE_MODEL[1:]
        found += [Examination(kind, holds, "linear") for holds in some]
    return found


def check_metric(kind: type[Metric], models: Sequence[str] | None = None, thorough: bool = True) -> None:
    """Examine whether ``kind`` has every property that a metric must have; see `metric_examinations`.

    Raises:
        AssertionError: it has not; the message says which, on which model, and where.
    """
    run_all(metric_examinations(kind, models, thorough))
