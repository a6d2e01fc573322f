"""Tuning finds better parameters, in the metric's direction, and changes nothing that it was given."""

import logging
import random
import subprocess
import sys
import warnings
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import pnpx
from pnpx.optimizer import Optimized, Trial, optimize
from pnpx.parameters import Range, search_space
from pnpx.study import space_of
from tests.errors import raises

optuna = pytest.importorskip("optuna")


@dataclass
class Score:
    """Of each sample: what ``of`` says of the explainer, plus its first number."""

    of: object
    higher_is_better: bool = False

    def __post_init__(self):
        self.seen = []

    def evaluate(self, explainer, inputs, targets=None, attributions=None):
        self.seen.append((explainer, inputs, targets))
        return self.of(explainer) + inputs.flatten(1)[:, 0]


MODEL = torch.nn.Linear(3, 2)
INPUTS = torch.tensor([[0.0, 1, 2], [1, 5, 3], [5, 0, 1]])
SMOOTH = pnpx.SmoothGrad(MODEL, n_iter=20, noise_level=0.1)


def parabola(explainer):
    return (explainer.n_iter - 70) ** 2 / 100 + (np.log10(explainer.noise_level) + 1.5) ** 2


def parameters(found):
    return [trial.parameters for trial in found.trials]


def test_the_first_trial_is_the_explainer_as_given_and_the_best_is_the_best_of_all():
    metric = Score(parabola)
    found = optimize(SMOOTH, metric, INPUTS, n_trials=30)
    assert metric.seen[0][0] is SMOOTH
    assert found.trials[0].parameters == {"noise_level": 0.1, "n_iter": 20}
    assert found.baseline == found.trials[0].value == pytest.approx(2 + parabola(SMOOTH))
    assert found.value == min(trial.value for trial in found.trials) < found.baseline - 20
    assert found.value == pytest.approx(2 + parabola(found.best))
    assert found.best.n_iter == pytest.approx(70, abs=15)
    assert all(trial.error is None and trial.seconds >= 0 for trial in found.trials) and len(found.trials) == 30
    assert (SMOOTH.n_iter, SMOOTH.noise_level) == (20, 0.1)
    assert type(found.best) is pnpx.SmoothGrad and found.best.model is MODEL


def test_the_direction_is_the_metrics():
    metric = Score(lambda explainer: -parabola(explainer), higher_is_better=True)
    found = optimize(SMOOTH, metric, INPUTS, n_trials=30)
    assert found.value == max(trial.value for trial in found.trials) > found.baseline + 20
    assert found.higher_is_better
    # Either way the search is guided: mirrored, it is the same.
    assert parameters(found) == parameters(optimize(SMOOTH, Score(parabola), INPUTS, n_trials=30))


@pytest.mark.parametrize("higher", [False, True])
def test_a_given_explainer_that_is_best_is_kept_also_outside_the_ranges(higher):
    outside = replace(SMOOTH, n_iter=3)
    metric = Score(lambda explainer: (1 if higher else -1) * float(explainer.n_iter == 3), higher_is_better=higher)
    found = optimize(outside, metric, INPUTS, n_trials=5)
    assert found.best is outside and found.value == found.baseline


def test_of_equals_the_first_is_the_best():
    assert optimize(SMOOTH, Score(lambda explainer: 0.0), INPUTS, n_trials=4).best is SMOOTH


def test_the_search_learns_from_its_trials():
    values = [trial.value - 2 for trial in optimize(SMOOTH, Score(parabola), INPUTS, n_trials=80).trials]
    assert np.median(values[40:]) < np.median(values[1:11]) / 3


def test_the_value_is_the_mean_over_the_samples_and_not_their_sum():
    values = [optimize(SMOOTH, Score(parabola), INPUTS.repeat(n, 1), n_trials=3).value for n in (1, 2, 5)]
    assert values == pytest.approx([values[0]] * 3)


def test_several_targets_a_sample_count_by_their_mean():
    metric = Score(lambda explainer: 0.0)
    metric.evaluate = lambda explainer, inputs, targets=None: torch.tensor([[1.0, 3.0], [5.0, 7.0], [2.0, 0.0]])
    assert optimize(SMOOTH, metric, INPUTS, n_trials=1).value == 3


