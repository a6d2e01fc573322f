"""The properties are worth something only if they catch explainers that lack them: one defect each."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers import Explainer, GradientExplainer, Point
from pnpx.parameters import Range, tunable
from pnpx.statistics import Mean
from pnpx.testing import MODELS, Reference, case, check_explainer, examinations


@dataclass(frozen=True)
class Noisy(GradientExplainer):
    """Without a defect: a noisy mean of one's own."""

    level: float = tunable(0.1, Range(0.01, 1.0))
    statistic = Mean

    def draw(self, value):
        return torch.randn(value.sample_shape, generator=torch.Generator().manual_seed(3)).to(value.tensor)

    def points(self, bound, reference):
        for sign in (1, -2, 3):
            yield Point([value.tensor + sign * self.level * value.for_all(self.draw(value)) for value in bound.values])


def test_an_explainer_of_ones_own_passes():
    check_explainer(Noisy, models=["mlp", "conv", "lstm", "labelled"], thorough=False)


class GlobalRandomness(Noisy):
    def draw(self, value):
        return torch.randn(value.sample_shape).to(value.tensor)


class NoiseOfTheBatch(Noisy):
    def points(self, bound, reference):
        for number in range(2):
            generator = torch.Generator().manual_seed(number)
            yield Point([v.tensor + torch.randn(v.tensor.shape, generator=generator) for v in bound.values])


class ScaledByTheBatch(Noisy):
    def draw(self, value):
        return super().draw(value) * value.tensor.std()


class IgnoresAParameter(Noisy):
    def points(self, bound, reference):
        yield from (
            replace(self, level=0.1).points(bound, reference) if self.level != 0.1 else super().points(bound, reference)
        )


class _MeanOfChunks(Mean):
    def update(self, samples):
        super().update(samples.mean(0, keepdim=True))


class DependsOnChunks(Noisy):
    statistic = _MeanOfChunks


class _Doctored(Noisy):
    """Changes what comes out."""

    def attribute(self, inputs, targets=None):
        return self.doctor(super().attribute(inputs, targets), inputs, targets)


class SwitchesToEval(_Doctored):
    def doctor(self, found, inputs, targets):
        self.model.eval()
        return found


class LeavesAHook(_Doctored):
    def doctor(self, found, inputs, targets):
        self.model.register_forward_hook(lambda *_: None)
        return found

    def explain(self, inputs, targets=None):
        self.attribute(inputs, targets)
        return super().explain(inputs, targets)


class ChangesTheInputs(Noisy):
    def explain(self, inputs, targets=None):
        inputs.mul_(1.5)
        return super().explain(inputs, targets)


class RequiresGradients(_Doctored):
    def doctor(self, found, inputs, targets):
        return found.requires_grad_()


class DropsTheBatch(_Doctored):
    def doctor(self, found, inputs, targets):
        return found[0]


class NotANumber(_Doctored):
    def doctor(self, found, inputs, targets):
        return found / 0.0


class Halves(_Doctored):
    def doctor(self, found, inputs, targets):
        return found.half().double() if self.batch_size == 1 else found


class ForgetsTheTargetAxis(_Doctored):
    def doctor(self, found, inputs, targets):
        return found[:, 0] if isinstance(targets, torch.Tensor) and targets.ndim == 2 else found


class IgnoresTheTargets(Noisy):
    def attribute(self, inputs, targets=None):
        several = isinstance(targets, torch.Tensor) and targets.ndim == 2
        return super().attribute(inputs, targets * 0 if several else 0)


class EvalInTheConstructor(Noisy):
    def __post_init__(self):
        super().__post_init__()
        self.model.eval()


class ProbesInTheConstructor(Noisy):
    def __post_init__(self):
        super().__post_init__()
        self.model(torch.zeros(1, 5, dtype=torch.float64))


class LooksForTheLayerEarly(Noisy):
    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.layer, str):
            pnpx.resolve(self.model, self.layer)


class SwallowsErrors(Noisy):
    def attribute(self, inputs, targets=None):
        try:
            return super().attribute(inputs, targets)
        except Exception:
            return torch.zeros_like(inputs)


class GradientsOnlyWhereAllowed(Noisy):
    def attribute(self, inputs, targets=None):
        found = super().attribute(inputs, targets)
        return found if torch.is_grad_enabled() else found * 0


class ForgetsReplay(_Doctored):
    def doctor(self, found, inputs, targets):
        return found * 1.01 if self.layer is not None and self.replay else found


class NoTuples(_Doctored):
    def doctor(self, found, inputs, targets):
        return found[0] if isinstance(found, tuple) and len(found) == 1 else found


