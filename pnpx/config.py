"""A configuration as settings, and its problems in words."""

import copy
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pnpx.schema import (
    Columns,
    DataChoice,
    EngineChoice,
    ExplainerChoice,
    MetricChoice,
    ModelChoice,
    Settings,
    TextChoice,
    TextItem,
)
from pnpx.source import ConfigError, Source, load, shown
from pnpx.suggest import nearest


def read(path: Path, overrides: Sequence[str] = ()) -> tuple[Settings, Source]:
    """The settings in the YAML file ``path``, changed by ``overrides`` such as ``"explainers.0.n_iter=10"``.

    Raises :class:`ConfigError` with one line a problem: its place, its key path, what is wrong, and the nearest name.
    """
    settings, source, problems = parse(path, overrides)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings, source


def parse(path: Path, overrides: Sequence[str] = ()) -> tuple[Settings | None, Source, list[str]]:
    """The settings as far as they can be read, and the problems in them, so that more may be looked for.

    Keys that do not exist are left out of the settings; with any other problem, or where they then serve no more,
    there are none.
    """
    source = load(path, overrides)
    try:
        return Settings.model_validate(source.data), source, []
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = unique(_in_words(problem, source) for problem in found)
    if any(problem["type"] != "extra_forbidden" for problem in found):
        return None, source, problems
    data = copy.deepcopy(source.data)
    for problem in found:
        *parents, key = source.written(problem["loc"])
        del functools.reduce(operator.getitem, parents, data)[key]  # type: ignore[arg-type]
    try:
        return Settings.model_validate(data), source, problems
    except ValidationError:  # what is left is not right without the key: a mapping, say, that may not be empty
        return None, source, problems


def unique(lines: Iterable[str]) -> list[str]:
    """``lines`` in their order, each once."""
    return list(dict.fromkeys(lines))


_KEYS: dict[str, type[BaseModel]] = {
    "model": ModelChoice,
    "data": DataChoice,
    "data.texts": TextItem,
    "data.columns": Columns,
    "explainers": ExplainerChoice,
    "metrics": MetricChoice,
    "engine": EngineChoice,
    "text": TextChoice,
}

_MUST: dict[str, str] = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a name, or a mapping with one",
    "model_attributes_type": "must be a name, or a mapping with one",
}


def _in_words(problem: Mapping[str, Any], source: Source) -> str:
    """One line for a problem that pydantic found."""
    kind, keys, given = problem["type"], problem["loc"], problem["input"]
    context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        section = ".".join(str(key) for key in keys[:-1] if isinstance(key, str))
        allowed = (_KEYS[section] if section else Settings).model_fields
        return source.problem(keys, f"there is no such key; {nearest(str(keys[-1]), allowed)}")
    if kind == "missing":
        return source.problem(keys[:-1], f"the key {str(keys[-1])!r} is missing")
    if kind == "value_error":
        return source.problem(keys, str(context["error"]))
    if kind == "too_short":
        return source.problem(keys, "must have at least one item, but is empty")
    if kind == "string_too_short":
        return source.problem(keys, "must not be empty")
    if kind == "greater_than_equal":
        return source.problem(keys, f"must be at least {context['ge']}, but is {given!r}")
    if kind == "less_than":
        return source.problem(keys, f"must be less than {context['lt']}, but is {given!r}")
    if keys[:2] == ("data", "texts") and kind in ("model_type", "model_attributes_type", "string_type"):
        must = "must be a text" if keys[-1] == "text" else "must be a text in quotes, or a mapping with one as 'text'"
    elif keys in (("explainers",), ("metrics",)) and kind == "list_type":
        must = "must be a list, a name, or auto"
    elif "layers" in keys and kind == "list_type":
        must = "must be a list of layers, in which null means the inputs"
    elif "layers" in keys and kind == "string_type":
        must = "must be the path of a module in quotes, or null for the inputs"
    else:
        must = _MUST.get(kind, f"is not right: {problem['msg']}")
    return source.problem(keys, f"{must}, but is {shown(given)}")
