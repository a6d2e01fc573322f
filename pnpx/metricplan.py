"""The metrics that a configuration names, checked, and made ready to judge explanations."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pnpx.faults import faults, in_words
from pnpx.metrics import SUITED, Metric, all_metrics
from pnpx.schema import AUTO, MetricChoice, Settings
from pnpx.store import Names
from pnpx.suggest import nearest
from pnpx.yamltree import KeyPath

Note = Callable[[KeyPath, object], None]


def metrics_of(settings: Settings, texts: bool, note: Note) -> dict[str, Metric]:
    """The metrics of a run by the names that they go by in its tables; what is not right among them is noted.

    Args:
        settings: of the run. Without metrics there are some where one of its explainers is ``"auto"``.
        texts: whether it explains texts.
        note: takes a problem and its place.
    """
    chosen = settings.metrics
    if chosen is None:
        automatic = any(choice.name == AUTO for choice in settings.explainers)
        chosen = [MetricChoice(name=AUTO)] if automatic else []
    found: dict[str, Metric] = {}
    names = Names()
    named = {choice.name for choice in chosen}
    for index, choice in enumerate(chosen):
        keys: KeyPath = ("metrics", index)
        if choice.name != AUTO:
            metric = _made(choice.name, choice.parameters, keys, settings, note)
            if metric is not None and texts and not metric.judges_texts:
                note((*keys, "name"), f"{choice.name} does not judge explanations of texts; leave it out")
            elif metric is not None:
                found[names.new(choice.name)] = metric
            continue
        for name in choice.parameters:
            note((*keys, name), f"{AUTO!r} takes no parameters; name the metric that {name!r} is of")
        for name in SUITED:
            if name not in named:
                metric = _made(name, {}, keys, settings, note)
                if metric is not None:
                    found[names.new(name)] = metric
    if settings.rank_by is not None and settings.rank_by not in {*found, *named}:
        hint = nearest(settings.rank_by, found) if found else "this run has none"
        note(("rank_by",), f"must be one of the metrics, but is {settings.rank_by!r}; {hint}")
    return found


def _made(name: str, given: Mapping[str, Any], keys: KeyPath, settings: Settings, note: Note) -> Metric | None:
    known = all_metrics()
    if name not in known:
        note((*keys, "name"), f"there is no metric {name!r}; {nearest(name, [*known, AUTO])}")
        return None
    kind = known[name]
    allowed = [item.name for item in fields(kind) if item.init]
    wrong = [parameter for parameter in given if parameter not in allowed]
    for parameter in wrong:
        note((*keys, parameter), f"{name} has no parameter {parameter!r}; {nearest(parameter, allowed)}")
    if wrong:
        return None
    arguments = {**({"seed": settings.seed} if "seed" in allowed else {}), **given}
    try:
        return kind(**arguments)
    except Exception as error:  # of any kind: there may be metrics of the user's own
        def without(left_out: Any) -> Metric:
            return kind(**{key: value for key, value in arguments.items() if key not in left_out})

        for parameter, fault in faults(without, list(given)) or [("name", error)]:
            note((*keys, parameter), in_words(fault))
        return None
