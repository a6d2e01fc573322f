"""Reading the rated sentences: each line as it is written, and documents never on both sides of a split."""

import pytest

from pnpx.zoo.rated import SOURCES, RatedSentence, fingerprint, read_sentences, split_sentences


@pytest.fixture
def folder(tmp_path):
    for source in SOURCES:
        (tmp_path / f"{source}_GroundTruth.txt").write_bytes(b"")
    return tmp_path


def fill(folder, source, *lines):
    (folder / f"{source}_GroundTruth.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def test_lines_are_read_with_their_document(folder):
    fill(folder, "movieReviewSnippets", "\ufeff1\t2.25\tA ''joy''.", "2\t-0.5\tDull.")
    fill(folder, "amazonReviewSnippets", "117_3\t3.05\tgreat  zoom ", "117_4\t-1.45\tpoor battery")
    fill(folder, "tweets", "7\t1\tme &amp; you")
    assert read_sentences(folder) == [
        RatedSentence('A "joy".', 2.25, "movieReviewSnippets/1"),
        RatedSentence("Dull.", -0.5, "movieReviewSnippets/2"),
        RatedSentence("great zoom", 3.05, "amazonReviewSnippets/117"),
        RatedSentence("poor battery", -1.45, "amazonReviewSnippets/117"),
        RatedSentence("me & you", 1.0, "tweets/7"),
    ]


def test_neutral_sentences_and_repetitions_are_left_out(folder):
    fill(folder, "tweets", "1\t0.49\tfine", "2\t-0.49\tmeh", "3\t0.5\tGood", "4\t2\tgood", "5\t0\tGreat", "6\t3\tgreat")
    assert read_sentences(folder) == [RatedSentence("Good", 0.5, "tweets/3")]


@pytest.mark.parametrize("line", ["1\thigh\tgood", "1 2.0 good", ""])
def test_a_line_of_another_form_is_named(folder, line):
    fill(folder, "tweets", "1\t2\tgood", line)
    with pytest.raises(ValueError) as error:
        read_sentences(folder)
    assert str(error.value) == (
        f"tweets_GroundTruth.txt:2: must be an identifier, a rating and a sentence, with tabs between, but is {line!r}"
    )


def test_a_missing_file_is_named_with_how_to_get_it(folder):
    (folder / "tweets_GroundTruth.txt").unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_sentences(folder)
    assert str(error.value) == (
        f"there is no file 'tweets_GroundTruth.txt' in the folder {str(folder)!r}; get the sentences by: pip download "
        "--no-deps --no-binary :all: vaderSentiment==3.3.2; unpack the archive, and in its folder additional_resources "
        "unpack hutto_ICWSM_2014.tar.gz, which makes the folder to name"
    )


def test_the_split_is_by_document_and_leaves_nothing_out():
    sentences = [RatedSentence(f"{n}", 1.0, f"tweets/{n // 3}") for n in range(6000)]
    train, test = split_sentences(sentences, "train"), split_sentences(sentences, "test")
    assert sorted([*train, *test], key=lambda one: int(one.text)) == sentences
    assert not {one.document for one in train} & {one.document for one in test}
    assert len(test) / len(sentences) == pytest.approx(0.2, abs=0.03)
    assert split_sentences(sentences[::-1], "test") == test[::-1]
    assert split_sentences(sentences, "test", seed=1) != test


def test_the_held_out_documents_are_those_the_weights_were_measured_on():
    """Should the split ever change, the shipped model would be measured on what it was trained on."""
    sentences = [RatedSentence("", 1.0, f"tweets/{n}") for n in range(1, 31)]
    assert [int(one.document[7:]) for one in split_sentences(sentences, "test")] == [2, 5, 22, 24, 26, 27, 28, 29]


def test_the_fingerprint_changes_with_anything():
    first = [RatedSentence("a", 1.0, "d/1"), RatedSentence("b", 2.0, "d/2")]
    changed = [RatedSentence("b", 2.5, "d/2"), RatedSentence("c", 2.0, "d/2")]
    others = [first[::-1], first[:1], *([first[0], second] for second in changed)]
    assert len({fingerprint(one) for one in [first, *others]}) == 5 and len(fingerprint(first)) == 16
