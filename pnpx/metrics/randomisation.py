"""Whether an explanation depends on what the model learnt."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pnpx.explainers.base import Explainer
from pnpx.metrics.agreement import correlation, ranks
from pnpx.metrics.base import Metric
from pnpx.metrics.compared import again, settled
from pnpx.metrics.judge import judged
from pnpx.metrics.texts import each_text, rows_like
from pnpx.metrics.trial import Trial
from pnpx.parameters import require_seed
from pnpx.scores import Targets
from pnpx.structure import Structure

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


@dataclass(frozen=True)
class Randomisation(Metric):
    """How much an explanation is like that of the model with its weights in random order (Adebayo et al., 2018,
    arXiv:1810.03292, model parameter randomisation).

    Of a copy of the model the numbers of each weight are shuffled, so that they keep their distribution, and nothing
    that was learnt but that; buffers, such as the statistics of batch norms, stay. It is explained by the same
    explainer, for the same target. Compared are the magnitudes of the attributions by Spearman's rank correlation, from
    -1 to 1; 0 where either is constant. The lower, the more the explanation depends on the model; padding is left out.

    Args:
        seed: of the shuffling.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    >>> Randomisation().evaluate(GradientXInput(model), torch.randn(2, 8)).shape
    torch.Size([2])
    """

    _: KW_ONLY
    seed: int = 0

    higher_is_better = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seed(self.seed)

    def of_batch(
        self, explainer: Explainer, inputs: Any, targets: Targets, attributions: Structure
    ) -> Mapping[str, Tensor]:
        targets = settled(explainer, inputs, targets)
        model, layer, output_layer = self._shuffled((explainer.model, explainer.layer, explainer.output_layer))
        other = replace(explainer, model=model, layer=layer, output_layer=output_layer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how well paths are integrated there is nobody's concern
            found = again(other, inputs, other._call(inputs), targets)
        return judged(explainer, inputs, targets, [attributions, found], self.measure)

    def of_texts(self, explainer: "TextExplainer", texts: Any, targets: Any, found: list[Any], name: str) -> Any:
        """Of the scores of units, likewise."""
        from pnpx.text.explainer import TextExplainer

        model, parameters = self._shuffled((explainer.model, explainer.parameters))
        other = TextExplainer(
            explainer.method,
            model,
            explainer.tokenizer,
            granularity=explainer.granularity,
            aggregation=explainer.aggregation,
            reduce=explainer.reduce,
            replacement=explainer.replacement,
            **parameters,
        )
        values = []
        for text, target, one in each_text(texts, targets, found):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (shuffled,) = other([text], None if target is None else [target])
            pairs = zip(rows_like(one, shuffled), one.rows, strict=True)
            value = torch.stack([likeness(own.detach().cpu().double(), row.cpu().double()) for row, own in pairs])
            values.append(value if one.scores.ndim == 2 else value[0])
        return values

    def measure(self, trial: Trial) -> dict[str, Tensor]:
        (one, other), valid = trial.elements()
        rows = [
            torch.stack([likeness(a[there], b[there]) for a, b, there in zip(left, right, valid, strict=True)])
            for left, right in zip(one, other, strict=True)
        ]
        return {"value": torch.stack(rows)}

    def _shuffled(self, modules: tuple[Any, ...]) -> tuple[Any, ...]:
        """Copies of modules of one model, the model first, with the numbers of its weights shuffled."""
        try:
            with torch.inference_mode(False):  # within it the copy could not be changed outside of it
                copied = copy.deepcopy(modules)
        except Exception as error:
            raise RuntimeError(
                f"Randomisation needs a copy of the model, but copy.deepcopy of this {type(modules[0]).__name__} fails "
                f"({type(error).__name__}: {error}); leave this metric out, or make the model one that can be copied"
            ) from error
        shuffle(copied[0], self.seed)
        return copied


def shuffle(model: nn.Module, seed: int) -> None:
    """Put the numbers of each weight of ``model`` into random order, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad():
        for weight in model.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation of the magnitudes of two rows, (n,); 0 where either is constant."""
    if bool(one.isnan().any() | other.isnan().any()):
        return torch.tensor(torch.nan, dtype=torch.float64)
    return correlation(ranks(one.abs()), ranks(other.abs()))
