"""Which explainers to use for a model and a batch, and why."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from pnpx.attributors import unwrapped
from pnpx.detector import detect
from pnpx.explainers.base import Explainer, all_explainers
from pnpx.explainers.expected import ExpectedGradients
from pnpx.explainers.gradient import Gradient
from pnpx.explainers.integrated import IntegratedGradients
from pnpx.explainers.occlusion import FeatureAblation
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.extractors import without_labels
from pnpx.modality import Modality, modality_of
from pnpx.parameters import require_seed
from pnpx.recommender.background import Background, background_of
from pnpx.recommender.costs import affordable, cost, draws, require_defaults
from pnpx.recommender.embeddings import Embedded, embeddings_of
from pnpx.recommender.preferences import RULES, Facts, ranked, superfluous
from pnpx.recommender.trial import Refused, Trial, first_line
from pnpx.scores import Targets
from pnpx.structure import tensors
from pnpx.suggest import nearest

EXTRACTORS = ("forward_arg_extractor", "additional_forward_arg_extractor", "padding_mask_extractor")
"""The parameters that say what of a batch is what."""
_SHARED = tuple(one.name for one in fields(Explainer) if one.init and one.name != "model")


@dataclass(frozen=True)
class Recommendation:
    """One explainer, ready to use if it was picked, and why it was or was not.

    Args:
        name: of the class.
        reason: one plain sentence.
        explainer: an `Explainer`, for texts a `pnpx.text.TextExplainer`; None: it was not picked.
        layer: where it explains, for reports; None: at the inputs, or not picked.
        parameters: what it was made with beside the model, the layer, and the parameters that the user gave for all.
    """

    name: str
    reason: str
    explainer: Any = None
    layer: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def picked(self) -> bool:
        """Whether it is recommended."""
        return self.explainer is not None

    def __str__(self) -> str:
        return f"{'+' if self.picked else '-'} {self.name}: {self.reason}"


def recommend(
    model: nn.Module,
    inputs: Any,
    targets: Targets = None,
    *,
    modality: str | None = None,
    background: Any = None,
    wanted: Collection[str] = (),
    seed: int = 0,
    **shared: Any,
) -> list[Recommendation]:
    """Every explainer there is, your own included, with the reason why it was or was not picked.

    A picked one has been tried: it has rehearsed the batch (of a large one 64 samples) and explained two samples with
    few points, and gave numbers that are finite and not all zero. The picked ones are a set that covers the families:
    gradients, their statistics under noise, paths from a baseline, and scores without a part of the input. Of methods
    that come to the same here, one is picked. Token ids have no gradient: there, gradients are taken where the model
    makes vectors of them.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> found = recommend(model, torch.tensor([[0.5, -1.0, 2.0]]))
    >>> [one.name for one in found if one.picked and one.name in ("SmoothGrad", "Shapley", "Lime")]
    ['SmoothGrad', 'Shapley']
    >>> next(one.reason for one in found if one.name == "Shapley")
    'exact Shapley values of 3 elements, by no gradient; 7 forward passes a sample'

    Args:
        model: the model. It is left as it was found.
        inputs: one batch, as explainers take it; or a tuple of inputs and labels, which are told apart.
        targets: what is explained, as `Explainer.attribute` takes it; None: the predicted class.
        modality: "image", "series", "tabular" or "text" (token ids), if shapes do not tell: see `pnpx.modality`.
        background: a batch of samples to compare with, for ExpectedGradients; None: the batch itself, if there are
            several samples in it.
        wanted: the names of explainers that are picked if they pass the trial, whatever others do as well, and however
            long they take.
        seed: of all that is random.
        **shared: parameters of every explainer, such as extractors, or ``layer``, where all are to explain.

    Returns:
        The picked ones first, the most useful first of all; then the others, by name.

    Raises:
        TypeError: a shared parameter is none of every explainer, or the batch is none.
        ValueError: there is no such modality, or a shared parameter is out of its range.
        LookupError: the model has no such layer, the batch no such part; or no explainer has a name that is wanted.
    """
    require_known(wanted)
    if isinstance(inputs, (DataLoader, Iterator)):
        kind = type(inputs).__name__
        raise TypeError(f"recommend takes one batch, but got a {kind}; give its first one, next(iter(...))")
    for name in shared:
        if name not in _SHARED:
            kinds = sorted(all_explainers().values(), key=lambda kind: not kind.__module__.startswith("pnpx."))
            own = [kind.__name__ for kind in kinds if name in {one.name for one in fields(kind)}]
            more = f"it is one of {own[0]}: set it afterwards, by dataclasses.replace(...)" if own else None
            raise TypeError(f"{name!r} is no parameter of every explainer; {more or nearest(name, _SHARED)}")
    require_seed(seed)
    if not any(shared.get(name) is not None for name in EXTRACTORS):
        explained = without_labels(unwrapped(model), inputs)
        if explained is not None:
            shared = {**shared, "forward_arg_extractor": explained}
    _ = Gradient(model, **shared).attributor  # which finds what is wrong with the shared parameters alone
    return _Recommender.of(Trial(model, inputs, targets, shared), modality, background, frozenset(wanted), seed).all()


def require_known(names: Collection[str]) -> None:
    """Require names of explainers; LookupError, with the nearest, for one that there is not."""
    known = all_explainers()
    for name in names:
        if name not in known:
            raise LookupError(f"there is no explainer {name!r}; {nearest(str(name), known)}")


@dataclass(frozen=True)
class _Recommender:
    """What is known of the model and the batch."""

    trial: Trial
    modality: Modality
    facts: Facts
    gradients_at: str | tuple[str, ...] | None
    baseline: Any
    background: Background
    mixed: bool
    wanted: frozenset[str]
    seed: int

    @classmethod
    def of(
        cls, trial: Trial, name: str | None, background: Any, wanted: frozenset[str], seed: int
    ) -> "_Recommender":
        """Find out what there is to know."""
        call = trial.call(trial.inputs)
        call.batch_size  # noqa: B018  (which complains of what is no batch)
        values = tensors(call.forward)
        modality = modality_of(values, detect(trial.model), name)
        whole = [not value.is_floating_point() for value in values]
        tokens, layer, baseline = all(whole), trial.shared.get("layer"), modality.baseline
        if tokens:
            found = _embeddings(trial)
            baseline = next((one.padding for one in found if one.padding is not None), baseline)
            if layer is None and found:  # where none of them serves, what is wrong there is the reason that is told
                layer = next((one.layer for one in found if _runs(trial, one.layer)), found[0].layer)
        # At a layer groups are those of what it gives.
        unit = modality.unit if trial.shared.get("layer") is None else "groups of elements"
        zero = layer is None
        facts = Facts(unit, None, linear=trial.linear(layer, zero), tokens=tokens, zero=zero)
        compared = background_of(trial, background, values, tokens)
        made = cls(trial, modality, facts, layer, baseline, compared, any(whole) and not tokens, wanted, seed)
        return replace(made, facts=replace(facts, groups=made._groups()))

    def _groups(self) -> int | None:
        try:
            return self.trial.groups(FeatureAblation(self.trial.model, **self._common(FeatureAblation)))
        except Exception:  # of any kind, by the model: it is said of each explainer that takes groups away
            return None

    def all(self) -> list[Recommendation]:
        """Every explainer, the picked ones first."""
        kinds = all_explainers()
        ours = [name for name in ranked(self.modality.name, self.facts) if name in kinds]
        ours = [name for name in ours if kinds[name].__module__.startswith("pnpx.")]
        picked: list[Recommendation] = []
        left: list[Recommendation] = []
        for name in [*(name for name in kinds if name not in ours), *ours]:
            try:
                picked.append(self._picked(name, kinds[name], [one.name for one in picked]))
            except Refused as why:
                left.append(Recommendation(name, str(why)))
        return picked + sorted(left, key=lambda one: one.name)

    def _picked(self, name: str, kind: type[Explainer], picked: list[str]) -> Recommendation:
        """The recommendation of an explainer; `Refused`, with the reason, if it is not to be recommended."""
        shipped = kind.__module__.startswith("pnpx.")
        why = superfluous(name, picked, self.facts) if shipped and name not in self.wanted else None
        if why is not None:
            raise Refused(why)
        own = self._own(kind)
        try:
            explainer = kind(self.trial.model, **{**self.trial.shared, **own, "layer": self._layer(kind)})
        except Exception as error:
            raise Refused(first_line(error)) from error
        passes = affordable(explainer, self.facts, limited=name not in self.wanted)
        self.trial.attempt(explainer)
        facts = self._at(kind)
        said = [facts.fill(RULES[name].tells) if shipped and name in RULES else "your own explainer",
                cost(explainer, passes), self._where(kind)]
        layer = explainer.parameters["layer"]
        place = ", ".join(layer) if isinstance(layer, list) else layer
        return Recommendation(name, "; ".join(filter(None, said)), explainer, place, own)

    def _own(self, kind: type[Explainer]) -> dict[str, Any]:
        """What an explainer is made with beside the shared parameters and the layer."""
        names = {one.name for one in fields(kind) if one.init}
        own = {name: value for name, value in self._common(kind).items() if name not in self.trial.shared}
        own.pop("layer", None)
        if "seed" in names:
            own["seed"] = self.seed
        if kind is ExpectedGradients:
            own["baselines"] = self.background.required()
        if kind.__module__.startswith("pnpx."):
            own |= draws(kind, self.facts.groups)
        require_defaults(kind, own)
        return own

    def _common(self, kind: type[Explainer]) -> dict[str, Any]:
        """What follows from the modality, and where."""
        layer = self._layer(kind)
        own = dict(self.modality.parameters) if layer is None else {}
        if not issubclass(kind, PerturbationExplainer):
            own.pop("groups", None)
        if issubclass(kind, (PerturbationExplainer, IntegratedGradients)) and self.baseline != 0:
            own["baseline"] = self.baseline
        return {**self.trial.shared, **own, "layer": layer}

    def _layer(self, kind: type[Explainer]) -> Any:
        given = self.trial.shared.get("layer")
        return self.gradients_at if given is None and kind.needs_floats else given

    def _at(self, kind: type[Explainer]) -> Facts:
        path = self.background.said if kind is ExpectedGradients else self._path()
        return replace(self.facts, path=path)

    def _path(self) -> str:
        if not self.facts.tokens:
            return "zeros" if self.trial.shared.get("layer") is None else "zeros as inputs"
        return f"token {int(self.baseline)} everywhere"

    def _where(self, kind: type[Explainer]) -> str:
        if self.trial.shared.get("layer") is not None:
            return ""
        if self.gradients_at is not None and kind.needs_floats:
            places = [self.gradients_at] if isinstance(self.gradients_at, str) else self.gradients_at
            return f"at {', '.join(map(repr, places))}, since token ids have no gradient"
        return "of the floats alone, since integers have no gradient" if self.mixed and kind.needs_floats else ""


def _embeddings(trial: Trial) -> list[Embedded]:
    """Where the ids become vectors; none where the model fails, which it will say of each explainer."""
    try:
        return embeddings_of(trial.model, trial.call(trial.few()[0]))
    except Exception:  # of any kind, by the model
        return []


def _runs(trial: Trial, layer: Any) -> bool:
    """Whether a gradient can be taken there."""
    try:
        trial.quick(Gradient(trial.model, **{**trial.shared, "layer": layer}))
    except Exception:  # of any kind: another place may serve
        return False
    return True