def test_targets_reach_the_metric():
    metric, targets = Score(parabola), torch.tensor([0, 1, 1])
    optimize(SMOOTH, metric, INPUTS, targets, n_trials=2)
    assert all(seen is targets for *_, seen in metric.seen) and len(metric.seen) == 2


@pytest.mark.parametrize("batches", [
    lambda: iter([INPUTS[:1], INPUTS[1:]]),
    lambda: DataLoader(INPUTS, batch_size=2),
], ids=["iterator", "loader"])
def test_every_sample_of_all_batches_weighs_the_same_in_every_trial(batches):
    found = optimize(SMOOTH, Score(parabola), batches(), n_trials=4)
    assert [trial.value for trial in found.trials] == pytest.approx(
        [trial.value for trial in optimize(SMOOTH, Score(parabola), INPUTS, n_trials=4).trials])
    optimize(SMOOTH, metric := Score(parabola), batches(), 1, n_trials=1)
    assert [targets for *_, targets in metric.seen] == [1, 1]


def test_a_list_is_a_batch():
    metric = Score(parabola)
    metric.evaluate = lambda explainer, inputs, targets=None: torch.ones(3) * (inputs is both)
    both = [INPUTS, INPUTS]
    assert optimize(SMOOTH, metric, both, n_trials=1).value == 1


@pytest.mark.parametrize("own", [False, True])
def test_a_shuffling_loader_gives_every_trial_the_same_batches_and_keeps_its_state(own):
    generator = torch.Generator().manual_seed(7) if own else None
    loader = DataLoader(torch.arange(64.0)[:, None], batch_size=8, shuffle=True, drop_last=True, generator=generator)
    before = generator.get_state() if own else None
    metric = Score(parabola)
    optimize(SMOOTH, metric, loader, n_trials=3)
    order = [torch.cat([inputs for _, inputs, _ in metric.seen[start : start + 8]]) for start in (0, 8, 16)]
    assert not torch.equal(order[0], torch.arange(64.0)[:, None])
    assert torch.equal(order[0], order[1]) and torch.equal(order[0], order[2])
    assert not own or torch.equal(generator.get_state(), before)


def draws(explainer):
    return torch.rand(()).item() + np.random.rand() + random.random() + parabola(explainer)


def test_the_same_seed_gives_the_same_whatever_the_global_state():
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        random.seed(global_seed)
        found.append(optimize(SMOOTH, Score(draws), INPUTS, n_trials=25, seed=3))
    one, other = found
    assert parameters(one) == parameters(other)
    assert [trial.value for trial in one.trials] == [trial.value for trial in other.trials]
    assert parameters(one) != parameters(optimize(SMOOTH, Score(draws), INPUTS, n_trials=25, seed=4))
    assert optimize(SMOOTH, Score(draws), INPUTS, n_trials=2, seed=2**62 - 1).trials[0].value


@pytest.mark.parametrize("fails", [False, True])
def test_global_generators_are_left_as_they_were(fails):
    def interrupted(explainer):
        draws(explainer)
        raise KeyboardInterrupt

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    try:
        optimize(SMOOTH, Score(interrupted if fails else draws), INPUTS, n_trials=15)
    except KeyboardInterrupt:
        assert fails
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on():
    def score(explainer):
        if explainer.n_iter > 50:
            raise RuntimeError(f"too many: {explainer.n_iter}")
        return {0: 1.0, 1: float("nan"), 2: float("-inf")}[explainer.n_iter % 3]

    found = optimize(SMOOTH, Score(score), INPUTS, n_trials=25, search={"noise_level": None})
    errors = [trial.error for trial in found.trials if trial.value is None]
    for trial in found.trials:
        n_iter = trial.parameters["n_iter"]
        if n_iter > 50:
            assert trial.error == f"RuntimeError: too many: {n_iter}"
        elif n_iter % 3:
            assert trial.error == "ValueError: the metric must be finite, but is not for 3 of 3 samples"
        else:
            assert trial.error is None and trial.value == 3
    assert any("too many" in error for error in errors) and any("finite" in error for error in errors)
    assert len(found.trials) == 25 and found.best.n_iter % 3 == 0 and found.value == 3
    assert found.baseline is None  # 20 % 3 == 2


