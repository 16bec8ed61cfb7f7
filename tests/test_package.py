"""What a wheel holds, what the README promises, and the targets of the Makefile."""

import os
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image

from darts_cli.genotype.file import shipped
from darts_cli.viz.history import PLOTS
from tests.conftest import call

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.mark.slow
def test_an_installed_wheel_finds_the_shipped_genotypes_and_the_manual(tmp_path: Path) -> None:
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
        "print([load(name, SPACES).name for name in shipped()]);"
        "from darts_cli.commands.manual import find_pages; print(list(find_pages()))"
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
    topics = [path.stem for path in sorted((ROOT / "darts_cli" / "manual").glob("*.md"))]
    assert done.stdout.splitlines() == [str(names), str(topics)]
    assert (installed / "darts_cli" / "genotypes" / "darts_v2.yaml").is_file()


def code_block(file: Path, heading: str) -> list[str]:
    """Return the commands of the first code block after a heading, without comments.

    A command that continues on the next line is one command.
    """
    text = file.read_text(encoding="utf-8")
    section = text.split(f"# {heading}\n", maxsplit=1)[1]
    block = re.search(r"^```\w+\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = re.sub(r"\\\n\s*", "", block[1]).splitlines()
    commands = (line.split("#")[0].strip() for line in lines)
    return [command for command in commands if command]


def run_script(lines: list[str], folder: Path, pipes: Path) -> list[str]:
    """Run lines of shell, in which `darts` runs in this process, which has imported torch already.

    Args:
        lines: The lines of shell; of several commands at once, one `darts` at most.
        folder: The current folder.
        pipes: A folder for the pipes between the shell and this process.

    Returns:
        The lines of standard output.
    """
    pipes.mkdir()
    typed, out, status = (pipes / name for name in ("typed", "out", "status"))
    for path in (typed, out, status):
        os.mkfifo(path)
    function = (
        f"darts() {{ printf '%s\\0' \"$@\" > '{typed}'; cat '{out}'; return $(cat '{status}'); }}"
    )
    # A make above this one, as in `make test`, would pass its flags on and add to the output.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    said = []
    with (
        chdir(folder),
        subprocess.Popen(
            ["bash", "-c", "\n".join(["set -eu", function, *lines])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as shell,
    ):
        # At its end, however it ends, an empty line is typed.
        end = threading.Thread(target=lambda: (shell.wait(), typed.write_bytes(b"")))
        end.start()
        while arguments := typed.read_text(encoding="utf-8"):
            result = call(*arguments.split("\0")[:-1])
            said.append(result.err)
            out.write_text(result.out, encoding="utf-8")
            status.write_text(f"{result.status}\n", encoding="utf-8")
        end.join()
        output, errors = shell.communicate()
    assert shell.returncode == 0, "".join([*said, errors])
    return output.splitlines()


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
    heading = "The paper's experiments"
    lines = [line.replace("--gpu 0", "--dry-run") for line in code_block(README, heading)]
    assert len(run_script(lines, tmp_path, tmp_path / "pipes")) == len(lines) == 6
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("space", "data"), [("cnn", "digits"), ("rnn", "pydoc")])
def test_the_demo_goes_from_search_to_test_in_both_spaces(
    tmp_path: Path, space: str, data: str
) -> None:
    (tmp_path / ".done").touch()
    demo = tmp_path / "demo"
    lines = run_script(
        [f"make -n -f {ROOT / 'Makefile'} VENV={tmp_path} DEMO={demo} demo"],
        ROOT,
        tmp_path / "pipes",
    )
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
    text = "\n".join(run_script([make], ROOT, tmp_path / "pipes"))
    assert f"for name in {' '.join(shipped())}; do" in text
    assert f"for what in {' '.join(PLOTS)}; do" in text
    for picture in ("evolution.gif", "report.html", "compare.html"):
        assert f"--output {gallery}/{picture}" in text
