"""One property of one kind of explainer, or metric, on one model, at one place; and all of them at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pnpx.attributors.places import Layer
from pnpx.testing.case import Case
from pnpx.testing.models import case

Property = Callable[[Any, Case, Layer], None]
"""Takes a kind of explainer or metric, a case, and a layer of it; raises AssertionError where it does not hold."""


@dataclass(frozen=True)
class Examination:
    """A property to be examined of one kind, on one model, at one place."""

    kind: type[Any]
    holds: Property
    model: str
    layer: Layer = None

    def __str__(self) -> str:
        place = "inputs" if self.layer is None else self.layer if isinstance(self.layer, str) else "+".join(self.layer)  # type: ignore[arg-type]
        return f"{self.kind.__name__}-{self.holds.__name__}-{self.model}-{place}"

    def run(self) -> None:
        """Examine it.

        Raises:
            AssertionError: the property does not hold.
        """
        self.holds(self.kind, case(self.model), self.layer)


def run_all(examinations: Sequence[Examination]) -> None:
    """Examine all.

    Raises:
        AssertionError: a property does not hold; the message says which, on which model, and where.
    """
    for examination in examinations:
        try:
            examination.run()
        except Exception as error:
            raise AssertionError(f"{examination}: {error}") from error
