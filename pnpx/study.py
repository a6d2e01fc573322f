"""The search behind tuning: what the parameters may be, and Optuna's study of what they bring."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, TypeAlias

from pnpx.explainers import Explainer
from pnpx.parameters import Range, search_space
from pnpx.suggest import nearest

Axis: TypeAlias = Range | tuple[Any, ...]
"""What a parameter may be: a number in an interval, whole if its ends are ints, or one of several choices."""

DRAWS = 500
"""After so many draws that bring nothing new, a search has no more."""


@dataclass
class Study:
    """Optuna's study, which knows choices by their positions; it is told the explainer as given first."""

    optuna: Any
    space: Mapping[str, Axis]
    explainer: Explainer
    higher_is_better: bool
    seed: int
    known: set[tuple[Any, ...]] = field(default_factory=set)
    waiting: Any = None

    def __post_init__(self) -> None:
        samplers, self.seed = self.optuna.samplers, self.seed % 2**32
        self.guided, self.blind = samplers.TPESampler(seed=self.seed), samplers.RandomSampler(seed=self.seed)
        self.study = self.optuna.create_study(direction="maximize" if self.higher_is_better else "minimize")
        self.distributions = {name: self._distribution(axis) for name, axis in self.space.items()}
        self.given = {name: _code(axis, getattr(self.explainer, name)) for name, axis in self.space.items()}
        self.known.add(tuple(self.given.values()))

    def ask(self) -> dict[str, Any] | None:
        """Parameters that were not tried before; None if there seem to be none."""
        for attempt in range(DRAWS):
            self.study.sampler = self.blind if attempt else self.guided
            trial = self.study.ask(self.distributions)
            codes = tuple(trial.params[name] for name in self.space)
            if codes not in self.known:
                self.known.add(codes)
                self.waiting = trial
                pairs = zip(self.space.items(), codes, strict=True)
                return {name: axis[code] if isinstance(axis, tuple) else code for (name, axis), code in pairs}
            self.tell(None, trial)
        return None

    def tell(self, value: float | None, trial: Any = None) -> None:
        """What came of the parameters asked for last, or of the explainer as given, which may lie outside the space."""
        trial, failed = trial or self.waiting, self.optuna.trial.TrialState.FAIL
        if trial is not None:
            self.study.tell(trial, value, state=failed if value is None else None)
        elif value is not None and all(map(_within, self.space.values(), self.given.values())):
            create = self.optuna.trial.create_trial
            self.study.add_trial(create(value=value, params=self.given, distributions=self.distributions))

    def _distribution(self, axis: Axis) -> Any:
        kinds = self.optuna.distributions
        if isinstance(axis, tuple):
            return kinds.CategoricalDistribution(range(len(axis)))
        kind = kinds.IntDistribution if isinstance(axis.low, int) else kinds.FloatDistribution
        return kind(axis.low, axis.high, log=axis.log)


def _code(axis: Axis, value: Any) -> Any:
    """What stands for a value in a study: the position of a choice, None for one that is not there."""
    if isinstance(axis, Range):
        return value if isinstance(value, (int, float)) else None
    return next((position for position, choice in enumerate(axis) if _same(choice, value)), None)


def _same(one: Any, other: Any) -> bool:
    """Whether two choices are the same, also where ``==`` gives no bool, as that of tensors."""
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # whatever it raises, it does not say that they are
        return False


def _within(axis: Axis, code: Any) -> bool:
    if isinstance(axis, tuple) or code is None:
        return code is not None
    return bool(axis.low <= code <= axis.high)


def space_of(explainer: Explainer, search: Mapping[str, Any] | None = None) -> dict[str, Axis]:
    """What is searched, by parameter: what the explainer declares, changed by ``search``.

    >>> from pnpx import SmoothGrad
    >>> from torch import nn
    >>> space_of(SmoothGrad(nn.ReLU()), {"noise_level": None, "n_iter": Range(1.5, 9), "sampler": ["latin", None]})
    {'n_iter': Range(low=2, high=9, log=False), 'sampler': ('latin', None)}

    Args:
        explainer: the explainer that is tuned.
        search: by parameter: a `pnpx.parameters.Range`, a list of choices, or None to leave it as it is.

    Raises:
        TypeError: ``search``, or what it has for a parameter, is something else.
        ValueError: the explainer has no such parameter, there are no choices, or nothing to search at all.
    """
    kind = type(explainer)
    types = {one.name: one.type for one in fields(explainer) if one.init and one.name != "model"}
    if not (search is None or isinstance(search, Mapping)):
        raise TypeError(f"search must map names of parameters to ranges or choices, but got {search!r:.80}")
    for name in search or {}:
        if name not in types:
            raise ValueError(f"{kind.__name__} has no parameter {name!r} to search; {nearest(str(name), types)}")
    wanted = {name: axis for name, axis in {**search_space(kind), **(search or {})}.items() if axis is not None}
    if not wanted:
        raise ValueError(
            f"there is nothing to search for {kind.__name__}; give search the parameters, such as "
            f"search={{{next(iter(types))!r}: [one, another]}}"
        )
    return {name: _axis(name, axis, types[name]) for name, axis in wanted.items()}


def _axis(name: str, given: Any, kind: Any) -> Axis:
    """What was given for a parameter of a type, each choice once and an interval of ints with ints as ends."""
    if isinstance(given, Range):
        return _interval(name, given, kind)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"search of {name} must be a Range, a list of choices or None, but got {given!r:.80}")
    if not given:
        raise ValueError(f"search of {name} must have at least one choice, but is empty")
    return tuple(one for n, one in enumerate(given) if not any(_same(one, other) for other in given[:n]))


def _interval(name: str, given: Range, kind: Any) -> Axis:
    # The type is a string where its module postpones annotations.
    words = set(re.findall(r"\w+", str(kind)))
    if "float" in words or not ("int" in words or (isinstance(given.low, int) and isinstance(given.high, int))):
        return Range(float(given.low), float(given.high), given.log)
    low, high = math.ceil(given.low), math.floor(given.high)
    if low > high:
        raise ValueError(f"{name} takes whole numbers, but there is none in {given}")
    return Range(low, high, given.log) if low < high else (low,)


def import_optuna() -> Any:
    """The package optuna; ImportError that says what to install without it."""
    try:
        return import_module("optuna")
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ImportError(
            "optimizing needs optuna, which is not installed; install it: pip install optuna, or pip install '.[tune]' "
            "for pnpx with all that it takes"
        ) from error


@contextmanager
def quiet(optuna: Any) -> Iterator[Any]:
    """Optuna, silent but for errors; afterwards it logs as before."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
