"""With a padding mask an explanation does not depend on how much padding there is, or on which side."""

import pytest
import torch
from torch import nn

import pnpx
from pnpx.sampling import SAMPLERS


class Reader(nn.Module):
    """Scores token ids by what attention over the tokens that are no padding makes of them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.mix = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, ids, mask):
        hidden = torch.tanh(self.mix(self.embed(ids))) * mask[..., None]
        return self.out((hidden.softmax(1) * hidden).sum(1) / mask.sum(1, keepdim=True))


def batch(left, right, others=0):
    ids = torch.tensor([[0] * left + [3, 5, 7] + [0] * right] + [[9] * (left + 3 + right)] * others)
    mask = (ids > 0).to(torch.float64)
    return {"ids": ids, "mask": mask}


@pytest.mark.parametrize("kind", [pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad])
@pytest.mark.parametrize("sampler", [None, *SAMPLERS])
@pytest.mark.parametrize("left, right, others", [(0, 4, 0), (4, 0, 0), (2, 3, 2)])
def test_padding_does_not_matter(kind, sampler, left, right, others):
    torch.manual_seed(0)
    explainer = kind(
        Reader().double(),
        layer="embed",
        forward_arg_extractor="ids",
        additional_forward_arg_extractor="mask",
        padding_mask_extractor="mask",
        n_iter=6,
        sampler=sampler,
        batch_size=7,
    )
    # Zeros that are put to the softmax change its sum; what has to be equal is the noise and its scale.
    seen = []
    noise = explainer.points

    def record(self, bound, reference):
        for point in noise(bound, reference):
            (value,) = bound.values
            seen.append((point.tensors[0] - value.tensor)[0][value.valid[0]])
            yield point

    spied = type("Spied", (kind,), {"points": record})
    for parts in (batch(0, 0), batch(left, right, others)):
        fields = {name: value for name, value in vars(explainer).items()}
        spied(fields.pop("model"), **fields).attribute(parts, 1)
    alone, padded = seen[:6], seen[6:]
    for one, other in zip(alone, padded, strict=True):
        assert one.shape == (3, 4) and one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_padding_gets_no_noise():
    class Spy(pnpx.SmoothGrad):
        def points(self, bound, reference):
            for point in super().points(bound, reference):
                (value,) = bound.values
                assert torch.equal(point.tensors[0][~value.valid], value.tensor[~value.valid])
                yield point

    model = Reader().double()
    parts = {"forward_arg_extractor": "ids", "additional_forward_arg_extractor": "mask"}
    result = Spy(model, layer="embed", padding_mask_extractor="mask", n_iter=3, **parts).attribute(batch(2, 1), 0)
    assert result.shape == (1, 6, 4)


def test_a_mask_of_another_shape_is_refused():
    explainer = pnpx.SmoothGrad(Reader(), layer="embed", padding_mask_extractor=lambda parts: parts["mask"][0])
    with pytest.raises(ValueError, match=r"must take a mask of shape \(batch, length\), but took one of \(3,\)"):
        explainer.attribute(batch(0, 0), 0)


SEQUENCES = torch.linspace(-2, 2, 60).sin().reshape(3, 5, 4)


@pytest.mark.parametrize("mask, message", [
    (torch.ones(2, 5), r"a row for each of the 3 samples, but took one of shape \(2, 5\)"),
    (torch.ones(1, 5), r"a row for each of the 3 samples, but took one of shape \(1, 5\)"),
    (torch.ones(3, 6), r"shape \(3, 6\), and must be .* explained, but their shapes are \(3, 5, 4\)"),
    (-1e9 * (1 - torch.ones(3, 5).tril()), "bool, or 1 for .* but took one that holds -1e\\+09; an additive mask"),
    (torch.ones(3, 5).tril().log(), "but took one that holds -inf; an additive mask"),
    (torch.full((3, 5), float("nan")), "but took one that holds nan"),
    (torch.full((3, 5), 2), "but took one that holds 2;"),
    (torch.tensor([[True], [True], [False]]).expand(3, 5), "sample 2 is padding throughout; leave such samples out"),
])
@pytest.mark.parametrize("kind", [pnpx.SmoothGrad, pnpx.Gradient, pnpx.FeatureAblation])
def test_a_mask_that_cannot_be_one_of_the_batch_is_refused(kind, mask, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
    explainer = kind(model, forward_arg_extractor=0, padding_mask_extractor=1)
    with pytest.raises(ValueError, match=message):
        explainer.attribute((SEQUENCES, mask), 1)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_masks_of_any_type_say_the_same(dtype):
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 2), nn.Tanh(), nn.Linear(2, 2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).to(dtype)
    seen = []

    class Spy(pnpx.SmoothGrad):
        def points(self, bound, reference):
            seen.extend(value.valid for value in bound.values)
            return super().points(bound, reference)

    Spy(model, forward_arg_extractor=0, padding_mask_extractor=1).attribute((SEQUENCES, mask), 1)
    assert seen and all(torch.equal(valid, mask == 1) for valid in seen)


def test_at_a_layer_without_an_axis_of_time_the_mask_need_not_fit():
    """What is pooled has no padding; the result is that without a mask, by torch.autograd."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    explainer = pnpx.Gradient(model, layer="1", forward_arg_extractor=0, padding_mask_extractor=1)
    found = explainer.attribute((SEQUENCES.double(), torch.ones(3, 5)), 1)
    hidden = model[:2](SEQUENCES.double()).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[2:](hidden)[:, 1].sum(), hidden)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="a row for each of the 3 samples"):
        explainer.attribute((SEQUENCES.double(), torch.ones(2, 5)), 1)
