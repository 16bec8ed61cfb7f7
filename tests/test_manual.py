"""`darts manual`, and whether what its pages and the README say holds."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from darts_cli.cli import app
from darts_cli.interop.images import CIFAR_NAMES
from tests.commands.test_import_ import as_published_for_imagenet, make_photographs
from tests.conftest import Darts
from tests.interop.published import save, state_of, write_words
from tests.spaces.recorded import read
from tests.test_package import README, ROOT, code_block, run_script

MANUAL = ROOT / "darts_cli" / "manual"
PAGES = {path.stem: path for path in sorted(MANUAL.glob("*.md"))}
DOCUMENTS = [README, *PAGES.values()]


def names(documents: list[Path]) -> list[str]:
    """Return what the tests of some documents are called."""
    return [path.stem for path in documents]


def fences(document: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of every code block."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# What variables of make and of the shell stand for in code blocks.
VARIABLES = {
    "$(@D)": "FOLDER",
    "$@": "FILE",
    "$<": "FILE",
    "$flags": "--resume FOLDER",
    "$run": "FOLDER",
    "$G": "FILE",
}


def commands(document: Path) -> list[list[str]]:
    """Return the arguments of every `darts` in the code blocks of a document."""
    found = []
    for _, block in fences(document):
        text = re.sub(r"\\\n\s*", "", block)
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        pattern = r"(?:(?:^|[\s(])darts|-m darts_cli) ([^;)#\n]*)"
        found += [shlex.split(match[1]) for match in re.finditer(pattern, text)]
    return found


def parse(arguments: list[str]) -> None:
    """Parse arguments as the command line does, without running the command."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    name, *rest = arguments
    assert name in group.commands
    group.commands[name].make_context(name, rest)


def test_without_a_topic_there_is_a_line_a_page_that_fits_a_terminal(darts: Darts) -> None:
    result = darts("manual")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == list(PAGES)
    assert [line for line in lines if len(line) > 80 or not line.endswith(".")] == []
    assert "text             Search, train and evaluate on your own text." in lines


@pytest.mark.parametrize("topic", PAGES)
def test_a_page_fits_a_terminal_of_80_columns(
    darts: Darts, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = darts("manual", topic)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line for line in lines if cell_len(line) > 80 or line != line.rstrip()] == []
    for markup in ("\x1b", "`", "](", "**", "<!--"):
        assert markup not in result.out
    # Code is as it was written, in lines that were not folded.
    code = "".join(block for _, block in fences(PAGES[topic])).expandtabs(4).splitlines()
    assert [line for line in code if line and f" {line}" not in lines] == []


@pytest.mark.parametrize("topic", PAGES)
def test_a_page_begins_with_a_heading_and_one_sentence(topic: str) -> None:
    heading, sentence, _ = PAGES[topic].read_text(encoding="utf-8").split("\n\n", maxsplit=2)
    assert re.fullmatch(r"# [A-Z].*[a-z]", heading)
    assert re.fullmatch(r"[A-Z][^.]*(\.\w[^.]*)?\.", sentence)


def test_lines_are_not_longer_than_one_can_read(darts: Darts) -> None:
    widths = {cell_len(line) for line in darts("manual", "resume").out.splitlines()}
    assert 90 < max(widths) <= 100


