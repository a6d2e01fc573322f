"""A model explained with what suits it, in one call."""

from collections import namedtuple
from dataclasses import replace
from datetime import datetime

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pnpx
from pnpx import zoo
from pnpx.auto.given import texts_of
from pnpx.metrics import AbPC, Complexity, MuFidelity
from pnpx.structure import tensors
from pnpx.testing import available, case
from pnpx.testing.conduct import fingerprint, require_untouched

pytestmark = [
    pytest.mark.usefixtures("ours_alone"),
    pytest.mark.filterwarnings("ignore:what .* steps miss:RuntimeWarning"),
]

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


# As data come


def small(n_out=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, n_out))


X = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(10) % 3
ONE = {**QUICK, "explainers": ["Gradient"]}


class Loader:
    """A loader of one's own."""

    def __iter__(self):
        return iter([X[:4], X[4:8]])


Pair = namedtuple("Pair", ["image", "truth"])


@pytest.mark.parametrize(("data", "labels", "size"), [
    ((X, Y), ["0", "1", "2", "0", "1", "2", "0", "1", "2", "0"], 10),
    ([X, Y], ["0", "1", "2", "0", "1", "2", "0", "1", "2", "0"], 10),
    (Pair(X, Y), ["0", "1", "2", "0", "1", "2", "0", "1", "2", "0"], 10),
    ((X[:2], ["cat", "dog"]), ["cat", "dog"], 2),
    ((X[:2], ("cat", "dog")), ["cat", "dog"], 2),
    ((X[:2], torch.tensor([0.25, 3.0])), ["0.25", "3"], 2),
    ((X[:2], torch.zeros(2, 4, 4)), [None, None], 2),
    ((X[:2], None), None, 2),
    (X.numpy()[:2], None, 2),
    (Loader(), None, 8),
    (iter([X[:4], X[4:6]]), None, 6),
    ({"input": X[:3], "labels": Y[:3]}, None, 3),
], ids=range(12))
def test_batches_and_labels_as_they_come(data, labels, size):
    found = pnpx.auto_explain(small(), data, **ONE)
    assert found.labels == labels and len(found.explanations["Gradient"]) == size
    taken = torch.cat([tensors(one.attributions)[0] for one in found.explanations["Gradient"]])
    torch.testing.assert_close(taken, pnpx.Gradient(small()).attribute(X[:size]))


def test_labels_by_a_callable():
    found = pnpx.auto_explain(small(), (X[:2], Y[:2]), label_extractor=lambda batch: batch[1] + 1,
                              class_names=["a", "b", "c"], **ONE)
    assert found.labels == ["b", "c"]


@pytest.mark.parametrize(("data", "given", "error", "message"), [
    ([X[:4], X[4:8]], {}, TypeError, "its last part is like the first; give batches by a DataLoader or an iterator"),
    ([(X, Y), (X, Y)], {}, TypeError, "this one holds 2 of type tuple; give batches by a DataLoader or an iterator"),
    (X, {"label_extractor": lambda batch: Y[:3]}, ValueError, "there must be a label for each of the 10 samples, but "),
    ((X, Y[:3]), {}, ValueError, "for each of the 10 samples, but label_extractor=1 takes 3 of them; by default"),
    ([{"input": X}], {}, TypeError, "a list is one batch, .* but this one holds 1 of type dict; give batches by"),
    (X, {"background": "x"}, ValueError, r"a batch as that explained, of samples of shape \(6,\), but is a str"),
    (X, {"background": torch.zeros(4, 5)}, ValueError, r"of samples of shape \(6,\), but is of shape \(4, 5\)"),
    (X, {"explainers": [3]}, TypeError, "explainers must be names, or each an explainer, .* but one is a int"),
    (X, {"explainers": [pnpx.Gradient(small())]}, ValueError, "must be made for the model that is explained, but Grad"),
    (X, {"tokenizer": "bert"}, TypeError, "tokenizer must be a tokenizer of transformers, .* but is 'bert'"),
], ids=range(10))
def test_what_is_given_wrong(data, given, error, message):
    with pytest.raises(error, match=message):
        pnpx.auto_explain(small(), data, **{**QUICK, **given})


