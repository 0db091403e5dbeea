"""What ``report.md`` says of a run: verdicts first, aggregates after them, and what nobody should conclude. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_vq.report import facts
from pytest_vq.report.chart_data import ordered_pairs
from pytest_vq.report.next_command import measure_again, record_baselines
from pytest_vq.report.report_blocks import Command, Paragraph, Picture, ReportBlock, Section, report_markdown
from pytest_vq.report.report_categories import categories_table
from pytest_vq.report.report_models import coverage_table, launches_table, models_table
from pytest_vq.report.side_document import Lines, Table
from pytest_vq.schema.record import Record
from pytest_vq.schema.spec import CaseId
from pytest_vq.schema.verdict import Status
from pytest_vq.store.explained import Explained
from pytest_vq.store.results import Results
from pytest_vq.wording import count

FIGURES_FOLDER = "figures"
PICTURES = {
    "speedup_heatmap": "Speedup over FP32, a cell a model and scheme; the figures stand in the table of pairs",
    "memory_efficiency": "Peak memory and what each scheme saves of FP32's; the figures stand in the table of pairs",
    "performance_analysis": "Speedup and memory by precision, size against speedup, throughput by category",
}
_PROTOCOLS = {
    "adaptive": "timed until its 95 % interval was narrow enough, or the time for a pair was used up",
    "study": "timed 1,000 times after 100 requests to warm up, as the study did",
}
_NO_VERDICT = (Status.INCOMPARABLE, Status.NO_BASELINE)


def study_report(results: Results, explained: Mapping[CaseId, Explained] | None = None) -> bytes:
    """``report.md`` of a run; ``explained`` says what changed inside the pairs that FAIL."""
    records = ordered_pairs(results.records)
    blocks = [
        *_headline(results, records, explained or {}),
        *_failures(results),
        Section("Figures"),
        *(Picture(f"{FIGURES_FOLDER}/{name}", text) for name, text in PICTURES.items()),
        *_by_category(results, records),
        Section("By model"),
        models_table(records),
        *_launches(results, records),
        *_undecided(results, records),
        *_method(records),
        *_facts(results, records),
    ]
    return report_markdown(blocks).encode()


def _headline(
    results: Results, records: Sequence[Record], explained: Mapping[CaseId, Explained]
) -> Iterator[ReportBlock]:
    devices = dict.fromkeys(environment.device_name for environment in results.environments)
    yield Section(f"Quantized vision models on {', '.join(devices)}", level=1)
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


def _by_category(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("By category")
    if any(record.verdict is Status.FAIL for record in records):
        yield Paragraph("The means below include pairs that FAIL: read those first.")
    yield categories_table(results)


def _launches(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Where launches dominate and precision cannot show")
    if all(environment.device == "cpu" for environment in results.environments):
        yield Paragraph("This does not apply on a CPU: it computes what it is told at once, and launches nothing.")
        return
    bound = [record for record in records if record.timing.launch_bound]
    unknown = sum(record.timing.launch_bound is None for record in records)
    if bound:
        yield Paragraph(
            f"{len(bound)} of {count(len(records), 'pair')} took more than 1.1 times the device's own time: the device "
            "waited for the CPU to launch its work, and a faster precision could not be seen in the latency. The "
            "device speedup compares the device's own times."
        )
        yield launches_table(bound)
    else:
        yield Paragraph(f"None of the {count(len(records) - unknown, 'pair')} whose device time is known.")
    if unknown:
        yield Paragraph(f"The device time of {count(unknown, 'pair')} is not known: nothing is said of those.")


def _undecided(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("What is undecided, and what would decide it")
    open_pairs = [record for record in records if record.verdict is Status.INCONCLUSIVE]
    for record in open_pairs:
        yield Lines((f"{record.verdict} {record.id}: {record.reason}",))
        yield Command(measure_again(record, results.options))
    told = [told for told in facts.told_verdicts(records) if told.name in _NO_VERDICT]
    for verdict in told:
        yield Lines(tuple(f"{verdict.name} {', '.join(ids)}: {reason}" for reason, ids in verdict.reasons))
        yield Command(record_baselines([r for r in records if r.verdict == verdict.name], results.options))
    if not open_pairs and not told:
        judged = any(record.verdict is not None for record in records)
        yield Paragraph("Nothing." if judged else "Every verdict: this run was not compared with baselines.")


def _method(records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("How it was measured")
    protocols = dict.fromkeys(record.setup.protocol for record in records)
    timed = "; ".join(f"{name} protocol: {_PROTOCOLS.get(name, 'as its name says')}" for name in protocols)
    yield Paragraph(
        f"The latency is the median time of one request, {timed}. The speedup is FP32's time divided by the scheme's, "
        "from blocks that alternate in one process, with the 95 % interval of that ratio: above 1x is faster. Peak "
        "memory is the most that a request held, on a CPU the growth of resident memory. The fidelity is the signal "
        "to quantization noise against FP32 of the same weights on the same inputs, and on labelled images the share "
        "answered right. An empty cell was not measured."
    )
    if any(record.setup.weights == "random" for record in records):
        yield Paragraph(
            "Weights are random where the environment says so: times and memory are those of trained ones, the "
            "fidelity is not."
        )


def _facts(results: Results, records: Sequence[Record]) -> Iterator[ReportBlock]:
    yield Section("Environment")
    where = facts.environment_facts(results)
    yield Table(("what", "value"), ("left", "left"), tuple((fact.name, fact.value) for fact in where))
    yield Section("Coverage")
    covered = coverage_table(records)
    yield covered if covered.rows else Paragraph("No scheme of this run replaces layers.")
    notes = facts.notes(records)
    if notes:
        yield Section("Disturbances and notes")
        yield Lines(tuple(f"{note.name}: {note.value}" for note in notes))
