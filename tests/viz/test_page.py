"""The page of a run in a real browser: headless Chromium, which opens it from the disk."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from darts_cli.genotype.derivation import softmax
from darts_cli.viz import report
from darts_cli.viz.page.data import NetworkSize, RunPage
from tests.viz.contrast import contrast, luminance
from tests.viz.runs import search, training

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs the programs chromium and chromedriver"
)

WIDE, PHONE = 1200, 360
SIZE = NetworkSize(parameters=1234, macs=5678, example="image of 3 x 8 x 8")
Open = Callable[..., Chrome]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start one browser for all tests, since it takes seconds."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    # Containers let nobody make a sandbox, and have too small a /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        # The driver is there: selenium is to fetch none.
        patch.setenv("SE_OFFLINE", "true")
        browser = Chrome(options=options, service=Service(executable_path=DRIVER))
    yield browser
    browser.quit()


def read_log(browser: Chrome, kind: str) -> list[str]:
    """Return what was logged since the last call."""
    entries = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries]


def wait_for_curves(browser: Chrome) -> None:
    """Wait until all charts outside folded parts are drawn, which needs their width."""
    undrawn = """
        const papers = [...document.querySelectorAll(".paper:empty")];
        return papers.some((paper) => paper.checkVisibility());"""
    WebDriverWait(browser, 10).until(lambda _: not browser.execute_script(undrawn))


@pytest.fixture
def browse(chromium: Chrome, tmp_path: Path) -> Iterator[Open]:
    """Yield `browse(*pages, width=, **media)`, which shows a page; check that it logs nothing."""
    file = tmp_path / "page.html"

    def open_page(*pages: RunPage, width: int = WIDE, media: str = "", scheme: str = "") -> Chrome:
        report.write(pages, file)
        for kind in ("browser", "performance"):
            read_log(chromium, kind)
        shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )
        chromium.get(file.as_uri())
        wait_for_curves(chromium)
        return chromium

    yield open_page
    assert read_log(chromium, "browser") == []
    events = [json.loads(message)["message"] for message in read_log(chromium, "performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        # The browser's own first page asks for files of its own, now and then until now.
        and event["params"]["documentURL"] == file.as_uri()
    }
    assert asked == {file.as_uri()}


@pytest.fixture
def run(tmp_path: Path) -> RunPage:
    return RunPage(history=search(tmp_path / "run", epochs=4), size=SIZE)


def find(browser: Chrome | WebElement, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser: Chrome | WebElement, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def chart(browser: Chrome, title: str) -> WebElement:
    return next(one for one in find_all(browser, ".chart") if one.text.startswith(title))


def pictured(browser: Chrome) -> list[str]:
    """Return the descriptions of the cells in the order in which they are shown."""
    return [str(cell.get_attribute("aria-label")) for cell in find_all(browser, "svg.cell")]


def overflow(browser: Chrome) -> int:
    script = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    return int(browser.execute_script(script))


def colour(browser: Chrome, selector: str, name: str) -> tuple[int, ...]:
    value = find(browser, selector).value_of_css_property(name)
    return tuple(int(part) for part in value.split("(")[1].rstrip(")").split(",")[:3])


def test_the_slider_moved_by_keys_redraws_cells_and_alphas(browse: Open, run: RunPage) -> None:
    browser = browse(run)
    slider = find(browser, "input[type=range]")
    assert find(browser, ".epoch").text == "epoch 4 of 4"
    pictures, first = {}, {}
    for epoch in (4, 3, 2, 1):
        pictures[epoch] = pictured(browser)
        first[epoch] = find(browser, ".heat td").text
        assert find(browser, ".epoch").text == f"epoch {epoch} of 4"
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch} of 4"
        slider.send_keys(Keys.ARROW_LEFT)
    for snapshot in run.history.snapshots:
        normal, reduce = pictures[snapshot.epoch]
        assert normal.startswith(f"normal cell after epoch {snapshot.epoch}: node 2 = ")
        for node in snapshot.genotype.cells["normal"].nodes:
            assert node[0].operation in normal
        assert reduce.startswith(f"reduce cell after epoch {snapshot.epoch}: ")
        share = softmax(snapshot.alphas["normal"][0])[0]
        assert float(first[snapshot.epoch]) == pytest.approx(100 * share, abs=0.06)
    slider.send_keys(Keys.END)
    assert pictured(browser) == pictures[4]


def test_buttons_go_to_the_epochs_beside(browse: Open, run: RunPage) -> None:
    browser = browse(run)
    previous, following = find_all(browser, ".controls button")
    previous.click()
    assert find(browser, ".epoch").text == "epoch 3 of 4"
    for _ in range(2):
        following.send_keys(Keys.ENTER)
    assert find(browser, ".epoch").text == "epoch 4 of 4"
    assert following.get_attribute("aria-disabled") == "true"


def test_a_curve_tells_its_values_under_the_pointer(browse: Open, run: RunPage) -> None:
    browser = browse(run)
    loss = chart(browser, "Loss")
    paper, readout = find(loss, ".paper"), find(loss, ".readout")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", paper)
    assert readout.text == "epoch 4: train 0.5, valid 0.75"
    left = -paper.size["width"] // 2 + 60
    ActionChains(browser).move_to_element_with_offset(paper, left, 0).perform()
    assert readout.text == "epoch 1: train 2, valid 3"
    accuracy = chart(browser, "Top-1 accuracy")
    ActionChains(browser).move_to_element(find(accuracy, ".paper")).perform()
    assert find(accuracy, ".readout").text in {
        "epoch 2: train 60.00 %, valid 55.00 %",
        "epoch 3: train 73.33 %, valid 70.00 %",
    }


def test_a_curve_is_read_by_keys(browse: Open, run: RunPage) -> None:
    loss = chart(browse(run), "Loss")
    paper, readout = find(loss, ".paper"), find(loss, ".readout")
    paper.send_keys(Keys.HOME)
    assert readout.text == "epoch 1: train 2, valid 3"
    paper.send_keys(Keys.ARROW_RIGHT)
    assert readout.text == "epoch 2: train 1, valid 1.5"
    assert len(find_all(paper, ".mark circle")) == 2


def test_an_alpha_is_told_under_the_pointer_and_by_keys(browse: Open, run: RunPage) -> None:
    browser = browse(run)
    table = find(browser, ".alphas")
    cells, readout = find_all(table, "td"), find(table, ".readout")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", table)
    ActionChains(browser).move_to_element(cells[1]).perform()
    shares = softmax(run.history.snapshots[-1].alphas["normal"][0])
    start = "epoch 4, c[k-2] → node 2, max_pool_3x3: "
    assert readout.text.startswith(start)
    assert float(readout.text.removeprefix(start).split(",")[0]) == pytest.approx(
        shares[1], abs=1e-4
    )
    cells[0].send_keys(Keys.ARROW_DOWN)
    assert readout.text.startswith("epoch 4, c[k-1] → node 2, none: ")
    assert len(find_all(table, "td.chosen")) == 8


def test_all_numbers_are_in_a_table(browse: Open, run: RunPage) -> None:
    browser = browse(run)
    summaries = find_all(browser, "summary")
    next(one for one in summaries if one.text == "All numbers as a table").click()
    rows = find_all(browser, ".numbers tbody tr")
    assert [row.text.split()[:2] for row in rows] == [
        ["1", "0.025"],
        ["2", "0.0125"],
        ["3", "0.0083333"],
        ["4", "0.00625"],
    ]


def test_headings_are_in_order_and_pictures_have_words(browse: Open, run: RunPage) -> None:
    other = RunPage(history=search(run.history.path.with_name("other"), epochs=1))
    for pages in ((run,), (run, other)):
        browser = browse(*pages)
        levels = [int(one.tag_name[1]) for one in find_all(browser, "h1, h2, h3, h4, h5")]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        pictures = find_all(browser, "svg:not([aria-hidden])")
        assert pictures
        assert all(
            one.get_attribute("role") == "img" and one.get_attribute("aria-label")
            for one in pictures
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_no_page_scrolls_sideways_in_light_or_in_the_dark(
    browse: Open, run: RunPage, width: int, scheme: str
) -> None:
    other = RunPage(history=training(run.history.path.with_name("a-name-without-end" * 9)))
    for pages in ((run,), (run, other)):
        browser = browse(*pages, width=width, scheme=scheme)
        assert overflow(browser) == 0
        for details in find_all(browser, "details"):
            browser.execute_script("arguments[0].open = true", details)
        assert overflow(browser) == 0
    paper = colour(browser, "body", "background-color")
    assert (luminance(paper) < 0.1) == (scheme == "dark")
    for selector in ("body", "dt", ".rule", ".made", "summary"):
        assert contrast(colour(browser, selector, "color"), paper) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_strongest_alpha_can_be_read_on_its_colour(
    browse: Open, run: RunPage, scheme: str
) -> None:
    browser = browse(run, scheme=scheme)
    script = """
        const options = { willReadFrequently: true };
        const canvas = document.createElement("canvas").getContext("2d", options);
        return [...document.querySelectorAll(".heat td")].map((td) => {
            const style = getComputedStyle(td);
            return [style.color, style.backgroundColor].map((colour) => {
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            });
        });"""
    pairs: list[list[list[int]]] = browser.execute_script(script)
    assert min(contrast(tuple(ink), tuple(fill)) for ink, fill in pairs) >= 4.5


def test_on_paper_everything_is_open_drawn_light_and_without_controls(
    browse: Open, run: RunPage
) -> None:
    other = RunPage(history=training(run.history.path.with_name("other")))
    browser = browse(run, other, media="print", scheme="dark")
    assert luminance(colour(browser, "body", "background-color")) > 0.9
    # All at once, since a browser prints as soon as this event has passed.
    undone = """
        dispatchEvent(new Event("beforeprint"));
        return document.querySelectorAll(".paper:empty, details:not([open])").length;"""
    assert browser.execute_script(undone) == 0
    assert len(find_all(browser, ".numbers")) == 2
    for selector in (".controls input", ".controls button"):
        assert not find(browser, selector).is_displayed()
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert find_all(browser, "details[open]") == []


def test_the_size_and_its_rule_are_told(browse: Open, run: RunPage) -> None:
    text = find(browse(run), "main").text
    assert "1,234" in text
    assert "5,678 for one image of 3 x 8 x 8" in text
    assert "Multiply-adds of convolutions and linear layers for one example, batch 1" in text


def test_a_training_has_cells_and_curves_and_no_slider(browse: Open, tmp_path: Path) -> None:
    browser = browse(RunPage(history=training(tmp_path / "run")))
    assert len(pictured(browser)) == 2
    assert find_all(browser, "input") == []
    assert find(chart(browser, "Loss"), ".readout").text == "epoch 2: train 1"
    assert "Size\nNot known." in find(browser, "main").text


def test_a_run_before_its_first_epoch_says_so(browse: Open, tmp_path: Path) -> None:
    text = find(browse(RunPage(history=search(tmp_path / "run", epochs=0))), "main").text
    assert "There are no cells yet: the first epoch is not finished." in text
    assert "There are no numbers yet: the first epoch is not finished." in text


def test_several_runs_are_compared_and_each_is_below(browse: Open, run: RunPage) -> None:
    other = RunPage(history=search(run.history.path.with_name("other"), epochs=2, seed=7))
    browser = browse(run, other)
    assert find(browser, "h1").text == "2 runs of cnn compared"
    table = find(browser, ".runs").text
    assert "seed 0 7" in table
    assert "alphas.order" not in table
    loss = chart(browser, "Loss, valid")
    assert [one.text for one in find_all(loss, ".legend li")] == ["run", "other"]
    styles = {one.get_attribute("class") for one in find_all(loss, ".paper path.line")}
    assert styles == {"line colour-0 dash-0", "line colour-1 dash-1"}
    find(loss, ".paper").send_keys(Keys.HOME)
    assert find(loss, ".readout").text == "epoch 1: run 3, other 3"
    labels = pictured(browser)[:4]
    assert [label.split(":")[0] for label in labels] == [
        *("normal cell of run", "normal cell of other"),
        *("reduce cell of run", "reduce cell of other"),
    ]
    details = find_all(browser, "details.run")[1]
    find(details, "summary").click()
    find(details, "input").send_keys(Keys.HOME)
    assert find(details, ".epoch").text == "epoch 1 of 2"
    wait_for_curves(browser)
    assert find(details, ".paper svg").is_displayed()


def test_what_a_run_is_called_does_nothing(browse: Open, tmp_path: Path) -> None:
    name = "</script><script>document.title = 'changed'<img src=x onerror=alert(1)><!--"
    settings: dict[str, Any] = {"seed": name, name: name, "data": {"name": name}}
    history = search(tmp_path / name.replace("/", ""), epochs=1, settings=settings)
    browser = browse(RunPage(history=history), RunPage(history=training(tmp_path / "run")))
    assert browser.title == "2 runs of cnn compared"
    assert find_all(browser, "img") == []
    assert len(find_all(browser, "script")) == 2
    assert name in find(browser, ".runs").text
