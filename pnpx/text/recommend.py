"""Which explainers to use for texts, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from pnpx.explainers.base import Explainer, all_explainers
from pnpx.explainers.expected import ExpectedGradients
from pnpx.explainers.integrated import IntegratedGradients
from pnpx.explainers.noise import SquareGrad, VarGrad
from pnpx.explainers.occlusion import FeatureAblation
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.parameters import require_seed
from pnpx.recommender import Recommendation
from pnpx.recommender.costs import affordable, cost, draws, require_defaults
from pnpx.recommender.picking import require_known
from pnpx.recommender.preferences import RULES, Facts, ranked, superfluous
from pnpx.recommender.trial import Refused, first_line, without_warnings
from pnpx.text.explainer import TextExplainer
from pnpx.text.granularity import units
from pnpx.text.reading import Texts, is_single, read
from pnpx.text.record import TextExplanation
from pnpx.text.tasks import known_tokens, length_limit

_UNITS = {"all_tokens": "tokens", "token": "tokens", "word": "words", "sentence": "sentences"}
_ADD_UP = ("GradientXInput", "IntegratedGradients")
"""Those whose attributions of the components of an embedding are parts of one number."""


def recommend_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    targets: Any = None,
    *,
    wanted: Collection[str] = (),
    seed: int = 0,
    **text_parameters: Any,
) -> list[Recommendation]:
    """Every explainer there is, your own included, with the reason why it was or was not picked for these texts.

    A picked one is a `pnpx.text.TextExplainer`, and has explained the first text. See `pnpx.recommender.recommend`.

    Args:
        model: a module that takes ``input_ids``. It is left as it was found.
        tokenizer: of transformers.
        texts: as ``TextExplainer`` takes them.
        targets: likewise.
        wanted: the names of explainers that are picked if they pass the trial, whatever others do as well, and however
            long they take.
        seed: of all that is random.
        **text_parameters: parameters of every ``TextExplainer``: granularity, aggregation, reduce, and those that
            explainers have in common, such as batch_size; replacement goes to those that put something in place of
            units. Without ``reduce``, methods whose scores add up get "sum".

    Returns:
        The picked ones first, the most useful first of all; then the others, by name.

    Raises:
        TypeError, ValueError: a parameter is none of every ``TextExplainer``, or a text is none, or empty.
        LookupError: no explainer has a name that is wanted.
    """
    require_known(wanted)
    require_seed(seed)
    TextExplainer(FeatureAblation, model, tokenizer, **text_parameters)  # which checks what all have in common
    return _Recommender(model, tokenizer, texts, targets, frozenset(wanted), seed, text_parameters).all()


@dataclass(frozen=True)
class _Recommender:
    model: nn.Module
    tokenizer: Any
    texts: Texts
    targets: Any
    wanted: frozenset[str]
    seed: int
    given: dict[str, Any]

    def all(self) -> list[Recommendation]:
        """Every explainer, the picked ones first."""
        kinds = all_explainers()
        facts = Facts(self._unit, self._most_units(), linear=self._linear(), tokens=True, zero=False)
        ours = [one for one in ranked("text", facts) if one in kinds and kinds[one].__module__.startswith("pnpx.")]
        picked: list[Recommendation] = []
        left: list[Recommendation] = []
        for name in [*(name for name in kinds if name not in ours), *ours]:
            try:
                picked.append(self._picked(name, kinds[name], [one.name for one in picked], facts))
            except Refused as why:
                left.append(Recommendation(name, str(why)))
        return picked + sorted(left, key=lambda one: one.name)

    def _picked(self, name: str, kind: type[Explainer], picked: list[str], facts: Facts) -> Recommendation:
        """The recommendation of an explainer; `Refused`, with the reason, if it is not to be recommended."""
        shipped = kind.__module__.startswith("pnpx.")
        why = superfluous(name, picked, facts) if shipped and name not in self.wanted else None
        if kind is ExpectedGradients:
            why = "it compares with other samples number by number, which texts of other lengths do not allow"
        if why is not None:
            raise Refused(why)
        own = self._own(kind, facts)
        try:
            explainer = self._made(kind, own)
            method = kind(self.model, **explainer.parameters)
        except Exception as error:
            raise Refused(first_line(error)) from error
        passes = affordable(method, facts, limited=name not in self.wanted)
        found = self._tried(explainer)
        by_units = issubclass(kind, PerturbationExplainer)
        place = None if by_units and "layer" not in self.given else _place(found.explainer)
        facts = replace(facts, path=f"{self._beginning(explainer)} in place of every token")
        tells = facts.fill(RULES[name].tells) if shipped and name in RULES else "your own explainer"
        where = "" if by_units or "layer" in self.given else f"at {place!r}, since token ids have no gradient"
        said = filter(None, [tells, cost(method, passes, "text"), where])
        return Recommendation(name, "; ".join(said), explainer, place, own)

    def _own(self, kind: type[Explainer], facts: Facts) -> dict[str, Any]:
        """What an explainer is made with beside what is given for all."""
        own: dict[str, Any] = {}
        if any(one.name == "seed" and one.init for one in fields(kind)):
            own["seed"] = self.seed
        if kind.__module__.startswith("pnpx."):
            own |= draws(kind, facts.groups)
            if kind.__name__ in _ADD_UP and "reduce" not in self.given:
                own["reduce"] = "sum"
        require_defaults(kind, own)
        return own

    def _made(self, kind: type[Explainer], own: dict[str, Any]) -> TextExplainer:
        replaces = issubclass(kind, (PerturbationExplainer, IntegratedGradients))
        given = dict(self.given)
        if not replaces or (given.get("replacement") == "delete" and not issubclass(kind, PerturbationExplainer)):
            given.pop("replacement", None)
        return TextExplainer(kind, self.model, self.tokenizer, **given, **own)

    def _tried(self, explainer: TextExplainer) -> TextExplanation:
        """The explanation of the first text."""
        texts, targets = self._first()
        try:
            with without_warnings():
                (found,) = explainer(texts, targets)
        except Exception as error:
            raise Refused(first_line(error)) from error
        if not bool(found.scores.isfinite().all()):
            raise Refused("it gives numbers that are not finite here")
        if not bool((found.scores != 0).any()):
            raise Refused("it gives nothing but zeros here")
        return found

    def _first(self) -> tuple[Any, Any]:
        """The first text, in a list unless it was given by itself, and its targets."""
        if is_single(self.texts):
            return self.texts, self.targets
        several = isinstance(self.targets, (list, tuple)) or (
            isinstance(self.targets, torch.Tensor) and self.targets.ndim > 0
        )
        targets = self.targets[:1] if several else self.targets
        if isinstance(self.texts, Mapping):
            return {name: rows[:1] for name, rows in self.texts.items()}, targets
        return self.texts[:1], targets

    def _most_units(self) -> int:
        granularity = self.given.get("granularity", "word")
        limit = length_limit(self.model, self.tokenizer)
        with without_warnings():
            readings = read(self.tokenizer, self.texts, limit, known_tokens(self.model))
        if not readings:
            raise ValueError("there must be a text to recommend explainers for, but there is none; give at least one")
        return max(len(units(reading.encoded, granularity)) for reading in readings)

    @property
    def _unit(self) -> str:
        granularity = self.given.get("granularity", "word")
        return _UNITS.get(granularity, "spans") if isinstance(granularity, str) else "spans"

    def _linear(self) -> bool:
        """Whether the gradient at the embeddings is the same wherever it is taken."""
        texts, targets = self._first()
        noise: dict[str, Any] = {"noise_level": 1.0, "n_iter": 8}
        try:
            with without_warnings():
                (changes,) = self._made(VarGrad, noise)(texts, targets)
                (squares,) = self._made(SquareGrad, noise)(texts, targets)
        except Exception:
            return False  # what is wrong will be found, and said, of each explainer
        most = float(squares.scores.abs().max())
        return most > 0 and float(changes.scores.abs().max()) <= 1e-10 * most

    def _beginning(self, explainer: TextExplainer) -> str:
        """What stands for a token that is absent, in words."""
        token = explainer.absent
        if token == "delete":
            return "nothing"
        if isinstance(token, str):
            return "zeros"
        return repr(self.tokenizer.convert_ids_to_tokens(token))


def _place(parameters: Mapping[str, Any]) -> str | None:
    layer = parameters.get("layer")
    return ", ".join(layer) if isinstance(layer, list) else layer
