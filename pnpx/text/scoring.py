"""From texts to the scores of their units: by gradients at the embeddings, or by what the units' absence changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pnpx.explainers.base import Explainer
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explanation import Explanation
from pnpx.structure import tensors
from pnpx.text.aggregate import aggregate, both_sides, reduce_embedding
from pnpx.text.batching import padded
from pnpx.text.embedding import layer_of
from pnpx.text.encoded import Encoded
from pnpx.text.granularity import Unit
from pnpx.text.replacement import special_ids
from pnpx.text.targets import Outputs
from pnpx.text.unpadded import Reading

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer


@dataclass(frozen=True)
class Job:
    """Texts that are explained together.

    Attributes:
        readings: what the model reads.
        units: those of each text. Their tokens are positions in its reading, or behind it where a decoder reads on.
        held: of each reading, the positions of the tokens that are never taken away.
        places: where token ids become vectors.
        along: what the model is called with beside what it reads, (texts, ...) each.
        outputs: which outputs at positions are explained; None: classes.
        causal: whether each output depends on each token, (outputs, tokens); None: all do.
        encoded: the tokens that the units are of, where these are not those of the reading alone.
    """

    readings: Sequence[Reading]
    units: Sequence[Sequence[Unit]]
    held: Sequence[set[int]]
    places: tuple[str, ...]
    along: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Outputs | None = None
    causal: Tensor | None = None
    encoded: Encoded | None = None

    def batch(self, pad: int) -> dict[str, Tensor]:
        """What the model is called with."""
        return {**padded(self.readings, pad), **self.along}

    def numbers(self) -> list[Tensor]:
        """The unit of each token of each reading, (length,), below 0 for those that are never taken away."""
        found = []
        for reading, units, held in zip(self.readings, self.units, self.held, strict=True):
            numbers = torch.full((len(reading),), -1)
            for number, unit in enumerate(units):
                for position in unit.tokens:
                    if position < len(reading) and position not in held:
                        numbers[position] = number
            found.append(numbers)
        return found


@dataclass(frozen=True)
class Scored:
    """What was found: for each text the scores of its units, ([targets,] units), and what the model said."""

    scores: Sequence[Tensor]
    explainer: Mapping[str, Any]
    targets: Tensor | None
    output: Tensor | None
    prediction: Tensor | None
    probability: Tensor | None
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Sequence[Tensor], explainer: Mapping[str, Any], explanation: Explanation) -> "Scored":
        """Scores made of an explanation of the core."""
        diagnostics = {name: value for name, value in explanation.diagnostics.items() if name != "by_group"}
        return cls(
            scores,
            explainer,
            explanation.targets,
            explanation.output,
            explanation.prediction,
            explanation.probability,
            diagnostics,
        )


def score(explain: "TextExplainer", job: Job, targets: Tensor | None) -> Scored:
    """The scores of the units for ``targets``, (texts,) or (texts, targets), or for what is predicted."""
    if not issubclass(explain.method, PerturbationExplainer):
        return _by_gradients(explain, job, targets)
    if explain.absent == "delete":
        from pnpx.text.deletion import by_deletion

        return by_deletion(explain, job, targets)
    return _by_replacement(explain, job, targets)


def _by_gradients(explain: "TextExplainer", job: Job, targets: Tensor | None) -> Scored:
    """Attributions of embeddings, reduced to scores of tokens, which are aggregated to those of units."""
    batch = job.batch(explain.pad)
    layer = explain.parameters["layer"] if "layer" in explain.parameters else layer_of(job.places)
    start = _start(explain, job, batch) if explain.has_path else {}
    explainer = made(explain, job, batch, layer=layer, **start)
    explanation = explainer.explain(batch, targets)
    sides = tensors(explanation.attributions)
    if len(sides) != (1 if "layer" in explain.parameters else len(job.places)):
        raise ValueError(
            f"texts are explained at one place, which has a vector for each token, but layer={layer!r} "
            f"has {len(sides)} tensors"
        )
    several = targets is not None and targets.ndim == 2
    for side in sides[:1]:
        if side.ndim != 3 + several or side.shape[-2] != batch["input_ids"].shape[1]:
            raise ValueError(
                f"at layer={layer!r} there must be a vector for each of the {batch['input_ids'].shape[1]} tokens, "
                f"(batch, length, width), but the attributions have shape {tuple(side.shape)}; choose another layer"
            )
    if len(sides) == 2 and "decoder_input_ids" not in job.along:  # both read the text itself
        sides = [both_sides(*sides)]
    found = []
    for row, (reading, units) in enumerate(zip(job.readings, job.units, strict=True)):
        scores = [reduce_embedding(side[row], explain.reduce) for side in sides]
        of_tokens = scores[0][..., : len(reading)]
        behind = 1 + max((position for unit in units for position in unit.tokens), default=0) - len(reading)
        if len(scores) == 2:  # the decoder reads what it generated one step later, its start token first
            of_tokens = torch.cat([of_tokens, torch.nn.functional.pad(scores[1][..., 1:], (0, 1))], dim=-1)
        elif behind > 0:
            of_tokens = torch.nn.functional.pad(of_tokens, (0, behind))
        found.append(aggregate(of_tokens.cpu(), units, explain.aggregation, job.causal))
    return Scored.of(found, described(explain, explainer), explanation)


def _start(explain: "TextExplainer", job: Job, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Where the paths of tokens begin, as parameters of the explainer: at another token, or at zero.

    Special tokens begin, and stay, where they are. So does the token that a decoder starts with.
    """
    absent = explain.absent
    if absent == "zero":
        return {"replacement": 0.0}
    special = torch.tensor(sorted(special_ids(explain.tokenizer)), dtype=torch.long)

    def without(ids: Tensor) -> Tensor:
        return torch.where(torch.isin(ids, special), ids, int(absent))

    if "decoder_input_ids" not in batch:
        return {"baseline": without(batch["input_ids"])}
    read = batch["decoder_input_ids"]
    ids = ("input_ids", "decoder_input_ids")
    return {
        "forward_arg_extractor": ids,
        "additional_forward_arg_extractor": [name for name in batch if name not in ids],
        "baseline": (without(batch["input_ids"]), torch.cat([read[:, :1], without(read[:, 1:])], dim=1)),
    }


