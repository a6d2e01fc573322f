"""Explaining text models: text is a way in and a way out around the explainers of pnpx."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from pnpx.attributors import left_as_found
from pnpx.explainers.base import Explainer
from pnpx.suggest import nearest
from pnpx.text.aggregate import AGGREGATIONS, REDUCTIONS, aggregate, both_sides, reduce_embedding
from pnpx.text.generation import Contrast, generated, shifted
from pnpx.text.granularity import GRANULARITIES, Granularity, units
from pnpx.text.reading import Reading, Texts, is_single, read, read_target
from pnpx.text.record import TextExplanation
from pnpx.text.targets import Classes, Outputs, classes_of, label_names
from pnpx.text.tasks import SPAN, Task, configuration, detect, length_limit, logits_of, span_of

_OWN = ("granularity", "aggregation", "reduce")


class TextExplainer:
    """An explainer for texts: classification, token classification, question answering, masked tokens, generation.

    Neither model nor tokenizer is changed. What the model does is found by what it returns.

    >>> from pnpx import SquareGrad
    >>> TextExplainer(SquareGrad, torch.nn.Identity(), None, granularity="words")
    Traceback (most recent call last):
    ValueError: granularity must be one of all_tokens, token, word, sentence, or character spans, but got 'words'; the \
nearest: 'word'

    Args:
        method: an explainer of pnpx, or your own.
        model: a module that takes ``input_ids``, such as a ``PreTrainedModel``.
        tokenizer: of transformers.
        granularity: what gets a score: "all_tokens", "token" (no special ones), "word", "sentence", or character spans.
        aggregation: how the scores of tokens become those of units: "mean", "max", "min", "sum", "signed_max".
        reduce: how the components of a token's embedding become its score: "abs_mean", "l2", or "sum" (signed; the
            scores of methods that add up then still do).
        **parameters: those of the method. ``layer`` is where token ids become vectors unless it is given.
    """

    def __init__(
        self,
        method: type[Explainer],
        model: nn.Module,
        tokenizer: Any,
        *,
        granularity: Granularity = "word",
        aggregation: str = "mean",
        reduce: str = "abs_mean",
        **parameters: Any,
    ) -> None:
        if not (isinstance(method, type) and issubclass(method, Explainer)):
            raise TypeError(f"method must be an explainer class, such as pnpx.SquareGrad, but is {method!r}")
        known = [item.name for item in fields(method) if item.init and item.name != "model"]
        for name in parameters:
            if name not in known:
                raise TypeError(f"{method.__name__} has no parameter {name!r}; {nearest(name, [*known, *_OWN])}")
        if isinstance(granularity, str) and granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity must be one of {', '.join(GRANULARITIES)}, or character spans, but got {granularity!r}; "
                f"{nearest(granularity, GRANULARITIES)}"
            )
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, but got {aggregation!r}")
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, but got {reduce!r}")
        self.method, self.model, self.tokenizer = method, model, tokenizer
        self.granularity, self.aggregation, self.reduce = granularity, aggregation, reduce
        self.parameters = parameters

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        what = f"{self.method.__name__}, {type(self.model).__name__}, granularity={self.granularity!r}"
        return f"TextExplainer({what}{more})"

    def __call__(self, texts: Texts, targets: Any = None, **generation: Any) -> Any:
        """Explain texts.

        Args:
            texts: a text, a pair (a tuple), a list of words in a list, a list of these, or a mapping of ids.
            targets: for classification None (the class predicted), an index, a label, or for each text one or several;
                for tokens and masks None, or (position, class) pairs for each text; for generation a text, token ids,
                a `Contrast`, one for each prompt, or None: what the model generates.
            **generation: arguments of the model's ``generate``, where it is asked to.

        Returns:
            A list of `TextExplanation`, one a text, in their order; empty for an empty list.
        """
        readings = read(self.tokenizer, texts, length_limit(self.model, self.tokenizer))
        if not readings:
            return []
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        first = {name: value.to(device) for name, value in _padded(readings[:1], self._pad).items()}
        task = detect(self.model, first)
        if generation and task.kind not in ("causal", "encoder_decoder"):
            raise TypeError(f"{next(iter(generation))!r} is for models that generate, but this one does not")
        if task.kind == "sequence":
            return self._classified(readings, classes_of(targets, len(readings), is_single(texts), self._labels), task)
        wanted = self._each(targets, len(readings), is_single(texts), task)
        return [
            self._outputs(reading, target, task, generation) for reading, target in zip(readings, wanted, strict=True)
        ]

    @property
    def _labels(self) -> dict[int, str]:
        return label_names(self.model)

    @property
    def _pad(self) -> int:
        """What fills up short texts; never seen by the model's attention."""
        for owner in (configuration(self.model), self.tokenizer):
            if getattr(owner, "pad_token_id", None) is not None:
                return int(owner.pad_token_id)
        return 0

    @staticmethod
    def _each(targets: Any, n_texts: int, single: bool, task: Task) -> list[Any]:
        if targets is None or isinstance(targets, (str, Contrast)):
            return [targets] * n_texts
        if single or (isinstance(targets, Tensor) and targets.ndim == 1):
            nested = isinstance(targets, list) and len(targets) == 1 and not isinstance(targets[0], int)
            return [targets[0] if nested and task.kind in ("causal", "encoder_decoder") else targets] * n_texts
        if len(targets) != n_texts:
            raise ValueError(f"there must be a target for each of the {n_texts} texts, but there are {len(targets)}")
        return list(targets)

    def _explainer(self, task: Task, **more: Any) -> Explainer:
        parameters = {**self.parameters, **more}
        if "layer" not in parameters:
            parameters["layer"] = task.layer
        return self.method(self.model, **parameters)

    # Classification: several texts a pass, those of like length together

    def _classified(self, readings: list[Reading], wanted: list[Classes], task: Task) -> list[TextExplanation]:
        found: dict[int, TextExplanation] = {}
        for chosen in self._chunks(readings, wanted):
            some = [readings[index] for index in chosen]
            classes = [wanted[index] for index in chosen]
            batch = _padded(some, self._pad)
            explainer = self._explainer(
                task,
                forward_arg_extractor="input_ids",
                additional_forward_arg_extractor=[name for name in batch if name != "input_ids"],
                padding_mask_extractor="attention_mask",
            )
            targets = None
            if classes[0].indices is not None:
                targets = torch.tensor([one.indices for one in classes])
                targets = targets[:, 0] if classes[0].single else targets
            start = time.perf_counter()
            explanation = explainer.explain(batch, targets)
            seconds = (time.perf_counter() - start) / len(chosen)
            for row, index in enumerate(chosen):
                found[index] = self._classification(explanation, row, some[row], classes[row], explainer, seconds)
        return [found[index] for index in range(len(readings))]

    def _chunks(self, readings: list[Reading], wanted: list[Classes]) -> Iterator[list[int]]:
        """Which texts are explained together: of like length, with as many targets, at most ``batch_size``."""
        size = int(self.parameters.get("batch_size", Explainer.batch_size))
        config = configuration(self.model)
        if getattr(config, "pad_token_id", None) is None:
            size = 1  # such a model may look for the last token that is no padding, and needs to know which that is
        groups: dict[Any, list[int]] = {}
        for index, classes in enumerate(wanted):
            groups.setdefault((classes.indices is None, classes.single, len(classes.indices or ())), []).append(index)
        for group in groups.values():
            group.sort(key=lambda index: len(readings[index]))
            while group:
                shortest = len(readings[group[0]])
                fitting = [index for index in group[:size] if len(readings[index]) <= 1.5 * shortest + 8]
                yield fitting
                group[:] = group[len(fitting) :]

    def _classification(
        self, explanation: Any, row: int, reading: Reading, classes: Classes, explainer: Explainer, seconds: float
    ) -> TextExplanation:
        several = not classes.single and classes.indices is not None
        scores = self._of_tokens(self._joined(explanation.attributions)[row], len(reading), several)
        parts = units(reading.encoded, self.granularity)
        names = self._labels
        chosen: Sequence[int] = classes.indices or ()
        if classes.indices is None and explanation.targets is not None:
            chosen = [int(explanation.targets[row])]
        output = explanation.output[row].float()
        probabilities = output.softmax(-1) if output.ndim and len(output) > 1 else None
        predicted = None if explanation.prediction is None else int(explanation.prediction[row])
        return TextExplanation(
            texts=reading.encoded.joined,
            units=tuple(parts),
            scores=aggregate(scores, parts, self.aggregation).cpu(),
            targets=tuple(chosen),
            target_names=tuple(names.get(index, str(index)) for index in chosen),
            probabilities=None if probabilities is None else tuple(float(probabilities[index]) for index in chosen),
            prediction=None if predicted is None else names.get(predicted, str(predicted)),
            probability=None if explanation.probability is None else float(explanation.probability[row]),
            granularity=self.granularity if isinstance(self.granularity, str) else "spans",
            aggregation=self.aggregation,
            explainer=explainer.parameters,
            seconds=seconds,
            diagnostics={name: value[row].cpu() for name, value in explanation.diagnostics.items()},
        )

    def _joined(self, attributions: Any) -> Tensor:
        """One tensor of attributions: where encoder and decoder read the text, of both sides."""
        sides = attributions if isinstance(attributions, tuple) else (attributions,)
        if len(sides) == 2 and "layer" not in self.parameters:
            return both_sides(*sides)
        if len(sides) != 1 or not isinstance(sides[0], Tensor):
            raise TypeError(
                "the scores of a text come from one tensor (batch, length, width), but there is "
                f"{len(sides)} at layer={self.parameters.get('layer')!r}; choose a layer that gives a single tensor"
            )
        return sides[0]

    def _of_tokens(self, attributions: Tensor, length: int, several: bool) -> Tensor:
        """Scores of tokens, ([targets,] length), from attributions of their embeddings, ([targets,] padded, width)."""
        reduced = reduce_embedding(attributions, self.reduce)
        return reduced[:, :length] if several else reduced[:length]

    # Outputs at positions: one text a pass, all its outputs from it

    def _outputs(self, reading: Reading, target: Any, task: Task, generation: dict[str, Any]) -> TextExplanation:
        start = time.perf_counter()
        batch = _padded([reading], self._pad)
        encoded, length = reading.encoded, len(reading)
        causal = None
        if task.kind in ("causal", "encoder_decoder"):
            following, against = self._continuation(reading, target, task, generation)
            encoded, count = encoded.then(following.encoded), len(following)
            names = tuple(unit.text for unit in units(following.encoded, "all_tokens"))
            positions = torch.arange(count)
            if task.kind == "causal":
                positions = positions + length - 1
                batch = _padded([Reading(torch.cat([reading.ids, following.ids]), encoded)], self._pad)
            else:
                batch["decoder_input_ids"] = shifted(self.model, following.ids)[None]
            outputs = Outputs(positions, following.ids, names, against)
            causal = torch.ones(count, length + count).tril(length - 1).bool()
        else:
            outputs = self._chosen(reading, target, task, batch)
        mode = self.parameters.get("inference_mode", "logits")
        explainer = self._explainer(
            task,
            forward_arg_extractor="input_ids",
            additional_forward_arg_extractor=[name for name in batch if name != "input_ids"],
            output_extractor=lambda output: outputs.read(output, mode),
            inference_mode="logits",
        )
        explanation = explainer.explain(batch, torch.arange(len(outputs.names))[None])
        attributions = explanation.attributions
        if task.kind != "encoder_decoder":
            attributions = self._joined(attributions)
        sides = attributions if isinstance(attributions, tuple) else (attributions,)
        scores = [reduce_embedding(side[0], self.reduce) for side in sides]
        if len(scores) == 2:  # the decoder reads what it generated one step later, its start token first
            own = torch.nn.functional.pad(scores[1][:, 1:], (0, 1))
            scores = [torch.cat([scores[0], own], dim=1)]
        parts = units(encoded, self.granularity)
        probabilities = self._probabilities(outputs, batch)
        return TextExplanation(
            texts=encoded.joined,
            units=tuple(parts),
            scores=aggregate(scores[0].cpu(), parts, self.aggregation, causal),
            targets=tuple(outputs.indices.tolist()),
            target_names=outputs.names,
            probabilities=probabilities,
            generation=causal is not None,
            granularity=self.granularity if isinstance(self.granularity, str) else "spans",
            aggregation=self.aggregation,
            explainer={**explainer.parameters, "inference_mode": mode, "output_extractor": None},
            seconds=time.perf_counter() - start,
            diagnostics={name: value[0].cpu() for name, value in explanation.diagnostics.items()},
        )

    def _probabilities(self, outputs: Outputs, batch: dict[str, Tensor]) -> tuple[float, ...]:
        plain = Outputs(outputs.positions, outputs.indices, outputs.names, None, outputs.parts)
        device = next(self.model.parameters()).device
        with left_as_found(self.model), torch.no_grad():
            found = self.model(**{name: value.to(device) for name, value in batch.items()})
        return tuple(plain.read(found, "softmax")[0].float().tolist())

    def _continuation(
        self, reading: Reading, target: Any, task: Task, generation: dict[str, Any]
    ) -> tuple[Reading, Tensor | None]:
        """The tokens generated, and those they are contrasted with."""
        if isinstance(target, Contrast):
            this, other = read_target(self.tokenizer, target.this), read_target(self.tokenizer, target.rather_than)
            count = min(len(this), len(other))
            return read_target(self.tokenizer, this.ids[:count]), other.ids[:count]
        if target is not None:
            return read_target(self.tokenizer, target), None
        return generated(self.model, self.tokenizer, reading, task.kind == "encoder_decoder", generation), None

    def _chosen(self, reading: Reading, target: Any, task: Task, batch: dict[str, Tensor]) -> Outputs:
        """The outputs explained of a model that labels tokens, fills in masks or finds a span."""
        device = next(self.model.parameters()).device
        with left_as_found(self.model), torch.no_grad():
            output = self.model(**{name: value.to(device) for name, value in batch.items()})
        if task.kind == "span":
            best = [int(one) for one in target or [part[0].argmax() for part in span_of(output) or ()]]
            names = tuple(
                f"{what}: {reading.encoded.tokens[at]}" for what, at in zip(("start", "end"), best, strict=True)
            )
            return Outputs(torch.zeros(2, dtype=torch.long), torch.tensor(best), names, parts=SPAN)
        logits = cast(Tensor, logits_of(output))
        if task.kind == "masked":
            places = (reading.ids == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            if target is None and not places:
                raise ValueError(
                    f"there is no {self.tokenizer.mask_token} in the text; say what is explained: targets="
                )
        else:
            flags = reading.encoded.special_tokens_mask or [0] * len(reading)
            places = [index for index, special in enumerate(flags) if not special]
        if target is None:
            pairs = [(place, int(logits[0, place].argmax())) for place in places]
        elif isinstance(target, str):
            pairs = [(place, self._class(target, task)) for place in places]
        else:
            pairs = [(int(place), self._class(one, task)) for place, one in target]
        labels = self._labels
        tokens = reading.encoded.tokens
        names = tuple(
            f"{tokens[place]}: {labels.get(index, index)}"
            if task.kind == "tokens"
            else str(self.tokenizer.convert_ids_to_tokens(index))
            for place, index in pairs
        )
        return Outputs(torch.tensor([place for place, _ in pairs]), torch.tensor([index for _, index in pairs]), names)

    def _class(self, target: Any, task: Task) -> int:
        if task.kind == "tokens":
            return classes_of(target, 1, True, self._labels)[0].indices[0]  # type: ignore[index]
        return int(self.tokenizer.convert_tokens_to_ids(target)) if isinstance(target, str) else int(target)


def _padded(readings: Sequence[Reading], pad: int) -> dict[str, Tensor]:
    """What the model is called with: (batch, length) each, short texts filled up on the right."""
    length = max(len(reading) for reading in readings)

    def stack(rows: list[Tensor], filling: int) -> Tensor:
        return torch.stack([torch.nn.functional.pad(row, (0, length - len(row)), value=filling) for row in rows])

    batch = {
        "input_ids": stack([reading.ids for reading in readings], pad),
        "attention_mask": stack([torch.ones_like(reading.ids) for reading in readings], 0),
    }
    for name in readings[0].extras:
        batch[name] = stack([reading.extras[name] for reading in readings], 0)
    return batch
