"""``comment.md``: what a run has to say under a pull request, as one comment that is edited in place. Pure.

Its first line is a marker that no reader sees. It tells this comment from others, and one job's from another's: whoever
posts it looks for a comment that begins with that line. The second line says whether anything is open; where nothing
is, and no comment was posted before, none is needed.
"""

from __future__ import annotations

import hashlib
import json
import re

from pytest_vq.report.escaping import markdown
from pytest_vq.report.fitted_rows import OPEN, counts, devices, fitted, open_groups
from pytest_vq.report.scheme_notes import notes_on
from pytest_vq.schema.verdict import Status
from pytest_vq.store.results import Results

COMMENT = "comment.md"
MARKER = "<!-- pytest-vq -->"
OPEN_LINE = "<!-- pytest-vq:open -->"
RESOLVED_LINE = "<!-- pytest-vq:resolved -->"
LIMIT_BYTES = 65_000  # GitHub takes 65,536 characters; whoever posts it may add a line of its own
_COMPARED = (Status.PASS, Status.IMPROVED)
# What makes two jobs of one pull request two: where they measure, and what. A budget or a gate does not.
_SUITE = ("gpu", "models", "precisions", "batch", "weights", "protocol")


def comment(results: Results) -> str:
    """The comment: rows that FAIL, are INCONCLUSIVE or could not be measured; short where there are none."""
    where = devices(results)
    on_device = f" on {where}" if where else ""
    marker = f"{MARKER}<!-- pytest-vq:{_key(results)} -->\n"
    if _is_resolved(results):
        text = f"Resolved: nothing FAILs and nothing is INCONCLUSIVE{on_device}: {markdown(counts(results))}."
        return f"{marker}{RESOLVED_LINE}\n{text}\n"
    told = "".join(f"{markdown(note)}\n\n" for note in notes_on(r for r in results.records if r.verdict in OPEN))
    head = f"{marker}{OPEN_LINE}\n## pytest-vq: {markdown(counts(results))}{on_device}\n\n{_remark(results)}{told}"
    # The names of many devices may fill a comment; the marker, without which nobody finds it again, never does.
    return fitted(head, open_groups(results), LIMIT_BYTES) or f"{marker}{OPEN_LINE}\n{markdown(counts(results))}\n"


def _is_resolved(results: Results) -> bool:
    """True where pairs were compared and all is well: without a comparison what failed before may fail still."""
    verdicts = {record.verdict for record in results.records}
    is_open = not results.complete or bool(results.failures) or not verdicts.isdisjoint(OPEN)
    return not is_open and not verdicts.isdisjoint(_COMPARED)


def _remark(results: Results) -> str:
    if not results.complete:
        return "The run was interrupted: what it had measured until then is here.\n\n"
    if all(record.verdict not in (*OPEN, *_COMPARED) for record in results.records):
        return "No pair could be compared with a baseline, so this says nothing of what changed.\n\n"
    return ""


def _key(results: Results) -> str:
    """Tells the devices and the selection of a run: letters, digits and single hyphens, whatever they are called."""
    slugs = sorted({environment.device_slug for environment in results.environments})
    suite = [results.options.get(name) for name in _SUITE]
    if any(record.setup.serving is not None for record in results.records):
        suite.append("under load")  # a job of its own, with the same options as that of the pairs
    digest = hashlib.sha256(json.dumps([slugs, suite], sort_keys=True, default=str).encode()).hexdigest()
    readable = re.sub(r"[^a-z0-9]+", "-", "-".join(slugs).lower()).strip("-")[:60].strip("-")
    return f"{readable or 'no-device'}-{digest[:12]}"
