"""Writes the page: one file of HTML with its own style and script, and a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pytest_vq.report import facts, report_serving
from pytest_vq.report.chart_data import ordered_pairs
from pytest_vq.report.escaping import plain
from pytest_vq.report.page import page_history, page_strips
from pytest_vq.report.page.page_images import chart_images
from pytest_vq.report.page.page_rows import page_table
from pytest_vq.report.pareto import STANDING_WORDS, standings_of
from pytest_vq.report.report_callables import callables_in, rows_in_words
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.report.serving_rows import ordered_serving
from pytest_vq.schema.record import Record
from pytest_vq.schema.side import Side
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import Results
from pytest_vq.store.samples import SamplesLine

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATE = "report.html.j2"


def render_page(
    results: Results,
    samples: Sequence[SamplesLine] = (),
    history: Sequence[Side] = (),
    explained: Mapping[CaseId, Explained] | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> bytes:
    """``report.html``: the same bytes for the same run, whenever and wherever it is written.

    ``samples`` are drawn as distributions, ``history`` (earlier runs and baselines) as trends, and ``explained`` says
    what changed inside the pairs that FAIL; what is not given is left out of the page. Those of ``figures``, the
    study's as SVG, are not drawn again.
    """
    from markupsafe import Markup

    pairs, standings = ordered_pairs(results.records), standings_of(results.rows)
    alone, served = [*pairs, *callables_in(results.records)], ordered_serving(results.records)
    style, script = _asset("report.css"), _asset("report.js")
    page = (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
            results=results,
            **_content([*alone, *served], results, history),
            **_evidence([*alone, *served], samples, explained or {}),
            **_serving(served),
            charts=chart_images(pairs, standings, figures or {}),
            table=page_table(alone, standings),
        )
    )
    return page.encode()


def _content(records: Sequence[Record], results: Results, history: Sequence[Side]) -> dict[str, Any]:
    """What the template says of the run as a whole, and of earlier ones."""
    return {
        "headline": facts.headline(records),
        "pairs": rows_in_words(records),
        "listed": rows_in_words([record for record in records if record.setup.serving is None]),
        "counts": facts.verdict_counts(records),
        "told": facts.told_verdicts(records),
        "notes": facts.notes(records),
        "pareto_words": STANDING_WORDS,
        "scheme_notes": notes_on(records),
        "trends": page_history.trends([r for r in records if r.setup.serving is None], results, history),
        "unused": page_history.unused(results, history),
        "has_history": bool(history),
        "spark": (page_history.WIDTH_PX, page_history.HEIGHT_PX),
        "facts": facts.environment_facts(results),
    }


def _serving(served: Sequence[Record]) -> dict[str, Any]:
    """What the template says of pairs under load; nothing where there are none."""
    tables = {
        "Pairs under load": report_serving.figures_table(served),
        "Batches by size": report_serving.sweep_table(served),
        "What the fallback costs": report_serving.fallback_table(served),
    }
    return {
        "served": {title: table for title, table in tables.items() if table.rows},
        "served_how": report_serving.introduction(served),
        "served_remarks": report_serving.remarks(served),
        "served_method": report_serving.METHOD,
    }


def _evidence(
    records: Sequence[Record], samples: Sequence[SamplesLine], explained: Mapping[CaseId, Explained]
) -> dict[str, Any]:
    """What the template shows of single pairs beside their figures."""
    return {
        "failed": facts.failed_pairs(records, explained),
        "groups": page_strips.strip_groups([r for r in records if r.setup.serving is None], samples),
        "strip_width": page_strips.WIDTH_PX,
        "lane_height": page_strips.LANE_PX,
        "most_quantiles": page_strips.MOST_QUANTILES,
    }


def _asset(name: str) -> str:
    return files("pytest_vq.report.page").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and nothing runs but what has one of these hashes; images are part of the file."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment() -> Environment:
    """Templates in which every value is escaped: as HTML, and before that what could reorder or hide text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template(name: str) -> str:
    return files("pytest_vq.report.page").joinpath("templates", name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    from markupsafe import Markup

    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)
