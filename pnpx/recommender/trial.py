"""Trying explainers out: whether one attributes at all, on how many groups, and what the model's score is like."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from pnpx.attributors import left_as_found, unwrapped
from pnpx.attributors.batch import rows_of_batch, rows_of_own_targets
from pnpx.explainers.base import Explainer
from pnpx.explainers.gradient import GradientXInput
from pnpx.explainers.integrated import IntegratedGradients
from pnpx.explainers.noise import SquareGrad, VarGrad
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.extractors import Call, extract, named_by
from pnpx.scores import Targets, rows_of_targets
from pnpx.structure import tensors

_SAMPLES = 2  # that an explainer is tried on
_REHEARSED = 64  # at most: a rehearsal is one pass, and a batch may be a whole data set
_DRAWS = 8  # at most, points or copies, of those that take any number


class Refused(Exception):
    """Why an explainer cannot be recommended."""


@dataclass(frozen=True)
class Trial:
    """A model, a batch, and what explainers of it have in common.

    Args:
        model: the model. It is left as it was found.
        inputs: the batch.
        targets: what is explained, as for `Explainer.attribute`.
        shared: parameters of every explainer.
    """

    model: nn.Module
    inputs: Any
    targets: Targets
    shared: dict[str, Any]

    def call(self, inputs: Any) -> Call:
        """The call of the model for a batch; errors as of `pnpx.extractors.extract`."""
        names = ("forward_arg_extractor", "additional_forward_arg_extractor", "padding_mask_extractor")
        with torch.inference_mode(False), torch.no_grad():
            return extract(unwrapped(self.model), inputs, *(self.shared.get(name) for name in names))

    def few(self, most: int = _SAMPLES) -> tuple[Any, Targets]:
        """The first samples and their targets; all of them as they are, where there are no more.

        Raises:
            TypeError: the batch, or the targets, cannot be cut.
        """
        size = self.call(self.inputs).batch_size
        if size <= most:
            return self.inputs, self.targets
        rows = slice(0, most)
        whole = named_by(self.shared.get("additional_forward_arg_extractor"), shared=True)
        inputs = rows_of_batch(self.inputs, rows, size, whole)
        if callable(self.shared.get("score")):
            return inputs, rows_of_own_targets(self.targets, rows, size)
        return inputs, rows_of_targets(self.targets, rows, size, weights=False)

    def attempt(self, explainer: Explainer) -> None:
        """Let an explainer rehearse the batch, of a large one a part, and explain two samples with few points.

        Raises:
            Refused: it fails, or gives numbers that are not finite, or only zeros; in one line.
        """
        try:
            self._rehearse(explainer)
            found = self.quick(explainer)
        except Exception as error:
            raise Refused(first_line(error)) from error
        if not all(bool(one.isfinite().all()) for one in found):
            raise Refused("it gives numbers that are not finite here")
        if any(bool((one != 0).any()) for one in found):
            return
        # Few points of few samples may miss what there is.
        full = self._explained(explainer, self.inputs, self.targets)
        if not any(bool((one != 0).any()) for one in full):
            raise Refused("it gives nothing but zeros here")

    def _rehearse(self, explainer: Explainer) -> None:
        try:
            part = self.few(_REHEARSED)
        except Exception:  # it cannot be cut
            part = self.inputs, self.targets
        explainer.rehearse(*part)

    def quick(self, explainer: Explainer) -> list[torch.Tensor]:
        """The attributions of the first samples with few points or copies; what the explainer raises, if it fails."""
        cheap = _cheaper(explainer)
        try:
            inputs, targets = self.few()
            return self._explained(cheap, inputs, targets)
        except Exception:  # a batch that cannot be cut, or a model of whole batches only
            return self._explained(cheap, self.inputs, self.targets)

    def groups(self, explainer: PerturbationExplainer) -> int:
        """The most groups that a sample has; what the explainer raises, if it has none."""
        try:
            inputs, _ = self.few()
            return self._counted(explainer, self.call(inputs))
        except Exception:  # as for `quick`; what is wrong with the whole batch as well, is raised
            return self._counted(explainer, self.call(self.inputs))

    def linear(self, layer: Any, at_inputs: bool) -> bool:
        """Whether the score is linear in what is explained, but for a constant: its gradient is the same everywhere.

        Looked for where gradients are wanted: around the samples, as far as their values range, and at the inputs on
        the way from zero.
        """
        made: dict[str, Any] = {**self.shared, "layer": layer}
        try:
            # A sample may be the same number everywhere, and so have no range.
            for noise in ({"noise_level": 1.0}, {"noise_std": 1.0}):
                draws: dict[str, Any] = {**noise, "n_iter": _DRAWS, **made}
                squares = self.quick(SquareGrad(self.model, **draws))
                if not any(bool((one > 0).any()) for one in squares):
                    return False  # no gradient at all: the score goes by steps, or not at all
                changes = self.quick(VarGrad(self.model, **draws))
                if not _vanish([one.sqrt() for one in changes], [one.sqrt() for one in squares]):
                    return False
            if not at_inputs:
                return True
            products = self.quick(GradientXInput(self.model, **made))
            ways = self.quick(IntegratedGradients(self.model, n_steps=_DRAWS, gap_tolerance=None, **made))
            return _vanish([one - other for one, other in zip(ways, products, strict=True)], products)
        except Exception:
            return False  # what is wrong will be found, and said, of each explainer

    def _counted(self, explainer: PerturbationExplainer, call: Call) -> int:
        with torch.inference_mode(False), torch.no_grad(), without_warnings():
            reference = explainer.reference_call(call)
            with left_as_found(explainer.model), explainer.attributor.at(call, floats=False) as bound:
                return max(explainer.cover(bound, reference).counts, default=0)

    @staticmethod
    def _explained(explainer: Explainer, inputs: Any, targets: Targets) -> list[torch.Tensor]:
        """The attributions; zeros where they are what rounding makes of scores that do not change."""
        with without_warnings():
            explanation = explainer.explain(inputs, targets)
        found, output = tensors(explanation.attributions), explanation.output
        if output is None or not output.is_floating_point():
            return found
        if bool(output.isnan().any()):
            raise Refused("the model gives nan here, which nothing explains")
        if not isinstance(explainer, PerturbationExplainer) or not output.numel():
            return found
        # In half precision scores that differ at all differ by much more than what is computed from them is rounded by.
        eps = min(torch.finfo(output.dtype).eps, torch.finfo(torch.float32).eps)
        rounding = 8 * eps * float(_scores(explainer, output, targets).abs().max())
        return [torch.where(one.abs() <= rounding, 0.0, one) for one in found]


def _cheaper(explainer: Explainer) -> Explainer:
    """The explainer with few points or copies, if it is one of ours; a user's own stays what it is."""
    if not type(explainer).__module__.startswith("pnpx."):
        return explainer
    own = {one.name: getattr(explainer, one.name) for one in fields(explainer) if one.name in ("n_iter", "n_steps")}
    fewer: dict[str, Any] = {name: _DRAWS for name, value in own.items() if value > _DRAWS}
    return replace(explainer, progress=False, **fewer)


def _scores(explainer: Explainer, output: torch.Tensor, targets: Targets) -> torch.Tensor:
    """The scores of the samples themselves; the whole output where a function makes scores of it."""
    if callable(explainer.score) or callable(targets):
        return output
    objective = replace(explainer.objective, output_extractor=None)
    aim = objective.aim(objective.read_targets(targets), None, len(output), lambda: output)
    return torch.stack([one.detach() for one in aim.scores(output, 1)])


def _vanish(small: list[torch.Tensor], large: list[torch.Tensor]) -> bool:
    """Whether all of some numbers are zero, to rounding, beside others."""
    most = max(float(one.abs().max()) for one in large if one.numel())
    rounding = max(1e-5, *(10 * torch.finfo(one.dtype).eps for one in small))
    return all(float(one.abs().max()) <= rounding * most for one in small if one.numel())


@contextmanager
def without_warnings() -> Iterator[None]:
    """Around a trial: few points miss much, and what else there is to warn of, the explanation itself will say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind, if it says nothing."""
    said = error.args[0] if isinstance(error, LookupError) and error.args else error
    lines = str(said).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
