"""Runs judge what they explained, once, and rank the explainers."""

from dataclasses import make_dataclass

import pyarrow.parquet as pq
import pytest
import torch

import pnpx
from pnpx import zoo
from pnpx.fingerprint import of_metric
from pnpx.metrics import AbPC, Complexity, Metric
from pnpx.pipeline import run
from pnpx.plan import plan
from pnpx.source import ConfigError
from tests.space import changed, space_fixture

pytestmark = pytest.mark.usefixtures("ours_alone")

CONFIG = """\
model: breast_cancer_mlp
data: {indices: [3, 1]}
explainers:
  - Gradient
  - name: SmoothGrad
    n_iter: 3
    layers: [null, hidden1]
metrics:
  - name: AbPC
    n_steps: 5
  - Complexity
output: {folder}
"""
SCORES = "**/*.scores.json"
space = space_fixture(CONFIG, ".safetensors")


def rows(space):
    return pq.read_table(space.folder / "scores.parquet").to_pylist()


@pytest.fixture
def asked(monkeypatch):
    """How many samples each metric was asked about, by call."""
    found = []

    def counted(kind, evaluate):
        def ask(self, explainer, inputs, *more):
            found.append((kind.__name__, len(inputs)))
            return evaluate(self, explainer, inputs, *more)

        return ask

    for kind in (AbPC, Complexity):
        monkeypatch.setattr(kind, "evaluate", counted(kind, kind.evaluate))
    return found


def test_the_table_has_what_the_metrics_say(space):
    outcome = space.run()
    assert outcome.failures == []
    found = {(row["explainer"], row["layer"], row["metric"], row["sample"]): row for row in rows(space)}
    assert len(found) == len(rows(space)) == 3 * 2 * 2
    model, data = zoo.load("breast_cancer_mlp"), zoo.data("breast_cancer")
    explainers = {("Gradient", None): pnpx.Gradient(model), ("SmoothGrad", None): pnpx.SmoothGrad(model, n_iter=3),
                  ("SmoothGrad", "hidden1"): pnpx.SmoothGrad(model, n_iter=3, layer="hidden1")}
    for (name, layer), explainer in explainers.items():
        for metric in (AbPC(n_steps=5), Complexity()):
            expected = metric.evaluate(explainer, data.inputs[[3, 1]])
            for sample, value in zip((3, 1), expected.tolist(), strict=True):
                row = found[name, layer, type(metric).__name__, sample]
                assert row["value"] == pytest.approx(value, rel=1e-4, abs=1e-6)
                assert row["higher_is_better"] == metric.higher_is_better and row["model"] == "breast_cancer_mlp"


def test_the_ranking_is_of_each_place(space):
    outcome = space.run()
    (inputs, at_inputs), (layer, at_layer) = outcome.rankings
    assert (inputs, layer) == ("the inputs of breast_cancer_mlp", "hidden1 of breast_cancer_mlp")
    assert {row.explainer for row in at_inputs.rows} == {"Gradient", "SmoothGrad"}
    assert [row.explainer for row in at_layer.rows] == ["SmoothGrad"]
    means = {name: sum(row["value"] for row in rows(space)
                       if (row["explainer"], row["layer"], row["metric"]) == (name, None, "AbPC")) / 2
             for name in ("Gradient", "SmoothGrad")}
    assert at_inputs.by == "AbPC" and at_inputs.rows[0].explainer == max(means, key=means.get)
    assert at_inputs.rows[0].means["AbPC"] == pytest.approx(max(means.values()))
    page = outcome.report.read_text()
    assert "Ranking at the input" in page and "AbPC" in page and "linear x3" in page


def test_by_another_metric(space):
    (_, ranking), _ = space.run("rank_by=Complexity").rankings
    first, second = (row.means["Complexity"] for row in ranking.rows)
    assert ranking.by == "Complexity" and first < second


def test_a_second_run_asks_nothing(space, asked):
    first = space.run()
    assert sum(count for _, count in asked) == 12
    before, _ = rows(space), asked.clear()
    second = space.run()
    assert asked == [] and rows(space) == before
    assert str(second.rankings) == str(first.rankings)


