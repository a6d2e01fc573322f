"""Every form of target and of score, against the score written out."""

from collections import UserDict, namedtuple
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

import pnpx
from pnpx.scores import Objective, find_output, rows_of_targets, split_copies
from tests.errors import raises

BATCH, CLASSES = 3, 5
OUT = torch.randn(BATCH, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TWICE = torch.cat([OUT, 2 * OUT])
MAPS = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Named = namedtuple("Named", "hidden logits")
Scores = namedtuple("Scores", "coarse fine")


@dataclass
class Record:
    hidden: torch.Tensor
    logits: torch.Tensor


def scored(targets, output=OUT, copies=1, batch="the batch", batch_size=BATCH, clean=None, **options):
    """The scores for an output that is ``clean`` for the batch itself: (targets, rows)."""
    aim = Objective(**options).aim(targets, batch, batch_size, lambda: output if clean is None else clean)
    return torch.stack(aim.scores(output, copies)), aim


# Classification


@pytest.mark.parametrize("targets, chosen", [
    (2, [2, 2, 2]), (np.int64(2), [2, 2, 2]), (np.uint8(4), [4, 4, 4]), (torch.tensor(1), [1, 1, 1]),
    (torch.tensor([3]), [3, 3, 3]), ([0], [0, 0, 0]), ([0, 4, 2], [0, 4, 2]), (np.array([0, 4, 2]), [0, 4, 2]),
    (np.array([0, 4, 2], np.int16), [0, 4, 2]), (torch.tensor([0, 4, 2], dtype=torch.uint8), [0, 4, 2]),
    (torch.tensor([0, 4, 2], dtype=torch.int32), [0, 4, 2]), ((3,), [3, 3, 3]), ([(1,), (0,), (4,)], [1, 0, 4]),
    ([np.int64(1), np.int64(2), np.int64(3)], [1, 2, 3]),
], ids=str)
def test_classes(targets, chosen):
    scores, aim = scored(targets)
    assert torch.equal(scores, OUT[torch.arange(BATCH), chosen][None])
    assert aim.n_targets is None and aim.resolved.tolist() == chosen and aim.resolved.dtype == torch.int64
    again, _ = scored(targets, TWICE, copies=2, clean=OUT)
    assert torch.equal(again, torch.cat([scores, 2 * scores], dim=1))


def test_the_prediction_is_that_for_the_batch_itself():
    """Noise may change what the model would predict; what is explained stays."""
    scores, aim = scored(None, -TWICE, copies=2, clean=OUT)
    predicted = OUT.argmax(1)
    assert torch.equal(scores[0], torch.cat([-OUT.amax(1), -2 * OUT.amax(1)]))
    assert torch.equal(aim.resolved, predicted)


def test_the_model_is_not_asked_for_a_prediction_that_is_not_needed():
    Objective().aim(1, None, BATCH, lambda: pytest.fail("ran"))
    Objective().aim(torch.ones(BATCH, CLASSES), None, BATCH, lambda: pytest.fail("ran"))


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_several_targets_a_sample(kind):
    columns = [[0, 4], [1, 1], [3, 2]]
    scores, aim = scored(kind(columns))
    assert aim.n_targets == 2 and scores.shape == (2, BATCH)
    assert torch.equal(scores.T, torch.gather(OUT, 1, torch.tensor(columns)))
    assert aim.resolved.tolist() == columns


def test_a_single_column_is_still_an_axis():
    scores, aim = scored(torch.tensor([[1], [2], [0]]))
    assert aim.n_targets == 1 and scores.shape == (1, BATCH) and aim.resolved.shape == (BATCH, 1)


@pytest.mark.parametrize("weights", [
    torch.eye(CLASSES)[:BATCH], torch.tensor([1.0, -1.0, 0, 0, 0]), np.array([[0.5, 0, 0, 2, 0]] * BATCH),
    torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(3)),
], ids=["one-hot", "for all", "array", "any"])
def test_floats_are_weights(weights):
    scores, aim = scored(weights)
    expected = (OUT.numpy() * np.asarray(weights)).sum(1)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
    assert aim.n_targets is None and torch.equal(aim.resolved, torch.as_tensor(weights).expand(BATCH, CLASSES))
    again, _ = scored(weights, TWICE, copies=2)
    np.testing.assert_allclose(again[0], np.concatenate([expected, 2 * expected]), rtol=1e-6)


def test_indices_of_outputs_of_more_axes():
    scores, _ = scored((2, 3, 0), MAPS, batch_size=2)
    assert torch.equal(scores[0], MAPS[:, 2, 3, 0])
    scores, aim = scored([(2, 3, 0), (0, 1, 4)], MAPS, batch_size=2)
    assert torch.equal(scores[0], torch.stack([MAPS[0, 2, 3, 0], MAPS[1, 0, 1, 4]]))
    assert aim.resolved.tolist() == [[2, 3, 0], [0, 1, 4]]
    again, _ = scored([(2, 3, 0), (0, 1, 4)], torch.cat([MAPS, -MAPS]), copies=2, batch_size=2)
    assert torch.equal(again[0], torch.cat([scores[0], -scores[0]]))
    weights = torch.zeros_like(MAPS)
    weights[:, 1, 2, 3] = -2.0
    assert torch.equal(scored(weights, MAPS, batch_size=2)[0][0], -2 * MAPS[:, 1, 2, 3])


