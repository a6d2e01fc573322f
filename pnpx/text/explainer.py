"""Explaining text models: text is a way in and a way out around the explainers of pnpx."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from pnpx.attributors import unwrapped
from pnpx.explainers.base import Explainer
from pnpx.explainers.gaps import withheld
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explainers.room import DEFAULT_ROWS
from pnpx.extractors import Signature
from pnpx.suggest import nearest
from pnpx.text.aggregate import AGGREGATIONS, REDUCTIONS
from pnpx.text.batching import padded
from pnpx.text.choice import targets_of
from pnpx.text.classification import classified
from pnpx.text.fitting import fitted, shortened
from pnpx.text.gaps import warn_of_texts
from pnpx.text.generation import count_of
from pnpx.text.granularity import GRANULARITIES, Granularity
from pnpx.text.positions import explained
from pnpx.text.reading import Texts, is_single, read
from pnpx.text.record import TextExplanation
from pnpx.text.replacement import Absent, Replacement, absent, special_ids
from pnpx.text.targets import classes_of, label_names
from pnpx.text.tasks import Task, configuration, detect, known_tokens, length_limit
from pnpx.text.unpadded import Reading

_OWN = ("granularity", "aggregation", "reduce", "replacement")
_GIVEN = {
    "forward_arg_extractor": "the token ids are what is explained",
    "additional_forward_arg_extractor": "what the tokenizer gives goes along",
    "padding_mask_extractor": "the attention mask is it",
    "groups": "the units are the groups; choose them by granularity=",
    "window": "the units are what is hidden; choose them by granularity=",
    "stride": "the units are what is hidden; choose them by granularity=",
    "reducer": "choose how the components of an embedding become one score by reduce=",
    "channel_axis": "the components of an embedding are the last axis; see reduce=",
}


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
            For methods that take units away it does not matter: these score each unit as a whole.
        reduce: how the components of a token's embedding become its score: "abs_mean", "l2", or "sum" (signed; the
            scores of methods that add up then still do).
        replacement: for methods that take units away, what takes their place: the "mask", "pad", "unk" or "eos" token,
            a token or its id, "zero" (of the embedding), or "delete" (nothing does: the text is shorter). None: the
            first of those tokens that there is, or else "zero". Special tokens, and what is generated, always stay.
            For methods with a baseline, such as IntegratedGradients, where the path of each token begins: likewise, but
            what is generated does not stay, nothing is deleted, and with "zero" special tokens begin there as well.
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
        replacement: Replacement = None,
        **parameters: Any,
    ) -> None:
        if not (isinstance(method, type) and issubclass(method, Explainer)):
            raise TypeError(f"method must be an explainer class, such as pnpx.SquareGrad, but is {method!r}")
        own = ("model", "replacement", *_GIVEN)
        known = [item.name for item in fields(method) if item.init and item.name not in own]
        for name in parameters:
            if name in _GIVEN:
                raise TypeError(f"{name!r} is no parameter of explanations of texts: {_GIVEN[name]}")
            if name not in known:
                raise TypeError(f"{method.__name__} has no parameter {name!r}; {nearest(name, [*known, *_OWN])}")
        if isinstance(granularity, str) and granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity must be one of {', '.join(GRANULARITIES)}, or character spans, but got {granularity!r}; "
                f"{nearest(granularity, GRANULARITIES)}"
            )
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f"aggregation must be one of {', '.join(AGGREGATIONS)}, but got {aggregation!r}; "
                f"{nearest(str(aggregation), AGGREGATIONS)}"
            )
        if reduce not in REDUCTIONS:
            raise ValueError(
                f"reduce must be one of {', '.join(REDUCTIONS)}, but got {reduce!r}; {nearest(str(reduce), REDUCTIONS)}"
            )
        self.method, self.model, self.tokenizer = method, model, tokenizer
        self.granularity, self.aggregation, self.reduce = granularity, aggregation, reduce
        self.replacement = replacement
        self.parameters = parameters
        if "baselines" in known:
            raise TypeError(
                f"{method.__name__} needs baselines of the length of each text, which texts do not have; choose "
                "pnpx.IntegratedGradients, whose path begins at replacement= (a token, or 'zero')"
            )
        if issubclass(method, PerturbationExplainer):
            if "baseline" in parameters:
                raise TypeError(
                    "'baseline' is no parameter of explanations of texts: say what takes the place of a "
                    "unit by replacement="
                )
            if replacement is not None:
                absent(tokenizer, replacement, known_tokens(model))
            if replacement == "delete" and parameters.get("layer") is not None:
                raise ValueError(
                    f"units are deleted from the text, not at layer={parameters['layer']!r}; leave layer "
                    "out, or choose another replacement"
                )
        elif "baseline" in known:
            if replacement is not None and "baseline" in parameters:
                raise TypeError("replacement and baseline both say where the path begins; leave one of them out")
            if replacement == "delete":
                raise ValueError(f"{method.__name__} deletes nothing; choose a token as replacement, or 'zero'")
            if replacement is not None:
                absent(tokenizer, replacement, known_tokens(model))
        elif replacement is not None:
            raise TypeError(
                f"replacement says what takes the place of a unit, but {method.__name__} replaces none; leave it out"
            )
        method(model, **parameters)  # which checks its parameters

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        what = f"{self.method.__name__}, {type(self.model).__name__}, granularity={self.granularity!r}"
        return f"TextExplainer({what}{more})"

    def __call__(self, texts: Texts, targets: Any = None, **generation: Any) -> list[TextExplanation]:
        """Explain texts.

        Args:
            texts: a text, a pair (a tuple), a list of words in a list, a list of these, or a mapping of ids.
            targets: for classification None (the class predicted), an index, a label, or for each text one or several;
                for tokens and masks None, a class or token for all, or (position, class) pairs for each text; for
                generation a text, token ids, a `Contrast`, one for each prompt, or None: what the model generates.
            **generation: arguments of the model's ``generate``, where it is asked to.

        Returns:
            One explanation a text, in their order; none for an empty list.

        Raises:
            ValueError, TypeError: a text is empty or no text; a target is none of the model's; there are not as many
                targets as texts.
        """
        readings = read(self.tokenizer, texts, None, known_tokens(self.model))
        if not readings:
            return []
        task = self._task(readings[0])
        single = is_single(texts)
        if generation and task.kind not in ("causal", "encoder_decoder"):
            raise TypeError(f"{next(iter(generation))!r} is for models that generate, but this one does not")
        with withheld() as each:
            if task.kind == "sequence":
                readings = self._fitting(readings, [None] * len(readings))
                wanted = classes_of(targets, len(readings), single, self.labels, task.classes)
                found = classified(self, readings, wanted, task)
            else:
                of_each = targets_of(targets, len(readings), single, task.kind)
                following: list[int | None] = [None] * len(readings)
                if task.kind == "causal":  # which reads prompt and continuation together
                    following = [
                        count_of(self.model, self.tokenizer, reading, target, generation)
                        for reading, target in zip(readings, of_each, strict=True)
                    ]
                readings = self._fitting(readings, following)
                found = [
                    explained(self, reading, target, task, generation)
                    for reading, target in zip(readings, of_each, strict=True)
                ]
        warn_of_texts(self, found, each)
        return found

    # What the ways of explaining ask for

    @property
    def limit(self) -> int | None:
        """The most tokens that the model reads."""
        return length_limit(self.model, self.tokenizer)

    @property
    def labels(self) -> dict[int, str]:
        """The names of the classes."""
        return label_names(self.model)

    @property
    def pad(self) -> int:
        """What fills up short texts; never seen by the model's attention."""
        count = known_tokens(self.model)
        for owner in (configuration(self.model), self.tokenizer):
            token = getattr(owner, "pad_token_id", None)
            if token is not None and 0 <= token < (count or token + 1):
                return int(token)
        return 0

    @property
    def rows(self) -> int:
        """The most texts in a pass."""
        if getattr(configuration(self.model), "pad_token_id", None) is None:
            return 1  # such a model may look for the last token that is no padding, and needs to know which that is
        return int(self.parameters.get("batch_size") or DEFAULT_ROWS)

    @property
    def inference_mode(self) -> str:
        """Which scores are explained: "logits", "softmax" or "log_softmax"."""
        return str(self.parameters.get("inference_mode", "logits"))

    @property
    def absent(self) -> Absent:
        """What takes the place of a unit: a token id, "zero" or "delete"."""
        return absent(self.tokenizer, self.replacement, known_tokens(self.model))

    @property
    def aggregated(self) -> str | None:
        """How the scores of tokens become those of units; None where units are scored whole."""
        return None if issubclass(self.method, PerturbationExplainer) else self.aggregation

    @property
    def has_path(self) -> bool:
        """Whether the method needs to be told where the paths of tokens begin."""
        baseline = any(item.name == "baseline" for item in fields(self.method))
        return baseline and not issubclass(self.method, PerturbationExplainer) and "baseline" not in self.parameters

    def held(self, reading: Reading) -> set[int]:
        """The positions of the tokens that are never taken away: those that stand for no part of the text."""
        special = special_ids(self.tokenizer)
        held = {place for place, token in enumerate(reading.ids.tolist()) if token in special}
        return held | {piece.position for piece in reading.encoded.pieces() if piece.sequence is None}

    def _task(self, reading: Reading) -> Task:
        """What the model does, tried out on a text, or on as many of its tokens as the model reads."""
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        first = padded(self._passed([shortened(self.tokenizer, reading, 0, self.limit)]), self.pad)
        return detect(self.model, {name: value.to(device) for name, value in first.items()})

    def _fitting(self, readings: list[Reading], following: list[int | None]) -> list[Reading]:
        """The readings, cut where the model reads no more, with so many tokens that follow on each."""
        found = []
        for number, (reading, count) in enumerate(zip(readings, following, strict=True)):
            found.append(fitted(self.tokenizer, reading, number, self.limit, count, stacklevel=4))
        return self._passed(found)

    def _passed(self, readings: list[Reading]) -> list[Reading]:
        """The readings, with what the model's ``forward`` takes: tokenizers may give more."""
        signature = Signature(unwrapped(self.model))
        if signature.open_ended:
            return readings
        return [
            replace(reading, extras={name: reading.extras[name] for name in reading.extras if name in signature.names})
            for reading in readings
        ]
