"""`darts import` of pasted genotypes: a file of ours, and a line for each that cannot be one."""

from pathlib import Path

import pytest

from darts_cli.genotype.file import load
from darts_cli.spaces import SPACES
from tests.conftest import Darts, contents

NODE = "[('skip_connect', 0), ('skip_connect', 1)]"
PASTED = f"MINE = Genotype({NODE}, [2], {NODE}, [2])\n"


def test_a_pasted_genotype_becomes_a_file_in_the_present_folder_that_darts_draws(
    darts: Darts,
) -> None:
    Path("notes").mkdir()
    Path("notes/cell.txt").write_text(PASTED)
    result = darts("import", "notes/cell.txt")
    assert (result.out, result.err) == ("MINE.yaml\n", "")
    assert load("MINE.yaml", SPACES).name == "MINE"
    assert "MINE" in darts("viz", "MINE.yaml").out


def test_one_of_several_is_chosen_by_name_and_goes_where_output_says(darts: Darts) -> None:
    Path("genotypes.py").write_text(PASTED + PASTED.replace("MINE", "YOURS"))
    assert darts("import", "genotypes.py").refusal() == (
        "genotypes.py: found several genotypes, expected --name with one of MINE, YOURS"
    )
    result = darts("import", "genotypes.py", "--name", "YOURS", "--output", "cell.yaml")
    assert result.out == "cell.yaml\n"
    assert load("cell.yaml", SPACES).name == "YOURS"


def test_a_genotype_that_is_there_is_replaced_by_output_alone(darts: Darts) -> None:
    Path("cell.txt").write_text(PASTED)
    Path("MINE.yaml").write_text("mine")
    assert darts("import", "cell.txt").refusal() == (
        "MINE.yaml: is there already; name a file by --output, which replaces it"
    )
    assert Path("MINE.yaml").read_text() == "mine"
    assert darts("import", "cell.txt", "--output", "MINE.yaml").path == Path("MINE.yaml")


def test_code_in_a_text_is_not_run(darts: Darts, tmp_path: Path) -> None:
    Path("cell.py").write_text(
        "open('made', 'w').close()\n"
        f"X = Genotype(__import__('pathlib').Path('made').touch(), [2], {NODE}, [2])\n"
    )
    assert darts("import", "cell.py").refusal() == (
        "cell.py, line 2: found a call, expected the edges of normal as a list"
    )
    assert set(contents(tmp_path)) == {"cell.py"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "cell.txt: found bytes that are no UTF-8, expected a text with Genotype(..."),
        (b"a" * 70_000, "cell.txt: found 70,000 bytes, expected a text of 65,536 or less with Gen"),
        (b"", "cell.txt: found no Genotype(...) in it, expected one"),
        (b"Genotype(", "cell.txt, line 1: found no end of Genotype(, expected a closing bracket"),
    ],
)
def test_what_is_no_genotype_is_refused(
    darts: Darts, tmp_path: Path, content: bytes, message: str
) -> None:
    Path("cell.txt").write_bytes(content)
    assert darts("import", "cell.txt").refusal().startswith(message)
    assert set(contents(tmp_path)) == {"cell.txt"}


@pytest.mark.parametrize(
    "flags",
    [
        ["--genotype", "darts_v2"],
        ["--data", "cifar10"],
        ["--alphas", "a.pt"],
        ["--image-size", "32"],
        ["--min-count", "2"],
        ["--classes", "a,b"],
        ["--recipe", "cifar"],
    ],
)
def test_flags_of_checkpoints_are_refused(darts: Darts, flags: list[str]) -> None:
    Path("cell.txt").write_text(PASTED)
    assert darts("import", "cell.txt", *flags).refusal() == (
        f"{flags[0]}: for a checkpoint, leave it out for cell.txt"
    )


def test_a_folder_is_no_file(darts: Darts) -> None:
    Path("folder").mkdir()
    assert darts("import", "folder").refusal().startswith("folder: cannot be read (Is a directory)")
