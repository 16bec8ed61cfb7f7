"""The commands on text, end to end: search, derive, train, evaluate, draw, stop and resume."""

import json
import math
import random
from pathlib import Path

import pytest

from darts_cli.genotype.file import load
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.conftest import Darts, assert_same_bits, call, contents, read_metrics

SIZE = ("--width", 8, "--batch-size", 4, "--set", "data.segment=6", "--device", "cpu")
SEARCH = ("search", "rnn", *SIZE, "--epochs", 2)
LIGHT = ("--set", "network={dropout_output: 0.1, dropout_input: 0.1, dropout_hidden: 0.1}")
TRAIN = ("train", "--genotype", "rnn_darts_v2", *SIZE, *LIGHT, "--epochs", 6)
# So that a run this short comes to it.
AVERAGING = ("--set", "weights.averaging_patience=1")


def make_corpus(folder: Path) -> Path:
    """A text with a rhythm: each word is followed by one of two."""
    folder.mkdir(parents=True)
    draw = random.Random(0)  # noqa: S311 (not for secrets)
    for split, lines in (("train", 60), ("valid", 25), ("test", 20)):
        text = []
        for _ in range(lines):
            word, words = 0, []
            for _ in range(draw.randint(3, 7)):
                word = (2 * word + draw.randint(1, 2)) % 11
                words.append(f"w{word}")
            text.append(" ".join(words))
        (folder / f"{split}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def verses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("text") / "verses")


@pytest.fixture(scope="session")
def searched_text(verses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return call(*SEARCH, "--data", verses, "--out", tmp_path_factory.mktemp("s") / "run").path


@pytest.fixture(scope="session")
def trained_text(verses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t") / "run"
    return call(*TRAIN, *AVERAGING, "--data", verses, "--out", path).path


def test_a_search_leaves_the_same_files_as_one_of_images(searched_text: Path) -> None:
    assert set(contents(searched_text)) == {
        *(
            ".lock",
            "previous.safetensors",
            "alphas",
            "config.yaml",
            "genotype.yaml",
            "last.safetensors",
            "log.txt",
        ),
        *("metrics.jsonl", "alphas/epoch-0001.safetensors", "alphas/epoch-0002.safetensors"),
    }
    genotype = load(searched_text / "genotype.yaml", SPACES)
    assert genotype.space == "rnn"
    assert len(genotype.cells["recurrent"].nodes) == 8
    for record in read_metrics(searched_text):
        assert record["valid"].keys() == {"loss", "perplexity", "bits_per_word"}
        assert record["valid"]["perplexity"] == pytest.approx(math.exp(record["valid"]["loss"]))
        assert record["skip_connections"].keys() == {"recurrent"}
        assert record["lr"] == 20


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_search_stopped_again_and_again_ends_with_the_same_bits(
    darts: Darts, verses: Path, searched_text: Path, order: str
) -> None:
    command = (*SEARCH, "--order", order, "--data", verses)
    # The other one is of second order.
    whole = searched_text if order == "second" else darts(*command, "--out", "whole").path
    darts(*command, "--out", "broken", "--max-steps", 1)
    for steps in (2, 5, 13, 14):
        darts("search", "rnn", "--resume", "broken", "--max-steps", steps)
    assert_same_bits(whole, darts("search", "rnn", "--resume", "broken").path)


def test_a_training_stopped_again_and_again_ends_with_the_same_bits(
    darts: Darts, verses: Path, trained_text: Path
) -> None:
    darts(*TRAIN, *AVERAGING, "--data", verses, "--out", "broken", "--max-steps", 1)
    total = read_metrics(trained_text)[-1]["step"]
    for steps in (2, 7, total // 2, total - 1):
        darts("train", "--resume", "broken", "--max-steps", steps)
    assert_same_bits(trained_text, darts("train", "--resume", "broken").path)
    metadata = checkpoint.read_metadata(trained_text / "last.safetensors")
    assert metadata["averaged"] is not None


def test_training_learns_the_text(trained_text: Path) -> None:
    records = read_metrics(trained_text)
    vocabulary = checkpoint.read_metadata(trained_text / "best.safetensors")["facts"]["vocabulary"]
    assert records[-1]["valid"]["perplexity"] < 0.8 * len(vocabulary)


def test_a_derived_cell_is_trained_and_drawn(
    darts: Darts, verses: Path, searched_text: Path
) -> None:
    genotype = darts("derive", searched_text, "--output", "g.yaml").path
    train = ("train", "--genotype", genotype, *SIZE, "--epochs", 1, "--data", verses)
    assert darts(*train, "--out", "run").path == Path("run")
    assert darts("viz", genotype, "--output", "cell.svg").path.read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["rnn_darts_v1", "rnn_darts_v2", "rnn_enas"])
def test_shipped_recurrent_cells_are_drawn_in_the_terminal(darts: Darts, name: str) -> None:
    result = darts("viz", name)
    assert result.status == 0
    assert "recurrent" in result.out
    assert result.out.count("node ") >= len(load(name, SPACES).cells["recurrent"].nodes)


def test_evaluation_measures_every_word_but_the_first(
    darts: Darts, verses: Path, trained_text: Path
) -> None:
    words = sum(len(line.split()) + 1 for line in (verses / "test.txt").read_text().splitlines())
    found = {}
    for batch in (1, 10):
        result = darts("eval", trained_text, "--batch-size", batch)
        found[batch] = json.loads(result.path.read_text())
        assert f"({words - 1:,} words)" in result.out
        assert found[batch]["batch_size"] == batch
    assert found[1]["examples"] == found[10]["examples"] == words - 1
    assert found[1]["perplexity"] == pytest.approx(math.exp(found[1]["loss"]))
    assert found[1]["bits_per_word"] == pytest.approx(found[1]["loss"] / math.log(2))
    # The state that a row begins with is all that differs.
    assert found[1]["loss"] != found[10]["loss"]
    assert found[1]["loss"] == pytest.approx(found[10]["loss"], rel=0.1)
    result = darts("eval", trained_text)
    assert json.loads(result.path.read_text()) == found[1]
    lines = result.out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["valid", "test"]
    assert [Path(line).name for line in lines[1::2]] == ["best-valid.json", "best-test.json"]


def test_what_is_evaluated_is_the_best_epoch_as_it_was_watched(
    darts: Darts, trained_text: Path
) -> None:
    best = min(record["valid"]["loss"] for record in read_metrics(trained_text))
    path = darts("eval", trained_text, "--split", "valid", "--batch-size", 10).path
    assert json.loads(path.read_text())["loss"] == pytest.approx(best, rel=1e-6)


def test_other_text_is_read_with_the_vocabulary_of_the_checkpoint(
    darts: Darts, trained_text: Path, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path / "other")
    (other / "train.txt").write_text("nothing of this is looked at\n", encoding="utf-8")
    (other / "valid.txt").write_text("w1 w2\n", encoding="utf-8")
    (other / "test.txt").write_text("w1 w2 w3\nw3 w1\n", encoding="utf-8")
    result = json.loads(darts("eval", trained_text, "--data", other).path.read_text())
    assert result["examples"] == 6
    (other / "test.txt").write_text("w1 w2 w3\nw3 strange\n", encoding="utf-8")
    assert (
        "test, line 2: found 'strange', which is not in the vocabulary of the training text"
        in darts("eval", trained_text, "--data", other).refusal()
    )


def test_other_text_needs_no_more_than_the_split_that_is_read(
    darts: Darts, trained_text: Path, tmp_path: Path
) -> None:
    other = make_corpus(tmp_path / "other")
    (other / "train.txt").unlink()
    (other / "valid.txt").unlink()
    assert darts("eval", trained_text, "--data", other).path.is_file()
    assert darts("eval", trained_text, "--data", other, "--split", "valid").refusal() == (
        f"{other}: found no split 'valid' to read; use one of test"
    )
    (other / "test.txt").unlink()
    assert darts("eval", trained_text, "--data", other).refusal() == (
        f"--data {other}: expected a folder with train.txt, valid.txt and test.txt, "
        f"found no train.txt in {other}; put it there"
    )


def test_a_run_does_not_go_on_with_another_text(darts: Darts, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "letters")
    run = darts(*SEARCH, "--data", corpus, "--max-steps", 1, "--out", "run").path
    words = len((corpus / "train.txt").read_text().split())
    lines = (corpus / "train.txt").read_text().splitlines()
    (corpus / "train.txt").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    found = words + len(lines) - len(lines[-1].split()) - 1
    assert darts("search", "rnn", "--resume", run).refusal() == (
        f"{corpus}: found {found:,} train words, expected the {words + len(lines):,} that the run "
        "began with; give it that data, or start a new run"
    )


def test_a_run_of_one_space_is_not_resumed_as_one_of_the_other(darts: Darts, verses: Path) -> None:
    run = darts(*SEARCH, "--data", verses, "--max-steps", 1, "--out", "run").path
    assert darts("search", "cnn", "--resume", run).refusal() == (
        "run: found a run of darts search rnn, expected one of darts search cnn"
    )


def test_a_folder_of_texts_is_found_again_from_elsewhere(
    darts: Darts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(Path("texts/ptb"))
    run = darts(
        *SEARCH, "--set", "data.root=texts", "--max-steps", 1, "--out", "run"
    ).path.resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert darts("search", "rnn", "--resume", run, "--max-steps", 2).status == 0


def test_a_plan_of_a_text_too_short_is_refused_like_the_run(darts: Darts, verses: Path) -> None:
    text = darts(*SEARCH, "--data", verses, "--batch-size", 500, "--dry-run").refusal()
    assert "expected 3,001 or more for one batch of 500 segments of 6" in text
    assert text.endswith("use more text, a smaller --batch-size or a smaller --set data.segment=N")


def test_smoothed_labels_are_not_for_text(darts: Darts, verses: Path) -> None:
    text = darts(*SEARCH, "--data", verses, "--set", "weights.label_smoothing=0.1").refusal()
    assert text == (
        "weights.label_smoothing: found 0.1, expected 0 for text, "
        "whose loss is the plain cross-entropy"
    )


def test_a_plan_tells_sizes_without_training(darts: Darts, verses: Path) -> None:
    result = darts(*SEARCH, "--data", verses, "--dry-run")
    plan = json.loads(result.out)
    assert plan["space"] == "rnn"
    assert plan["alphas"] == 180
    assert plan["data"]["vocabulary"] == 12
    assert plan["parameters"] == 12 * 8 + 16 * 16 + 8 * 8 * 16 + 12
    assert "for one word" in result.err
    assert not Path("runs").exists()


def test_pydoc_needs_no_files(darts: Darts) -> None:
    size = ("--width", 4, "--min-count", 100, "--max-steps", 1)
    run = darts("search", "rnn", "--data", "pydoc", *size).path
    assert (run / "last.safetensors").is_file()


def test_a_flag_of_the_other_space_is_named(darts: Darts) -> None:
    assert darts("search", "rnn", "--channels", 4).refusal() == (
        "--channels: not for rnn, expected --set network.KEY=VALUE with one of width, "
        "dropout_output, dropout_hidden, dropout_input, dropout_embedding, dropout_words, "
        "activation, slowness"
    )
    assert (
        darts("train", "--genotype", "darts_v2", "--width", 4)
        .refusal()
        .startswith(
            "--width: not for cnn, expected --set network.KEY=VALUE with one of stem, channels, "
        )
    )


def test_a_missing_corpus_is_one_line(darts: Darts, tmp_path: Path) -> None:
    text = darts("search", "rnn", "--set", f"data.root={tmp_path}").refusal()
    assert text == (
        "--data ptb: expected a folder with train.txt, valid.txt and test.txt, found no folder "
        f"{tmp_path / 'ptb'}; put them there, give another folder, or use --data pydoc, "
        "which needs no files"
    )


def test_a_text_too_short_for_a_batch_leaves_nothing_behind(darts: Darts, verses: Path) -> None:
    text = darts(*SEARCH, "--data", verses, "--batch-size", 500, "--out", "run").refusal()
    assert "expected 3,001 or more for one batch of 500 segments of 6" in text
    assert not Path("run").exists()


def test_a_search_needs_two_segments_side_by_side(darts: Darts, verses: Path) -> None:
    text = darts(*SEARCH, "--data", verses, "--batch-size", 1, "--out", "run").refusal()
    assert text == (
        "--batch-size 1: expected 2 or more in a search, "
        "whose BatchNorm is over the segments of a step"
    )
    assert not Path("run").exists()


def test_a_run_whose_training_text_is_gone_does_not_go_on(darts: Darts, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "letters")
    run = darts(*SEARCH, "--data", corpus, "--max-steps", 1, "--out", "run").path
    (corpus / "train.txt").unlink()
    refusal = darts("search", "rnn", "--resume", run).refusal()
    assert refusal.startswith(f"{corpus}: found 0 train words, expected the ")
