"""The report: one page that holds all it shows, whatever the runs wrote, and the same as JSON."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences
from made_runs import make_run

from slm.errors import UserError
from slm.study.report.as_json import as_json
from slm.study.report.content import Report, gather
from slm.study.report.page import count, duration, render
from slm.study.report.samples import last_sample
from slm.study.sweep.asked import STUDY_FILE, Asked
from slm.study.sweep.space import Choice, Interval, Space
from slm.training.run.folder import write_json

HOSTILE = "<script>alert(1)</script>"
ALONE = {"meta", "input", "br", "link", "img"}  # of no end tag


class Page(HTMLParser):
    """What a page is made of; fails where tags are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def losses(lr: float, seed: int) -> dict[int, float]:
    return {step: 2 + abs(math.log10(lr) + 2.5) + 0.01 * seed + 3 / step for step in range(10, 101, 10)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rates by three seeds; one run that failed, with what it should not have typed."""
    folder = tmp_path_factory.mktemp("study")
    for place in range(24):
        lr, seed = 10 ** (-1 - 0.5 * (place // 3)), 1 + place % 3
        run = make_run(folder / f"{place:02}", [f"optimizer.lr={lr}", f"seed={seed}"], losses(lr, seed))
        (run / "samples.txt").write_text(f"--- step 50\nearlier\n--- step 100\n</pre>{HOSTILE} of {place}\n")
    failed = make_run(folder / "failed", [f"data.path={HOSTILE}", "seed=4"], {}, end=None)
    (failed / "failed.json").write_text(json.dumps({"overrides": [], "error": f"no file {HOSTILE}"}))
    return folder


@pytest.fixture(scope="module")
def report(study: Path) -> Report:
    return gather([study])


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_holds_all_that_it_shows(text: str, page: Page) -> None:
    """Nothing is asked of a network, and the policy forbids it."""
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")
    assert not any(name in {"src", "href", "action"} and not value.startswith("#")
                   for _, attributes in page.tags for name, value in attributes.items())  # fmt: skip
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|import\(", text)
    assert len(text.encode()) < 2_000_000


def test_every_plot_is_there_over_steps_tokens_and_time(page: Page) -> None:
    plots = [one for one in page.all("div") if one.get("class") == "plot"]
    overs = [one.get("data-over") for one in plots]
    curves = ["validation loss", "training loss", "tokens per second"]  # what the runs of this test have logged
    assert [overs.count(over) for over in ("steps", "tokens", "time")] == [len(curves)] * 3
    assert overs.count(None) == 2, "means, and settings beside the loss"
    drawn = [one["aria-label"] for one in page.all("svg") if one.get("role") == "img"]
    assert len(drawn) == len(plots)
    assert all(f"{curve}" in " ".join(drawn) for curve in curves)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_a_row_a_run_the_best_first(page: Page, report: Report) -> None:
    rows = [one for one in page.all("tr") if "data-run" in one]
    assert [row["data-run"] for row in rows] == [str(number) for number in range(25)]
    assert report.rows[0].settings["seed"] == 1
    assert report.rows[-1].run.state == "failed", "without a loss it stands last"
    assert report.rows[0].loss == min(row.loss for row in report.rows[:-1])
    assert all(row["tabindex"] == "0" for row in rows)


def test_what_runs_wrote_is_text(text: str, page: Page) -> None:
    """A sample, a setting, an error: none of them is a tag."""
    assert HOSTILE not in text
    assert len(page.all("script")) == 1
    assert f"</pre>{HOSTILE} of" in page.text
    assert f"no file {HOSTILE}" in page.text


def test_it_says_what_was_asked_what_it_cost_and_how_to_make_it_again(page: Page, report: Report) -> None:
    for words in ("optimizer.lr", "24 done", "1 failed", "Comparison", "git checkout 0123456789abcdef", "together"):
        assert words in page.text, words
    best = report.rows[0]
    assert f"slm-train {' '.join(best.run.overrides)}" in page.text
    assert f"slm-reproduce run={best.run.folder}" in page.text
    assert report.total("tokens") == 24 * 100 * 512
    assert report.total("flops") == 24 * 100 * 512 * 6e6


def test_it_can_be_read_by_keyboard_and_screen_reader(text: str, page: Page) -> None:
    assert 'lang="en"' in text
    assert all("scope" in head for head in page.all("th"))
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= targets
    assert {section["aria-labelledby"] for section in page.all("section")} <= targets
    assert [radio["value"] for radio in page.all("input")] == ["steps", "tokens", "time"]


def test_json_has_the_same_and_no_nan(report: Report) -> None:
    text = json.dumps(as_json(report), allow_nan=False)
    assert differences("slm-report", text) == []
    content = json.loads(text)
    assert [run["val_loss"] for run in content["runs"]] == [*(row.loss for row in report.rows[:-1]), None]
    curve = content["runs"][0]["curves"]["val/loss"]
    assert curve["steps"] == list(range(10, 101, 10))
    assert curve["tokens"] == [512 * step for step in curve["steps"]]
    assert curve["values"][-1] == content["runs"][0]["last_val_loss"]
    assert content["comparison"]["reference"] == report.comparison.reference.name  # type: ignore[union-attr]
    assert content["ladder"] is None


def test_a_study_tells_the_command_that_made_it(tmp_path: Path) -> None:
    space = Space((Choice("optimizer.lr", ("1e-3", "3e-3")), Interval("model.dim", 0.1, 1.0, is_log=True)), ("1", "2"))
    sweep = {"kind": "random", "trials": 8, "pruner": "none", "prune_by": "step", "seed": 1}
    asked = Asked("s", "/some where", [], ["data.path=a b"], space.as_json(), sweep, 1)
    write_json(tmp_path / STUDY_FILE, vars(asked))
    make_run(tmp_path / "lr=1e-3,seed=1")
    (command,) = gather([tmp_path]).studies
    assert command == (
        "cd '/some where'\nslm-train -m 'data.path=a b' optimizer.lr=1e-3,3e-3 "
        f"'model.dim=tag(log,interval(0.1,1))' seed=1,2 sweep=random sweep.trials=8 run_dir={tmp_path}"
    )


def test_a_single_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    found = gather([run])
    page = Page(render(found))
    assert found.comparison is None
    assert found.why_no_comparison.startswith("one run")
    assert "Comparison" not in page.text
    assert as_json(found)["comparison"] is None


def test_a_run_that_logged_nothing(tmp_path: Path) -> None:
    (make_run(tmp_path / "none", losses={}, end=None) / "metrics.csv").unlink()
    page = Page(render(gather([tmp_path])))
    assert "No run has logged anything" in page.text


def test_a_ladder_is_shown_with_its_laws(tmp_path: Path) -> None:
    for depth in range(1, 8):
        run = make_run(tmp_path / str(depth), [f"model.n_layers={depth}"], {100: 1.5 + 4 * depth**-0.5})
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(
            json.dumps({**record, "parameters": 1000 * depth**3, "flops_per_token": 6e3 * depth**3})
        )
    found = gather([tmp_path])
    page = Page(render(found))
    assert "Hoffmann et al. 2022" in page.text
    assert "1 different values of tokens" in page.text
    laws = as_json(found)["ladder"]["laws"]
    assert [law["is_carried"] for law in laws if law["variables"] == ["tokens"]] == [False, False]
    floor = next(law for law in laws if law["variables"] == ["parameters"] and law["floor"])
    assert floor["exponents"][0]["value"] == pytest.approx(1 / 6, rel=0.01)
    assert floor["floor"]["value"] == pytest.approx(1.5, rel=0.01)


def test_where_chooses_and_nothing_is_refused(study: Path, tmp_path: Path) -> None:
    assert {row.run.seed for row in gather([study], "seed=2").rows} == {2}
    assert len(gather([study / "00", study / "00", study / "01"]).rows) == 2
    with pytest.raises(UserError, match=r"of 25\) meets where=seed>9"):
        gather([study], "seed>9")
    with pytest.raises(UserError, match="no run in"):
        gather([tmp_path])


def test_the_last_sample_alone_bounded_and_printable(tmp_path: Path) -> None:
    assert last_sample(tmp_path) == ""
    (tmp_path / "samples.txt").write_bytes(b"--- step 1\nold\n--- step 2\n\ndef\x00\x1b[2J\xff\n" + b"x" * 5000)
    shown = last_sample(tmp_path)
    assert shown.startswith("def\ufffd\ufffd[2J\ufffd\nxxx")
    assert len(shown) < 1600


@pytest.mark.parametrize(
    ("value", "said"), [(1234, "1,234"), (12_345_678, "12.3 M"), (3.5e15, "3.5 P"), (math.nan, "–"), (None, "–")]
)
def test_counts(value: Any, said: str) -> None:
    assert count(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "0.2 s"), (75, "1 min 15 s"), (3900, "1 h 05 min"), (math.nan, "–")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_command_writes_it_without_torch(study: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom slm.cli.report import main\n"
        f"sys.argv = ['slm-report', 'study={study}', 'out=made/sweep.json']\nmain()\n"
        "assert not {'torch', 'pytorch_lightning', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "made/sweep.json\n"), answer.stderr
    assert len(json.loads((tmp_path / "made/sweep.json").read_text())["runs"]) == 25


def test_mistakes(run_cli: Any, study: Path) -> None:
    for arguments, said in (
        ([], "nothing to report: name run folders or folders of runs, or study=PATH"),
        ([study, f"study={study}"], "runs and study are both given"),
        ([study, "out=a.pdf"], "out: 'a.pdf' ends in none of .html, .json"),
        (["nowhere"], "'nowhere' is no folder"),
    ):
        outcome = run_cli("report", *arguments)
        assert (outcome.status, outcome.out) == (2, "")
        assert said in outcome.err


# ---- in a browser ----

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>
const sizes = [...document.querySelectorAll("svg[role=img]")].map((one) => one.getBoundingClientRect());
for (const over of ["tokens", "time"]) {
  document.querySelector(`[value=${over}]`).click();
  sizes.push(...[...document.querySelectorAll("svg[role=img]")].map((one) => one.getBoundingClientRect()));
}
document.querySelector("tr[data-run='3']").click();
document.querySelector("table.sortable button").click();
document.body.dataset.found = JSON.stringify({
  shown: sizes.filter((one) => one.width > 200 && one.height > 80).length,
  standingOut: document.querySelectorAll("g.run.stands-out").length,
  wide: document.documentElement.scrollWidth,
  sorted: document.querySelectorAll("[aria-sort]").length,
});
</script></body>"""


def dumped(file: Path, width: int) -> tuple[str, str]:
    """The page as a browser has it after its scripts, in a frame `width` pixels wide, and what it said."""
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    arguments += ["--enable-logging=stderr", f"--window-size={width},900", file.as_uri()]
    answer = subprocess.run([str(BROWSER), *arguments], capture_output=True, text=True, timeout=120)
    return answer.stdout, answer.stderr


@pytest.mark.nightly
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [500, 1400])  # headless Chromium has no narrower window
def test_a_browser_shows_every_plot_and_complains_of_nothing(text: str, tmp_path: Path, width: int) -> None:
    """What the policy forbids, a request among it, would be told on the console."""
    file = tmp_path / "report.html"
    file.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    dom, said = dumped(file, width)
    found = json.loads(re.findall(r'data-found="([^"]*)"', dom)[0].replace("&quot;", '"'))
    assert found["shown"] == 3 * 5, "three curves and two more plots, over each of three axes"
    assert found["standingOut"] == 3 * 3 + 1, "in each curve, and beside the settings"
    assert found["wide"] <= width, "nothing makes the page wider than the window"
    assert found["sorted"] == 1
    assert "CONSOLE" not in said, said


@pytest.mark.nightly
@pytest.mark.serial
def test_24_runs_of_many_steps_in_ten_seconds_and_two_megabytes(tmp_path: Path) -> None:
    for place in range(24):
        values = {step: 2 + 3 / step + 0.01 * math.sin(step * place) for step in range(1, 4001)}
        make_run(tmp_path / f"{place:02}", [f"optimizer.lr={10 ** -(1 + place % 8)}", f"seed={place // 8}"], values)
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("slm-report"), str(tmp_path), "out=report.html"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert time.perf_counter() - start < 10
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