@pytest.mark.parametrize("output", [OUT[:, 0], OUT[:, :1], OUT[:, :1, None]], ids=["(b,)", "(b, 1)", "(b, 1, 1)"])
@pytest.mark.parametrize("score", ["classification", "regression"])
def test_single_outputs(output, score):
    scores, aim = scored(None, output, score=score)
    assert torch.equal(scores[0], OUT[:, 0]) and aim.resolved is None and aim.n_targets is None
    if output.ndim < 3:
        assert torch.equal(scored(0, output, score=score)[0][0], OUT[:, 0])
        assert scored([[0, 0]] * BATCH, output, score=score)[0].shape == (2, BATCH)


def test_regression_with_several_outputs():
    assert torch.equal(scored(3, score="regression")[0][0], OUT[:, 3])


@pytest.mark.parametrize("mode, function", [
    ("softmax", lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)),
    ("log_softmax", lambda z: z - np.log(np.exp(z).sum(1, keepdims=True))),
    ("logits", lambda z: z),
])
def test_inference_modes(mode, function):
    np.testing.assert_allclose(scored(2, inference_mode=mode)[0][0], function(OUT.numpy())[:, 2], rtol=1e-12)
    np.testing.assert_allclose(  # the classes of a segmentation lie along axis 1
        scored((1, 2, 3), MAPS, batch_size=2, score=lambda o, t: o[:, 1, 2, 3], inference_mode="logits")[0][0],
        MAPS[:, 1, 2, 3])
    weights = torch.zeros_like(MAPS)
    weights[:, 1, 2, 3] = 1.0
    np.testing.assert_allclose(
        scored(weights, MAPS, batch_size=2, score="segmentation", inference_mode=mode)[0][0],
        function(MAPS.numpy())[:, 1, 2, 3], rtol=1e-12)


# Segmentation, as Xplique's operator: sum(output * mask) / number of pixels of the mask


def segmentation_by_hand(output, mask):
    return np.array([(o * m).sum() / max((m != 0).sum(), 1) for o, m in zip(output.numpy(), mask, strict=True)])


def regions(output, classes):
    """The pixels that ``output`` itself gives to each sample's class; all of them where there are none."""
    mask = np.zeros(output.shape)
    for sample, chosen in enumerate(classes):
        inside = output[sample].numpy().argmax(0) == chosen
        mask[sample, chosen] = inside if inside.any() else 1.0
    return mask


@pytest.mark.parametrize("mask", [
    torch.zeros(2, 3, 4, 5).index_put((torch.tensor([0, 1, 1]), torch.tensor([2, 0, 0]), torch.tensor([1, 1, 2]),
                                       torch.tensor([3, 3, 0])), torch.ones(())),
    MAPS > 0.5, (MAPS > 0.5).numpy(), (MAPS[0] > 0.5), torch.zeros(2, 3, 4, 5), 2.0 * (MAPS > 0), -1.0 * (MAPS > 1),
], ids=["one-hot", "bool", "bool array", "for all", "empty", "weighted", "negative"])
def test_segmentation_masks(mask):
    full = np.broadcast_to(np.asarray(mask, dtype=float), MAPS.shape)
    scores, _ = scored(mask, MAPS, batch_size=2, score="segmentation")
    np.testing.assert_allclose(scores[0], segmentation_by_hand(MAPS, full), rtol=1e-12)
    again, _ = scored(mask, torch.cat([MAPS, 3 * MAPS]), copies=2, batch_size=2, score="segmentation")
    np.testing.assert_allclose(again[0], np.tile(segmentation_by_hand(MAPS, full), 2) * [1, 1, 3, 3], rtol=1e-12)


@pytest.mark.parametrize("targets, classes", [(1, [1, 1]), ([2, 0], [2, 0]), (torch.tensor([0]), [0, 0])], ids=str)
def test_segmentation_classes(targets, classes):
    expected = segmentation_by_hand(MAPS, regions(MAPS, classes))
    scores, aim = scored(targets, MAPS, batch_size=2, score="segmentation")
    np.testing.assert_allclose(scores[0], expected, rtol=1e-12)
    assert aim.resolved.tolist() == classes
    # The region is that of the clean output, however noise changes it.
    again, _ = scored(targets, torch.cat([-MAPS, MAPS]), 2, batch_size=2, score="segmentation", clean=MAPS)
    np.testing.assert_allclose(again[0], np.concatenate([-expected, expected]), rtol=1e-12)


def test_segmentation_class_that_is_nowhere():
    output = MAPS.clone()
    output[1, 2] = -10.0
    scores, _ = scored(2, output, batch_size=2, score="segmentation")
    assert scores[0, 1] == -10.0
    np.testing.assert_allclose(scores[0], segmentation_by_hand(output, regions(output, [2, 2])))


def test_segmentation_of_what_is_predicted():
    scores, _ = scored(None, MAPS, batch_size=2, score="segmentation")
    np.testing.assert_allclose(scores[0], MAPS.amax(1).mean((1, 2)), rtol=1e-12)


def test_segmentation_of_several_classes():
    scores, aim = scored([[0, 2], [1, 1]], MAPS, batch_size=2, score="segmentation")
    assert aim.n_targets == 2
    for column, classes in enumerate([[0, 1], [2, 1]]):
        np.testing.assert_allclose(scores[column], segmentation_by_hand(MAPS, regions(MAPS, classes)), rtol=1e-12)