def test_a_changed_metric_alone_is_asked_again(space, asked):
    space.run()
    asked.clear()
    space.run("metrics.0.n_steps=6")
    assert asked == [("AbPC", 2)] * 3


def test_a_changed_explanation_is_judged_again(space, asked):
    space.run()
    before = space.stamps(SCORES)
    asked.clear()
    space.run("explainers.1.n_iter=4")
    assert asked == [("AbPC", 2), ("Complexity", 2)] * 2
    assert all("SmoothGrad" in name for name in changed(before, space.stamps(SCORES)))


def test_another_sample_is_judged_alone(space, asked):
    space.run()
    asked.clear()
    space.run("data.indices=[3,1,7]")
    assert asked == [("AbPC", 1), ("Complexity", 1)] * 3


def test_force_asks_again(space, asked):
    space.run()
    asked.clear()
    space.run(force=True)
    assert sum(count for _, count in asked) == 12


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"explanation": 1}', b'{"explanation": "x", "values": 3}',
                                     b"\xff"])
def test_what_is_damaged_is_found_again(space, asked, content):
    space.run()
    before = rows(space)
    next(space.folder.glob("breast_cancer_mlp/Gradient/inputs/0003.scores.json")).write_bytes(content)
    asked.clear()
    assert space.run().failures == []
    assert asked == [("AbPC", 1), ("Complexity", 1)]
    assert [row["value"] for row in rows(space)] == pytest.approx([row["value"] for row in before])


def test_a_failing_metric_is_reported_and_the_others_go_on(space, monkeypatch):
    def fail(self, explainer, *_):
        if explainer.layer is None:
            raise RuntimeError("no luck today")
        return torch.zeros(2)

    monkeypatch.setattr(AbPC, "evaluate", fail)
    outcome = space.run()
    assert [(failure.explainer, failure.message) for failure in outcome.failures] == [
        ("Gradient", "judged by AbPC: RuntimeError: no luck today"),
        ("SmoothGrad", "judged by AbPC: RuntimeError: no luck today"),
    ]
    assert {(row["metric"], row["layer"]) for row in rows(space)} == {
        ("Complexity", None), ("Complexity", "hidden1"), ("AbPC", "hidden1")}
    assert "no luck today" in (space.folder / "failures.txt").read_text()
    (_, ranking), _ = outcome.rankings
    assert [row.rank for row in ranking.rows] == [None, None]
    assert all("Complexity" in row.means for row in ranking.rows)


def test_infinite_values_are_kept(space, monkeypatch):
    monkeypatch.setattr(AbPC, "evaluate", lambda self, explainer, inputs, *_: torch.full((len(inputs),), torch.inf))
    space.run()
    monkeypatch.setattr(AbPC, "evaluate", None)
    assert space.run().failures == []
    assert {row["value"] for row in rows(space) if row["metric"] == "AbPC"} == {torch.inf}


def test_without_metrics_there_is_no_table(space):
    space.run()
    assert (space.folder / "scores.parquet").exists()
    outcome = space.run("metrics=[]")
    assert not (space.folder / "scores.parquet").exists() and outcome.rankings == []
    assert "Ranking" not in outcome.report.read_text()


@pytest.mark.parametrize("suffix", [".scores.json"])
def test_a_killed_run_loses_nothing_that_was_found(space, suffix):
    killed = type(space)(space.config, space.folder, suffix)
    killed.run_killed(fatal=3, before=False)
    before = space.stamps(SCORES)
    assert len(before) == 2  # the third writing was of the second metric, to the first file
    space.run()
    assert len(space.stamps(SCORES)) == 6 and len(rows(space)) == 12


class LargestMagnitude(Metric):
    """A metric of the user's own: the largest magnitude."""

    higher_is_better = True

    def measure(self, trial):
        raise AssertionError("not asked")

    def evaluate(self, explainer, inputs, targets=None, attributions=None):
        return attributions.abs().flatten(1).amax(1)


