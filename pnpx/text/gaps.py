"""Telling what integrated gradients of texts miss: once for all texts, in the words of their explainer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pnpx.explainers.gaps import Integration, warn_of_gaps

if TYPE_CHECKING:
    from pnpx.text.explainer import TextExplainer
    from pnpx.text.record import TextExplanation


def warn_of_texts(
    explain: "TextExplainer", found: Sequence["TextExplanation"], withheld: Sequence[Integration]
) -> None:
    """Warn, once, if too much is missed of some texts; ``withheld`` is what there was to warn of, pass by pass."""
    if not withheld:
        return
    zero = any(made.from_zero for made in withheld)
    # The baseline, in the words of the core, is what this side made of the replacement.
    nearer = "a token as replacement=" if explain.has_path and explain.absent == "zero" else ""
    shares = [torch.as_tensor(one.diagnostics["relative_gap"]).cpu().double().max() for one in found]
    made = replace(withheld[0], from_zero=zero, nearer=nearer, start="replacement")
    warn_of_gaps(torch.stack(shares), made, "text")