def test_a_terminal_has_colours(darts: Darts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = darts("manual", "pipelines").out
    assert "\x1b[" in out
    # A background would be wrong on a light terminal, or on a dark one.
    assert not re.search(r"\x1b\[[\d;]*\b4\d", out)


def test_links_to_other_pages_become_commands(darts: Darts) -> None:
    lines = darts("manual", "gpus").out.splitlines()
    assert lines[-1] == "See also: darts manual pipelines"


def test_a_topic_that_does_not_exist_is_one_line_with_those_that_do(darts: Darts) -> None:
    assert darts("manual", "txt").refusal() == (
        f"manual: found no page 'txt', expected one of {', '.join(PAGES)}"
    )


def test_a_new_page_is_a_new_file(
    darts: Darts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = "# New\n\nSay what `is` new.\n\nText of [a page](other.md).\n"
    (tmp_path / "new.md").write_text(page)
    monkeypatch.setattr("darts_cli.manual.files", lambda _: tmp_path)
    assert darts("manual").out == "new  Say what is new.\n"
    assert darts("manual", "new").out.endswith("See also: darts manual other\n")


def test_a_page_needs_neither_torch_nor_what_draws(tmp_path: Path) -> None:
    script = """
import contextlib, io, sys
from darts_cli import cli
sys.argv = ["darts", "manual", "pipelines"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    cli.main()
print(sorted({"torch", "torchvision", "matplotlib", "numpy", "yaml"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_command_in_a_code_block_exists_with_its_flags(darts: Darts, document: Path) -> None:
    for arguments in commands(document):
        parse(arguments)
        if "--resume" in arguments:
            # A flag that a resumed run refuses; there is no run here.
            assert "not with --resume" not in darts(*arguments).refusal()


def test_commands_are_found_in_all_kinds_of_code_blocks() -> None:
    found = [shlex.join(arguments) for document in DOCUMENTS for arguments in commands(document)]
    assert len(found) > 40
    for command in (
        "derive runs/search",
        "search cnn --resume FOLDER",
        "train --genotype FILE --data flowers --image-size 32 --out FOLDER",
        "search cnn --batch-size 256 --out /shared/runs/search",
        "eval cifar10_model.safetensors",
    ):
        assert command in found
    with pytest.raises(TyperException, match="--nonsense"):
        parse(["search", "cnn", "--nonsense"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_flag_in_the_text_exists(document: Path) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    known = {"--help"}
    for command in group.commands.values():
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    spans = re.findall(r"`([^`]+)`", prose(document))
    flags = {flag for span in spans for flag in re.findall(r"(?<!\S)--[a-z-]+", span)}
    assert flags - known == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_and_picture_is_there(document: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", prose(document))
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (document.parent / target).is_file()] == []


def test_the_readme_is_short_and_leads_to_every_page_and_command() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert [topic for topic in PAGES if f"(darts_cli/manual/{topic}.md)" not in text] == []
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    assert [name for name in group.commands if f"| `darts {name}" not in text] == []


def test_the_readmes_map_is_of_the_code_as_it_is() -> None:
    package = ROOT / "darts_cli"
    (tree,) = (block for language, block in fences(README) if language == "text")
    named = set(re.findall(r"\w+\.py|\w+/", tree)) - {"darts_cli/"}
    there = {path.name for path in package.rglob("*.py")}
    there |= {f"{path.name}/" for path in package.rglob("*") if path.is_dir()}
    assert named - there == set()
    top = {path.name for path in package.glob("*.py")}
    top |= {f"{path.name}/" for path in package.iterdir() if path.is_dir()} - {"__pycache__/"}
    assert top - named == set()
    adding = README.read_text(encoding="utf-8").split("<!-- adding -->")[1]
    files = re.findall(r"`([\w/]+\.py)`", adding)
    assert [name for name in files if not [*package.glob(name), *package.rglob(name)]] == []


# Replaces the sizes in the documents, which would take hours.
SMALL = "--epochs 2 --channels 2 --layers 2"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Make the folder of images that the documents speak of, and return where it lies."""
    for label, colour in (("daisy", 220), ("rose", 30)):
        (tmp_path / "flowers" / label).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (40 + number, 36), (colour, 5 * number, 9))
            image.save(tmp_path / "flowers" / label / f"{number}.jpg")
    return tmp_path


@pytest.mark.slow
def test_the_pipeline_is_made_once_and_resumed_where_it_was_stopped(flowers: Path) -> None:
    (block,) = (block for language, block in fences(PAGES["pipelines"]) if language == "make")
    makefile = block.replace("--image-size 32", f"--image-size 32 {SMALL}")
    (flowers / "Makefile").write_text(makefile, encoding="utf-8")
    search = f"darts search cnn --data flowers --image-size 32 {SMALL} --out runs/search"
    make = ["export -f darts", "make SHELL=/bin/bash runs/train/done"]
    # An epoch is one step here: the search stops after the first of its two.
    output = run_script([f"{search} --max-steps 1", *make], flowers, flowers / "pipes")
    assert "genotype.yaml" in output
    assert output[-1] == "touch runs/train/done"
    metrics = (flowers / "runs" / "search" / "metrics.jsonl").read_text(encoding="utf-8")
    assert len(metrics.splitlines()) == 2
    assert run_script(make, flowers, flowers / "more-pipes") == [
        "make: 'runs/train/done' is up to date."
    ]


@pytest.mark.slow
def test_the_example_of_own_images_runs_as_written(flowers: Path) -> None:
    lines = code_block(README, "Your own images")
    assert lines == code_block(PAGES["images"], "Your own images")
    assert [line.split()[1] for line in lines if line.startswith("darts")] == [
        "search",
        "train",
        "eval",
        "viz",
    ]
    lines = [re.sub(r" --epochs \d+", "", line) for line in lines]
    lines = [
        f"{line} {SMALL}" if line.startswith(("darts search", "darts train")) else line
        for line in lines
    ]
    output = run_script(lines, flowers, flowers / "pipes")
    assert output[0] == "runs/search"
    assert output[-1] == "cell.svg"
    assert (flowers / "cell.svg").is_file()
    assert (flowers / "runs" / "train" / "last-test.json").is_file()


@pytest.mark.slow
def test_the_example_of_own_text_runs_as_written(tmp_path: Path) -> None:
    lines = code_block(README, "Your own text")
    assert lines == code_block(PAGES["text"], "Your own text")
    (tmp_path / "letters").mkdir()
    for split, times in (("train", 100), ("valid", 40), ("test", 20)):
        text = "the cat sat on the mat\na dog ran\n" * times
        (tmp_path / "letters" / f"{split}.txt").write_text(text, encoding="utf-8")
    lines = [re.sub(r" --(epochs|width) \d+", "", line) for line in lines]
    small = "--epochs 1 --width 4 --batch-size 4"
    lines = [
        f"{line} {small}" if line.startswith(("darts search", "darts train")) else line
        for line in lines
    ]
    output = run_script(lines, tmp_path, tmp_path / "pipes")
    assert output[0] == "runs/search"
    assert output[-1] == "cell.svg"
    assert {path.name for path in (tmp_path / "runs" / "train").glob("best-*.json")} == {
        "best-valid.json",
        "best-test.json",
    }


def test_the_pictures_are_made_as_written(darts: Darts, searched: Path, tmp_path: Path) -> None:
    for name in ("search", "a", "b"):
        shutil.copytree(searched, tmp_path / "runs" / name)
    lines = code_block(PAGES["pictures"], "Pictures")
    assert len(lines) == 8
    output = ""
    for line in lines:
        result = darts(*shlex.split(line)[1:])
        assert result.status == 0, result.err
        output += result.out
    assert "flowchart LR" in output
    for name in ("cell.svg", "both.svg", "alphas.png", "cells.gif", "report.html", "compare.html"):
        assert name in output
        assert (tmp_path / name).stat().st_size


# A cell of one node, as published code spells it.
NODE = "[('skip_connect', 0), ('skip_connect', 1)]"


@pytest.mark.slow
def test_the_imports_and_exports_run_as_written(
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
    for line in code_block(PAGES["checkpoints"], "Published checkpoints"):
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
