"""The README's commands for published checkpoints, as written."""

import shlex
import shutil
from pathlib import Path

import pytest

from darts_cli.interop.images import CIFAR_NAMES
from tests.commands.test_import_ import as_published_for_imagenet, make_photographs
from tests.conftest import Darts
from tests.interop.published import save, state_of, write_words
from tests.spaces.recorded import read
from tests.test_package import code_block

NODE = "[('skip_connect', 0), ('skip_connect', 1)]"


@pytest.mark.slow
def test_the_readmes_imports_and_exports_run_as_written(
    darts: Darts, searched: Path, trained: Path
) -> None:
    save(Path("cifar10_model.pt"), state_of("cifar_DARTS_V2"))
    save(Path("imagenet_model.pth.tar"), as_published_for_imagenet(state_of("imagenet_DARTS_V2")))
    make_photographs(Path("IMAGENET"), tuple(f"n{number}" for number in range(7)), 40)
    save(Path("ptb_model.pt"), state_of("rnn_DARTS_V2"))
    write_words(Path("PTB"), 20)
    save(Path("supernet.pt"), state_of("cnn_search_second"))
    alphas = read("cnn_search_second")[0]
    save(Path("alphas.pt"), [alphas["alphas_normal"], alphas["alphas_reduce"]])
    Path("genotypes.py").write_text(
        f"A = Genotype({NODE}, [2], {NODE}, [2])\nMY_CELL = Genotype({NODE}, [2], {NODE}, [2])\n"
    )
    shutil.copytree(trained, "runs/train")
    shutil.copytree(searched, "runs/search")
    made = []
    for line in code_block("Published checkpoints"):
        command = shlex.split(line)[1:]
        if command[0] == "eval":
            # In place of CIFAR-10, which would be downloaded.
            folder = make_photographs(Path("images"), CIFAR_NAMES["cifar10"], 32)
            command += ["--data", str(folder), "--device", "cpu"]
        result = darts(*command)
        assert result.status == 0, result.err
        made.append(result.out.splitlines()[-1])
    assert made[:-1] == [
        "cifar10_model.safetensors",
        "cifar10_model-test-images.json",
        "imagenet_model.safetensors",
        "ptb_model.safetensors",
        "supernet.safetensors",
        "supernet.genotype.yaml",
        "MY_CELL.yaml",
        "network.pt",
    ]
    assert made[-1].startswith("run_epoch_2 = Genotype(normal=[('")
