"""`darts export`: what published code loads; and back again, bit for bit."""

import shutil
from pathlib import Path

import pytest
import torch

from darts_cli.genotype.file import load, shipped
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.conftest import Darts, contents
from tests.interop.published import GENOTYPES, save, state_of, write_words

LONG = ("--width", 8, "--batch-size", 4, "--device", "cpu", "--set", "data.segment=5")


@pytest.fixture
def text(darts: Darts) -> Path:
    """A text of 60 words, and long enough for a batch."""
    folder = write_words(Path("text"), 60)
    for split in ("train", "valid"):
        file = folder / f"{split}.txt"
        file.write_text(file.read_text() * 20)
    (folder / "test.txt").write_text("w0 w1\n")
    return folder


def assert_same_network(one: Path, other: Path, prefix: str = "network.") -> None:
    """All weights, buffers and alphas of two checkpoints."""
    first, second = checkpoint.read(one)[0], checkpoint.read(other)[0]
    names = [name for name in first if name.startswith((prefix, "alphas."))]
    assert len(names) > 5
    different = [name for name in names if not torch.equal(first[name], second[name])]
    assert different == []


def test_a_trained_network_comes_back_bit_for_bit(darts: Darts, trained: Path) -> None:
    result = darts("export", trained)
    assert result.out == "run.pt\n"
    assert result.err == f"{trained}/last.safetensors: the weights of darts train\n"
    genotype = ("--genotype", trained / "genotype.yaml")
    back = darts("import", "run.pt", *genotype, "--data", "digits").path
    assert_same_network(trained / "last.safetensors", back)
    found, expected = (checkpoint.read(p)[1] for p in (back, trained / "last.safetensors"))
    for name in ("genotype", "facts"):
        assert found[name] == expected[name]


def test_a_search_comes_back_with_its_alphas(darts: Darts, searched: Path) -> None:
    result = darts("export", searched, "--output", "net.pt")
    assert result.out == "net.pt\n"
    assert result.err == (
        f"{searched}/last.safetensors: the weights of darts search cnn\n"
        "alphas are in net-alphas.pt\n"
    )
    assert torch.load("net-alphas.pt", weights_only=True).keys() == {
        "alphas_normal",
        "alphas_reduce",
    }
    flags = ("--alphas", "net-alphas.pt", "--data", "digits")
    back = darts("import", "net.pt", *flags).path
    assert_same_network(searched / "last.safetensors", back)
    derived = load(darts("derive", back).path, SPACES)
    assert derived.cells == load(searched / "genotype.yaml", SPACES).cells


def test_a_recurrent_search_comes_back_with_its_alphas(darts: Darts, text: Path) -> None:
    run = darts("search", "rnn", "--data", text, *LONG, "--epochs", 1, "--out", "found").path
    darts("export", run)
    state = torch.load("found.pt", weights_only=True)
    assert torch.equal(state["decoder.weight"], state["encoder.weight"])
    assert torch.load("found-alphas.pt", weights_only=True)["alphas"].shape == (36, 5)
    back = darts("import", "found.pt", "--alphas", "found-alphas.pt", "--data", text).path
    assert_same_network(run / "last.safetensors", back)
    # The vocabulary is that of the training text, as it was in the run.
    info = [checkpoint.read(path)[1]["facts"] for path in (back, run / "last.safetensors")]
    assert info[0] == info[1]


def test_of_averaged_weights_the_average_comes_back(darts: Darts, text: Path) -> None:
    train = ("train", "--genotype", "rnn_darts_v2", "--data", text, *LONG, "--epochs", 2)
    run = darts(*train, "--out", "net").path
    (run / "best.safetensors").unlink(missing_ok=True)
    tensors, metadata = checkpoint.read(run / "last.safetensors")
    del metadata["format"]
    names = [name.removeprefix("network.") for name in tensors if name.startswith("network.")]
    averages = {f"average.{name}": torch.rand_like(tensors[f"network.{name}"]) for name in names}
    metadata["averaged"] = 3
    checkpoint.write(run / "last.safetensors", tensors | averages, metadata)
    result = darts("export", run)
    assert result.err == f"{run}/last.safetensors: the average of the weights of darts train\n"
    back = darts("import", "net.pt", "--genotype", "rnn_darts_v2", "--data", text).path
    found = checkpoint.read(back)[0]
    for name in names:
        assert torch.equal(found[f"network.{name}"], averages[f"average.{name}"])


