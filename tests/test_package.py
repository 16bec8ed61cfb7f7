"""What a wheel holds, and what the README promises."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from darts_cli.genotype.file import shipped
from darts_cli.viz.history import PLOTS
from tests.conftest import Darts

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.mark.slow
def test_an_installed_wheel_finds_the_shipped_genotypes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "from darts_cli.genotype.file import load, shipped; from darts_cli.spaces import SPACES;"
        "print([load(name, SPACES).name for name in shipped()])"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    names = [path.stem for path in sorted((ROOT / "genotypes").glob("*.yaml"))]
    assert len(names) == 7
    assert done.stdout.strip() == str(names)
    assert (installed / "darts_cli" / "genotypes" / "darts_v2.yaml").is_file()


def code_block(heading: str) -> list[str]:
    """The `darts` lines of the first code block below a heading of the README."""
    section = README.read_text(encoding="utf-8").split(f"## {heading}\n", maxsplit=1)[1]
    block = re.search(r"(?:^    .*\n)+", section, flags=re.MULTILINE)
    assert block is not None
    return [line.split("#")[0].strip() for line in block.group().splitlines()]


def run_script(lines: list[str], folder: Path) -> list[str]:
    """Run lines of shell with `darts` on the path; the lines of standard output."""
    script = "\n".join(["set -eu", f'darts() {{ "{sys.executable}" -m darts_cli "$@"; }}', *lines])
    # A make above this one, as in `make test`, would pass its flags on and add to the output.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


SMALL = "--epochs 2 --channels 2 --layers 2"
"""In place of the sizes in the README, which would take hours."""


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """The folder of images that the README speaks of, and the folder that it lies in."""
    for label, colour in (("daisy", 220), ("rose", 30)):
        (tmp_path / "flowers" / label).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (40 + number, 36), (colour, 5 * number, 9))
            image.save(tmp_path / "flowers" / label / f"{number}.jpg")
    return tmp_path


@pytest.mark.slow
def test_the_readmes_pipeline_is_made_once_and_goes_on_where_it_was_stopped(flowers: Path) -> None:
    section = README.read_text(encoding="utf-8").split("## A pipeline of your own\n")[1]
    block = section[section.index("    runs/") : section.index("## ")]
    makefile = textwrap.dedent(block).replace("--image-size 32", f"--image-size 32 {SMALL}")
    (flowers / "Makefile").write_text(makefile, encoding="utf-8")
    search = f"darts search cnn --data flowers --image-size 32 {SMALL} --out runs/search"
    make = ["export -f darts", "make SHELL=/bin/bash runs/train/done"]
    # An epoch is one step here: the search stops after the first of its two.
    output = run_script([f"{search} --max-steps 1", *make], flowers)
    assert "genotype.yaml" in output
    assert output[-1] == "touch runs/train/done"
    metrics = (flowers / "runs" / "search" / "metrics.jsonl").read_text(encoding="utf-8")
    assert len(metrics.splitlines()) == 2
    assert run_script(make, flowers) == ["make: 'runs/train/done' is up to date."]


@pytest.mark.slow
def test_the_readmes_own_images_example_runs_as_written(flowers: Path) -> None:
    lines = code_block("Your own images")
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
    output = run_script(lines, flowers)
    assert output[0] == "runs/search"
    assert output[-1] == "cell.svg"
    assert (flowers / "cell.svg").is_file()
    assert (flowers / "runs" / "train" / "last-test.json").is_file()


@pytest.mark.slow
def test_the_readmes_own_text_example_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    for split, times in (("train", 100), ("valid", 40), ("test", 20)):
        text = "the cat sat on the mat\na dog ran\n" * times
        (tmp_path / "letters" / f"{split}.txt").write_text(text, encoding="utf-8")
    lines = [re.sub(r" --(epochs|width) \d+", "", line) for line in code_block("Your own text")]
    small = "--epochs 1 --width 4 --batch-size 4"
    lines = [
        f"{line} {small}" if line.startswith(("darts search", "darts train")) else line
        for line in lines
    ]
    output = run_script(lines, tmp_path)
    assert output[0] == "runs/search"
    assert output[-1] == "cell.svg"
    assert {path.name for path in (tmp_path / "runs" / "train").glob("best-*.json")} == {
        "best-valid.json",
        "best-test.json",
    }


@pytest.mark.slow
def test_the_readmes_experiments_of_the_paper_are_valid_commands(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "DIR" / split / label).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (30, 40)).save(tmp_path / "DIR" / split / label / f"{number}.png")
    for corpus in ("PTB", "WIKITEXT2"):
        (tmp_path / corpus).mkdir()
        for split in ("train", "valid", "test"):
            (tmp_path / corpus / f"{split}.txt").write_text("a b c\n" * 10_000, encoding="utf-8")
    lines = [line.replace("--gpu 0", "--dry-run") for line in code_block("The paper's experiments")]
    assert len(run_script(lines, tmp_path)) == len(lines) == 6
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("space", "data"), [("cnn", "digits"), ("rnn", "pydoc")])
def test_the_demo_goes_from_search_to_test_in_both_spaces(
    tmp_path: Path, space: str, data: str
) -> None:
    (tmp_path / ".done").touch()
    demo = tmp_path / "demo"
    lines = run_script([f"make -n -f {ROOT / 'Makefile'} VENV={tmp_path} DEMO={demo} demo"], ROOT)
    folder = demo / space
    wanted = [
        f"search {space} --data {data} --seed 0 --out {folder}/search",
        f"derive {folder}/search --output {folder}/genotype.yaml",
        f"train --genotype {folder}/genotype.yaml --data {data} --seed 0 --out {folder}/train",
        f"eval {folder}/train > {folder}/measures.txt",
        f"viz {folder}/genotype.yaml --output {folder}/cell.svg",
    ]
    places = [next(n for n, line in enumerate(lines) if command in line) for command in wanted]
    assert places == sorted(places)


def test_the_gallery_has_every_genotype_every_plot_and_both_pages(tmp_path: Path) -> None:
    (tmp_path / ".done").touch()
    gallery = tmp_path / "gallery"
    make = f"make -n -f {ROOT / 'Makefile'} VENV={tmp_path} GALLERY={gallery} gallery"
    text = "\n".join(run_script([make], ROOT))
    assert f"for name in {' '.join(shipped())}; do" in text
    assert f"for what in {' '.join(PLOTS)}; do" in text
    for picture in ("evolution.gif", "report.html", "compare.html"):
        assert f"--output {gallery}/{picture}" in text


def test_the_readmes_pictures_are_made_as_written(
    darts: Darts, searched: Path, tmp_path: Path
) -> None:
    for name in ("search", "a", "b"):
        shutil.copytree(searched, tmp_path / "runs" / name)
    lines = code_block("Pictures")
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
    # Of the three pictures that it shows.
    shown = re.findall(r"!\[.+\]\((.+)\)", README.read_text(encoding="utf-8"))
    assert len(shown) == 3
    assert all((ROOT / name).is_file() for name in shown)
