"""Explaining a model with what suits it: detect, recommend, explain, evaluate, rank."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from pnpx.auto.job import Batches, Job, Texts
from pnpx.auto.report import AutoReport
from pnpx.detector import detect
from pnpx.explainers import Explainer
from pnpx.extractors import Extractor
from pnpx.metrics import SUITED, Metric, all_metrics
from pnpx.parameters import require_count
from pnpx.ranking import Place, Ranking, Value, rank_places
from pnpx.recommender import Recommendation
from pnpx.removal import removal_of, suited
from pnpx.schema import AUTO
from pnpx.store import Names, Record
from pnpx.subjects import one_line
from pnpx.suggest import nearest
from pnpx.text import TextExplainer

Scores = dict[str, dict[str, "Tensor | list[Tensor]"]]


def auto_explain(
    model: nn.Module,
    data: Any,
    targets: Any = None,
    *,
    tokenizer: Any = None,
    explainers: Sequence[str | Explainer | TextExplainer] | None = None,
    metrics: Sequence[str | Metric] | None = None,
    rank_by: str | None = None,
    samples: int = 16,
    modality: str | None = None,
    background: Any = None,
    label_extractor: Extractor = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **shared: Any,
) -> AutoReport:
    """Explain ``data`` with the explainers that suit the model, judge the explanations, and rank the explainers.

    Args:
        model: the model. It is left as it was found.
        data: a ``DataLoader``, any other iterator over batches, one batch, or, with a ``tokenizer``, texts. Of a batch
            that is a tuple with one part more than the model requires, the last is taken to be the true classes.
        targets: what is explained, as `Explainer.attribute` and `TextExplainer` take it; None: what is predicted. What
            holds one for each sample does so for those of all batches, in their order.
        tokenizer: of transformers, for a model that reads texts.
        explainers: those wanted, by name, or made for the model; None, or "auto": those that are recommended.
        metrics: those that judge, by name, or made; None, or "auto": AbPC, MuFidelity and Complexity.
        rank_by: the metric that decides the order; None: the first one.
        samples: how many samples are explained at most; the first ones.
        modality: "image", "series", "tabular" or "text"; None: a guess from the model and the first batch.
        background: a batch that stands for the data, for explainers that compare with it; None: the first batch.
        label_extractor: takes the true classes from a batch: a position, a key, or a callable; for the report.
        class_names: in the order of the classes, for the report.
        seed: of explainers and metrics that draw.
        progress: show a progress bar.
        **shared: what all explainers are made with: ``layer``, ``forward_arg_extractor``,
            ``additional_forward_arg_extractor``, ``score``, ``batch_size`` and so on; for texts, what `TextExplainer`
            takes, such as ``granularity``.

    Raises:
        TypeError, ValueError, LookupError: the data, or a name or parameter, is not right.
        RuntimeError: no explainer can explain the model. What fails later fails that explainer, or metric, alone, and
            is in the report's ``failures``.

    >>> from pnpx import zoo
    >>> data = zoo.data("breast_cancer")
    >>> report = auto_explain(zoo.load("breast_cancer_mlp"), data.inputs[:4], metrics=["AbPC", "Complexity"],
    ...                       explainers=["Gradient", "IntegratedGradients"], progress=False)
    >>> [row.explainer for row in report.ranking.rows]
    ['IntegratedGradients', 'Gradient']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, but is a {type(model).__name__}")
    require_count("samples", samples, 1)
    judges = _judges(_listed(metrics, (Metric,)), seed)
    job: Job
    if tokenizer is not None:
        for name, given in (("modality", modality), ("background", background), ("label_extractor", label_extractor),
                            ("class_names", class_names)):
            if given is not None:
                raise TypeError(f"{name} is not for texts; leave it out, or leave out the tokenizer")
        job = Texts.of(model, tokenizer, data, targets, samples, seed, shared)
    else:
        job = Batches.of(model, data, targets, samples, modality, background, label_extractor, class_names, seed,
                         shared)
    by = next(iter(judges), None) if rank_by is None else rank_by
    if by is not None and by not in judges:
        raise LookupError(f"rank_by must be one of the metrics, but is {by!r}; {nearest(by, judges)}")
    given = _listed(explainers, (Explainer, TextExplainer))
    for one in given or ():
        _require_explainer(one, model, texts=tokenizer is not None)
    for name, metric in judges.items():
        if tokenizer is not None and not metric.judges_texts:
            raise TypeError(f"{name} does not judge explanations of texts; leave it out")
    recommendations = job.recommend([one for one in given or () if isinstance(one, str)])
    failures: dict[str, str] = {}
    chosen = _chosen(given, recommendations, failures)
    return _explained(job, chosen, judges, by, recommendations, failures, progress)


def _listed(given: Any, kinds: tuple[type, ...]) -> list[Any] | None:
    """What is given by itself or in a sequence, classes by their names; None if the choice is left to pnpx."""
    if given is None or given == AUTO:
        return None
    several = [given] if isinstance(given, (str, type, *kinds)) else list(given)
    return [one.__name__ if isinstance(one, type) and issubclass(one, (*kinds, Metric)) else one for one in several]


