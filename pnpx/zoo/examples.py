"""Sentences of our own, with the sentiment that a reader finds in them, to explain the sentiment model on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pnpx.zoo.datasets import Kind

CLASS_NAMES = ("NEGATIVE", "POSITIVE")


@dataclass(frozen=True, eq=False)
class TextData:
    """Texts and their classes: ``targets`` are int64 (texts,), ``class_names[targets[i]]`` is text i's."""

    name: str
    texts: tuple[str, ...]
    targets: Tensor
    class_names: tuple[str, ...]
    kind: Kind = "text"

    def __len__(self) -> int:
        return len(self.texts)


def sentences() -> TextData:
    """Twenty-four sentences, half of them positive, short and long, with negation, contrast, accents and two clauses.

    They were written for pnpx; no model was trained on them, or chosen by them. The sentiment model misreads four, all
    with a negation or a contrast, as it goes more by single words than by how they combine.
    """
    texts = tuple(text for text, _ in _SENTENCES)
    targets = torch.tensor([CLASS_NAMES.index(label) for _, label in _SENTENCES])
    return TextData("sentences", texts, targets, CLASS_NAMES)


_SENTENCES = (
    ("A film of rare beauty.", "POSITIVE"),
    ("I left after ten minutes, bored and annoyed.", "NEGATIVE"),
    ("The staff were friendly and the food was delicious.", "POSITIVE"),
    ("The battery died within a week, and nobody at the shop would help.", "NEGATIVE"),
    ("What a wonderful evening!", "POSITIVE"),
    ("Dreadful.", "NEGATIVE"),
    ("It is not a great book, and the ending is a mess.", "NEGATIVE"),
    ("Not bad at all: I laughed from beginning to end.", "POSITIVE"),
    ("The trailer looked dull, but the film itself is a joy.", "POSITIVE"),
    ("The actors are talented, but the story is stupid and far too long.", "NEGATIVE"),
    ("I love this little camera; the pictures are sharp and it is easy to use.", "POSITIVE"),
    ("The screen cracked on the first day, which was a terrible disappointment.", "NEGATIVE"),
    ("Thank you all for the kind words, you made my day.", "POSITIVE"),
    ("Another war, another famine, and thousands of people killed.", "NEGATIVE"),
    (
        "We sat in the café until midnight, happy to be together again, and agreed that it had been the best holiday "
        "of our lives.",
        "POSITIVE",
    ),
    (
        "After three calls, two broken promises and a wrong invoice I gave up, and I will never buy anything from this "
        "company again.",
        "NEGATIVE",
    ),
    ("The new law protects children and gives hope to poor families.", "POSITIVE"),
    ("The government failed the victims of the flood, and its excuses are an insult.", "NEGATIVE"),
    ("Smart, funny and surprisingly moving.", "POSITIVE"),
    ("This phone isn't worth the money.", "NEGATIVE"),
    ("She won the prize, and everyone in the village is proud of her.", "POSITIVE"),
    ("The room was dirty, the bed was hard and the noise never stopped.", "NEGATIVE"),
    ("It works perfectly, and I would recommend it to anyone.", "POSITIVE"),
    ("He lost his job, and now he is sick with worry.", "NEGATIVE"),
)
