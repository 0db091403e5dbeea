from __future__ import annotations

import difflib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_estimates, make_setup

from pytest_vq.errors import BaselineError
from pytest_vq.files import lock_of
from pytest_vq.schema.estimates import Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.schema.spec import EAGER
from pytest_vq.store import baselines as store_module
from pytest_vq.store.baselines import BaselineStore

TESTS = Path(__file__).parents[1]
VERSION_1 = TESTS / "data" / "baselines-v1"
DEVICE, NAME = "nvidia-h200", "NVIDIA H200"
SETUP = make_setup(threads=None)


def estimates(latency_ms: float = 4.0, **changes: Any) -> Estimates:
    """A process's estimates of another day than today."""
    usual = {"latency_ms": latency_ms, "speedup": 1.5, "date_utc": "2025-01-01T00:00:00+00:00"}
    return make_estimates(**(usual | changes))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def append(root: Path, *taken: Estimates, model: str = "vit", setup: Setup = SETUP) -> Path:
    (path,) = BaselineStore(root).append(DEVICE, NAME, [(model, setup, one) for one in taken])
    return path


@pytest.fixture(autouse=True)
def locks_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))  # the processes started here follow it
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_what_was_appended_is_read_back_oldest_first(tmp_path: Path) -> None:
    append(tmp_path, estimates(4.1, peak_memory_bytes=2**40, sqnr_db=31.25, cosine=1))
    append(tmp_path, estimates(4.2))
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert entry.setup == SETUP
    assert entry.processes == (estimates(4.1, peak_memory_bytes=2**40, sqnr_db=31.25, cosine=1), estimates(4.2))


def test_nothing_recorded_is_nothing_found(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path / "absent")
    assert store.devices() == []
    assert store.models(DEVICE) == []
    assert store.entries(DEVICE, "vit") == ()
    assert store.all_entries(DEVICE) == {}
    assert not (tmp_path / "absent").exists()


def test_listing(tmp_path: Path) -> None:
    append(tmp_path, estimates(), model="vit")
    append(tmp_path, estimates(), model="beit")
    (tmp_path / "notes").mkdir()
    (tmp_path / DEVICE / "README.md").write_text("not a baseline")
    store = BaselineStore(tmp_path)
    assert store.devices() == [DEVICE]
    assert store.models(DEVICE) == ["beit", "vit"]
    assert {model: len(entries) for model, entries in store.all_entries(DEVICE).items()} == {"beit": 1, "vit": 1}


def test_another_setup_is_another_entry(tmp_path: Path) -> None:
    append(tmp_path, estimates(4.0))
    append(tmp_path, estimates(9.0), setup=replace(SETUP, threads=2))
    append(tmp_path, estimates(8.0), setup=replace(SETUP, batch=8))
    append(tmp_path, estimates(7.0), setup=replace(SETUP, precision="fp16"))
    append(tmp_path, estimates(3.0), setup=replace(SETUP, execution="compile"))
    store = BaselineStore(tmp_path)
    entries = store.entries(DEVICE, "vit")
    assert [(e.setup.scheme, e.setup.batch, e.setup.threads, e.processes[0].latency_ms) for e in entries] == [
        ("fp16", 1, None, 7.0),
        ("int8+compile", 1, None, 3.0),
        ("int8", 1, None, 4.0),
        ("int8", 1, 2, 9.0),
        ("int8", 8, None, 8.0),
    ]
    assert [store.entry(DEVICE, "vit", entry.setup) for entry in entries] == list(entries)
    assert store.entry(DEVICE, "vit", replace(SETUP, tf32=True)) is None


def test_the_last_twenty_processes_are_kept(tmp_path: Path) -> None:
    append(tmp_path, *[estimates(float(n)) for n in range(1, 24)])
    append(tmp_path, estimates(24.0))
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert [e.latency_ms for e in entry.processes] == [float(n) for n in range(5, 25)]


