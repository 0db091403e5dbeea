"""The stored baselines, a file a model or callable: read whole, changed under a lock and atomically.

They lie in ``<root>/<device-slug>/<model>.json`` and ``<root>/<device-slug>/callables/<quoted id of a test>.json``.
What is called a model below may be the id of such a test.

- An entry's **processes** are the last 20 recorded; `BaselineStore.append` adds to them.
- Its **anchor** starts as the first process recorded. Later processes of the same commit and versions join it until it
  holds 5, so that it is not forever as noisy as one process; then only `BaselineStore.accept` moves it.
- After an accepted change the processes from before it are no longer comparable: the list starts anew with the accepted
  ones.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from pytest_vq.errors import BaselineError
from pytest_vq.files import acquire, discard, lock_of, stage
from pytest_vq.schema.estimates import Anchor, Entry, Estimates, Operator
from pytest_vq.schema.setup import Setup
from pytest_vq.store import baseline_format as layout
from pytest_vq.store.baseline_format import BaselineFile

PROCESSES_KEPT = 20
ANCHOR_PROCESSES = 5
FIRST_REASON = "first recorded"
LOCK_TIMEOUT_S = 60.0

_HINTS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; point --vq-baselines (or --baselines) to a writable directory",
    errno.EACCES: "check its owner and permissions",
    errno.EPERM: "check its owner and permissions",
    errno.ENOTDIR: "the directory of baselines is a file; move it, or point --vq-baselines (or --baselines) elsewhere",
    errno.EEXIST: "the directory of baselines is a file; move it, or point --vq-baselines (or --baselines) elsewhere",
    errno.ENAMETOOLONG: "point --vq-baselines (or --baselines) to a directory with a shorter path",
}


class BaselineStore:
    """The baselines under ``root``. Every method raises BaselineError where a file cannot be read, trusted or written.

    Reading takes no lock (files are replaced whole). Writers of one device exclude each other (`files.lock_of`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def devices(self) -> list[str]:
        """Slugs of the devices that have baselines, sorted."""
        with _explained("read", self.root):
            names = sorted(p.name for p in self.root.iterdir() if p.is_dir()) if _exists(self.root) else []
        names = [name for name in names if not name.startswith(".") and name != layout.CALLABLES]
        return [name for name in names if self.has_baselines(name)]

    def nearest_device(self, device_slug: str) -> str | None:
        """The slug with baselines that is likest to ``device_slug``, itself left out; None where none is like it."""
        others = [slug for slug in self.devices() if slug != device_slug]
        return next(iter(difflib.get_close_matches(device_slug, others, n=1)), None)

    def models(self, device_slug: str) -> list[str]:
        """Names of the models, and ids of the tests with a callable, that have baselines on a device; sorted."""
        directory = layout.device_directory(self.root, device_slug)
        with _explained("read", directory):
            return sorted(map(layout.name_of_file, self._files(directory)))

    def has_baselines(self, device_slug: str) -> bool:
        """Whether a device has any."""
        directory = layout.device_directory(self.root, device_slug)
        with _explained("read", directory):
            return next(self._files(directory), None) is not None

    def entries(self, device_slug: str, model: str) -> tuple[Entry, ...]:
        """The baselines of ``model`` on a device; empty when none was ever recorded."""
        stored = self._read(device_slug, model)
        return stored.entries if stored else ()

    def entry(self, device_slug: str, model: str, setup: Setup) -> Entry | None:
        """The baseline of one setup of ``model`` on a device; None when there is none."""
        return next((entry for entry in self.entries(device_slug, model) if entry.setup == setup), None)

    def all_entries(self, device_slug: str) -> dict[str, tuple[Entry, ...]]:
        """Model -> its baselines, for every model recorded on a device."""
        return {model: self.entries(device_slug, model) for model in self.models(device_slug)}

    def append(
        self,
        device_slug: str,
        device_name: str,
        taken: Iterable[tuple[str, Setup, Estimates]],
        operators: Mapping[tuple[str, Setup], Mapping[str, Operator]] = MappingProxyType({}),
    ) -> tuple[Path, ...]:
        """Record processes: ``(model, setup, estimates)`` each. Returns the files written.

        ``operators`` of a model and setup are stored where the entry has none yet.
        All or nothing as far as a file system allows: every new content is complete on disk before the first file is
        replaced. A process that is already there is not recorded twice.
        """

        def add(entry: Entry | None, setup: Setup, estimates: Estimates) -> Entry:
            if entry is None:
                return Entry(setup, Anchor((estimates,), FIRST_REASON, estimates.date_utc), (_brief(estimates),))
            if _brief(estimates) in entry.processes:
                return entry
            processes = (*entry.processes, _brief(estimates))[-PROCESSES_KEPT:]
            return replace(entry, anchor=_grown(entry.anchor, estimates), processes=processes)

        with self._locked(device_slug):
            changed: dict[str, BaselineFile] = {}
            for model, setup, estimates in taken:
                stored = changed.get(model) or self._read_or_new(device_slug, device_name, model)
                entry = add(_find(stored, setup), setup, estimates)
                if not entry.operators:
                    entry = replace(entry, operators=operators.get((model, setup), {}))
                changed[model] = _with_entry(stored, entry, device_name)
            return self._write(changed.values())

    def accept(
        self,
        device_slug: str,
        device_name: str,
        accepted: Iterable[tuple[str, Setup, Sequence[Estimates]]],
        reason: str,
    ) -> tuple[Path, ...]:
        """Make ``(model, setup, estimates of its processes)`` the new anchors. Returns the files written.

        The processes recorded before are dropped: a changed thing is not comparable with what it was. ``reason`` and
        today's date are kept. Raises BaselineError without a reason or without an estimate.
        """
        if not reason.strip():
            raise BaselineError("an accepted change needs a reason: say why the figures changed")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._locked(device_slug):
            changed: dict[str, BaselineFile] = {}
            for model, setup, estimates in accepted:
                stored = changed.get(model) or self._read_or_new(device_slug, device_name, model)
                processes = tuple(estimates)[-PROCESSES_KEPT:]
                brief = tuple(map(_brief, processes))
                entry = Entry(setup, Anchor((*processes[:1], *brief[1:]), reason.strip(), now), brief)
                changed[model] = _with_entry(stored, entry, device_name)
            return self._write(changed.values())

    def _files(self, directory: Path) -> Iterator[Path]:
        return layout.baseline_files(directory) if _exists(directory) else iter(())

    def _read(self, device_slug: str, model: str) -> BaselineFile | None:
        path = layout.path_of(self.root, device_slug, model)
        with _explained("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        stored = layout.decode(data, path)
        if (stored.device, stored.model) != (device_slug, model):
            raise BaselineError(
                f"{path} holds the baselines of {stored.model} on {stored.device}: was it copied or renamed? "
                f"Move it to {layout.path_of(self.root, stored.device, stored.model)}, or delete it"
            )
        return stored

    def _read_or_new(self, device_slug: str, device_name: str, model: str) -> BaselineFile:
        return self._read(device_slug, model) or BaselineFile(device_slug, device_name, model, ())

    def _write(self, files: Iterable[BaselineFile]) -> tuple[Path, ...]:
        # A link stays a link: what it points to is replaced.
        contents = {layout.path_of(self.root, f.device, f.model).resolve(): layout.encode(f) for f in files}
        staged: dict[Path, Path] = {}
        try:
            for path, content in contents.items():
                with _explained("write", path):
                    path.parent.mkdir(exist_ok=True)  # that of callables
                    staged[path] = stage(path, content)
            for path, temporary in staged.items():
                with _explained("replace", path):
                    temporary.replace(path)
        finally:
            for temporary in staged.values():
                discard(temporary)
        return tuple(contents)

    @contextmanager
    def _locked(self, device_slug: str) -> Iterator[None]:
        directory = layout.device_directory(self.root, device_slug)
        with _explained("create", directory):
            directory.mkdir(parents=True, exist_ok=True)
            lock = lock_of(directory, "baselines")
        held = f"another process has held the lock of {directory} for {LOCK_TIMEOUT_S:.0f} s: {lock.lock_file}"
        acquire(lock, BaselineError, f"{held}; wait for it, or end it", LOCK_TIMEOUT_S)
        try:
            yield
        finally:
            lock.release()


def _exists(directory: Path) -> bool:
    """Like ``Path.exists``, but a file in place of a directory on the way is an error, not an absence."""
    try:
        directory.stat()
    except FileNotFoundError:
        return False
    return True


def _brief(estimates: Estimates) -> Estimates:
    """``estimates`` without the bit an image: one copy, the anchor's, is enough."""
    return replace(estimates, right_answers=None)


def _find(stored: BaselineFile, setup: Setup) -> Entry | None:
    return next((entry for entry in stored.entries if entry.setup == setup), None)


def _with_entry(stored: BaselineFile, entry: Entry, device_name: str) -> BaselineFile:
    others = tuple(e for e in stored.entries if e.setup != entry.setup)
    return replace(stored, device_name=device_name, entries=(*others, entry))


def _grown(anchor: Anchor, estimates: Estimates) -> Anchor:
    if len(anchor.estimates) >= ANCHOR_PROCESSES or any(_code(e) != _code(estimates) for e in anchor.estimates):
        return anchor
    return replace(anchor, estimates=(*anchor.estimates, _brief(estimates)))


def _code(estimates: Estimates) -> tuple[str | None, dict[str, str]]:
    """What ran. Recording a baseline makes the tree dirty itself, so "-dirty" does not count as another commit."""
    return estimates.commit and estimates.commit.removesuffix("-dirty"), dict(estimates.versions)


@contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "check the path")
        raise BaselineError(f"cannot {action} {error.filename or path}: {error.strerror or error}: {hint}") from error