def test_segmentation_of_one_pixel():
    assert torch.equal(scored((2, 3, 4), MAPS, batch_size=2, score="segmentation")[0][0], MAPS[:, 2, 3, 4])


def test_segmentation_with_one_class():
    np.testing.assert_allclose(scored(None, MAPS[:, :1], batch_size=2, score="segmentation")[0][0],
                               MAPS[:, 0].mean((1, 2)))


# Callables


def test_a_callable_as_target_is_given_the_batch():
    seen = []

    def margin(output, batch):
        seen.append(batch)
        return output[:, 0] - output[:, 1]

    scores, aim = scored(margin, TWICE, copies=2, batch={"y": 1})
    assert torch.equal(scores[0], TWICE[:, 0] - TWICE[:, 1])
    assert seen == [{"y": 1}] * 2 and aim.resolved is None and aim.n_targets is None


def test_a_callable_as_score_is_given_the_targets():
    scores, _ = scored("anything", TWICE, copies=2, score=lambda output, targets: output.sum(1) + len(targets))
    assert torch.equal(scores[0], TWICE.sum(1) + 8)


def test_a_callable_score_sees_the_extracted_output_in_its_mode():
    scores, _ = scored(None, {"a": OUT, "b": 0}, score=lambda output, _: output[:, 0], output_extractor="a",
                       inference_mode="softmax")
    torch.testing.assert_close(scores[0], OUT.softmax(1)[:, 0])


def test_lists_of_the_batch_are_cut_with_it_for_a_callable():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    batch = {"x": torch.randn(4, 3, dtype=torch.float64), "labels": [0, 0, 1, 1]}

    def score(output, batch):
        return torch.stack([row[label] for row, label in zip(output, batch["labels"], strict=True)])

    whole, parts = (
        pnpx.Gradient(model, forward_arg_extractor="x", batch_size=size).attribute(batch, score) for size in (4, 2)
    )
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("returned, what", [
    (OUT.sum(), "a tensor of shape () and torch.float64"), (OUT, "a tensor of shape (3, 5) and torch.float64"),
    (OUT[:2, 0], "a tensor of shape (2,) and torch.float64"), (OUT.argmax(1), "a tensor of shape (3,) and torch.int64"),
    (1.5, "1.5"), (None, "None"),
])
def test_what_a_callable_must_return(returned, what):
    message = (
        f"a callable score must return one float a sample, a tensor of shape ({BATCH},), but returned {what}"
    )
    with raises(TypeError, message):
        scored(lambda output, batch: returned)
    with raises(TypeError, message):
        scored(None, score=lambda output, targets: returned)


# The output


@pytest.mark.parametrize("output", [
    OUT, (OUT, TWICE), [OUT], ((OUT, None), None), {"logits": OUT, "x": TWICE}, {"out": OUT, "aux": TWICE},
    {"only": OUT, "ids": torch.ones(3, dtype=torch.int64), "n": 1}, Named(TWICE, OUT), Record(TWICE, OUT),
    SequenceClassifierOutput(loss=OUT.sum(), logits=OUT),
])
def test_the_output_is_found(output):
    assert find_output(output) is OUT
    assert torch.equal(scored(1, output)[0][0], OUT[:, 1])


@pytest.mark.parametrize("output, what, where", [
    ({"a": OUT, "b": OUT}, "the parts 'a', 'b'", "'a'"), ("text", "a str", "lambda output: ..."),
    (None, "a NoneType", "lambda output: ..."), ((), "a tuple", "lambda output: ..."),
    ({"ids": torch.ones(3, dtype=torch.int64)}, "the parts 'ids'", "lambda output: ..."),
    ({"ids": torch.ones(3, dtype=torch.int64), 7: OUT, "b": OUT}, "the parts 'ids', '7', 'b'", "7"),
    (Scores(OUT, OUT), "the parts 'coarse', 'fine'", "'coarse'"),
    (SimpleNamespace(n=1, fine=OUT), "a SimpleNamespace", "'fine'"),
    (({"a": OUT, "b": OUT}, None), "the parts 'a', 'b'", "lambda output: output[0]['a']"),
    ([Scores(OUT, OUT)], "the parts 'coarse', 'fine'", "lambda output: output[0].coarse"),
])
def test_the_output_is_not_clear(output, what, where):
    """What the error advises does find a tensor."""
    with raises(TypeError, f"the model returned {what}, in which the scores are not clear; say where: "
                           f"output_extractor={where}"):
        find_output(output)
    if "..." not in where:
        assert scored(1, output, output_extractor=eval(where))[0].shape == (1, BATCH)


@pytest.mark.parametrize("extractor", ["b", 1, lambda output: output["b"] if isinstance(output, dict) else output[1]])
def test_output_extractor(extractor):
    output = {"a": TWICE, "b": OUT} if extractor != 1 else (TWICE, OUT)
    assert torch.equal(scored(1, output, output_extractor=extractor)[0][0], OUT[:, 1])


def test_splitting_copies():
    parts = split_copies((TWICE, [TWICE]), 2, BATCH)
    assert [type(part) for part in parts] == [tuple, tuple]
    assert torch.equal(parts[1][0], 2 * OUT) and torch.equal(parts[1][1][0], 2 * OUT)
    assert split_copies([1, 2, 3, 4], 2, 2) == [[1, 2], [3, 4]]


