"""Explanations of texts: their units taken away, in any order, with the machinery that explains texts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.explainers.base import Explainer
from pnpx.explainers.covers import Cover
from pnpx.explainers.games import Game
from pnpx.explainers.occlusion import FeatureAblation
from pnpx.metrics.trial import Trial

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer
    from pnpx.text.record import TextExplanation

Along = Callable[[Trial, Game, Tensor], dict[str, Tensor]]
"""From a game, and what its groups count for, (targets, batch, groups), to what is found: (targets, batch, ...)."""


@dataclass(frozen=True)
class _TextJudge(FeatureAblation):
    """Lets ``solver`` play the game of a text, and say what its groups get: (targets, batch, groups).

    It is no explainer to choose, which its name says.
    """

    _: KW_ONLY
    solver: Callable[[Game], Tensor] | None = None

    def solve(self, game: Game) -> Tensor:
        return super().solve(game) if self.solver is None else self.solver(game)


def each_text(texts: Any, targets: Any, found: "list[TextExplanation]") -> "Iterator[tuple[Any, Any, TextExplanation]]":
    """Each text with its target, what was predicted or generated filled in, and its explanation.

    Raises:
        ValueError: there are not as many explanations as texts.
    """
    from pnpx.text.choice import targets_of
    from pnpx.text.reading import is_single

    single = is_single(texts)
    several = [texts] if single else _rows(texts) if isinstance(texts, Mapping) else list(texts)
    if len(several) != len(found):
        raise ValueError(f"there must be an explanation for each of the {len(several)} texts, but got {len(found)}")
    kinds = {"causal" if one.generation else "tokens" for one in found}
    given: list[Any] = [None] * len(found)
    if targets is not None and all(one.prediction is None for one in found):
        given = targets_of(targets, len(found), single, "causal" if "causal" in kinds else "tokens")
    for text, one, target in zip(several, found, given, strict=True):
        if one.prediction is not None:  # of a whole text
            yield text, one.targets[0] if one.scores.ndim == 1 else list(one.targets), one
        else:
            yield text, list(one.targets) if target is None and one.generation else target, one


def _rows(texts: Mapping[str, Any]) -> list[Any]:
    """The rows of a mapping of ids, as mappings of one row each."""
    count, encodings = len(texts["input_ids"]), getattr(texts, "encodings", None)
    parts = [
        {name: value[row : row + 1] for name, value in texts.items() if len(value) == count} for row in range(count)
    ]
    if encodings is None or len(encodings) != count:
        return parts
    from transformers import BatchEncoding

    return [BatchEncoding(part, encodings[row]) for row, part in enumerate(parts)]


def rows_like(one: "TextExplanation", other: "TextExplanation") -> Tensor:
    """The scores of ``other``, (targets, units), which is of the same text as ``one``.

    Raises:
        ValueError: it is not.
    """
    if one.spans != other.spans or one.rows.shape != other.rows.shape:
        raise ValueError(
            f"the explanations must be what the text explainer gives for these texts and targets, but one has "
            f"{len(one.rows)} targets and {len(one)} units, and its text, {one.texts[0]!r:.40}, now has "
            f"{len(other.rows)} and {len(other)}"
        )
    return other.rows


def played(
    explainer: "TextExplainer",
    text: Any,
    target: Any,
    found: "TextExplanation",
    along: Along,
    replacement: Any,
    mode: str | None,
    name: str,
) -> dict[str, Tensor]:
    """What a metric finds by taking the units of a text away: ([n_targets,] ...) by name.

    Args:
        explainer: what explained the text.
        text: it.
        target: that of the explanation.
        found: the explanation.
        along: what the metric does.
        replacement: what takes the place of a unit, as `pnpx.text.explainer.TextExplainer` takes it, whose own does not
            count: explainers are compared by the same game.
        mode: how scores are taken from the output; None: as the explainer takes them.
        name: that of the metric.
    """
    from pnpx.text.explainer import TextExplainer

    shared = {one.name for one in fields(Explainer)} - {"model", "layer", "inference_mode"}
    parameters = {name: value for name, value in explainer.parameters.items() if name in shared}
    parameters["inference_mode"] = mode or explainer.inference_mode

    def solve(solver: Callable[[Game], Tensor]) -> "TextExplanation":
        judge = TextExplainer(
            _TextJudge,
            explainer.model,
            explainer.tokenizer,
            granularity=explainer.granularity,
            replacement=replacement,
            **parameters,
            solver=solver,
        )
        (judged,) = judge([text], None if target is None else [target])
        return judged

    def number(game: Game) -> Tensor:
        return torch.arange(1.0, max(game.counts, default=0) + 1).expand(len(game.clean), len(game.counts), -1)

    # Units that always stay, such as special tokens, have no number.
    numbers = rows_like(found, solve(number))[0].round().long()
    scores = found.rows.detach().cpu().double()
    relevance = torch.zeros(len(scores), int(numbers.max()) + 1, dtype=torch.float64)
    relevance = relevance.scatter_add(1, numbers.expand_as(scores), scores)[:, 1:]
    results: list[dict[str, Tensor]] = []

    def play(game: Game) -> Tensor:
        trial = Trial((), (), _nowhere, bool(parameters.get("progress")), name)
        results.append(along(trial, game, relevance[:, None]))
        return torch.zeros(*relevance.shape[:1], 1, relevance.shape[1])

    solve(play)
    single = found.scores.ndim == 1
    return {name: one[0, 0] if single else one[:, 0] for name, one in results[0].items()}


def _nowhere() -> tuple[Game, Cover]:
    raise RuntimeError("texts bring a game of their own")
