"""How soon the report's page answers: sorting and filtering its table of 2,000 rows, in headless Chromium.

    python tools/page_speed.py              # needs chromium and the extra ``report``

Two times are printed of each, their medians and their maxima over all repetitions: until the script is done and the
page laid out anew, and until the frame after that is painted, which is what somebody at the screen waits for.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from pytest_vq.report.page.page_render import render_page
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results, Row

ROWS = 2_000
REPETITIONS = 30
SORTED_BY = ("model", "median ms", "speedup", "verdict")
FILTERS = {"model": "net-1", "scheme": "int8", "verdict": "FAIL", "category": "edge"}
PRECISIONS = ("fp32", "fp16", "int8", "int4")
# Milliseconds of what ``act`` does: until all is laid out, and until it has been painted.
TIMED = """(async (act) => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const start = performance.now();
  act();
  document.getElementById("results").getBoundingClientRect();
  const done = performance.now();
  await frame();
  await new Promise((resolve) => setTimeout(resolve));
  return [done - start, performance.now() - start];
})"""
CLICK = """() => Array.from(document.querySelectorAll("#results thead button"))
  .find((button) => button.textContent === {0!r}).click()"""
CHOOSE = """() => {{
  const filter = document.querySelector("[data-filter={0}]");
  filter.value = filter.value ? "" : {1!r};
  filter.dispatchEvent(new Event("input", {{ bubbles: true }}));
}}"""


def write_page(path: Path, tests: Any) -> None:
    """A page of ``ROWS`` pairs with all figures, made as the tests make theirs."""
    statuses = list(Status)
    rows = []
    for number in range(ROWS):
        record = tests.make_record(
            f"net-{number // len(PRECISIONS):03}",
            PRECISIONS[number % len(PRECISIONS)],
            category=("edge", "production", "foundation")[number % 3],
            verdict=statuses[number % len(statuses)],
            reason=f"reason {number % 7}",
            latency_ms=1 + (7919 * number) % ROWS / 7,
            speedup=0.1 + (104729 * number) % ROWS / 100,
            throughput_ips=1e3 / (1 + number),
            accuracy=0.9,
        )
        rows.append(Row(record, tests.ENVIRONMENT, (Estimates.of(record, tests.ENVIRONMENT),)))
    results = Results({}, (tests.ENVIRONMENT,), tuple(rows), (), "2026-01-01T00:00:00", "2026-01-01T01:00:00", True)
    path.write_bytes(render_page(results))


def told(name: str, times: list[list[float]]) -> str:
    """A line for one kind of action."""
    laid_out, painted = zip(*times, strict=True)
    shown = [f"{statistics.median(column):.0f} ms (at most {max(column):.0f})" for column in (laid_out, painted)]
    return f"{name:<10} {len(times):>3} times: laid out in {shown[0]}, painted in {shown[1]}"


def main() -> None:
    """Measure and print."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    browser, tests = import_module("browser"), import_module("factories")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_page(page, tests)
        with browser.Tab(Path(folder) / "profile") as tab:
            tab.open(page)
            sorts = [CLICK.format(SORTED_BY[n % len(SORTED_BY)]) for n in range(REPETITIONS)]
            choices = [CHOOSE.format(*list(FILTERS.items())[n // 2 % len(FILTERS)]) for n in range(REPETITIONS)]
            print(f"{ROWS} rows of {tab.run('document.querySelectorAll(`#results thead th`).length')} columns")
            for name, actions in (("sorting", sorts), ("filtering", choices)):
                print(told(name, [tab.run(f"{TIMED}({action})") for action in actions]))


if __name__ == "__main__":
    main()
