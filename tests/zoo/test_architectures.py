"""The networks give the shapes that their docstrings name, and treat each sample by itself."""

import pytest
import torch

from pnpx.zoo.architectures import BreastCancerMLP, DigitsAttention, DigitsCNN, DigitsLSTM, DigitsRNN

NETWORKS = [
    pytest.param(DigitsCNN, (1, 8, 8), 10, id="cnn"),
    pytest.param(DigitsLSTM, (8, 8), 10, id="lstm"),
    pytest.param(DigitsRNN, (8, 8), 10, id="rnn"),
    pytest.param(DigitsAttention, (1, 8, 8), 10, id="attention"),
    pytest.param(BreastCancerMLP, (30,), 2, id="mlp"),
]


@pytest.fixture(autouse=True)
def fixed_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def shapes(value):
    if value is None:
        return None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else tuple(map(shapes, value))


@pytest.mark.parametrize("build, shape, n_classes", NETWORKS)
def test_one_row_of_logits_a_sample(build, shape, n_classes):
    assert build().eval()(torch.rand(3, *shape)).shape == (3, n_classes)


@pytest.mark.parametrize("build, shape, n_classes", NETWORKS)
def test_a_sample_does_not_depend_on_its_neighbours(build, shape, n_classes):
    network, batch = build().eval(), torch.rand(3, *shape)
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]))


@pytest.mark.parametrize("build, shape, n_classes", NETWORKS)
def test_every_parameter_reaches_the_logits(build, shape, n_classes):
    network = build().train()
    network(torch.rand(3, *shape)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("build, shape, layer, expected", [
    (DigitsCNN, (1, 8, 8), "conv1", (2, 16, 8, 8)),
    (DigitsCNN, (1, 8, 8), "conv2", (2, 32, 4, 4)),
    (DigitsLSTM, (8, 8), "lstm", ((2, 8, 64), ((1, 2, 64), (1, 2, 64)))),
    (DigitsRNN, (8, 8), "rnn", ((2, 8, 64), (1, 2, 64))),
    (DigitsAttention, (1, 8, 8), "patches", (2, 32, 4, 4)),
    (DigitsAttention, (1, 8, 8), "block1", (2, 17, 32)),
    (DigitsAttention, (1, 8, 8), "block2.attention", ((2, 17, 32), None)),
])
def test_layers_give_the_documented_shapes(build, shape, layer, expected):
    network, seen = build().eval(), []
    network.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(shapes(output)))
    network(torch.rand(2, *shape))
    assert seen == [expected]


@pytest.mark.parametrize("build", [DigitsLSTM, DigitsRNN])
def test_recurrent_networks_read_from_the_top(build):
    """The first row is seen through seven more steps, so changing the last one moves the outputs of one step only."""
    network, rows = build().eval(), torch.rand(1, 8, 8)
    changed = rows.clone()
    changed[:, -1] += 1
    recurrent = next(network.children())
    difference = (recurrent(rows)[0] - recurrent(changed)[0]).abs().amax((0, 2))
    assert (difference > 0).tolist() == [False] * 7 + [True]
    assert not torch.equal(network(rows), network(changed))


def test_attention_tokens_are_the_class_token_and_the_patches_row_by_row():
    network, image = DigitsAttention().eval(), torch.zeros(1, 1, 8, 8)
    tokens = []
    network.block1.register_forward_pre_hook(lambda module, args: tokens.append(args[0]))
    network(image)
    image[0, 0, 2, 6] = 1  # in the second row of patches, the last column
    network(image)
    moved = (tokens[0] != tokens[1]).any(-1).nonzero()
    assert moved.tolist() == [[0, 1 + 4 + 3]]
