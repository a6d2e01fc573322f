"""Which properties are examined on which models, and at which places of them."""

from collections.abc import Mapping, Sequence

from torch import nn

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.testing import conduct, numbers, parameters
from pnpx.testing.case import Case
from pnpx.testing.examination import Examination, Property, run_all
from pnpx.testing.models import available, case

EVERY_PLACE: tuple[Property, ...] = (
    numbers.mirrors_what_is_explained,
    numbers.same_alone_as_in_a_batch,
    numbers.same_in_chunks_of_any_size,
    numbers.same_without_replay,
    numbers.several_targets_equal_one_at_a_time,
    numbers.in_place_operations_change_nothing,
    conduct.leaves_model_and_inputs_as_found,
)
"""Properties examined at every place of every model."""

EVERY_MODEL: tuple[Property, ...] = (
    numbers.first_layers_input_is_the_models_input,
    numbers.a_module_and_its_path_are_one_layer,
    numbers.a_sequence_of_layers_gives_a_tuple,
    numbers.layers_in_a_chain_equal_each_alone,
    conduct.leaves_model_as_found_when_it_fails,
    conduct.works_in_any_gradient_mode,
    conduct.train_mode_makes_no_difference,
    conduct.repeatable_without_global_randomness,
    conduct.explains_what_it_attributes,
)
"""Properties examined at one place of every model that they apply to."""

ONE_MODEL: Mapping[Property, tuple[str, Layer]] = {
    conduct.works_in_several_threads: ("conv", "block"),
    conduct.lets_go_of_what_it_used: ("conv", "block"),
    parameters.constructing_only_stores: ("mlp", None),
    parameters.is_frozen: ("mlp", None),
    parameters.retuning_changes_the_result: ("mlp", None),
    parameters.misspelt_parameters_are_errors: ("mlp", None),
    parameters.wrong_values_are_errors: ("mlp", None),
    parameters.parameters_are_plain: ("mlp", "2"),
    parameters.precision_is_that_of_the_model_or_float32: ("labelled", None),
    parameters.targets_of_any_form_are_one: ("mlp", "2"),
    parameters.arrays_and_loaders_are_taken: ("mlp", None),
    parameters.reducers_pool_the_channels: ("conv", "block"),
}
"""Properties examined on one model, at one place."""


def applies(holds: Property, made: Case, layer: Layer) -> bool:
    """Whether there is something to examine: replay needs a layer, dropout or batch norm a model with them, ..."""
    modules = list(made.model.modules())
    if holds is numbers.same_without_replay:
        return layer is not None
    if holds is numbers.first_layers_input_is_the_models_input:
        return made.first is not None and layer is None
    if holds is numbers.layers_in_a_chain_equal_each_alone:
        return bool(made.chain)
    if holds is numbers.a_module_and_its_path_are_one_layer:
        return isinstance(layer, str) and layer in dict(made.model.named_modules())
    if holds is numbers.a_sequence_of_layers_gives_a_tuple:
        return isinstance(layer, str)
    if holds is numbers.in_place_operations_change_nothing:
        return any(getattr(module, "inplace", False) for module in modules)
    if holds is conduct.train_mode_makes_no_difference:
        random = (nn.Dropout, nn.BatchNorm2d, nn.MultiheadAttention)
        return any(isinstance(module, random) or getattr(module, "dropout", 0) for module in modules)
    return True


def examinations(
    kind: type[Explainer], models: Sequence[str] | None = None, thorough: bool = True
) -> list[Examination]:
    """All that is to be examined about ``kind``, for parametrising a test.

    Args:
        kind: of explainer.
        models: names of cases; None: all that are `available`.
        thorough: examine every place of a model for each property that concerns places. Otherwise one place, not the
            same for each property and each model.

    >>> from pnpx import Gradient
    >>> str(examinations(Gradient, models=["linear"])[0])
    'Gradient-mirrors_what_is_explained-linear-inputs'
    """
    names = available() if models is None else models
    found: list[Examination] = []
    turn = sum(map(ord, kind.__name__))
    for name in names:
        made = case(name)
        for number, holds in enumerate((*EVERY_PLACE, *EVERY_MODEL)):
            fitting = [layer for layer in made.layers if applies(holds, made, layer)]
            if fitting and (not thorough or holds in EVERY_MODEL):
                fitting = [fitting[(turn + number) % len(fitting)]]
            for layer in fitting:
                found.append(Examination(kind, holds, name, layer))
    for holds, (name, layer) in ONE_MODEL.items():
        if name in names:
            found.append(Examination(kind, holds, name, layer))
    return found


def check_explainer(kind: type[Explainer], models: Sequence[str] | None = None, thorough: bool = True) -> None:
    """Examine whether ``kind`` has every property that an explainer must have; see `examinations`.

    Raises:
        AssertionError: it has not; the message says which, on which model, and where.

    >>> from pnpx import Gradient
    >>> check_explainer(Gradient, models=["linear"])
    """
    run_all(examinations(kind, models, thorough))
