"""VADER's human-rated sentences, on which the sentiment model is trained; they are not shipped with pnpx.

They come with the source distribution of vaderSentiment 3.3.2 (MIT licence): Hutto and Gilbert 2014, "VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM. About twenty people rated each of
23,703 sentences from film reviews, product reviews, editorials and tweets from -4, extremely negative, to 4.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pnpx.zoo.datasets import SPLIT_SEED, Split

PACKAGE = "vaderSentiment==3.3.2"
SOURCES = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
NEUTRAL = 0.5  # a mean rating nearer to 0 than this would round to it: neither positive nor negative
HELD_OUT = 0.2
HOW_TO_GET = (
    f"get the sentences by: pip download --no-deps --no-binary :all: {PACKAGE}; unpack the archive, and in its folder "
    "additional_resources unpack hutto_ICWSM_2014.tar.gz, which makes the folder to name"
)


@dataclass(frozen=True)
class RatedSentence:
    """A sentence and the mean of its ratings, from -4 to 4; ``document`` is the review or the article it is from."""

    text: str
    rating: float
    document: str


def read_sentences(folder: Path) -> list[RatedSentence]:
    """The sentences in the four text files ``*_GroundTruth.txt`` of ``folder``, without repetitions and neutral ones.

    Each line holds an identifier, a mean rating and a sentence, with tabs between. Identifiers of product reviews and
    editorials begin with the number of the document; films and tweets are documents of one sentence.

    Raises FileNotFoundError, which says how to get the files, if one is missing, and ValueError for a line that is not
    of this form.
    """
    found: dict[str, RatedSentence] = {}
    for source in SOURCES:
        path = folder / f"{source}_GroundTruth.txt"
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path.name!r} in the folder {str(folder)!r}; {HOW_TO_GET}")
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            sentence = _parse(line, source, f"{path.name}:{number}")
            found.setdefault(sentence.text.casefold(), sentence)
    return [sentence for sentence in found.values() if abs(sentence.rating) >= NEUTRAL]


def split_sentences(
    sentences: Iterable[RatedSentence], split: Split, seed: int = SPLIT_SEED, share: float = HELD_OUT
) -> list[RatedSentence]:
    """One split of ``sentences``, in their order: a ``share`` of the documents is held out as "test".

    Where a document falls depends on its name and ``seed`` alone, so that sentences of one are never on both sides.
    """
    return [one for one in sentences if (_position(one.document, seed) < share) == (split == "test")]


def fingerprint(sentences: Sequence[RatedSentence]) -> str:
    """Sixteen hexadecimal digits that change with any text, rating or order of ``sentences``."""
    content = "\n".join(f"{one.document}\t{one.rating}\t{one.text}" for one in sentences)
    return sha256(content.encode()).hexdigest()[:16]


def _parse(line: str, source: str, place: str) -> RatedSentence:
    identifier, _, rest = line.partition("\t")
    rating, _, text = rest.partition("\t")
    plain = " ".join(html.unescape(text).replace("''", '"').split())  # the files write quotation marks as two primes
    try:
        return RatedSentence(plain, float(rating), f"{source}/{identifier.partition('_')[0]}")
    except ValueError:
        raise ValueError(
            f"{place}: must be an identifier, a rating and a sentence, with tabs between, but is {line[:60]!r}"
        ) from None


def _position(document: str, seed: int) -> float:
    """A number in [0, 1) that is spread evenly over documents and the same on every machine."""
    return int(sha256(f"{seed}/{document}".encode()).hexdigest()[:8], 16) / 16**8
