"""Recording and replaying, on their own: counts of calls, places, what is kept, what is left out."""

import pytest
import torch
from torch import nn

from pnpx.attributors.arguments import Arguments
from pnpx.attributors.intercept import intercepting, wrapped
from pnpx.attributors.passes import enclosing, repeat
from pnpx.attributors.places import resolve
from pnpx.attributors.recording import Reached, Recording
from pnpx.attributors.replay import Diverged, Replay


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 3)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.relu(self.body(x)) + x
        return self.head(self.relu(x))


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def record(model, *layers, **options):
    places = [resolve(model, layer) for layer in layers]
    recording = Recording(enclosing(model, places), places, [lambda value: value] * len(places), **options)
    with wrapped(model.modules()) as modules, torch.no_grad(), intercepting(recording, modules):
        output = model(X)
    return recording, output


def replay(model, recording, edited, repeats=1, axes="all"):
    if axes == "all":
        axes = [[0] if event.finished else [] for event in recording.prefix]
    ran = []
    handles = [module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in
               model.named_modules() if name]
    passing = Replay(recording, edited, repeats, axes)
    with wrapped(model.modules()) as modules, torch.no_grad(), intercepting(passing, modules):
        output = model(X.repeat(repeats, 1))
    for handle in handles:
        handle.remove()
    return output, passing


def names(model, recording):
    found = {id(module): name for name, module in model.named_modules()}
    return [(found[id(event.module)], event.finished) for event in recording.prefix]


@pytest.mark.parametrize("layer, prefix", [
    ("stem", [("", False)]),
    ("relu#1", [("", False), ("stem", True)]),
    ("body", [("", False), ("stem", True), ("relu", True)]),
    ("body.2", [("", False), ("stem", True), ("relu", True), ("body", False), ("body.0", True), ("body.1", True)]),
    ("body.1:input", [("", False), ("stem", True), ("relu", True), ("body", False), ("body.0", True)]),
    ("relu#2", [("", False), ("stem", True), ("relu", True), ("body", True)]),
    ("head", [("", False), ("stem", True), ("relu", True), ("body", True), ("relu", True), ("relu", True)]),
    (":input", []),
])
def test_the_largest_finished_modules_before_a_place(model, layer, prefix):
    recording, _ = record(model, layer)
    assert names(model, recording) == prefix


def test_outputs_are_those_of_the_modules_and_copies_of_them(model):
    recording, _ = record(model, "head")
    stem, relu = (event.output for event in recording.prefix[1:3])
    torch.testing.assert_close(stem, model.stem(X).detach())
    torch.testing.assert_close(relu, model.stem(X).detach().relu())
    assert stem.data_ptr() != relu.data_ptr()


def test_an_in_place_follower_does_not_change_the_record_of_copies(model):
    model.relu = nn.ReLU(inplace=True)
    recording, _ = record(model, "head", copied=True)
    torch.testing.assert_close(recording.prefix[1].output, model.stem(X).detach())  # and not its relu
    assert not any(event.changed() for event in recording.prefix)


def test_what_an_in_place_follower_changes_is_known(model):
    model.relu = nn.ReLU(inplace=True)
    recording, _ = record(model, "head")
    assert [event.changed() for event in recording.prefix] == [set(), {0}, set(), {0}, set(), set()]


def test_values_at_places(model):
    recording, _ = record(model, "body.0:input", "relu#2", "head:input")
    first = model.stem(X).relu()
    second = model.body(first).relu()
    for number, expected in enumerate([first, second, (second + first).relu()]):
        torch.testing.assert_close(recording.values[number], expected.detach())


def test_nothing_is_kept_on_request(model):
    assert record(model, "head", keep=False)[0].prefix is None


def test_stopping_after_the_last_place(model):
    ran = []
    model.head.register_forward_hook(lambda *_: ran.append("head"))
    for layers in (["body.1"], ["body.1", "relu#2"], ["relu#2", "body.1"]):
        places = [resolve(model, layer) for layer in layers]
        recording = Recording(enclosing(model, places), places, [lambda value: value] * len(places), stop=True)
        with wrapped(model.modules()) as modules, intercepting(recording, modules), pytest.raises(Reached):
            model(X)
        assert sorted(recording.values) == list(range(len(layers)))
    assert ran == []


def test_no_except_clause_of_a_model_stops_the_end_of_a_pass():
    assert not issubclass(Reached, Exception)


@pytest.mark.parametrize("layer", ["stem", "relu#1", "body", "body.0", "body.2:input", "relu#2", "relu#3", "head:input",
                                   "head", ":output", ":input"])
def test_a_replay_at_the_recorded_values_gives_the_recorded_output(model, layer):
    recording, output = record(model, layer)
    again, _ = replay(model, recording, [recording.values[0]])
    assert torch.equal(again, output)
    again, _ = replay(model, recording, [recording.values[0]], axes=None)
    assert torch.equal(again, output)


