"""The ``baselines`` commands: list, show, accept."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_vq.errors import BaselineError, ResultsError, SelectionError
from pytest_vq.report.baseline_figures import change_cells, figures_of, process_cells, spread_text
from pytest_vq.report.text import plain_table
from pytest_vq.schema.estimates import Entry, Estimates
from pytest_vq.schema.setup import Setup
from pytest_vq.store.baselines import BaselineStore
from pytest_vq.store.results import Results, Row, estimates_of, read_results, rows_of_pairs


def list_baselines(args: argparse.Namespace) -> str:
    """``baselines list``: a line for each setup of each model, and callable, on each device."""
    store = _store(args)
    rows = [
        [device, model, *_setup_cells(e.setup), len(e.processes), e.processes[-1].date_utc, e.anchor.date_utc]
        for device in store.devices()
        for model, entries in store.all_entries(device).items()
        for e in entries
    ]
    if not rows:
        return f"no baselines in {store.root}: record some with pytest --vq-save"
    return plain_table(rows, ["device", "model", *(f.name for f in fields(Setup)), "processes", "last", "anchor"])


def show_baselines(args: argparse.Namespace) -> str:
    """``baselines show``: every process of a model's, or a callable's, entries, their spread, and the anchor."""
    store = _store(args)
    devices = _matching([args.device], store.devices(), f"device with baselines in {store.root}")
    known = sorted({model for device in devices for model in store.models(device)})
    models = _matching([args.model], known, f"model with baselines in {store.root}")
    found = [(m, d, e) for m in models for d in devices for e in store.entries(d, m)]
    schemes = sorted({entry.setup.scheme for _, _, entry in found})
    schemes = _matching([args.precision], schemes, f"precision with baselines of {', '.join(models)}")
    return "\n\n".join(_entry_text(*one) for one in found if one[2].setup.scheme in schemes)


def accept_baselines(args: argparse.Namespace) -> str:
    """``baselines accept``: make a run's figures the new anchors, and print what that changes."""
    chosen = _acceptable(read_results(args.results), args.models, args.results)
    store = BaselineStore(args.baselines)
    names = {row.environment.device_slug: row.environment.device_name for row in chosen}
    items = {}
    rows: dict[str, list[list[str]]] = {}
    titles: dict[str, list[str]] = {}
    for slug in sorted(names):
        items[slug] = _grouped(row for row in chosen if row.environment.device_slug == slug)
        for model, setup, estimates in items[slug]:
            entry, figures = store.entry(slug, model, setup), figures_of(setup)
            changes = change_cells(figures, entry.anchor.estimates if entry else (), estimates)
            kind, how = ("batch", str(setup.batch)) if setup.serving is None else ("how", setup.serving.words)
            rows.setdefault(kind, []).append([model, setup.scheme, how, *changes])
            titles[kind] = ["model", "precision", kind, *(figure.title for figure in figures)]
    written = [path for slug in items for path in store.accept(slug, names[slug], items[slug], args.reason)]
    changed = "\n\n".join(plain_table(cells, titles[kind]) for kind, cells in rows.items())
    return f"{changed}\n\naccepted: {args.reason}\n" + "\n".join(f"wrote {path}; commit it" for path in written)


def _acceptable(results: Results, models: str | None, path: Path) -> list[Row]:
    """The measured pairs to accept; ResultsError where what was asked for was not wholly, or not calmly, measured."""
    measured, failures = list(results.rows), list(results.failures)
    if models is not None:
        known = sorted({row.record.identity.model for row in measured})
        # A test's id may hold a comma.
        patterns = [models] if models in known else [pattern.strip() for pattern in models.split(",")]
        chosen = _matching(patterns, known, f"model in {path}")
        measured = [row for row in measured if row.record.identity.model in chosen]
        failures = [failure for failure in failures if failure.model in (*chosen, None)]
    unfit = ["the run was interrupted"] if models is None and not results.complete else []
    unfit += [f"{failure.id} was not measured ({failure.error})" for failure in failures]
    disturbed = [row.record for row in measured if row.record.disturbance]
    unfit += [f"{record.id} was disturbed ({record.disturbance})" for record in disturbed]
    unfit += [f"{row.record.id} has no rate to store (--vq-search finds one)" for row in measured if _lacks_rate(row)]
    if unfit:
        hint = "measure again, or name the models to accept with --models"
        raise ResultsError(f"{path} is not fit to be accepted: {', '.join(unfit)}; {hint}")
    if not measured:
        raise ResultsError(f"{path} holds nothing that was measured: there is nothing to accept")
    return measured


