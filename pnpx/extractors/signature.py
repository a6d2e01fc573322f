"""The forward arguments of a model, by name, and which parts of a batch are none."""

import inspect
from typing import Any

from torch import nn

LABELS = frozenset(
    {
        "label",
        "labels",
        "label_ids",
        "target",
        "targets",
        "y",
        "start_positions",
        "end_positions",
        "next_sentence_label",
    }
)
"""Keys of a mapping that never reach the model unless an extractor names them."""


class Signature:
    """The forward arguments of a model, by name."""

    def __init__(self, model: nn.Module) -> None:
        self.called = f"{type(model).__name__}.forward"
        self.open_ended = False  # takes any keyword
        self.positional_open_ended = False
        self.names: list[str] = []
        self.positional: list[str] = []
        self.required: set[str] = set()
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):  # compiled code has no signature to read; then anything may be passed
            self.open_ended = self.positional_open_ended = True
            return
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                self.open_ended = True
            elif parameter.kind is parameter.VAR_POSITIONAL:
                self.positional_open_ended = True
            else:
                if parameter.default is parameter.empty:
                    self.required.add(parameter.name)
                if parameter.kind is not parameter.POSITIONAL_ONLY:
                    self.names.append(parameter.name)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self.positional.append(parameter.name)

    def is_label(self, name: Any) -> bool:
        """Whether a batch's part ``name`` is a label, see `LABELS`. What the model does not run without is none."""
        return name in LABELS and name not in self.required

    def keyword(self, name: str) -> str | None:
        """Under which keyword a batch's part ``name`` is passed; None to pass it by position."""
        by_name = name in self.names or (self.open_ended and not self.positional)
        return name if by_name else None
