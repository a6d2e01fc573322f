"""The D-RISE score of boxes, against its formula (arXiv:2006.03204, section 3.2) written out in numpy."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.scores import Objective
from tests.errors import raises


def overlap(one, other):
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def by_hand(wanted, found):
    """The mean over the boxes wanted of the best match among those found; each (n, 5 + classes)."""
    best = []
    for w in wanted:
        matches = []
        for f in found:
            alike = w[5:] @ f[5:] / (np.linalg.norm(w[5:]) * np.linalg.norm(f[5:]))
            matches.append(overlap(w[:4], f[:4]) * f[4] * alike)
        best.append(max(matches))
    return np.mean(best)


def boxes(batch, count, classes, seed):
    draw = np.random.default_rng(seed)
    low = draw.uniform(0, 6, (batch, count, 2))
    high = low + draw.uniform(1, 8, (batch, count, 2))
    rest = draw.uniform(0.05, 1, (batch, count, 1 + classes))
    return torch.from_numpy(np.concatenate([low, high, rest], 2))


FOUND, WANTED = boxes(3, 7, 4, 0), boxes(3, 2, 4, 1)


def scored(targets, output, copies=1, batch_size=3, clean=None, **options):
    objective = Objective(score="detection", **options)
    aim = objective.aim(targets, None, batch_size, lambda: output if clean is None else clean)
    (scores,) = aim.scores(output, copies)
    return scores


def listed(tensor, classes=False):
    """As torchvision's detectors return them, with labels; the class probabilities become the likeliest class."""
    return [{"boxes": s[:, :4], "scores": s[:, 4], "labels": s[:, 5:].argmax(1)} for s in tensor]


error = partial(raises, (TypeError, ValueError))


def test_tensors_of_boxes():
    expected = [by_hand(w, f) for w, f in zip(WANTED.numpy(), FOUND.numpy(), strict=True)]
    np.testing.assert_allclose(scored(WANTED, FOUND), expected, rtol=1e-10)
    np.testing.assert_allclose(scored(list(WANTED), FOUND), expected, rtol=1e-10)
    np.testing.assert_allclose(scored(WANTED, (0, FOUND), output_extractor=1), expected, rtol=1e-10)


def test_copies_meet_the_boxes_of_their_own_sample():
    other = boxes(3, 7, 4, 5)
    expected = [by_hand(w, f) for found in (FOUND, other) for w, f in zip(WANTED.numpy(), found.numpy(), strict=True)]
    np.testing.assert_allclose(scored(WANTED, torch.cat([FOUND, other]), copies=2), expected, rtol=1e-10)


def test_a_list_of_mappings():
    expected = []
    for wanted, found in zip(listed(WANTED), listed(FOUND), strict=True):
        best = [
            max(
                overlap(box, other) * score * (label == label_found)
                for other, score, label_found in zip(found["boxes"].numpy(), found["scores"].numpy(),
                                                     found["labels"].tolist(), strict=True)
            )
            for box, label in zip(wanted["boxes"].numpy(), wanted["labels"].tolist(), strict=True)
        ]
        expected.append(np.mean(best))
    assert max(expected) > 0
    np.testing.assert_allclose(scored(listed(WANTED), listed(FOUND)), expected, rtol=1e-10)
    np.testing.assert_allclose(scored(listed(WANTED), listed(FOUND) * 2, copies=2), expected * 2, rtol=1e-10)


def test_without_targets_the_boxes_that_the_model_finds():
    changed = boxes(3, 7, 4, 9)
    expected = [by_hand(w, f) for w, f in zip(FOUND.numpy(), changed.numpy(), strict=True)]
    np.testing.assert_allclose(scored(None, changed, clean=FOUND), expected, rtol=1e-10)


@pytest.mark.parametrize("one, other, expected", [
    ([0, 0, 2, 2], [0, 0, 2, 2], 1.0), ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3), ([0, 0, 2, 2], [2, 0, 3, 2], 0.0),
    ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16), ([0, 0, 1, 1], [5, 5, 9, 9], 0.0), ([1, 1, 1, 1], [1, 1, 1, 1], 0.0),
])
def test_overlap(one, other, expected):
    box = [torch.tensor([[[*map(float, corners), 1.0, 1.0]]]) for corners in (one, other)]
    assert scored(box[0], box[1], batch_size=1).item() == pytest.approx(expected)


