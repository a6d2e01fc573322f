"""Groups of features, against numbers written out."""

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors import Value
from pnpx.masks import GROUPINGS, Patches, channel_of, channels, elements, positions
from tests.errors import raises

BOTH = {"forward_arg_extractor": (0, 1)}


class Sum(nn.Module):
    """Adds up all it is given, each element with a weight of its own."""

    def forward(self, *inputs, **named):
        total = 0
        for value in [*inputs, *named.values()]:
            flat = value.flatten(1)
            total = total + (flat * torch.arange(1, flat.shape[1] + 1)).sum(1)
        return total[:, None]


def ablate(inputs, model=None, **parameters):
    return pnpx.FeatureAblation(model or Sum(), **parameters).attribute(inputs)


def same_group(found):
    """Which elements have equal values, as numbers in the order in which they are met."""
    numbers = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in found.flatten().tolist()])


def test_elements_positions_channels():
    assert elements((2, 2), 0).tolist() == [[0, 1], [2, 3]]
    assert positions((2, 1, 3), 0).tolist() == [[[0, 1, 2]], [[0, 1, 2]]]
    assert positions((3, 2), 1).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert positions((3,), None).tolist() == [0, 1, 2]
    assert channels((2, 1, 3), 0).tolist() == [[[0, 0, 0]], [[1, 1, 1]]]
    assert channels((3, 2), 1).tolist() == [[0, 1], [0, 1], [0, 1]]
    assert channels((3,), None).tolist() == [0, 1, 2]
    assert set(GROUPINGS) == {"elements", "positions", "channels"}


def test_patches():
    assert Patches(2).number((1, 3, 5), 0).tolist() == [[[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]]
    assert Patches((3, 1)).number((2, 4, 2), 0)[1].tolist() == [[0, 1], [0, 1], [0, 1], [2, 3]]
    assert Patches(2).number((5, 3), 1)[:, 0].tolist() == [0, 0, 1, 1, 2]  # windows of a series
    assert Patches(2).number((5,), None).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("shape, axis, given, expected", [
    ((4, 3, 5, 5), 0, None, 0),
    ((4, 7, 3), 0, None, 1),
    ((7, 4, 3), 1, None, 1),
    ((4, 3), 0, None, None),
    ((4, 3, 7), 0, 1, 0),
    ((4, 3, 7), 0, -1, 1),
    ((7, 4, 3), 1, 0, 0),
    ((4, 5, 5, 3), 0, 3, 2),
    ((7, 3), None, None, 1),
    ((7, 3), None, 0, 0),
])
def test_the_axis_of_channels(shape, axis, given, expected):
    assert channel_of(Value(torch.zeros(shape), axis), given) == expected


@pytest.mark.parametrize("shape, groups, parameters, expected", [
    ((1, 4), None, {}, [0, 1, 2, 3]),
    ((1, 3, 2), None, {}, [0, 0, 1, 1, 2, 2]),
    ((1, 2, 3), None, {"channel_axis": 1}, [0, 1, 2, 0, 1, 2]),
    ((1, 2, 2, 2), None, {}, [0, 1, 2, 3] * 2),
    ((1, 1, 1, 17), None, {}, [n // 3 for n in range(17)]),  # at most 8 patches an axis
    ((1, 3, 2), "elements", {}, list(range(6))),
    ((1, 3, 2), "channels", {}, [0, 1] * 3),
    ((1, 5), 2, {}, [0, 0, 1, 1, 2]),
    ((1, 5), Patches(4), {}, [0, 0, 0, 0, 1]),
    ((1, 3), [0, 1, 0], {}, [0, 1, 0]),
    ((1, 3), np.array([5, 5, 9]), {}, [0, 0, 1]),
    ((1, 2, 2), torch.tensor([[0], [1]]), {}, [0, 0, 1, 1]),
    ((1, 2, 2), torch.tensor([[[0, 1], [1, 0]]]), {}, [0, 1, 1, 0]),
    ((1, 4), lambda x: (x > 2.5).long(), {}, [0, 0, 1, 1]),
], ids=lambda value: "callable" if callable(value) else str(value))
def test_forms(shape, groups, parameters, expected):
    numbers = torch.arange(1.0, 1 + np.prod(shape), dtype=torch.float64)
    x = (numbers + numbers.square() / 100).reshape(shape)
    found = ablate(x, groups=groups, **parameters)
    assert found.shape == shape
    assert same_group(found).tolist() == expected
    # The worth of a group is the sum of what its elements contribute, as the model is linear.
    weights = x.flatten() * torch.arange(1, x.numel() + 1)
    of_group = weights.new_zeros(max(expected) + 1).index_add_(0, torch.tensor(expected), weights)
    torch.testing.assert_close(found.flatten(), of_group[torch.tensor(expected)])


def test_a_grid_of_images_is_coarse():
    found = ablate(torch.rand(1, 3, 20, 33, generator=torch.Generator().manual_seed(0)))
    assert len(set(found.flatten().tolist())) == 7 * 7  # patches of 3 by 5
    assert torch.equal(found[:, 0], found[:, 2])


def test_groups_of_each_sample_in_chunks():
    """Rows of the groups go with the samples, also where the batch is cut, and results do not depend on that."""
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    groups = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 2, 3], [3, 3, 3, 3], [-1, 0, 0, -1]])
    parts = x * torch.arange(1, 5)
    expected = torch.stack([
        torch.stack([row[ids == i].sum() if i >= 0 else torch.tensor(0.0) for i in ids])
        for row, ids in zip(parts, groups, strict=True)
    ])
    for batch_size in (1, 2, 3, 4, 5, 100):
        explainer = pnpx.FeatureAblation(Sum(), groups=groups, batch_size=batch_size)
        torch.testing.assert_close(explainer.attribute(x), expected)
        by_group = explainer.by_group(x)
        assert by_group.shape == (5, 4)
        torch.testing.assert_close(by_group[2], parts[2])
        torch.testing.assert_close(by_group[3, 3], parts[3].sum())
        assert torch.isnan(by_group).tolist() == [
            [False, False, True, True], [False, False, True, True], [False] * 4, [True, True, True, False],
            [False, True, True, True],
        ]


