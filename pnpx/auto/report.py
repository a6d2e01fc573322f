"""What `pnpx.auto_explain` returns: explanations by several explainers, what metrics say of them, and their ranking."""

import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pnpx.detector import Traits
from pnpx.explanation import Explanation
from pnpx.panels import Output, output_of, panel_of
from pnpx.parameters import as_plain
from pnpx.ranking import Ranking
from pnpx.recommender import Recommendation
from pnpx.report import Failure, Report, Sample, Section, render
from pnpx.report.drawing import drawn
from pnpx.store import Record, Store
from pnpx.tables import ScoreRow, write_scores
from pnpx.text import TextExplainer
from pnpx.versions import versions

if TYPE_CHECKING:
    from pnpx.report import Panel


@dataclass(frozen=True, eq=False, repr=False)
class AutoReport:
    """Explanations of a model by the explainers that suit it, judged and ranked. Printed, it is the ranking.

    Attributes:
        model: the name of the model's class.
        n_parameters: how many trained values it has.
        traits: of which kinds of modules it is made.
        modality: what its inputs are taken for: "image", "series", "tabular" or "text".
        recommendations: every explainer, with why it was, or was not, picked.
        explainers: those that explained, by name, ready to explain more.
        explanations: by the same names, an explanation a sample, each a batch of one.
        scores: by explainer and metric, what the metric says: (samples,), or (samples, targets); of texts, whose
            numbers of targets may differ, a list of tensors.
        rankings: the explainers in their order, for each place with others that explain there: its layer, None for the
            inputs; what has a score there, if that differs, such as "word"; and the ranking.
        failures: what failed, by what it was, and how.
        labels: the true classes, one a sample, where the data had them; None for what is no number or word.
    """

    model: str
    n_parameters: int
    traits: Traits
    modality: str
    recommendations: Sequence[Recommendation]
    explainers: Mapping[str, Any]
    explanations: Mapping[str, Sequence[Record]]
    scores: Mapping[str, Mapping[str, "Tensor | list[Tensor]"]]
    rankings: Sequence[tuple[str | None, str, Ranking]]
    failures: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str | None] | None = None

    @property
    def ranking(self) -> Ranking:
        """The ranking; of several places the one with the best explainer, by the mean that decides."""

        def worth(ranking: Ranking) -> float:
            first = ranking.rows[0]
            if first.rank is None:
                return -math.inf
            return first.means[ranking.by] * (1 if ranking.metrics[ranking.by] else -1)

        return max((ranking for *_, ranking in self.rankings), key=worth)

    @property
    def best(self) -> Any:
        """The explainer that ranks first.

        Raises:
            LookupError: none could be ranked.
        """
        first = self.ranking.rows[0]
        if first.rank is None:
            raise LookupError(
                f"no explainer could be ranked by {self.ranking.by}; see failures"
                if self.ranking.by else "no explainer was ranked, as no metrics were given"
            )
        return self.explainers[first.explainer]

    def __repr__(self) -> str:
        samples = max(map(len, self.explanations.values()), default=0)
        return f"AutoReport({self.model}, {self.modality}, samples={samples}, explainers={list(self.explanations)})"

    def __str__(self) -> str:
        """The ranking, and what failed, in plain text."""
        lines = [f"{self.model}: {self.traits}; {self.modality}"]
        for layer, units, ranking in self.rankings:
            if len(self.rankings) > 1:
                lines.append(f"at {'the inputs' if layer is None else layer}{units and f', by {units}'}")
            lines.append(str(ranking))
        lines += [f"failed: {what}: {how}" for what, how in self.failures.items()]
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str], now: datetime | None = None) -> Path:
        """Write the explanations, a picture of each, ``scores.parquet`` and ``report.html`` into ``folder``.

        Args:
            folder: made if it is not there. Files of the same names are replaced, and no others removed.
            now: the date of the report; by default that of the call.

        Returns:
            The path of the page.

        Raises:
            OSError: the folder cannot be written to.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        store = Store(place)
        for name, records in self.explanations.items():
            for index, record in enumerate(records):
                store.save(f"{name}/{index:04d}", record, "")
        if self.rankings[0][2].metrics:
            write_scores(place / "scores.parquet", self._rows())
        return self._page(place, place / "report.html", now or datetime.now())

    def to_html(self, path: str | os.PathLike[str], now: datetime | None = None) -> Path:
        """Write the report alone, one page that needs no other file; raises OSError where it cannot be written."""
        with TemporaryDirectory() as pictures:
            return self._page(Path(pictures), Path(path), now or datetime.now())

    def _repr_html_(self) -> str:
        said = f"<p>{html.escape(f'{self.model}: {self.traits}; {self.modality}')}</p>"
        failed = "".join(f"<p>failed: {html.escape(f'{what}: {how}')}</p>" for what, how in self.failures.items())
        tables = "".join(
            f"<p>at {html.escape('the inputs' if layer is None else layer)}{html.escape(units and f', by {units}')}</p>"
            + ranking._repr_html_()
            for layer, units, ranking in self.rankings
        )
        return said + tables + failed

    def _page(self, pictures: Path, path: Path, now: datetime) -> Path:
        panels: dict[int, list[Panel]] = {}
        outputs: dict[int, Output] = {}
        records: dict[int, Record] = {}
        failures = [Failure(self.model, what, None, how) for what, how in self.failures.items()]
        for name, explanations in self.explanations.items():
            layer = self._layer(name)
            parameters = {key: as_plain(value) for key, value in self._parameters(name).items()}
            for index, record in enumerate(explanations):
                records.setdefault(index, record)
                outputs.setdefault(index, output_of(record))
                picture = pictures / name / f"{index:04d}.png"
                if error := drawn(record.plot, picture, again=True):
                    failures.append(Failure(self.model, name, layer, f"picture {index}: {error}"))
                else:
                    panels.setdefault(index, []).append(panel_of(record, name, layer, parameters, picture))
        section = Section(
            model=self.model,
            architecture=self.model,
            n_parameters=self.n_parameters,
            data=self.modality,
            accuracy=None,
            samples=[
                self._sample(index, record, outputs[index], panels.get(index, []), pictures)
                for index, record in sorted(records.items())
            ],
            detected=str(self.traits),
            rankings=[one for one in self.rankings if one[2].metrics],
            recommendations=[(None, self.recommendations)],
        )
        created = now.isoformat(sep=" ", timespec="minutes")
        page = Report(f"Explanations of {self.model}", created, self._settings(), [section], failures, versions())
        render(page, path)
        return path

    def _sample(self, index: int, record: Record, output: Output, panels: Sequence["Panel"], pictures: Path) -> Sample:
        input_png: Path | None = None
        texts: tuple[str, ...] = ()
        if isinstance(record, Explanation):
            from pnpx.plots import plot_input

            picture = pictures / "samples" / f"{index:04d}.png"
            if drawn(lambda: plot_input(record), picture, again=True) is None:
                input_png = picture
        else:
            texts = record.texts[:-1] if record.generation else record.texts
        label = None if self.labels is None else self.labels[index]
        return Sample(index, input_png, label, output.what, output.probability, panels, output.how, texts)

    def _settings(self) -> str:
        lines = []
        for name in self.explanations:
            said = ", ".join(f"{key}={as_plain(value)}" for key, value in self._parameters(name).items())
            lines.append(f"{name} at {self._layer(name) or 'the inputs'}: {said or 'as it is'}")
        return "\n".join(lines)

    def _parameters(self, name: str) -> Mapping[str, Any]:
        """What an explainer was made with: as recommended, or else what differs from its defaults."""
        explainer = self.explainers[name]
        for one in self.recommendations:
            if one.explainer is explainer:
                return one.parameters
        if isinstance(explainer, TextExplainer):
            return {key: value for key, value in explainer.parameters.items() if key != "layer"}
        own = [one for one in fields(explainer) if one.name not in ("model", "layer") and one.init]
        found = {one.name: (getattr(explainer, one.name), one.default) for one in own}
        return {name: value for name, (value, default) in found.items() if as_plain(value) != as_plain(default)}

    def _layer(self, name: str) -> str | None:
        layer = self.explainers[name].parameters.get("layer")
        return None if layer is None else str(layer)

    def _rows(self) -> list[ScoreRow]:
        rows = []
        for name, of_metrics in self.scores.items():
            for metric, found in of_metrics.items():
                for sample, values in enumerate(found):
                    for target, value in enumerate(values.reshape(-1).tolist()):
                        rows.append(
                            ScoreRow(
                                model=self.model,
                                explainer=name,
                                parameters=self._parameters(name),
                                layer=self._layer(name),
                                sample=sample,
                                target=target,
                                metric=metric,
                                value=value,
                                higher_is_better=self.rankings[0][2].metrics[metric],
                                seconds=self.explanations[name][sample].seconds,
                            )
                        )
        return rows
