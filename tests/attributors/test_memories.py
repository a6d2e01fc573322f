"""Each pass finds what was found first, whatever a model keeps, by whatever names, and whatever it sets beside that."""

import contextlib
import copy
import dataclasses
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors.attributes import explaining
from pnpx.attributors.guard import left_as_found

X = torch.linspace(-1.0, 2.0, 12).reshape(3, 4)


def calm(model, layer=None, copies=1):
    """SmoothGrad without noise, in passes of so many copies, which must be the gradient."""
    return pnpx.SmoothGrad(model, layer=layer, noise_std=0.0, n_iter=5, batch_size=copies * len(X)).attribute(X, 1)


def gradient(function):
    """What autograd gives for the sum of column 1 of what ``function`` gives."""
    inputs = X.clone().requires_grad_()
    return torch.autograd.grad(function(inputs)[:, 1].sum(), inputs)[0]


def check(model, expected):
    """That all explanations are as ``expected``, which is a gradient."""
    for layer in (None, "x"):
        torch.testing.assert_close(pnpx.Gradient(model, layer=layer).attribute(X, 1), expected)
        for copies in (1, 4):
            torch.testing.assert_close(calm(model, layer, copies), expected)


def square(model, x):
    return model.head(x) ** 2


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)


@dataclasses.dataclass(slots=True)
class Holder:
    bank: torch.Tensor


# By other names


@pytest.mark.parametrize("by", ["slots", "closure", "partial", "a pre-hook", "class", "unregistered", "deep"])
def test_a_memory_is_written_by_another_name(by):
    class Writes(Head):
        def __init__(self):
            super().__init__()
            bank = torch.ones(4)
            self.register_buffer("bank", bank)
            self.held = {"slots": Holder(bank), "deep": {1: {2: {3: {4: bank}}}}}.get(by)
            if by == "closure":
                self.held = lambda: bank
            elif by == "partial":
                self.held = partial(torch.Tensor.mul_, bank)
            elif by == "class":
                type(self).own = bank
            elif by == "unregistered":
                self.held = [nn.Module()]
                self.held[0].bank = bank
            elif by == "a pre-hook":
                holder = Holder(bank)
                self.register_forward_pre_hook(lambda module, args: (holder.bank.mul_(0.5), None)[1])

        def forward(self, x):
            ways = {
                "slots": lambda: self.held.bank.mul_(0.5), "closure": lambda: self.held().mul_(0.5),
                "partial": lambda: self.held(0.5), "class": lambda: type(self).own.mul_(0.5),
                "unregistered": lambda: self.held[0].bank.mul_(0.5), "deep": lambda: self.held[1][2][3][4].mul_(0.5),
            }
            if by in ways:
                ways[by]()
            return square(self, x * self.bank)

    model = Writes()
    bank = model.bank
    check(model, gradient(lambda x: square(model, x * 0.5)))
    assert model.bank is bank and bank.tolist() == [1.0] * 4


