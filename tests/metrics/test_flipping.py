"""MoRF, LeRF and AbPC, against sums by hand."""

import torch
from torch import nn

import pnpx
from pnpx.metrics import AbPC, LeRF, MoRF
from pnpx.metrics.probabilities import Probabilities
from tests.errors import raises


def linear(*weights, bias=0.0):
    model = nn.Linear(len(weights), 1).double()
    model.weight.data = torch.tensor([weights], dtype=torch.float64)
    model.bias.data.fill_(bias)
    return model


def doubles(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_a_linear_model_by_hand():
    explainer, x = pnpx.GradientXInput(linear(5, -2, 1)), doubles([1, 1, 1])
    assert MoRF().curve(explainer, x).tolist() == [[4, -1, -2, 0]]  # without 5, then 1, then -2
    assert LeRF().curve(explainer, x).tolist() == [[4, 6, 5, 0]]
    assert AbPC().curve(explainer, x).tolist() == [[0, 7, 7, 0]]
    torch.testing.assert_close(MoRF().evaluate(explainer, x), doubles((2 - 1 - 2 + 0) / 3))
    torch.testing.assert_close(LeRF().evaluate(explainer, x), doubles((2 + 6 + 5 + 0) / 3))
    torch.testing.assert_close(AbPC().evaluate(explainer, x), doubles(14 / 3))


def test_uneven_steps_count_for_what_they_are():
    explainer, x = pnpx.GradientXInput(linear(4, 3, 2, 1, 0.5)), torch.ones(1, 5).double()
    curve = MoRF(n_steps=2).curve(explainer, x)
    assert curve.tolist() == [[10.5, 1.5, 0]]  # of five groups three are gone after the first of two steps
    torch.testing.assert_close(MoRF(n_steps=2).evaluate(explainer, x), doubles((10.5 + 1.5) / 2 * 0.6 + 0.75 * 0.4))


def test_constant_maps_go_by_position():
    explainer, x = pnpx.Gradient(linear(1, 2, 3)), torch.ones(1, 3).double()
    for number in (0.0, 1.0, -1.0):
        map_ = torch.full((1, 3), number).double()
        assert MoRF().curve(explainer, x, None, map_).tolist() == [[6, 5, 3, 0]]
        assert LeRF().curve(explainer, x, None, map_).tolist() == [[6, 5, 3, 0]]
        assert AbPC().evaluate(explainer, x, None, map_).tolist() == [0]


def test_rounding_does_not_decide_between_equal_groups():
    explainer, x = pnpx.Gradient(linear(1, 2, 3)), torch.ones(1, 3).double()
    map_ = doubles([1, 1 + 1e-7, 1 - 1e-7])
    assert MoRF().curve(explainer, x, None, map_).tolist() == [[6, 5, 3, 0]]
    assert MoRF().curve(explainer, x, None, doubles([1, 1 + 1e-3, 1 - 1e-3])).tolist() == [[6, 4, 3, 0]]


class Ends(nn.Module):
    """Logits, or what ``end`` makes of them."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.end = nn.Linear(4, 3).double(), end

    def forward(self, x):
        return self.end(self.first(x))


def test_scores_are_probabilities_where_classes_are_told_apart():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    model, normal = Ends(nn.Identity()), Ends(nn.Softmax(1))
    logits, chances = model(x)[:, 1].detach(), normal(x)[:, 1].detach()

    def first(explainer, targets=1, **parameters):
        return MoRF(**parameters).curve(explainer, x, targets)[:, 0]

    torch.testing.assert_close(first(pnpx.Gradient(model)), chances)
    torch.testing.assert_close(first(pnpx.Gradient(normal)), chances)  # not the softmax of a softmax
    torch.testing.assert_close(first(pnpx.Gradient(model, inference_mode="log_softmax")), chances)
    torch.testing.assert_close(first(pnpx.Gradient(model), inference_mode="logits"), logits)
    torch.testing.assert_close(first(pnpx.Gradient(model), inference_mode="log_softmax"), chances.log())
    torch.testing.assert_close(first(pnpx.Gradient(model, score="regression")), logits)
    torch.testing.assert_close(first(pnpx.Gradient(model, score=lambda output, _: output[:, 1]), None), logits)
    torch.testing.assert_close(first(pnpx.Gradient(model), lambda output, _: output[:, 1]), logits)
    one = Ends(lambda found: found[:, 1:2])
    torch.testing.assert_close(first(pnpx.Gradient(one), None), logits)
    weights = doubles(0, 1, -1)
    torch.testing.assert_close(first(pnpx.Gradient(model), weights), (normal(x) @ weights).detach())


def test_the_metrics_groups_count_and_not_the_explainers():
    torch.manual_seed(0)
    model, x = nn.Linear(6, 2).double(), torch.randn(2, 6).double()
    coarse = pnpx.KernelShap(model, groups=torch.arange(6) // 3)
    assert MoRF().curve(coarse, x).shape == (2, 7)
    assert MoRF(groups=torch.arange(6) // 3).curve(coarse, x).shape == (2, 3)


def test_samples_may_have_groups_of_their_own():
    explainer, x = pnpx.GradientXInput(linear(1, 2, 3)), torch.ones(3, 3).double()
    groups = torch.tensor([[0, 0, 0], [0, 1, 2], [-1, -1, -1]])
    curve = MoRF(groups=groups).curve(explainer, x)
    assert curve.nan_to_num(-1).tolist() == [[6, 0, -1, -1], [6, 3, 1, 0], [6, -1, -1, -1]]
    assert MoRF(groups=groups).evaluate(explainer, x).tolist()[2] == 6  # with nothing to take away
    assert AbPC(groups=groups).evaluate(explainer, x).tolist()[2] == 0
    assert LeRF(groups=groups).evaluate(pnpx.Gradient(linear(1, 2, 3), batch_size=1), x).shape == (3,)


def test_several_targets_have_each_its_own_order():
    torch.manual_seed(0)
    model, x = nn.Linear(5, 3).double(), torch.randn(2, 5).double()
    explainer, targets = pnpx.GradientXInput(model), torch.tensor([[0, 2], [1, 0]])
    curve = AbPC().curve(explainer, x, targets)
    assert curve.shape == (2, 2, 6)
    for column in range(2):
        torch.testing.assert_close(curve[:, column], AbPC().curve(explainer, x, targets[:, column]))


def test_not_a_number_is_not_hidden():
    x, map_ = torch.ones(2, 3).double(), doubles([1, 2, 3], [1, torch.nan, 3])
    found = MoRF().evaluate(pnpx.Gradient(linear(1, 2, 3)), x, None, map_)
    assert found.isnan().tolist() == [False, True]


def test_wrong_parameters():
    with raises(ValueError, "`n_steps >= 1` must hold, but got n_steps=0"):
        MoRF(n_steps=0)
    with raises(TypeError, "n_steps must be an int, but got 2.5"):
        MoRF(n_steps=2.5)
    with raises(TypeError, "MoRF has no parameter 'n_stes'; the nearest: 'n_steps'"):
        MoRF(n_stes=3)
    with raises(
        ValueError,
        "inference_mode must be None or one of ('logits', 'softmax', 'log_softmax'), but is 'soft'; the nearest: "
        "'softmax'",
    ):
        AbPC(inference_mode="soft")
    with raises(ValueError, "no grouping 'chanels'; the nearest: 'channels'"):
        LeRF(groups="chanels")
    with raises(ValueError, "score='regression' needs inference_mode='logits', but it is 'softmax'"):
        MoRF(inference_mode="softmax").evaluate(
            pnpx.Gradient(linear(1, 2), score="regression"), torch.ones(1, 2).double()
        )


def test_a_distribution_in_half_precision_is_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 200), nn.Softmax(1)).bfloat16()
    x = 4 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert ((model(x).double().sum(1) - 1).abs() > 1e-4).any()
    explainer = pnpx.Gradient(model)
    plain = MoRF(inference_mode="logits").curve(explainer, x)
    assert torch.equal(MoRF().curve(explainer, x), plain)
    assert torch.equal(MoRF().curve(pnpx.Gradient(model, batch_size=3), x), plain)


def test_what_the_sample_itself_is_decides_for_all_its_copies():
    """Whatever a copy of logits, or of probabilities, happens to look like."""
    model = nn.Identity()  # logits are the input itself
    x, map_ = doubles([0, 1, 0], [2, -1, 0]), doubles([1, 2, 3], [1, 2, 3])
    curve = MoRF().curve(pnpx.Gradient(model), x, 1, map_)
    assert curve[0].tolist() == [1, 1, 0, 0]  # its copies are no distributions
    torch.testing.assert_close(curve[1, 0], x[1].softmax(0)[1])
    torch.testing.assert_close(curve[1, 3], doubles(1 / 3)[0])
    explainer, logits = pnpx.Gradient(model), doubles([2, -1])
    curve = MoRF(replacement=doubles(0, 1)).curve(explainer, logits, 1, doubles([2, 1]))
    # Without the first 0, -1; then 0, 1, which looks like a distribution.
    torch.testing.assert_close(curve, torch.stack([logits, doubles([0, -1]), doubles([0, 1])], 1).softmax(2)[..., 1])


def test_one_and_the_other_in_a_batch_that_is_cut():
    x, map_ = doubles([0, 1, 0], [2, -1, 0], [0.5, 0.5, 0]), doubles([1, 2, 3]).expand(3, 3)
    whole = MoRF().curve(pnpx.Gradient(nn.Identity()), x, 1, map_)
    for size in (1, 2, 4, 64):
        assert torch.equal(MoRF().curve(pnpx.Gradient(nn.Identity(), batch_size=size), x, 1, map_), whole)


def test_each_row_of_an_output_is_decided_by_itself():
    """As of models that tell classes of every step: (batch, steps, classes)."""
    x = doubles([0, 1, 0, 2, -1, 0])
    model = nn.Unflatten(1, (2, 3))
    explainer, map_ = pnpx.Gradient(model), doubles([1, 2, 3, 1, 2, 3])
    first, second = (MoRF().curve(explainer, x, (step, 1), map_)[0] for step in range(2))
    assert set(first.tolist()) == {0, 1}
    assert ((second > 0) & (second < 1)).all()


def test_copies_whose_output_has_other_rows():
    """They are distributions where all rows of their sample were."""
    normal = torch.tensor([[True, True], [True, False]])[..., None]
    objective = Probabilities(normal=normal)
    output = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    found, soft = objective.read(output), output.softmax(-1)
    torch.testing.assert_close(found, torch.stack([output[0], soft[1], output[2], soft[3]]))


def test_the_curve_of_what_is_not_a_number_is_none():
    x, map_ = torch.ones(2, 3).double(), doubles([1, 2, 3], [1, torch.nan, 3])
    for kind in (MoRF, LeRF, AbPC):
        curve = kind().curve(pnpx.Gradient(linear(1, 2, 3)), x, None, map_)
        assert curve.isnan().all(1).tolist() == [False, True] and curve[0].isfinite().all()


def test_pooled_channels_that_are_the_last_axis_of_an_image():
    """The weights of pixels are 1, 2, 4 and 3, each spread over two channels."""
    model = nn.Sequential(nn.Flatten(), linear(1, 0, 0.5, 1.5, 4, 0, 3, 0))
    explainer = pnpx.GradientXInput(model, reducer="sum", channel_axis=-1)
    x = torch.ones(1, 2, 2, 2).double()
    assert explainer.attribute(x).tolist() == [[[1, 2], [4, 3]]]
    assert AbPC().curve(explainer, x).tolist() == [[0, 3, 4, 3, 0]]  # 10 9 7 4 0, less 10 6 3 1 0
    assert AbPC().evaluate(explainer, x).tolist() == [2.5]


def test_the_mean_of_three_channels_has_a_third_of_it_for_each():
    class Both(nn.Module):
        def forward(self, a, b):
            return a.sum((1, 2))[:, None] + b.sum((1, 2))[:, None]

    inputs = doubles([[[1, 1, 1]]]).reshape(1, 1, 3), doubles([[[2]]]).reshape(1, 1, 1)
    explainer = pnpx.GradientXInput(Both(), reducer="mean")
    assert [one.tolist() for one in explainer.attribute(inputs)] == [[[1]], [[2]]]
    assert MoRF().curve(explainer, inputs).tolist() == [[5, 3, 0]]  # 1 in all for three channels, and 2 for one