def test_callables_see_the_chunk_and_widths_may_differ():
    x = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    explainer = pnpx.FeatureAblation(Sum(), groups=lambda value: value.long() - 1, batch_size=1)
    found = explainer.by_group(x)
    torch.testing.assert_close(found, torch.tensor([[6.0, torch.nan, torch.nan], [1.0, 4.0, 9.0]]), equal_nan=True)


def test_several_inputs_are_numbered_on():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0], [2.0], [3.0]]])
    explainer = pnpx.FeatureAblation(Sum(), **BOTH)
    torch.testing.assert_close(explainer.by_group((x, y)), torch.tensor([[1.0, 4.0, 1.0, 4.0, 9.0]]))
    explainer = pnpx.FeatureAblation(Sum(), **BOTH, groups=("elements", 2))
    torch.testing.assert_close(explainer.by_group((x, y)), torch.tensor([[1.0, 4.0, 5.0, 9.0]]))
    # Ints keep their numbers, so that a group may lie in both; what is named comes behind.
    explainer = pnpx.FeatureAblation(Sum(), **BOTH, groups=(torch.tensor([0, 1]), torch.tensor([[[1], [1], [0]]])))
    torch.testing.assert_close(explainer.by_group((x, y)), torch.tensor([[1.0 + 9, 4.0 + 5]]))
    explainer = pnpx.FeatureAblation(Sum(), **BOTH, groups=("elements", torch.tensor([[[1], [1], [-1]]])))
    by_group = torch.tensor([[torch.nan, 5.0, 1.0, 4.0]])
    torch.testing.assert_close(explainer.by_group((x, y)), by_group, equal_nan=True)


def test_a_mapping_of_groups():
    class Named(Sum):
        def forward(self, left, right):
            return super().forward(left, right)

    batch = {"left": torch.tensor([[1.0, 2.0]]), "right": torch.tensor([[1.0, 1.0]])}
    explainer = pnpx.FeatureAblation(Named(), groups={"right": [0, 0]})
    torch.testing.assert_close(explainer.by_group(batch), torch.tensor([[3.0, 1.0, 4.0]]))
    with raises(LookupError, "there is nothing 'rihgt' to group; the nearest: 'right'"):
        pnpx.FeatureAblation(Named(), groups={"rihgt": [0, 0]}).attribute(batch)