# Targets of part of a batch


@pytest.mark.parametrize("targets, expected", [
    (None, None), (3, 3), ((1, 2), (1, 2)), ([4, 5, 6], [5, 6]), ([4], [4]), (torch.tensor([4]), torch.tensor([4])),
    (torch.tensor([4, 5, 6]), torch.tensor([5, 6])), (np.array([4, 5, 6]), np.array([5, 6])),
    (torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[3, 4], [5, 6]])), (torch.ones(3), torch.ones(3)),
    (np.ones(3), np.ones(3)), ([1.0, -1.0, 0.0], [1.0, -1.0, 0.0]),
    (torch.eye(3), torch.eye(3)), (torch.eye(3) > 0, torch.eye(3) > 0), (np.eye(3), np.eye(3)),  # see `Chosen`
    ([(0, 1), (1, 2), (2, 2)], [(1, 2), (2, 2)]),
], ids=str)
def test_rows_of_targets(targets, expected):
    def plain(value):
        if isinstance(value, (torch.Tensor, np.ndarray)):
            return value.tolist()
        return value

    assert plain(rows_of_targets(targets, slice(1, 3), 3)) == plain(expected)


def test_rows_of_boxes():
    for boxes in (torch.rand(3, 2, 7), [*torch.rand(3, 3, 7)], [{"boxes": torch.rand(3, 4)} for _ in range(3)]):
        cut = rows_of_targets(boxes, slice(1, 3), 3, weights=False)
        assert type(cut) is type(boxes) and str(cut) == str(boxes[1:])
        assert rows_of_targets(boxes, slice(0, 2), 4, weights=False) is boxes


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("batch_size", [32, 7])
def test_a_callable_score_is_given_the_targets_of_its_samples(kind, batch_size):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 3).double(), torch.randn(40, 4, dtype=torch.float64)
    classes = [index % 3 for index in range(40)]

    def score(output, targets):
        return torch.stack([row[target["label"]] for row, target in zip(output, targets, strict=True)])

    targets = kind({"label": torch.tensor(one)} for one in classes)
    found = pnpx.Gradient(model, score=score, batch_size=batch_size).attribute(x, targets)
    torch.testing.assert_close(found, model.weight[classes].detach())


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_boxes_of_each_sample_that_are_as_many_as_the_samples(kind, batch_size):
    model, boxes = nn.Linear(4, 3), (torch.rand(2, 3), torch.rand(3, 3))

    def score(output, targets):
        return torch.stack([row @ one.sum(0) for row, one in zip(output, targets, strict=True)])

    found = pnpx.Gradient(model, score=score, batch_size=batch_size).attribute(torch.ones(2, 4), kind(boxes))
    torch.testing.assert_close(found, torch.stack([one.sum(0) @ model.weight.detach() for one in boxes]))


@pytest.mark.parametrize("n_samples, batch_size", [(2, 3), (3, 3), (3, 1)])
def test_a_pair_of_classes_is_one_for_all_samples(n_samples, batch_size):
    model = nn.Linear(4, 3)
    explainer = pnpx.Gradient(model, score=lambda output, pair: output[:, pair[0]] - output[:, pair[1]],
                              batch_size=batch_size)
    found = explainer.attribute(torch.ones(n_samples, 4), (0, 1))
    torch.testing.assert_close(found, (model.weight[0] - model.weight[1]).detach().expand(n_samples, 4))


@dataclass(frozen=True)
class Labelled:
    x: object
    labels: object


class LabelledTuple(NamedTuple):
    x: object
    labels: object


CONTAINERS = {
    "named tuple": LabelledTuple,
    "dataclass": Labelled,
    "mapping": lambda x, labels: UserDict(x=x, labels=labels),
    "object": lambda x, labels: SimpleNamespace(x=x, labels=labels),
}


@pytest.mark.parametrize("labels", ["tensor", "list", "tuple"])
@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("role", ["batch", "targets"])
def test_a_users_function_is_given_the_batch_or_the_targets_of_its_samples(role, kind, labels):
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 3).double(), torch.randn(40, 4, dtype=torch.float64)
    classes = [index % 3 for index in range(40)]
    companion = CONTAINERS[kind](x, {"tensor": torch.tensor, "list": list, "tuple": tuple}[labels](classes))

    def score(output, given):
        chosen = given["labels"] if kind == "mapping" else given.labels
        return torch.stack([row[one] for row, one in zip(output, chosen, strict=True)])

    def attribute(**options):
        if role == "targets":
            return pnpx.Gradient(model, score=score, **options).attribute(x, companion)
        extractor = (lambda batch: batch.x) if kind == "object" else "x"
        return pnpx.Gradient(model, forward_arg_extractor=extractor, **options).attribute(companion, score)

    whole = attribute(batch_size=40)
    torch.testing.assert_close(whole, model.weight[classes].detach())
    if kind != "object":
        torch.testing.assert_close(attribute(), whole)
        return
    given = "function as targets is given the batch" if role == "batch" else "callable score is given the targets"
    message = (
        f"a {given} in pieces of at most batch_size samples, but a SimpleNamespace is nothing that can be cut, and its "
        "'x' has something for each of the 40; give a tuple, a mapping or a dataclass, or batch_size=40"
    )
    with raises(TypeError, message):
        attribute()


