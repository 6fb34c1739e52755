"""`vividmed doctor`: whether this machine, or a data set, is ready, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.cli.near_misses import complete_dataset
from flows.cli.options import ConfigOption, JsonOption, StoreOption, out, store_root
from storage.inputs import artefacts, home, is_fetched

NEEDED_GIB = 1.0
"""Inputs, Prefect's database and the demo's store, rounded up."""


class _FaultError(Exception):
    """A check that failed; the message says what to do."""


def doctor(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="A data set, to check its files instead of this installation.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="Where its files are, if not in its own place.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this installation, with --config its language model, or the files of a data set."""
    if dataset is not None:
        from flows.cli.dataset_check import check_dataset

        check_dataset(dataset, folder, store, as_json=as_json)
    else:
        _check_installation(store, config, as_json=as_json)


def _check_installation(store: str | None, config: Path | None, *, as_json: bool) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.json_output import print_json
    from storage.store import StoreError
    from tasks.engines.llm.chat.engine import EngineError
    from taxonomy.targets import TaxonomyError

    checks: dict[str, Callable[[], str]] = {
        "Python": _python,
        "libraries": _libraries,
        "taxonomy": _taxonomy,
        "store": lambda: _store(store_root(store)),
        "disk space": _disk_space,
        "inputs": _inputs,
    }
    if config is not None:
        checks["language model"] = lambda: _language_model(config)
    results = []
    for name, check in checks.items():
        try:
            found, passed = check(), True
        except (_FaultError, EngineError, StoreError, TaxonomyError) as fault:
            found, passed = str(fault), False
        results.append({"check": name, "ok": passed, "found": found})
    ready = all(result["ok"] for result in results)
    if as_json:
        print_json({"ready": ready, "checks": results})
    else:
        table = Table("check", "", "found", box=SIMPLE_HEAD)
        for result in results:
            verdict = Text("ok", "green") if result["ok"] else Text("fault", "red")
            table.add_row(str(result["check"]), verdict, str(result["found"]))
        print_table(table, out)
    if not ready:
        raise typer.Exit(1)


def _python() -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _libraries() -> str:
    names = ("prefect", "fastapi", "pyarrow", "duckdb", "nibabel", "pydicom", "scikit-image")
    versions = {name: importlib.metadata.version(name) for name in names}
    if tuple(int(n) for n in versions["fastapi"].split(".")[:2]) >= (0, 151):
        raise _FaultError(
            f"fastapi {versions['fastapi']} breaks Prefect's server: install with "
            "`pip install -c constraints.txt`, which `make setup` does"
        )
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _taxonomy() -> str:
    from taxonomy.targets import load_taxonomy

    taxonomy = load_taxonomy()
    return f"{len(taxonomy.targets)} targets, digest {taxonomy.digest('all')[:12]}"


def _store(root: str) -> str:
    from storage.store import Store

    Store(root).require_writable()
    return f"{root} can be written"


def _disk_space() -> str:
    folder = next(p for p in (home(), *home().parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if free < NEEDED_GIB:
        raise _FaultError(
            f"{free:.1f} GiB free under {folder}, {NEEDED_GIB:.0f} GiB needed: delete something "
            "there, or set VIVIDMED_HOME to a folder on another disk"
        )
    return f"{free:.0f} GiB free under {folder}"


def _inputs() -> str:
    fetched = [name for name in artefacts() if is_fetched(name)]
    missing = [name for name in artefacts() if name not in fetched]
    note = f"; not fetched yet: {', '.join(missing)} (`vividmed fetch`)" if missing else ""
    return f"{len(fetched)} of {len(artefacts())} in {home() / 'inputs'}{note}"


def _language_model(config: Path) -> str:
    from tasks.engines.llm.chat_choice import check_engine
    from tasks.pipeline.settings import read_settings

    settings = read_settings(config, {"dataset": "openi"})  # any: none of it is read
    if settings.llm is None:
        return f"{config} asks none"
    return check_engine(settings.llm)
