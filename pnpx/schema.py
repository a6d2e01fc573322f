"""What a configuration may say: the schema of a run.

A configuration is data. What it says about models, explainers and layers is compared with what there is in
:mod:`pnpx.checker`; code that it names runs only where the user allowed it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pnpx.source import shown

EVERY_MODEL = "*"
"""The key of the layers of an explainer that are the same for every model."""

AUTO = "auto"
"""In place of explainers those that suit the model, and in place of metrics those that suit the data."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _layer(value: Any) -> Any:
    # YAML reads the path 0 of a Sequential as a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _named(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _by_model(value: Any) -> Any:
    return value if isinstance(value, dict) else {EVERY_MODEL: value}


def _label(value: Any) -> Any:
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise ValueError(f"must be the name or the number of a class, or a text to be generated, but is {shown(value)}")


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


class _WithParameters(BaseModel):
    """Something by its ``name``, with its parameters beside it."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """What is said beside the name, and the keys that are always there: the arguments to make it with."""
        return dict(self.model_extra or {})


class ExplainerChoice(_WithParameters):
    """An explainer by ``name``, its parameters beside it, and the ``layers`` to explain, where null means the inputs.

    ``layers`` may be a mapping from a model's name to its list; a model that is not in it is explained at its inputs.
    """

    layers: Annotated[
        dict[str, Annotated[list[Annotated[str | None, BeforeValidator(_layer)]], Field(min_length=1)]],
        BeforeValidator(_by_model),
    ] = {EVERY_MODEL: [None]}

    def layers_of(self, model: str) -> Sequence[str | None]:
        """The layers to explain in the model called ``model``."""
        return self.layers.get(model, self.layers.get(EVERY_MODEL, [None]))


class MetricChoice(_WithParameters):
    """A metric that judges explanations, by ``name``, with its parameters beside it."""


class EngineChoice(_WithParameters):
    """Who does the explaining, by ``name``, with parameters beside it; see :mod:`pnpx.engines`."""


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

    ``"auto"`` among ``explainers`` stands for those that `pnpx.recommender` recommends for each model, and among
    ``metrics`` for those of `pnpx.metrics.SUITED`. Without ``explainers`` it is as if ``"auto"`` were there, and
    where it is, without ``metrics`` as well. The explainers of a place are ranked by the metric ``rank_by``, by default
    the first.

    ``engine`` has the explaining done by several processes, or machines; without it, this process does it.
    """

    title: str | None = None
    model: Annotated[list[ModelChoice], Field(min_length=1), BeforeValidator(_one_or_more)]
    data: DataChoice = DataChoice()
    explainers: Annotated[list[ExplainerChoice], Field(min_length=1), BeforeValidator(_named)] = [
        ExplainerChoice(name=AUTO)
    ]
    metrics: Annotated[list[MetricChoice] | None, BeforeValidator(_named)] = None
    rank_by: str | None = None
    text: TextChoice = TextChoice()
    engine: EngineChoice | None = None
    output: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    batch_size: Annotated[int, Field(ge=1)] = 16
