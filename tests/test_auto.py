"""A model explained with what suits it, in one call."""

from datetime import datetime

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pnpx
from pnpx import zoo
from pnpx.metrics import AbPC, Complexity
from pnpx.testing import available, case
from pnpx.testing.conduct import fingerprint, require_untouched

pytestmark = pytest.mark.usefixtures("ours_alone")

QUICK = {"metrics": ["Complexity"], "progress": False}


@pytest.fixture(scope="module")
def mlp():
    return zoo.load("breast_cancer_mlp")


@pytest.fixture(scope="module")
def cancer():
    return zoo.data("breast_cancer")


@pytest.fixture(scope="module")
def report(mlp, cancer):
    """Of six samples in three batches of a loader."""
    loader = DataLoader(TensorDataset(cancer.inputs, cancer.targets), batch_size=2)
    return pnpx.auto_explain(mlp, loader, samples=6, metrics=["AbPC", "Complexity"], class_names=cancer.class_names,
                             progress=False)


def test_a_loader_with_labels_needs_no_word_of_them(report, cancer):
    assert report.failures == {} and report.modality == "tabular"
    assert list(report.labels) == [cancer.class_names[int(one)] for one in cancer.targets[:6]]
    assert {len(found) for found in report.explanations.values()} == {6}
    assert list(report.explainers) == [one.name for one in report.recommendations if one.picked]


def test_explanations_and_scores_are_those_of_the_explainers(report, cancer):
    for name, explainer in report.explainers.items():
        batch = cancer.inputs[:6], cancer.targets[:6]  # as those of the loader
        expected = explainer.attribute(batch)
        found = torch.cat([one.attributions for one in report.explanations[name]])
        torch.testing.assert_close(found, expected)
        for metric in (AbPC(), Complexity()):
            scores = report.scores[name][type(metric).__name__]
            torch.testing.assert_close(scores, metric.evaluate(explainer, batch), rtol=1e-4, atol=1e-6)


def test_the_best_is_the_first_of_the_ranking(report):
    means = {name: float(scores["AbPC"].mean()) for name, scores in report.scores.items()}
    assert report.best is report.explainers[max(means, key=means.get)]
    assert [row.explainer for row in report.ranking.rows] == sorted(means, key=means.get, reverse=True)
    assert str(report).splitlines()[0] == "BreastCancerMLP: linear x3; tabular"
    assert "ranked by AbPC" in str(report) and report.ranking.rows[0].explainer in repr(report)
    assert "<table>" in report._repr_html_()


def test_saved_it_is_a_folder(report, tmp_path):
    page = report.save(tmp_path / "run", now=datetime(2026, 1, 2, 3, 4))
    assert page == tmp_path / "run" / "report.html"
    text = page.read_text()
    for part in ("2026-01-02 03:04", "Ranking at the input", "Why these explainers", "malignant", *report.explainers):
        assert part in text
    stored = pnpx.Explanation.load(tmp_path / "run" / "Gradient" / "0003.safetensors")
    assert torch.equal(stored.attributions, report.explanations["Gradient"][3].attributions)
    rows = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    assert len(rows) == len(report.explainers) * 2 * 6
    value = next(row["value"] for row in rows if (row["explainer"], row["metric"], row["sample"]) ==
                 ("Gradient", "Complexity", 5))
    assert value == pytest.approx(float(report.scores["Gradient"]["Complexity"][5]))


def test_the_page_alone_is_one_file(report, tmp_path):
    report.to_html(tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text().count("data:image/png") >= 6 * len(report.explainers)


def test_one_batch_is_cut_to_so_many_samples(mlp, cancer):
    found = pnpx.auto_explain(mlp, cancer.inputs, samples=3, **QUICK)
    assert {len(one) for one in found.explanations.values()} == {3} and found.labels is None


def test_targets_are_cut_with_it(mlp, cancer):
    targets = torch.tensor([[0, 1]] * 5)
    found = pnpx.auto_explain(mlp, cancer.inputs[:5], targets, samples=2, explainers=["Gradient"], **QUICK)
    assert found.scores["Gradient"]["Complexity"].shape == (2, 2)
    assert found.explanations["Gradient"][0].attributions.shape == (1, 2, 30)


def test_labels_by_name(mlp, cancer):
    batch = {"features": cancer.inputs[:2], "truth": cancer.targets[:2]}
    found = pnpx.auto_explain(mlp, batch, forward_arg_extractor="features", label_extractor="truth", **QUICK)
    assert list(found.labels) == [str(int(one)) for one in cancer.targets[:2]]


def test_names_or_explainers_of_ones_own(mlp, cancer):
    mine = pnpx.SmoothGrad(mlp, n_iter=3, layer="hidden1")
    found = pnpx.auto_explain(mlp, cancer.inputs[:2], explainers=["Lime", mine, "SmoothGrad"], **QUICK)
    assert list(found.explainers) == ["Lime", "SmoothGrad", "SmoothGrad-2"]
    assert found.explainers["SmoothGrad"] is mine
    assert found.explanations["SmoothGrad"][0].attributions.shape == (1, 32)


@pytest.mark.parametrize(("given", "error", "message"), [
    ({"explainers": ["Smoothgrad"]}, LookupError, "there is no explainer 'Smoothgrad'; the nearest: 'SmoothGrad'"),
    ({"metrics": ["AbCP"]}, LookupError, "there is no metric 'AbCP'; the nearest: 'AbPC'"),
    ({"rank_by": "Complexty"}, LookupError,
     "rank_by must be one of the metrics, but is 'Complexty'; the nearest: 'Complexity'"),
    ({"samples": 0}, ValueError, "`samples >= 1` must hold, but got samples=0"),
    ({"modality": "imag"}, ValueError, "modality must be one of .* but is 'imag'; the nearest: 'image'"),
    ({"n_itre": 3}, TypeError, "'n_itre' is no parameter of every explainer"),
    ({"layer": "hiden1"}, LookupError, "no module 'hiden1' in the model; the nearest: 'hidden1'"),
])
def test_what_is_not_right_is_said(mlp, cancer, given, error, message):
    with pytest.raises(error, match=message):
        pnpx.auto_explain(mlp, cancer.inputs[:2], **{**QUICK, **given})


def test_no_batch_and_no_model(mlp):
    with pytest.raises(ValueError, match="there must be a batch to explain, but the data have none"):
        pnpx.auto_explain(mlp, iter(()), **QUICK)
    with pytest.raises(TypeError, match=r"the model must be a torch.nn.Module, but is a function"):
        pnpx.auto_explain(torch.relu if not callable(len) else test_labels_by_name, torch.zeros(1, 3), **QUICK)


def test_what_no_explainer_can_explain():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="no explainer can explain this: out of order"):
        pnpx.auto_explain(Broken(), torch.zeros(2, 3), **QUICK)


