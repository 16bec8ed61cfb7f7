"""`darts import` of published checkpoints: the same logits, and a line for each that is not one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.commands.run_spec import read_spec
from darts_cli.engine.state import load_network
from darts_cli.engine.task import Batch, TrainingModule
from darts_cli.interop.images import CIFAR_NAMES
from darts_cli.run import checkpoint
from darts_cli.spaces.rnn.language_model import LanguageModel
from tests.conftest import Darts, Images, contents
from tests.interop.published import GENOTYPES, save, state_of, write_words
from tests.spaces.recorded import read

CIFAR = ("import", "net.pt", "--genotype", "darts_v2")
TOLERANCE = 1e-5
"""Of float32 networks against golden numbers in float64, relative in norm."""


@pytest.fixture
def cifar(darts: Darts) -> Callable[..., Path]:
    """`cifar(change)`: `net.pt` in the working directory, a changed state of DARTS_V2."""

    def make(change: Callable[[dict[str, Tensor]], object] | None = None) -> Path:
        state = state_of("cifar_DARTS_V2")
        return save(Path("net.pt"), (change(state) or state) if change else state)

    return make


def load(path: Path) -> TrainingModule[Any]:
    """The network in a checkpoint by the way of `darts eval`."""
    tensors, metadata = checkpoint.read(path)
    spec = read_spec(metadata, path)
    module = spec.task.build(spec.config, metadata["facts"], spec.genotype)
    load_network(module, tensors, averaged=True)
    module.network.eval()
    return module


def assert_near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("golden", [name for name in GENOTYPES if not name.startswith("rnn")])
def test_imported_image_networks_have_the_golden_logits(
    darts: Darts, golden: str, old: bool
) -> None:
    save(Path("net.pt"), state_of(golden), old=old)
    result = darts("import", "net.pt", "--genotype", GENOTYPES[golden])
    assert result.out == "net.safetensors\n"
    tensors, _ = read(golden)
    output = load(result.path).forward(Batch(tensors["input"].float(), torch.zeros(2)), {})
    assert_near(output.logits, tensors["eval.logits"], 1e-4 if "imagenet" in golden else TOLERANCE)


def test_weights_of_another_precision_are_converted(darts: Darts) -> None:
    state = state_of("rnn_DARTS_V2")
    save(Path("net.pt"), {name: tensor.double() for name, tensor in state.items()})
    text = write_words(Path("text"), 20)
    path = darts("import", "net.pt", "--genotype", "rnn_darts_v2", "--data", text).path
    tensors, _ = checkpoint.read(path)
    assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("network.")} == {
        torch.float32
    }


@pytest.mark.parametrize("golden", [name for name in GENOTYPES if name.startswith("rnn")])
def test_imported_recurrent_networks_have_the_golden_probabilities(
    darts: Darts, golden: str
) -> None:
    save(Path("net.pt"), state_of(golden))
    text = write_words(Path("text"), 20)
    path = darts("import", "net.pt", "--genotype", GENOTYPES[golden], "--data", text).path
    tensors, _ = read(golden)
    module, words = load(path), tensors["input"]
    output = module.forward(Batch(words, words, hidden=tensors["hidden"][0].float()), {})
    model = module.network
    assert isinstance(model, LanguageModel)
    logits = F.linear(output.dropped, model.encoder.weight, model.decoder_bias)
    assert_near(logits.log_softmax(-1), tensors["log_prob"])
    assert output.hidden is not None
    assert_near(output.hidden, tensors["hidden_next"][0])


@pytest.mark.parametrize("place", ["beside", "in the state", "around it"])
def test_an_imported_supernet_has_the_golden_logits_and_alphas(darts: Darts, place: str) -> None:
    tensors, _ = read("cnn_search_second")
    alphas = {name: tensors[name].float() for name in ("alphas_normal", "alphas_reduce")}
    state = state_of("cnn_search_second")
    around = {"state_dict": state, **alphas}
    save(Path("net.pt"), {"in the state": state | alphas, "around it": around}.get(place, state))
    save(Path("alphas.pt"), [*alphas.values()])
    path = darts("import", "net.pt", *(["--alphas", "alphas.pt"] if place == "beside" else [])).path
    found, _ = checkpoint.read(path)
    assert torch.equal(found["alphas.normal"], alphas["alphas_normal"])
    assert torch.equal(found["alphas.reduce"], alphas["alphas_reduce"])
    module = load(path)
    module.network.train()
    mixture = {cell: found[f"alphas.{cell}"].softmax(-1) for cell in ("normal", "reduce")}
    images = tensors["step0.train.input"].float()
    output = module.forward(Batch(images, torch.zeros(1)), mixture)
    assert_near(output.logits, tensors["step0.logits"], 1e-4)
    derived = darts("derive", path)
    assert derived.path == Path("net.genotype.yaml")
    assert "how sure the choice is" in derived.err


@pytest.mark.parametrize(
    "shape",
    [
        lambda alpha: alpha,
        lambda alpha: [alpha],
        lambda alpha: (alpha,),
        lambda alpha: {"alphas": alpha},
        lambda alpha: {"arch_parameters": [alpha]},
        lambda alpha: {"weights": alpha},
    ],
)
def test_recurrent_alphas_are_found_in_every_usual_place(
    darts: Darts, shape: Callable[[Tensor], object]
) -> None:
    tensors, _ = read("rnn_search_second")
    save(Path("net.pt"), state_of("rnn_search_second"))
    save(Path("alphas.pt"), shape(tensors["alphas"].float()))
    text = write_words(Path("text"), 20)
    path = darts("import", "net.pt", "--data", text, "--alphas", "alphas.pt").path
    found, _ = checkpoint.read(path)
    assert torch.equal(found["alphas.recurrent"], tensors["alphas"].float())
    assert darts("derive", path).status == 0


def test_a_supernet_without_alphas_is_imported_and_derives_nothing(darts: Darts) -> None:
    save(Path("net.pt"), state_of("cnn_search_second"))
    result = darts("import", "net.pt")
    assert result.err.splitlines() == [
        "net.pt: a supernet, 4 channels, 5 cells, 10 classes",
        "no alphas in it: give their file by --alphas to derive a genotype",
    ]
    assert darts("derive", result.path).refusal() == (
        "net.safetensors: found no alphas in it, expected a checkpoint of a search"
    )


def parallel(state: dict[str, Tensor]) -> object:
    return {f"module.{name}": tensor for name, tensor in state.items()}


def as_published_for_imagenet(state: dict[str, Tensor]) -> object:
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "epoch": 250,
        "state_dict": state,
        "best_acc_top1": 73.3,
        "optimizer": optimizer,
    }


def without_counters(state: dict[str, Tensor]) -> object:
    return {name: tensor for name, tensor in state.items() if "num_batches" not in name}


def as_parameters(state: dict[str, Tensor]) -> object:
    return {
        name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        parallel,
        as_published_for_imagenet,
        without_counters,
        as_parameters,
        lambda state: {"model": state, "epoch": 3},
        lambda state: (
            {name: tensor.double() for name, tensor in state.items()}
            | {name: tensor for name, tensor in state.items() if "num_batches" in name}
        ),
    ],
)
def test_a_state_dictionary_is_read_in_every_usual_dress(
    darts: Darts, cifar: Callable[..., Path], change: Callable[[dict[str, Tensor]], object]
) -> None:
    cifar(change)
    tensors, metadata = checkpoint.read(darts(*CIFAR).path)
    for name, tensor in state_of("cifar_DARTS_V2").items():
        if change is not without_counters or "num_batches" not in name:
            assert torch.equal(tensors[f"network.{name}"], tensor)
    assert metadata["config"]["network"] == {
        "stem": "cifar",
        "channels": 4,
        "layers": 5,
        "stem_multiplier": 3,
        "auxiliary": 0.4,
        "drop_path": 0.2,
    }
    assert metadata["position"] == {"epoch": 0, "step": 0, "total": 0}


def reduce_as_in_2018(tensor: Tensor, _protocol: int) -> tuple[object, ...]:
    """How PyTorch 0.3.1 took a tensor apart."""
    storage = torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
    )
    parts = (storage, tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
    return torch._utils._rebuild_tensor, parts


def test_a_file_as_pytorch_0_3_1_wrote_it_on_a_gpu_is_read(
    darts: Darts, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = without_counters(state_of("cifar_DARTS_V2"))
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "__reduce_ex__", reduce_as_in_2018)
        save(Path("net.pt"), state, old=True)
    content = Path("net.pt").read_bytes()
    assert b"_rebuild_tensor\n" in content
    content = content.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    content = content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")
    Path("net.pt").write_bytes(content)
    tensors, _ = checkpoint.read(darts(*CIFAR).path)
    for name, tensor in state_of("cifar_DARTS_V2").items():
        expected = tensor if "num_batches" not in name else torch.tensor(0)
        assert torch.equal(tensors[f"network.{name}"], expected)


def test_a_network_without_auxiliary_head_is_one(darts: Darts, cifar: Callable[..., Path]) -> None:
    cifar(lambda state: {n: t for n, t in state.items() if not n.startswith("auxiliary")})
    result = darts(*CIFAR)
    assert result.err == ("net.pt: a network with cifar's stem, 4 channels, 5 cells, 10 classes\n")
    assert checkpoint.read(result.path)[1]["config"]["network"]["auxiliary"] == 0.0


def test_ten_classes_are_cifars_and_normalised_as_published(
    darts: Darts, cifar: Callable[..., Path]
) -> None:
    cifar()
    _, metadata = checkpoint.read(darts(*CIFAR).path)
    assert metadata["facts"] == {
        "name": "cifar10",
        "classes": list(CIFAR_NAMES["cifar10"]),
        "channels": 3,
        "size": 32,
        "mean": [0.49139968, 0.48215827, 0.44653124],
        "std": [0.24703233, 0.24348505, 0.26158768],
    }
    assert metadata["config"]["data"]["name"] == "cifar10"


def test_cifars_classes_are_in_the_order_of_the_alphabet() -> None:
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        assert list(CIFAR_NAMES[name]) == sorted(set(CIFAR_NAMES[name]))
        assert len(CIFAR_NAMES[name]) == count


def make_photographs(folder: Path, classes: tuple[str, ...], side: int) -> Path:
    """Two images of each class to train on, and two to test."""
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in classes:
            (folder / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


def measured(module: TrainingModule[Any], folder: Path, info: dict[str, Any]) -> float:
    """The share of test images that the network tells right, computed without darts' data."""
    mean, std = (torch.tensor(info[name])[:, None, None] for name in ("mean", "std"))
    right = total = 0
    for label, name in enumerate(sorted(path.name for path in (folder / "test").iterdir())):
        for file in sorted((folder / "test" / name).iterdir()):
            pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
            batch = Batch(((pixels - mean) / std)[None], torch.zeros(1))
            right += int(module.forward(batch, {}).logits.argmax() == label)
            total += 1
    return right / total