class InputsOnly(Noisy):
    def attribute(self, inputs, targets=None):
        return super().attribute(inputs, targets) * (2 if self.layer is None else 1)


class TrainModeMatters(_Doctored):
    def attribute(self, inputs, targets=None):
        return super().attribute(inputs, targets) * (2 if self.model.training else 1)

    def doctor(self, found, inputs, targets):
        return found


DEFECTS = [
    (GlobalRandomness, "repeatable_without_global_randomness"),
    (NoiseOfTheBatch, "same_alone_as_in_a_batch"),
    (ScaledByTheBatch, "same_alone_as_in_a_batch"),
    (IgnoresAParameter, "retuning_changes_the_result"),
    (DependsOnChunks, "same_in_chunks_of_any_size"),
    (Halves, "same_in_chunks_of_any_size"),
    (SwitchesToEval, "train_mode_makes_no_difference"),
    (LeavesAHook, "leaves_model_and_inputs_as_found"),
    (ChangesTheInputs, "leaves_model_and_inputs_as_found"),
    (RequiresGradients, "mirrors_what_is_explained"),
    (DropsTheBatch, "mirrors_what_is_explained"),
    (NotANumber, "mirrors_what_is_explained"),
    (ForgetsTheTargetAxis, "several_targets_equal_one_at_a_time"),
    (IgnoresTheTargets, "targets_of_any_form_are_one"),
    (EvalInTheConstructor, "constructing_only_stores"),
    (ProbesInTheConstructor, "constructing_only_stores"),
    (LooksForTheLayerEarly, "constructing_only_stores"),
    (SwallowsErrors, "leaves_model_as_found_when_it_fails"),
    (SwallowsErrors, "wrong_values_are_errors"),
    (GradientsOnlyWhereAllowed, "works_in_any_gradient_mode"),
    (ForgetsReplay, "same_without_replay"),
    (NoTuples, "a_sequence_of_layers_gives_a_tuple"),
    (InputsOnly, "first_layers_input_is_the_models_input"),
    (TrainModeMatters, "train_mode_makes_no_difference"),
]


@pytest.mark.parametrize("kind, name", DEFECTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_defect_is_caught(kind, name):
    examined = [one for one in examinations(kind, models=["mlp"]) if one.holds.__name__ == name]
    assert examined
    failed = 0
    for one in examined:
        try:
            one.run()
        except (AssertionError, LookupError):
            failed += 1
    assert failed


def test_a_parameter_that_can_be_set_is_caught():
    class Thawed(Noisy):
        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)

    (one,) = [one for one in examinations(Thawed, models=["mlp"]) if one.holds.__name__ == "is_frozen"]
    with pytest.raises(AssertionError, match="model must not be settable; use @dataclass"):
        one.run()


def test_the_message_says_what_where_and_how_far():
    with pytest.raises(
        AssertionError,
        match=r"DropsTheBatch-mirrors_what_is_explained-linear-inputs: the attributions must have the sha",
    ):
        check_explainer(DropsTheBatch, models=["linear"])


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(LookupError, match="no model 'lsmt' to examine explainers on; the nearest: 'lstm'"):
        case("lsmt")


@pytest.mark.parametrize("name", list(MODELS))
def test_a_case_is_the_same_every_time_and_leaves_randomness_alone(name):
    if name in ("bert_sdpa", "bert_eager", "vit"):
        pytest.importorskip("transformers", reason="tiny BERT and ViT need transformers")
    state = torch.get_rng_state()
    one, other = case(name), case(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.output(), other.output()) and one.output().dtype == torch.float64
    assert len(one.output()) == one.size == 3
    assert not any(module.training for module in one.model.modules())
    # No other axis at any place has the size of the batch, so that it is plain which one it is.
    for layer in one.layers:
        for tensor in Reference(one, layer).tensors:
            assert list(tensor.shape).count(3) == 1


def test_samples_of_a_case_are_those_of_its_model():
    for name in ("conv", "two_inputs", "mapping", "packed", "packing", "rnn_tokens"):
        given = case(name)
        torch.testing.assert_close(given.samples([2, 0]).output(), given.output()[[2, 0]])


def test_an_abstract_explainer_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Explainer(nn.Linear(1, 1))


def test_the_reference_runs_without_fused_encoder_layers_and_leaves_the_switch_as_it_was():
    """Before PyTorch 2.5 they run without their modules even where these have hooks."""
    given, enabled = case("transformer_encoder"), []
    given.model.register_forward_pre_hook(lambda *_: enabled.append(torch.backends.mha.get_fastpath_enabled()))
    assert Reference(given, "encoder.layers.1.self_attn").tensors
    assert enabled == [False] and torch.backends.mha.get_fastpath_enabled()
