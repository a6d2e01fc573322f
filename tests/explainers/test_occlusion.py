"""Occlusion by windows, against captum and direct passes."""


import pytest
import torch
from torch import nn

import pnpx
from tests.errors import raises


class Net(nn.Module):
    def __init__(self, features):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(features, 6, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.flatten(1))))


def data(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape, window, stride", [
    ((3, 2, 6, 5), (3, 2), (2, 1)),
    ((3, 2, 6, 5), (4, 4), (3, 2)),
    ((3, 1, 6, 6), (2, 2), (2, 2)),
    ((3, 7), (3,), (2,)),
    ((1, 7), (7,), (1,)),
])
def test_images_and_vectors_as_captum(shape, window, stride):
    from captum.attr import Occlusion

    x, model, baseline = data(*shape), Net(torch.Size(shape[1:]).numel()), 0.3
    channels = (shape[1],) if len(shape) == 4 else ()
    expected = Occlusion(model).attribute(
        x, (*channels, *window), strides=(*channels, *stride), target=1, baselines=baseline
    )
    for batch_size in (1, 4, 100):
        explainer = pnpx.Occlusion(model, window=window, stride=stride, baseline=baseline, batch_size=batch_size)
        torch.testing.assert_close(explainer.attribute(x, 1), expected.double(), rtol=1e-5, atol=1e-7)


def test_series_as_captum():
    from captum.attr import Occlusion

    x, model = data(3, 8, 2), Net(16)
    expected = Occlusion(model).attribute(x, (3, 2), strides=(2, 2), target=0)
    found = pnpx.Occlusion(model, window=3, stride=2).attribute(x, 0)
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=1e-7)
    assert torch.equal(found[:, :, 0], found[:, :, 1])


def test_the_mean_of_the_windows_on_an_element():
    """By hand: windows of two, one apart, of a linear model."""
    model = nn.Linear(4, 1, bias=False)
    model.weight.data[:] = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    found = pnpx.Occlusion(model, window=2, stride=1).attribute(torch.ones(1, 4))
    torch.testing.assert_close(found, torch.tensor([[3.0, (3 + 6) / 2, (6 + 12) / 2, 12.0]]))
    # Side by side without a stride; the last one ends with the input.
    found = pnpx.Occlusion(model, window=3).attribute(torch.ones(1, 4))
    torch.testing.assert_close(found, torch.tensor([[7.0, 7.0, 7.0, 8.0]]))


def test_windows_in_each_of_several_inputs():
    class Both(nn.Module):
        def forward(self, x, y):
            return (x.sum(1) + 10 * y.flatten(1).sum(1))[:, None]

    x, y = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[[1.0], [2.0]]])
    left, right = pnpx.Occlusion(Both(), window=2).attribute((x, y))
    torch.testing.assert_close(left, torch.tensor([[3.0, 3.0, 3.0]]))
    torch.testing.assert_close(right, torch.tensor([[[30.0], [30.0]]]))


def test_several_targets_and_layers():
    x, model = data(2, 6), Net(6)
    targets = torch.tensor([[0, 2], [1, 0]])
    explainer = pnpx.Occlusion(model, window=2, stride=1, layer="first")
    found = explainer.attribute(x, targets)
    assert found.shape == (2, 2, 6)
    torch.testing.assert_close(found[:, 1], explainer.attribute(x, targets[:, 1]))


def test_windows_over_padding_alone_are_none():
    """The rows that sequences of their own length need do not grow with the padding, nor does the result change."""
    model, rows = Net(12), []

    class Padded(nn.Module):
        def forward(self, x):
            rows.append(len(x))
            return model(nn.functional.pad(x, (0, 0, 0, 6 - x.shape[1])))

    x = torch.cat([data(2, 3, 2), torch.zeros(2, 3, 2)], dim=1).double()
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    explainer = pnpx.Occlusion(
        Padded(), window=2, stride=1, baseline=1.0, batch_size=2,
        forward_arg_extractor=lambda batch: batch[0], padding_mask_extractor=1,
    )
    found = explainer.attribute((x, mask), 0)
    assert len(rows) == 1 + 3  # itself, and three windows that begin before the longest one ends
    short = explainer.attribute((x[:, :3], mask[:, :3]), 0)
    torch.testing.assert_close(found[1, :2], explainer.attribute((x[1:, :], mask[1:]), 0)[0, :2])
    assert found.shape == (2, 6, 2) and short.shape == (2, 3, 2)


def test_without_a_window_as_feature_ablation():
    x, model = data(2, 6), Net(6)
    for groups in (None, [0, 0, 1, 1, 2, 2]):
        found = pnpx.Occlusion(model, groups=groups).attribute(x, 0)
        torch.testing.assert_close(found, pnpx.FeatureAblation(model, groups=groups).attribute(x, 0))


@pytest.mark.parametrize("parameters, kind, message", [
    ({"window": 2, "groups": "elements"}, ValueError,
     "Occlusion hides either groups or windows, but both were given; leave one out"),
    ({"stride": 2}, ValueError, "a stride is that of a window, but stride=2 was given without window"),
    ({"window": 0}, ValueError, "`window >= 1` must hold, but got window=0"),
    ({"window": 2, "stride": (1, 0)}, ValueError, "`stride >= 1` must hold, but got stride=(1, 0)"),
    ({"window": 1.5}, TypeError, "window must be an int or a tuple of them, but got 1.5"),
    ({"window": 2, "stride": 3}, ValueError,
     "`stride <= window` must hold, lest positions be left out, but got stride=3 and window=2"),
    ({"window": 7}, ValueError,
     "a window must fit what is explained, whose samples have shape (6,), but is 7"),
    ({"window": (2, 2)}, ValueError,
     "window must be an int or have one for each of the 1 axes of positions of a sample, whose shape is (6,), but is "
     "(2, 2)"),
], ids=str)
def test_wrong_parameters(parameters, kind, message):
    with raises(kind, message):
        pnpx.Occlusion(Net(6), **parameters).attribute(data(2, 6), 0)


def test_windows_are_no_groups():
    explainer = pnpx.Occlusion(Net(6), window=2, stride=1)
    assert explainer.explain(data(2, 6), 0).diagnostics == {}
    with pytest.raises(ValueError, match=r"^windows overlap, and are no groups that elements belong to; give groups "):
        explainer.by_group(data(2, 6), 0)
