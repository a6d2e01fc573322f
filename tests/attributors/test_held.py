"""How much memory a pass takes: by autograd's graph, and beside that."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pnpx.attributors.held import Beside, held_bytes

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ones(1, requires_grad=True).exp().grad_fn, "_input_metadata"),
    reason="before PyTorch 2.6 the operations in a graph do not tell what they give out",
)

ROWS, WIDTH = 4, 100
MANY = 2**40


def inputs() -> torch.Tensor:
    return torch.ones(ROWS, WIDTH, requires_grad=True)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_it_is_what_the_operations_give_out():
    x = inputs()
    total = x.sin().exp().sum()
    assert held_bytes([total], MANY) == 4 * (2 * ROWS * WIDTH + 1)
    assert held_bytes([x.double().exp().sum()], MANY) == 8 * (2 * ROWS * WIDTH + 1)


def test_views_hold_nothing_more():
    x = inputs()
    seen = x.view(2, 2, WIDTH).transpose(0, 1)[:, :1].unsqueeze(0).expand(3, 2, 1, WIDTH).permute(3, 0, 1, 2).squeeze()
    assert held_bytes([seen.sum()], MANY) == 4


def test_what_several_scores_share_counts_once():
    hidden = inputs().sin()
    assert held_bytes([hidden.sum(), hidden.sum()], MANY) == 4 * (ROWS * WIDTH + 2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_net_holds_more_than_its_outputs(kind):
    net = kind(WIDTH, WIDTH, batch_first=True).requires_grad_(False)
    outputs = net(torch.ones(ROWS, 9, WIDTH, requires_grad=True))[0]
    held = held_bytes([outputs.sum()], MANY)
    assert held is not None
    assert 2 * 4 * outputs.numel() < held < 30 * 4 * outputs.numel()


def test_a_long_chain_is_followed_to_its_end():
    x = inputs()
    for _ in range(3000):
        x = x + 1
    assert held_bytes([x.sum()], MANY) == 4 * (3000 * ROWS * WIDTH + 1)


def test_over_the_most_there_is_no_number():
    total = inputs().sin().exp().sum()
    assert held_bytes([total], 4 * (2 * ROWS * WIDTH + 1)) is not None
    assert held_bytes([total], 4 * 2 * ROWS * WIDTH) is None


def test_what_somebody_elses_operation_keeps_cannot_be_told():
    assert held_bytes([Doubled.apply(inputs()).sum()], MANY) is None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nor_can_what_nested_tensors_hold(layout):
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=layout, requires_grad=True)
    hidden = nn.functional.linear(nested, torch.ones(5, 3))
    total = (hidden.values() if layout is torch.jagged else torch.nested.to_padded_tensor(hidden, 0.0)).sum()
    assert held_bytes([total], MANY) is None


def test_what_is_checkpointed_is_not_run_again():
    runs = []

    def part(x):
        runs.append(1)
        return x.sin().exp()

    total = checkpoint(part, inputs(), use_reentrant=False).sum()
    held_bytes([total], MANY)
    assert runs == [1]


def test_scores_without_a_graph_hold_nothing():
    assert held_bytes([torch.ones(3)], MANY) == 0


def taken_beside(function, *args):
    with Beside() as beside:
        function(*args)
    return beside.total


def test_beside_the_graph_is_what_has_no_gradient():
    x, constant = inputs(), torch.ones(ROWS, WIDTH)
    assert taken_beside(lambda: (x * constant).sin().exp()) == 0
    assert taken_beside(lambda: x * constant.sin().exp()) == 4 * 2 * ROWS * WIDTH
    assert taken_beside(lambda: constant.max(1)) == (4 + 8) * ROWS
    with torch.no_grad():
        assert taken_beside(lambda: x.double().exp()) == 8 * 2 * ROWS * WIDTH


def test_beside_the_graph_views_and_changes_in_place_take_nothing_more():
    constant = torch.ones(ROWS, WIDTH)
    assert taken_beside(lambda: constant.view(2, 2, WIDTH).transpose(0, 1)[:, :1].expand(3, 2, 1, WIDTH)) == 0
    assert taken_beside(lambda: constant.relu_().add_(1).split(2)) == 0
    assert taken_beside(lambda: (constant.shape, constant.dtype, len(constant), constant.device)) == 0
