"""Units of texts taken away for good: the scores of the shorter texts that are left."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pnpx.attributors import left_as_found
from pnpx.explainers.games import Game
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explainers.record import predicted
from pnpx.scores import Objective
from pnpx.text.batching import padded
from pnpx.text.encoded import Encoded
from pnpx.text.scoring import Job, Scored, described, made
from pnpx.text.unpadded import Reading

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer

Play = Callable[[list[Reading], Tensor, list[Tensor]], Tensor]
"""What the model says, (texts, scores), of texts: what is left of them, of which sample each is a copy, and which
positions of it, (length,) bools, are left."""

_NOTHING_LEFT = (
    "with replacement='delete' nothing is left of a text once all its units are taken away, and the model reads at "
    "least one token; choose another replacement, or give token ids that begin with a special token"
)


class DeletionGame(Game):
    """Copies of texts without some of their units.

    A copy has the length of what is left: nothing stands where a unit was, and what followed it comes that much sooner.

    Args:
        readings: the texts.
        numbers: the unit of each token, (length,), below 0 for those that always stay.
        play: see `Play`.
        batch_size: the most copies in a pass.
    """

    def __init__(self, readings: Sequence[Reading], numbers: Sequence[Tensor], play: Play, batch_size: int) -> None:
        self._readings, self._play, self._rows = readings, play, batch_size
        self._places: list[Tensor] = []
        self.counts: list[int] = []
        for own in numbers:
            present = _present(own)
            ranks = {number: rank for rank, number in enumerate(present)}
            # Those that stay have a place of their own, behind the last.
            self._places.append(torch.tensor([ranks.get(number, len(present)) for number in own.tolist()]))
            self.counts.append(len(present))
        widest = max(self.counts)
        self.table = self._tabled(torch.ones(1, len(readings), widest, dtype=torch.bool))

    def aim_at(self, objective: Objective, targets: Tensor | None) -> None:
        """Choose the scores: those of ``targets``, or of what is predicted."""
        self.aim = objective.aim(targets, None, len(self._readings), lambda: self.table)
        self.clean = torch.stack(self.aim.scores(self.table, 1))

    @property
    def copies(self) -> int:
        return max(1, 4 * self._rows // len(self._readings))  # some passes' worth, to be sorted by length

    def play(self, kept: Tensor) -> Tensor:
        scores = torch.stack(
            self.aim.scores(self._tabled(kept >= 0.5 if kept.is_floating_point() else kept), len(kept))
        )
        return scores.reshape(len(scores), len(kept), -1)

    def _tabled(self, kept: Tensor) -> Tensor:
        """What the model says of the copies, (copies * texts, scores)."""
        lefts = []
        for of_copy in kept:
            for own, places, count in zip(of_copy, self._places, self.counts, strict=True):
                left = torch.cat([own[:count], torch.ones(1, dtype=torch.bool)])[places]
                if not left.any():
                    raise ValueError(_NOTHING_LEFT)
                lefts.append(left)
        owners = torch.arange(len(self._readings)).repeat(len(kept))
        order = sorted(range(len(lefts)), key=lambda row: int(lefts[row].sum()))
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), self._rows):
            rows = order[start : start + self._rows]
            texts = [without(self._readings[int(owners[row])], lefts[row]) for row in rows]
            said = self._play(texts, owners[rows], [lefts[row] for row in rows])
            found.update(zip(rows, said, strict=True))
        return torch.stack([found[row] for row in range(len(order))])


def _present(numbers: Tensor) -> list[int]:
    """The units that have a token to take away, in their order."""
    return sorted({number for number in numbers.tolist() if number >= 0})


def without(reading: Reading, left: Tensor) -> Reading:
    """What is left of a reading, where (length,) bools say what is; positions are counted anew."""
    count = int(left.sum())
    extras = {name: value[:count] if name == "position_ids" else value[left] for name, value in reading.extras.items()}
    return Reading(reading.ids[left], Encoded(("",), (), ()), extras)


def by_deletion(explain: "TextExplainer", job: Job, targets: Tensor | None) -> Scored:
    """What units are worth, each deleted as a whole.

    Raises:
        ValueError: nothing is left of a text, or each of its tokens is asked about.
    """
    batch = job.batch(explain.pad)
    explainer = made(explain, job, batch)
    if not isinstance(explainer, PerturbationExplainer):
        raise TypeError(f"only explainers that perturb delete units, but {explain.method.__name__} does not")
    outputs, objective = job.outputs, explainer.objective
    table_of = Objective(objective.score, objective.output_extractor)
    device = next(explain.model.parameters()).device
    numbers = job.numbers()
    if outputs is not None:
        numbers = [torch.where(torch.isin(torch.arange(len(own)), outputs.asked), -1, own) for own in numbers]
        if len(outputs.asked) and not (numbers[0] >= 0).any():
            raise ValueError(
                "with replacement='delete' the tokens that are asked about stay, and here these are all; say which "
                "are: targets=, or choose another replacement"
            )

    def play(texts: list[Reading], owners: Tensor, lefts: list[Tensor]) -> Tensor:
        passed = {**padded(texts, explain.pad), **{name: value[owners] for name, value in job.along.items()}}
        said = explain.model(**{name: value.to(device) for name, value in passed.items()})
        if outputs is None:
            table = table_of.read(said)
        else:
            places = torch.stack([left.cumsum(0) - 1 for left in lefts])  # one text, so all are as long
            if outputs.kind == "causal" and int(places[:, outputs.positions].min()) < 0:
                raise ValueError(_NOTHING_LEFT)
            table = outputs.read(said, explain.inference_mode, places, passed["attention_mask"].bool())
        if not isinstance(table, Tensor):
            raise TypeError(f"the model must return a tensor of scores, but returned a {type(said).__name__}")
        return table.detach().cpu()

    with torch.inference_mode(False), torch.no_grad(), left_as_found(explain.model):
        game = DeletionGame(job.readings, numbers, play, explain.rows)
        game.aim_at(replace(objective, output_extractor=None), targets)
        worth = explainer.solve(game)
    scores = []
    for row, (own, units) in enumerate(zip(numbers, job.units, strict=True)):
        of_units = torch.zeros(len(worth), len(units), dtype=worth.dtype)
        present = _present(own)
        of_units[:, present] = worth[:, row, : len(present)]
        scores.append(of_units[0] if game.aim.n_targets is None else of_units)
    prediction, probability = predicted(explainer, game.table)
    return Scored(scores, described(explain, explainer), game.aim.resolved, game.table, prediction, probability)
