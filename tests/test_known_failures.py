"""What other libraries get wrong, by name: each a test of its own (see DESIGN, section 8)."""

import functools
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import pnpx
from pnpx import metrics, postprocess
from pnpx.structure import tensors
from pnpx.testing import Reference, case

NOISY = [pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad]


def close(found, expected, **tolerances):
    torch.testing.assert_close(found, expected, **tolerances)


def linear(n_features=4, n_classes=3):
    torch.manual_seed(0)
    return nn.Linear(n_features, n_classes).double()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(3, 4, dtype=torch.float64)


# Statistics


def test_vargrad_of_a_linear_model_is_zero(x):
    found = pnpx.VarGrad(linear(), n_iter=7, noise_level=0.9).attribute(x, 1)
    assert found.abs().max() <= 1e-30


def test_vargrad_is_never_negative():
    given = case("mlp").to(torch.float32)
    for level in (1e-4, 0.01, 1.0):
        found = pnpx.VarGrad(given.model, layer="0", n_iter=5, noise_level=level).attribute(given.batch, given.targets)
        assert (found >= 0).all()


def test_vargrad_is_unbiased():
    # The gradient of x^2 is 2x, and that of noisy copies has the variance (2 sigma)^2; 1/n in place of 1/(n - 1) would
    # give half of it at n = 2.
    class Square(nn.Module):
        def forward(self, x):
            return (x * x).sum(1, keepdim=True)

    x = torch.zeros(1, 40_000, dtype=torch.float64)
    found = pnpx.VarGrad(Square(), n_iter=2, noise_std=0.5).attribute(x)
    close(found.mean(), torch.tensor(1.0, dtype=torch.float64), rtol=0.03, atol=0)


def test_vargrad_of_one_sample_is_an_error():
    with pytest.raises(ValueError, match="`n_iter >= 2` must hold, but got n_iter=1"):
        pnpx.VarGrad(linear(), n_iter=1)


def test_squaregrad_squares_each_gradient_and_not_their_mean(x):
    model = linear()
    close(pnpx.SquareGrad(model, n_iter=5).attribute(x, 2), model.weight[2].square().expand(3, 4).detach())


def test_no_noise_free_sample_is_among_the_noisy_ones():
    given = case("mlp")
    noisy = pnpx.SmoothGrad(given.model, n_iter=1, noise_level=0.9).attribute(given.batch, given.targets)
    assert (noisy - pnpx.Gradient(given.model).attribute(given.batch, given.targets)).abs().max() > 1e-3


def test_no_absolute_value_is_taken(x):
    model = linear()
    for kind in (pnpx.Gradient, pnpx.SmoothGrad):
        close(kind(model).attribute(x, 0), model.weight[0].expand(3, 4).detach())


# Noise


