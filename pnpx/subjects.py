"""What a run explains: a model, and samples for it, from the zoo or from code that the configuration names."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pnpx import zoo
from pnpx.schema import DataChoice, ModelChoice
from pnpx.suggest import nearest
from pnpx.text.samples import TextSamples

KINDS = ("image", "series", "tabular")
"""What samples may be; None leaves it to a guess from their shape."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and what is known of them: ``inputs`` (samples, ...) and ``targets`` (samples,), the true classes.

    ``class_names`` are in the order of the classes; ``feature_names`` name the last axis of ``inputs``.
    """

    name: str
    inputs: Tensor
    targets: Tensor | None
    kind: str | None = None
    class_names: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    own: bool = False
    """Whether it is from a factory of the user's, and not from the zoo."""

    def label(self, index: int) -> str | None:
        """The name of the true class of a sample; its number, or the value to predict, where there are no names."""
        if self.targets is None:
            return None
        target = self.targets[index].item()
        if self.class_names is not None:
            return str(self.class_names[int(target)])
        return f"{target:.4g}" if isinstance(target, float) else str(int(target))

    def identity(self, index: int) -> tuple[object, ...]:
        """What an explanation of sample ``index``, and the pictures of both, depend on."""
        return self.name, self.kind, self.class_names, self.feature_names, self.inputs[index]

    def take(self, indices: Sequence[int]) -> Tensor:
        """These samples, as a batch."""
        return self.inputs[list(indices)]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the samples, by their indices in the data, that are explained; ``folder`` is where results go.

    ``fingerprint`` is that of the model as it was loaded: one that keeps what it computes is another after a pass.
    """

    name: str
    architecture: str
    module: nn.Module
    data: Data | TextSamples
    indices: Sequence[int]
    accuracy: float | None
    folder: str
    fingerprint: str

    @property
    def n_parameters(self) -> int:
        """The number of trained values in the model."""
        return sum(parameter.numel() for parameter in self.module.parameters())


@dataclass(frozen=True)
class Code:
    """Leave to run code that a configuration names, and the folder in which its files and modules are looked for."""

    folder: Path
    allowed: bool = False

    def call(self, factory: str, *arguments: Any) -> Any:
        """What the function ``"package.module:function"`` returns.

        Raises ValueError, in one line, if that is not allowed, if there is no such function, or if it fails.
        """
        with self._importable():
            function = self.function(factory)
            try:
                return function(*arguments)
            except (Exception, SystemExit) as error:
                raise ValueError(f"{factory!r} failed: {one_line(error)}") from error

    def function(self, factory: str) -> Callable[..., Any]:
        """The function ``"package.module:function"``; ValueError if that is not allowed, or there is none."""
        if not self.allowed:
            raise ValueError(f"names code to run, {factory!r}; if you trust this configuration, add --allow-code")
        with self._importable():
            return _function(factory)

    @contextmanager
    def _importable(self) -> Iterator[None]:
        """Let modules beside the configuration, and in the current folder, be imported."""
        before = list(sys.path)
        sys.path[:0] = [str(self.folder.resolve()), str(Path.cwd())]
        try:
            yield
        finally:
            sys.path[:] = before


def one_line(error: BaseException) -> str:
    """An exception as ``Class: the first line of its message``."""
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def load_model(choice: ModelChoice, code: Code) -> tuple[str, nn.Module, zoo.ZooEntry | None]:
    """The name, the model in eval mode, and, if it is from the zoo, its entry there.

    Raises LookupError for a name that the zoo does not have and ValueError if the factory or the weights do not serve.
    """
    if choice.factory is None:
        name = choice.name or ""
        entry = zoo.entry(name)
        return name, zoo.load(name), entry
    module = code.call(choice.factory)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{choice.factory!r} must return a torch.nn.Module, but returned a {type(module).__name__}")
    if choice.weights is not None:
        _load_weights(module, code.folder / choice.weights)
    return choice.name or choice.factory.rpartition(":")[2], module.eval(), None


def load_data(choice: DataChoice, default: str | None, code: Code) -> Data:
    """The data that ``choice`` means, or else the set called ``default``.

    Raises LookupError for an unknown name or split and ValueError if the factory's result does not serve.
    """
    if choice.factory is not None:
        return _from_factory(code.call(choice.factory, choice.split), choice.factory)
    name = choice.name or default
    if name is None:
        raise ValueError("must name a data set, or a factory of one, for a model that is not from the zoo")
    found = zoo.data(name, split=choice.split)  # type: ignore[arg-type]  # checked there
    return Data(name, found.inputs, found.targets, found.kind, found.class_names, found.feature_names)


def choose(choice: DataChoice, data: Data | TextSamples) -> Sequence[int]:
    """The indices of the samples to explain; raises ValueError if there are not as many."""
    n_samples = len(data.inputs)
    if choice.indices is not None:
        beyond = [index for index in choice.indices if index >= n_samples]
        if beyond:
            of = f"the samples of {data.name!r}"
            raise ValueError(f"indices must be from 0 to {n_samples - 1}, {of}, but {beyond[0]} is one")
        return list(dict.fromkeys(choice.indices))
    if choice.samples is not None and choice.samples > n_samples:
        raise ValueError(f"samples must be at most {n_samples}, as many as {data.name!r} has, but is {choice.samples}")
    return range(choice.samples or n_samples)


def try_out(module: nn.Module, name: str, data: Data) -> None:
    """Run the model on one sample, so that data of the wrong shape is found before anything is explained.

    Raises ValueError if it fails, or if a factory's data names another number of classes than the model tells apart.
    """
    try:
        with torch.no_grad():
            output = module(data.inputs[:1])
    except Exception as error:
        shape = tuple(data.inputs.shape[1:])
        samples = f"the samples of {data.name!r}, of shape {shape}"
        raise ValueError(f"{name} cannot take {samples}: {one_line(error)}") from error
    if data.own and data.class_names is not None and isinstance(output, Tensor) and output.ndim == 2:
        n_classes = output.shape[1]
        if n_classes not in (1, len(data.class_names)):
            raise ValueError(
                f"{name} gives {n_classes} outputs for a sample, but {data.name!r} has {len(data.class_names)} "
                "class_names; give as many, or none"
            )


def _function(factory: str) -> Callable[..., Any]:
    module_name, colon, attribute = factory.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"a factory is written 'package.module:function', not {factory!r}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module_name!r} failed: {one_line(error)}") from error
        raise ValueError(f"no module {error.name!r} is installed or beside the configuration") from None
    except Exception as error:
        raise ValueError(f"importing {module_name!r} failed: {one_line(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ValueError(f"there is no function {attribute!r} in {module_name}; {nearest(attribute, names)}")
    return function  # type: ignore[no-any-return]


def _load_weights(module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"there is no weights file {str(path)!r}")
    try:
        module.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"the weights {str(path)!r} are no safetensors, or damaged: {one_line(error)}") from error
    except RuntimeError as error:
        details = " ".join(str(error).split())
        raise ValueError(f"the weights {str(path)!r} do not fit the model: {details[:200]}") from error


def _from_factory(found: Any, factory: str) -> Data:
    if isinstance(found, tuple) and len(found) == 2:
        inputs, targets, known = *found, {}
    else:
        inputs, targets = getattr(found, "inputs", None), getattr(found, "targets", None)
        known = {name: getattr(found, name, None) for name in ("kind", "class_names", "feature_names")}
    name = str(getattr(found, "name", factory.rpartition(":")[2]))
    return _checked(Data(name, inputs, targets, **known, own=True), factory)


def _described(value: object) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.40}"


def _checked(data: Data, factory: str) -> Data:
    """``data``, if all of it serves: what is wrong with names and labels would else show in pictures, or nowhere."""
    wrong: Mapping[str, bool] = {
        "inputs": not isinstance(data.inputs, Tensor) or data.inputs.ndim < 2 or not len(data.inputs),
        "targets": data.targets is not None and (not isinstance(data.targets, Tensor) or data.targets.ndim != 1),
    }
    if wrong["inputs"] or wrong["targets"]:
        raise ValueError(
            f"{factory!r} must return (inputs, targets), tensors of shapes (samples, ...) and (samples,), or an object "
            f"with these as attributes; its {'inputs' if wrong['inputs'] else 'targets'} are "
            f"{_described(data.inputs if wrong['inputs'] else data.targets)}"
        )
    said = f"what {factory!r} returns is not right: "
    if data.targets is not None and len(data.targets) != len(data.inputs):
        raise ValueError(f"{said}there are {len(data.inputs)} inputs, but {len(data.targets)} targets")
    for name in ("class_names", "feature_names"):
        names = getattr(data, name)
        if names is not None and not _are_names(names):
            raise ValueError(f"{said}{name} must be a sequence of text, or None, but is {names!r:.60}")
    if data.kind is not None and data.kind not in KINDS:
        raise ValueError(f"{said}kind must be one of {', '.join(KINDS)}, or None, but is {data.kind!r}")
    widths = {data.inputs.shape[-1], data.inputs[0].numel()}
    if data.feature_names is not None and len(data.feature_names) not in widths:
        raise ValueError(
            f"{said}feature_names name the last axis of the inputs, of size {data.inputs.shape[-1]}, but there are "
            f"{len(data.feature_names)}"
        )
    if data.class_names is not None and data.targets is not None:
        _check_classes(data.targets, data.class_names, said)
    return data


def _are_names(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _check_classes(targets: Tensor, names: Sequence[str], said: str) -> None:
    if targets.dtype == torch.bool or targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"{said}targets must be integers, the positions of their class_names, but are {targets.dtype}")
    outside = targets[(targets < 0) | (targets >= len(names))]
    if len(outside):
        raise ValueError(
            f"{said}targets must be from 0 to {len(names) - 1}, the positions of the {len(names)} class_names, but "
            f"{int(outside[0])} is one"
        )
