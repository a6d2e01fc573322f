"""Explainers that change groups of features and see how the score changes: the loop that they share.

A `Design` says which groups are kept in which copies of a sample, and what the scores of these say of each group. A
`Game` gives the scores of such copies. So a method is a design, and works wherever there is a game: at the inputs and
at layers by `PlaceGame`; for texts that lose words, and with them their length, by a game of their own.
"""

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.baselines import Baseline, baseline_call, require_finite
from pnpx.explainers.absence import absent_values
from pnpx.explainers.base import Explainer
from pnpx.explainers.covers import Cover, Partition
from pnpx.explainers.games import Design, Game, PlaceGame
from pnpx.extractors import Call
from pnpx.masks import Groups, check_groups, numbered
from pnpx.scores import Aim, Targets

__all__ = ["Design", "PerturbationExplainer"]


@dataclass(frozen=True)
class _Rows(Call):
    """The call of the baseline, and which samples of the whole batch it is for."""

    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    total: int = 0


@dataclass(frozen=True)
class PerturbationExplainer(Explainer):
    """Explains by the scores of copies in which groups of features are replaced. It needs no gradients.

    The result has the shape of what is explained; each element of a group gets what the whole group is worth. By group
    it is given by `by_group`, and in the ``diagnostics`` of `explain`. Integers, such as token ids, are explained as
    floats are. Inputs in a mapping whose names say that they are masks, token types or position ids are no features.

    A subclass says by its design which groups are kept in which copies, and what follows from their scores:

    >>> from dataclasses import dataclass
    >>> from pnpx.explainers.perturbation import Design, PerturbationExplainer
    >>> class Alone(Design):
    ...     def __init__(self, groups):
    ...         self.rows = groups
    ...     def kept(self, start, stop):
    ...         return torch.eye(self.rows, dtype=torch.bool)[start:stop]
    ...     def worth(self, scores, clean):
    ...         return scores
    >>> class OnlyOne(PerturbationExplainer):
    ...     def design(self, groups):
    ...         return Alone(groups)
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> OnlyOne(model).attribute(torch.tensor([[2.0, 5.0]]))
    tensor([[ 6., -5.]])

    Args:
        groups: which features belong together, see `pnpx.masks.Groups`; None: elements of vectors, steps of sequences,
            patches of images.
        baseline: what is absent, as an input: a number (a token id), a tensor, "zeros", "mean", "blur",
            `pnpx.baselines.Token`, a callable on the input, or one for each input. At a layer what it gives for that
            input takes the place of a group.
        replacement: what is absent, as a value at the layer itself, in the same forms; then ``baseline`` is not used.
    """

    _: KW_ONLY
    groups: Groups = None
    baseline: Baseline = 0.0
    replacement: Baseline | None = None

    needs_floats = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.groups)
        require_finite("baseline", self.baseline)
        # What is to be absent may be so by infinity at a layer, as the scores of attention are before their softmax.
        require_finite("replacement", self.replacement, infinite=True)

    @abstractmethod
    def design(self, groups: int) -> Design:
        """The copies of a sample with so many groups, one or more; the same whenever it is called."""

    def cover(self, bound: Bound, reference: Call | None) -> Cover:
        """The groups at the place."""
        if not isinstance(reference, _Rows):
            raise RuntimeError("perturbation explainers need the call that their reference_call returned")
        ids, count = numbered(bound, self.groups, self._channels, reference.rows, reference.total)
        return Partition(bound.values, ids, count)

    def reference_call(self, call: Call) -> Call:
        """The call of the baseline."""
        gone = call if self.replacement is not None else baseline_call(call, self.baseline)
        parts = {f.name: getattr(gone, f.name) for f in fields(Call)}
        return _Rows(**parts, rows=torch.arange(call.batch_size), total=call.batch_size)

    def explain_at(self, bound: Bound, aim: Aim, reference: Call | None) -> list[list[Tensor]]:
        """What the groups are worth, for each of their elements."""
        cover = self.cover(bound, reference)
        game = PlaceGame(bound, aim, cover, self._absent(bound, reference), self.rows)
        found = cover.spread(self.solve(game))
        return [
            [
                tensor.to(value.tensor.dtype if value.tensor.dtype == torch.float64 else tensor.dtype)
                for tensor, value in zip(of_target, bound.values, strict=True)
            ]
            for of_target in found
        ]

    def try_at(self, bound: Bound, aim: Aim, reference: Call | None) -> None:
        """The score of one copy, of which nothing is kept."""
        cover = self.cover(bound, reference)
        for count in {*cover.counts} - {0}:
            self.design(count)
        game = PlaceGame(bound, aim, cover, self._absent(bound, reference), self.rows)
        game.play(torch.zeros(1, len(cover.counts), max(cover.counts, default=0), dtype=torch.bool))

    def solve(self, game: Game) -> Tensor:
        """What the groups of each sample are worth, (targets, batch, groups), zero behind its own number of groups.

        The scores are those of one design for all samples of as many groups: a sample's result does not depend on the
        others. In float32, or float64 if the scores are.
        """
        designs = {count: self.design(count) for count in sorted(set(game.counts)) if count}
        rows, widest = max((design.rows for design in designs.values()), default=0), max(game.counts, default=0)
        members = {count: [b for b, own in enumerate(game.counts) if own == count] for count in designs}

        def kept(start: int, stop: int) -> Tensor:
            blocks = {c: d.kept(start, min(stop, d.rows)) for c, d in designs.items() if start < d.rows}
            # A sample whose design is over takes part as it is.
            whole = torch.ones(stop - start, len(game.counts), widest, dtype=next(iter(blocks.values())).dtype)
            for count, block in blocks.items():
                whole[: len(block), members[count], :count] = block[:, None]
            return whole

        scores = game.played(rows, kept, type(self).__name__, self.progress)
        clean = game.clean.to("cpu", torch.float64)
        worth = torch.zeros(*clean.shape, widest, dtype=torch.float64)
        for count, design in designs.items():
            own = scores[:, : design.rows, members[count]]
            flat = own.transpose(1, 2).reshape(-1, design.rows)
            found = design.worth(flat, clean[:, members[count]].reshape(-1))
            worth[:, members[count], :count] = found.reshape(len(clean), -1, count)
        return worth.to(torch.promote_types(game.clean.dtype, torch.float32))

    def by_group(self, inputs: Any, targets: Targets = None) -> Tensor:
        """What each group is worth: (batch, groups), or (batch, n_targets, groups) for several targets a sample.

        Groups are counted by their numbers, see `pnpx.masks.Groups`; NaN for numbers that a sample does not have.
        """
        *_, piece = self._all(inputs, targets, diagnose=True)
        if "by_group" not in piece.diagnostics:
            raise ValueError("windows overlap, and are no groups that elements belong to; give groups instead of them")
        return piece.diagnostics["by_group"]

    def diagnose(self, bound: Bound, aim: Aim, reference: Call | None, found: list[list[Tensor]]) -> dict[str, Tensor]:
        """What each group is worth, where elements belong to groups."""
        cover = self.cover(bound, reference)
        if not isinstance(cover, Partition):
            return {}
        by_group = cover.read(found)
        return {"by_group": by_group[:, 0] if aim.n_targets is None else by_group}

    def _absent(self, bound: Bound, reference: Call | None) -> list[Tensor]:
        """What replaces each tensor explained, of its shape."""
        if self.replacement is None:
            if reference is None:
                raise RuntimeError("perturbation explainers need the call of a baseline")
            found = bound.activations(reference)
        else:
            found = absent_values(bound.values, self.replacement)
        for absent, value in zip(found, bound.values, strict=True):
            if absent.shape != value.tensor.shape:
                raise ValueError(
                    f"the baseline gives shape {tuple(absent.shape)} at {bound.describe()}, but the input "
                    f"{tuple(value.tensor.shape)}; choose a baseline of the input's length, or give replacement"
                )
        return [absent.to(value.tensor) for absent, value in zip(found, bound.values, strict=True)]