@pytest.mark.parametrize("layer", ["relu#1", "body.0", "body.2:input", "relu#2", "relu#3", "head:input"])
def test_a_replay_with_other_values_is_the_model_with_other_values(model, layer):
    recording, _ = record(model, layer)
    other = torch.cat([recording.values[0] + 1, recording.values[0] - 1])
    fast, _ = replay(model, recording, [other], repeats=2)
    slow, _ = replay(model, recording, [other], repeats=2, axes=None)
    assert torch.equal(fast, slow) and not torch.equal(fast[:2], fast[2:])


def test_a_replay_may_be_repeated_and_edits_stay_with_it(model):
    recording, output = record(model, "relu#2")
    for shift in (3.0, -2.0, 0.0):
        again, _ = replay(model, recording, [recording.values[0] + shift])
        first = model.stem(X).relu()
        expected = model.head(((model.body(first).relu() + shift) + first).relu())
        torch.testing.assert_close(again, expected.detach())
    assert torch.equal(again, output)


def test_the_place_itself_does_not_run_in_a_replay(model):
    recording, _ = record(model, "body.1")
    ran = []
    for name in ("stem", "body.0", "body.1", "body.2", "head"):
        original = model.get_submodule(name).forward
        model.get_submodule(name).forward = (
            lambda *args, name=name, original=original, **kw: ran.append(name) or original(*args, **kw))
    replay(model, recording, [recording.values[0]])
    assert ran == ["body.2", "head"]
    ran.clear()
    replay(model, recording, [recording.values[0]], axes=None)
    assert ran == ["stem", "body.0", "body.1", "body.2", "head"]


def test_a_replay_that_meets_other_modules_says_so(model):
    recording, _ = record(model, "head")
    model.forward = lambda x: model.head(model.relu(x))
    with pytest.raises(Diverged, match=r"^met ReLU where Linear ran before$"):
        replay(model, recording, [recording.values[0]])


def test_counts_go_on_after_a_skipped_place(model):
    """relu#3 is found although a replay leaves out the first two calls, and what runs inside the place."""
    recording, _ = record(model, "body", "relu#3")
    assert torch.equal(replay(model, recording, [recording.values[0], torch.zeros(2, 3)])[0],
                       model.head.bias.detach().expand(2, 2))


def test_calls_inside_a_skipped_place_count(model):
    model.body.append(model.relu)  # now the calls of relu are 1, 2 inside body, 3 and 4
    recording, _ = record(model, "body", tap=resolve(model, "relu#3"))
    _, passing = replay(model, recording, [recording.values[0]])
    torch.testing.assert_close(passing.tapped, recording.tapped)
    assert torch.equal(passing.tapped, recording.values[0].relu())


def test_the_tapped_output(model):
    recording, _ = record(model, "stem", tap=resolve(model, "body"))
    torch.testing.assert_close(recording.tapped, model.body(model.stem(X).relu()).detach())
    _, passing = replay(model, recording, [torch.zeros(2, 3)])
    torch.testing.assert_close(passing.tapped, model.body(torch.zeros(2, 3)).detach())


@pytest.mark.parametrize("axis, expected", [(0, (6, 2)), (1, (2, 6)), (None, (2, 2))])
def test_repeat_makes_copies(axis, expected):
    tensor = torch.arange(4.0).reshape(2, 2)
    found = repeat(tensor, 3, axis)
    assert found.shape == expected and found.data_ptr() != tensor.data_ptr()
    if axis is not None:
        assert torch.equal(found.narrow(axis, 2, 2), tensor)
    assert repeat(tensor, 1, axis).data_ptr() != tensor.data_ptr()


def run(x, attn_mask=None, *, bias=None, n=1):
    return x


@pytest.mark.parametrize("args, kwargs, value", [
    ((1.0,), {}, 1.0), ((1.0, 2.0), {}, 1.0), ((1.0,), {"bias": 3.0}, {"x": 1.0, "bias": 3.0}),
    ((1.0,), {"attn_mask": 2.0}, 1.0), ((), {"x": 1.0, "n": None}, 1.0), (([1.0, 2.0],), {}, [1.0, 2.0]),
], ids=str)
def test_arguments_that_are_explained(args, kwargs, value):
    def tensor(part):
        if isinstance(part, list):
            return [tensor(item) for item in part]
        if isinstance(part, dict):
            return {key: tensor(item) for key, item in part.items()}
        return torch.tensor(part) if isinstance(part, float) else part

    args, kwargs = tuple(map(tensor, args)), tensor(kwargs)
    arguments = Arguments(run, args, kwargs)
    assert str(arguments.value) == str(tensor(value))
    again = arguments.put(arguments.value)
    assert str(again) == str((args, kwargs))


def test_several_positional_arguments_are_a_tuple_and_the_one_asked_for_is_put():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    arguments = Arguments(lambda query, key, n: query, (one, two, 3), {})
    assert arguments.value == (one, two)
    args, kwargs = arguments.put((two, one))
    assert args[0] is two and args[1] is one and args[2] == 3 and kwargs == {}