def _by_replacement(explain: "TextExplainer", job: Job, targets: Tensor | None) -> Scored:
    """What units are worth, each replaced as a whole: at the token ids, or at a layer."""
    batch, absent = job.batch(explain.pad), explain.absent
    numbers = torch.nn.utils.rnn.pad_sequence(job.numbers(), batch_first=True, padding_value=-1)
    layer = explain.parameters.get("layer")
    parameters: dict[str, Any] = {"groups": numbers, "layer": layer}
    if absent == "zero":
        both = len(job.places) == 2 and "decoder_input_ids" not in job.along  # the decoder reads the text as well
        places = job.places if both else job.places[:1]
        parameters.update(layer=layer_of(places) if layer is None else layer, replacement=0.0)
    else:
        both = False
        parameters["baseline"] = torch.where(numbers >= 0, int(absent), batch["input_ids"])
    if parameters["layer"] is not None:
        parameters["groups"] = numbers[:, :, None]
        if both and layer is None:  # one step later, its start token first
            later = torch.nn.functional.pad(numbers[:, :-1], (1, 0), value=-1)
            parameters["groups"] = (numbers[:, :, None], later[:, :, None])
    explainer = made(explain, job, batch, **parameters)
    explanation = explainer.explain(batch, targets)
    by_group = explanation.diagnostics["by_group"].cpu()
    scores = []
    for row, units in enumerate(job.units):
        own = torch.zeros(*by_group.shape[1:-1], len(units), dtype=by_group.dtype)
        grouped = sorted({number for number in numbers[row].tolist() if number >= 0})
        own[..., grouped] = by_group[row][..., grouped]
        scores.append(own)
    return Scored.of(scores, described(explain, explainer), explanation)


def made(explain: "TextExplainer", job: Job, batch: Mapping[str, Tensor], **more: Any) -> Explainer:
    """The method, made for a batch."""
    parameters: dict[str, Any] = {
        "forward_arg_extractor": "input_ids",
        "additional_forward_arg_extractor": [name for name in batch if name != "input_ids"],
        "padding_mask_extractor": "attention_mask",
        **explain.parameters,
        **more,
    }
    outputs, mode = job.outputs, explain.inference_mode
    if outputs is not None:
        parameters["output_extractor"] = lambda output: outputs.read(output, mode)
        parameters["inference_mode"] = "logits"
    return explain.method(explain.model, **parameters)


def described(explain: "TextExplainer", explainer: Explainer) -> dict[str, Any]:
    """The explainer's parameters as the user gave them, rather than as they were made for one batch."""
    found = explainer.parameters
    made_here = {
        "forward_arg_extractor",
        "additional_forward_arg_extractor",
        "padding_mask_extractor",
        "groups",
        "baseline",
        "window",
        "stride",
    }
    if issubclass(explain.method, PerturbationExplainer) or explain.has_path:
        found = {name: value for name, value in found.items() if name not in made_here}
        absent = explain.absent
        found["replacement"] = absent if isinstance(absent, str) else explain.tokenizer.convert_ids_to_tokens(absent)
    else:
        found = {name: value for name, value in found.items() if name not in made_here or name == "baseline"}
    found["inference_mode"] = explain.inference_mode
    if "output_extractor" not in explain.parameters:
        found["output_extractor"] = None
    return found