def test_a_wrong_target_is_said_once():
    with pytest.raises(RuntimeError) as caught:
        pnpx.auto_explain(small(), X, 3, **QUICK)
    assert str(caught.value).count("must be") == 1 and "no explainer can explain this" in str(caught.value)


def test_targets_are_those_of_all_batches():
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    found = pnpx.auto_explain(small(), loader, Y, samples=6, **ONE)
    assert [int(one.targets) for one in found.explanations["Gradient"]] == Y[:6].tolist()
    message = "targets must hold one for each of the 6 samples, of all batches together, but hold 4"
    with pytest.raises(ValueError, match=message):
        pnpx.auto_explain(small(), loader, Y[:4], samples=6, **ONE)


@pytest.mark.parametrize(("n_out", "options"), [(1, {}), (1, {"score": "regression"})])
def test_where_no_class_is_predicted_nothing_is_right_or_wrong(n_out, options, tmp_path):
    labels = torch.rand(4)
    found = pnpx.auto_explain(small(n_out), (X[:4], labels), **{**ONE, **options})
    page = found.to_html(tmp_path / "page.html").read_text()
    assert "mistake" not in page.partition("</style>")[2].partition("<main")[2] and "✓ right" not in page
    assert f"{float(small(n_out)(X[:1])):.4g}" in page


def test_classes_and_auto_by_name():
    found = pnpx.auto_explain(small(), X[:2], explainers=pnpx.Gradient, metrics=Complexity, progress=False)
    assert list(found.explainers) == ["Gradient"] and list(found.ranking.metrics) == ["Complexity"]
    found = pnpx.auto_explain(small(), X[:2], explainers="auto", metrics="auto", progress=False)
    assert len(found.explainers) > 4 and list(found.ranking.metrics) == ["AbPC", "MuFidelity", "Complexity"]


def test_one_that_is_refused_does_not_end_the_run():
    class Rounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = small()

        def forward(self, x):
            return self.head(x.detach())

    found = pnpx.auto_explain(Rounds(), X[:2], explainers=["Gradient", "Occlusion"], **QUICK)
    assert list(found.explainers) == ["Occlusion"] and "Gradient" in found.failures


def test_parameters_are_those_of_each(tmp_path):
    model = small()
    mine = [pnpx.SmoothGrad(model, n_iter=3), pnpx.SmoothGrad(model, n_iter=7, noise_level=0.2), "SmoothGrad"]
    found = pnpx.auto_explain(model, X[:2], explainers=mine, **QUICK)
    found.save(tmp_path)
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert {row["explainer"]: row["parameters"] for row in rows} == {
        "SmoothGrad": '{"n_iter": 3}', "SmoothGrad-2": '{"n_iter": 7, "noise_level": 0.2}',
        "SmoothGrad-3": '{"seed": 0}'}
    assert {row["higher_is_better"] for row in rows} == {False}


def test_the_seed_is_that_of_metrics_too():
    model = small()
    found = pnpx.auto_explain(model, X[:3], explainers=["Gradient"], metrics=["MuFidelity"], seed=4, progress=False)
    expected = [MuFidelity(seed=seed).evaluate(pnpx.Gradient(model), X[:3]) for seed in (4, 0)]
    torch.testing.assert_close(found.scores["Gradient"]["MuFidelity"], expected[0])
    assert not torch.allclose(*expected)


def test_the_time_of_a_batch_is_shared_among_its_samples(monkeypatch):
    explain = pnpx.Gradient.explain
    monkeypatch.setattr(pnpx.Gradient, "explain", lambda self, *given: replace(explain(self, *given), seconds=6.0))
    found = pnpx.auto_explain(small(), X[:3], explainers=["Gradient"], **QUICK)
    assert [one.seconds for one in found.explanations["Gradient"]] == [2, 2, 2]


def test_places_are_ranked_apart():
    made = case("bert_sdpa")
    found = pnpx.auto_explain(made.model, made.batch, metrics=["AbPC", "Complexity"], progress=False, **made.parameters)
    places = {layer: [row.explainer for row in ranking.rows] for layer, _, ranking in found.rankings}
    assert len(places) == 2 and None in places
    assert all("Gradient" not in names for layer, names in places.items() if layer is None)
    assert found.best in found.explainers.values() and "at the inputs\n" in str(found)