@pytest.mark.parametrize("golden", ["cifar_DARTS_V1", "imagenet_DARTS_V2", "rnn_ENAS"])
def test_an_import_is_exported_as_it_was(darts: Darts, golden: str) -> None:
    save(Path("net.pt"), state_of(golden))
    data = ("--data", write_words(Path("text"), 20)) if golden.startswith("rnn") else ()
    darts("import", "net.pt", "--genotype", GENOTYPES[golden], *data)
    path = darts("export", "net.safetensors", "--output", "back.pt").path
    found, expected = torch.load(path, weights_only=True), state_of(golden)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_search_without_alphas_is_exported_alone(darts: Darts, tmp_path: Path) -> None:
    save(Path("net.pt"), state_of("rnn_search_second"))
    data = ("--data", write_words(Path("text"), 20))
    path = darts("import", "net.pt", *data).path
    result = darts("export", path, "--output", "back.pt")
    assert result.err == "net.safetensors: the weights of darts search rnn\n"
    assert not Path("back-alphas.pt").exists()


@pytest.mark.parametrize("name", shipped())
def test_a_genotype_is_printed_as_code_has_it_and_comes_back(darts: Darts, name: str) -> None:
    result = darts("export", name)
    assert result.out.startswith(f"{name} = Genotype(")
    assert len(result.out.splitlines()) == 1
    assert darts("export", name, "--output", "cell.py").out == "cell.py\n"
    assert Path("cell.py").read_text() == result.out
    found = load(darts("import", "cell.py").path, SPACES)
    expected = load(name, SPACES)
    assert (found.name, found.cells) == (expected.name, expected.cells)


def test_the_best_checkpoint_of_a_training_is_exported_where_there_is_one(
    darts: Darts, trained: Path
) -> None:
    run = Path(shutil.copytree(trained, "run"))
    shutil.copy(run / "last.safetensors", run / "best.safetensors")
    assert darts("export", run).err.startswith("run/best.safetensors: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no genotype 'nowhere': expected a YAML file or one of amoebanet, darts_v1"),
        (["nowhere.safetensors"], "nowhere.safetensors: no such file, expected a checkpoint ("),
        (["empty"], "empty: found no config.yaml in it, expected a run"),
        (["darts_v2", "--output", "there"], None),
        (["darts_v2", "--output", "empty"], "--output empty: found a directory, expected a file"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    darts: Darts, tmp_path: Path, arguments: list[str], message: str | None
) -> None:
    Path("empty").mkdir()
    Path("there").write_text("replaced, since it is named")
    before = contents(tmp_path)
    if message is None:
        assert darts("export", *arguments).path == Path("there")
    else:
        assert darts("export", *arguments).refusal().startswith(message)
        assert contents(tmp_path) == before


def test_nothing_is_overwritten_that_was_not_named(
    darts: Darts, searched: Path, tmp_path: Path
) -> None:
    for name in ("run.pt", "run-alphas.pt"):
        Path(name).write_text("mine")
        assert darts("export", searched).refusal() == (
            f"{name}: is there already; name a file by --output, which replaces it"
        )
        assert set(contents(tmp_path)) == {name}
        Path(name).unlink()


def test_alphas_alone_are_no_network(darts: Darts, searched: Path) -> None:
    file = searched / "alphas" / "epoch-0001.safetensors"
    assert darts("export", file).refusal() == (
        f"{file}: found alphas alone, expected a whole checkpoint; use the run's last.safetensors"
    )