def test_a_memory_that_grows_keeps_its_views():
    class Grows(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("memory", torch.ones(1, 4))
            self.first = self.memory[0]

        def forward(self, x):
            count = len(self.memory)
            self.memory.resize_(count + 1, 4)
            self.memory[count] = x.detach().mean(0)
            self.memory[0] *= 0.5
            return square(self, x * self.first)

    model = Grows()
    check(model, gradient(lambda x: square(model, x * 0.5)))
    assert model.memory.tolist() == [[1.0] * 4]
    model.memory[0, 0] = 7.0
    assert model.first.tolist() == [7.0, 1.0, 1.0, 1.0]


def test_an_expanded_view_beside_its_base():
    class Scales(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(1))
            self.scales = self.scale.expand(4)

        def forward(self, x):
            self.scale.mul_(0.5)
            return square(self, x * self.scales)

    model = Scales()
    check(model, gradient(lambda x: square(model, x * 0.5)))
    assert model.scales.tolist() == [1.0] * 4


def test_a_memory_that_is_what_the_model_returns():
    class Integrates(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("state", torch.zeros(3, 3))

        def forward(self, x):
            self.state.mul_(0.5).add_(self.head(x))
            return self.state

    model = Integrates()
    check(model, gradient(model.head))
    found = pnpx.SmoothGrad(model, n_iter=4, batch_size=3).explain(X)
    torch.testing.assert_close(found.output, model.head(X).detach())
    assert model.state.grad_fn is None and not model.state.any()


def test_a_view_does_not_stay_in_the_graph_of_a_pass():
    class Views(Head):
        def __init__(self):
            super().__init__()
            self.both = [torch.zeros(2, 4)]
            self.linear, self.state = nn.Linear(4, 4), self.both[0][0]

        def forward(self, x):
            self.state.copy_(torch.tanh(self.linear(x)).mean(0) + self.state)
            return square(self, x * self.state)

    model = Views()
    check(model, gradient(lambda x: square(model, x * torch.tanh(model.linear(x)).mean(0))))
    (both,) = model.both
    assert not model.state.requires_grad and not both.requires_grad and not both.any()
    both[0] = 1.0
    assert model.state.tolist() == [1.0] * 4


def test_a_memory_where_a_path_begins():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("state", torch.zeros(1, 4))

        def forward(self, x):
            self.state.mul_(0.5).add_(x)
            return self.state

    class Squares(Head):
        def __init__(self):
            super().__init__()
            self.cell = Cell()

        def forward(self, x):
            return square(self, self.cell(x))

    model, one = Squares(), torch.ones(1, 4)
    found = pnpx.IntegratedGradients(model, layer="cell", baseline=1.0, n_steps=4, batch_size=1).attribute(X[:1], 1)
    ends = (model.head(X[:1]) + model.head(one))[:, 1:2].detach()  # the slope of a square, on average
    torch.testing.assert_close(found, (X[:1] - one) * model.head.weight[1].detach() * ends)


def test_copies_of_the_batch_share_passes_of_a_model_that_keeps_a_memory():
    class Fades(Head):
        def __init__(self, fades):
            super().__init__()
            self.register_buffer("memory", torch.ones(4))
            self.fades, self.rows = fades, []

        def forward(self, x):
            self.rows.append(len(x))
            if self.fades:
                self.memory.mul_(0.5)
            return square(self, x * self.memory)

    models = Fades(True), Fades(False)
    for model in models:
        pnpx.SmoothGrad(model, n_iter=8, batch_size=12).attribute(X, 1)
    assert models[0].rows == models[1].rows


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_a_memory_that_needs_a_gradient_inside_the_pass(needs_gradient):
    class Steps(Head):
        def __init__(self):
            super().__init__()
            self.offset = torch.zeros(4, requires_grad=needs_gradient)

        def forward(self, x):
            if not needs_gradient:
                self.offset.requires_grad_()
            with torch.no_grad():
                self.offset += 1
            with torch.enable_grad():
                loss = square(self, x.detach() + self.offset).sum()
                (slope,) = torch.autograd.grad(loss, self.offset)
            return square(self, x * slope)

    model = Steps()
    check(model, gradient(copy.deepcopy(model)))
    assert model.offset.requires_grad is needs_gradient and model.offset.tolist() == [0.0] * 4


def test_a_memory_made_in_inference_mode():
    class Writes(Head):
        @torch.inference_mode()
        def write(self, x):
            self.bank.mul_(0.5).add_(x.mean(0))

        def forward(self, x):
            self.write(x.detach())
            return torch.tanh(self.head(x + self.bank))

    model = Writes()
    with torch.inference_mode():
        model.register_buffer("bank", torch.ones(4))
    check(model, gradient(lambda x: torch.tanh(model.head(x + 0.5 + X.mean(0)))))
    assert model.bank.tolist() == [1.0] * 4


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("options", [{"device": "meta"}, {"dtype": torch.complex32}], ids=str)
def test_buffers_that_cannot_be_compared(options):
    buffer = torch.zeros(3, **options)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Identity(), nn.Linear(3, 3)).train()
    model[2].register_buffer("table", buffer)
    pnpx.Gradient(model).attribute(X, 1)
    assert all(module.training for module in model.modules()) and model[2].table is buffer


def test_what_cannot_be_undone_does_not_hinder_the_rest():
    class Sticks(nn.Identity):
        def __setattr__(self, name, value):
            if name == "training" and value and "training" in self.__dict__:
                raise KeyError("mine")
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Linear(4, 3), Sticks(), nn.Linear(3, 3))
    for _ in range(2):
        model[0].train()
        model[2].train()
        model[1].__dict__["training"] = True
        with pytest.raises(KeyError, match="mine"), left_as_found(model):
            assert not any(module.training for module in model.modules())
        assert model.training and model[0].training and model[2].training
        assert all(parameter.requires_grad for parameter in model.parameters())


# Plain values


