"""What sort of data is explained, from shapes, dtypes and the model, or as it was said."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.detector import Traits, detect
from pnpx.modality import MODALITIES, Modality, modality_of
from tests.errors import raises

NONE = Traits({})
LSTM = detect(nn.LSTM(4, 3))
IDS = detect(nn.Embedding(9, 2))
CONV = detect(nn.Conv1d(3, 5, 2))


def floats(*shape):
    return torch.zeros(2, *shape)


def ints(*shape):
    return torch.zeros(2, *shape, dtype=torch.long)


@pytest.mark.parametrize("values, traits, name", [
    ([floats(3, 8, 8)], NONE, "image"),
    ([floats(1, 4, 8, 8)], NONE, "image"),
    ([floats(6, 4)], NONE, "series"),
    ([floats(6, 4)], LSTM, "series"),
    ([floats(5)], NONE, "tabular"),
    ([torch.zeros(2)], NONE, "tabular"),
    ([floats(5)], LSTM, "series"),
    ([floats(5)], CONV, "series"),
    ([ints(7)], IDS, "text"),
    ([ints(7)], NONE, "tabular"),
    ([ints(3, 8, 8).to(torch.uint8)], NONE, "image"),
    ([floats(5), floats(3, 8, 8)], NONE, "image"),
    ([ints(3), floats(5)], IDS, "tabular"),
    ([ints(3), ints(5)], IDS, "text"),
])
def test_what_shapes_and_the_model_tell(values, traits, name):
    assert modality_of(values, traits).name == name


@pytest.mark.parametrize("name", MODALITIES)
def test_it_can_be_said(name):
    for values in ([floats(5)], [floats(6, 4)], [floats(3, 8, 8)], [ints(7)], [floats(5), floats(6, 4)]):
        assert modality_of(values, NONE, name).name == name


def test_errors():
    with raises(ValueError, "modality must be one of image, series, tabular, text, but is 'serie'; the nearest: "
                            "'series'"):
        modality_of([floats(5)], NONE, "serie")
    with raises(ValueError, "a modality is that of the tensors that are explained, but there are none; give at least "
                            "one"):
        modality_of([], NONE)


def test_defaults_that_serve_are_left_alone():
    for values, traits in (([floats(3, 8, 8)], NONE), ([floats(64, 4)], LSTM), ([floats(5)], NONE), ([ints(7)], IDS)):
        assert modality_of(values, traits).parameters == {}
    assert modality_of([floats(3, 8, 8)], NONE) == Modality("image", "patches")
    assert modality_of([ints(7)], IDS).unit == "tokens"


def test_long_series_go_by_windows():
    assert modality_of([floats(65, 4)], LSTM) == Modality("series", "windows of 2 steps", groups=2)
    assert modality_of([floats(640, 4)], LSTM).groups == 10
    assert modality_of([floats(640)], LSTM).groups == 10
    long = modality_of([floats(3, 130)], CONV)
    assert (long.groups, long.channel_axis) == (3, 1)


def test_channels_first_where_convolutions_read_so():
    assert modality_of([floats(3, 20)], CONV).channel_axis == 1
    assert modality_of([floats(20, 3)], CONV).channel_axis is None
    assert modality_of([floats(3, 20)], LSTM).channel_axis is None
    assert modality_of([floats(5), floats(3, 20)], CONV).parameters == {"channel_axis": 1}


class Summed(nn.Module):
    def forward(self, x):
        flat = x.flatten(1).float()
        return torch.stack([flat.square().sum(1), flat.sum(1)], dim=1)


@pytest.mark.parametrize("value, name, groups", [
    (torch.rand(2, 16, 24) + 1, "image", 8 * 6),
    (torch.rand(2, 5, 4) + 1, "tabular", 20),
    (torch.rand(2, 5, 4) + 1, "series", 5),
    (torch.rand(2, 130) + 1, "series", 44),
    (torch.rand(2, 30) + 1, "tabular", 30),
    (torch.randint(1, 9, (2, 3, 4)), "text", 12),
    (torch.rand(2, 3, 4, 4) + 1, "tabular", 48),
])
def test_groups_are_those_that_perturbation_makes_of_them(value, name, groups):
    parameters = modality_of([value], NONE, name).parameters
    found = pnpx.FeatureAblation(Summed(), **parameters).by_group(value, targets=1)
    assert found.shape == (2, groups)


def test_patches_of_a_grey_image_are_square():
    value = torch.rand(1, 16, 16)
    groups = modality_of([value], NONE, "image").groups
    assert groups.shape == (16, 16) and len(set(groups[:2, :2].flatten().tolist())) == 1
    assert groups[0, 0] != groups[0, 2] and groups[0, 0] != groups[2, 0]


def test_series_of_which_one_alone_has_channels_first():
    assert modality_of([floats(3, 20), floats(20, 4)], CONV).channel_axis is None
    assert modality_of([floats(20, 4), floats(3, 20)], CONV).channel_axis is None


def test_the_first_convolution_tells_where_channels_are():
    """A later one may take as many channels as there are steps."""
    turned = detect(nn.Sequential(nn.Conv1d(4, 64, 3), nn.Conv1d(64, 64, 3)))
    assert modality_of([floats(64, 4)], turned).channel_axis is None  # the model turns them round itself
    assert modality_of([floats(4, 64)], turned).channel_axis == 1
    branches = detect(nn.ModuleList([nn.Conv1d(3, 8, 3), nn.Conv1d(5, 8, 3)]))
    assert modality_of([floats(3, 20), floats(5, 20)], branches).channel_axis == 1
    assert modality_of([floats(5, 20), floats(3, 20)], branches).channel_axis == 1
