"""MoRF, LeRF and AbPC at any place, against a plain loop."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.metrics import AbPC, LeRF, MoRF
from pnpx.testing import case


def loop(score, sample, absent, ids, map_, n_steps, most_first):
    """The curve of one sample: ``score`` of tensors, ``ids`` of the groups of their elements; no batches, no tricks."""
    numbers = sorted({int(number) for part in ids for number in part.flatten().tolist()})
    sums = {n: sum(float(m[i == n].double().sum()) for m, i in zip(map_, ids, strict=True)) for n in numbers}
    order = sorted(numbers, key=lambda n: -sums[n] if most_first else sums[n])
    steps = min(n_steps, len(order))
    curve, shares = [], []
    for step in range(steps + 1):
        gone = order[: int(step * len(order) / steps + 0.5)]
        edited = [
            torch.where(torch.isin(i, torch.tensor(gone, dtype=torch.long)), a, x)
            for x, a, i in zip(sample, absent, ids, strict=True)
        ]
        with torch.no_grad():
            curve.append(float(score(*edited)))
        shares.append(len(gone) / len(order))
    area = sum(
        (curve[k] + curve[k + 1]) / 2 * (shares[k + 1] - shares[k]) for k in range(steps)
    )
    return torch.tensor(curve, dtype=torch.float64), area


@pytest.mark.parametrize("features", [1, 2, 7, 9, 10, 11, 25])
@pytest.mark.parametrize("kind, most_first", [(MoRF, True), (LeRF, False)])
def test_any_number_of_features_as_a_plain_loop(features, kind, most_first):
    torch.manual_seed(features)
    model = nn.Sequential(nn.Linear(features, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, map_ = torch.randn(2, features).double(), torch.randn(2, features).double()
    metric, explainer = kind(baseline=0.3), pnpx.Gradient(model)
    curve, value = metric.curve(explainer, x, 1, map_), metric.evaluate(explainer, x, 1, map_)
    assert curve.shape == (2, min(features, 10) + 1)
    for row in range(2):
        expected, area = loop(
            lambda one: model(one[None]).softmax(1)[0, 1],
            [x[row]], [torch.full((features,), 0.3).double()], [torch.arange(features)], [map_[row]], 10, most_first,
        )
        torch.testing.assert_close(curve[row], expected)
        assert float(value[row]) == pytest.approx(area)


def test_patches_of_an_image_and_pooled_channels():
    given = case("conv")
    explainer = pnpx.GradientXInput(given.model)
    map_ = explainer.attribute(given.batch, given.targets)
    ids = (torch.arange(6)[:, None] // 2 * 3 + torch.arange(6) // 2).expand(2, 6, 6)
    value = MoRF(groups=2).evaluate(explainer, given.batch, given.targets)
    for row in range(3):
        label = given.targets[row]
        _, area = loop(
            lambda one, label=label: given.model(one[None]).softmax(1)[0, label],
            [given.batch[row]], [torch.zeros(2, 6, 6).double()], [ids], [map_[row]], 10, True,
        )
        assert float(value[row]) == pytest.approx(area)
    for reducer, factor in (("sum", 1), ("mean", 2)):
        pooled = pnpx.GradientXInput(given.model, reducer=reducer)
        torch.testing.assert_close(MoRF(groups=2).evaluate(pooled, given.batch, given.targets), value)
        torch.testing.assert_close(
            pooled.attribute(given.batch, given.targets) * factor, map_.sum(1)
        )


def test_a_layer_that_returns_nested_tuples():
    """The replaced states of an LSTM are what it gives for the baseline; its groups have a part in every tensor."""
    given = case("lstm")
    explainer = pnpx.GradientXInput(given.model, layer="lstm")
    parts = {}

    def read(module, args, output):
        out, (h, c) = output
        if "put" in parts:
            return parts["put"]
        parts["found"] = [out, h, c]
        return None

    hook = given.model.lstm.register_forward_hook(read)
    with torch.no_grad():
        given.model(given.batch * 0)
        absent = parts["found"]
        given.model(given.batch)
        clean = parts["found"]
    hook.remove()
    out_map, (h_map, c_map) = explainer.attribute(given.batch, given.targets)
    steps, rest = torch.arange(6)[:, None].expand(6, 5), torch.arange(6, 16).reshape(2, 5)
    groups = (steps, (rest[:, None], rest[:, None]))  # the states: those of a unit of both h and c together
    value = AbPC(groups=groups, n_steps=5).evaluate(explainer, given.batch, given.targets)
    hook = given.model.lstm.register_forward_hook(read)
    for row in range(3):
        def score(out, h, c, row=row):
            parts["put"] = (out[None], (h[:, None], c[:, None]))
            with torch.no_grad():
                return given.model(given.batch[row : row + 1]).softmax(1)[0, given.targets[row]]

        areas = [
            loop(
                score,
                [clean[0][row], clean[1][:, row], clean[2][:, row]],
                [absent[0][row], absent[1][:, row], absent[2][:, row]],
                [steps, rest, rest],
                [out_map[row], h_map[:, row], c_map[:, row]],
                5,
                most_first,
            )[1]
            for most_first in (False, True)
        ]
        assert float(value[row]) == pytest.approx(areas[0] - areas[1])
    hook.remove()


def test_token_ids_and_embeddings_of_a_padded_batch():
    """Padding is in no group: a shorter text has fewer steps, and NaN behind its curve."""
    pytest.importorskip("transformers", reason="BERT is read here; pip install transformers")
    given = case("bert_eager")
    lengths = given.steps.sum(1).tolist()
    assert lengths == [5, 7, 2]
    by_ids = pnpx.Occlusion(given.model, **given.parameters)
    at_embeddings = pnpx.GradientXInput(given.model, layer="bert.embeddings", **given.parameters)
    for explainer in (by_ids, at_embeddings):
        curve = MoRF().curve(explainer, given.batch, given.targets)
        assert curve.shape == (3, 8)
        assert curve.isfinite().sum(1).tolist() == [length + 1 for length in lengths]
        assert MoRF().evaluate(explainer, given.batch, given.targets).isfinite().all()
    map_ = by_ids.attribute(given.batch, given.targets)
    value = MoRF(baseline=1).evaluate(by_ids, given.batch, given.targets)
    for row, length in enumerate(lengths):
        def score(ids, row=row, length=length):
            return given.model(ids[None], torch.ones(1, length)).logits.softmax(1)[0, given.targets[row]]

        ids = given.batch["input_ids"][row, :length]
        _, area = loop(score, [ids], [torch.ones_like(ids)], [torch.arange(length)], [map_[row, :length]], 10, True)
        assert float(value[row]) == pytest.approx(area)


def test_inputs_and_baselines_in_mappings():
    given = case("mapping")
    explainer = pnpx.GradientXInput(given.model)
    zeros = AbPC().evaluate(explainer, given.batch, given.targets)
    ones = AbPC(baseline={"image": 1.0, "scale": 0.0}).evaluate(explainer, given.batch, given.targets)
    assert zeros.shape == ones.shape == (3,) and not torch.allclose(zeros, ones)


def test_a_replacement_at_a_layer():
    given = case("conv")
    explainer = pnpx.GradientXInput(given.model, layer="norm")
    curve = MoRF(replacement=0.0).curve(explainer, given.batch, given.targets)
    hook = given.model.norm.register_forward_hook(lambda module, args, output: output * 0)
    gone = given.output().softmax(1)[range(3), given.targets]
    hook.remove()
    torch.testing.assert_close(curve[:, -1], gone)
