"""Attributions on disk: one file for each finished sample x explainer x layer, known again by its fingerprint.

A fingerprint covers what an attribution depends on: the explainer's parameters, the model's weights and code, the
sample, and the version of pnpx. A file whose fingerprint is another one counts as not there.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pnpx.explanation import Explanation
from pnpx.text.record import TextExplanation

Record: TypeAlias = Explanation | TextExplanation

FINGERPRINT = "fingerprint"
"""The key under which a stored explanation keeps it, among what is known of its explainer."""

CONFIG = "config.yaml"
"""The configuration as it was run, in the folder of its results."""

SUFFIXES: Mapping[type[Record], str] = {Explanation: ".safetensors", TextExplanation: ".json"}

UNIMPORTANT = frozenset({"model", "batch_size", "progress"})
"""Fields of an explainer left out of its fingerprint: the model has its own, the others do not change the result.

``replay`` is none of them: it is turned off for a model that it disagrees with, whose results it then changes.
"""


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


def digest(*parts: object) -> str:
    """A short hash of ``parts``: numbers, text, tensors, and sequences, mappings and dataclasses of these.

    >>> digest(1, "a") == digest(1, "a"), digest(1, "a") == digest("1a")
    (True, False)
    """
    return hashlib.sha256(json.dumps([_plain(part) for part in parts], sort_keys=True).encode()).hexdigest()[:32]


def of_model(model: nn.Module) -> str:
    """The fingerprint of a model: its weights and buffers, its structure, and the code of its own classes."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not object}
    code = sorted(_code(kind) for kind in kinds if not kind.__module__.startswith("torch."))
    structure = re.sub(r"0x[0-9a-f]+", "", repr(model))
    settings = [
        {name: value for name, value in vars(module).items() if _is_setting(name, value)} for module in model.modules()
    ]
    return digest(structure, code, settings, dict(model.state_dict()))


def _is_setting(name: str, value: object) -> bool:
    """Whether a plain attribute of a module may change what it computes, and is not in its weights."""
    return not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str, Tensor))


def of_text_model(model: nn.Module, tokenizer: Any) -> str:
    """The fingerprint of a model of texts and its tokenizer: with the names of its classes and how it generates."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    owners: list[Any] = [getattr(model, name, None) for name in ("config", "generation_config")]
    settings = [
        {key: value for key, value in owner.to_dict().items() if key not in _ABOUT_FILES}
        for owner in owners
        if owner is not None
    ]
    return digest(of_model(model), words, settings, sorted(tokenizer.special_tokens_map.items(), key=repr))


_ABOUT_FILES = frozenset({"_name_or_path", "transformers_version"})


def of_explainer(explainer: Any) -> str:
    """The fingerprint of an explainer: its name and parameters, whatever its model."""
    names = [item.name for item in fields(explainer) if item.name not in UNIMPORTANT]
    return digest(type(explainer).__name__, {name: getattr(explainer, name) for name in names})


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return [str(value.dtype), list(value.shape), hashlib.sha256(array.numpy().tobytes()).hexdigest()]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, {item.name: _plain(getattr(value, item.name)) for item in fields(value)}]
    if isinstance(value, (Sequence, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return re.sub(r"0x[0-9a-f]+", "", repr(value))


def _code(kind: type) -> str:
    if kind.__module__.startswith("transformers."):  # finding the source of its long files takes seconds
        return f"{kind.__module__}.{kind.__qualname__} {version('transformers')}"
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # a class made at a prompt has no file
        return kind.__qualname__
