"""What people do beside it: delete, start twice, upgrade."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from api_client import ServerProcess
from faults.disk_files import deleted
from faults.scene import MODEL, Scene
from faults.table import row
from mlx_manager.storage import sqlite_url

MIB = 1 << 20


@row("Somebody deletes the model's folder while it is downloaded (`rm -rf`)", again=None)
def model_deleted(scene: Scene) -> None:
    deleted(scene, scene.repo_dir)


@row("Somebody deletes the model's folder while it is paused, and resumes", again=None)
def model_deleted_while_paused(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(4e6)
    scene.serve()
    scene.ask()
    scene.sent(2 * MIB)
    scene.move("pause")
    shutil.rmtree(scene.repo_dir)
    slow.clear()
    scene.resume("The person resumes.")
    scene.completed()


@row("A second server is started in the same home")
def second_server(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(2e6)
    scene.serve()
    scene.ask()
    scene.start_refused("runs already at")
    slow.clear()
    scene.completed()


@row("Two servers with homes of their own share one cache and fetch the same model", lasts_s=10)
def two_servers(scene: Scene) -> None:
    scene.model(8 * MIB)
    slow = scene.slow(1e6)
    scene.serve()
    scene.ask()
    scene.sent(MIB)
    env = {"HF_HUB_CACHE": str(scene.cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    other = scene.enter(ServerProcess(scene.root / "other", scene.hub.url, **env)).api()
    scene.knowable()
    task = other.download(MODEL)
    while "Another program is fetching" not in (said := other.status(task))["message"]:
        assert said["status"] in ("queued", "starting", "downloading"), said
        time.sleep(0.02)
    scene.note(said, time.monotonic() - scene._knowable)
    slow.clear()
    scene.completed()
    give_up_at = time.monotonic() + 20
    while other.status(task)["status"] != "completed":
        assert time.monotonic() < give_up_at, other.status(task)
        time.sleep(0.05)
    scene.outcome.again = max(0, scene.hub.bytes_sent() - scene.size)
    scene.outcome.end = "completed in both, fetched once"


@row("The server is upgraded in the middle: its database is of the first version", again=8 * MIB)
def upgraded(scene: Scene) -> None:
    scene.model(16 * MIB)
    slow = scene.slow(6e6)
    scene.serve()
    scene.ask()
    scene.sent(8 * MIB)
    scene.until(text="Receiving")
    scene.kill()
    _as_of_first_version(scene.root / "data" / "mlx-manager.db")
    slow.clear()
    scene.then("The new version is started.")
    scene.knowable()
    scene.restart()
    event = scene.completed()
    assert event["reused_bytes"] > 0, event


def _as_of_first_version(database: Path) -> None:
    """The same rows, in a database that only the first migration has touched."""
    old = database.with_suffix(".old")
    config = Config()
    config.set_main_option("script_location", "mlx_manager.storage:migrations")
    config.set_main_option("path_separator", "os")
    engine = create_engine(sqlite_url(old))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with sqlite3.connect(old) as rows:
        rows.execute("ATTACH ? AS new", (str(database),))
        for (table,) in rows.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            if table.startswith(("alembic", "sqlite")):
                continue
            names = ", ".join(
                f'"{name}"' for _, name, *_ in rows.execute(f"PRAGMA main.table_info({table})").fetchall()
            )
            rows.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")
    rows.close()
    for rest in (*database.parent.glob("mlx-manager.db-*"), database):
        rest.unlink()
    old.rename(database)
