"""Tuning an explainer: which of its parameters score best by a metric, searched with Optuna."""

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pnpx.explainers import Explainer
from pnpx.parameters import Range, require_count, require_seed
from pnpx.study import Study, import_optuna, quiet, space_of


class AnyMetric(Protocol):
    """What optimizing asks of a metric; those of `pnpx.metrics` have it."""

    @property
    def higher_is_better(self) -> bool:
        """Which way the search goes."""

    def evaluate(self, explainer: Explainer, inputs: Any, targets: Any = None, attributions: Any = None) -> Tensor:
        """How good the explanations of ``inputs`` are: (batch,), or (batch, n_targets)."""


@dataclass(frozen=True)
class Trial:
    """Parameters that were tried: the mean of the metric over the samples, None if it failed, and then the error."""

    parameters: Mapping[str, Any]
    value: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Optimized:
    """The best explainer found, its ``value``, and all trials in their order; the first is the explainer as given.

    >>> Optimized(None, 0.5, [Trial({"n_iter": 20}, 0.75, 0.1), Trial({"n_iter": 40}, 0.5, 0.2)], False).baseline
    0.75
    """

    best: Explainer
    value: float
    trials: Sequence[Trial]
    higher_is_better: bool

    @property
    def baseline(self) -> float | None:
        """The value of the explainer as it was given; None if that failed."""
        return self.trials[0].value


def optimize(
    explainer: Explainer,
    metric: AnyMetric,
    inputs: Any,
    targets: Any = None,
    *,
    n_trials: int = 20,
    seed: int = 0,
    search: Mapping[str, Range | Sequence[Any] | None] | None = None,
    timeout: float | None = None,
    progress: bool = False,
) -> Optimized:
    """Search for the parameters of ``explainer`` with which ``metric`` is best on average over the samples.

    The first trial is the explainer as it is, so that the best is never worse on these samples; on others it may be.
    The rest come from a tree-structured Parzen estimator (Bergstra et al., 2011, doi:10.5555/2986459.2986743). A trial
    that fails, or whose value is not finite, is recorded with its error, and the search goes on. No parameters are
    tried twice. Every trial starts from the same state of the global random generators, which are left as they were;
    so, without a ``timeout``, the same ``seed`` gives the same result.

    >>> class Distance:
    ...     higher_is_better = False
    ...     def evaluate(self, explainer, inputs, targets=None, attributions=None):
    ...         return torch.full((len(inputs),), abs(explainer.n_iter - 40.0))
    >>> from pnpx import SmoothGrad
    >>> explainer = SmoothGrad(torch.nn.Linear(2, 2), n_iter=10)
    >>> found = optimize(explainer, Distance(), torch.ones(3, 2), search={"n_iter": [5, 30, 60], "noise_level": None})
    >>> found.best.n_iter, found.value, found.baseline, len(found.trials)
    (30, 10.0, 30.0, 4)

    Args:
        explainer: what is tuned; it is left as it is.
        metric: what is optimized, in the direction that its ``higher_is_better`` tells.
        inputs: a batch, as the metric takes it; or a ``DataLoader``, or any iterator over batches, which is kept whole.
        targets: those of the batch, as the metric takes them. For several batches None, an int or a callable.
        n_trials: how many parameters are tried at most, the given ones included; fewer if the search has no more.
        seed: of the search, and of the global random generators in every trial.
        search: for parameters by name, a `pnpx.parameters.Range`, or choices, or None to leave it as it is; beside, or
            instead of, the ranges that the explainer declares.
        timeout: seconds after which no other trial starts.
        progress: show a progress bar.

    Returns:
        The best explainer and the trials. Of several that are as good it is the first.

    Raises:
        TypeError: an argument is of no kind that serves here.
        ValueError: there is nothing to search, or a name or a number is not right.
        ImportError: Optuna is not installed.
        RuntimeError: every trial failed; the cause is the first one's error.
    """
    _check(explainer, metric, timeout)
    require_count("n_trials", n_trials, 1)
    require_seed(seed)
    space = space_of(explainer, search)
    objective = _Objective(metric, *_batches(inputs, targets), seed)
    from tqdm.auto import tqdm

    bar = tqdm(total=n_trials, desc=type(explainer).__name__, unit="trial", disable=not progress)
    with objective.as_found(), quiet(import_optuna()) as optuna, bar:
        study = Study(optuna, space, explainer, metric.higher_is_better, seed)
        trials, kept, end = list[Trial](), list[Explainer](), time.monotonic() + (timeout or math.inf)
        while len(trials) < n_trials and (not trials or time.monotonic() < end):
            asked = study.ask() if trials else {name: getattr(explainer, name) for name in space}
            if asked is None:
                break
            tried, trial = objective.tried(explainer, asked, given=not trials)
            study.tell(trial.value)
            trials.append(trial)
            kept.append(tried)
            bar.update()
    sign = 1 if metric.higher_is_better else -1
    succeeded = [(sign * one.value, -number) for number, one in enumerate(trials) if one.value is not None]
    if not succeeded:
        raise RuntimeError(f"all {len(trials)} trials failed, the first with {trials[0].error}") from objective.error
    value, number = max(succeeded)
    return Optimized(kept[-number], sign * value, trials, metric.higher_is_better)


