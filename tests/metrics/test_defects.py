"""The properties are worth something only if they catch metrics that lack them: one defect each."""

from dataclasses import dataclass

import pytest
import torch

import pnpx
from pnpx.metrics import AbPC, Complexity, MoRF, MuFidelity, Sensitivity, Sparseness
from pnpx.metrics.flipping import Way
from pnpx.testing.metrics import check_metric, metric_examinations

MODELS = ["linear", "mlp", "conv"]


def doctored(base, doctor):
    """A metric like ``base``, of which what it measures is doctored."""

    class Doctored(base):
        def measure(self, trial):
            found = super().measure(trial)
            return {**found, "value": doctor(found["value"], trial)}

    return Doctored


class Reversed(MoRF):
    ways = (Way(most_first=False),)


class Flipped(AbPC):
    ways = (Way(most_first=True), Way(most_first=False, sign=-1))


class NamedTheWrongWayRound(MuFidelity):
    higher_is_better = False


class GlobalRandomness(MuFidelity):
    def _subsets(self, groups):
        return torch.rand(self.n_iter, groups) < 0.5


class OneGeneratorForAll(Sensitivity):
    def _noisy(self, call, seeds):
        if not hasattr(OneGeneratorForAll, "generator"):
            OneGeneratorForAll.generator = torch.Generator().manual_seed(0)
        return super()._noisy(call, torch.randint(9, (len(seeds),), generator=OneGeneratorForAll.generator).tolist())


class Normalised(Sensitivity):
    """Compares a normalised map with raw ones, as PnPXAI does."""

    def of_batch(self, explainer, inputs, targets, attributions):
        return super().of_batch(explainer, inputs, targets, attributions / attributions.abs().max())


class LogOfZero(Complexity):
    def of_row(self, shares):
        return -(shares * shares.log()).sum()


class NoShareOfNothing(Sparseness):
    def _of(self, row):
        return self.of_row(row.abs() / row.abs().sum())


class EvalForGood(Sparseness):
    def of_batch(self, explainer, inputs, targets, attributions):
        explainer.model.eval()
        return super().of_batch(explainer, inputs, targets, attributions)


class ChangesMaps(Sparseness):
    def of_batch(self, explainer, inputs, targets, attributions):
        attributions.abs_()
        return super().of_batch(explainer, inputs, targets, attributions)


class IgnoresTheTarget(MoRF):
    def of_batch(self, explainer, inputs, targets, attributions):
        several = isinstance(targets, torch.Tensor) and targets.ndim == 2
        return super().of_batch(explainer, inputs, targets * 0 if several else targets, attributions)


@dataclass(frozen=True)
class WithALevel(Sparseness):
    level: float = 0.5


class Thawed(WithALevel):
    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


def last_lost(value, trial):
    return value[:, :-1]


DEFECTS = [
    (Reversed, "true_maps_beat_others"),
    (Flipped, "true_maps_beat_others"),
    (NamedTheWrongWayRound, "true_maps_beat_others"),
    (doctored(MuFidelity, lambda value, _: -value), "true_maps_beat_others"),
    (GlobalRandomness, "repeatable_without_global_randomness"),
    (OneGeneratorForAll, "repeatable_without_global_randomness"),
    (doctored(AbPC, last_lost), "gives_a_number_a_sample"),
    (doctored(AbPC, lambda value, _: value[:1]), "gives_a_number_a_sample"),
    (doctored(Sparseness, lambda value, _: value / 0), "gives_a_number_a_sample"),
    (IgnoresTheTarget, "gives_a_number_a_sample"),
    (doctored(AbPC, lambda value, _: value / value.shape[1]), "same_alone_as_in_a_batch"),
    (doctored(AbPC, lambda value, _: value / value.shape[1]), "same_in_chunks_of_any_size"),
    (Normalised, "same_alone_as_in_a_batch"),
    (LogOfZero, "finite_on_constant_maps"),
    (NoShareOfNothing, "finite_on_constant_maps"),
    (EvalForGood, "leaves_everything_as_found"),
    (ChangesMaps, "leaves_everything_as_found"),
    (Thawed, "parameters_are_fixed_and_plain"),
]


@pytest.mark.parametrize("kind, name", DEFECTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_defect_is_caught(kind, name):
    examined = [one for one in metric_examinations(kind, models=MODELS) if one.holds.__name__ == name]
    assert examined
    failed = 0
    for one in examined:
        try:
            one.run()
        except (AssertionError, ValueError, RuntimeError, IndexError):
            failed += 1
    assert failed


@pytest.mark.parametrize("kind", [MoRF, MuFidelity, Sparseness])
def test_without_a_defect_nothing_is_caught(kind):
    class Mine(kind):
        pass

    check_metric(Mine, models=["mlp", "lstm"], thorough=False)


def test_the_message_says_what_where_and_how_far():
    class Lost(doctored(AbPC, last_lost)):
        pass

    with pytest.raises(AssertionError, match=r"^Lost-gives_a_number_a_sample-linear-inputs: there must be a number a "):
        check_metric(Lost, models=["linear"])


# What properties cannot tell is told by sums by hand: each of these passes all of them, or nearly.


def test_a_step_left_out_is_seen(monkeypatch):
    from tests.metrics.test_flipping import test_a_linear_model_by_hand

    turns = pnpx.metrics.flipping._turns
    monkeypatch.setattr(pnpx.metrics.flipping, "_turns", lambda late, counts: turns(late, counts).clamp(min=1))
    with pytest.raises(AssertionError):
        test_a_linear_model_by_hand()


def test_a_step_of_even_width_where_it_is_not_is_seen(monkeypatch):
    from tests.metrics.test_flipping import test_uneven_steps_count_for_what_they_are

    def even(self, trial, game, relevance, along=MoRF.along):
        found = along(self, trial, game, relevance)
        curve = found["curve"]
        return {**found, "value": torch.trapezoid(curve) / (curve.shape[2] - 1)}

    monkeypatch.setattr(MoRF, "along", even)
    with pytest.raises(AssertionError):
        test_uneven_steps_count_for_what_they_are()


def test_noise_that_is_used_twice_is_seen(monkeypatch):
    from tests.metrics.test_sensitivity import test_a_quadratic_by_hand

    noisy = Sensitivity._noisy
    monkeypatch.setattr(Sensitivity, "_noisy", lambda self, call, seeds: noisy(self, call, [0] * len(seeds)))
    with pytest.raises(AssertionError):
        test_a_quadratic_by_hand()


def test_a_normalised_map_among_raw_ones_is_seen(monkeypatch):
    from tests.metrics.test_sensitivity import test_exactly_zero_without_noise

    plain = Sensitivity.of_batch

    def normalised(self, explainer, inputs, targets, attributions):
        return plain(self, explainer, inputs, targets, attributions / attributions.abs().max())

    monkeypatch.setattr(Sensitivity, "of_batch", normalised)
    with pytest.raises(AssertionError):
        test_exactly_zero_without_noise(pnpx.Gradient)