class Cache(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(16, 4))

    def forward(self, x, position):
        self.kept[position] = x.detach().mean(0)
        return x * (self.kept[: position + 1].sum(0) + 1)


@pytest.mark.parametrize("kind", ["none", "absent", "tuple", "text", "flag"])
def test_where_in_a_memory_of_another_module_a_pass_writes(kind):
    class Decodes(Head):
        def __init__(self):
            super().__init__()
            self.cache = Cache()
            if kind != "absent":
                self.at = {"none": None, "tuple": (-1,), "text": "prefill", "flag": False}[kind]

        def forward(self, x):
            at = getattr(self, "at", None)
            if kind == "tuple":
                self.at = (at[0] + 1,)
            elif kind == "text":
                self.at = "decode"
            elif kind == "flag":
                self.at = True
            else:
                self.at = 0 if at is None else at + 1
            position = {"tuple": lambda: self.at[0], "text": lambda: int(at == "decode"), "flag": lambda: int(at)}
            position = position.get(kind, lambda: self.at)()
            return square(self, self.cache(x, position) * (position + 1))

    model = Decodes()
    before = vars(model).get("at", "absent")
    check(model, gradient(lambda x: square(model, x * (X.mean(0) + 1))))
    assert vars(model).get("at", "absent") == before


def test_a_memory_that_every_second_pass_writes_as_its_parent_counts():
    class Counts(Head):
        def __init__(self):
            super().__init__()
            self.average, self.step = nn.Module(), 1
            self.average.register_buffer("mean", torch.ones(4))

        def forward(self, x):
            if self.step % 2 == 0:
                self.average.mean.mul_(0.5)
            self.step += 1
            return square(self, x * self.average.mean)

    model = Counts()
    check(model, gradient(lambda x: square(model, x)))
    assert model.step == 1 and model.average.mean.tolist() == [1.0] * 4


def test_a_number_alone():
    class Warms(Head):
        def __init__(self):
            super().__init__()
            self.time = 0.0

        def forward(self, x):
            self.time += 1.0
            return torch.tanh(self.head(x) * self.time)

    model = Warms()
    check(model, gradient(lambda x: torch.tanh(model.head(x))))
    assert model.time == 0


@pytest.mark.parametrize("attribute", ["handle", "hooked"])
def test_hooks_are_set_once_also_by_a_module_that_keeps_a_tensor(attribute):
    class Watched(Head):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.handle, self.hooked, self.last, self.step = None, False, None, 0

        def forward(self, x):
            if not getattr(self, attribute):
                self.handle = self.linear.register_forward_hook(lambda module, args, output: output * 0.5)
                self.hooked = True
            self.last = self.linear(x)
            self.step += 1
            return square(self, self.last * self.step)

    model = Watched()
    linear = copy.deepcopy(model.linear)
    check(model, gradient(lambda x: square(model, linear(x) * 0.5)))
    assert len(model.linear._forward_hooks) == 1 and model.hooked and model.handle is not None
    assert model.last is None and model.step == 0


def test_modules_are_made_once_where_a_flag_tells():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.built, self.features = False, None

        def forward(self, x):
            if not self.built:
                self.head, self.built = nn.Linear(4, 3), True
            self.features = x.detach()
            return square(self, x)

    model = Late()
    found, head = calm(model), model.head
    torch.testing.assert_close(found, gradient(lambda x: square(model, x)))
    check(model, found)
    assert model.head is head and model.built and model.features is None


@dataclasses.dataclass
class Info:
    loss: object = dataclasses.field(init=False)


@pytest.mark.parametrize("kind", ["an unset field", "itself"])
def test_what_is_set_anew_is_looked_into_with_care(kind):
    class Notes(Head):
        def forward(self, x):
            self.info = Info() if kind == "an unset field" else {}
            if kind == "itself":
                self.info["info"] = self.info
            return square(self, x)

    model = Notes()
    check(model, gradient(lambda x: square(model, x)))


