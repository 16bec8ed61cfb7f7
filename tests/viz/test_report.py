"""What the page of a run holds, that it stays small, and what it refuses; see also test_page.py."""

import json
import math
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from darts_cli.commands.reading import read_history
from darts_cli.errors import ConfigError
from darts_cli.genotype.derivation import softmax
from darts_cli.run.files import WriteError
from darts_cli.viz import report
from darts_cli.viz.page.cells import spread
from darts_cli.viz.page.data import RULE, NetworkSize, RunPage, page_data
from tests.viz.runs import CNN, SMALL, search, training

ROOT = Path(__file__).parents[2]


def data_of(text: str) -> Any:
    """Return the JSON object in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def render(*pages: RunPage, folder: Path = Path()) -> Any:
    return data_of(report.render(pages, folder))


@pytest.fixture
def small(tmp_path: Path) -> RunPage:
    return RunPage(history=search(tmp_path / "run", epochs=3, space=SMALL))


def test_the_page_holds_the_probabilities_and_choices_of_every_epoch(small: RunPage) -> None:
    (run,) = render(small)["runs"]
    snapshots = small.history.snapshots
    assert [snapshot["epoch"] for snapshot in run["snapshots"]] == [1, 2, 3]
    for told, snapshot in zip(run["snapshots"], snapshots, strict=True):
        for row, alphas in zip(
            told["probabilities"]["normal"], snapshot.alphas["normal"], strict=True
        ):
            assert [share / 10_000 for share in row] == pytest.approx(softmax(alphas), abs=1e-4)
        kept = [
            (SMALL.primitives[column], SMALL.edges[row])
            for row, column in enumerate(told["chosen"]["normal"])
            if column >= 0
        ]
        assert kept == [
            (choice.edge.operation, (choice.node - SMALL.inputs, choice.edge.source))
            for choice in snapshot.choices
        ]


def test_the_page_holds_the_numbers_of_every_epoch(small: RunPage) -> None:
    (run,) = render(small)["runs"]
    records, snapshots = small.history.records, small.history.snapshots
    columns = run["columns"]
    assert run["epochs"] == [1, 2, 3]
    assert columns["lr"] == pytest.approx([record["lr"] for record in records], rel=1e-5)
    for split, measure in (("train", "loss"), ("valid", "top1")):
        expected = [record[split][measure] for record in records]
        assert columns[f"{split} {measure}"] == pytest.approx(expected, rel=1e-5)
    signals = [snapshot.signals for snapshot in snapshots]
    assert columns["skips normal"] == [one.skip_connections["normal"] for one in signals]
    assert columns["entropy normal"] == pytest.approx(
        [one.entropy["normal"] for one in signals], rel=1e-5
    )
    assert columns["weakest margin normal"] == pytest.approx(
        [one.weakest_margin["normal"] for one in signals], rel=1e-5
    )
    assert columns["epochs unchanged"] == [one.unchanged_epochs for one in signals]


def test_a_number_that_is_not_finite_is_a_gap(small: RunPage) -> None:
    wrong = [math.inf, math.nan, True, "no", 10**400]
    records = [{"epoch": number, "train": {"loss": loss}} for number, loss in enumerate(wrong)]
    records += [{"epoch": 9, "train": {"loss": 1.0}}, {"epoch": "no", "train": {"loss": 2.0}}]
    (run,) = render(replace(small, history=replace(small.history, records=records)))["runs"]
    losses = dict(zip(run["epochs"], run["columns"]["train loss"], strict=True))
    assert losses == {**dict.fromkeys(range(5)), 9: 1.0}


def test_equal_cells_share_a_picture(small: RunPage) -> None:
    snapshots = small.history.snapshots
    again = [snapshots[0], replace(snapshots[0], signals=snapshots[1].signals), snapshots[2]]
    data = render(replace(small, history=replace(small.history, snapshots=again)))
    numbers = [snapshot["cells"]["normal"] for snapshot in data["runs"][0]["snapshots"]]
    assert numbers == [0, 0, 1]
    assert len(data["layouts"]) == 2


def test_a_picture_has_the_parts_of_its_cell_and_says_them(tmp_path: Path) -> None:
    data = render(RunPage(history=training(tmp_path / "run")))
    (run,) = data["runs"]
    genotype = training(tmp_path).genotype
    assert genotype is not None
    assert run["snapshots"] == []
    assert list(run["cells"]) == ["normal", "reduce"]
    picture = data["layouts"][run["cells"]["normal"]]
    operations = [data["operations"][label[-1]][0] for label in picture["labels"]]
    assert operations == [edge.operation for edge in genotype.cells["normal"].edges]
    assert len(picture["wires"]) == 8 + 4
    assert picture["text"] == (
        "node 2 = sep_conv_3x3(c[k-2]) + sep_conv_3x3(c[k-1]); "
        "node 3 = sep_conv_3x3(c[k-2]) + sep_conv_3x3(c[k-1]); "
        "node 4 = sep_conv_3x3(c[k-1]) + skip_connect(c[k-2]); "
        "node 5 = skip_connect(c[k-2]) + dil_conv_3x3(node 2); "
        "c[k] = concat of nodes 2, 3, 4, 5"
    )


def test_the_summary_says_what_was_done_how_far_it_is_and_how_well_it_went(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "log.txt").write_text("2026-01-02T03:04:05+00:00  epoch 1/3\nhalf a li\n")
    (run,) = render(RunPage(history=search(path, epochs=3)))["runs"]
    assert dict(run["summary"]) == {
        "Task": "search for the normal and reduce cells on flowers, second order",
        "Epochs": "3 of 3",
        "Last train": "loss 0.6667, top1 73.33 %",
        "Last valid": "loss 1.0000, top1 70.00 %",
        "Genotype": "run-epoch-3",
        "Seed": "0",
        "Last written": "2026-01-02 03:04+00:00",
        "Versions": "darts 1.2.3",
    }


def test_a_training_says_where_its_genotype_comes_from(tmp_path: Path) -> None:
    (run,) = render(RunPage(history=training(tmp_path / "run")))["runs"]
    summary = dict(run["summary"])
    assert summary["Task"] == "training of a genotype's network on cifar10"
    assert summary["Its origin"].startswith("architecture DARTS, second order, paper Liu")
    # A test set chooses nothing.
    assert not [name for name in summary if name.startswith("Best")]


def test_the_best_epoch_of_a_training_is_that_of_the_smallest_validation_loss(
    tmp_path: Path,
) -> None:
    valid = [{"loss": 1.5, "top1": 0.9}, {"loss": 1.0, "top1": 0.4}, {"loss": 1.2, "top1": 0.8}]
    records = [{"epoch": epoch, "valid": one} for epoch, one in enumerate(valid, start=1)]
    history = replace(training(tmp_path / "run"), records=records)
    (run,) = render(RunPage(history=history))["runs"]
    assert dict(run["summary"])["Best valid"] == "loss 1.0000, top1 40.00 % (epoch 2)"


def test_warnings_are_those_of_the_history(tmp_path: Path) -> None:
    history = search(tmp_path / "run", epochs=5)
    (run,) = render(RunPage(history=history))["runs"]
    assert run["warnings"] == history.warnings()
    assert "the genotype still changed in the last epoch; search for more epochs" in run["warnings"]


def test_settings_have_dotted_names_and_say_no_more_of_the_data_than_its_name(
    small: RunPage,
) -> None:
    text = report.render([small], Path())
    settings = data_of(text)["runs"][0]["settings"]
    assert settings["alphas.betas"] == "0.5, 0.999"
    assert (settings["data.flip"], settings["data.size"]) == ("true", "none")
    assert settings["data.name"] == "flowers"
    assert "/home/someone" not in text


def test_the_size_and_how_it_is_counted_are_told(small: RunPage) -> None:
    size = NetworkSize(parameters=3, macs=4, example="word")
    data = render(replace(small, size=size))
    assert data["runs"][0]["size"] == {"parameters": 3, "macs": 4, "example": "word"}
    assert data["rule"] == RULE
    assert render(small)["runs"][0]["size"] is None


def test_links_lead_from_the_page_to_the_files_that_there_are(
    searched: Path, tmp_path: Path
) -> None:
    page = RunPage(history=read_history(searched))
    (run,) = render(page, folder=tmp_path)["runs"]
    assert [name for name, _ in run["links"]] == [
        *("config.yaml", "metrics.jsonl", "genotype.yaml", "log.txt"),
        *("last.safetensors", "previous.safetensors"),
    ]
    for name, link in run["links"]:
        assert (tmp_path / link).resolve() == searched.resolve() / name
    (run,) = render(page, folder=searched)["runs"]
    assert ["config.yaml", "config.yaml"] in run["links"]


def test_a_link_holds_no_letter_that_means_something_in_an_address(tmp_path: Path) -> None:
    path = tmp_path / "a #1?:\udcff"
    path.mkdir()
    (path / "log.txt").touch()
    (run,) = render(RunPage(history=search(path, epochs=1, space=SMALL)), folder=tmp_path)["runs"]
    assert run["links"] == [["log.txt", "a%20%231%3F%3A%FF/log.txt"]]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_name_cannot_end_the_element_that_it_is_in(tmp_path: Path, epochs: int) -> None:
    name = "</script><script>alert(1)<!-- &amp; \u2028"
    history = search(
        tmp_path / "run", epochs=epochs, space=SMALL, settings={"seed": name, name: name}
    )
    text = report.render([RunPage(history=history)], tmp_path)
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text
    assert data_of(text)["runs"][0]["settings"][name] == name


def test_a_directory_of_any_name_gets_a_page(tmp_path: Path) -> None:
    history = search(tmp_path / "<b>\udcff&", epochs=1, space=SMALL)
    report.write([RunPage(history=history)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;\N{REPLACEMENT CHARACTER}&amp;: search of small</title>" in text


def test_the_page_allows_nothing_but_its_own_script_and_style(small: RunPage) -> None:
    text = report.render([small], Path())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", maxsplit=1) for rule in policy[1].split(";"))
    assert rules.keys() == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    assert {rules[name] for name in ("default-src", "base-uri", "form-action")} == {"'none'"}
    for kind in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", rules[kind])


@pytest.mark.slow
def test_three_hundred_epochs_of_other_cells_are_shown_whole_in_less_than_two_megabytes(
    tmp_path: Path,
) -> None:
    history = search(tmp_path / "run", epochs=300)
    report.write([RunPage(history=history)], tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    data = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(data["layouts"]) == 600
    assert len(data["runs"][0]["snapshots"]) == 300
    assert data["runs"][0]["notes"] == []


def test_what_is_too_much_is_thinned_out_evenly_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = RunPage(history=search(tmp_path / "run", epochs=120, space=SMALL))
    whole = len(report.render([page], tmp_path))
    empty = len(report.render([RunPage(history=search(tmp_path, epochs=0))], tmp_path))
    limit = empty + (whole - empty) // 2
    monkeypatch.setattr(report, "SIZE_LIMIT", limit)
    text = report.render([page], tmp_path)
    assert len(text) < limit
    (run,) = data_of(text)["runs"]
    shown = [snapshot["epoch"] for snapshot in run["snapshots"]]
    assert (shown[0], shown[-1]) == (1, 120)
    gaps = {after - before for before, after in pairwise(shown)}
    assert max(gaps) - min(gaps) <= 1
    assert run["notes"][0] == (
        f"The slider has {len(shown)} of 120 epochs, evenly spread, to keep the page small."
    )


def test_what_cannot_be_made_small_enough_is_refused(
    small: RunPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SIZE_LIMIT", 1000)
    with pytest.raises(ConfigError) as caught:
        report.render([small], Path())
    assert str(caught.value) == (
        "1 run: found too much for a page of 1,000 bytes even with one epoch of each; "
        "show fewer runs"
    )


def test_items_are_spread_from_the_first_to_the_last() -> None:
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(5), 5) == [0, 1, 2, 3, 4]
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(5), 1) == [4]
    assert spread([], 1) == []


def test_runs_that_are_compared_differ_in_name_and_tell_their_differences(tmp_path: Path) -> None:
    one = search(tmp_path / "one" / "run", epochs=1, seed=1)
    other = search(tmp_path / "other" / "run", epochs=2, seed=2)
    data = page_data([RunPage(history=one), RunPage(history=other)], tmp_path, 9, 9)
    assert data["title"] == "2 runs of cnn compared"
    assert [run["name"] for run in data["runs"]] == ["one/run", "other/run"]
    assert data["differences"] == ["seed", "epochs"]


def test_runs_of_two_spaces_are_refused(tmp_path: Path, small: RunPage) -> None:
    other = RunPage(history=training(tmp_path / "other"))
    with pytest.raises(ConfigError) as caught:
        report.write([small, other], tmp_path / "page.html")
    assert str(caught.value) == (
        f"{tmp_path}/other: found a run of space 'cnn', expected 'small' as of {tmp_path}/run; "
        "write a page for each space"
    )


def test_the_same_run_twice_is_refused(small: RunPage) -> None:
    with pytest.raises(ConfigError) as caught:
        report.render([small, small], Path())
    path = small.history.path
    assert str(caught.value) == f"{path}: found this run twice, expected each once"


def test_no_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="found no run to show, expected one or more"):
        report.render([], Path())


def test_a_page_that_cannot_be_written_leaves_the_old_one(small: RunPage, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(WriteError, match="cannot be written"):
        report.write([small], tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; import darts_cli.viz.report; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


def test_a_wheel_holds_the_parts_of_the_page(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    parts = {"report.html", "report.css", *report.SCRIPTS}
    assert {f"darts_cli/viz/page/{name}" for name in parts} <= names


def test_a_space_without_names_of_its_own_is_shown(small: RunPage) -> None:
    assert CNN.name != SMALL.name
    assert render(small)["runs"][0]["edges"] == [
        ["input 0", "node 1"],
        ["input 0", "node 2"],
        ["node 1", "node 2"],
    ]