def test_a_metric_of_the_users_own(space):
    space.run("metrics=[LargestMagnitude]")
    data = zoo.data("breast_cancer")
    expected = pnpx.Gradient(zoo.load("breast_cancer_mlp")).attribute(data.inputs[[3, 1]]).abs().amax(1)
    found = [row["value"] for row in rows(space) if row["explainer"] == "Gradient"]
    assert found == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("override", "problem"), [
    ("metrics=[AbCP]", "metrics.0.name: there is no metric 'AbCP'; the nearest: 'AbPC'"),
    ("metrics.0.n_stps=3", "metrics.0.n_stps: AbPC has no parameter 'n_stps'; the nearest: 'n_steps'"),
    ("metrics.0.n_steps=0", "metrics.0.n_steps: `n_steps >= 1` must hold, but got n_steps=0"),
    ("metrics=[{name: auto, n_steps: 3}]",
     "metrics.0.n_steps: 'auto' takes no parameters; name the metric that 'n_steps' is of"),
    ("rank_by=Complexty", "rank_by: must be one of the metrics, but is 'Complexty'; the nearest: 'Complexity'"),
    ("metrics=3", "metrics: must be a list, a name, or auto, but is 3"),
])
def test_problems_are_lines(space, override, problem):
    with pytest.raises(ConfigError) as caught:
        plan(space.config, [override])
    assert caught.value.problems == (f"{override}: {problem}",)


def test_to_rank_by_a_metric_without_any(space):
    with pytest.raises(ConfigError, match="rank_by: must be one of the metrics, but is 'AbPC'; this run has none"):
        plan(space.config, ["metrics=[]", "rank_by=AbPC"])


def test_several_of_one_name_are_told_apart(space):
    space.run("metrics=[{name: AbPC, n_steps: 2}, {name: AbPC, n_steps: 30}]")
    assert {row["metric"] for row in rows(space)} == {"AbPC", "AbPC-2"}


def test_auto_stands_for_metrics_that_suit_and_is_asked_for_with_explainers(space):
    work = plan(space.config, ["metrics=auto"])
    assert list(work.metrics) == ["AbPC", "MuFidelity", "Complexity"]
    work = plan(space.config, ["metrics=[{name: AbPC, n_steps: 3}, auto]", "seed=4"])
    assert list(work.metrics) == ["AbPC", "MuFidelity", "Complexity"]
    assert work.metrics["AbPC"].n_steps == 3 and work.metrics["MuFidelity"].seed == 4
    space.config.write_text(CONFIG.partition("explainers:")[0] + f"output: {space.folder}")
    assert list(plan(space.config).metrics) == ["AbPC", "MuFidelity", "Complexity"]


def test_recommended_explainers_are_tried_and_told_of(space):
    start = CONFIG.partition("explainers:")[0]
    space.config.write_text(f"{start}explainers: auto\nmetrics: []\noutput: {space.folder}")
    work = plan(space.config, ["data.indices=[3]"])
    (_, found), = work.recommendations["breast_cancer_mlp"]
    assert [task.title for task in work.tasks] == [one.name for one in found if one.picked]
    assert 5 <= len(work.tasks) <= 9 and len(found) >= 13
    outcome = run(work, quiet=True)
    assert outcome.failures == [] and outcome.made == len(work.tasks)
    page = outcome.report.read_text()
    assert all(name in page for name in ("Why these explainers", "Lime", *(one.name for one in found)))


def test_auto_beside_explainers_adds_the_others_and_takes_layers(space):
    given = ["explainers=[auto, {name: Gradient}, {name: auto, layers: [hidden1]}]", "metrics=[]"]
    names = [(task.title, task.layer) for task in plan(space.config, given).tasks]
    assert names.count(("Gradient", None)) == 1 and ("IntegratedGradients", None) in names
    assert ("SmoothGrad", "hidden1") in names and len(set(names)) == len(names)


def test_auto_takes_no_parameters(space):
    override = "explainers=[{name: auto, n_iter: 3}]"
    with pytest.raises(ConfigError, match="'auto' takes no parameters; name the explainer that 'n_iter' is of"):
        plan(space.config, [override])


