"""What a configuration may say: the schema of a run, and its problems in words.

A configuration is data. What it says about models, explainers and layers is compared with what there is in
:mod:`pnpx.plan`; code that it names runs only where the user allowed it.
"""

import copy
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pnpx.source import ConfigError, Source, load
from pnpx.suggest import nearest

EVERY_MODEL = "*"
"""The key of the layers of an explainer that are the same for every model."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _layer(value: Any) -> Any:
    # YAML reads the path 0 of a Sequential as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _by_model(value: Any) -> Any:
    return value if isinstance(value, dict) else {EVERY_MODEL: value}


def _label(value: Any) -> Any:
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise ValueError(f"must be the name or the number of a class, or a text to be generated, but is {_shown(value)}")


def _labels(value: Any) -> Any:
    if isinstance(value, list):
        if not value:
            raise ValueError("must have at least one item, but is empty")
        if any(item is None for item in value):
            raise ValueError("must not have an empty item (null)")
        return [_label(item) for item in value]
    return _label(value)


Label: TypeAlias = Annotated[Any, BeforeValidator(_label)]
"""A class by name or number, or None."""

Labels: TypeAlias = Annotated[Any, BeforeValidator(_labels)]
"""What is explained of a text: a class by name or number, several of them, a text to be generated, or None."""


class ModelChoice(_Strict):
    """A model: the ``name`` of one in the zoo, or a ``factory``, ``"package.module:function"``, that returns one.

    ``"transformers:name"`` is one of the Hugging Face hub, or, for the path of a folder, one in it.

    ``weights`` is a safetensors file for the model that the factory returns, relative to the configuration.
    """

    name: str | None = None
    factory: str | None = None
    weights: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> "ModelChoice":
        if self.name is None and self.factory is None:
            raise ValueError("must have a 'name' from the zoo or a 'factory', 'package.module:function'")
        if self.weights is not None and self.factory is None:
            raise ValueError("has 'weights' but no 'factory' to load them into; models of the zoo bring their own")
        return self


class TextItem(_Strict):
    """A text, or a pair of them, its true class, and what is explained of it, where that is not so for all texts."""

    text: str
    pair: str | None = None
    label: Label = None
    target: Labels = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value


class Columns(_Strict):
    """What the columns of a file are called that hold what a :class:`TextItem` does."""

    text: str = "text"
    pair: str = "pair"
    label: str = "label"
    target: str = "target"


class DataChoice(_Strict):
    """Which samples are explained: of the data set ``name``, the model's own by default, or of a ``factory``.

    A factory is called with ``split`` and returns (inputs, targets) or a :class:`pnpx.zoo.ZooData`. ``samples`` takes
    that many from the start of the split, ``indices`` takes these. For models that read texts there may be ``texts``,
    or a ``file`` of them, relative to the configuration or to the current folder, whose ``columns`` are as named.
    """

    name: str | None = None
    factory: str | None = None
    texts: Annotated[list[TextItem], Field(min_length=1)] | None = None
    file: str | None = None
    columns: Columns = Columns()
    split: str = "test"
    samples: Annotated[int, Field(ge=1)] | None = None
    indices: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"texts": value}
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_each(self) -> "DataChoice":
        sources = [name for name in ("name", "factory", "texts", "file") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"has both {sources[0]!r} and {sources[1]!r}; give the one or the other")
        if "columns" in self.model_fields_set and self.file is None:
            raise ValueError("has 'columns' but no 'file' that they could be of")
        if self.samples is not None and self.indices is not None:
            raise ValueError("has both 'samples' and 'indices'; give the number of samples or their indices")
        return self


class ExplainerChoice(BaseModel):
    """An explainer by ``name``, its parameters beside it, and the ``layers`` to explain, where null means the inputs.

    ``layers`` may be a mapping from a model's name to its list; a model that is not in it is explained at its inputs.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str
    layers: Annotated[
        dict[str, Annotated[list[Annotated[str | None, BeforeValidator(_layer)]], Field(min_length=1)]],
        BeforeValidator(_by_model),
    ] = {EVERY_MODEL: [None]}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """What is said beside the name and the layers: arguments of the explainer."""
        return dict(self.model_extra or {})

    def layers_of(self, model: str) -> Sequence[str | None]:
        """The layers to explain in the model called ``model``."""
        return self.layers.get(model, self.layers.get(EVERY_MODEL, [None]))


class TextChoice(_Strict):
    """How texts are explained, unless an explainer says otherwise; see :class:`pnpx.text.TextExplainer`.

    ``targets`` are explained for every text that has none of its own: a class by name or number, or several; for a
    model that generates, the text that it is to generate; by default what it predicts or generates. ``generation`` are
    arguments of the model's ``generate``, such as ``max_new_tokens``.
    """

    granularity: str = "word"
    aggregation: str = "mean"
    reduce: str = "abs_mean"
    targets: Labels = None
    generation: dict[str, Any] = {}


class Settings(_Strict):
    """A run: which explainers explain which samples of which models, and into which folder.

    ``seed`` is that of every explainer that has one and does not say otherwise. ``batch_size`` is the number of
    samples explained in one call: what a run that is cut off may have to do again. ``text`` is for models that read
    texts.
    """

    title: str | None = None
    model: Annotated[list[ModelChoice], Field(min_length=1), BeforeValidator(_one_or_more)]
    data: DataChoice = DataChoice()
    explainers: Annotated[list[ExplainerChoice], Field(min_length=1)]
    text: TextChoice = TextChoice()
    output: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 16


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

    Keys that do not exist are left out of the settings; with any other problem there are none.
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
    return Settings.model_validate(data), source, problems


def unique(lines: Iterable[str]) -> list[str]:
    """``lines`` in their order, each once."""
    return list(dict.fromkeys(lines))


_KEYS: dict[str, type[BaseModel]] = {
    "model": ModelChoice,
    "data": DataChoice,
    "data.texts": TextItem,
    "data.columns": Columns,
    "explainers": ExplainerChoice,
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
    if keys[:2] == ("data", "texts") and kind in ("model_type", "model_attributes_type", "string_type"):
        must = "must be a text" if keys[-1] == "text" else "must be a text in quotes, or a mapping with one as 'text'"
    elif "layers" in keys and kind == "list_type":
        must = "must be a list of layers, in which null means the inputs"
    elif "layers" in keys and kind == "string_type":
        must = "must be the path of a module in quotes, or null for the inputs"
    else:
        must = _MUST.get(kind, f"is not right: {problem['msg']}")
    return source.problem(keys, f"{must}, but is {_shown(given)}")


def _shown(given: object) -> str:
    """A value as a YAML writer knows it, at most some words long."""
    if given is None:
        return "empty (null)"
    text = str(given).lower() if isinstance(given, bool) else repr(given)
    return text if len(text) <= 60 else text[:57] + "..."