def test_one_failing_explainer_does_not_end_the_run(mlp, cancer, monkeypatch):
    recommend = pnpx.recommend(mlp, cancer.inputs[:2])
    assert "SmoothGrad" in [one.name for one in recommend if one.picked]
    explain = pnpx.SmoothGrad.explain

    def fail(self, inputs, targets=None):
        if len(inputs) == 2 and type(self) is pnpx.SmoothGrad and self.n_iter == 20 and armed:
            raise RuntimeError("no luck today")
        return explain(self, inputs, targets)

    armed = []
    monkeypatch.setattr(pnpx.SmoothGrad, "explain", fail)
    monkeypatch.setattr(AbPC, "evaluate", lambda *_: (_ for _ in ()).throw(ValueError("nor here")))
    ready = [one.explainer for one in recommend if one.name in ("SmoothGrad", "Gradient")]
    armed.append(True)
    found = pnpx.auto_explain(mlp, cancer.inputs[:2], explainers=ready, metrics=["AbPC", "Complexity"], progress=False)
    assert found.failures == {"SmoothGrad": "RuntimeError: no luck today", "Gradient, judged by AbPC":
                              "ValueError: nor here"}
    assert list(found.explanations) == ["Gradient"] and list(found.scores["Gradient"]) == ["Complexity"]
    assert "failed: SmoothGrad: RuntimeError: no luck today" in str(found)
    with pytest.raises(LookupError, match="no explainer could be ranked by AbPC"):
        _ = found.best


def test_without_metrics_nothing_is_ranked(mlp, cancer, tmp_path):
    found = pnpx.auto_explain(mlp, cancer.inputs[:1], explainers=["Gradient"], metrics=[], progress=False)
    assert found.scores == {"Gradient": {}} and found.ranking.metrics == {}
    assert "Ranking" not in found.to_html(tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", available())
def test_models_of_every_kind_are_explained_and_left_as_found(name, tmp_path):
    made = case(name)
    made.model.train()
    before = fingerprint(made.model)
    found = pnpx.auto_explain(made.model, made.batch, samples=2, progress=False, **made.parameters)
    require_untouched(before, fingerprint(made.model), "the model")
    assert found.failures == {} and len(found.explanations) >= (2 if name == "linear" else 4)
    assert all(torch.isfinite(one).all() for scores in found.scores.values() for one in scores.values())
    assert found.ranking.by == "AbPC" and found.ranking.rows[0].rank == 1
    assert found.to_html(tmp_path / "page.html").stat().st_size > 10_000


def test_texts(tmp_path):
    model, tokenizer = zoo.load("sentiment"), zoo.tokenizer("sentiment")
    texts = ["A film of rare beauty.", "I left after ten minutes, bored.", "Dreadful."]
    found = pnpx.auto_explain(model, texts, tokenizer=tokenizer, samples=2, metrics=["AbPC", "Complexity"],
                              granularity="word", progress=False)
    assert found.failures == {} and found.modality == "text"
    assert {len(one) for one in found.explanations.values()} == {2}
    assert found.best in found.explainers.values()
    assert "beauty" in found.save(tmp_path).read_text()
    with pytest.raises(TypeError, match="class_names is not for texts; leave it out, or leave out the tokenizer"):
        pnpx.auto_explain(model, texts, tokenizer=tokenizer, class_names=["a"], **QUICK)
    with pytest.raises(ValueError, match="there must be a text to explain, but there is none"):
        pnpx.auto_explain(model, [], tokenizer=tokenizer, **QUICK)
