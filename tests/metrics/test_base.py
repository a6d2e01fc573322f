"""What metrics have in common: the registry, the places, and what they refuse."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import pnpx
from pnpx.metrics import AbPC, Complexity, Metric, MoRF, MuFidelity, Randomisation, Sensitivity, Sparseness, all_metrics
from pnpx.testing import case
from tests.errors import raises

OTHER_SHAPES = [(), (3,), (3, 2), (3, 2, 6), (3, 2, 6, 7), (2, 2, 6, 6), (3, 2, 6, 6, 1), (1, 3, 2, 6, 6)]
EVERY = [AbPC(), Complexity(), MoRF(), MuFidelity(n_iter=10), Randomisation(), Sensitivity(n_iter=2), Sparseness()]


def named(metric):
    return type(metric).__name__


def test_the_registry_knows_each_and_ones_own():
    assert list(all_metrics()) == sorted(all_metrics())
    assert {"AbPC", "Complexity", "LeRF", "MoRF", "MuFidelity", "Randomisation", "Sensitivity", "Sparseness"} <= {
        *all_metrics()
    }
    assert not {"Flipping", "Faithfulness", "Shares", "Metric"} & {*all_metrics()}

    @dataclass(frozen=True)
    class Largest(Metric):
        higher_is_better = True

        def measure(self, trial):
            return {"value": trial.elements()[0][0].amax(2)}

    assert all_metrics()["Largest"] is Largest
    model, x = nn.Linear(3, 2).double(), torch.ones(2, 3).double()
    found = Largest().evaluate(pnpx.Gradient(model), x, 0)
    torch.testing.assert_close(found, model.weight[0].max().detach().expand(2))


def test_what_judges_is_no_explainer_to_choose():
    assert not [name for name in pnpx.all_explainers() if "Judge" in name]
    assert pnpx.all_explainers()["FeatureAblation"] is pnpx.FeatureAblation


def test_parameters_are_plain():
    assert MuFidelity(seed=3).parameters == {
        "name": "MuFidelity",
        "groups": None,
        "baseline": 0.0,
        "replacement": None,
        "inference_mode": None,
        "n_iter": 150,
        "subset_size": 0.2,
        "seed": 3,
    }
    assert Complexity().parameters == {"name": "Complexity"}
    assert MoRF(baseline=torch.zeros(2)).parameters["baseline"] == "tensor of shape (2,)"


@pytest.mark.parametrize("metric", EVERY, ids=named)
def test_layers_in_a_chain_are_judged_each_by_itself(metric):
    given = case("mlp")
    chain = pnpx.GradientXInput(given.model, layer=["0", "2"])
    alone = [pnpx.GradientXInput(given.model, layer=place) for place in ("0", "2")]
    found = metric.evaluate(chain, given.batch, given.targets)
    expected = torch.stack([metric.evaluate(one, given.batch, given.targets) for one in alone])
    torch.testing.assert_close(found, expected.mean(0))
    attributions = chain.attribute(given.batch, given.targets)
    with raises(
        ValueError,
        "attributions at a sequence of 2 layers must be a tuple of as many, as explainer.attribute returns them, but "
        "are a tuple",
    ):
        metric.evaluate(chain, given.batch, given.targets, (*attributions, attributions[0]))


@pytest.mark.parametrize("metric", EVERY, ids=named)
@pytest.mark.parametrize("reducer", ["sum", "max"])
def test_pooled_maps_of_several_targets(metric, reducer):
    given = case("gru_sequence_first")
    explainer = pnpx.GradientXInput(given.model, layer="mix", reducer=reducer)
    targets = torch.stack([given.targets, 3 - given.targets], 1)
    found = metric.evaluate(explainer, given.batch, targets)
    assert found.shape == (3, 2) and found.isfinite().all()
    torch.testing.assert_close(found[:, 1], metric.evaluate(explainer, given.batch, targets[:, 1]))


@pytest.mark.parametrize("metric", EVERY, ids=named)
@pytest.mark.parametrize("features", [1, 2, 7])
def test_few_features(metric, features):
    torch.manual_seed(0)
    model, x = nn.Linear(features, 3), torch.randn(2, features)
    assert metric.evaluate(pnpx.GradientXInput(model), x).isfinite().all()


@pytest.mark.parametrize("metric", EVERY, ids=named)
def test_tables_that_the_batch_shares(metric):
    """What has no axis of the batch is explained, and judged, sample by sample."""
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.tanh(x + self.table(torch.arange(4))).sum(1))

    torch.manual_seed(0)
    model, x = Positions().double(), torch.randn(3, 4, 3).double()
    explainer = pnpx.GradientXInput(model, layer="table")
    assert explainer.attribute(x).shape == (3, 4, 3)
    found = metric.evaluate(explainer, x)
    assert found.shape == (3,) and found.isfinite().all()
    torch.testing.assert_close(found[1:2], metric.evaluate(explainer, x[1:2]))


@pytest.mark.parametrize("metric", EVERY, ids=named)
def test_a_segmentation_and_a_regression(metric):
    torch.manual_seed(0)
    pixels, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.randn(2, 2, 5, 5).double()
    for targets in (None, 1, torch.rand(2, 3, 5, 5).double()):
        found = metric.evaluate(pnpx.GradientXInput(pixels, score="segmentation"), x, targets)
        assert found.shape == (2,) and found.isfinite().all()
    line = pnpx.GradientXInput(nn.Linear(4, 1).double(), score="regression")
    assert metric.evaluate(line, torch.randn(2, 4).double()).shape == (2,)


@pytest.mark.parametrize("metric", [MoRF(), MuFidelity(n_iter=5), Complexity(), Randomisation()], ids=named)
def test_explainers_without_gradients_on_token_ids(metric):
    pytest.importorskip("transformers", reason="BERT is read here; pip install transformers")
    given = case("bert_sdpa")
    for kind in (pnpx.Occlusion, pnpx.KernelShap):
        found = metric.evaluate(kind(given.model, **given.parameters), given.batch, given.targets)
        assert found.shape == (3,) and found.isfinite().all()


def test_what_is_no_explainer():
    with raises(TypeError, "a metric judges an explainer, such as pnpx.Gradient(model), but got a Linear"):
        Complexity().evaluate(nn.Linear(2, 1), torch.ones(1, 2))


@pytest.mark.parametrize("shape", OTHER_SHAPES)
@pytest.mark.parametrize("targets", [1, [[0, 1]] * 3])
def test_attributions_of_any_other_shape(shape, targets):
    given = case("conv")
    for reducer in (None, "sum"):
        explainer = pnpx.Gradient(given.model, reducer=reducer)
        with pytest.raises(ValueError, match=r"what explainer\.attribute returns"):
            MoRF().evaluate(explainer, given.batch, targets, torch.ones(shape))


def test_attributions_of_something_else():
    given = case("conv")
    explainer = pnpx.Gradient(given.model)
    with raises(
        ValueError,
        "attributions must be what explainer.attribute returns for these inputs and targets: of the shape of what is "
        "explained, (3, 2, 6, 6), but theirs is (3, 2, 5, 6)",
    ):
        Complexity().evaluate(explainer, given.batch, given.targets, torch.ones(3, 2, 5, 6))
    with raises(
        ValueError,
        "attributions must be what explainer.attribute returns for these inputs and targets: of the shape of what is "
        "explained, (3, 2, 6, 6), after the axis of the batch one of 2 targets, but theirs is (3, 2, 6, 6)",
    ):
        Complexity().evaluate(explainer, given.batch, torch.zeros(3, 2, dtype=torch.long), torch.ones(3, 2, 6, 6))
    with raises(
        ValueError,
        "attributions must be what explainer.attribute returns, with 1 tensors, as many as are explained, but they "
        "have 2",
    ):
        Complexity().evaluate(explainer, given.batch, given.targets, (torch.ones(1), torch.ones(1)))


def test_errors_of_the_explainer_come_as_they_are():
    given = case("mlp")
    with pytest.raises(LookupError, match="no module 'thr' in the model"):
        MoRF().evaluate(pnpx.Gradient(given.model, layer="thr"), given.batch)
    with pytest.raises(ValueError, match="targets must be in the range 0 to 3, but got 9"):
        MoRF().evaluate(pnpx.Gradient(given.model), given.batch, 9)


@pytest.mark.parametrize("metric", EVERY, ids=named)
def test_any_mode_and_precision(metric):
    given = case("conv")
    explainer = pnpx.GradientXInput(given.model, layer="block")
    expected = metric.evaluate(explainer, given.batch)
    given.model.train()
    with torch.inference_mode():
        torch.testing.assert_close(metric.evaluate(explainer, given.batch), expected)
    assert given.model.training
    for dtype in (torch.float32, torch.bfloat16):
        other = case("mlp").to(dtype)
        found = metric.evaluate(pnpx.GradientXInput(other.model), other.batch, other.targets)
        assert found.dtype == torch.float64 and found.isfinite().all()


@pytest.mark.parametrize("metric", EVERY, ids=named)
@pytest.mark.filterwarnings("ignore:what 32 steps miss:RuntimeWarning")
def test_explainers_with_parameters_for_each_sample(metric):
    """What an explainer has for each sample is cut with the batch, and the metric has none of it."""
    torch.manual_seed(0)
    given = case("mlp")
    for kind in (pnpx.IntegratedGradients, pnpx.KernelShap):
        whole = kind(given.model, baseline=torch.randn(3, 5).double())
        found = metric.evaluate(whole, given.batch, given.targets)
        parts = kind(given.model, baseline=whole.baseline, batch_size=2)
        torch.testing.assert_close(metric.evaluate(parts, given.batch, given.targets), found)
        weights = torch.rand(3, 4).double()
        assert metric.evaluate(parts, given.batch, weights).shape == (3,)
        assert metric.evaluate(parts, given.batch, lambda output, batch: output[:, 0] * batch[:, 0]).shape == (3,)


@pytest.mark.parametrize("metric", EVERY, ids=named)
def test_boxes(metric):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(1, 7, 3), nn.Sigmoid(), nn.Flatten(2)).double(), torch.rand(2, 1, 6, 6).double()

    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.find = model

        def forward(self, x):
            found = self.find(x).transpose(1, 2)
            return torch.cat([found[..., :2], found[..., :2] + 1 + found[..., 2:4], found[..., 4:]], dim=2)

    boxes = Boxes()
    found = metric.evaluate(pnpx.GradientXInput(boxes, score="detection"), x, boxes(x).detach()[:, :3])
    assert found.shape == (2,) and found.isfinite().all()