def test_one_process_is_not_recorded_twice(tmp_path: Path) -> None:
    append(tmp_path, estimates(4.0), estimates(4.0))
    append(tmp_path, estimates(4.0))
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert entry.processes == entry.anchor.estimates == (estimates(4.0),)


def test_the_anchor_grows_to_five_processes_of_the_same_code(tmp_path: Path) -> None:
    append(tmp_path, estimates(1.0, date_utc="2025-01-01"))
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert (entry.anchor.reason, entry.anchor.date_utc) == ("first recorded", "2025-01-01")

    append(tmp_path, estimates(2.0, commit="other"))
    append(tmp_path, estimates(3.0, versions={"torch": "2.14.0", "python": "3.11"}))
    append(tmp_path, *[estimates(float(n)) for n in range(4, 12)])
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert [e.latency_ms for e in entry.anchor.estimates] == [1.0, 4.0, 5.0, 6.0, 7.0]
    assert (entry.anchor.reason, entry.anchor.date_utc) == ("first recorded", "2025-01-01")
    assert len(entry.processes) == 11


def test_the_tree_dirtied_by_the_first_save_is_still_the_same_code(tmp_path: Path) -> None:
    append(tmp_path, estimates(1.0, commit="abc"), estimates(2.0, commit="abc-dirty"))
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert [e.latency_ms for e in entry.anchor.estimates] == [1.0, 2.0]


def test_accept_moves_the_anchor_and_restarts_the_processes(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path)
    append(tmp_path, estimates(1.0), estimates(2.0))
    append(tmp_path, estimates(6.0), setup=replace(SETUP, precision="fp16"))
    store.accept(DEVICE, NAME, [("vit", SETUP, [estimates(3.0, commit="new")])], "  a new attention kernel ")
    fp16, int8 = store.entries(DEVICE, "vit")
    assert fp16.processes == (estimates(6.0),)
    assert int8.processes == int8.anchor.estimates == (estimates(3.0, commit="new"),)
    assert int8.anchor.reason == "a new attention kernel"
    assert int8.anchor.date_utc > "2025-01-02"

    append(tmp_path, estimates(4.0, commit="newer"))
    (_, int8) = store.entries(DEVICE, "vit")
    assert [e.latency_ms for e in int8.anchor.estimates] == [3.0]
    assert [e.latency_ms for e in int8.processes] == [3.0, 4.0]


def test_accept_creates_what_was_never_recorded(tmp_path: Path) -> None:
    BaselineStore(tmp_path).accept(DEVICE, NAME, [("vit", SETUP, [estimates(3.0)])], "why")
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert entry.anchor.reason == "why"


def test_accept_needs_a_reason_and_a_process(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path)
    with pytest.raises(BaselineError, match="reason"):
        store.accept(DEVICE, NAME, [("vit", SETUP, [estimates()])], " \n")
    with pytest.raises(BaselineError, match="no process"):
        store.accept(DEVICE, NAME, [("vit", SETUP, [])], "why")
    assert store.devices() == []


def test_an_append_adds_lines_and_touches_no_other(tmp_path: Path) -> None:
    path = append(tmp_path, *[estimates(float(n)) for n in range(1, 7)])
    append(tmp_path, estimates(9.0), setup=replace(SETUP, precision="int4"))
    before = path.read_text().splitlines()
    append(tmp_path, estimates(7.0))
    diff = [line for line in difflib.ndiff(before, path.read_text().splitlines()) if line[0] in "+-?"]
    assert len(diff) == 1
    assert diff[0].startswith("+")
    assert '"latency_ms":7.0' in diff[0]


def test_the_file_is_sorted_json_with_its_schema_version(tmp_path: Path) -> None:
    path = append(tmp_path, estimates())
    assert path == tmp_path / DEVICE / "vit.json"
    raw = json.loads(path.read_text())
    assert (raw["schema_version"], raw["device"], raw["device_name"], raw["model"]) == (2, DEVICE, NAME, "vit")
    assert json.dumps(raw) == json.dumps(raw, sort_keys=True)