def test_eval_of_an_import_measures_a_folder_of_cifars_images(
    darts: Darts, cifar: Callable[..., Path]
) -> None:
    cifar()
    folder = make_photographs(Path("images"), CIFAR_NAMES["cifar10"], 32)
    path = darts(*CIFAR, "--data", folder).path
    _, metadata = checkpoint.read(path)
    assert metadata["facts"]["mean"][0] == 0.49139968
    found = json.loads(darts("eval", path, "--device", "cpu").path.read_text())
    assert found["examples"] == 20
    assert found["top1"] == pytest.approx(measured(load(path), folder, metadata["facts"]))
    # The same without the folder's name in the import.
    darts(*CIFAR, "--output", "other.safetensors")
    other = darts("eval", "other.safetensors", "--data", folder, "--device", "cpu").path
    assert json.loads(other.read_text())["loss"] == found["loss"]


# Of processes that read images, the recipe has more than a small machine has cores.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_eval_of_an_import_measures_photographs(darts: Darts) -> None:
    save(Path("net.pth.tar"), as_published_for_imagenet(state_of("imagenet_DARTS_V2")))
    folder = make_photographs(Path("photographs"), tuple(f"n{n}" for n in range(7)), 40)
    path = darts("import", "net.pth.tar", "--genotype", "darts_v2", "--data", folder).path
    assert path == Path("net.safetensors")
    _, metadata = checkpoint.read(path)
    assert metadata["facts"]["classes"] == [f"n{n}" for n in range(7)]
    assert (metadata["facts"]["size"], metadata["facts"]["mean"]) == (224, [0.485, 0.456, 0.406])
    found = json.loads(darts("eval", path, "--device", "cpu").path.read_text())
    assert found["examples"] == 14