@pytest.mark.parametrize("kind", NOISY)
def test_noise_is_put_at_the_layer_and_not_at_the_input(kind):
    """A layer far noisier than its input: with the noise at the input, the ReLU would never close."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            # Its range is 1000 times that of the input.
            return torch.relu(self.layer(x * 1000 + 10)).sum(1, keepdim=True)

    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = kind(Shifted(), layer="layer", n_iter=40, noise_level=0.5).attribute(x)[0, 0]
    if kind is pnpx.VarGrad:
        assert found > 0.2
    else:  # half of the copies of the first element are below 0
        assert 0.3 < found < 0.7


@pytest.mark.parametrize("kind", NOISY)
def test_token_ids_are_explained_with_noise_at_their_embedding(kind):
    given = case("rnn_tokens")
    found = kind(given.model, layer="embedding", n_iter=4).attribute(given.batch, given.targets)
    assert found.shape == (3, 6, 4) and found.abs().sum() > 0


@pytest.mark.parametrize("kind", NOISY)
def test_token_ids_as_inputs_are_refused_with_the_remedy(kind):
    given = case("rnn_tokens")
    with pytest.raises(TypeError, match=r"the input is torch.int64; explain its embedding, .* layer='embedding'"):
        kind(given.model).attribute(given.batch, given.targets)


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("container", [tuple, list])
def test_noise_with_a_tuple_of_inputs(kind, container):
    given = case("two_inputs")
    first, second = kind(given.model, n_iter=4).attribute(container(given.batch), given.targets)
    assert first.shape == (3, 5) and second.shape == (3, 2, 4)
    # A tuple of one.
    (only,) = kind(linear(5), n_iter=4).attribute((given.batch[0],), 1)
    assert only.shape == (3, 5)


def test_the_noise_of_several_inputs_differs():
    class Apart(nn.Module):
        def forward(self, a, b):
            return ((a - b) ** 3).sum(1, keepdim=True)

    a = torch.linspace(0, 1, 5, dtype=torch.float64)[None]
    found, _ = pnpx.SmoothGrad(Apart(), n_iter=4, noise_level=0.5).attribute((a, a.clone()))
    assert found.abs().sum() > 0  # with the same noise the difference stays 0


@pytest.mark.parametrize("kind", NOISY)
def test_noise_is_scaled_to_each_sample_and_not_to_the_batch(kind):
    given = case("mlp")
    alone = kind(given.model, n_iter=4).attribute(given.batch[:1], 0)
    beside = torch.cat([given.batch[:1], given.batch[1:] * 100])
    close(kind(given.model, n_iter=4).attribute(beside, 0)[:1], alone)


@pytest.mark.parametrize("kind", NOISY)
def test_constant_samples_get_no_noise_and_no_nan(kind):
    given = case("mlp")
    found = kind(given.model, n_iter=4).attribute(torch.ones(3, 5, dtype=torch.float64), 0)
    assert torch.isfinite(found).all()


# Where


def test_output_layer_is_not_ignored():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(1)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    for layer in (None, "0", "1:input"):
        logits = pnpx.Gradient(model, layer=layer, output_layer="2").attribute(x, 1)
        close(logits, pnpx.Gradient(model[:3], layer=layer).attribute(x, 1))
        assert (logits - pnpx.Gradient(model, layer=layer).attribute(x, 1)).abs().max() > 1e-3


def test_a_layers_name_is_not_read_letter_by_letter():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(4, 2)

        def forward(self, f):
            return self.fc1(f)

    assert pnpx.Gradient(Net(), layer="fc1").attribute(torch.ones(3, 4), 0).shape == (3, 2)
    assert pnpx.Gradient(Net(), layer="f").attribute(torch.ones(3, 4), 0).shape == (3, 4)
    with pytest.raises(LookupError, match="no module 'fc' in the model; the nearest: 'fc1'"):
        pnpx.Gradient(Net(), layer="fc").attribute(torch.ones(3, 4), 0)


def test_a_layer_that_takes_any_number_of_arguments():
    class Sum(nn.Module):
        def forward(self, *parts):
            return sum(part * weight for weight, part in enumerate(parts, 1))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = Sum()

        def forward(self, x):
            return self.sum(x, 2 * x, 3 * x)

    found = pnpx.SmoothGrad(Net(), layer="sum:input", n_iter=3).attribute(torch.ones(2, 4), 0)
    for weight, part in enumerate(found, 1):
        close(part, torch.tensor([[weight, 0.0, 0.0, 0.0]] * 2))


def test_a_module_that_runs_twice_is_ambiguous_and_its_calls_can_be_chosen():
    given = case("shared")
    with pytest.raises(ValueError, match=r"'mix' runs 2 times in a forward pass, .*: 'mix#1' to 'mix#2'"):
        pnpx.Gradient(given.model, layer="mix").attribute(given.batch, given.targets)
    for call in ("mix#1", "mix#2"):
        reference = Reference(given, call)
        close(
            pnpx.Gradient(given.model, layer=call).attribute(given.batch, given.targets),
            *reference.gradients(reference.tensors),
        )
    with pytest.raises(RuntimeError, match="the layer 'mix#3' was not reached: it runs 2 times"):
        pnpx.Gradient(given.model, layer="mix#3").attribute(given.batch, given.targets)
    single = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="the layer '0#2' was not reached: it runs once; "):
        pnpx.Gradient(single, layer="0#2").attribute(torch.ones(1, 2), 0)


def test_a_module_that_does_not_run_is_an_error():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].spare = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"the layer '0.spare' was not reached: the model ran without calling it"):
        pnpx.SmoothGrad(model, layer="0.spare").attribute(torch.ones(2, 4), 0)


def test_a_place_that_does_not_reach_the_score_is_an_error():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.layer(x).detach()) * 1.0

    for kind in (pnpx.Gradient, pnpx.SmoothGrad, pnpx.IntegratedGradients):
        with pytest.raises(RuntimeError, match="the score does not depend on 'layer', so there is no gradient"):
            kind(Cut(), layer="layer").attribute(torch.ones(2, 4), 0)


def test_an_unused_input_gets_zeros(x):
    class First(nn.Module):
        def forward(self, a, b):
            return a.cumsum(1)

    used, unused = pnpx.SmoothGrad(First(), n_iter=3).attribute((x, x), 1)
    assert used.abs().sum() > 0 and (unused == 0).all() and unused.shape == x.shape


def test_gradients_of_two_inputs_keep_their_batch():
    given = case("two_inputs")
    for found, expected in zip(
        pnpx.Gradient(given.model).attribute(given.batch, given.targets),
        Reference(given).gradients(list(given.batch)),
        strict=True,
    ):
        close(found, expected)


@pytest.mark.parametrize("kind", [pnpx.Gradient, *NOISY])
def test_a_layer_that_returns_a_tuple(kind):
    given = case("lstm")
    out, (h, c) = kind(given.model, layer="lstm").attribute(given.batch, given.targets)
    assert out.shape == (3, 6, 5) and h.shape == c.shape == (2, 3, 5)
    assert out.abs().sum() > 0 and h[1].abs().sum() > 0
    assert (c == 0).all()  # the score does not depend on the cells
    assert (h[0] == 0).all()


def test_none_inside_a_layers_output():
    given = case("attention_keyword")
    out, weights = pnpx.SmoothGrad(given.model, layer="attention", n_iter=3).attribute(given.batch, given.targets)
    assert out.shape == (3, 6, 4) and weights is None


def test_a_module_called_by_keyword():
    given = case("attention_keyword")
    found = pnpx.Gradient(given.model, layer="attention:input").attribute(given.batch, given.targets)
    assert list(found) == ["query", "key", "value"]
    expected = Reference(given, "attention:input")
    for tensor, gradient in zip(found.values(), expected.gradients(expected.tensors), strict=True):
        close(tensor, gradient)


def test_query_key_and_value_of_self_attention_get_each_their_own_gradient():
    given = case("attention_positional")
    query, key, value = pnpx.Gradient(given.model, layer="attention:input").attribute(given.batch, given.targets)
    assert (query - key).abs().max() > 1e-6 and (key - value).abs().max() > 1e-6
    whole = pnpx.Gradient(given.model, layer="mix").attribute(given.batch, given.targets)
    close(query + key + value, whole)


# What goes into the model


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.forward = functools.wraps(model.forward)(lambda *args, **kwargs: model(*args, **kwargs))


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper], ids=["plain", "wrapped"])
def test_keyword_only_and_wrapped_forward_arguments(wrap):
    class KeywordOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, *, x, scale=1.0):
            return self.layer(x) * scale

    inner = KeywordOnly().double()
    model = wrap(inner)
    batch = {"x": torch.ones(2, 4, dtype=torch.float64), "scale": 2.0, "other": 3}
    found = pnpx.Gradient(model, forward_arg_extractor="x", additional_forward_arg_extractor=["scale"]).attribute(
        batch, 1
    )
    close(found, (2 * inner.layer.weight[1]).expand(2, 4).detach())
    close(pnpx.Gradient(model, layer="x", forward_arg_extractor="x").attribute(batch, 1), found / 2)


def test_labels_in_the_batch_do_not_reach_the_model():
    given = case("mapping")  # raises if it is given labels
    found = pnpx.SmoothGrad(given.model, n_iter=3).attribute(given.batch, given.targets)
    assert set(found) == {"image", "scale"}
    with pytest.raises(ValueError, match="labels must not reach the model"):
        pnpx.Gradient(given.model, additional_forward_arg_extractor="labels").attribute(given.batch, given.targets)


def test_labels_beside_the_inputs_of_a_tuple_do_not_reach_the_model():
    given = case("labelled")
    with pytest.raises(TypeError, match=r"the batch has 2 parts, but .* forward_arg_extractor=0"):
        pnpx.Gradient(given.model).attribute(given.batch, given.targets)
    found = pnpx.Gradient(given.model, forward_arg_extractor=0).attribute(given.batch, given.targets)
    close(found, *Reference(given).gradients([given.batch[0]]))


def test_dict_batches():
    given = case("mapping")
    found = pnpx.Gradient(given.model, forward_arg_extractor="image").attribute(given.batch, given.targets)
    assert found.shape == (3, 5)  # without scale, which has a default
    both = pnpx.Gradient(
        given.model, forward_arg_extractor="image", additional_forward_arg_extractor=["scale"]
    ).attribute(given.batch, given.targets)
    close(both, Reference(given, "image:argument").gradients([given.batch["image"]])[0])


@pytest.mark.parametrize("kind", [pnpx.Gradient, *NOISY])
def test_packed_sequences(kind):
    given = case("packed")
    for layer in (None, "lstm:input"):
        found = kind(given.model, layer=layer).attribute(given.batch, given.targets)
        lengths = pad_packed_sequence(given.batch, batch_first=True)[1]
        assert found.shape == (3, 6, 4)
        for row, length in enumerate(lengths):
            assert (found[row, length:] == 0).all() and found[row, :length].abs().sum() > 0


@pytest.mark.parametrize("kind", [*NOISY, pnpx.IntegratedGradients])
def test_a_packed_sequence_is_explained_alike_beside_a_longer_one(kind):
    given = case("packed")
    sequences, lengths = pad_packed_sequence(given.batch, batch_first=True)
    short = int(lengths[2])
    alone = pack_padded_sequence(sequences[2:, :short], lengths[2:], batch_first=True)
    expected = kind(given.model).attribute(alone, 1)
    close(kind(given.model).attribute(given.batch, 1)[2:, :short], expected)


def test_inputs_of_one_feature():
    model = linear(1, 2)
    for kind in (pnpx.SmoothGrad, pnpx.IntegratedGradients):
        assert kind(model).attribute(torch.ones(3, 1, dtype=torch.float64), 1).shape == (3, 1)


def test_a_batch_without_further_axes():
    class Powers(nn.Module):
        def forward(self, x):
            return torch.stack([x, x**2], dim=1)

    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    close(pnpx.Gradient(Powers()).attribute(x, 1), 2 * x)
    # No range, so no noise.
    close(pnpx.SmoothGrad(Powers(), n_iter=3).attribute(x, 1), 2 * x)


# What comes out


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


def test_models_that_return_an_object_with_logits(x):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear()

        def forward(self, x):
            return Output(self.linear(x), x)

    model = Net()
    expected = model.linear.weight[2].expand(3, 4).detach()
    close(pnpx.Gradient(model).attribute(x, 2), expected)
    close(pnpx.Gradient(model, output_extractor="logits").attribute(x, 2), expected)
    close(pnpx.Gradient(model, output_extractor="hidden").attribute(x, 2), torch.eye(4)[2].double().expand(3, 4))


def test_an_output_without_a_batch_axis_is_refused(x):
    class Total(nn.Module):
        def forward(self, x):
            return x.sum()

    with pytest.raises(ValueError, match=r"must have a row for each of the 3 samples, but its shape is \(\)"):
        pnpx.Gradient(Total()).attribute(x, 0)


@pytest.mark.parametrize("attention", ["bert_sdpa", "bert_eager"])
@pytest.mark.parametrize("kind", [pnpx.SmoothGrad, pnpx.VarGrad, pnpx.IntegratedGradients])
def test_bert_with_padding_alone_and_in_a_batch(attention, kind):
    pytest.importorskip("transformers", reason="tiny BERT needs transformers")
    given = case(attention)
    ids, mask = given.batch["input_ids"], given.batch["attention_mask"]
    explainer = kind(
        given.model,
        layer="bert.embeddings",
        forward_arg_extractor="input_ids",
        additional_forward_arg_extractor=["attention_mask"],
        padding_mask_extractor="attention_mask",
    )
    found = explainer.attribute({"input_ids": ids, "attention_mask": mask, "labels": given.targets}, given.targets)
    assert found.shape == (3, 7, 8)
    for row, length in enumerate(mask.sum(1)):
        assert found[row, :length].abs().sum() > 0
        unpadded = {"input_ids": ids[row : row + 1, :length], "attention_mask": mask[row : row + 1, :length]}
        close(explainer.attribute(unpadded, given.targets[row : row + 1])[0], found[row, :length])
        assert not found[row, length:].any()  # padding, which the mask hides


def test_sdpa_and_eager_attention_give_the_same():
    pytest.importorskip("transformers", reason="tiny BERT needs transformers")
    one, other = case("bert_sdpa"), case("bert_eager")
    other.model.load_state_dict(one.model.state_dict())
    found = [
        pnpx.SmoothGrad(given.model, layer="bert.embeddings", **one.parameters).attribute(one.batch, one.targets)
        for given in (one, other)
    ]
    close(*found)


# In place


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.SmoothGrad, pnpx.IntegratedGradients])
def test_a_layer_that_feeds_an_in_place_operation(kind):
    class Net(nn.Module):
        def __init__(self, careful):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.careful = nn.Linear(4, 5), nn.Linear(5, 3), careful

        def forward(self, x):
            hidden = self.first(x)
            if self.careful:
                hidden = torch.relu(hidden + 0.1)
            else:
                hidden.add_(0.1)
                hidden.relu_()
            return self.second(hidden)

    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    for layer in ("first", "second:input", ["first", "second:input"]):
        careful = kind(Net(careful=True), layer=layer).attribute(x, 1)
        close(kind(Net(careful=False), layer=layer).attribute(x, 1), careful)


def test_an_in_place_operation_on_the_input_leaves_the_batch_alone():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.tensor([[-1.0, 2.0, -3.0, 4.0]])
    found = pnpx.SmoothGrad(model, n_iter=3, noise_level=0.01).attribute(x, 0)
    assert x.tolist() == [[-1.0, 2.0, -3.0, 4.0]]
    assert (found[0, [0, 2]] == 0).all()


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.SmoothGrad, pnpx.VarGrad, pnpx.IntegratedGradients])
@pytest.mark.parametrize("layer", [None, "first"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_model_that_changes_its_arguments_in_place(kind, layer, batch_size):
    class Net(nn.Module):
        def __init__(self, careful):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.careful = nn.Linear(3, 3), nn.Linear(3, 2), careful
            self.double()

        def forward(self, x, y):
            if self.careful:
                x, y = x * 2, y + 1
            else:
                x *= 2
                y += 1
            return self.second(torch.tanh(self.first(x)) * x * y)

    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = x.clone(), x.abs()
    options = {"forward_arg_extractor": 0, "additional_forward_arg_extractor": 1, "layer": layer}
    found, expected = (
        kind(Net(careful), batch_size=batch_size, **options).attribute(given, 1) for careful in (False, True)
    )
    close(found, expected)
    assert torch.equal(given[0], x) and torch.equal(given[1], x.abs())


# The state of the model


def test_explaining_in_train_mode_does_not_update_batch_norm_and_drops_nothing_out():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.9), nn.Linear(5, 2))
    x = torch.randn(8, 4)
    expected = pnpx.SmoothGrad(model.eval(), n_iter=4).attribute(x, 0)
    model.train()
    for kind in (pnpx.SmoothGrad, pnpx.IntegratedGradients):
        kind(model, layer="0").attribute(x, 0)
    assert (
        model[1].num_batches_tracked == 0 and (model[1].running_mean == 0).all() and (model[1].running_var == 1).all()
    )
    close(pnpx.SmoothGrad(model, n_iter=4).attribute(x, 0), expected)
    assert all(module.training for module in model.modules())


def test_constructing_an_explainer_does_not_switch_the_model_to_eval():
    model = linear().train()
    pnpx.SmoothGrad(model)
    assert model.training


def test_a_model_that_refuses_eval_is_left_alone():
    class Merges(nn.Linear):
        def eval(self):
            raise AssertionError("eval() of this module merges weights")

    assert pnpx.Gradient(Merges(4, 2)).attribute(torch.ones(1, 4), 0).shape == (1, 4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(mode):
    given = case("conv")
    for layer in (None, "block"):
        expected = pnpx.SmoothGrad(given.model, layer=layer).attribute(given.batch, given.targets)
        with mode():
            close(pnpx.SmoothGrad(given.model, layer=layer).attribute(given.batch.clone(), given.targets), expected)


def test_nothing_is_left_after_an_exception():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            self.layer(x)
            raise ZeroDivisionError

    model, x = Fails().train(), torch.ones(2, 4)
    for layer in (None, "layer", "layer:input"):
        with pytest.raises(ZeroDivisionError):
            pnpx.SmoothGrad(model, layer=layer).attribute(x, 0)
        assert model.training and model.layer.training and model.layer.weight.requires_grad and not x.requires_grad
        assert "forward" not in vars(model.layer) and not model.layer._forward_hooks


def test_a_thread_that_explains_does_not_disturb_one_that_trains():
    """The one that explains holds the model in eval mode; weights of another model are never touched."""
    explained, trained = case("mlp").model, case("mlp").model.train()
    x = torch.randn(4, 5, dtype=torch.float64)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            pnpx.SmoothGrad(explained, layer="2", n_iter=3).attribute(x, 0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(50):
            trained(x).sum().backward()
    finally:
        stop.set()
        thread.join()
    assert all(weight.grad is not None and weight.requires_grad for weight in trained.parameters())
    assert trained.training


# Batches, chunks, precision


@pytest.mark.parametrize("kind", NOISY)
def test_the_chunk_size_does_not_change_an_explanation(kind):
    given = case("conv")
    found = [
        kind(given.model, layer="norm", n_iter=7, batch_size=size).attribute(given.batch, given.targets)
        for size in (1, 2, 3, 5, 1000)
    ]
    for other in found[1:]:
        close(other, found[0])


@pytest.mark.parametrize("kind", [pnpx.Gradient, *NOISY, pnpx.IntegratedGradients])
def test_the_rest_of_the_batch_does_not_change_an_explanation(kind):
    given = case("conv")
    given.model.train()  # batch norm would mix the samples
    whole = kind(given.model, layer="conv").attribute(given.batch, given.targets)
    for row in range(3):
        alone = kind(given.model, layer="conv").attribute(given.batch[row : row + 1], given.targets[row : row + 1])
        close(alone[0], whole[row])


@pytest.mark.parametrize("batch_size", [1, 32])
def test_the_state_of_a_recurrent_net_keeps_its_axes_in_a_batch_of_one(batch_size):
    """Its shape (1, 1, features) does not tell which axis is that of the batch."""
    given = case("rnn_tokens")
    explainer = pnpx.SmoothGrad(given.model, layer="rnn", n_iter=4, batch_size=batch_size)
    out, h = explainer.attribute(given.batch, given.targets)
    assert h.shape == (1, 3, 5)
    for row in range(3):
        alone = explainer.attribute(given.batch[row : row + 1], given.targets[row : row + 1])
        close(alone, (out[row : row + 1], h[:, row : row + 1]))


@pytest.mark.parametrize("size", [1, 4])
def test_what_has_no_batch_axis_is_explained_for_each_sample(size):
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(torch.tanh(x + self.table(torch.arange(5))).mean(1))

    model = Positions().double()
    x = torch.randn(size, 5, 3, dtype=torch.float64)
    found = pnpx.Gradient(model, layer="table").attribute(x, 1)
    close(found, pnpx.Gradient(model).attribute(x, 1))  # x and the table are added


@pytest.mark.parametrize("kind", [pnpx.Gradient, *NOISY, pnpx.IntegratedGradients])
@pytest.mark.parametrize("layer", [None, "conv", "pool"])
def test_bfloat16_models(kind, layer):
    given = case("conv").to(torch.bfloat16)
    found = kind(given.model, layer=layer).attribute(given.batch, given.targets)
    assert found.dtype == torch.float32 and torch.isfinite(found).all() and not found.requires_grad


def test_many_bfloat16_gradients_are_not_added_up_in_bfloat16():
    # In bfloat16 256 + 1 is 256: the mean of 600 ones would come out as less than a half.
    model = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    model.weight.data.fill_(1.0)
    x = torch.zeros(1, 2, dtype=torch.bfloat16)
    found = pnpx.SmoothGrad(model, n_iter=600, batch_size=1).attribute(x)
    close(found, torch.ones(1, 2))


# Parameters


def test_a_retuned_parameter_changes_the_result():
    given = case("mlp")
    for one, changes in [
        (pnpx.SmoothGrad(given.model), {"noise_level": 0.9}),
        (pnpx.SmoothGrad(given.model), {"n_iter": 3}),
        (pnpx.SmoothGrad(given.model), {"seed": 1}),
        (pnpx.SmoothGrad(given.model), {"sampler": "independent"}),
        (pnpx.SmoothGrad(given.model), {"noise_std": 2.0}),
        (pnpx.SmoothGrad(given.model), {"input_x_gradient": True}),
        (pnpx.SmoothGrad(given.model, input_x_gradient="clean"), {"input_x_gradient": "noisy"}),
        (pnpx.IntegratedGradients(given.model), {"n_steps": 3}),
        (pnpx.IntegratedGradients(given.model), {"baseline": 1.0}),
        (pnpx.IntegratedGradients(given.model), {"rule": "riemann_left"}),
        (pnpx.Gradient(given.model), {"layer": "0:input", "inference_mode": "softmax"}),
        (pnpx.Gradient(given.model), {"output_layer": "4"}),
    ]:
        before = one.attribute(given.batch, given.targets)
        after = replace(one, **changes).attribute(given.batch, given.targets)
        assert (before - after).abs().max() > 1e-9, changes


def test_unknown_parameters_are_not_accepted_silently():
    with pytest.raises(TypeError, match="SmoothGrad has no parameter 'noise_levle'; the nearest: 'noise_level'"):
        pnpx.SmoothGrad(linear(), noise_levle=0.9)


def test_targets_may_be_numpy_integers_and_callables(x):
    model = linear()
    expected = pnpx.Gradient(model).attribute(x, 1)
    close(pnpx.Gradient(model).attribute(x, np.int64(1)), expected)
    close(pnpx.Gradient(model).attribute(x, lambda output, batch: output[:, 1]), expected)
    for wrong in (True, [True, False, True], 1 + 0j):
        with pytest.raises(TypeError, match="targets of classes must be integers"):
            pnpx.Gradient(model).attribute(x, wrong)


# After explaining


@pytest.mark.parametrize("method", list(postprocess.NORMALISATIONS))
def test_constant_maps_normalise_without_nan(method):
    for value in (0.0, 3.0, -2.0):
        assert torch.isfinite(postprocess.normalise(torch.full((2, 4), value), method)).all()


# Recommending, judging, running


class GruOnly(nn.Module):
    """Its forward loops over what it reads, so that no tracer follows it."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            out, state = self.gru(step[:, None], state)
        return out[:, -1]


