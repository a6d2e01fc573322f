"""Explainers that change groups of features and see how the score changes: the loop that they share.

A `Design` says which groups are kept in which copies of a sample, and what the scores of these say of each group. A
`Game` gives the scores of such copies. So a method is a design, and works wherever there is a game: at the inputs and
at layers by `PlaceGame`; for texts that lose words, and with them their length, by a game of their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from pnpx.attributors import Bound
from pnpx.baselines import Baseline, baseline_call, require_finite
from pnpx.explainers.absence import absent_values
from pnpx.explainers.base import Explainer
from pnpx.explainers.covers import Cover, Partition
from pnpx.extractors import Call
from pnpx.masks import Groups, check_groups, numbered
from pnpx.scores import Aim, Targets


class Design(ABC):
    """Edited copies of a sample with so many groups, and what their scores say of each group."""

    rows: int
    """How many copies."""

    @abstractmethod
    def kept(self, start: int, stop: int) -> Tensor:
        """What these copies keep of each group, (stop - start, groups): bools, or floats from 0, nothing, to 1, all."""

    @abstractmethod
    def worth(self, scores: Tensor, clean: Tensor) -> Tensor:
        """What each group is worth, (n, groups), from the ``scores`` of the copies, (n, rows), and of the sample
        itself, (n,), all in float64 on the CPU."""


class Game(ABC):
    """The scores of copies of samples of which only some groups are kept.

    Attributes:
        counts: how many groups each sample has.
        clean: the scores of the samples themselves, (targets, batch).
    """

    counts: Sequence[int]
    clean: Tensor

    @property
    @abstractmethod
    def copies(self) -> int:
        """How many copies of each sample may share a pass."""

    @abstractmethod
    def play(self, kept: Tensor) -> Tensor:
        """The scores, (targets, copies, batch), of copies that keep ``kept`` of the groups, (copies, batch, groups).

        ``kept`` is of bools or floats, on the CPU; what lies behind the number of groups of a sample is kept.
        """


class PlaceGame(Game):
    """The game at a place: what is not kept is replaced.

    Args:
        bound: the place.
        aim: the scores.
        cover: the groups.
        absent: what replaces each tensor, of its shape. Between all and nothing, floats are blended, and what is not
            float is kept from a half on.
        batch_size: the most rows in a pass.
    """

    def __init__(self, bound: Bound, aim: Aim, cover: Cover, absent: Sequence[Tensor], batch_size: int) -> None:
        self._bound, self._aim, self._cover, self._absent = bound, aim, cover, absent
        self._rows = batch_size
        self.counts = cover.counts
        self.clean = torch.stack(aim.scores(bound.output, 1)).detach()

    @property
    def copies(self) -> int:
        return max(1, self._rows // self._bound.batch_size) if self._bound.several else 1

    def play(self, kept: Tensor) -> Tensor:
        parts = []
        for value, keep, absent in zip(self._bound.values, self._cover.keeps(kept), self._absent, strict=True):
            if keep.dtype == torch.bool or not value.tensor.is_floating_point():
                edited = torch.where(keep >= 0.5 if keep.dtype != torch.bool else keep, value.tensor, absent)
            else:
                # Where all is kept there must be the value itself, also where it is infinite.
                blend = absent + keep.to(absent.dtype) * (value.tensor - absent)
                edited = torch.where(keep == 1, value.tensor, blend)
            parts.append(edited.unbind(0))
        return self._bound.scores(list(zip(*parts, strict=True)), self._aim)


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
        from tqdm.auto import tqdm

        designs = {count: self.design(count) for count in sorted(set(game.counts)) if count}
        rows, widest = max((design.rows for design in designs.values()), default=0), max(game.counts, default=0)
        members = {count: [b for b, own in enumerate(game.counts) if own == count] for count in designs}
        scores: list[Tensor] = []
        start, limit = 0, rows
        with tqdm(total=rows, desc=type(self).__name__, unit="copy", leave=False, disable=not self.progress) as bar:
            while start < rows:
                stop = min(start + min(game.copies, limit), rows)
                blocks = {c: d.kept(start, min(stop, d.rows)) for c, d in designs.items() if start < d.rows}
                # A sample whose design is over takes part as it is.
                kept = torch.ones(stop - start, len(game.counts), widest, dtype=next(iter(blocks.values())).dtype)
                for count, block in blocks.items():
                    kept[: len(block), members[count], :count] = block[:, None]
                try:
                    scores.append(game.play(kept).to("cpu", torch.float64))
                except torch.cuda.OutOfMemoryError:
                    if stop - start == 1:
                        raise
                    torch.cuda.empty_cache()
                    limit = (stop - start) // 2
                    continue
                bar.update(stop - start)
                start = stop
        clean = game.clean.to("cpu", torch.float64)
        worth = torch.zeros(*clean.shape, widest, dtype=torch.float64)
        for count, design in designs.items():
            own = torch.cat(scores, dim=1)[:, : design.rows, members[count]] if scores else clean[:, :0, None]
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
