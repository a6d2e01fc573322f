"""Metrics that take features away in the order of their attributions, and follow the score."""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from pnpx.explainers.base import Explainer
from pnpx.explainers.games import Game
from pnpx.metrics.faithfulness import Faithfulness
from pnpx.metrics.trial import Trial
from pnpx.parameters import Range, require_count, tunable
from pnpx.scores import Targets
from pnpx.structure import Structure

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer

_BITS = 2.0**16


@dataclass(frozen=True)
class Way:
    """Whether the most relevant groups go first, or the least, and with which sign the curve counts."""

    most_first: bool
    sign: int = 1


@dataclass(frozen=True)
class Flipping(Faithfulness):
    """The score along the way on which groups of features are taken away, one after the other.

    The way has ``n_steps`` steps, which are spread evenly over the groups of each sample; of fewer groups each is a
    step. It begins with the sample itself and ends where all groups are gone. The value is the mean of the score along
    it, by the trapezoidal rule over the share of groups that are gone: so neither the number of steps nor that of the
    groups changes what it means, and uneven steps count for what they are.

    Groups that count for the same, up to their 16th binary digit, lest rounding decide, go in the order of their
    numbers, on every way. A map that is constant over groups so has the same curve for `MoRF` and `LeRF`, and 0 for
    `AbPC`. Without any group the value is the score of the sample.

    Args:
        n_steps: how many steps at most.

    ``groups``, ``baseline``, ``replacement`` and ``inference_mode`` are those of `Faithfulness`. Where that is None,
    scores are probabilities if the explainer's ``score`` is "classification" and there are several outputs: their
    softmax, or what the model gives if that is a distribution already. Else they are the explainer's own.
    """

    _: KW_ONLY
    n_steps: int = tunable(10, Range(5, 50))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_steps", self.n_steps, 1)

    @property
    @abstractmethod
    def ways(self) -> tuple["Way", ...]:
        """The ways on which groups are taken away."""

    @overload
    def curve(
        self, explainer: Explainer, inputs: Any, targets: Targets = None, attributions: Structure = None
    ) -> Tensor: ...

    @overload
    def curve(
        self, explainer: "TextExplainer", inputs: Any, targets: Any = None, attributions: Any = None
    ) -> list[Tensor]: ...

    def curve(
        self, explainer: "Explainer | TextExplainer", inputs: Any, targets: Any = None, attributions: Any = None
    ) -> "Tensor | list[Tensor]":
        """The score at each step, the sample itself first: (batch, points), or (batch, n_targets, points).

        There are ``n_steps + 1`` points, or, of fewer groups, one more than these; NaN behind those of a sample. Of
        `AbPC` it is the difference of both curves. Arguments and errors are those of `evaluate`; for texts a list with
        a curve, (points,) or (n_targets, points), for each.
        """
        return self._found(explainer, inputs, targets, attributions, "curve")  # type: ignore[no-any-return]

    def along(self, trial: Trial, game: Game, relevance: Tensor) -> dict[str, Tensor]:
        """The curve, (targets, batch, points), and its mean, from what groups count for, (targets, batch, groups)."""
        counts = torch.tensor(list(game.counts))
        steps = counts.clamp(max=self.n_steps)
        most = int(steps.max())
        numbers = torch.arange(most + 1)
        # How many groups are gone: the nearest integer, half up; behind the last step nothing is asked.
        halves = 2 * steps.clamp(min=1)[:, None]
        gone = (2 * numbers * counts[:, None] + steps[:, None]).div(halves, rounding_mode="floor")
        there = numbers <= steps[:, None]
        total = torch.zeros(*relevance.shape[:2], most + 1, dtype=torch.float64)
        for way in self.ways:
            sign = way.sign
            turns = [_turns(-of_target if way.most_first else of_target, counts) for of_target in relevance]

            def kept(start: int, stop: int, turns: list[Tensor] = turns) -> Tensor:
                rows = [divmod(row, most) for row in range(start, stop)]
                return torch.stack(
                    [(turns[target] >= gone[:, step + 1, None]) | ~there[:, step + 1, None] for target, step in rows]
                )

            played = trial.play(game, len(turns) * most, kept) if most else None
            for target in range(len(turns)):
                total[target, :, 0] += sign * game.clean[target].to("cpu", torch.float64)
                if played is not None:
                    total[target, :, 1:] += sign * played[target, target * most : (target + 1) * most].T
        shares = gone / counts.clamp(min=1)[:, None]
        widths = shares.diff(dim=1) * there[:, 1:]
        value = ((total[:, :, 1:] + total[:, :, :-1]) / 2 * widths).sum(2)
        value = torch.where(counts > 0, value, total[:, :, 0])
        unknown = relevance.isnan().any(2)
        return {
            "value": value.masked_fill(unknown, torch.nan),
            "curve": total.masked_fill(~there | unknown[:, :, None], torch.nan),
        }


def _turns(late: Tensor, counts: Tensor) -> Tensor:
    """When each group goes, (batch, groups), from what is the larger the later it does."""
    mantissa, exponent = torch.frexp(late.nan_to_num())
    rounded = torch.ldexp((mantissa * _BITS).round() / _BITS, exponent)
    behind = torch.arange(late.shape[1]) >= counts[:, None]
    order = rounded.masked_fill(behind, torch.inf).argsort(dim=1, stable=True)
    return order.argsort(dim=1)


class MoRF(Flipping):
    """The mean score while the most relevant features are removed first (Samek et al., 2017, arXiv:1509.06321).

    The lower, the better: what is removed first is what the score rests on. The parameters are those of `Flipping`.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 1.0]]))
    >>> inputs = torch.ones(1, 2)
    >>> MoRF().curve(GradientXInput(model), inputs)
    tensor([[4., 1., 0.]], dtype=torch.float64)
    >>> MoRF().evaluate(GradientXInput(model), inputs)
    tensor([1.5000], dtype=torch.float64)
    """

    higher_is_better = False
    ways = (Way(most_first=True),)


class LeRF(Flipping):
    """The mean score while the least relevant features are removed first (Samek et al., 2017, arXiv:1509.06321).

    The higher, the better. What speaks against the score is removed first of all. The parameters are those of
    `Flipping`.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 1.0]]))
    >>> LeRF().curve(GradientXInput(model), torch.ones(1, 2))
    tensor([[4., 3., 0.]], dtype=torch.float64)
    """

    higher_is_better = True
    ways = (Way(most_first=False),)


class AbPC(Flipping):
    """The area between the perturbation curves: `LeRF` less `MoRF` (the symmetric relevance gain of Blücher et al.,
    2024, arXiv:2401.06654; the ABPC of Samek et al., 2017, arXiv:1509.06321, is its counterpart).

    The higher, the better; about 0 for a map that says nothing. What is removed leaves the model with inputs that it
    never saw: this harms both curves alike, so that their difference depends on it less than each of them. The
    parameters are those of `Flipping`.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 1.0]]))
    >>> AbPC().evaluate(GradientXInput(model), torch.ones(1, 2))
    tensor([1.], dtype=torch.float64)
    """

    higher_is_better = True
    ways = (Way(most_first=False), Way(most_first=True, sign=-1))