def test_eval_of_an_import_measures_a_text(darts: Darts) -> None:
    save(Path("net.pt"), state_of("rnn_DARTS_V2"))
    text = write_words(Path("text"), 20)
    path = darts("import", "net.pt", "--genotype", "rnn_darts_v2", "--data", text).path
    darts("eval", path, "--device", "cpu")
    found = json.loads(Path("net-test.json").read_text())
    numbers = {word: n for n, word in enumerate(checkpoint.read(path)[1]["facts"]["vocabulary"])}
    lines = (text / "test.txt").read_text().splitlines()
    words = torch.tensor([numbers[word] for line in lines for word in [*line.split(), "<eos>"]])
    output = load(path).forward(Batch(words[:-1, None], words[1:, None]), {})
    assert found["loss"] == pytest.approx(output.nll_sum.item() / (len(words) - 1), rel=1e-5)


def test_words_are_numbered_as_published_code_does(darts: Darts) -> None:
    save(Path("net.pt"), state_of("rnn_DARTS_V2"))
    text = write_words(Path("text"), 20)
    path = darts("import", "net.pt", "--genotype", "rnn_darts_v2", "--data", text).path
    expected: list[str] = []
    for split in ("train", "valid", "test"):
        for line in (text / f"{split}.txt").read_text().splitlines():
            for word in [*line.split(), "<eos>"]:
                if word not in expected:
                    expected.append(word)
    assert checkpoint.read(path)[1]["facts"]["vocabulary"] == expected
    # The words of the test text are the last ones, and not in the training text.
    assert expected[-1] not in (text / "train.txt").read_text().split()


