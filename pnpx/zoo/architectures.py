"""The networks of the zoo: small, of the usual kinds, with submodule names that read well as layers."""

import torch
from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """A convolutional network with batch norm and in-place ReLUs.

    ``forward`` takes images (batch, 1, height=8, width=8) and returns logits (batch, classes=10). ``conv1`` and
    ``conv2`` give (batch, 16, 8, 8) and (batch, 32, 4, 4), the latter after ``pool1`` has halved the image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool2 = nn.AvgPool2d(2)
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(128, 64)
        self.relu3 = nn.ReLU(inplace=True)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 1, 8, 8) to logits (batch, 10)."""
        maps = self.pool1(self.relu1(self.norm1(self.conv1(images))))
        maps = self.pool2(self.relu2(self.norm2(self.conv2(maps))))
        logits: Tensor = self.head(self.relu3(self.hidden(self.flatten(maps))))
        return logits


class DigitsLSTM(nn.Module):
    """An LSTM that reads a digit row by row, from the top, and classifies by its last output.

    ``forward`` takes rows (batch, time=8, features=8) and returns logits (batch, classes=10). ``lstm`` gives
    (outputs (batch, 8, 64), (hidden (1, batch, 64), cell (1, batch, 64))).
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (batch, 8, 8) to logits (batch, 10)."""
        outputs, _ = self.lstm(rows)
        logits: Tensor = self.head(outputs[:, -1])
        return logits


class DigitsRNN(nn.Module):
    """A plain (Elman) recurrent network that reads a digit row by row and classifies by its last output.

    ``forward`` takes rows (batch, time=8, features=8) and returns logits (batch, classes=10). ``rnn`` gives
    (outputs (batch, 8, 64), hidden (1, batch, 64)).
    """

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (batch, 8, 8) to logits (batch, 10)."""
        outputs, _ = self.rnn(rows)
        logits: Tensor = self.head(outputs[:, -1])
        return logits


class AttentionBlock(nn.Module):
    """A pre-norm transformer block on tokens (batch, tokens, channels), which it returns in the same shape.

    ``attention`` is called with one tensor as query, key and value, and gives (tokens, None).
    """

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, n_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.gelu = nn.GELU()
        self.contract = nn.Linear(2 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, tokens, channels) to the same shape."""
        normed = self.norm1(tokens)
        mixed, _ = self.attention(normed, normed, normed, need_weights=False)
        tokens = tokens + mixed
        mapped: Tensor = self.contract(self.gelu(self.expand(self.norm2(tokens))))
        return tokens + mapped


class DigitsAttention(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) with a class token.

    ``forward`` takes images (batch, 1, height=8, width=8) and returns logits (batch, classes=10). ``patches`` gives
    (batch, 32, 4, 4), one vector for each 2x2 patch; the blocks pass on (batch, tokens=17, channels=32), where token 0
    is the class token and the others are the patches, row by row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, kernel_size=2, stride=2)
        self.class_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, 32), std=0.02))
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 17, 32), std=0.02))
        self.block1 = AttentionBlock(32, n_heads=4)
        self.block2 = AttentionBlock(32, n_heads=4)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 1, 8, 8) to logits (batch, 10)."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1) + self.positions
        tokens = self.block2(self.block1(tokens))
        logits: Tensor = self.head(self.norm(tokens)[:, 0])
        return logits


class BreastCancerMLP(nn.Module):
    """A multilayer perceptron on standardised features.

    ``forward`` takes features (batch, features=30) and returns logits (batch, classes=2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(30, 32)
        self.relu1 = nn.ReLU()
        self.hidden2 = nn.Linear(32, 16)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(16, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Features (batch, 30) to logits (batch, 2)."""
        logits: Tensor = self.head(self.relu2(self.hidden2(self.relu1(self.hidden1(features)))))
        return logits
