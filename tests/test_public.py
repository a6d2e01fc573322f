"""What the package shows: complete, documented, typed, and cheap to import."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import pnpx
import pnpx.testing
from pnpx.explainers.perturbation import PerturbationExplainer

HEAVY = {
    "captum",
    "jinja2",
    "matplotlib",
    "omegaconf",
    "optuna",
    "pandas",
    "pyarrow",
    "pydantic",
    "ray",
    "scipy",
    "sklearn",
    "torchvision",
    "transformers",
    "typer",
    "yaml",
    "zennit",
}

MODULES = sorted(name for _, name, _ in pkgutil.walk_packages(pnpx.__path__, "pnpx.") if not name.endswith("__main__"))


def shipped():
    """The explainers of the package; tests and doctests define others."""
    return [
        kind
        for name, kind in pnpx.all_explainers().items()
        if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
    ]


def imported_with(statement):
    """The top-level packages that ``statement`` imports in a fresh interpreter, torch's own not counted."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return set(found.stdout.split())


@pytest.mark.parametrize("statement", ["import pnpx", "import pnpx.testing"])
def test_importing_brings_nothing_heavy_along(statement):
    imported = imported_with(statement)
    assert "pnpx" in imported
    assert not imported & HEAVY


def test_explaining_brings_nothing_heavy_along():
    imported = imported_with("import torch, pnpx; pnpx.SmoothGrad(torch.nn.Linear(2, 1)).explain(torch.ones(1, 2))")
    assert not imported & HEAVY


def public(module):
    """The names of a module's own classes and functions that start with no underscore."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("pnpx")
    }


@pytest.mark.parametrize("module", [pnpx, pnpx.testing], ids=["pnpx", "pnpx.testing"])
def test_all_is_complete(module):
    assert public(module) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_explainer_of_the_package_is_public():
    for kind in shipped():
        assert kind.__name__ in pnpx.__all__
        assert getattr(pnpx, kind.__name__) is kind


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pnpx' has no attribute 'LRP'"):
        _ = pnpx.LRP


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_its_public_names_too(name):
    module = importlib.import_module(name)
    assert module.__doc__ and module.__doc__.strip(), f"{name} has no docstring"
    for export in getattr(module, "__all__", ()):
        assert hasattr(module, export)
    for own in public(module):
        value = getattr(module, own)
        if value.__module__ == name:
            assert value.__doc__, f"{name}.{own} has no docstring"
            assert not value.__doc__.startswith(f"{own}("), f"{name}.{own} has only the docstring of a dataclass"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "pnpx.zoo.train"])
def test_every_public_function_is_typed(name):
    module = importlib.import_module(name)
    for own in public(module):
        value = getattr(module, own)
        if value.__module__ != name:
            continue
        functions = [value] if inspect.isfunction(value) else []
        if inspect.isclass(value):
            functions = [
                f
                for f in vars(value).values()
                if inspect.isfunction(f) and f.__name__.isidentifier() and f.__name__[0] != "_"
            ]
        for function in functions:
            signature = inspect.signature(function)
            untyped = [
                p.name
                for p in signature.parameters.values()
                if p.annotation is p.empty and p.name not in ("self", "cls")
            ]
            assert not untyped, f"{name}.{function.__qualname__}: {untyped}"
            assert signature.return_annotation is not signature.empty, f"{name}.{function.__qualname__}"


def test_every_parameter_of_an_explainer_is_documented():
    for kind in shipped():
        told = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in kind.__mro__)
        for field in fields(kind):
            if field.init:
                assert re.search(rf"^ *{field.name}( \(.*\))?:", told, re.MULTILINE), f"{kind.__name__}: {field.name}"


def test_help_for_an_explainer_tells_the_parameters_that_it_adds():
    """``help`` shows the docstring of the class and of no base, and that of `NoisyGradient`, say, nobody would find."""
    common = {field.name for base in (pnpx.Explainer, PerturbationExplainer) for field in fields(base)}
    for kind in shipped():
        told = inspect.cleandoc(kind.__doc__)
        absent = [field.name for field in fields(kind) if field.init and field.name not in common
                  and not re.search(rf"^    {field.name}( \(.*\))?:", told, re.MULTILINE)]
        assert not absent, f"{kind.__name__}: {absent}"


@pytest.mark.parametrize("layer, inputs, targets, kind", [
    (None, torch.ones(2, 3, dtype=torch.long), None, TypeError),
    (None, torch.ones(2, 3), "one", TypeError),
    (None, torch.ones(2, 3), 9, ValueError),
    (None, torch.ones(0, 3), None, ValueError),
    ("fc", torch.ones(2, 3), None, LookupError),
    ("unused", torch.ones(2, 3), None, RuntimeError),
])
def test_what_explaining_raises_is_documented(layer, inputs, targets, kind):
    model = torch.nn.Linear(3, 2)
    model.unused = torch.nn.Linear(2, 2)
    explainer = pnpx.SmoothGrad(model, layer=layer, n_iter=2)
    for method in (explainer.attribute, explainer.explain):
        with pytest.raises(kind) as raised:
            method(inputs, targets)
        assert kind in type(raised.value).__mro__[:2]  # a KeyError or an IndexError is a LookupError
        raises = inspect.getdoc(method).partition("Raises:")[2]
        assert kind.__name__ in raises


def test_every_explainer_names_its_source():
    for kind in shipped():
        assert "arXiv:" in (kind.__doc__ or ""), f"{kind.__name__} must name authors, year and arXiv number"


def test_the_package_is_marked_as_typed():
    assert Path(pnpx.__file__).with_name("py.typed").exists()


def test_layers_of_the_package_import_one_way():
    """What computes knows nothing of what draws, stores, and runs."""
    upper = (
        *("cli", "pipeline", "report", "plots", "zoo", "config", "schema", "checker", "store", "plan", "subjects"),
        "testing",
    )
    core = [
        name
        for name in MODULES
        if name.split(".")[1]
        in (
            "attributors",
            "explainers",
            "extractors",
            "scores",
            "statistics",
            "sampling",
            "structure",
            "baselines",
            "parameters",
            "suggest",
            "postprocess",
        )
    ]
    for name in core:
        source = inspect.getsource(importlib.import_module(name))
        wrong = [part for part in upper if re.search(rf"^\s*(from|import) pnpx\.{part}\b", source, re.MULTILINE)]
        assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") == 1])
def test_no_public_name_hides_a_module(name):
    own = name.rpartition(".")[2]
    assert getattr(pnpx, own, None) in (None, importlib.import_module(name))
