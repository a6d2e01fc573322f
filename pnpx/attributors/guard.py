"""Leaving a model as it was found.

While it is explained, a model is in eval mode and its weights need no gradients. Afterwards, also after an exception,
each module's mode, each weight and its ``requires_grad``, the buffers, tensors in plain attributes and the global
random state are what they were; but tensors of over 16 MiB that a forward pass changes in place are not.
Several threads may explain one model: the first to come changes it, the last to leave restores it.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.attributors.attributes import explaining
from pnpx.attributors.checkpoints import without_checkpoints, without_reentrance
from pnpx.attributors.copied import Copied
from pnpx.attributors.lasting import rescales

_WITHOUT_SHAPE = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)

_lock = threading.RLock()
_held: dict[object, tuple[int, Callable[[], None]]] = {}


def _acquire(key: object, change: Callable[[], Callable[[], None]]) -> None:
    """Do ``change`` unless another holder has done it; the last holder's `_release` calls what it returned."""
    count, undo = _held.get(key) or (0, change())
    _held[key] = (count + 1, undo)


def _release(keys: list[object]) -> None:
    with _lock, ExitStack() as undone:  # calls all of them, in reverse order, whatever one raises
        for key in keys:
            count, undo = _held.pop(key)
            if count > 1:
                _held[key] = (count - 1, undo)
            else:
                undone.callback(undo)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in the state for explaining it, and everything back at the end."""
    modules = list(model.modules())
    found = (parameter for module in modules for parameter in module._parameters.values() if parameter is not None)
    parameters = {id(parameter): parameter for parameter in found}
    buffers = (buffer for module in modules for buffer in module._buffers.values())
    if any(isinstance(tensor, _WITHOUT_SHAPE) for tensor in (*parameters.values(), *buffers)):
        every = (*model.named_parameters(), *model.named_buffers())
        name = next(name for name, tensor in every if isinstance(tensor, _WITHOUT_SHAPE))
        raise RuntimeError(f"the model's {name!r} has no shape yet; run the model once, on any batch, to make it")
    for parameter in parameters.values():
        if parameter.is_inference():
            name = next(name for name, one in model.named_parameters() if one is parameter)
            raise RuntimeError(
                f"the model's {name!r} was made under torch.inference_mode, and no gradient can be taken through it; "
                "build or load the model outside of it"
            )
    held: list[object] = []

    def hold(key: object, change: Callable[[], Callable[[], None]]) -> None:
        _acquire(key, change)
        held.append(key)

    with _random_state(), explaining(model):  # what is found is looked at before anything here holds a part of it
        try:
            with _lock:
                for module in modules:
                    key = ("module", id(module))
                    # In eval mode there is nothing to hold, unless another thread made it so.
                    if key in _held or _trains(module):
                        hold(key, partial(_quieten, module))
                    if isinstance(module, torch.jit.ScriptModule) and module._buffers:
                        hold(("scripted", id(module)), partial(_keep_buffers, module))
                for number, parameter in parameters.items():
                    key = ("weight", number)
                    if parameter.requires_grad and parameter.is_leaf:
                        hold(key, partial(_freeze, parameter))
                    elif key in _held:  # another thread has frozen it already
                        hold(key, _nothing_to_do)
                for module in modules:
                    if rescales(module) and isinstance(weight := getattr(module, "weight", None), Tensor):
                        hold(("rescaled", id(weight)), partial(_keep, weight))
                hold("fast path", _without_fast_path)
                hold("reentrance", without_reentrance)
                recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
                if any(parameter.is_cuda for module in recurrent for parameter in module.parameters()):
                    # cuDNN's recurrent nets can be differentiated in train mode only.
                    hold("cudnn", _without_cudnn)
            yield
        finally:
            _release(held)


@contextmanager
def unchecked() -> Iterator[None]:
    """Let parts under gradient checkpointing run once: with a layer explained inside one, they must not run again."""
    key = "checkpoints"
    with _lock:
        _acquire(key, without_checkpoints)
    try:
        yield
    finally:
        _release([key])


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules as they were written: inside compiled code there is no module to stand at."""
    if not hasattr(torch.compiler, "set_stance") or "torch._dynamo" not in sys.modules:  # it came with PyTorch 2.6
        yield
        return
    with _lock:  # the stance is that of all threads
        _acquire("stance", _without_compiling)
    try:
        yield
    finally:
        _release(["stance"])


def _without_compiling() -> Callable[[], None]:
    stance: Any = torch.compiler.set_stance("force_eager")
    stance.__enter__()
    return lambda: stance.__exit__(None, None, None)


def _trains(module: nn.Module) -> bool:
    """Whether ``module`` is in train mode; one that `torch.jit.freeze` has made knows no mode, and is in eval mode."""
    return bool(getattr(module, "training", False))


def _quieten(module: nn.Module) -> Callable[[], None]:
    """Eval mode for this module alone, set directly: an overridden ``eval()`` may do more, such as merge weights."""
    module.training = False

    def undo() -> None:
        module.training = True

    return undo


def _keep_buffers(module: torch.jit.ScriptModule) -> Callable[[], None]:
    """For TorchScript, whose attributes are out of sight; it can replace buffers, but make none."""
    before = dict(module._buffers)
    copies = [Copied(buffer) for buffer in before.values() if buffer is not None]

    def undo() -> None:
        for copied in copies:
            copied.restore()
        for name, buffer in before.items():
            if module._buffers[name] is not buffer:
                setattr(module, name, buffer)

    return undo


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
