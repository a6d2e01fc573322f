"""A small zoo: networks of the usual kinds, trained and shipped, with the data that they were trained on.

``names()`` lists the models, ``entry(name)`` describes one, ``load(name)`` gives it trained; ``data_names()`` lists the
data sets and ``data(name, split)`` gives one, which takes scikit-learn. ``python -m pnpx.zoo.train`` trains them again.
"""

from pnpx.zoo.datasets import ZooData, data, data_names
from pnpx.zoo.registry import ZooEntry, entry, load, names

__all__ = ["ZooData", "ZooEntry", "data", "data_names", "entry", "load", "names"]
