"""What became of an earlier run's rows in the run that took it up, as the reporting process sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pytest_vq.report.report_callables import rows_in_words
from pytest_vq.schema.outcome import Outcome
from pytest_vq.schema.record import Record
from pytest_vq.store.results import Results
from pytest_vq.wording import listed

_SHOWN = 3  # reasons in a note


class Resumption:
    """Counts what of ``earlier`` was met again; None is what a run finds where there is nothing to take up."""

    def __init__(self, earlier: Results | None) -> None:
        self._earlier = earlier
        self._rows = {row.key: row.record for row in earlier.rows} if earlier else {}  # not met yet
        self._failures = {failure.id for failure in earlier.failures} if earlier else set()
        self._kept: list[Outcome] = []
        self._measured: list[Outcome] = []

    def take(self, outcome: Outcome) -> None:
        """A pair or callable has its row."""
        (self._kept if outcome.kept else self._measured).append(outcome)
        pair = outcome.record.case_id
        self._rows.pop((outcome.test, pair), None)
        self._rows.pop((None, pair), None)
        self.take_failure(str(pair))

    def take_failure(self, case_id: str) -> None:
        """One was tried again, and could not be measured."""
        self._failures.discard(case_id)

    @property
    def leaves_a_gap(self) -> bool:
        """True where the earlier run was cut short, and not all that it had begun with was selected in this one."""
        return self._earlier is not None and not self._earlier.complete and bool(self._rows or self._failures)

    def notes(self, output: Path) -> list[str]:
        """What the summary says of it."""
        if self._earlier is None:
            return [f"--vq-resume: {output} held no results to go on with: this run began them"]
        again = Counter(outcome.replaces for outcome in self._measured if outcome.replaces is not None)
        reasons = listed([f"{count} again, for {reason}" for reason, count in again.most_common()], _SHOWN)
        measured = f"{_counted(self._measured)} measured{f' ({reasons})' if again else ''}"
        notes = [f"resumed the run of {self._earlier.started_utc}: {_counted(self._kept)} kept, {measured}"]
        if self._rows or self._failures:
            left = rows_in_words(list(self._rows.values())) if self._rows else "pairs that could not be measured"
            ending = ", and the run stays marked as interrupted" if self.leaves_a_gap else ""
            notes.append(f"not selected here, and left as before: {left} of the earlier run{ending}")
        return notes + _doubts(self._kept)


def _counted(outcomes: Iterable[Outcome]) -> str:
    records: list[Record] = [outcome.record for outcome in outcomes]
    return rows_in_words(records) if records else "none"


def _doubts(kept: Iterable[Outcome]) -> list[str]:
    """Where nothing tells whether the code is still what it was."""
    commits = {outcome.environment.commit for outcome in kept}
    unknown = [commit for commit in commits if commit is None or commit.endswith("-dirty")]
    if not unknown:
        return []
    why = "there is no git repository here" if unknown == [None] else "the tree has changes that are not committed"
    return [f"WARNING: {why}: that the kept rows are of the code as it is now cannot be told"]