def test_a_text_of_other_words_is_refused_with_both_numbers(darts: Darts) -> None:
    save(Path("net.pt"), state_of("rnn_DARTS_V2"))
    text = write_words(Path("text"), 17)
    message = darts("import", "net.pt", "--genotype", "rnn_darts_v2", "--data", text).refusal()
    assert message == (
        "net.pt: encoder.weight: found 20 words, expected the 17 of train, valid and test of "
        f"{text.resolve()}, or the 14 of train; name the text that it was trained on by --data"
    )


def test_own_images_are_measured_as_in_training(darts: Darts, images: Images) -> None:
    sizes = ("--channels", 2, "--layers", 3, "--recipe", "digits", "--max-steps", 1)
    data = ("--data", images("pets"))
    run = darts("train", "--genotype", "darts_v1", *data, *sizes, "--out", "own").path
    darts("export", run)
    path = darts("import", "own.pt", "--genotype", "darts_v1", *data).path
    found, expected = (
        checkpoint.read(file)[1]["facts"] for file in (path, run / "last.safetensors")
    )
    assert found == expected


def test_classes_can_be_named_in_the_order_of_the_logits(
    darts: Darts, cifar: Callable[..., Path]
) -> None:
    cifar()
    names = [f"c{number}" for number in range(10)][::-1]
    Path("names.txt").write_text("\n".join(names) + "\n")
    for number, text in enumerate((",".join(names), "names.txt")):
        path = darts(*CIFAR, "--classes", text, "--output", f"{number}.safetensors").path
        assert checkpoint.read(path)[1]["facts"]["classes"] == names


def test_other_numbers_of_classes_are_numbered_and_told(darts: Darts) -> None:
    save(Path("net.pt"), state_of("imagenet_DARTS_V2"))
    result = darts("import", "net.pt", "--genotype", "darts_v2")
    assert checkpoint.read(result.path)[1]["facts"]["classes"] == list("0123456")
    assert result.err.splitlines()[1] == (
        "classes are numbered: name them by --data DIR or --classes"
    )


# Refusals.