@dataclass
class _Objective:
    """The mean of a metric over all samples, and the first error in it."""

    metric: AnyMetric
    batches: Iterable[Any]
    targets: Any
    seed: int
    error: Exception | None = None

    def tried(self, explainer: Explainer, parameters: Mapping[str, Any], given: bool) -> tuple[Explainer, Trial]:
        """The explainer with these parameters, as it is if they are the ``given`` ones, and what came of it."""
        start, value, said = time.perf_counter(), None, None
        try:
            if not given:
                explainer = replace(explainer, **parameters)
            value = self.mean(explainer)
        except Exception as error:  # whatever it is, other parameters may do
            self.error = self.error or error
            said = f"{type(error).__name__}: {error}"
        return explainer, Trial(parameters, value, time.perf_counter() - start, said)

    def mean(self, explainer: Explainer) -> float:
        """The mean over the samples of all batches, each weighing the same; that over targets is a sample's value."""
        self._reset()
        found = [self._by_sample(explainer, batch) for batch in self.batches]
        every = torch.cat(found) if found else torch.empty(0)
        if not len(every):
            raise ValueError("there are no samples to optimize on")
        if bad := int((~every.isfinite()).sum()):
            raise ValueError(f"the metric must be finite, but is not for {bad} of {len(every)} samples")
        return float(every.mean())

    def _by_sample(self, explainer: Explainer, batch: Any) -> Tensor:
        found = self.metric.evaluate(explainer, batch, targets=self.targets)
        if not isinstance(found, Tensor) or found.ndim not in (1, 2):
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
            raise TypeError(f"evaluate must return a tensor (batch,) or (batch, n_targets), but returned {what}")
        return found.detach().to("cpu", torch.float64).reshape(*found.shape[:1], -1).mean(1)

    def _reset(self) -> None:
        """Set all generators to where each trial starts."""
        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        torch.default_generator.manual_seed(self.seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(self.seed)
        for generator in self._own():
            generator.manual_seed(self.seed)

    def _own(self) -> Sequence[torch.Generator]:
        """The generators that a loader shuffles with, if it has any of its own."""
        if not isinstance(self.batches, DataLoader):
            return []
        candidates = (self.batches.generator, getattr(self.batches.sampler, "generator", None))
        return list({id(one): one for one in candidates if isinstance(one, torch.Generator)}.values())

    @contextmanager
    def as_found(self) -> Iterator[None]:
        """Afterwards all generators are in the state in which they were."""
        states, python, array = [one.get_state() for one in self._own()], random.getstate(), np.random.get_state()
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
        try:
            with torch.random.fork_rng(list(devices)):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(array)
            for generator, state in zip(self._own(), states, strict=True):
                generator.set_state(state)


def _check(explainer: Any, metric: Any, timeout: Any) -> None:
    if not isinstance(explainer, Explainer):
        raise TypeError(f"optimize tunes an Explainer, but got {explainer!r:.80}")
    if not isinstance(getattr(metric, "higher_is_better", None), bool) or not callable(
        getattr(metric, "evaluate", None)
    ):
        raise TypeError(
            "a metric has a bool higher_is_better and a method evaluate(explainer, inputs, targets), but got "
            f"{metric!r:.80}"
        )
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout must be a number of seconds or None, but got {timeout!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"`timeout > 0` must hold, but got timeout={timeout}")


def _batches(inputs: Any, targets: Any) -> tuple[Iterable[Any], Any]:
    """The batches, which can be gone through again, and the targets of each."""
    if not isinstance(inputs, DataLoader) and (isinstance(inputs, Mapping) or not isinstance(inputs, Iterator)):
        return [inputs], targets
    if not (targets is None or isinstance(targets, int) or callable(targets)):
        raise TypeError(
            f"for several batches targets must be None, an int or a callable, but are a {type(targets).__name__}; "
            "a callable (output, batch) finds those of each batch in it"
        )
    return inputs if isinstance(inputs, DataLoader) else list(inputs), targets
