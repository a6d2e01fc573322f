"""Standing between a model and its modules during one forward pass of one thread.

The ``forward`` of each module of interest is wrapped as long as any thread needs it. The wrapper asks the interceptor
of its own thread what to do, and without one runs the module as ever: other users of the model notice nothing. Unlike a
hook, a wrapper can leave out the run of a module, and is reached also where a model calls ``module.forward(...)``
directly.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn

Run = Callable[..., Any]


class Interceptor(Protocol):
    """Decides what a call of a module does and returns."""

    def __call__(self, module: nn.Module, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called in place of ``run(*args, **kwargs)``, the module's own forward."""


class _Wrapped:
    """A module whose forward is wrapped, and by how many users."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.users = 0
        # An instance may carry a forward of its own already, as those that accelerate dispatches do.
        self.own = module.__dict__.get("forward")
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            interceptor = _current(module)
            return original(*args, **kwargs) if interceptor is None else interceptor(module, original, args, kwargs)

        # What `functools.wraps` does, in less time: models have hundreds of modules. Signatures are read through it.
        forward.__wrapped__ = original  # type: ignore[attr-defined]
        forward.__doc__ = getattr(original, "__doc__", None)
        module.__dict__["forward"] = forward

    def unwrap(self) -> None:
        if self.own is None:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self.own


_lock = threading.RLock()
_wrapped: dict[int, _Wrapped] = {}
_thread = threading.local()


def _current(module: nn.Module) -> Interceptor | None:
    """The interceptor that this thread has for ``module`` now."""
    stack: list[tuple[Interceptor, frozenset[int]]] = getattr(_thread, "stack", [])
    if stack and id(module) in stack[-1][1]:
        return stack[-1][0]
    return None


@contextmanager
def wrapped(modules: Iterable[nn.Module]) -> Iterator[frozenset[int]]:
    """Keep ``modules`` wrapped, ready for `intercepting`; done once for many forward passes."""
    held: list[int] = []
    try:
        with _lock:
            for module in modules:
                key = id(module)
                if key not in _wrapped:
                    _wrapped[key] = _Wrapped(module)
                _wrapped[key].users += 1
                held.append(key)
        yield frozenset(held)
    finally:
        with _lock:
            for key in held:
                _wrapped[key].users -= 1
                if not _wrapped[key].users:
                    _wrapped.pop(key).unwrap()


class intercepting:
    """Let ``interceptor`` decide about the calls of ``modules``, as given by `wrapped`, in this thread."""

    # Entered in every pass; what ``contextlib.contextmanager`` makes would take several times as long.

    def __init__(self, interceptor: Interceptor, modules: frozenset[int]) -> None:
        self._entry = interceptor, modules

    def __enter__(self) -> None:
        if not hasattr(_thread, "stack"):
            _thread.stack = []
        _thread.stack.append(self._entry)

    def __exit__(self, *error: object) -> None:
        _thread.stack.pop()
