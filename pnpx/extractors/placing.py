"""Arrays as tensors, in the model's precision and on its device."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pnpx.extractors.call import Call
from pnpx.masked import require_unmasked


def placed(model: nn.Module, call: Call) -> Call:
    """``call`` with arrays as tensors, floats of them in the model's precision, all on the model's device."""
    parameters = list(model.parameters())
    devices = {parameter.device for parameter in parameters}
    device = devices.pop() if len(devices) == 1 else None  # a model spread over devices moves its inputs itself
    floats = next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), None)
    tensor = partial(_as_tensors, floats=floats)
    require_unmasked("what the model is to be given", (call.forward, call.additional_args, call.additional_kwargs))

    def place(value: Tensor) -> Tensor:
        moved = value if device is None or value.device == device else value.to(device)
        # What was made under inference_mode cannot take part in gradients; a copy made outside it can.
        return moved.clone() if moved.is_inference() else moved.detach()

    converted = Call(
        {key: tensor(value) for key, value in call.forward.items()}
        if isinstance(call.forward, Mapping)
        else tensor(call.forward),
        call.keywords,
        tuple(map(tensor, call.additional_args)),
        {key: tensor(value) for key, value in call.additional_kwargs.items()},
        call.steps,
    )
    return converted.map(place)


def _as_tensors(value: Any, floats: torch.dtype | None) -> Any:
    """``value`` with its arrays as tensors, those of floats in the precision ``floats``, if there is one."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":  # texts and objects stay what they are
        native = value.astype(value.dtype.newbyteorder("="))  # a copy; bytes may be the other way round in files
        array = torch.from_numpy(native.astype(np.float64) if native.dtype == np.longdouble else native)
        return array.to(floats) if array.is_floating_point() and floats is not None else array
    if type(value) in (tuple, list):
        return type(value)(_as_tensors(item, floats) for item in value)
    return value