def test_the_same_baselines_are_the_same_file_in_any_order(tmp_path: Path) -> None:
    fp16 = replace(SETUP, precision="fp16")
    first = append(tmp_path / "a", estimates(versions={"a": "1", "b": "2"}))
    append(tmp_path / "a", estimates(), setup=fp16)
    second = append(tmp_path / "b", estimates(), setup=fp16)
    append(tmp_path / "b", estimates(versions={"b": "2", "a": "1"}))
    assert first.read_bytes() == second.read_bytes()


def test_nothing_but_baselines_is_left_in_the_repository(tmp_path: Path) -> None:
    append(tmp_path, estimates())
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == [f"{DEVICE}/vit.json"]


@pytest.mark.parametrize("model", ["../../escape", "a/b", ".hidden", "..", "my net ü", "con%2Ftrol", "x\ny"])
def test_an_odd_model_name_stays_inside_the_root(tmp_path: Path, model: str) -> None:
    path = append(tmp_path / "root", estimates(), model=model)
    assert path.parent == tmp_path / "root" / DEVICE
    assert BaselineStore(tmp_path / "root").models(DEVICE) == [model]
    assert BaselineStore(tmp_path / "root").entries(DEVICE, model)[0].processes == (estimates(),)


@pytest.mark.parametrize("slug", ["", ".", "..", "a/b", "/etc", ".hidden", "a\n"])
def test_a_slug_that_is_no_directory_name_is_refused(tmp_path: Path, slug: str) -> None:
    with pytest.raises(BaselineError, match="slug"):
        BaselineStore(tmp_path).append(slug, NAME, [("vit", SETUP, estimates())])
    with pytest.raises(BaselineError, match="slug"):
        BaselineStore(tmp_path).entries(slug, "vit")


def test_a_model_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="without a name"):
        append(tmp_path, estimates(), model="")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path = append(tmp_path / "root", estimates(1.0))
    target = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(target)
    append(tmp_path / "root", estimates(2.0))
    assert path.is_symlink()
    assert len(BaselineStore(tmp_path / "root").entries(DEVICE, "vit")[0].processes) == 2


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = append(tmp_path, estimates(1.0))
    path.chmod(0o640)
    append(tmp_path, estimates(2.0))
    assert path.stat().st_mode & 0o777 == 0o640


WRITER = """
import sys; from pathlib import Path
from factories import make_estimates, make_setup
from pytest_vq.store.baselines import BaselineStore
root, start, count = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for n in range(count):
    taken = [("vit", make_setup(), make_estimates(latency_ms=start + n))]
    BaselineStore(root).append("nvidia-h200", "NVIDIA H200", taken)
"""