X = torch.rand(2, 3, 4)


@pytest.mark.parametrize("groups, kind, message", [
    ("element", ValueError, "no grouping 'element'; the nearest: 'elements'"),
    (0, ValueError, "the size of patches must be an int, at least 1, or a tuple of them, but is 0"),
    (1.5, TypeError, "groups must be None, a name, Patches, ints of the value's shape, a callable, or one of these for "
     "each tensor explained, but is 1.5"),
    (torch.zeros(3, 4), TypeError, "groups must be ints, one for each element, but are torch.float32"),
    ([["a"]], TypeError, "groups must be ints, one for each element, but are [['a']]"),
    (torch.zeros(5, 4).long(), ValueError,
     "groups must have the shape of what is explained, (2, 3, 4), or expand to it, but have (5, 4)"),
    (torch.zeros(3, 3, 4).long(), ValueError,
     "groups must have the shape of what is explained, (2, 3, 4), or expand to it, but have (3, 3, 4)"),
    (torch.full((3, 4), 10**9), ValueError, "groups must be numbered from 0 to at most 1048575, but one is 1000000000"),
    (Patches((2, 2)), ValueError,
     "size must be an int or have one for each of the 1 axes of positions of a sample, whose shape is (3, 4), but is "
     "(2, 2)"),
], ids=str)
def test_what_does_not_fit(groups, kind, message):
    with raises(kind, message):
        ablate(X, groups=groups)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(np.zeros((3, 4), dtype=int), mask=np.eye(3, 4))
    message = "a masked array is among the groups, but tensors have no masks; fill it first, by array.filled(value)"
    for groups in (masked, (masked, None), {"a": [masked]}):
        with raises(TypeError, message):
            pnpx.FeatureAblation(Sum(), groups=groups)
    with raises(TypeError, message):
        ablate(X, groups=lambda value: masked)


def test_what_does_not_fit_several():
    with raises(ValueError, "several tensors are explained, so groups given as ints must be a tuple (of a mapping: a "
                "mapping) of them, but are a Tensor"):
        ablate({"a": X[:, 0], "b": X[:, 1]}, model=Two(), groups=torch.zeros(4).long())
    with raises(ValueError, "there are 2 tensors to group, so as many groupings, but 3 were given"):
        ablate((X, X), **BOTH, groups=(None, None, None))
    with raises(ValueError, "channel_axis must be one of the axes 1 to 2 of the value, but is 0"):
        ablate(X, channel_axis=0)


class Two(Sum):
    def forward(self, a, b):
        return super().forward(a, b)


def test_no_group_at_all():
    assert torch.equal(ablate(X, groups=torch.full((3, 4), -1)), torch.zeros_like(X))


def test_padding_is_in_no_group():
    """Steps that a padding mask leaves out stay, and the numbers are those of steps."""
    x, mask = torch.rand(2, 3, 2), torch.tensor([[1, 1, 0], [0, 1, 1]])
    parts = {"x": x, "mask": mask}
    only = {"forward_arg_extractor": lambda batch: batch["x"], "padding_mask_extractor": "mask"}
    explainer = pnpx.FeatureAblation(Sum(), **only)
    found, by_group = explainer.attribute(parts), explainer.by_group(parts)
    assert (found[0, 2] == 0).all() and (found[1, 0] == 0).all() and (found[0, :2] > 0).all()
    assert torch.isnan(by_group).tolist() == [[False, False, True], [True, False, False]]


class Priced(nn.Module):
    """A category, one number a sample, beside features."""

    def forward(self, features, category):
        return torch.stack([features.sum(1) + 10 * category, features[:, 0]], 1)


@pytest.mark.parametrize("groups", [None, "elements", "positions", "channels", 2])
def test_a_number_a_sample_is_a_group_of_its_own(groups):
    features, category = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5, 6])
    found = pnpx.FeatureAblation(Priced(), groups=groups).attribute((features, category), 0)
    assert found[1].tolist() == [50, 60] and found[1].shape == (2,)
    together = groups == 2
    assert found[0].tolist() == ([[3, 3], [7, 7]] if together else features.tolist())