def test_metrics_take_away_what_explainers_do():
    """Of a series whose windows were found, windows are taken away; exact values are then exact."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(130 * 2, 2))
    series = torch.randn(2, 130, 2)
    found = pnpx.auto_explain(model, series, explainers=["KernelShap"], metrics=["MuFidelity"], modality="series",
                              progress=False)
    assert (found.scores["KernelShap"]["MuFidelity"] > 0.99).all(), found.scores


def test_an_explainer_named_like_a_path_stays_in_the_folder(tmp_path):
    """Names of classes may be anything; files stay where they belong."""
    evil = type("../../evil", (pnpx.Gradient,), {"__module__": __name__})
    model = small()
    found = pnpx.auto_explain(model, X[:1], explainers=[evil(model)], **QUICK)
    found.save(tmp_path / "a" / "b" / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and len(list(tmp_path.glob("a/*"))) == 1
    evil.__name__ = "_gone"


def test_texts_as_they_come():
    model, tokenizer = zoo.load("sentiment"), zoo.tokenizer("sentiment")
    texts = ["A film of rare beauty.", "Dreadful.", "What a wonderful evening!"]
    given = {**ONE, "tokenizer": tokenizer}
    labelled = DataLoader(list(zip(texts, [1, 0, 1], strict=True)), batch_size=2)
    for data in (texts, DataLoader(texts, batch_size=2), iter(texts), labelled):
        found = pnpx.auto_explain(model, data, **given)
        assert [one.texts[0] for one in found.explanations["Gradient"]] == texts
    found = pnpx.auto_explain(model, texts, torch.tensor([1, 0, 1]), samples=2, **given)
    assert [one.target_names for one in found.explanations["Gradient"]] == [("POSITIVE",), ("NEGATIVE",)]
    with pytest.raises(TypeError, match=r"texts must be text, .* but are a dict; give those of it, as data\['text'\]"):
        pnpx.auto_explain(model, {"text": texts}, **given)
    with pytest.raises(ValueError, match="one for each of the 3 texts, or be one for all, but hold 2"):
        pnpx.auto_explain(model, texts, [1, 0], **given)
    with pytest.raises(TypeError, match="TextExplainer, as texts are explained, but one is a Gradient"):
        pnpx.auto_explain(model, texts, **{**given, "explainers": [pnpx.Gradient(model)]})
    with pytest.raises(TypeError, match="Sensitivity does not judge explanations of texts; leave it out"):
        pnpx.auto_explain(model, texts, **{**given, "metrics": ["Sensitivity"]})


PAIRS = [("A film of rare beauty.", "It is good."), ("I left.", "It is bad.")]


@pytest.mark.parametrize("data", [DataLoader(PAIRS, batch_size=2), DataLoader(PAIRS, batch_size=2, collate_fn=list),
                                  DataLoader(PAIRS, batch_size=None),
                                  DataLoader(PAIRS, batch_size=None, collate_fn=tuple)],
                         ids=["collated", "listed", "single", "tuples"])
def test_what_may_be_pairs_or_labels_is_asked_for(data):
    with pytest.raises(TypeError, match="give a list of the texts, or of the pairs"):
        texts_of(data)


def test_pairs_in_a_list():
    assert texts_of(PAIRS) == texts_of(iter(PAIRS)) == PAIRS and texts_of(PAIRS[0]) == [PAIRS[0]]
    assert texts_of([["A", "film"], "Dreadful."]) == [["A", "film"], "Dreadful."]


def test_groups_of_the_inputs_are_not_those_of_layers():
    """A long series is explained by windows; what a layer makes of it has no such windows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(260, 6), nn.Tanh(), nn.Linear(6, 2))
    series = torch.randn(2, 130, 2)
    found = pnpx.auto_explain(model, series, explainers=["Occlusion", pnpx.Gradient(model, layer="1")],
                              metrics=["MuFidelity"], modality="series", progress=False)
    assert found.failures == {}
    expected = MuFidelity().evaluate(pnpx.Gradient(model, layer="1"), series)
    torch.testing.assert_close(found.scores["Gradient"]["MuFidelity"], expected)