def test_processes_appending_at_once_lose_nothing(tmp_path: Path) -> None:
    args = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    writers = [subprocess.Popen([*args, start, "5"], env=environment) for start in ("100", "200", "300")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    (entry,) = BaselineStore(tmp_path).entries(DEVICE, "vit")
    assert sorted(e.latency_ms for e in entry.processes) == [float(s + n) for s in (100, 200, 300) for n in range(5)]


def broken(content: str, *, old: str = "", new: str = "") -> str:
    assert old in content
    return content.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "truncated"),
        (lambda text: "\xff" + text, "not JSON"),
        (lambda text: text.replace('"vit"', '"\xff"'), "not JSON"),
        (lambda text: "<<<<<<< HEAD\n" + text, "merge"),
        (lambda text: "[]", "no schema_version"),
        (lambda text: "{}", "no schema_version"),
        (lambda text: broken(text, old='"schema_version":2', new='"schema_version":true'), "no schema_version"),
        (lambda text: broken(text, old='"latency_ms":4.0', new='"latency_ms":"4.0"'), r"Expected `float`.*latency_ms"),
        (lambda text: broken(text, old='"latency_ms":4.0,', new=""), "latency_ms"),
        (lambda text: broken(text, old='"latency_ms":4.0', new='"latency_ms":0'), "not above 0"),
        (lambda text: broken(text, old='"latency_ms":4.0', new='"latency_ms":-4.0'), "not above 0"),
        (lambda text: broken(text, old='"speedup":1.5', new='"speedup":0.0'), "not above 0"),
        (lambda text: broken(text, old='"model":"vit"', new='"model":"beit"'), "beit.*copied or renamed"),
        (lambda text: broken(text, old=f'"device":"{DEVICE}"', new='"device":"cpu"'), "cpu.*copied or renamed"),
        (lambda text: json.dumps(json.loads(text) | {"entries": json.loads(text)["entries"] * 2}), "same setup"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, damage: Callable[[str], str], words: str) -> None:
    path = append(tmp_path, estimates())
    content = damage(path.read_text()).encode("latin-1")
    path.write_bytes(content)
    store = BaselineStore(tmp_path)
    for attempt in (
        lambda: store.entries(DEVICE, "vit"),
        lambda: store.all_entries(DEVICE),
        lambda: append(tmp_path, estimates(5.0)),
        lambda: store.accept(DEVICE, NAME, [("vit", SETUP, [estimates(5.0)])], "why"),
    ):
        with pytest.raises(BaselineError, match=words) as raised:
            attempt()
        assert str(path) in str(raised.value)
    assert path.read_bytes() == content


def test_a_newer_schema_says_both_versions_and_what_to_do(tmp_path: Path) -> None:
    path = append(tmp_path, estimates())
    path.write_text('{"schema_version": 3, "all": "different"}')
    with pytest.raises(BaselineError, match=r"vit\.json.* 3,.* 2: upgrade pytest-vq"):
        append(tmp_path, estimates())
    assert path.read_text() == '{"schema_version": 3, "all": "different"}'


@pytest.fixture
def version_1(tmp_path: Path) -> BaselineStore:
    """A copy of the baselines that the version before this one recorded."""
    return BaselineStore(Path(shutil.copytree(VERSION_1, tmp_path / "baselines")))


def stored_json(store: BaselineStore) -> dict[str, Any]:
    """The one file of version 1, as it is now."""
    return json.loads((store.root / "cpu-amd-epyc" / "vit-digits.json").read_text())


def test_baselines_of_version_1_are_read_and_were_eager(version_1: BaselineStore) -> None:
    stored = stored_json(version_1)
    assert stored["schema_version"] == 1
    assert version_1.devices() == ["cpu-amd-epyc"]
    assert version_1.models("cpu-amd-epyc") == ["vit-digits"]
    entries = version_1.entries("cpu-amd-epyc", "vit-digits")
    assert [entry.setup.scheme for entry in entries] == ["fp16", "fp32", "int4", "int8"]
    assert [entry.setup.execution for entry in entries] == [EAGER] * 4
    for entry, written in zip(entries, stored["entries"], strict=True):
        assert entry.processes == tuple(Estimates(**process) for process in written["processes"])
        assert entry.anchor.estimates == tuple(Estimates(**process) for process in written["anchor"]["estimates"])
        assert entry.operators.keys() == written["operators"].keys()
    assert stored_json(version_1) == stored  # reading changes nothing


def test_an_entry_of_version_1_is_found_by_what_is_measured_today(version_1: BaselineStore) -> None:
    found = version_1.entry("cpu-amd-epyc", "vit-digits", make_setup("int8", weights="trained"))
    assert found is not None
    assert found.processes[0].latency_ms == 10.1238385
    compiled = make_setup("int8", weights="trained", execution="compile")
    assert version_1.entry("cpu-amd-epyc", "vit-digits", compiled) is None


