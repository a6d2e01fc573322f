"""What speaks for each explainer of the package, and which other one makes it superfluous."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PASSES = 1024
"""For a sample: an explainer that takes more is left out."""
MOST_EXACT = 9
"""Up to so many groups Shapley values are computed over all coalitions: 510, no more than KernelShap draws."""


@dataclass(frozen=True)
class Facts:
    """What the reasons speak of.

    Args:
        unit: what is switched off as one, in words, such as "patches".
        groups: how many of them a sample has, at most; None: not known.
        path: where the paths of integrated gradients begin, in words.
        linear: whether the score is linear in what is explained.
        tokens: whether token ids are explained, which lie before the place of gradients.
        zero: whether what is absent is zero where gradients are taken, as it is at the inputs.
    """

    unit: str
    groups: int | None
    path: str = "a baseline"
    linear: bool = False
    tokens: bool = False
    zero: bool = True

    @property
    def counted(self) -> str:
        """How many groups of which sort, in words.

        >>> Facts("patches", 64).counted, Facts("windows of 3 steps", 1).counted
        ('64 patches', '1 window of 3 steps')
        """
        if self.groups == 1:
            word, space, rest = self.unit.partition(" ")
            return f"1 {word.removesuffix('es' if word == 'patches' else 's')}{space}{rest}"
        return self.unit if self.groups is None else f"{self.groups} {self.unit}"

    @property
    def exact(self) -> bool:
        """Whether Shapley values can be computed over all coalitions."""
        return self.groups is not None and self.groups <= MOST_EXACT

    def fill(self, words: str, **more: object) -> str:
        """``words`` with what they leave open filled in."""
        exact = "exact " if self.exact else ""
        return words.format(counted=self.counted, unit=self.unit, path=self.path, exact=exact, **more)


@dataclass(frozen=True)
class Rule:
    """Why an explainer is picked or not, in words that `Facts` fill in.

    Args:
        tells: what it is picked for.
        others: of these one that is picked makes it superfluous,
        because: for this reason, where ``{other}`` is the one picked.
        if_linear: what it comes to, where the score is linear, with ``{worth}`` for what tells the worth of groups
            there; None: it is wanted there as well.
    """

    tells: str
    others: Sequence[str] = ()
    because: str = ""
    if_linear: str | None = None


_LOSES = "what the score loses without each of {counted}, by no gradient"
_SAME = "{other} does the same with the same groups"

RULES: dict[str, Rule] = {
    "IntegratedGradients": Rule(
        "adds up to the score less that of {path}",
        if_linear="it is GradientXInput, but for what the baseline contributes",
    ),
    "ExpectedGradients": Rule(
        "adds up, on average over draws, to the score less the mean score of {path}",
        if_linear="it is GradientXInput less its mean over the background",
    ),
    "SmoothGrad": Rule(
        "the gradient with its sign, rid of what fluctuates near the sample", if_linear="it is Gradient itself"
    ),
    "SquareGrad": Rule(
        "how strongly the score reacts near the sample, whichever way", if_linear="it is the square of Gradient"
    ),
    "VarGrad": Rule("where the gradient changes near the sample", if_linear="it is zero everywhere"),
    "GradientXInput": Rule(
        "what each element contributes, to first order",
        ("IntegratedGradients",),
        "{other} takes the same product all along a path, and so adds up",
    ),
    "Gradient": Rule("the slope at the sample itself, and the cheapest there is"),
    "Occlusion": Rule(_LOSES, ("FeatureAblation",), _SAME, "it is {worth}"),
    "FeatureAblation": Rule(_LOSES, ("Occlusion",), _SAME, "it is {worth}"),
    "Shapley": Rule(
        "{exact}Shapley values of {counted}, by no gradient",
        ("KernelShap",),
        "{other} estimates the same values of {counted}, and each of its passes counts for all of them",
        "it is {worth}",
    ),
    "KernelShap": Rule(
        "Shapley values of {counted}, estimated, which still add up exactly, by no gradient",
        ("Shapley",),
        "{other} gives the same values of {counted} by their definition",
        "it is {worth}",
    ),
    "Lime": Rule(
        "a linear model of the presence of {counted}, by no gradient",
        ("KernelShap", "Shapley"),
        "{other} shares the score out among the same {unit}, and adds up, which Lime does not",
        "it estimates {worth}",
    ),
    "Sobol": Rule(
        "in which part of the score's variance each of {counted} has a hand, by no gradient",
        ("KernelShap", "Shapley", "Occlusion", "FeatureAblation"),
        "{other} tells how much the same {unit} matter, and also which way",
        "it follows from the square of {worth}",
    ),
}
"""By the name of the explainer, those preferred first."""


def ranked(modality: str, facts: Facts) -> list[str]:
    """The names of the explainers in the order in which they are tried.

    >>> ranked("tabular", Facts("elements", 5, linear=True))[:3]
    ['GradientXInput', 'Gradient', 'FeatureAblation']
    """
    names = list(RULES)
    if modality in ("tabular", "text"):  # elsewhere it is known as occlusion
        _swap(names, "Occlusion", "FeatureAblation")
    if not facts.exact:
        _swap(names, "Shapley", "KernelShap")
    if facts.linear:
        wanted = ["GradientXInput", "Gradient", "FeatureAblation"]
        names = wanted + [name for name in names if name not in wanted]
    return names


def _swap(names: list[str], one: str, other: str) -> None:
    first, second = names.index(one), names.index(other)
    names[first], names[second] = other, one


def superfluous(name: str, picked: Sequence[str], facts: Facts) -> str | None:
    """Why an explainer is not needed beside those picked, in a sentence; None: it is.

    >>> superfluous("FeatureAblation", ["Occlusion"], Facts("patches", 64))
    'Occlusion, which is picked, does the same with the same groups'
    """
    rule = RULES.get(name)
    if rule is None:
        return None
    if facts.linear and rule.if_linear is not None:
        gradient = next((one for one in ("GradientXInput", "Gradient") if one in picked), None)
        by_group = "{worth}" in rule.if_linear
        worth = next((one for one in ("FeatureAblation", "Occlusion") if one in picked), None)
        if by_group and facts.zero:
            worth = gradient and f"{gradient}{' times the value' if gradient == 'Gradient' else ''}, summed over groups"
        if (worth if by_group else gradient) is not None:
            return f"the score is linear in what is explained, where {facts.fill(rule.if_linear, worth=worth)}"
    for other in rule.others:
        if other in picked:
            return facts.fill(rule.because, other=f"{other}, which is picked,")
    return None