def test_what_a_model_holds_beside_its_memory_is_not_walked_through():
    class Vocabulary(dict):
        def values(self):
            raise AssertionError("hundreds of thousands of words")

    class Fades(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("memory", torch.ones(4))
            self.vocabulary = Vocabulary(word=[1])

        def forward(self, x):
            self.memory.mul_(0.5)
            return square(self, x * self.memory)

    model = Fades()
    check(model, gradient(lambda x: square(model, x * 0.5)))


# Several threads, several models


def test_threads_that_explain_a_model_with_two_names_for_its_memory():
    class Fades(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer("memory", torch.ones(4))
            self.names = [self.memory]

        def forward(self, x):
            self.memory.mul_(0.5)
            return square(self, x * self.memory)

    model = Fades()
    expected = gradient(lambda x: square(model, x * 0.5))
    with ThreadPoolExecutor(4) as pool:
        for kind in (calm, lambda model: pnpx.Gradient(model).attribute(X, 1)):
            for job in [pool.submit(kind, model) for _ in range(20)]:
                torch.testing.assert_close(job.result(), expected)
    assert model.memory.tolist() == [1.0] * 4


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = torch.ones(4)


class Reads(Head):
    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x):
        return square(self, x * self.memory.kept)


class Writes(Reads):
    def forward(self, x):
        self.memory.kept = self.memory.kept * 0.5
        return super().forward(x)


def test_who_only_reads_a_shared_memory_finds_what_was_found():
    memory = Memory()
    reads, writes = Reads(memory), Writes(memory)
    expected = gradient(reads)

    def score(output, targets):  # another explanation goes on between the passes of this one
        calm(writes)
        return output[:, 1]

    with explaining(writes):
        for size in (1, 3):
            found = pnpx.SmoothGrad(reads, noise_std=0.0, n_iter=4, batch_size=size, score=score).attribute(X, 1)
            torch.testing.assert_close(found, expected)
    assert memory.kept.tolist() == [1.0] * 4


def test_models_that_share_a_tensor_and_no_module():
    class Adds(Head):
        def __init__(self, bank, writes):
            super().__init__()
            self.register_buffer("bank", bank)
            self.writes = writes

        def forward(self, x):
            if self.writes:
                self.bank.mul_(0.5)
            return torch.tanh(self.head(x + self.bank))

    bank = torch.ones(4)
    writes, reads = Adds(bank, True), Adds(bank, False)
    expected, seen = gradient(reads), []

    def score(output, targets):
        seen.append(pnpx.Gradient(reads).attribute(X, 1))
        return output[:, 1]

    pnpx.SmoothGrad(writes, noise_std=0.0, n_iter=3, score=score, batch_size=3).attribute(X, 1)
    assert len(seen) >= 3
    for found in seen:
        torch.testing.assert_close(found, expected)
    assert bank.tolist() == [1.0] * 4


# What stays changed is warned of


def warned(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pnpx.SmoothGrad(model, n_iter=3, batch_size=1).attribute(X, 1)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("kind", ["in place", "another"])
def test_weights_that_a_pass_changes(kind):
    class Decays(Head):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(5, 4, max_norm=0.1)  # whose rows are put back
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            if kind == "in place":
                with torch.no_grad():
                    self.head.weight.mul_(0.9)
            else:
                self.scale = nn.Parameter(self.scale * 0.9)
            return square(self, x * self.scale + self.words.weight[0] + self.words(torch.tensor(1)))

    name = "head.weight" if kind == "in place" else "scale"
    assert warned(Decays()) == [
        f"the model changes its weights {name!r} in a forward pass in eval mode: the attributions may depend on how "
        "many passes there were, and it stays changed; turn that off in the model, or explain a copy of it"
    ]


def test_what_is_kept_to_be_looked_at_is_not_warned_of():
    class Attends(Head):
        def __init__(self):
            super().__init__()
            self.attention = None

        def forward(self, x):
            self.attention = (x @ x.T).softmax(-1).detach()
            return square(self, x)

    model = Attends()
    model(X)
    found = model.attention
    assert warned(model) == [] and model.attention is found


def test_what_stays_is_warned_of_where_the_first_pass_fails():
    class Large(Head):
        def __init__(self):
            super().__init__()
            self.table, self.calls = torch.zeros(3, 2**21), 0

        def forward(self, x):
            self.calls += 1
            if len(x) != len(X):
                raise ValueError("one copy a pass")
            self.table[:, :4] += 1
            return square(self, x)

    with pytest.warns(RuntimeWarning, match="the model changes 'table' in place, which takes over 16 MiB"):
        pnpx.SmoothGrad(Large(), n_iter=3).attribute(X, 1)


@pytest.mark.parametrize("kind", ["reduction", "itself"])
def test_what_a_model_that_keeps_something_returns_has_its_type(kind):
    class Returns(Head):
        def __init__(self):
            super().__init__()
            self.memory, self.calls = torch.ones(3, 3), 0

        def forward(self, x):
            self.calls += 1
            if kind == "itself":  # the memory is what is returned
                self.memory.copy_(square(self, x)[:3])
                return self.memory
            return torch.max(square(self, x).unsqueeze(-1).expand(-1, 3, 2), 2)

    model = Returns()
    if kind == "itself":
        expected = gradient(lambda x: square(model, x))
        found = pnpx.Gradient(model).attribute(X, 1)
    else:
        expected = gradient(lambda x: square(model, x))
        found = pnpx.Gradient(model, output_extractor=lambda output: output.values).attribute(X, 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("keeps", [False, True])
def test_explanations_inside_of_explanations_do_not_wait_for_each_other(keeps):
    """Those of two models in two threads, each of which explains the other in its score."""
    class Counts(Head):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += keeps
            return square(self, x)

    one, other = Counts(), Counts()
    barrier = threading.Barrier(2)

    def explain(model, inner):
        def score(output, targets):
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(0.2)
            pnpx.Gradient(inner).attribute(X, 1)
            return output[:, 1]

        return pnpx.Gradient(model, score=score).attribute(X)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(explain, *models) for models in ((one, other), (other, one))]
        for model, job in zip((one, other), found, strict=True):
            torch.testing.assert_close(job.result(timeout=30), gradient(partial(square, model)))


@pytest.mark.parametrize("kind", [pnpx.Gradient, partial(pnpx.SmoothGrad, n_iter=1, noise_std=0.0)])
def test_a_score_may_wait_for_another_thread_that_explains_a_model_that_keeps_nothing(kind):
    model, mine, waiting = nn.Linear(4, 3), threading.Lock(), threading.Event()

    def score(output, targets):
        waiting.set()
        with mine:
            return output[:, 1]

    with ThreadPoolExecutor(1) as pool:
        with mine:
            job = pool.submit(kind(model, score=score).attribute, X)
            waiting.wait(30)
            pnpx.Gradient(model).attribute(X, 1)
        torch.testing.assert_close(job.result(timeout=30), gradient(model))


def test_a_part_made_by_the_first_call_that_keeps_what_stays_is_not_warned_of():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.arange(4.0))

    class Late(Head):
        def __init__(self):
            super().__init__()
            self.positions = None

        def forward(self, x):
            if self.positions is None:
                self.positions = Positions()
            return square(self, x + self.positions.table)

    assert warned(Late()) == []


def test_a_part_made_by_the_first_call_that_keeps_a_state():
    class Cell(nn.Module):
        def forward(self, x):
            self.state = x.detach()
            return x

    class Late(Head):
        def __init__(self):
            super().__init__()
            self.cell = None

        def forward(self, x):
            if self.cell is None:
                self.cell = Cell()
            return square(self, self.cell(x))

    model = Late()
    assert warned(model) == [
        "the first call of the model makes 'cell', where it keeps tensors that it changes: the attributions may depend "
        "on how many passes there were; run the model once before it is explained"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pnpx.SmoothGrad(model, n_iter=3, batch_size=1).attribute(X, 1)


def test_a_warning_that_is_an_error_leaves_the_model_as_it_was_found():
    class Counter(nn.Module):
        def forward(self, x):
            self.seen = x.detach()
            return x

    class Late(Head):
        def __init__(self):
            super().__init__()
            self.memory, self.counter = torch.ones(4), None

        def forward(self, x):
            if self.counter is None:
                self.counter = Counter()
            self.memory.mul_(0.5)
            return square(self, self.counter(x) * self.memory)

    model = Late()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="the first call of the model makes 'counter'"):
            pnpx.SmoothGrad(model, n_iter=3, batch_size=1).attribute(X, 1)
    assert torch.equal(model.memory, torch.ones(4))


@pytest.mark.parametrize("kind", ["marked", "attached"])
def test_a_memory_that_keeps_its_numbers_leaves_the_graph(kind):
    """Nothing but what autograd knows of it is another one after a pass."""

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.ones(3))

        def forward(self, x):
            if kind == "marked":
                self.kept.requires_grad_()
            else:
                self.kept.add_(0 * x.sum())
            return x.square() * self.kept.detach()

    model, x = Keeps(), torch.randn(2, 3)
    kept = model.kept
    found = pnpx.SmoothGrad(model, n_iter=4, noise_std=0.0).attribute(x, 0)
    torch.testing.assert_close(found, 2 * x * torch.tensor([1.0, 0.0, 0.0]))
    assert model.kept is kept and kept.grad_fn is None and not kept.requires_grad
    assert torch.equal(kept, torch.ones(3))