def test_a_bad_sample_takes_no_others_along(space, monkeypatch):
    evaluate = AbPC.evaluate

    def picky(self, explainer, inputs, *more):
        if (inputs == zoo.data("breast_cancer").inputs[3]).all(1).any():
            raise RuntimeError("not this one")
        return evaluate(self, explainer, inputs, *more)

    monkeypatch.setattr(AbPC, "evaluate", picky)
    outcome = space.run()
    assert {failure.message for failure in outcome.failures} == {"judged by AbPC: RuntimeError: not this one"}
    assert {row["sample"] for row in rows(space) if row["metric"] == "AbPC"} == {1}
    assert {row["sample"] for row in rows(space) if row["metric"] == "Complexity"} == {1, 3}


def test_forced_a_metric_that_fails_says_nothing_old(space, monkeypatch):
    space.run()
    monkeypatch.setattr(AbPC, "evaluate", lambda *_: (_ for _ in ()).throw(RuntimeError("no luck today")))
    assert space.run(force=True).failures
    assert {row["metric"] for row in rows(space)} == {"Complexity"}
    monkeypatch.undo()
    monkeypatch.setattr(AbPC, "evaluate", lambda self, explainer, inputs, *_: torch.full((len(inputs),), 7.0))
    space.run()
    assert {row["value"] for row in rows(space) if row["metric"] == "AbPC"} == {7.0}


def test_all_parameters_of_a_metric_are_in_its_fingerprint():
    kind = make_dataclass("Sized", [("batch_size", int, 1)], bases=(AbPC,), frozen=True, kw_only=True)
    assert of_metric(kind(batch_size=1)) != of_metric(kind(batch_size=2))
    kind.__name__ = "_Sized"  # so that no other test finds it


def test_windows_of_series_are_taken_away_as_they_are_explained(space):
    (space.config.parent / "series.py").write_text(
        "import torch\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(260, 2))\n"
        "class Data:\n"
        "    kind = 'series'\n"
        "    targets = None\n"
        "    inputs = torch.arange(520.0).reshape(2, 130, 2).sin()\n"
        "def data(split):\n"
        "    return Data\n")
    space.config.write_text(
        "model: {factory: 'series:net'}\ndata: {factory: 'series:data'}\nexplainers: [{name: KernelShap, groups: 3}]\n"
        f"metrics: [MuFidelity]\noutput: {space.folder}\n")
    work = plan(space.config, allow_code=True)
    (task,) = work.tasks
    assert task.suited(work.metrics["MuFidelity"]).groups == 3 and work.metrics["MuFidelity"].groups is None
    assert run(work, quiet=True).failures == []
    assert all(row["value"] > 0.99 for row in rows(space))


def test_samples_that_fail_each_in_its_way_take_no_others_along(space, monkeypatch):
    evaluate, inputs = AbPC.evaluate, zoo.data("breast_cancer").inputs

    def picky(self, explainer, given, *more):
        wrong = [index for index in range(4) if (given == inputs[index]).all(1).any()]
        if wrong:
            raise RuntimeError(f"not number {wrong[0]}")
        return evaluate(self, explainer, given, *more)

    monkeypatch.setattr(AbPC, "evaluate", picky)
    space.run("data.indices=[0,1,2,3,4,5]")
    assert {row["sample"] for row in rows(space) if row["metric"] == "AbPC"} == {4, 5}


def test_recommended_explainers_are_judged_with_the_token_that_pads(space):
    (space.config.parent / "tokens.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table, self.head = nn.Embedding(9, 4, padding_idx=1), nn.Linear(4, 3)\n"
        "    def forward(self, ids):\n"
        "        return self.head(self.table(ids).tanh().sum(1))\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return Net()\n"
        "def data(split):\n"
        "    return torch.tensor([[2, 3, 4, 5], [6, 7, 8, 2]]), torch.tensor([0, 1])\n")
    space.config.write_text(
        "model: {factory: 'tokens:net'}\ndata: {factory: 'tokens:data'}\nexplainers: auto\n"
        f"metrics: [MuFidelity]\noutput: {space.folder}\n")
    work = plan(space.config, allow_code=True)
    assert {task.suited(work.metrics["MuFidelity"]).baseline for task in work.tasks} == {1}
    assert {task.layer for task in work.tasks} == {None, "table"}
    assert run(work, quiet=True).failures == []
