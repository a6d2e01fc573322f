"""Operations without a gradient on the way from a place to the score: PyTorch passes over them with a warning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pnpx.attributors.base import Bound
    from pnpx.scores import Aim


def require_differentiable(bound: "Bound", aim: "Aim") -> None:
    """Require that gradients pass from the score to the place through every quantised module between them.

    Those of ``torch.ao.quantization`` have none. What goes around them, as a residual does, still has a gradient, so
    that without this the result would be wrong and look right. A model without such modules costs nothing.

    Raises:
        TypeError: there is a module on the way without a gradient.
    """
    quantised = [path for path, module in bound.model.named_modules() if _is_quantised(module)]
    if not quantised:
        return
    with torch.enable_grad():
        anchors = [value.tensor.detach().clone().requires_grad_() for value in bound.values]
        scores = aim.scores(bound.run(lambda: [anchor.clone() for anchor in anchors], 1), 1)
    if _passes_over(scores):
        raise TypeError(
            f"gradients must pass from the score to {bound.describe()}, but quantised modules, such as "
            f"{quantised[0]!r}, have none; explain a layer after them, the model as it was before it was quantised, or "
            "choose an explainer that needs no gradients, such as pnpx.Occlusion"
        )


def _is_quantised(module: nn.Module) -> bool:
    return ".quantized" in type(module).__module__


def _passes_over(scores: Sequence[Tensor]) -> bool:
    """Whether autograd's record of the scores has an operation without a gradient."""
    waiting: list[Any] = [score.grad_fn for score in scores]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "NotImplemented" in node.name():
            return True
        waiting += [before for before, _ in node.next_functions]
    return False
