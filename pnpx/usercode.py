"""The code that a class or a function runs: that of its user's modules as text, that of installed packages by version.

Where the modules lie does not count, nor what they are called; only what they say.
"""

import ast
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Literal

Owner = Literal["user", "pnpx", "package", "python"]

_OURS = __name__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")


class UserCode:
    """Collects the code of classes and functions, and of what their modules import."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._modules: set[str] = set()
        self._seen: set[type | FunctionType] = set()

    def said(self) -> list[str]:
        """All of it, in an order that is always the same."""
        return sorted(self._found)

    def add_class(self, kind: type) -> None:
        """Add the code of a class and of all that it inherits from."""
        for base in kind.__mro__:
            self._add(base, base.__module__)

    def add_function(self, function: FunctionType) -> None:
        """Add the code of a function, and, where it is the user's, the whole module in which it stands."""
        self._add(function, function.__module__ or "")

    def _add(self, thing: type | FunctionType, module: str) -> None:
        if thing in self._seen:
            return
        self._seen.add(thing)
        whose = owner(module)
        if whose == "python":
            return
        if whose == "package" and (number := _version(module.partition(".")[0])) is not None:
            self._found.add(f"{module.partition('.')[0]} {number}")
        elif whose != "user" or not self._add_module(module):
            self._found.add(_source(thing))

    def _add_module(self, name: str) -> bool:
        """Add the text of a module and of those of the user that it imports; whether there is such a text."""
        if name in self._modules:
            return True
        content = _content(sys.modules.get(name))
        if content is None:
            return False
        self._modules.add(name)
        self._found.add(content.decode("utf-8", errors="replace"))
        for imported in _imported(content, name):
            if imported in sys.modules and owner(imported) == "user":
                self._add_module(imported)
        return True


def owner(module: str) -> Owner:
    """Whose the module of that name is."""
    top = module.partition(".")[0]
    if top == _OURS:
        return "pnpx"
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # made at a prompt, in a notebook or by a test; or built into Python
        return "python" if top in sys.stdlib_module_names and top != "__main__" else "user"
    return _owner_of_file(file)


@cache
def _owner_of_file(file: str) -> Owner:
    path = Path(file).resolve()
    if any(part in _INSTALLED for part in path.parts):
        return "package"
    paths = sysconfig.get_paths()
    for names, whose in ((("purelib", "platlib"), "package"), (("stdlib", "platstdlib"), "python")):
        if any(path.is_relative_to(Path(paths[name]).resolve()) for name in names):
            return whose  # type: ignore[return-value]
    return "user"


@cache
def _version(package: str) -> str | None:
    """The version of the package that is imported by that name, without the part that says how it was built."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:  # it is distributed under another name, which takes a look at all that is installed
        names = packages_distributions().get(package, ())
        return version(names[0]).partition("+")[0] if names else None


def _content(module: ModuleType | None) -> bytes | None:
    """What the file of a module holds; None if it has none."""
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError:  # in an archive
        try:
            return inspect.getsource(module).encode()
        except (OSError, TypeError):
            return None


def _imported(content: bytes, module: str) -> Iterator[str]:
    """The names of what may be modules among what the text of ``module`` imports, wherever in it."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # it is compiled
        return
    is_package = hasattr(sys.modules.get(module), "__path__")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                yield from (".".join(parts[: n + 1]) for n in range(len(parts)))
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            above = above[: len(above) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _source(thing: type | FunctionType) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # made where there is no file
        functions = [one for one in vars(thing).values() if isinstance(one, FunctionType)]
        return " ".join([thing.__qualname__, *(instructions(one.__code__) for one in functions)])


def instructions(code: CodeType) -> str:
    """What a function does, in words that tell apart two on one line, and are the same in every process."""
    constants = [instructions(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants))


def _constant(value: object) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
