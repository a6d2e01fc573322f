"""Attributions on disk: one file for each finished sample x explainer x layer, known again by its fingerprint.

A fingerprint, see :mod:`pnpx.fingerprint`, covers what an attribution depends on: the explainer's parameters and code,
the model's weights, attributes and code, the sample, and the version of pnpx. A file whose fingerprint is another one
counts as not there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from pnpx.explanation import Explanation
from pnpx.text.record import TextExplanation

Record: TypeAlias = Explanation | TextExplanation

FINGERPRINT = "fingerprint"
"""The key under which a stored explanation keeps it, among what is known of its explainer."""

CONFIG = "config.yaml"
"""The configuration as it was run, in the folder of its results."""

SUFFIXES: Mapping[type[Record], str] = {Explanation: ".safetensors", TextExplanation: ".json"}


@dataclass(frozen=True)
class Store:
    """Explanations under a folder."""

    folder: Path

    def find(self, name: str, fingerprint: str, kind: type[Record] = Explanation) -> Record | None:
        """The explanation saved as ``name``; None if there is none, it is damaged, or has another fingerprint."""
        path = self.path(name, kind)
        if not path.is_file():
            return None
        try:
            found = kind.load(path)
        except (ValueError, OSError):  # damaged, or of another version of the format: to be made again
            return None
        return found if found.explainer.get(FINGERPRINT) == fingerprint else None

    def save(self, name: str, explanation: Record, fingerprint: str) -> None:
        """Write ``explanation`` as ``name``, whole or not at all; a picture of an earlier one goes first."""
        path = self.path(name, type(explanation))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.picture(name).unlink(missing_ok=True)
        for left_over in path.parent.glob(f".{path.name}.*.part"):  # by a run that was killed while it wrote this
            left_over.unlink(missing_ok=True)
        described = {**explanation.explainer, FINGERPRINT: fingerprint}
        replace(explanation, explainer=described).save(path)

    def path(self, name: str, kind: type[Record] = Explanation) -> Path:
        """Where the explanation called ``name``, such as ``"digits_cnn/VarGrad/conv1/0003"``, is kept."""
        return self.folder / f"{name}{SUFFIXES[kind]}"

    def scores(self, name: str) -> Path:
        """Where what metrics say of it is kept, see :mod:`pnpx.evaluation`."""
        return self.folder / f"{name}.scores.json"

    def picture(self, name: str) -> Path:
        """Where its picture is kept."""
        return self.folder / f"{name}.png"


class Names:
    """Names for files made from names of models and layers, each different, also where case does not count.

    >>> names = Names()
    >>> names.new("block1.attention:input"), names.new("block1.attention.input")
    ('block1.attention.input', 'block1.attention.input-2')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, name: str) -> str:
        """``name`` in letters, digits, dots, dashes and underscores, with a number if it is taken."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", ".", name).strip(".") or "unnamed"
        free, number = plain, 1
        while free.lower() in self._taken:
            number += 1
            free = f"{plain}-{number}"
        self._taken.add(free.lower())
        return free
