"""What modules keep in plain attributes and buffers between calls is for each pass what was found, and at the end."""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors import copied, lasting
from pnpx.attributors.attributes import explaining
from pnpx.attributors.found import Found


class Remembers(nn.Module):
    """A recurrent net that goes on from where the last call ended: its state is a plain attribute, or a buffer."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)
        if kind == "buffer":
            self.register_buffer("state", None)
        elif kind == "attribute":
            self.state = None
        self.calls = 0

    def forward(self, x):
        state = getattr(self, "state", None)
        outputs, state = self.cell(x, state if state is None else state[0])
        self.calls += 1
        self.state = state[None]
        return self.head(outputs[:, -1])


@pytest.mark.parametrize("explainer", [pnpx.SquareGrad, pnpx.VarGrad])
@pytest.mark.parametrize("layer", [None, "cell", "head:input"])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", ["attribute", "buffer", "made by the first call"])
def test_what_a_model_keeps_between_calls_is_for_each_pass_what_was_found(kind, used, layer, explainer):
    torch.manual_seed(0)
    model, x = Remembers(kind).double(), torch.randn(3, 5, 4, dtype=torch.float64)
    if used:
        model(x)
    before = getattr(model, "state", "none")
    sizes = (3, 7, 32) if used else (1, 2, 3, 7, 32)  # a state from before is of three samples
    results = [explainer(model, layer=layer, n_iter=4, batch_size=size).attribute(x, 1) for size in sizes]
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])
    assert getattr(model, "state", "none") is before and model.calls == used
    if layer is None:
        state = before[0] if used else None
        calm = explainer(model, noise_std=0.0, n_iter=2).attribute(x, 1)
        inputs = x.clone().requires_grad_()
        model.head(model.cell(inputs, state)[0][:, -1])[:, 1].sum().backward()
        torch.testing.assert_close(calm, inputs.grad.square() if explainer is pnpx.SquareGrad else 0 * inputs.grad)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_piece_of_a_batch_starts_from_what_was_found(size):
    torch.manual_seed(0)
    model, x = Remembers("attribute").double(), torch.randn(5, 4, 4, dtype=torch.float64)
    inputs = x.clone().requires_grad_()
    expected = model.head(model.cell(inputs)[0][:, -1])
    expected[:, 1].sum().backward()
    found = pnpx.Gradient(model, batch_size=size).explain(x, 1)
    torch.testing.assert_close(found.attributions, inputs.grad.float(), check_dtype=False)
    torch.testing.assert_close(found.output, expected.detach(), check_dtype=False)
    # Explained one after the other, as one is computed from the other.
    apart = [pnpx.SmoothGrad(model, layer=layer, n_iter=3).attribute(x, 1) for layer in ("cell:input", "head:input")]
    both = pnpx.SmoothGrad(model, layer=["cell:input", "head:input"], n_iter=3, batch_size=size).attribute(x, 1)
    torch.testing.assert_close(both, tuple(apart))
    for layer in (None, "cell:input"):
        wrapped = pnpx.SmoothGrad(nn.DataParallel(model), layer=layer, n_iter=3, batch_size=size).attribute(x, 1)
        torch.testing.assert_close(wrapped, apart[0])
    assert model.state is None and model.calls == 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory", ["replaced", "attribute in place", "buffer in place"])
def test_threads_each_start_from_what_was_found(memory, threads):
    class Drifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.steps, kept = 0, torch.ones(6, dtype=torch.float64)
            if memory == "buffer in place":
                self.register_buffer("kept", kept)
            else:
                self.kept = kept

        def forward(self, x):
            self.steps += 1
            hidden = torch.tanh(self.linear(x) + self.steps)
            if memory == "replaced":
                self.kept = self.kept * 0.5
            else:
                self.kept.mul_(0.5)
            return self.head(hidden * self.kept)  # autograd keeps it until the backward pass

    torch.manual_seed(0)
    model, x = Drifts().double(), torch.randn(4, 4, dtype=torch.float64)
    inputs, alone = x.clone().requires_grad_(), copy.deepcopy(model)
    alone(inputs)[:, 1].sum().backward()
    kept, held = id(model.kept), model.state_dict(keep_vars=True)  # not a name by which the model reads its memory

    def explain(layer):
        return [
            pnpx.Gradient(model, layer=layer, batch_size=3).attribute(x, 1),
            pnpx.SmoothGrad(model, layer=layer, noise_std=0.0, n_iter=7, batch_size=4).attribute(x, 1),
        ]

    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(explain, layer) for layer in (None, "linear:input", "x") * threads]:
            for found in job.result():
                torch.testing.assert_close(found, inputs.grad.float(), check_dtype=False)
    assert id(model.kept) == kept and model.kept.tolist() == [1.0] * 6 and model.steps == 0
    assert ("kept" in held) is (memory == "buffer in place")


@pytest.mark.parametrize("shared", ["tied", "a view", "in a list", "by position"])
def test_a_memory_with_two_names_is_one_for_each_pass(shared):
    class Writes(nn.Module):
        """Writes to its memory in place, at a position that it counts, and reads it where a part has it."""

        def __init__(self):
            super().__init__()
            memory = torch.zeros(40, dtype=torch.float64)
            self.position, self.head = 0, nn.Linear(4, 3)
            self.reads, self.held = nn.Module(), [memory] if shared == "in a list" else []
            if shared != "by position":
                self.register_buffer("memory", memory)
            if shared != "in a list":
                self.reads.register_buffer("memory", memory[:] if shared == "a view" else memory)

        def forward(self, x):
            read = self.held[0] if shared == "in a list" else self.reads.memory
            with torch.no_grad():
                (read if shared == "by position" else self.memory)[self.position] = x.detach().square().mean()
            y = x * read[: self.position + 1].sum()
            self.position += shared == "by position"
            return self.head(y)

    torch.manual_seed(0)
    model, x = Writes().double(), torch.randn(3, 4, dtype=torch.float64)
    expected = model.head.weight[1] * x.square().mean(1, keepdim=True)
    found = pnpx.Gradient(model, batch_size=1).attribute(x, 1)
    torch.testing.assert_close(found, expected.detach().float(), check_dtype=False)
    calm = pnpx.SmoothGrad(model, noise_std=0.0, n_iter=4, batch_size=1).attribute(x, 1)
    torch.testing.assert_close(calm, expected.detach().float(), check_dtype=False)
    assert all(memory.tolist() == [0.0] * 40 for memory in model.buffers()) and model.position == 0


def test_what_is_found_is_whole_while_other_threads_wrap_modules():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(30)))
    done = threading.Event()

    def wrap():
        while not done.is_set():
            for module in model:
                module.__dict__["forward"] = module.forward
            for module in model:
                del module.__dict__["forward"]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=wrap)
    other.start()
    try:
        for _ in range(100):
            found = Found(model)
            for home, before in zip(found._homes, found._before, strict=True):
                assert all(home[name] is value for name, value in before.items() if name != "forward")
            assert found.look() == ([], [])
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(interval)


def test_two_models_with_parts_in_common_are_explained_by_threads():
    backbone = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
    for number, layer in enumerate(backbone):
        layer.table = torch.full((2,), float(number))
    models = [nn.Sequential(backbone, nn.Linear(4, 2)) for _ in range(2)]
    before = [dict(module.__dict__) for model in models for module in model.modules()]

    def explain(model):
        for _ in range(40):
            pnpx.Gradient(model, layer="0.3").attribute(torch.ones(2, 4), 0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for job in [pool.submit(explain, model) for model in models * 2]:
                job.result()
    finally:
        sys.setswitchinterval(interval)
    after = [module.__dict__ for model in models for module in model.modules()]
    for one, other in zip(after, before, strict=True):
        assert one.keys() == other.keys() and all(one[name] is other[name] for name in one)


class Streams(nn.Module):
    """Goes on where the last call ended: its memory is changed in place, or grows beside a counter of steps."""

    def __init__(self, in_place):
        super().__init__()
        self.linear, self.in_place = nn.Linear(4, 3), in_place
        self.step, self.memory = 1, torch.ones(4, dtype=torch.float64) if in_place else None

    def forward(self, x):
        if self.in_place:
            self.memory.mul_(0.5).add_(x.detach().mean(0))
        else:
            now = x.detach().mean(0, keepdim=True) * self.step
            self.memory = now if self.memory is None else torch.cat([self.memory, now])
            self.step += 1
        return self.linear(x * self.memory.sum(0)) ** 2


@pytest.mark.parametrize("in_place", [False, True])
def test_memories_changed_in_place_or_with_a_counter_are_what_was_found(in_place):
    torch.manual_seed(0)
    model, x = Streams(in_place).double(), torch.randn(3, 4, dtype=torch.float64)
    fresh = copy.deepcopy(model)
    inputs = x.clone().requires_grad_()
    fresh(inputs)[:, 1].sum().backward()
    memory = model.memory
    for _ in range(2):
        torch.testing.assert_close(pnpx.Gradient(model).attribute(x, 1), inputs.grad)
        torch.testing.assert_close(pnpx.SmoothGrad(model, noise_std=0.0, n_iter=5).attribute(x, 1), inputs.grad)
    assert model.memory is memory and model.step == 1
    assert not in_place or torch.equal(memory, torch.ones(4, dtype=torch.float64))


def test_a_table_made_by_the_first_call_is_not_taken_from_other_threads():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.table = nn.ModuleList(nn.Linear(4, 4) for _ in range(4)), None

        def forward(self, x):
            if self.table is None:
                self.table = torch.linspace(0, 1, 4)
            for layer in self.layers:
                x = torch.tanh(layer(x)) + self.table[None]
            return x

    torch.manual_seed(0)
    x = torch.randn(2, 4)
    for _ in range(4):
        model = Table()
        expected = pnpx.SmoothGrad(model, n_iter=20, batch_size=2).attribute(x, 1)
        assert model.table is None
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(pnpx.SmoothGrad(model, n_iter=20, batch_size=2).attribute, x, 1) for _ in range(8)]
            for job in jobs:
                torch.testing.assert_close(job.result(), expected)
        assert model.table is None


def test_what_a_model_keeps_is_put_back_after_an_exception():
    class Fails(nn.Module):
        def forward(self, x):
            self.seen = x
            raise KeyError("half-way")

    model = Fails()
    with pytest.raises(KeyError):
        pnpx.Gradient(model).attribute(torch.ones(2, 2), 0)
    assert "seen" not in model.__dict__


def gradient_alone(model, x):
    """What autograd gives for a copy of ``model`` that nothing else has run."""
    inputs = x.clone().requires_grad_()
    copy.deepcopy(model)(inputs)[:, 1].sum().backward()
    return inputs.grad


def calm(model, x, n_iter=5, **options):
    """SmoothGrad without noise, which must be the gradient, in passes of one copy."""
    return pnpx.SmoothGrad(model, noise_std=0.0, n_iter=n_iter, batch_size=len(x), **options).attribute(x, 1)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.state = nn.Linear(4, 4), None

    def forward(self, x):
        self.state = torch.tanh(self.linear(x)) if self.state is None else torch.tanh(self.linear(x) + self.state)
        return self.state


class Around(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


@pytest.mark.parametrize("kind", ["two heads", "a wrapper"])
def test_threads_explain_models_that_share_a_part_which_keeps_a_state(kind):
    torch.manual_seed(0)
    backbone, x = Backbone(), torch.randn(3, 4, dtype=torch.float64)
    first = nn.Sequential(backbone, nn.Linear(4, 2)).double()
    second = Around(first) if kind == "a wrapper" else nn.Sequential(backbone, nn.Linear(4, 2)).double()
    expected = [gradient_alone(model, x) for model in (first, second)]

    def explain(model):
        return [calm(model, x, n_iter=4) for _ in range(10)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(explain, model) for model in (first, second) * 2]
            for job, gradient in zip(jobs, expected * 2, strict=True):
                for found in job.result():
                    torch.testing.assert_close(found, gradient)
    finally:
        sys.setswitchinterval(interval)
    assert backbone.state is None


@pytest.mark.parametrize("in_place", [False, True])
def test_a_second_model_with_the_same_part_starts_from_what_was_found(in_place):
    torch.manual_seed(0)
    part, x = Streams(in_place).double(), torch.randn(3, 4, dtype=torch.float64)
    first, second = nn.Sequential(part, nn.Linear(3, 2)).double(), nn.Sequential(part, nn.Linear(3, 2)).double()
    expected, memory = [gradient_alone(model, x) for model in (first, second)], part.memory
    with explaining(first):
        torch.testing.assert_close(calm(first, x), expected[0])
        with explaining(second):
            torch.testing.assert_close(calm(second, x), expected[1])
        torch.testing.assert_close(calm(first, x), expected[0])
    with explaining(first), explaining(second):
        torch.testing.assert_close(calm(second, x), expected[1])
        torch.testing.assert_close(calm(first, x), expected[0])
    assert part.memory is memory and part.step == 1
    assert not in_place or memory.tolist() == [1.0] * 4


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layer", [None, "linear"])
@pytest.mark.parametrize("kind", ["buffer", "attribute"])
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_tensors(layout, kind, layer):
    class Convolves(nn.Module):
        """A graph convolution of the nodes (batch, nodes, features)."""

        def __init__(self):
            super().__init__()
            edges = torch.eye(5, dtype=torch.float64).roll(1, 0)
            edges = edges.to_sparse() if layout == "coo" else edges.to_sparse_csr()
            self.linear = nn.Linear(3, 2)
            if kind == "buffer":
                self.register_buffer("edges", edges)
            else:
                self.edges = edges

        def forward(self, x):
            return torch.stack([self.edges @ one for one in self.linear(x)]).square().mean(1)

    torch.manual_seed(0)
    model, x = Convolves().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    edges = model.edges
    if layer is None:
        inputs = x.clone().requires_grad_()
        model(inputs)[:, 1].sum().backward()
        torch.testing.assert_close(pnpx.Gradient(model).attribute(x, 1), inputs.grad)
        torch.testing.assert_close(calm(model, x), inputs.grad)
    else:
        hidden = model.linear(x).detach().requires_grad_()
        torch.stack([edges.to_dense() @ one for one in hidden]).square().mean(1)[:, 1].sum().backward()
        torch.testing.assert_close(calm(model, x, layer="linear"), hidden.grad)
    assert model.edges is edges


class Smooths(nn.Module):
    """Keeps a running mean in place, and multiplies by it."""

    def __init__(self, detached=True):
        super().__init__()
        self.embedding, self.head, self.detached = nn.Linear(4, 4), nn.Linear(4, 3), detached
        self.register_buffer("mean", torch.ones(4))

    def forward(self, x):
        hidden = self.embedding(x)
        now = hidden.mean((0, 1))
        self.mean.mul_(0.9).add_(now.detach() if self.detached else now)
        return self.head(hidden * self.mean).mean(1) ** 2


@pytest.mark.parametrize("batch", [1, 3])
def test_who_holds_the_state_of_a_model_changes_nothing(batch):
    torch.manual_seed(0)
    model, x = Smooths().double(), torch.randn(batch, 1, 4, dtype=torch.float64)
    for layer in (None, "embedding"):
        alone = pnpx.Gradient(model, layer=layer).attribute(x, 1)
        held = model.state_dict()
        torch.testing.assert_close(pnpx.Gradient(model, layer=layer).attribute(x, 1), alone)
        assert held["mean"].tolist() == [1.0] * 4
    torch.testing.assert_close(pnpx.Gradient(model).attribute(x, 1), gradient_alone(model, x))


@pytest.mark.parametrize("shared", [False, True])
def test_a_memory_does_not_stay_in_the_graph_of_a_pass(shared):
    torch.manual_seed(0)
    model, x = Smooths(detached=False).double(), torch.randn(2, 1, 4, dtype=torch.float64)
    if shared:
        model.names = [model.mean]
    expected, memory = gradient_alone(model, x), model.mean
    torch.testing.assert_close(calm(model, x), expected)
    assert model.mean is memory and memory.grad_fn is None and not memory.requires_grad
    assert memory.tolist() == [1.0] * 4
    torch.testing.assert_close(gradient_alone(model, x), expected)


def test_what_is_computed_anew_from_time_to_time():
    class Frames(nn.Module):
        """Computes its features for every fourth frame alone."""

        def __init__(self):
            super().__init__()
            self.slow, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
            self.frame, self.features, self.tracing = 0, None, False

        def forward(self, x):
            if self.frame % 4 == 0:
                self.features = torch.tanh(self.slow(x))
            self.frame += 1
            self.tracing = True
            return self.head(x * self.features) ** 2

    torch.manual_seed(0)
    model, x = Frames().double(), torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        model(x)
    model.tracing = False
    for n_iter in (1, 2, 4, 9):
        torch.testing.assert_close(calm(model, x, n_iter), gradient_alone(model, x))
        assert model.frame == 1


def test_parts_that_the_first_call_makes_stay():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.head, self.scale = nn.Linear(4, 6).double(), None, None

        def forward(self, x):
            hidden = torch.tanh(self.linear(x))
            if self.head is None:
                self.head = nn.Linear(hidden.shape[1], 3).to(hidden)
                self.scale = nn.Parameter(torch.full((3,), 2.0).to(hidden))
            self.features = hidden.detach()
            return self.head(hidden) * self.scale

    torch.manual_seed(0)
    model, x = Late(), torch.randn(3, 4, dtype=torch.float64)
    found = calm(model, x)
    head = model.head
    torch.testing.assert_close(found, gradient_alone(model, x))
    torch.testing.assert_close(calm(model, x), found)
    assert model.head is head and "features" not in model.__dict__
    assert {"head", "scale"} <= {name.partition(".")[0] for name in model.state_dict()}


def test_hooks_that_the_first_call_sets_are_set_once():
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            if not getattr(self, "hooked", False):
                self.linear.register_forward_hook(lambda module, args, output: None)
                self.hooked = True
            self.last = self.linear(x)
            return self.last

    model = Watched()
    for _ in range(2):
        calm(model, torch.randn(2, 4))
    assert len(model.linear._forward_hooks) == 1 and model.hooked and "last" not in model.__dict__


@pytest.mark.parametrize("kind", ["buffer", "attribute"])
def test_a_memory_that_grows_in_place(kind):
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, memory = nn.Linear(4, 3), torch.ones(1, 4)
            if kind == "buffer":
                self.register_buffer("memory", memory)
            else:
                self.memory = memory

        def forward(self, x):
            count = len(self.memory)
            self.memory.resize_(count + len(x), 4)
            self.memory[count:] = x.detach()
            return self.linear(x * self.memory.sum(0))

    torch.manual_seed(0)
    model, x = Grows(), torch.randn(2, 4)
    torch.testing.assert_close(calm(model, x), gradient_alone(model, x))
    assert model.memory.tolist() == [[1.0] * 4]


@pytest.mark.parametrize("kind", ["buffer", "attribute"])
def test_a_memory_too_large_to_be_copied_is_warned_of(kind, monkeypatch):
    for module in (copied, lasting):
        monkeypatch.setattr(module, "LARGEST", 2**20)

    class Queue(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, queue = nn.Linear(4, 3), torch.zeros(2**18, 2)
            self.table = torch.zeros(2**18, 2)
            if kind == "buffer":
                self.register_buffer("queue", queue)
            else:
                self.queue = queue

        def forward(self, x):
            self.queue[: len(x)] = x.detach()[:, :2]
            return self.linear(x)

    message = (
        "the model changes 'queue' in place, which takes over 1 MiB, and so is not put back: the attributions may "
        "depend on how many passes there were, and it stays changed; turn that off in the model, or explain a copy of "
        "it"
    )
    model, x = Queue(), torch.ones(2, 4)
    with pytest.warns(RuntimeWarning) as caught:
        pnpx.Gradient(model).attribute(x, 1)
    assert [str(one.message) for one in caught] == [message]
    assert model.queue.sum() == 4 and not model.table.any()