def test_nothing_found_or_nothing_wanted_is_no_score_and_no_error():
    leaf = FOUND.clone().requires_grad_()
    scores = scored([WANTED[0], WANTED[1][:0], WANTED[2]], [leaf[0][:0], leaf[1], leaf[2]])
    assert scores[0] == 0 and scores[1] == 0 and scores[2] > 0
    (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    assert not gradient[:2].any() and gradient[2].any()


class Detector(nn.Module):
    """Finds for each sample boxes that follow from its two numbers."""

    def __init__(self, as_list=False):
        super().__init__()
        self.head = nn.Linear(2, 3 * 7).double()
        self.as_list = as_list

    def forward(self, x):
        raw = self.head(x).unflatten(1, (3, 7))
        low, size, rest = raw[..., :2], raw[..., 2:4].exp(), raw[..., 4:].sigmoid()
        found = torch.cat([low, low + size, rest], 2)
        if not self.as_list:
            return found
        return [{"boxes": b[:, :4], "scores": b[:, 4], "labels": torch.arange(3)} for b in found]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_gradients(as_list, batch_size):
    """Against differences of the score, sample by sample; also in several pieces, and with several copies in a pass."""
    torch.manual_seed(0)
    model = Detector(as_list)
    x = torch.randn(5, 2, dtype=torch.float64)
    wanted = model(x + 0.1)
    wanted = [{k: v.detach() for k, v in w.items()} for w in wanted] if as_list else wanted.detach()

    def score(values):
        with torch.no_grad():
            return scored(wanted, model(values), batch_size=5)

    step = 1e-6
    expected = torch.stack(
        [(score(x + step * e) - score(x - step * e)) / (2 * step) for e in torch.eye(2, dtype=torch.float64)], 1)
    found = pnpx.Gradient(model, score="detection", batch_size=batch_size).attribute(x, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    smooth = pnpx.SmoothGrad(model, score="detection", batch_size=batch_size, noise_level=0.0, n_iter=4)
    torch.testing.assert_close(smooth.attribute(x, wanted), expected, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(smooth.attribute(x, tuple(wanted)), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("targets, output, message", [
    (WANTED[:2], FOUND, "targets must hold the boxes of each of the 3 samples, but hold 2"),
    (WANTED, listed(FOUND)[:2], "the model must find boxes for each of the 3 samples, not 2"),
    (WANTED, FOUND[:2],
     "the model's output must have a row for each of the 3 samples, but its shape is (2, 7, 9); choose the right "
     "tensor with output_extractor, or bring its batch axis to the front there"),
    (torch.ones(3, 2), FOUND,
     "boxes are a tensor (batch, boxes, 5 + classes), or for each sample a mapping of 'boxes', 'scores' and 'labels', "
     "but targets is of shape (3, 2)"),
    ([{"box": 1}] * 3, FOUND,
     "boxes are a tensor (batch, boxes, 5 + classes), or for each sample a mapping of 'boxes', 'scores' and 'labels', "
     "but targets is a list"),
    (1, FOUND,
     "boxes are a tensor (batch, boxes, 5 + classes), or for each sample a mapping of 'boxes', 'scores' and 'labels', "
     "but targets is a int"),
    (WANTED, FOUND[:, 0],
     "boxes are a tensor (batch, boxes, 5 + classes), or for each sample a mapping of 'boxes', 'scores' and 'labels', "
     "but the model's output is of shape (3, 9)"),
    (listed(WANTED), FOUND,
     "targets and the model's output must both give labels, or both class probabilities, of the same number of "
     "classes"),
    (WANTED[..., :7], FOUND,
     "targets and the model's output must both give labels, or both class probabilities, of the same number of "
     "classes"),
])
def test_errors(targets, output, message):
    with error(message):
        scored(targets, output)
