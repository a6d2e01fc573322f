"""How many passes of the model an explanation takes, and how many copies suit the number of groups."""

from dataclasses import MISSING, fields
from typing import Any

from pnpx.explainers.base import Explainer
from pnpx.explainers.lime import Lime
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explainers.points import GradientExplainer
from pnpx.explainers.shapley import KernelShap, Shapley
from pnpx.recommender.preferences import MOST_EXACT, MOST_PASSES, Facts
from pnpx.recommender.trial import Refused, first_line


def draws(kind: type[Explainer], groups: int | None) -> dict[str, Any]:
    """The ``n_iter`` of an explainer of so many groups, where its own default does not suit them.

    >>> draws(Shapley, 9), draws(Shapley, 20), draws(KernelShap, 64), draws(KernelShap, 200)
    ({'n_iter': 64}, {}, {}, {'n_iter': 800})
    """
    default = {one.name: one.default for one in fields(kind)}.get("n_iter")
    count = default
    if groups is None or not isinstance(default, int):
        return {}
    if kind is Shapley and 1 < groups <= MOST_EXACT:
        count = max(default, -(-(2**groups - 2) // (groups - 1)))  # as many orders as make it exact
    elif kind is KernelShap:
        count = max(default, min(4 * groups, MOST_PASSES - 1))
        count = max(count, 2 * groups)  # less would not determine the values
    elif kind is Lime:
        count = max(default, 2 * groups)
    return {} if count == default else {"n_iter": count}


def passes_of(explainer: Explainer, groups: int | None) -> int | None:
    """How many passes of the model an explanation takes for each sample; None: it is not known.

    >>> from torch import nn
    >>> passes_of(KernelShap(nn.Linear(3, 2)), 3)
    7
    """
    if not isinstance(explainer, PerturbationExplainer):
        return explainer.n_points if isinstance(explainer, GradientExplainer) else None
    if groups is None or groups < 1:
        return None
    if isinstance(explainer, (KernelShap, Lime)):  # whose designs take long to make, if there are many groups
        drawn: int = min(explainer.n_iter, 2 ** min(groups, 62) - 2)
        return drawn + 1
    return explainer.design(groups).rows


def affordable(explainer: Explainer, facts: Facts, limited: bool = True) -> int | None:
    """How many passes an explanation takes for each sample, as of `passes_of`.

    Raises:
        Refused: too many, if that is ``limited``, or the explainer cannot be of so many groups.
    """
    least = facts.groups or 0 if isinstance(explainer, PerturbationExplainer) else 0
    try:
        passes = least if least > MOST_PASSES else passes_of(explainer, facts.groups)
    except Exception as error:
        raise Refused(first_line(error)) from error
    if limited and passes is not None and passes > MOST_PASSES:
        raise Refused(f"it would take {passes} passes of the model or more for each sample, of {facts.counted}; make "
                      "it yourself, with fewer and larger groups")
    return passes


def cost(explainer: Explainer, passes: int | None, each: str = "sample") -> str:
    """So many passes, in words; nothing, if it is not known.

    >>> from torch import nn
    >>> from pnpx import Gradient
    >>> cost(Gradient(nn.Linear(3, 2)), 1), cost(KernelShap(nn.Linear(3, 2)), 7, "text")
    ('1 gradient a sample', '7 forward passes a text')
    """
    if passes is None:
        return ""
    by_score = isinstance(explainer, PerturbationExplainer)
    what, several = ("forward pass", "es") if by_score else ("gradient", "s")
    return f"{passes} {what}{'' if passes == 1 else several} a {each}"


def require_defaults(kind: type[Explainer], given: dict[str, Any]) -> None:
    """Require that an explainer's parameters have defaults, but for those given.

    Raises:
        Refused: one has none.
    """
    for one in fields(kind):
        missing = one.init and one.default is MISSING and one.default_factory is MISSING
        if missing and one.name != "model" and one.name not in given:
            raise Refused(f"its parameter {one.name!r} has no default; make it yourself")
