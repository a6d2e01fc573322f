"""A small zoo: networks of the usual kinds, trained and shipped, with the data that they were trained on.

``names()`` lists the models, ``entry(name)`` describes one, ``load(name)`` gives it trained; ``data_names()`` lists the
data sets and ``data(name, split)`` gives one, which takes scikit-learn. ``python -m pnpx.zoo.train`` trains them again.

``text_names()`` lists the models that read texts, which take transformers: ``load(name)`` and ``tokenizer(name)``, or
``from_pretrained`` with ``text_folder(name)``; ``sentences()`` are texts to show them. ``python -m
pnpx.zoo.train_sentiment`` trains the one there is again.
"""

from pnpx.zoo.datasets import ZooData, data, data_names
from pnpx.zoo.examples import TextData, sentences
from pnpx.zoo.registry import TextEntry, ZooEntry, entry, load, names, text_folder, text_names, tokenizer

__all__ = [
    "TextData",
    "TextEntry",
    "ZooData",
    "ZooEntry",
    "data",
    "data_names",
    "entry",
    "load",
    "names",
    "sentences",
    "text_folder",
    "text_names",
    "tokenizer",
]
