"""The contenders that are programs: started, waited for, measured."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.hub import Hub
from benchmarks.job import ROOT, Job
from benchmarks.landing import Landing
from benchmarks.measure import Cost, run_command

PYPI_PULL = """
import asyncio, sys
from mlx_manager.services.hf_client import hf_client

async def pull() -> object:
    last = None
    async for event in hf_client.download_model(sys.argv[1]):
        last = event
    return last

last = asyncio.run(pull())
print(last)
sys.exit(getattr(last.status, "value", last.status) != "completed")
"""


@dataclass(frozen=True)
class Program:
    """A contender that is one command. `tools` are the programs it needs, found already; None where one is missing.

    `in_cache`: its files go to the standard cache, else to the job's plain folder. `hindrance` has the last word on
    whether it can take part.
    """

    name: str
    title: str
    checks_hash: bool
    tools: Mapping[str, str | None]
    command: Callable[[Job], Sequence[str]]
    version_command: Sequence[str]
    in_cache: bool = False
    env: Callable[[Job], Mapping[str, str]] = field(default=lambda job: {})
    hindrance: Callable[[Job], str | None] = field(default=lambda job: None)
    is_optional: bool = False

    def missing(self, job: Job) -> str | None:
        absent = [name for name, found in self.tools.items() if found is None]
        return f"{' and '.join(absent)} not found" if absent else self.hindrance(job)

    def version(self) -> str:
        return first_line(self.version_command)

    def run(self, job: Job) -> Cost:
        if not self.in_cache:
            job.plain.mkdir()
        landing = job.cache_landing if self.in_cache else Landing([job.plain])
        return run_command(
            self.command(job),
            env=job.environment(**self.env(job)),
            folder=job.folder,
            bound_s=job.bound_s,
            landed=landing.has_bytes if job.to_first_byte else None,
        )

    def files(self, job: Job) -> Path:
        return job.snapshot if self.in_cache else job.plain


def first_line(command: Sequence[str]) -> str:
    """What a program says first, up to a bracket; "unknown" when it says nothing or is not there."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return said[0].partition(" (")[0].strip() if said else "unknown"


def beside_python(name: str) -> str | None:
    """A program of the environment that this runs in, or else of the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def ours() -> Program:
    """`mlx-manager pull` in a process of its own, from start to end."""
    version = "import mlx_manager as m, sys; print('MLX Manager', m.__version__, 'on Python', sys.version.split()[0])"
    return Program(
        name="ours",
        title="`mlx-manager pull`",
        checks_hash=True,
        tools={},
        command=lambda job: [sys.executable, "-m", "mlx_manager", "pull", job.repo, "--quiet"],
        version_command=[sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'backend')!r}); {version}"],
        in_cache=True,
        env=our_environment,
    )


def our_environment(job: Job) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT / "backend"), "MLX_MANAGER_HOME": str(job.folder / "mlx-manager")}


def hf(*, xet: bool, hub: Hub) -> Program:
    """`hf download` of the huggingface_hub that is installed beside us."""
    tool = beside_python("hf")

    def hindrance(job: Job) -> str | None:
        if not xet:
            return None
        if importlib.util.find_spec("hf_xet") is None:
            return "hf_xet is not installed"
        path = f"/{job.repo}/resolve/{job.commit}/{job.paths[0]}"
        return None if hub.header(path, "X-Xet-Hash") else "the hub does not speak Xet yet"

    return Program(
        name="hf-xet" if xet else "hf",
        title="`hf download` with Xet" if xet else "`hf download` over HTTP",
        checks_hash=False,
        tools={"hf": tool},
        command=lambda job: [str(tool), "download", job.repo, "--quiet"],
        version_command=[str(tool), "--version"],
        in_cache=True,
        env=lambda job: {"HF_HUB_DISABLE_XET": "0" if xet else "1"},
        hindrance=hindrance,
    )


def aria2c() -> Program:
    tool = shutil.which("aria2c")

    def command(job: Job) -> list[str]:
        listing = job.folder / "urls.txt"
        listing.write_text("".join(f"{job.url(path)}\n  out={path}\n" for path in job.paths))
        return [
            str(tool),
            "-x8",
            "-s8",
            "--no-conf",
            f"--input-file={listing}",
            f"--dir={job.plain}",
            "--auto-file-renaming=false",
            # What its manual advises for such file systems.
            f"--file-allocation={'falloc' if sys.platform == 'linux' else 'none'}",
            "--console-log-level=error",
            "--show-console-readout=false",
            "--summary-interval=0",
            "--download-result=hide",
            *([f"--ca-certificate={job.ca_file}"] if job.ca_file else []),
        ]

    return Program("aria2c", "`aria2c -x8 -s8`", False, {"aria2c": tool}, command, [str(tool), "--version"])


def curl() -> Program:
    """All files at once to the disk, then `sha256sum -c`."""
    tool = shutil.which("curl")
    # macOS brings the same under another name.
    summer = shutil.which("sha256sum") or shutil.which("shasum")

    def command(job: Job) -> list[str]:
        config, sums = job.folder / "curl.txt", job.folder / "sums.txt"
        config.write_text("".join(f'url = "{job.url(path)}"\noutput = "{path}"\n' for path in job.paths))
        sums.write_text("".join(f"{wanted}  {path}\n" for path, wanted in job.sums.items()))
        fetch = [str(tool), "-q", "-Z", "-fsSL", "--no-progress-meter", "-K", str(config)]
        if job.ca_file:
            fetch += ["--cacert", str(job.ca_file)]
        check = [str(summer), *(["-a", "256"] if str(summer).endswith("shasum") else []), "-c", "--status", str(sums)]
        steps = f"cd {shlex.quote(str(job.plain))} && {shlex.join(fetch)} && exec {shlex.join(check)}"
        return ["/bin/sh", "-c", steps]

    tools = {"curl": tool, "sha256sum": summer}
    return Program("curl", "`curl -Z`, then `sha256sum -c`", True, tools, command, [str(tool), "--version"])


def wget() -> Program:
    tool = shutil.which("wget")

    def command(job: Job) -> list[str]:
        listing = job.folder / "urls.txt"
        listing.write_text("".join(f"{job.url(path)}\n" for path in job.paths))
        trust = [f"--ca-certificate={job.ca_file}"] if job.ca_file else []
        return [str(tool), "--no-config", "-q", "-P", str(job.plain), "-i", str(listing), *trust]

    tools = {"wget": tool}
    return Program("wget", "`wget -i`", False, tools, command, [str(tool), "--version"], is_optional=True)


def pypi_mlx_manager(python: Path | None) -> Program:
    """The download code of the package of this name on PyPI, in a virtual environment of its own."""

    def env(job: Job) -> dict[str, str]:
        home = job.folder / "mlx-manager"
        home.mkdir(exist_ok=True)
        return {
            "MLX_MANAGER_HF_CACHE_PATH": str(job.hf_home / "hub"),
            "MLX_MANAGER_DATABASE_PATH": str(home / "mlx-manager.db"),
            "MLX_MANAGER_LOG_DIR": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }

    def hindrance(job: Job) -> str | None:
        if python is None:
            return "not installed in an environment of its own (--pypi-python)"
        probe = [str(python), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('mlx_manager') is None)"]
        found = python.exists() and subprocess.run(probe, check=False, cwd=job.folder).returncode == 0
        return None if found else f"{python.name} has no mlx-manager"

    return Program(
        name="pypi",
        title="`mlx-manager` of PyPI",
        checks_hash=False,
        tools={},
        command=lambda job: [str(python), "-c", PYPI_PULL, job.repo],
        version_command=[str(python), "-c", "from importlib.metadata import version as v; print(v('mlx-manager'))"],
        in_cache=True,
        env=env,
        hindrance=hindrance,
    )
