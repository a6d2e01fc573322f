"""Where token ids become vectors."""

import pytest
import torch
from torch import nn

from pnpx.extractors import extract
from pnpx.recommender.embeddings import Embedded, embeddings_of

IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


class Reads(nn.Module):
    """Looks ids up, after having made something of them."""

    def __init__(self, make=lambda ids: ids, padding=None):
        super().__init__()
        self.make, self.table, self.places = make, nn.Embedding(50, 4, padding_idx=padding), nn.Embedding(9, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        places = self.places(torch.arange(ids.numel()).reshape(ids.shape) % 9)
        return self.head((self.table(self.make(ids)).reshape(*ids.shape, 4) + places).mean(1))


class Twice(Reads):
    def forward(self, ids):
        return super().forward(ids) + self.head(self.table(ids[:, :1]).mean(1))


class TextEmbeddings(nn.Module):
    """As Hugging Face's: words and positions together."""

    def __init__(self):
        super().__init__()
        self.word_embeddings, self.norm = nn.Embedding(20, 4, padding_idx=2), nn.LayerNorm(4)

    def forward(self, input_ids=None):
        return self.norm(self.word_embeddings(input_ids))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings, self.head = TextEmbeddings(), nn.Linear(4, 2)

    def forward(self, input_ids):
        return self.head(self.embeddings(input_ids=input_ids).mean(1))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Embedding(20, 4), nn.Embedding(20, 4)

    def forward(self, a, b):
        return self.right(b).mean(1) - self.left(a).mean(1)


def found(model, *batch):
    return embeddings_of(model, extract(model, batch if len(batch) > 1 else batch[0]))


def test_the_table_that_gets_the_ids():
    assert found(Reads(), IDS) == [Embedded("table", None)]
    assert found(Reads(padding=3), IDS) == [Embedded("table", 3)]


@pytest.mark.parametrize("make", [lambda ids: ids.T, lambda ids: ids + 7, lambda ids: ids.flatten()])
def test_ids_may_be_changed_before(make):
    class Turned(Reads):
        def forward(self, ids):
            return self.head(self.table(self.make(ids)).reshape(len(ids), -1, 4).mean(1))

    assert found(Turned(make), IDS) == [Embedded("table", None)]


def test_a_table_read_twice_is_explained_where_it_reads_the_ids():
    assert found(Twice(), IDS) == [Embedded("table#1", None)]


def test_what_makes_vectors_of_tokens_and_positions_comes_first():
    assert found(Classifier(), IDS) == [Embedded("embeddings", 2), Embedded("embeddings.word_embeddings", 2)]


def test_several_ids_have_a_place_each():
    assert found(Pair(), IDS, IDS + 7) == [Embedded(("left", "right"), None)]


def test_no_table():
    class Counted(nn.Module):
        def forward(self, ids):
            return torch.nn.functional.one_hot(ids, 20).float().mean(1)

    assert found(Counted(), IDS) == []
    assert found(nn.Linear(3, 2), IDS.float()) == []


def test_padding_of_the_configuration():
    class Configured(Reads):
        config = type("Config", (), {"pad_token_id": 5})()

    assert found(Configured(), IDS) == [Embedded("table", 5)]
    Configured.config.pad_token_id = 50  # which the table does not have
    assert found(Configured(), IDS) == [Embedded("table", None)]


def test_the_model_is_left_as_it_was():
    model = Reads().train()
    found(model, IDS)
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())

    class Fails(Reads):
        def forward(self, ids):
            super().forward(ids)
            raise ValueError("no")

    model = Fails()
    with pytest.raises(ValueError, match="no"):
        found(model, IDS)
    assert not any(module._forward_pre_hooks for module in model.modules())