def _lacks_rate(row: Row) -> bool:
    """Whether it was measured at its baseline's rate, and at no other: accepted, it would change nothing."""
    terms, figures = row.record.setup.serving, row.record.serving
    return terms is not None and terms.asks_for_rate and figures.max_qps_low is None


def _grouped(rows: Iterable[Row]) -> list[tuple[str, Setup, tuple[Estimates, ...]]]:
    """Each model and setup with its processes' estimates."""
    return [(pair.model, setup, estimates_of(taken)) for (pair, setup), taken in rows_of_pairs(rows).items()]


def _setup_cells(setup: Setup) -> list[object]:
    values = {field.name: getattr(setup, field.name) for field in fields(Setup)}
    return list((values | {"serving": setup.serving and setup.serving.words}).values())


def _entry_text(model: str, device: str, entry: Entry) -> str:
    s, figures = entry.setup, figures_of(entry.setup)
    threads = "" if s.threads is None else f", {s.threads} threads"
    tf32 = ", TF32" if s.tf32 else ""
    of_model = f", batch {s.batch}" if s.is_pair else "" if s.serving is None else f" {s.serving.words}"
    weights = "" if s.weights is None else f", {s.weights} weights"
    title = f"{model} {s.scheme}{of_model}, {s.protocol}{weights}{threads}{tf32} on {device}"
    headers = ["date", "commit", "device", *(figure.title for figure in figures)]

    def table(processes: Iterable[Estimates]) -> str:
        cells = [[e.date_utc, e.commit or "", e.device_uuid, *process_cells(figures, e)] for e in processes]
        return plain_table(cells, headers)

    return (
        f"{title}\n{table(entry.processes)}\n"
        f"between processes (standard deviation): {spread_text(figures, entry.processes)}\n"
        f"anchor: {entry.anchor.reason} ({entry.anchor.date_utc})\n"
        f"{table(entry.anchor.estimates)}"
    )


def _store(args: argparse.Namespace) -> BaselineStore:
    if not args.baselines.exists():
        raise BaselineError(f"there is no directory {args.baselines}: name the right one with --baselines")
    return BaselineStore(args.baselines)


def _matching(patterns: list[str], known: list[str], what: str) -> list[str]:
    """The names in ``known`` that match; SelectionError naming the nearest for a pattern that matches none."""
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in known):
            near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
            raise SelectionError(f"no {what} matches {pattern!r}; the nearest: {', '.join(near) or 'none at all'}")
    return [name for name in known if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    """A test's id may hold what a glob takes for its own: ``test_matmul[64]`` is itself."""
    return name == pattern or fnmatchcase(name, pattern)


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; say why the figures changed")
    return text.strip()


def baselines_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--baselines``."""
    parser.add_argument("--baselines", type=Path, default=Path("baselines"), metavar="DIR", help="default baselines/")


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``baselines show`` takes."""
    parser.add_argument("model", help="a name or glob; of a callable, the id of its test")
    parser.add_argument("--device", default="*", metavar="SLUG", help="default all")
    parser.add_argument("--precision", default="*", help="default all")
    baselines_option(parser)


def accept_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``baselines accept`` takes."""
    parser.add_argument("results", type=Path, help="a run's output directory, or its study.json")
    parser.add_argument("--models", metavar="NAMES", help="names, ids of tests or globs, comma-separated; default all")
    parser.add_argument("--reason", type=_reason, required=True, help="why the figures changed; kept with them")
    baselines_option(parser)
