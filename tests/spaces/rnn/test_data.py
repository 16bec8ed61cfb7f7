"""Text by name or folder: vocabulary, splits, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from darts_cli.config import TextDataConfig
from darts_cli.errors import DataError
from darts_cli.spaces.rnn import data
from darts_cli.spaces.rnn.data import TextData
from darts_cli.spaces.rnn.info import TextInfo
from darts_cli.spaces.rnn.loader import SegmentLoader

CPU = torch.device("cpu")
LINES = "the cat sat\nthe dog ran\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, lines in (("train", 20), ("valid", 6), ("test", 3)):
        (folder / f"{split}.txt").write_text(LINES * lines, encoding="utf-8")
    return folder


def load(folder: Path, *, search: bool = False, **settings: object) -> TextData:
    config = TextDataConfig(name=str(folder), batch_size=2, segment=4)
    return data.load(replace(config, **settings), device=CPU, search=search)  # type: ignore[arg-type]


def test_a_folder_is_read_with_one_eos_a_line(corpus: Path) -> None:
    text = load(corpus)
    assert text.counts == {"train": 160, "valid": 48, "test": 24}
    assert text.info.vocabulary == ("the", "cat", "sat", "<eos>", "dog", "ran")


def test_a_search_never_reads_the_test_text(corpus: Path) -> None:
    (corpus / "test.txt").write_bytes(b"\xff")
    text = load(corpus, search=True)
    assert text.counts.keys() == {"train", "valid"}
    loaders = text.search_loaders(0)
    assert loaders.arch is not None
    assert loaders.eval_split == "valid"
    with pytest.raises(DataError, match="found no split 'test' to read; use one of train, valid"):
        text.evaluation_loader("test", 1)


def test_the_alphas_text_is_cut_in_usual_segments(corpus: Path) -> None:
    loaders = load(corpus, segment_spread=3.0).search_loaders(0)
    assert isinstance(loaders.arch, SegmentLoader)
    lengths = [len(batch.inputs) for batch in loaders.arch.batches(0)]
    assert lengths == [4, 4, 4, 4, 4, 3]
    assert isinstance(loaders.train, SegmentLoader)
    assert loaders.train.lengths.spread == 3.0


def test_a_text_shorter_than_one_batch_of_segments_is_refused_with_the_numbers(
    corpus: Path,
) -> None:
    with pytest.raises(DataError) as refusal:
        load(corpus, batch_size=40).train_loaders(0)
    assert str(refusal.value) == (
        f"{corpus}, train: found 160 words, expected 161 or more for one batch of 40 segments "
        "of 4; use more text, a smaller --batch-size or a smaller --set data.segment=N"
    )


def test_the_vocabulary_of_a_checkpoint_is_kept_to(corpus: Path) -> None:
    info = TextInfo(vocabulary=("<unk>", "<eos>", "dog"))
    config = TextDataConfig(name=str(corpus))
    text = data.load(config, device=CPU, search=False, info=info)
    assert text.info == info
    assert text.read("test")[:8].tolist() == [0, 0, 0, 1, 0, 2, 0, 1]
    assert TextInfo.from_json(text.describe()) == info


def test_words_that_only_valid_has_need_unk(corpus: Path) -> None:
    (corpus / "valid.txt").write_text("a new word\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"valid, line 1: found 'a', .* train with --min-count 2"):
        load(corpus)
    assert "<unk>" in load(corpus, min_count=2).info.vocabulary


@pytest.mark.parametrize("name", ["ptb", "wikitext2"])
def test_a_corpus_by_name_is_looked_for_below_the_root(
    corpus: Path, name: str, tmp_path: Path
) -> None:
    config = TextDataConfig(name=name, root=str(tmp_path))
    with pytest.raises(DataError, match=f"--data {name}: expected a folder with train.txt, "):
        data.load(config, device=CPU, search=False)
    corpus.rename(tmp_path / name)
    assert data.load(config, device=CPU, search=False).counts["train"] == 160
