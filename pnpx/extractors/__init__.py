"""From an arbitrary batch to the call of a model: which parts are explained, which only go along.

Only what the extractors take reaches the model. Labels that lie in the batch are therefore no danger.
"""

from pnpx.extractors.call import Call, batch_axes, is_by_sample
from pnpx.extractors.extraction import extract
from pnpx.extractors.labelled import without_labels
from pnpx.extractors.ready_made import Extractor, Item, Items, Keywords, Shared, named_by, part_of
from pnpx.extractors.signature import LABELS, Signature

__all__ = [
    "LABELS",
    "Call",
    "Extractor",
    "Item",
    "Items",
    "Keywords",
    "Shared",
    "Signature",
    "batch_axes",
    "extract",
    "is_by_sample",
    "named_by",
    "part_of",
    "without_labels",
]
