"""Leaving a model as it was found.

While it is explained, a model is in eval mode and its weights need no gradients. Afterwards, also after an exception,
each module's mode, each weight and its ``requires_grad``, the buffers and the global random state are what they were.
Several threads may explain one model: the first to come changes it, the last to leave restores it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.checkpoints import without_checkpoints, without_reentrance

_LARGEST_BUFFER = 16 * 2**20  # bytes; larger ones are tables and packed weights, which no forward pass writes to

_lock = threading.RLock()
_held: dict[object, tuple[int, Callable[[], None]]] = {}


@contextmanager
def _hold(key: object, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Do ``change`` unless another holder has done it; the last holder calls what it returned, which undoes it."""
    with _lock:
        count, undo = _held.get(key) or (0, change())
        _held[key] = (count + 1, undo)
    try:
        yield
    finally:
        with _lock:
            count, undo = _held.pop(key)
            if count > 1:
                _held[key] = (count - 1, undo)
            else:
                undo()


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in the state for explaining it, and everything back at the end."""
    modules = list(model.modules())
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise RuntimeError(
                f"the model's {name!r} was made under torch.inference_mode, and no gradient can be taken through it; "
                "build or load the model outside of it"
            )
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    with ExitStack() as stack:
        stack.enter_context(_random_state())
        for module in modules:
            stack.enter_context(_hold(("module", id(module)), partial(_quieten, module)))
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_leaf:
                stack.enter_context(_hold(("weight", id(parameter)), partial(_freeze, parameter)))
            elif ("weight", id(parameter)) in _held:  # another thread has frozen it already
                stack.enter_context(_hold(("weight", id(parameter)), _nothing_to_do))
        for module in modules:
            weight = getattr(module, "weight", None)
            if getattr(module, "max_norm", None) is not None and isinstance(weight, Tensor):
                stack.enter_context(_hold(("rescaled", id(weight)), partial(_keep, weight)))
        stack.enter_context(_hold("fast path", _without_fast_path))
        stack.enter_context(_hold("reentrance", without_reentrance))
        if any(parameter.is_cuda for module in recurrent for parameter in module.parameters()):
            # cuDNN's recurrent nets can be differentiated in train mode only.
            stack.enter_context(_hold("cudnn", _without_cudnn))
        yield


def unchecked() -> AbstractContextManager[None]:
    """Let parts under gradient checkpointing run once: with a layer explained inside one, they must not run again."""
    return _hold("checkpoints", without_checkpoints)


def _quieten(module: nn.Module) -> Callable[[], None]:
    """Eval mode for this module alone, set directly: an overridden ``eval()`` may do more, such as merge weights."""
    training = module.training
    buffers = {
        name: (buffer, buffer._version, buffer.detach().clone() if _is_small(buffer) else None)
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    }
    if training:
        module.training = False

    def undo() -> None:
        if training:
            module.training = True
        for name, (buffer, version, copy) in buffers.items():
            if buffer._version != version and copy is not None:
                buffer.data = copy
            if name in module._buffers:
                module._buffers[name] = buffer

    return undo


def _is_small(buffer: Tensor) -> bool:
    return buffer.numel() * buffer.element_size() <= _LARGEST_BUFFER


def _nothing_to_do() -> Callable[[], None]:
    return lambda: None


def _freeze(weight: nn.Parameter) -> Callable[[], None]:
    weight.requires_grad_(False)

    def undo() -> None:
        weight.requires_grad_(True)

    return undo


def _keep(weight: Tensor) -> Callable[[], None]:
    """For embeddings with ``max_norm``, whose forward rescales in place the rows that it looks up."""
    copy = weight.detach().clone()

    def undo() -> None:
        # By value: a look-up that fails half-way has rescaled rows, and not counted it as a version. In place: a tied
        # layer, or an optimizer, may hold the same storage.
        if not torch.equal(weight, copy):
            weight.data.copy_(copy)

    return undo


def _without_fast_path() -> Callable[[], None]:
    """PyTorch's fused encoder layers run without calling their modules, and only where no gradient is needed."""
    enabled: bool = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(enabled)


def _without_cudnn() -> Callable[[], None]:
    cudnn: Any = torch.backends.cudnn
    enabled: bool = cudnn.enabled
    cudnn.enabled = False

    def undo() -> None:
        cudnn.enabled = enabled

    return undo


@contextmanager
def _random_state() -> Iterator[None]:
    state = torch.get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    cuda = [torch.cuda.get_rng_state(device) for device in devices]
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for device, device_state in zip(devices, cuda, strict=True):
            torch.cuda.set_rng_state(device_state, device)
