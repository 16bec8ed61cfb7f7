"""Words, vocabularies and the errors of text files."""

from pathlib import Path

import pytest

from darts_cli.errors import DataError
from darts_cli.spaces.rnn.text import build_vocabulary, encode, find_folder, find_pydoc


def make_corpus(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for split, text in ({"train": "a b\nb c\n", "valid": "a\n", "test": "b\n"} | texts).items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


def test_every_line_ends_with_eos_and_empty_ones_are_it_alone(tmp_path: Path) -> None:
    text = find_folder(
        make_corpus(tmp_path / "c", train="the cat\n\n sat  down "), "c", complete=True
    )
    assert list(text["train"]()) == [
        ["the", "cat", "<eos>"],
        ["<eos>"],
        ["sat", "down", "<eos>"],
    ]


def test_the_vocabulary_is_in_order_of_appearance() -> None:
    assert build_vocabulary([["b", "a", "<eos>"], ["a", "c", "<eos>"]], 1) == (
        "b",
        "a",
        "<eos>",
        "c",
    )


def test_rare_words_become_unk() -> None:
    lines = [["b", "a", "<eos>"], ["a", "c", "<eos>"]]
    vocabulary = build_vocabulary(lines, 2)
    assert vocabulary == ("a", "<eos>", "<unk>")
    assert encode(lines, vocabulary, "x").tolist() == [2, 0, 1, 0, 2, 1]


def test_eos_is_kept_however_rare() -> None:
    assert build_vocabulary([["a", "a", "<eos>"]], 2) == ("a", "<unk>", "<eos>")


def test_a_new_word_is_unk_where_the_text_has_one_and_an_error_elsewhere() -> None:
    assert encode([["x", "<eos>"]], ("<unk>", "<eos>"), "t").tolist() == [0, 1]
    with pytest.raises(DataError) as refusal:
        encode([["a", "<eos>"], ["x", "<eos>"]], ("a", "<eos>"), "flowers, valid")
    assert str(refusal.value) == (
        "flowers, valid, line 2: found 'x', which is not in the vocabulary of the training text, "
        "and neither is <unk>; train with --min-count 2, which maps rare words to it"
    )


def test_a_missing_folder_says_which_files_it_must_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        find_folder(tmp_path / "no", "ptb", complete=True)
    assert str(refusal.value) == (
        "--data ptb: expected a folder with train.txt, valid.txt and test.txt, found no folder "
        f"{tmp_path / 'no'}; put them there, give another folder, or use --data pydoc, "
        "which needs no files"
    )
    folder = make_corpus(tmp_path / "c")
    (folder / "valid.txt").unlink()
    with pytest.raises(DataError, match=r"found no valid\.txt in "):
        find_folder(folder, str(folder), complete=True)


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "c")
    (folder / "train.txt").write_bytes(b"good\nbad \xff byte\n")
    with pytest.raises(DataError) as refusal:
        list(find_folder(folder, "c", complete=True)["train"]())
    assert str(refusal.value) == (
        f"{folder / 'train.txt'}, line 2: found byte 0xff, expected UTF-8; "
        "convert the file, for instance with iconv"
    )


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n"])
def test_a_file_without_words_is_refused(tmp_path: Path, text: str) -> None:
    folder = make_corpus(tmp_path / "c", valid=text)
    with pytest.raises(DataError, match=r"valid\.txt: found no words, expected text"):
        list(find_folder(folder, "c", complete=True)["valid"]())


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "c")
    lines = find_folder(folder, "c", complete=True)["train"]
    (folder / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt: cannot be read \(No such file"):
        list(lines())


def test_pydoc_has_three_disjoint_parts_of_its_topics() -> None:
    text = find_pydoc()
    sizes = {split: sum(map(len, lines())) for split, lines in text.items()}
    assert sizes["train"] > 50_000
    assert min(sizes.values()) > 1_000
    assert list(text["test"]()) == list(text["test"]())


def test_a_mark_before_the_first_line_is_no_part_of_a_word(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "c")
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfthe cat\n\xef\xbb\xbfsat\n")
    found = find_folder(folder, "c", complete=True)["train"]()
    assert list(found) == [["the", "cat", "<eos>"], ["\ufeffsat", "<eos>"]]