def test_baselines_of_version_1_are_version_2_once_something_was_appended(version_1: BaselineStore) -> None:
    setup = make_setup("int8", weights="trained")
    before = {entry.setup: entry for entry in version_1.entries("cpu-amd-epyc", "vit-digits")}
    version_1.append("cpu-amd-epyc", "AMD EPYC", [("vit-digits", setup, estimates(9.0))])
    stored = stored_json(version_1)
    assert stored["schema_version"] == 2
    assert [entry["setup"]["execution"] for entry in stored["entries"]] == [EAGER] * 4
    after = {entry.setup: entry for entry in version_1.entries("cpu-amd-epyc", "vit-digits")}
    assert after.pop(setup).processes == (*before.pop(setup).processes, estimates(9.0))
    assert after == before


@pytest.mark.parametrize("field", ["latency_ms", "sqnr_db", "speedup"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_is_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(BaselineError, match=field):
        append(tmp_path, estimates(**{field: value}))
    assert BaselineStore(tmp_path).devices() == []


def test_one_bad_model_changes_none(tmp_path: Path) -> None:
    good = append(tmp_path, estimates(1.0), model="a")
    bad = append(tmp_path, estimates(1.0), model="b")
    bad.write_text("{")
    before = good.read_bytes()
    store = BaselineStore(tmp_path)
    with pytest.raises(BaselineError, match=r"b\.json"):
        store.append(DEVICE, NAME, [("a", SETUP, estimates(2.0)), ("b", SETUP, estimates(2.0))])
    assert good.read_bytes() == before
    with pytest.raises(BaselineError, match="latency_ms"):
        store.append(DEVICE, NAME, [("a", SETUP, estimates(2.0)), ("c", SETUP, estimates(float("nan")))])
    assert good.read_bytes() == before


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = append(tmp_path, estimates(1.0), model="a")
    before = path.read_bytes()
    synced: list[int] = []

    def full(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 2:  # the first model's new content is on disk already
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BaselineError, match=r"b\.json.*No space left.*free some space"):
        BaselineStore(tmp_path).append(DEVICE, NAME, [("a", SETUP, estimates(2.0)), ("b", SETUP, estimates(2.0))])
    assert len(synced) == 2
    assert path.read_bytes() == before
    assert names(path.parent) == ["a.json"]


def test_a_read_only_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = append(tmp_path, estimates(1.0))

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root ignores permissions
    with pytest.raises(BaselineError, match=r"vit\.json.*Read-only.*--vq-baselines"):
        append(tmp_path, estimates(2.0))
    monkeypatch.undo()
    assert names(path.parent) == ["vit.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    path = append(tmp_path, estimates(1.0))
    path.parent.chmod(0o500)
    try:
        with pytest.raises(BaselineError, match=r"vit\.json.*permissions"):
            append(tmp_path, estimates(2.0))
    finally:
        path.parent.chmod(0o700)
    assert names(path.parent) == ["vit.json"]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / DEVICE / "vit.json").mkdir(parents=True)
    with pytest.raises(BaselineError, match=r"cannot read .*vit\.json: Is a directory"):
        BaselineStore(tmp_path).entries(DEVICE, "vit")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "baselines"
    root.write_text("mine")
    store = BaselineStore(root)
    for attempt in (
        lambda: append(root, estimates()),
        store.devices,
        lambda: store.models(DEVICE),
        lambda: store.entries(DEVICE, "vit"),
    ):
        with pytest.raises(BaselineError, match=r"baselines.* is a file"):
            attempt()
    assert root.read_text() == "mine"


def test_a_temporary_file_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    path = append(tmp_path, estimates(1.0))
    (path.parent / ".vit.json.tmp").write_text("half a fi")
    append(tmp_path, estimates(2.0))
    assert names(path.parent) == ["vit.json"]
    assert BaselineStore(tmp_path).models(DEVICE) == ["vit"]


def test_a_lock_that_is_never_released_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT_S", 0.05)
    held = lock_of(tmp_path / DEVICE, "baselines")
    with held, pytest.raises(BaselineError, match=r"another process.*\.lock"):
        append(tmp_path, estimates())
    append(tmp_path, estimates())  # it was the lock alone that was in the way