def _require_explainer(given: Any, model: nn.Module, texts: bool) -> None:
    """Require the name of an explainer, or one that was made for the model, and for texts where these are explained."""
    if isinstance(given, str):
        return
    wanted = TextExplainer if texts else Explainer
    if not isinstance(given, wanted):
        what = "a pnpx.text.TextExplainer" if texts else "an explainer, such as pnpx.Gradient(model)"
        why = ", as texts are explained" if texts else ""
        raise TypeError(f"explainers must be names, or each {what}{why}, but one is a {type(given).__name__}")
    if given.model is not model:
        raise ValueError(f"explainers must be made for the model that is explained, but {given!r:.80} is not")


def _judges(metrics: Sequence[Any] | None, seed: int) -> dict[str, Metric]:
    """The metrics by the names that they go by."""
    metrics = SUITED if metrics is None else metrics
    known, names = all_metrics(), Names()
    found: dict[str, Metric] = {}
    for one in metrics:
        if isinstance(one, Metric):
            found[names.new(type(one).__name__)] = one
            continue
        if one not in known:
            raise LookupError(f"there is no metric {one!r}; {nearest(str(one), known)}")
        kind = known[one]
        metric = kind()
        found[names.new(one)] = replace(metric, seed=seed) if hasattr(metric, "seed") else metric  # type: ignore[call-arg]
    return found


def _chosen(
    given: Sequence[Any] | None, recommendations: Sequence[Recommendation], failures: dict[str, str]
) -> dict[str, Any]:
    """The explainers by the names that they go by, which are names of files as well; those that cannot be, noted.

    Raises:
        RuntimeError: there are none.
    """
    names = Names()
    if given is None:
        picked = [one for one in recommendations if one.picked]
        if not picked:
            raise RuntimeError(f"no explainer can explain this: {_reasons(recommendations)}")
        return {names.new(one.name): one.explainer for one in picked}
    by_name = {one.name: one for one in recommendations}
    refused = [by_name[one] for one in given if isinstance(one, str) and not by_name[one].picked]
    if len(refused) == len(given):
        raise RuntimeError(f"{', '.join(one.name for one in refused)} cannot explain this: {_reasons(refused)}")
    failures.update({one.name: one.reason for one in refused})
    found = {}
    for one in given:
        if isinstance(one, str) and not by_name[one].picked:
            continue
        ready = by_name[one].explainer if isinstance(one, str) else one
        kind = ready.method if isinstance(ready, TextExplainer) else type(ready)
        found[names.new(kind.__name__)] = ready
    return found


def _reasons(refused: Sequence[Recommendation]) -> str:
    """Why these were not picked, each reason once, with whom it is of where there are several."""
    by_reason: dict[str, list[str]] = {}
    for one in refused:
        by_reason.setdefault(one.reason, []).append(one.name)
    if len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in by_reason.items())


def _explained(
    job: Job,
    chosen: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    by: str | None,
    recommendations: Sequence[Recommendation],
    failures: dict[str, str],
    progress: bool,
) -> AutoReport:
    from tqdm.auto import tqdm

    explanations: dict[str, list[Record]] = {}
    scores: Scores = {}
    removal = removal_of(recommendations)
    with tqdm(total=len(chosen) * (1 + len(metrics)), disable=not progress, leave=False) as bar:
        for name, explainer in chosen.items():
            bar.set_description(name)
            try:
                found = job.explain(explainer)
            except Exception as error:  # whatever it is, the others go on, and the report says it
                failures[name] = one_line(error)
                bar.update(1 + len(metrics))
                continue
            explanations[name], scores[name] = job.records(found), {}
            at_inputs = job.place(explainer)[0] is None
            bar.update(1)
            for metric_name, metric in metrics.items():
                bar.set_description(f"{name}, {metric_name}")
                try:
                    scores[name][metric_name] = job.evaluate(suited(metric, removal, at_inputs), explainer, found)
                except Exception as error:
                    failures[f"{name}, judged by {metric_name}"] = one_line(error)
                bar.update(1)
    if not explanations:
        said = "; ".join(f"{what}: {how}" for what, how in failures.items())
        raise RuntimeError(f"nothing could be explained: {said}")
    return AutoReport(
        model=type(job.model).__name__,
        n_parameters=sum(weight.numel() for weight in job.model.parameters()),
        traits=detect(job.model),
        modality=job.modality,
        recommendations=recommendations,
        explainers={name: one for name, one in chosen.items() if name in explanations},
        explanations=explanations,
        scores=scores,
        rankings=_rankings(job, {name: chosen[name] for name in explanations}, scores, metrics, by),
        failures=failures,
        labels=job.labels,
    )


def _rankings(
    job: Job, explainers: Mapping[str, Any], scores: Scores, metrics: Mapping[str, Metric], by: str | None
) -> list[tuple[str | None, str, Ranking]]:
    """The explainers ranked, by where they explain, and by the units that have a score there."""
    places: dict[Place, list[str]] = {}
    values: dict[Place, list[Value]] = {}
    for name, explainer in explainers.items():
        place = job.place(explainer)
        places.setdefault(place, []).append(name)
        values.setdefault(place, []).extend(
            Value(name, metric, sample, target, value)
            for metric, of_samples in scores[name].items()
            for sample, of_targets in enumerate(of_samples)
            for target, value in enumerate(of_targets.reshape(-1).tolist())
        )
    return rank_places(places, values, {name: metric.higher_is_better for name, metric in metrics.items()}, by or "")