def test_parameters_that_the_explainer_refuses_are_a_failed_trial():
    found = optimize(pnpx.VarGrad(MODEL), Score(parabola), INPUTS, search={"n_iter": [1, 30], "noise_level": None})
    assert [trial.error for trial in found.trials if trial.error] == [
        "ValueError: `n_iter >= 2` must hold, but got n_iter=1"]
    assert found.best.n_iter == 30 and len(found.trials) == 3


def test_if_every_trial_fails_that_is_an_error_with_its_cause():
    def fail(explainer):
        raise LookupError(f"no {explainer.n_iter}")

    with raises(RuntimeError, "all 3 trials failed, the first with LookupError: no 20") as raised:
        optimize(SMOOTH, Score(fail), INPUTS, n_trials=3)
    assert isinstance(raised.value.__cause__, LookupError)


def test_interrupting_is_no_failed_trial():
    def stop(explainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(SMOOTH, Score(stop), INPUTS, n_trials=3)


def test_no_parameters_are_tried_twice_and_the_search_ends_when_it_has_no_more():
    metric = Score(parabola)
    search = {"n_iter": Range(19, 23), "noise_level": [0.1, 0.2, 0.2, 0.1]}
    found = optimize(SMOOTH, metric, INPUTS, n_trials=100, search=search)
    tried = [(one["n_iter"], one["noise_level"]) for one in parameters(found)]
    assert sorted(tried) == [(n_iter, level) for n_iter in range(19, 24) for level in (0.1, 0.2)]
    assert len(metric.seen) == len(found.trials) == 10


def test_a_search_that_would_only_repeat_itself_looks_elsewhere():
    search = {"n_iter": Range(20, 79), "noise_level": None}
    found = optimize(SMOOTH, Score(parabola), INPUTS, n_trials=60, search=search)
    assert sorted(one["n_iter"] for one in parameters(found)) == list(range(20, 80))


def test_a_given_value_outside_the_search_is_tried_beside_it():
    found = optimize(SMOOTH, Score(parabola), INPUTS, search={"n_iter": [30, 40], "noise_level": None})
    assert sorted(one["n_iter"] for one in parameters(found)) == [20, 30, 40]
    assert optimize(SMOOTH, Score(parabola), INPUTS, n_trials=3, search={"noise_std": Range(0.1, 1)}).trials[
        0].parameters["noise_std"] is None


def test_whole_numbers_stay_whole_and_others_do_not():
    search = {"n_iter": Range(10.5, 12.5), "noise_level": Range(0, 1), "noise_std": Range(1, 2), "seed": Range(1, 9)}
    found = optimize(SMOOTH, Score(parabola), INPUTS, n_trials=12, search=search)
    for one in parameters(found)[1:]:
        assert type(one["n_iter"]) is int and one["n_iter"] in (11, 12)
        assert type(one["seed"]) is int and 1 <= one["seed"] <= 9
        assert type(one["noise_level"]) is float and 0 < one["noise_level"] < 1
        assert type(one["noise_std"]) is float and 1 < one["noise_std"] < 2
    declared = optimize(pnpx.Lime(MODEL), Score(lambda lime: float(lime.n_iter)), INPUTS, n_trials=12)
    assert all(type(one["n_iter"]) is int and type(one["kernel_width"]) is float for one in parameters(declared))
    assert all(100 <= one["n_iter"] <= 5000 for one in parameters(declared)[1:])


@pytest.mark.parametrize("log", [False, True])
def test_a_range_on_a_log_scale_is_searched_on_one(log):
    search = {"noise_level": Range(1e-6, 1.0, log=log), "n_iter": None}
    found = optimize(SMOOTH, Score(lambda explainer: 0.0), INPUTS, n_trials=25, search=search)
    middle = np.median([one["noise_level"] for one in parameters(found)[1:]])
    assert middle < 0.05 if log else middle > 0.2


def test_choices_may_be_anything():
    def function(output, targets):
        return output[:, 0]

    one, other = torch.zeros(3), torch.ones(3)
    search = {"score": ["regression", function], "baseline": [one, other, one], "n_steps": [3]}
    metric = Score(lambda explainer: float(explainer.score is not function) + float(explainer.baseline is not other))
    explainer = pnpx.IntegratedGradients(MODEL, n_steps=3, baseline=one, score="regression")
    found = optimize(explainer, metric, INPUTS, search=search)
    assert found.best.score is function and found.best.baseline is other and len(found.trials) == 4


def test_a_class_without_ranges_needs_a_search():
    explainer = pnpx.Occlusion(MODEL)
    with raises(ValueError, "there is nothing to search for Occlusion; give search the parameters, such as "
                            "search={'layer': [one, another]}"):
        optimize(explainer, Score(parabola), INPUTS)
    found = optimize(explainer, Score(lambda one: float(one.window or 9)), INPUTS, search={"window": Range(1, 3)})
    assert found.best.window == 1 and len(found.trials) == 4


def test_equal_numbers_of_different_types_are_different_choices():
    assert len(space_of(SMOOTH, {"noise_std": [1, 1.0, True, 1]})["noise_std"]) == 3


@dataclass(frozen=True)
class Postponed(pnpx.SmoothGrad):
    """An explainer whose module postpones the evaluation of annotations: types are strings."""

    n_iter: "int" = 20
    noise_level: "float | None" = 0.1


def test_types_may_be_strings():
    search = {"n_iter": Range(1.5, 3.5), "noise_level": Range(1, 2)}
    assert space_of(Postponed(MODEL), search) == {"n_iter": Range(2, 3), "noise_level": Range(1.0, 2.0)}


@pytest.mark.parametrize("search, kind, message", [
    ({"n_itre": [1]}, ValueError, "SmoothGrad has no parameter 'n_itre' to search; the nearest: 'n_iter'"),
    ({"model": [MODEL]}, ValueError, None),
    ({"n_iter": []}, ValueError, "search of n_iter must have at least one choice, but is empty"),
    ({"sampler": "latin"}, TypeError, "search of sampler must be a Range, a list of choices or None, but got 'latin'"),
    ({"n_iter": 5}, TypeError, "search of n_iter must be a Range, a list of choices or None, but got 5"),
    ([("n_iter", [5])], TypeError, "search must map names of parameters to ranges or choices, but got "
                                   "[('n_iter', [5])]"),
    ({"n_iter": Range(1.2, 1.8)}, ValueError,
     "n_iter takes whole numbers, but there is none in Range(low=1.2, high=1.8, log=False)"),
    ({"n_iter": None, "noise_level": None}, ValueError,
     "there is nothing to search for SmoothGrad; give search the parameters, such as search={'layer': [one, another]}"),
])
def test_a_search_that_is_not_right(search, kind, message):
    with raises(kind, message) if message else pytest.raises(kind, match="has no parameter 'model' to search"):
        optimize(SMOOTH, Score(parabola), INPUTS, search=search)


@pytest.mark.parametrize("change, kind, message", [
    ({"n_trials": 0}, ValueError, "`n_trials >= 1` must hold, but got n_trials=0"),
    ({"n_trials": 2.0}, TypeError, "n_trials must be an int, but got 2.0"),
    ({"seed": -1}, ValueError, "`seed >= 0` must hold, but got seed=-1"),
    ({"timeout": 0}, ValueError, "`timeout > 0` must hold, but got timeout=0"),
    ({"timeout": "1"}, TypeError, "timeout must be a number of seconds or None, but got '1'"),
    ({"explainer": "SmoothGrad"}, TypeError, "optimize tunes an Explainer, but got 'SmoothGrad'"),
    ({"metric": max}, TypeError, "a metric has a bool higher_is_better and a method evaluate(explainer, inputs, "
                                 "targets), but got <built-in function max>"),
    ({"inputs": iter([INPUTS]), "targets": torch.ones(3, dtype=torch.long)}, TypeError,
     "for several batches targets must be None, an int or a callable, but are a Tensor; a callable (output, batch) "
     "finds those of each batch in it"),
])
def test_arguments_that_are_not_right(change, kind, message):
    arguments = {"explainer": SMOOTH, "metric": Score(parabola), "inputs": INPUTS, **change}
    with raises(kind, message):
        optimize(**arguments)


@pytest.mark.parametrize("returned, said", [
    (0.5, "but returned 0.5"), (torch.ones(()), "but returned a tensor of shape ()"),
    (torch.ones(3, 1, 1), "but returned a tensor of shape (3, 1, 1)"),
])
def test_what_a_metric_returns_is_checked(returned, said):
    metric = Score(parabola)
    metric.evaluate = lambda *arguments, **targets: returned
    with raises(RuntimeError, "all 1 trials failed, the first with TypeError: evaluate must return a tensor (batch,) "
                              f"or (batch, n_targets), {said}"):
        optimize(SMOOTH, metric, INPUTS, n_trials=1)


def test_no_samples_are_an_error():
    with raises(RuntimeError, "all 1 trials failed, the first with ValueError: there are no samples to optimize on"):
        optimize(SMOOTH, Score(parabola), iter([]), n_trials=1)


def test_after_the_timeout_no_other_trial_starts(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("pnpx.optimizer.time.monotonic", lambda: next(clock))
    assert len(optimize(SMOOTH, Score(parabola), INPUTS, n_trials=50, timeout=25).trials) == 3
    assert len(optimize(SMOOTH, Score(parabola), INPUTS, n_trials=50, timeout=1e-9).trials) == 1


def test_optuna_says_nothing_and_logs_afterwards_as_before(capfd):
    before, heard = optuna.logging.get_verbosity(), []
    handler = logging.Handler()
    handler.emit = heard.append
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    logging.getLogger("optuna").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimize(SMOOTH, Score(parabola), INPUTS, n_trials=15)
        assert optuna.logging.get_verbosity() == logging.DEBUG
    finally:
        logging.getLogger("optuna").removeHandler(handler)
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "") and not heard


def test_progress_is_shown_where_wanted(capfd):
    optimize(SMOOTH, Score(parabola), INPUTS, n_trials=2, progress=True)
    assert "SmoothGrad: 100%" in capfd.readouterr().err


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with raises(ImportError, "optimizing needs optuna, which is not installed; install it: pip install optuna, or pip "
                             "install '.[tune]' for pnpx with all that it takes"):
        optimize(SMOOTH, Score(parabola), INPUTS)


def test_importing_the_optimizer_does_not_import_optuna():
    code = "import sys, pnpx.optimizer; print('optuna' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr


@pytest.mark.parametrize("kind", [kind for kind in pnpx.all_explainers().values()
                                  if kind.__module__.startswith("pnpx.") and search_space(kind)],
                         ids=lambda kind: kind.__name__)
def test_every_declared_range_can_be_searched_and_changes_the_explainer(kind):
    explainer = kind(MODEL, **kind.example_parameters(INPUTS))
    metric = Score(lambda one: 0.0)
    found = optimize(explainer, metric, INPUTS, n_trials=6)
    assert len(found.trials) == 6 and not any(trial.error for trial in found.trials)
    for (tried, *_), trial in zip(metric.seen, found.trials, strict=True):
        assert {name: getattr(tried, name) for name in search_space(kind)} == trial.parameters
        others = [one.name for one in fields(kind) if one.name not in search_space(kind)]
        assert all(getattr(tried, name) is getattr(explainer, name) for name in others)


def test_what_comes_back_is_frozen():
    trial = Trial({}, 1.0, 0.0)
    with pytest.raises(AttributeError):
        trial.value = 2
    with pytest.raises(AttributeError):
        Optimized(SMOOTH, 1.0, [trial], True).value = 2


@pytest.mark.skipif(find_spec("pnpx.metrics") is None, reason="pnpx.metrics is not there yet")
def test_a_metric_of_the_package_serves():
    from pnpx import zoo
    from pnpx.metrics import AbPC

    data = zoo.data("digits")
    loader = DataLoader(TensorDataset(data.inputs[:6], data.targets[:6]), batch_size=4)
    explainer = pnpx.SmoothGrad(zoo.load("digits_cnn"), n_iter=2, forward_arg_extractor=0)
    found = optimize(explainer, AbPC(), loader, n_trials=4, search={"n_iter": [2, 5]})
    assert len(found.trials) == 4 and not any(trial.error for trial in found.trials)
    assert found.value >= found.baseline


def test_a_small_space_is_searched_in_the_same_order_again():
    """Where the guided search repeats itself, what draws blindly has the seed as well."""
    def order(seed):
        search = {"n_iter": list(range(1, 13)), "noise_level": None}
        return parameters(optimize(SMOOTH, Score(parabola), INPUTS, n_trials=13, seed=seed, search=search))

    first = order(3)
    assert len(first) == 13
    assert order(3) == first
