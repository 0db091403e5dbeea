"""What ``report.md`` says of a run: verdicts first, aggregates after them, and what nobody should conclude. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_vq.report import facts, report_serving
from pytest_vq.report.chart_data import ordered_pairs
from pytest_vq.report.document_blocks import Lines, Table
from pytest_vq.report.next_command import measure_again, record_baselines, show_baselines
from pytest_vq.report.pareto import STANDING_WORDS, standings_of
from pytest_vq.report.report_blocks import Command, Paragraph, Picture, ReportBlock, Section, report_markdown
from pytest_vq.report.report_callables import callables_in, rows_in_words
from pytest_vq.report.report_categories import categories_table
from pytest_vq.report.report_models import (
    callables_table,
    coverage_table,
    launches_table,
    models_table,
    preparation_table,
)
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.report.serving_rows import ordered_serving
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import Results

FIGURES_FOLDER = "figures"
PICTURES = {
    "speedup_heatmap": "Speedup over FP32, a cell a model and scheme; the figures stand in the table of pairs",
    "memory_efficiency": "Peak memory and what each scheme saves of FP32's; the figures stand in the table of pairs",
    "performance_analysis": "Speedup and memory by scheme, size against speedup, throughput by category",
}
_PROTOCOLS = {
    "adaptive": "timed until its 95 % interval was narrow enough, or the time for a pair was used up",
    "study": "timed 1,000 times after 100 requests to warm up, as the study did",
}
_NO_VERDICT = (Status.INCOMPARABLE, Status.NO_BASELINE)


def study_report(results: Results, explained: Mapping[CaseId, Explained] | None = None) -> bytes:
    """``report.md`` of a run; ``explained`` says what changed inside the pairs that FAIL."""
    pairs, callables = ordered_pairs(results.records), callables_in(results.records)
    served = ordered_serving(results.records)
    alone, records = [*pairs, *callables], [*pairs, *served, *callables]
    blocks = [
        *_headline(results, records, explained or {}),
        *_failures(results),
        *(_about_pairs(results, pairs) if pairs else ()),
        *(_about_serving(served) if served else ()),
        *(_about_callables(callables) if callables else ()),
        *(_launches(results, alone) if alone else ()),
        *_undecided(results, records),
        *_method(records),
        *_facts(results, records),
    ]
    return report_markdown(blocks).encode()


def _headline(
    results: Results, records: Sequence[Record], explained: Mapping[CaseId, Explained]
) -> Iterator[ReportBlock]:
    devices = dict.fromkeys(environment.device_name for environment in results.environments)
    what = "Callables" if records and all(r.setup.is_callable for r in records) else "Quantized vision models"
    yield Section(f"{what} on {', '.join(devices)}", level=1)
    yield Paragraph(facts.headline(records), is_loud=True)
    counts = [f"{found.pairs} {found.name}" for found in facts.verdict_counts(records)]
    counts += [f"{len(results.failures)} not measured"] if results.failures else []
    unfinished = "" if results.complete else " The run was interrupted: what it had measured until then is here."
    yield Paragraph(f"{', '.join(counts)}.{unfinished}")
    failed = facts.failed_pairs(records, explained)
    if failed:
        yield Section("What FAILs")
    for pair in failed:
        yield Lines((f"{pair.id}: {pair.reason}", *pair.sentences))


def _failures(results: Results) -> Iterator[ReportBlock]:
    if results.failures:
        yield Section("What could not be measured")
        yield Lines(tuple(f"{failure.id}: {failure.error}: {failure.message}" for failure in results.failures))


def _about_pairs(results: Results, pairs: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Figures")
    yield from (Picture(f"{FIGURES_FOLDER}/{name}", text) for name, text in PICTURES.items())
    yield from _by_category(results, pairs)
    yield from _by_model(results, pairs)


def _about_callables(callables: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Callables")
    yield callables_table(callables)
    yield Paragraph(
        "Code of tests' own, each compared with its own baseline alone. Peak memory is what one call took beyond what "
        "was there before it."
    )


def _about_serving(served: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Serving")
    yield report_serving.figures_table(served)
    yield Lines(report_serving.introduction(served))
    for title, lines in report_serving.remarks(served).items():
        yield Section(title, level=3)
        yield Lines(lines)
    for title, table in (
        ("Batches by size", report_serving.sweep_table(served)),
        ("What the fallback costs", report_serving.fallback_table(served)),
    ):
        if table.rows:
            yield Section(title, level=3)
            yield table


def _by_category(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("By category")
    if any(record.verdict is Status.FAIL for record in records):
        yield Paragraph("The means below include pairs that FAIL: read those first.")
    yield categories_table(results)


def _by_model(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("By model")
    yield models_table(records, standings_of(results.rows))
    yield Paragraph(f"Pareto: {STANDING_WORDS}.")
    notes = notes_on(records)
    if notes:
        yield Lines(tuple(notes))
    prepared = preparation_table(records)
    if prepared.rows:
        yield Section("What it took to prepare")
        yield prepared


def _launches(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Where launches dominate and precision cannot show")
    if all(environment.device == "cpu" for environment in results.environments):
        yield Paragraph("This does not apply on a CPU: it computes what it is told at once, and launches nothing.")
        return
    bound = [record for record in records if record.timing.launch_bound]
    unknown = [record for record in records if record.timing.launch_bound is None]
    if bound:
        yield Paragraph(
            f"{len(bound)} of {rows_in_words(records)} took more than 1.1 times the device's own time: the device "
            "waited for the CPU to launch its work, and a faster precision could not be seen in the latency. The "
            "device speedup compares the device's own times."
        )
        yield launches_table(bound)
    else:
        known = [record for record in records if record.timing.launch_bound is not None]
        yield Paragraph(f"None of the {rows_in_words(known)} whose device time is known.")
    if unknown:
        yield Paragraph(f"The device time of {rows_in_words(unknown)} is not known: nothing is said of those.")


def _undecided(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("What is undecided, and what would decide it")
    open_pairs = [record for record in records if record.verdict is Status.INCONCLUSIVE]
    for record in open_pairs:
        yield Lines((f"{record.verdict} {record.id}: {record.reason}",))
        yield Command(measure_again(record, results.options))
    told = [told for told in facts.told_verdicts(records) if told.name in _NO_VERDICT]
    for verdict in told:
        yield Lines(tuple(f"{verdict.name} {', '.join(ids)}: {reason}" for reason, ids in verdict.reasons))
        them = [record for record in records if record.verdict == verdict.name]
        if verdict.name == Status.INCOMPARABLE:
            yield from _how_their_baselines_were_measured(results, them)
        for kind in (ordered_pairs(them), ordered_serving(them), callables_in(them)):
            if kind:
                yield Command(record_baselines(kind, results.options))
    if not open_pairs and not told:
        judged = any(record.verdict is not None for record in records)
        yield Paragraph("Nothing." if judged else "Every verdict: this run was not compared with baselines.")


def _how_their_baselines_were_measured(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    slugs = {row.record.case_id: row.environment.device_slug for row in results.rows}
    yield Paragraph("How their baselines were measured; measured alike, these pairs are compared:")
    for slug in dict.fromkeys(slugs[record.case_id] for record in records):
        on_it = [record for record in records if slugs[record.case_id] == slug]
        yield Command(show_baselines(on_it, slug, results.options))
    yield Paragraph("Or a baseline of its own for what was measured here:")


def _method(records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("How it was measured")
    if any(record.setup.serving is not None for record in records):
        yield Paragraph(f"{report_serving.METHOD}.")
    yield from _method_alone([record for record in records if record.setup.serving is None])
    if any(record.setup.weights == "random" for record in records):
        yield Paragraph(
            "Weights are random where the environment says so: times and memory are those of trained ones, the "
            "fidelity is not."
        )


def _method_alone(records: Sequence[Record]) -> Iterator[ReportBlock]:
    """Of pairs and callables by themselves."""
    protocols = dict.fromkeys(record.setup.protocol for record in records)
    timed = "; ".join(f"{name} protocol: {_PROTOCOLS.get(name, 'as its name says')}" for name in protocols)
    if not any(record.setup.is_pair for record in records):
        if records:
            yield Paragraph(f"The latency is the median time of one call, {timed}. An empty cell was not measured.")
        return
    yield Paragraph(
        f"The latency is the median time of one request, {timed}. The speedup is FP32's time divided by the scheme's, "
        "from blocks that alternate in one process, with the 95 % interval of that ratio: above 1x is faster. Peak "
        "memory is the most that a request held, on a CPU the growth of resident memory. The fidelity is the signal "
        "to quantization noise against FP32 of the same weights on the same inputs, and on labelled images the share "
        "answered right. An empty cell was not measured."
    )


def _facts(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Environment")
    where = facts.environment_facts(results)
    yield Table(("what", "value"), ("left", "left"), tuple((fact.name, fact.value) for fact in where))
    if not all(record.setup.is_callable for record in records):
        yield Section("Coverage")
        pairs = [record for record in records if record.setup.is_pair]
        covered = coverage_table(pairs or records)  # where a pair has a row of its own, that one says it
        yield covered if covered.rows else Paragraph("No scheme of this run replaces layers.")
    notes = facts.notes(records)
    if notes:
        yield Section("Disturbances and notes")
        yield Lines(tuple(f"{note.name}: {note.value}" for note in notes))