class Counted(nn.Module):
    """Reads numbers only as counts: no gradient gets through."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x.round().detach())


@pytest.mark.parametrize("name", ["gru", "counted", "conv", "bert_sdpa", "two_inputs"])
def test_what_is_recommended_does_not_crash(name, ours_alone):
    """PnPXAI recommends by the types of layers: RAP for an LSTM, nothing but a TypeError for a GRU."""
    torch.manual_seed(0)
    alone = {"gru": (GruOnly(), torch.randn(2, 5, 3)), "counted": (Counted(), 3 * torch.randn(2, 3))}
    if name in alone:
        (model, batch), options = alone[name], {}
    else:
        made = case(name)
        model, batch, options = made.model, made.batch, made.parameters
    found = pnpx.recommend(model.eval(), batch, **options)
    picked = [one for one in found if one.picked]
    assert picked
    for one in picked:
        assert all(leaf.isfinite().all() for leaf in tensors(one.explainer.attribute(batch)))
    if name == "counted":
        gradient = next(one for one in found if one.name == "Gradient")
        assert not gradient.picked and gradient.reason and "FeatureAblation" in [one.name for one in picked]


def test_metrics_do_not_compare_raw_with_normalised_maps():
    """PnPXAI's Sensitivity is 1.73 without any noise: it compares a postprocessed map with raw ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(108, 3)).double()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    for reducer in (None, "sum", "max"):
        explainer = pnpx.Gradient(model, reducer=reducer)
        attributions = explainer.attribute(x)
        assert metrics.Sensitivity(radius=0.0).evaluate(explainer, x, None, attributions).tolist() == [0, 0]
        # Nor does a scale of the maps matter to metrics of their order, sums, or shares.
        for metric in (metrics.AbPC(), metrics.MuFidelity(), metrics.Complexity(), metrics.Sparseness()):
            raw, scaled = (metric.evaluate(explainer, x, None, factor * attributions) for factor in (1, 1000))
            close(raw, scaled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_features", [1, 2, 7])
def test_metrics_of_constant_maps_and_of_fewer_than_ten_features_are_no_nan(n_features):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(n_features, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(2, n_features, dtype=torch.float64)
    explainer = pnpx.Gradient(model)
    for kind in (getattr(metrics, name) for name in metrics.__all__):
        if isinstance(kind, type) and issubclass(kind, metrics.Metric) and kind is not metrics.Metric:
            for value in (0.0, 1.0):
                found = kind().evaluate(explainer, x, None, torch.full_like(x, value))
                assert found.shape == (2,) and not found.isnan().any(), kind
    assert metrics.MoRF().curve(explainer, x).shape == (2, n_features + 1)  # no step is skipped


def test_a_failing_explainer_does_not_end_the_run(x, monkeypatch):
    def fail(self, inputs, targets=None):
        raise RuntimeError("no luck today")

    model = linear()
    made = pnpx.Gradient(model), pnpx.SmoothGrad(model)
    monkeypatch.setattr(pnpx.Gradient, "explain", fail)
    report = pnpx.auto_explain(model, x, explainers=made, metrics=["Complexity"], progress=False)
    assert report.failures == {"Gradient": "RuntimeError: no luck today"}
    assert list(report.explanations) == ["SmoothGrad"]


def test_an_objective_does_not_grow_with_the_number_of_samples(x):
    """PnPXAI's is a sum: twice the samples, twice the value."""
    pytest.importorskip("optuna", reason="tuning takes it: pip install '.[tune]'")
    from pnpx.optimizer import optimize

    explainer = pnpx.SmoothGrad(nn.Sequential(linear(), nn.Tanh(), nn.Linear(3, 2).double()))
    one, twice = (optimize(explainer, metrics.AbPC(), batch, n_trials=2).baseline for batch in (x, torch.cat([x, x])))
    assert one == pytest.approx(twice)
