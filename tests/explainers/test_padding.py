"""With a padding mask an explanation does not depend on how much padding there is, or on which side."""

import pytest
import torch
from torch import nn

import pnpx


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
@pytest.mark.parametrize("sampler", [None, "independent", "antithetic", "orthogonal"])
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
