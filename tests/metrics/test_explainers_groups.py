"""A perturbation explainer gives each element what its whole group is worth, which counts once, however large it is."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors import Value
from pnpx.explainers.covers import Partition
from pnpx.metrics import AbPC, Complexity, LeRF, MuFidelity, Sparseness

UNEVEN = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3])


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


def linear(*sizes):
    torch.manual_seed(0)
    return nn.Linear(*sizes).double()


def ones(count):
    return torch.ones(count).double()


def fidelity(explainer, inputs, targets=None, **parameters):
    return MuFidelity(subset_size=0.5, **parameters).evaluate(explainer, inputs, targets)


@pytest.mark.parametrize("kind", [pnpx.Shapley, pnpx.FeatureAblation, pnpx.KernelShap, pnpx.Occlusion])
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_groups_of_uneven_size(kind, batch_size):
    model, x = linear(8, 1), drawn(3, 8)
    explainer, product = kind(model, groups=UNEVEN, batch_size=batch_size), pnpx.GradientXInput(model)
    torch.testing.assert_close(fidelity(explainer, x, groups=UNEVEN), ones(3))
    torch.testing.assert_close(
        AbPC(groups=UNEVEN).evaluate(explainer, x), AbPC(groups=UNEVEN).evaluate(product, x)
    )
    # Of other groups each counts for the parts that its elements have in theirs.
    parts = explainer.attribute(x) / UNEVEN.bincount()[UNEVEN]
    torch.testing.assert_close(LeRF().evaluate(explainer, x), LeRF().evaluate(product, x, None, parts))


def test_groups_of_each_sample_and_several_targets():
    model, x = linear(8, 3), drawn(3, 8)
    groups = torch.stack([UNEVEN, UNEVEN.flip(0), torch.tensor([0, 0, 1, 1, 1, 1, 1, -1])])
    targets = torch.tensor([[0, 2]] * 3)
    for batch_size in (None, 1, 2):
        found = fidelity(pnpx.Shapley(model, groups=groups, batch_size=batch_size), x, targets, groups=groups)
        torch.testing.assert_close(found, torch.ones(3, 2).double())


def test_the_sizes_of_groups():
    values = Value(torch.zeros(2, 3)), Value(torch.zeros(2, 2, 2), 1)
    ids = torch.tensor([[0, 0, -1], [2, -1, -1]]), torch.tensor([[[0, 1], [1, -1]]])
    one, other = Partition(values, ids, 3).sizes()
    assert one.tolist() == [[3, 3, 1], [1, 1, 1]]  # those of no group have 1
    assert other.movedim(1, 0).tolist() == [[[3, 2], [2, 1]], [[1, 2], [2, 1]]]


class Both(nn.Module):
    """Linear in all that it is given."""

    def __init__(self, *sizes):
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.ModuleList(nn.Linear(size, 1).double() for size in sizes)

    def forward(self, one, other):
        return self.maps[0](one.flatten(1)) + self.maps[1](other.flatten(1))


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_inputs_whose_steps_have_more_elements_than_others(batch_size):
    inputs = drawn(3, 6, 8), drawn(3, 5)
    torch.testing.assert_close(fidelity(pnpx.Shapley(Both(48, 5), batch_size=batch_size), inputs), ones(3))


def test_a_group_of_several_inputs():
    inputs, groups = (drawn(3, 6), drawn(3, 5)), (torch.tensor([0, 0, 0, 1, 2, 3]), torch.tensor([0, 0, 1, 4, 5]))
    found = fidelity(pnpx.FeatureAblation(Both(6, 5), groups=groups), inputs, groups=groups)
    torch.testing.assert_close(found, ones(3))


@pytest.mark.parametrize("reducer", [None, "sum", "mean", "max", "min"])
def test_ragged_patches(reducer):
    model, x = nn.Sequential(nn.Flatten(), linear(3 * 36 * 36, 2)), drawn(2, 3, 36, 36)
    found = fidelity(pnpx.FeatureAblation(model, reducer=reducer), x, 1)  # of 5 x 5 pixels, and of 1 at the edges
    torch.testing.assert_close(found, ones(2))


@pytest.mark.parametrize("reducer", ["sum", "mean", "max", "min"])
def test_pooled_channels_of_which_one_input_has_more(reducer):
    inputs = drawn(2, 4, 3), drawn(2, 4, 1)
    found = fidelity(pnpx.FeatureAblation(Both(12, 4), reducer=reducer), inputs)
    torch.testing.assert_close(found, ones(2))


@pytest.mark.parametrize("layer", ["0", ["0", "1"]])
def test_at_layers(layer):
    model, x = nn.Sequential(linear(5, 8), nn.Identity(), linear(8, 1)), drawn(3, 5)
    found = fidelity(pnpx.Shapley(model, layer=layer, groups=UNEVEN), x, groups=UNEVEN)
    torch.testing.assert_close(found, ones(3))


class Summed(nn.Module):
    """Linear in the steps that are no padding."""

    def forward(self, x, mask):
        weights = torch.arange(1.0, x.shape[2] + 1).double()
        return (x * weights * mask[..., None]).sum((1, 2))[:, None]


@pytest.mark.parametrize("batch_size", [None, 1])
def test_padding_is_no_part_of_a_group(batch_size):
    x, mask = drawn(2, 8, 2), torch.ones(2, 8, dtype=torch.long)
    mask[1, 3:] = 0  # of the first group three of five steps are left
    mask[1, 6:] = 1
    groups = UNEVEN[:, None].expand(8, 2)
    explainer = pnpx.FeatureAblation(
        Summed(), groups=groups, batch_size=batch_size, forward_arg_extractor=lambda batch: batch["x"],
        additional_forward_arg_extractor=lambda batch: batch["mask"], padding_mask_extractor="mask",
    )
    found = fidelity(explainer, {"x": x, "mask": mask}, groups=groups)
    torch.testing.assert_close(found, ones(2))


def test_windows_that_overlap_stay_as_they_are():
    model, x = linear(8, 1), drawn(2, 8)
    explainer = pnpx.Occlusion(model, window=3, stride=1)
    map_ = explainer.attribute(x)
    torch.testing.assert_close(AbPC().evaluate(explainer, x), AbPC().evaluate(pnpx.Gradient(model), x, None, map_))


@pytest.mark.parametrize("metric", [Complexity(), Sparseness()])
def test_what_a_map_looks_like_is_judged_as_it_is(metric):
    model, x = linear(8, 1), drawn(3, 8)
    explainer = pnpx.Shapley(model, groups=UNEVEN)
    map_ = explainer.attribute(x)
    torch.testing.assert_close(metric.evaluate(explainer, x), metric.evaluate(pnpx.Gradient(model), x, None, map_))
