"""Small recurrent models: LSTM, GRU and RNN, on series and on token ids, padded and packed."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pnpx.testing.case import Case
from pnpx.testing.plain import SAMPLES, targets


class _Lstm(nn.Module):
    """Starts an LSTM from a state computed from the input, and reads all that it returns but the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(4, 5)
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = self.start(x[:, 0]).expand(2, -1, -1).contiguous()
        out, (h, _) = self.lstm(x, (state, state))
        return self.head(torch.tanh(torch.cat([out.mean(1), h[-1]], dim=1) * 3))  # type: ignore[no-any-return]


def lstm() -> Case:
    """An LSTM of two layers, batch first; its input and its output are nested tuples."""
    x = torch.randn(SAMPLES, 6, 4)
    return Case(
        "lstm", _Lstm(), x, targets(), (None, "lstm", "lstm:input", "start"), args=(x,), chain=("start", "lstm")
    )


class _SequenceFirst(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.mix, self.rnn, self.head = nn.Linear(4, 4), kind(4, 5), nn.Linear(5, 4)  # type: ignore[call-arg,arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(self.mix(x).transpose(0, 1))
        return self.head(torch.tanh(out[-1] * 3))  # type: ignore[no-any-return]


def gru_sequence_first() -> Case:
    """A GRU of sequences (time, batch, features); the model itself takes (batch, time, features)."""
    x = torch.randn(SAMPLES, 6, 4)
    layers = (None, "rnn", "rnn:input", "mix")
    return Case(
        "gru_sequence_first",
        _SequenceFirst(nn.GRU),
        x,
        targets(),
        layers,
        args=(x,),
        first="mix:input",
        chain=("mix", "rnn"),
    )


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(11, 4), nn.RNN(4, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        out, h = self.rnn(self.embedding(ids))
        return self.head(torch.tanh(out.mean(1) + h[0]))  # type: ignore[no-any-return]


def rnn_tokens() -> Case:
    """An Elman RNN on token ids, batch first; its state has an axis of size 1 before that of the batch."""
    ids = torch.randint(0, 11, (SAMPLES, 6))
    return Case(
        "rnn_tokens",
        _Tokens(),
        ids,
        targets(),
        ("embedding", "rnn", "rnn:input"),
        args=(ids,),
        chain=("embedding", "rnn"),
    )


class _Packing(nn.Module):
    """Packs padded sequences itself."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.gru, self.head = nn.Linear(4, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.mix(x), lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.gru(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True)
        return self.head(torch.tanh(padded.sum(1)))  # type: ignore[no-any-return]


def packing() -> Case:
    """A model that packs sequences of different lengths on its way."""
    x, lengths = torch.randn(SAMPLES, 6, 4), torch.tensor([4, 6, 2])
    return Case(
        "packing",
        _Packing(),
        (x, lengths),
        targets(),
        (None, "mix", "gru:input", "gru"),
        args=(x, lengths),
        parameters={"forward_arg_extractor": 0, "additional_forward_arg_extractor": 1},
        explained=(0,),
        first="mix:input",
        chain=("mix", "gru"),
    )


class _Packed(nn.Module):
    """Takes packed sequences as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5), nn.Linear(5, 4)

    def forward(self, sequences: PackedSequence) -> Tensor:
        _, (h, c) = self.lstm(sequences)
        return self.head(torch.tanh(h[0] * 3 + c[0]))  # type: ignore[no-any-return]


def packed() -> Case:
    """Packed sequences as the batch itself."""
    x, lengths = torch.randn(SAMPLES, 6, 4), torch.tensor([4, 6, 2])
    sequences = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return Case(
        "packed", _Packed(), sequences, targets(), (None, "lstm", "lstm:input"), args=(sequences,), first="lstm:input"
    )