def test_an_object_that_the_function_does_not_see_need_not_be_cut():
    explainer = pnpx.Gradient(nn.Linear(4, 3), forward_arg_extractor=lambda batch: batch.x)
    assert explainer.attribute(SimpleNamespace(x=torch.ones(40, 4)), 1).shape == (40, 4)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_users_own_batch_stays_as_it_is(batch_size):
    class Batch(MutableMapping):
        def __init__(self, data):
            self._data = data

        def __getitem__(self, key):
            return self._data[key]

        def __setitem__(self, key, value):
            self._data[key] = value

        def __delitem__(self, key):
            del self._data[key]

        def __iter__(self):
            return iter(self._data)

        def __len__(self):
            return len(self._data)

    model, x, y = nn.Linear(4, 3), torch.randn(3, 4), torch.tensor([0, 1, 2])
    for kind in (Batch, MappingProxyType):
        batch = kind({"x": x, "y": y})
        found = pnpx.Gradient(model, forward_arg_extractor="x", batch_size=batch_size).attribute(
            batch, lambda output, batch: output.gather(1, batch["y"][:, None])[:, 0])
        torch.testing.assert_close(found, model.weight.detach())
        assert batch["x"] is x and batch["y"] is y


def test_what_is_predicted_from_nan_is_warned_of():
    model = torch.nn.Linear(4, 3)
    x = torch.ones(3, 4)
    x[1, 2] = torch.nan
    message = (
        "the model's output for 1 of 3 samples is NaN, so that it predicts no class there, and what is explained means "
        "nothing; look at the inputs, or give targets"
    )
    with pytest.warns(RuntimeWarning) as caught:
        pnpx.Gradient(model).attribute(x)
    assert [str(one.message) for one in caught] == [message]
    pnpx.Gradient(model).attribute(x, 1)