def removed(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def put(name: str, value: object) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {**state, name: value}


FIRST = "cells.0._ops.0.op.1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed(FIRST), f"{FIRST}: found no such tensor, expected shape [4, 1, 3, 3] in a net"),
        (
            put(FIRST, torch.zeros(4, 1, 5, 5)),
            (
                f"{FIRST}: found shape [4, 1, 5, 5], expected [4, 1, 3, 3] in a network of "
                "darts_v2; none of those that come with darts fits: give its file"
            ),
        ),
        (
            put("cells.1.more", torch.zeros(2)),
            "cells.1.more: found shape [2], expected no such tensor in a network of darts_v2; ",
        ),
        (
            put("stem.0.weight", torch.zeros(13, 3, 3, 3)),
            "stem.0.weight: found shape [13, 3, 3, 3]",
        ),
        (put("stem.0.weight", torch.zeros(12, 2, 3, 3)), "stem.0.weight: found 2 channels of im"),
        (put("stem.0.weight", torch.zeros(12)), "stem.0.weight: found shape [12], expected 4 si"),
        (put("stem.0.weight", torch.zeros(12, 1, 3, 3)), "found a network of grey images, whose "),
        (removed("classifier.weight"), "classifier.weight: found no such tensor, expected it in"),
        (put(FIRST, torch.full((4, 1, 3, 3), torch.nan)), f"{FIRST}: found a number that is not"),
        (put(FIRST, torch.zeros(()).expand(4, 1, 3, 3)), f"{FIRST}: found 36 numbers of which f"),
        (put(FIRST, torch.zeros(4, 1, 3, 3).long()), f"{FIRST}: found torch.int64, expected tor"),
        (put(FIRST, torch.zeros(4, 1, 3, 3).bool()), f"{FIRST}: found torch.bool, expected numb"),
        (put(FIRST, 3), f"{FIRST}: found no tensor, expected one"),
        (put("cells.0\n", torch.zeros(1)), "found a name that no tensor of a network has"),
        (put("cells.7.more", torch.zeros(1)), "cells.5: found no such cell before cells.7, expe"),
        (
            put("cells.0.preprocess1.op.1.weight", torch.zeros(3, 12, 1, 1)),
            "network.channels: found 3, expected an even number",
        ),
        (
            lambda state: {"best": state},
            (
                "found no state dictionary where one is looked for, expected it as the whole file, "
                "or under one of state_dict, model_state_dict, model_state, model, network, net"
            ),
        ),
        (lambda _: {"weight": torch.zeros(2)}, "found no network of DARTS in it, expected the st"),
        (lambda _: [torch.zeros(2)], "found no network of DARTS in it, expected the state dictio"),
    ],
)
def test_what_does_not_fit_is_named(
    darts: Darts,
    cifar: Callable[..., Path],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    cifar(change)
    assert darts(*CIFAR).refusal().startswith(f"net.pt: {message}")
    assert set(contents(tmp_path)) == {"net.pt"}


def test_another_genotype_is_refused_with_those_that_fit(
    darts: Darts, cifar: Callable[..., Path]
) -> None:
    cifar()
    message = darts("import", "net.pt", "--genotype", "darts_v1").refusal()
    assert re.fullmatch(
        r"net\.pt: cells\.0\._ops\.\d\.\S+: found .* in a network of darts_v1; darts_v2 fits",
        message,
    )
    assert darts("import", "net.pt").refusal() == (
        "net.pt: found a discrete network, expected --genotype with what it was made of; "
        "darts_v2 fits"
    )
    assert darts("import", "net.pt", "--genotype", "rnn_enas").refusal() == (
        "net.pt: found a network of space 'cnn', expected one of 'rnn' for --genotype rnn_enas; "
        "darts_v2 fits"
    )


def test_recurrent_genotypes_fit_by_their_number_of_nodes(darts: Darts) -> None:
    save(Path("net.pt"), state_of("rnn_ENAS"))
    text = ("--data", write_words(Path("text"), 20))
    assert darts("import", "net.pt", *text).refusal().endswith("; rnn_enas fits")
    assert re.fullmatch(
        r"net\.pt: rnns\.0\._Ws\.\d+: found shape \[8, 16\], expected no such tensor in a network "
        "of rnn_darts_v1; rnn_enas fits",
        darts("import", "net.pt", "--genotype", "rnn_darts_v1", *text).refusal(),
    )


def test_an_untied_decoder_is_refused(darts: Darts) -> None:
    save(Path("net.pt"), state_of("rnn_ENAS") | {"decoder.weight": torch.zeros(20, 8)})
    text = ("--data", write_words(Path("text"), 20))
    assert darts("import", "net.pt", "--genotype", "rnn_enas", *text).refusal() == (
        "net.pt: decoder.weight: differs from encoder.weight, expected a tied embedding"
    )


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ({"other": torch.zeros(2)}, "found no alphas in it, expected tensors alphas_normal and "),
        ([torch.zeros(14, 7)] * 2, "alphas of normal: found shape [14, 7], expected [14, 8], a ro"),
        ([torch.full((14, 8), torch.inf)] * 2, "alphas of normal: found a number that is not fin"),
        ([torch.zeros(14, 8)] * 3, "found no alphas in it, expected tensors alphas_normal and al"),
        ([3, 4], "alphas of normal: found no tensor, expected one"),
    ],
)
def test_alphas_of_another_kind_are_refused(darts: Darts, alphas: object, message: str) -> None:
    save(Path("net.pt"), state_of("cnn_search_second"))
    save(Path("alphas.pt"), alphas)
    refusal = darts("import", "net.pt", "--alphas", "alphas.pt").refusal()
    assert refusal.startswith(f"alphas.pt: {message}")
    assert not Path("net.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alphas", "net.pt"], "--alphas: for a supernet, leave it out for a discrete network"),
        (["--name", "X"], "--name: for a text with genotypes, leave it out for net.pt"),
        (["--recipe", "x"], "--recipe x: no such recipe for train cnn, expected one of cifar, ima"),
        (["--data", "nowhere"], "--data nowhere: expected one of digits, cifar10, cifar100, ima"),
        (["--data", "cifar100"], "net.pt: classifier.weight: found 10 classes, expected the 100 "),
        (["--classes", "a,b"], "net.pt: classifier.weight: found 10 classes, expected the 2 of "),
        (
            ["--classes", ",".join("aacdefghij")],
            "net.pt: facts.classes: found ('a', 'a', 'c', 'd',",
        ),
        (["--output", "net.pt"], "--output net.pt: is what is read; name another file"),
        (["--output", "no/net.safetensors"], "no/net.safetensors: found no folder no, expected "),
        (["--output", "."], "--output .: found a directory, expected a file"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused(
    darts: Darts, cifar: Callable[..., Path], tmp_path: Path, flags: list[str], message: str
) -> None:
    cifar()
    assert darts(*CIFAR, *flags).refusal().startswith(message)
    assert set(contents(tmp_path)) == {"net.pt"}


def test_a_supernet_has_no_genotype_yet(darts: Darts) -> None:
    save(Path("net.pt"), state_of("cnn_search_second"))
    assert darts(*CIFAR).refusal() == (
        "--genotype: for a discrete network, leave it out for a supernet: derive finds it"
    )


def test_nothing_is_overwritten_that_was_not_named(
    darts: Darts, cifar: Callable[..., Path]
) -> None:
    cifar()
    Path("net.safetensors").write_text("mine")
    assert darts(*CIFAR).refusal() == (
        "net.safetensors: is there already; name a file by --output, which replaces it"
    )
    assert Path("net.safetensors").read_text() == "mine"
    assert darts(*CIFAR, "--output", "net.safetensors").path == Path("net.safetensors")
    assert checkpoint.read(Path("net.safetensors"))


@pytest.mark.parametrize("old", [False, True])
def test_a_pickled_network_is_refused_with_what_to_do(
    darts: Darts, tmp_path: Path, old: bool
) -> None:
    save(Path("net.pt"), nn.Sequential(nn.Linear(2, 2)), old=old)
    assert darts("import", "net.pt").refusal() == (
        "net.pt: holds a pickled module or other object (torch.nn.modules.container.Sequential), "
        "which would run code when read; save its state_dict() with the code that made it"
    )
    assert set(contents(tmp_path)) == {"net.pt"}


def test_a_file_that_was_cut_short_or_altered_is_refused(
    darts: Darts, cifar: Callable[..., Path], tmp_path: Path
) -> None:
    content = cifar().read_bytes()
    for altered in (
        content[:100_000],
        content[:-1],
        content.replace(b"stem.1.bias", b"stem.1.biax"),
    ):
        Path("net.pt").write_bytes(altered)
        assert darts(*CIFAR).refusal().startswith("net.pt: cut short, damaged or of another kind (")
    assert set(contents(tmp_path)) == {"net.pt"}


def test_what_is_no_file_is_refused(darts: Darts) -> None:
    assert darts("import", "nowhere.pt").refusal() == (
        "nowhere.pt: cannot be read (No such file or directory), expected a file of torch.save, "
        "or a text with Genotype(...) in it"
    )
    Path("net.pt").write_text("no pickle")
    assert darts("import", "net.pt").refusal() == (
        "net.pt: not written by torch.save, expected a state dictionary (.pt) that it wrote"
    )
