"""The labels and targets that a configuration gives texts, as a model has them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pnpx.schema import Settings
from pnpx.suggest import nearest
from pnpx.text.samples import TextSample, TextSamples
from pnpx.text.targets import label_names
from pnpx.yamltree import KeyPath

GENERATES = ("causal", "encoder_decoder")
"""What models do that generate, as :class:`pnpx.text.tasks.Task` has it."""


@dataclass(frozen=True)
class TextTargets:
    """The labels and targets of texts as a model has them: classes by number, by name, or text to be generated."""

    settings: Settings
    note: Callable[[KeyPath, object], None]
    """Takes a problem, and where in the configuration it is."""
    module: nn.Module
    tokenizer: Any
    kind: str

    def resolved(self, samples: TextSamples) -> TextSamples:
        """The samples with their targets, the general one where they have none, and their labels as the model's."""
        data = self.settings.data
        general = self._target(("text", "targets"), "", self.settings.text.targets)
        own_labels = data.texts is not None or data.file is not None
        found = []
        for index, sample in enumerate(samples.inputs):
            keys: KeyPath = ("data", "texts", index) if data.texts is not None else ("data", "file")
            where = "" if data.texts is not None else f"text {index}: "
            target = general
            if sample.target is not None:
                target = self._target((*keys, "target"), where, sample.target)
            label = None
            if self.kind == "sequence" and sample.label is not None:
                label = self._class((*keys, "label") if own_labels else None, where, sample.label)
            self._masked(keys, where, sample)
            found.append(replace(sample, label=None if label is None else self._names.get(label, label), target=target))
        return TextSamples(samples.name, found)

    @property
    def _names(self) -> dict[int, str]:
        return label_names(self.module)

    def _target(self, keys: KeyPath, where: str, target: Any) -> Any:
        if target is None:
            return None
        if self.kind in GENERATES or self.kind == "masked":
            if isinstance(target, str) and target:
                return target
            what = "a token" if self.kind == "masked" else "the text to be generated"
            self.note(keys, f"{where}must be {what} for {type(self.module).__name__}, but is {target!r}")
            return None
        if self.kind == "span":
            self.note(keys, f"{where}{type(self.module).__name__} finds a span and is explained at that; leave "
                                    "targets out")
            return None
        if self.kind == "tokens":
            if isinstance(target, list):
                self.note(keys, f"{where}must be one class for a model that labels tokens, but is {target!r}")
                return None
            found = self._class(keys, where, target)
            return None if found is None else self._names[found]
        if isinstance(target, list):
            several = [self._class(keys, where, one) for one in target]
            return None if None in several else several
        return self._class(keys, where, target)

    def _class(self, keys: KeyPath | None, where: str, given: str | int) -> int | None:
        """The number of a class, by its number or its name; None, and noted if ``keys`` are given, if there is none."""
        names = self._names
        alike = [number for number, name in names.items() if str(name).lower() == str(given).lower()]
        exact = [number for number in alike if names[number] == given]
        if exact or len(alike) == 1:
            return (exact or alike)[0]
        # A file of a table has numbers as text, too.
        number = int(given) if isinstance(given, int) or given.isdecimal() else None
        if number in names:
            return number
        if keys is not None:
            self.note(keys, f"{where}the model has no class {given!r}; {nearest(str(given), names.values())}")
        return None

    def _masked(self, keys: KeyPath, where: str, sample: TextSample) -> None:
        token = getattr(self.tokenizer, "mask_token", None)
        if self.kind == "masked" and token and not any(token in text for text in sample.texts):
            self.note(keys, f"{where}must have {token} where the model is to fill in a token")