@pytest.mark.parametrize("score, targets", [
    *(("segmentation", one) for one in (2, [2], torch.tensor(2), [2] * 6, None, "masks")),
    *((score, one) for score in ("segmentation", "classification") for one in ("shared", "one each", (2, 0, 0))),
], ids=str)
def test_targets_of_images_are_the_same_in_pieces(score, targets):
    """Six images of six classes: weights for all of them, and weights one a sample, have as many entries."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(6, 6, 1))
    images = torch.randn(6, 3, 5, 4)
    if isinstance(targets, str):
        shape = (6, 6, 5, 4) if targets == "one each" else (6, 5, 4)
        targets = torch.rand(shape) > 0.5 if targets == "masks" else torch.rand(shape)
    whole = pnpx.SmoothGrad(model, score=score, n_iter=3).explain(images, targets)
    for size in (1, 4, 5):
        pieces = pnpx.SmoothGrad(model, score=score, n_iter=3, batch_size=size).explain(images, targets)
        torch.testing.assert_close(pieces.attributions, whole.attributions)
        torch.testing.assert_close(pieces.targets, whole.targets)
    if isinstance(targets, torch.Tensor) and targets.is_floating_point() and score == "classification":
        inputs = images.clone().requires_grad_()
        (model(inputs) * targets).sum().backward()
        torch.testing.assert_close(pnpx.Gradient(model, batch_size=4).attribute(images, targets), inputs.grad)


# Errors

BEYOND = "targets must be in the range -2**63 to 2**63 - 1, that of an int64, but got "
WANTED = (
    "targets must be None, an int, ints (batch,) or (batch, n_targets), a tuple of indices where outputs have more "
    "axes, floats of the output's shape as weights, or a callable; "
)

BAD_TARGETS = [
    (5, {}, ValueError, "targets must be in the range 0 to 4, but got 5"),
    (-1, {}, ValueError, "targets must be in the range 0 to 4, but got -1"),
    ([0, 1, 9], {}, ValueError, "targets must be in the range 0 to 4, but got 9"),
    ([[0, 1], [1, 7], [0, 0]], {}, ValueError, "targets must be in the range 0 to 4, but got 7"),
    ([0, 1], {}, ValueError, "targets must be one for all or one a sample, (3,), but got shape (2,)"),
    ([[0, 1]], {}, ValueError,
     "targets of several classes a sample have shape (batch, n_targets) = (3, n_targets), but got (1, 2)"),
    (torch.zeros(3, 0, dtype=torch.int64), {}, ValueError,
     "targets of several classes a sample have shape (batch, n_targets) = (3, n_targets), but got (3, 0)"),
    (torch.zeros(3, 2, 2, dtype=torch.int64), {}, ValueError,
     "targets of classes have shape (batch,) or (batch, n_targets), but got (3, 2, 2)"),
    (torch.ones(3, 5, dtype=torch.bool), {}, TypeError, "targets of classes must be integers, but are torch.bool"),
    (True, {}, TypeError, "targets of classes must be integers, but are torch.bool"),
    (torch.ones(3, dtype=torch.complex64), {}, TypeError,
     "targets of classes must be integers, but are torch.complex64"),
    ((0.5, 1.0), {}, TypeError,
     "a tuple as targets has an int for each axis of the output after the batch, but got float 0.5"),
    ((True,), {}, TypeError,
     "a tuple as targets has an int for each axis of the output after the batch, but got bool True"),
    ((), {}, TypeError, "a tuple as targets has an int for each axis of the output after the batch, but got none"),
    ((1, [0, 1, 2]), {}, TypeError,
     "a tuple as targets has an int for each axis of the output after the batch, but got list [0, 1, 2]"),
    ([(0, 1), (1,), (2, 2)], {}, ValueError,
     "each sample's tuple must have an index for the same axes, but got [(0, 1), (1,), (2, 2)]"),
    ([(0,), 1, (2,)], {}, TypeError, WANTED + "but some of the list are tuples, and some are not: [(0,), 1, (2,)]"),
    ("cat", {}, TypeError, WANTED + "but got a str, 'cat'"),
    (["cat", "dog", "cat"], {}, TypeError,
     WANTED + "but got a list of <U3, ['cat', 'dog', 'cat']; give the numbers of the classes for their names"),
    (np.array(["a", "b", "c"]), {}, TypeError,
     WANTED + "but got a ndarray of <U1, array(['a', 'b', 'c'], dtype='<U1'); give the numbers of the classes for "
     "their names"),
    (np.array([1, None, 2], dtype=object), {}, TypeError,
     WANTED + "but got a ndarray of object, array([1, None, 2], dtype=object)"),
    ([1, None, 2], {}, TypeError, WANTED + "but got a list of object, [1, None, 2]"),
    ({1, 2}, {}, TypeError, WANTED + "but got a set, {1, 2}"),
    ({"a": 1}, {}, TypeError, WANTED + "but got a dict, {'a': 1}"),
    (2**70, {}, ValueError, BEYOND + "1180591620717411303424"),
    (2**63, {}, ValueError, BEYOND + "9223372036854775808"),
    (-(2**63) - 1, {}, ValueError, BEYOND + "-9223372036854775809"),
    (2**63 - 1, {}, ValueError, "targets must be in the range 0 to 4, but got 9223372036854775807"),
    ([[0, 1], [0, 2**70], [0, 0]], {}, ValueError, BEYOND + "1180591620717411303424"),
    ((2**70,), {}, ValueError, BEYOND + "1180591620717411303424"),
    (np.array([0, 2**63, 1], dtype=np.uint64), {}, ValueError, BEYOND + "9223372036854775808"),
    ([[0, 1], [1], [0, 0]], {}, ValueError,
     "a list of targets must hold as many for each sample, but is [[0, 1], [1], [0, 0]]"),
    ([[0], 1, [0]], {}, ValueError, "a list of targets must hold as many for each sample, but is [[0], 1, [0]]"),
    (torch.tensor([1.0, float("nan"), 0, 0, 0]), {}, ValueError,
     "targets that are floats are weights on the output, and must be finite, but some are not"),
    ([float("inf")] * 5, {}, ValueError,
     "targets that are floats are weights on the output, and must be finite, but some are not"),
    (torch.ones(3, 4), {}, ValueError,
     "targets that are floats are weights of the output's shape, (3, 5) or (5,), but got (3, 4); for classes give "
     "integers"),
    (1.0, {}, ValueError,
     "targets that are floats are weights of the output's shape, (3, 5) or (5,), but got (); for classes give "
     "integers"),
    ((1, 2), {}, ValueError,
     "the model's output has shape (3, 5), so a target has 1 indices, but 2 were given; give a tuple of them, such as "
     "(0,)"),
    (1, {"output": MAPS, "batch_size": 2}, ValueError,
     "the model's output has shape (2, 3, 4, 5), so a target has 3 indices, but 1 were given; give a tuple of them, "
     "such as (0, 0, 0)"),
    ((1, 4, 0), {"output": MAPS, "batch_size": 2}, ValueError,
     "targets must be in the range 0 to 3 along axis 2 of the output, but got 4"),
    (3, {"output": MAPS, "batch_size": 2, "score": "segmentation"}, ValueError,
     "targets must be in the range 0 to 2, but got 3"),
    (1, {"output": OUT[:, :1]}, ValueError, "targets must be in the range 0 to 0, but got 1"),
    (None, {"output": MAPS, "batch_size": 2}, ValueError,
     "targets=None needs one predicted class, but a model with output of shape (2, 3, 4, 5) has several outputs a "
     "sample; say which one is explained, such as targets=(0, 0, 0)"),
    (None, {"score": "regression"}, ValueError,
     "targets=None needs one predicted class, but a regression with output of shape (3, 5) has several outputs a "
     "sample; say which one is explained, such as targets=0"),
    (0, {"output": OUT[:2]}, ValueError,
     "the model's output must have a row for each of the 3 samples, but its shape is (2, 5); choose the right tensor "
     "with output_extractor, or bring its batch axis to the front there"),
    (0, {"output": OUT.sum()}, ValueError,
     "the model's output must have a row for each of the 3 samples, but its shape is (); choose the right tensor with "
     "output_extractor, or bring its batch axis to the front there"),
    (0, {"output": OUT.argmax(1)}, TypeError,
     "scores are taken from a tensor of floats, but the model's output is a tensor of torch.int64; see "
     "output_extractor"),
    (0, {"output": {"a": "b"}, "output_extractor": "a"}, TypeError,
     "scores are taken from a tensor of floats, but the model's output is a str; see output_extractor"),
    (0, {"output": {"scores": OUT}, "output_extractor": "score"}, LookupError,
     "the output has no part 'score'; the nearest: 'scores'"),
    (0, {"output_extractor": 1.5}, TypeError, "output_extractor must be an int, a str or a callable, but is 1.5"),
    (0, {"n_classes": 4}, ValueError,
     "n_classes=4 was given, but the model's output has shape (3, 5), with 5 classes"),
    (0, {"output": MAPS, "batch_size": 2, "score": "segmentation", "n_classes": 5}, ValueError,
     "n_classes=5 was given, but the model's output has shape (2, 3, 4, 5), with 3 classes"),
    (0, {"output": OUT[:, :1], "inference_mode": "softmax"}, ValueError,
     "the softmax over a single output is constant, but the output has shape (3, 1); use inference_mode='logits'"),
]


@pytest.mark.parametrize("targets, options, kind, message", BAD_TARGETS, ids=lambda value: str(value)[:40])
def test_errors(targets, options, kind, message):
    with raises(kind, message):
        scored(targets, **options)


@pytest.mark.parametrize("targets", [
    np.ma.masked_array([1, 2, 0], mask=[0, 1, 0]), np.ma.masked_array(np.ones((3, 5)), mask=np.eye(3, 5)),
    [1, np.ma.masked, 0], [np.ma.masked_array([1, 2])] * 3, (np.ma.masked_array(1, mask=True),),
], ids=str)
def test_masked_arrays_are_refused(targets):
    with raises(TypeError, "a masked array is among the targets, but tensors have no masks; fill it first, by "
                           "array.filled(value)"):
        scored(targets)


@pytest.mark.parametrize("targets, message", [
    ([0, 1], "targets must be one for all or one a sample, (4,), but got shape (2,)"),
    (torch.tensor([0, 1]), "targets must be one for all or one a sample, (4,), but got shape (2,)"),
    ([(0,), (1,)], "targets must be one for all or one a sample, (4,), but got shape (2,)"),
    ([[0, 1], [1, 0]],
     "targets of several classes a sample have shape (batch, n_targets) = (4, n_targets), but got (2, 2)"),
    (torch.ones(2, 5), "targets that are floats are weights of the output's shape, (4, 5) or (5,), but got (2, 5); "
                       "for classes give integers"),
])
@pytest.mark.parametrize("batch_size", [2, 4])
def test_targets_of_half_the_batch_are_not_those_of_each_half(targets, message, batch_size):
    with raises(ValueError, message):
        pnpx.Gradient(nn.Linear(3, 5), batch_size=batch_size).attribute(torch.ones(4, 3), targets)


def test_boxes_of_half_the_batch_are_not_those_of_each_half():
    class Detector(nn.Module):
        def forward(self, x):
            return x.reshape(len(x), 1, 7)

    explainer = pnpx.Gradient(Detector(), score="detection", batch_size=2)
    with raises(ValueError, "targets must hold the boxes of each of the 4 samples, but hold 2"):
        explainer.attribute(torch.rand(4, 7), torch.rand(2, 1, 7))


@pytest.mark.parametrize("targets", [
    range(4), [0, 1, 2, 3], np.arange(4), np.arange(4, dtype=">i4"), torch.arange(4, dtype=torch.uint8),
    [torch.tensor(n) for n in range(4)], [np.int16(n) for n in range(4)], [(0,), (1,), (2,), (np.int64(3),)],
    torch.eye(5)[:4].to_sparse(), torch.eye(5)[:4].tolist(), np.eye(5, dtype=">f8")[:4],
    np.eye(5, dtype=np.longdouble)[:4],
], ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}")
@pytest.mark.parametrize("batch_size", [3, 4])
def test_one_target_a_sample_in_every_form(targets, batch_size):
    model = nn.Linear(3, 5)
    found = pnpx.Gradient(model, batch_size=batch_size).attribute(torch.ones(4, 3), targets)
    torch.testing.assert_close(found, model.weight.detach()[:4])


@pytest.mark.parametrize("options, message", [
    ({"score": "clasification"},
     "score must be one of ('classification', 'regression', 'segmentation', 'detection') or a callable, but is "
     "'clasification'"),
    ({"inference_mode": "softmx"},
     "inference_mode must be one of ('logits', 'softmax', 'log_softmax'), but is 'softmx'; the nearest: 'softmax'"),
    ({"n_classes": 0}, "`n_classes >= 1` must hold, but got n_classes=0"),
    ({"n_classes": 2.0}, "`n_classes >= 1` must hold, but got n_classes=2.0"),
    ({"score": "regression", "inference_mode": "softmax"},
     "score='regression' needs inference_mode='logits', but it is 'softmax'"),
    ({"score": "detection", "inference_mode": "softmax"},
     "score='detection' needs inference_mode='logits', but it is 'softmax'"),
])
def test_impossible_objectives(options, message):
    for make in (Objective, lambda **options: pnpx.Gradient(nn.Identity(), **options)):
        with raises(ValueError, message):
            make(**options)


# Through an explainer


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(1)).double()


X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def derivative(function):
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient


@pytest.mark.parametrize("output_layer", ["2", "module"])
@pytest.mark.parametrize("layer", [None, "0:input", "1"])
def test_output_layer_takes_the_logits_before_a_softmax(net, output_layer, layer):
    tap = net[2] if output_layer == "module" else output_layer
    found = pnpx.Gradient(net, layer=layer, output_layer=tap).attribute(X, 1)
    smooth = pnpx.SmoothGrad(net, layer=layer, output_layer=tap, noise_std=0.0, n_iter=3).attribute(X, 1)
    plain = pnpx.Gradient(net, layer=layer).attribute(X, 1)
    if layer == "1":
        expected = net[2].weight[1].expand(5, 6)
    else:
        expected = derivative(lambda x: net[:3](x)[:, 1])
        torch.testing.assert_close(plain, derivative(lambda x: net(x)[:, 1]))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(smooth, expected)
    assert (found - plain).abs().max() > 0.01, "it must matter"


def test_output_layer_decides_the_prediction(net):
    class Flipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net[:3]

        def forward(self, x):
            return -self.body(x)

    explanation = pnpx.Gradient(Flipped(), output_layer="body").explain(X)
    assert torch.equal(explanation.targets, net[:3](X).argmax(1))


def test_output_layer_of_an_inner_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4).double()

        def forward(self, x):
            return self.fc(self.fc(x).tanh())

    model = Twice()
    found = pnpx.Gradient(model, output_layer="fc#1").attribute(X, 0)
    torch.testing.assert_close(found, model.fc.weight[0].expand(5, 4))
    with raises(ValueError, "'fc' runs 2 times in a forward pass, which makes it ambiguous as a layer; choose the "
                            "call: 'fc#1' to 'fc#2'"):
        pnpx.Gradient(model, output_layer="fc").attribute(X, 0)
    with raises(ValueError, "output_layer must be the output of a module, but is 'fc:input'"):
        pnpx.Gradient(model, output_layer="fc:input").attribute(X, 0)
    with raises(RuntimeError, "the layer 'fc#3' was not reached: it runs 2 times; choose one that the forward pass "
                              "uses"):
        pnpx.Gradient(model, output_layer="fc#3").attribute(X, 0)


@pytest.mark.parametrize("mode", ["softmax", "log_softmax"])
def test_inference_mode_through_an_explainer(net, mode):
    logits = net[:3]
    found = pnpx.Gradient(logits, inference_mode=mode).attribute(X, 2)
    torch.testing.assert_close(found, derivative(lambda x: getattr(logits(x), mode)(1)[:, 2]))


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.VarGrad, pnpx.IntegratedGradients])
@pytest.mark.parametrize("layer, batch_size", [(None, 2), ("0", 32)])
def test_a_target_axis_is_one_target_at_a_time(net, kind, layer, batch_size):
    targets = torch.tensor([[0, 1, 2], [1, 1, 0], [2, 0, 1], [0, 0, 0], [2, 2, 1]])
    steps = {pnpx.Gradient: {}, pnpx.IntegratedGradients: {"n_steps": 4}}.get(kind, {"n_iter": 4})
    explainer = kind(net, layer=layer, batch_size=batch_size, **steps)
    found = explainer.attribute(X, targets)
    assert found.shape == (5, 3, 6 if layer else 4)
    for column in range(3):
        torch.testing.assert_close(found[:, column], explainer.attribute(X, targets[:, column]))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
def test_targets_are_cut_with_the_batch(net, batch_size):
    """A batch that takes several pieces gives each sample its own target, in every form of target."""
    columns = torch.tensor([0, 2, 1, 1, 0])
    expected = derivative(lambda x: net(x).gather(1, columns[:, None]))
    y = torch.arange(5)
    explainer = pnpx.Gradient(net, batch_size=batch_size)
    forms = {
        "ints": columns, "array": columns.numpy(), "list": columns.tolist(), "tuples": [(c,) for c in columns.tolist()],
        "one-hot": torch.eye(3)[columns],
        "callable": lambda output, batch: output.gather(1, columns[batch[1], None])[:, 0],
    }
    for name, targets in forms.items():
        batch = (X, y) if name == "callable" else X
        this = pnpx.Gradient(net, batch_size=batch_size, forward_arg_extractor=0) if name == "callable" else explainer
        torch.testing.assert_close(this.attribute(batch, targets), expected, msg=lambda m, name=name: f"{name}: {m}")
    custom = pnpx.Gradient(net, batch_size=batch_size,
                           score=lambda output, targets: output.gather(1, targets[0][:, None])[:, 0] * targets[1])
    torch.testing.assert_close(custom.attribute(X, (columns, torch.ones(5))), expected)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_callable_target_finds_arrays_cut_as_well(net, batch_size):
    columns = np.array([0, 2, 1, 1, 0])

    def chosen(output, batch):
        return output.gather(1, torch.from_numpy(batch["y"])[:, None])[:, 0]

    found = pnpx.Gradient(net, forward_arg_extractor="x", batch_size=batch_size).attribute(
        {"x": X.numpy(), "y": columns}, chosen)
    torch.testing.assert_close(found, derivative(lambda x: net(x).gather(1, torch.from_numpy(columns)[:, None])))


def test_the_largest_batch_has_weights_for_all():
    """Weights (classes,) with as many classes as samples are not cut as if they were one a sample."""
    model = nn.Linear(4, 5).double()
    weights = torch.tensor([1.0, -1.0, 0.0, 2.0, 0.0])
    for given in (weights, weights.numpy(), weights.tolist()):
        found = pnpx.Gradient(model, batch_size=2).attribute(X, given)
        torch.testing.assert_close(found, (weights.double() @ model.weight).expand(5, 4))


def test_weights_work_in_bfloat16():
    model = nn.Linear(4, 2).bfloat16()
    found = pnpx.Gradient(model).attribute(X.bfloat16(), torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(found, (model.weight[0] - model.weight[1]).float().expand(5, 4), rtol=0.02, atol=0.01)
