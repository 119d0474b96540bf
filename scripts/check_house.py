"""The rules of the house that no other tool holds. Run by ``make check``.

1. No source file has more than 400 lines: a longer one does two things. What others wrote (``vendor/``) is exempt.
2. No file names a package registry's host or somebody's home folder: neither is true on another machine.
3. The newest version in CHANGELOG.md is the version of the package.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
SOURCES = {".css", ".html", ".js", ".py", ".sh"}
# In pieces, so that this file keeps its own rule.
REGISTRY_HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "yarn" + "pkg.com",
    "deb" + ".debian.org",
    "crates" + ".io",
]
FORBIDDEN = [
    (
        re.compile("|".join(re.escape(host) for host in REGISTRY_HOSTS), re.IGNORECASE),
        "names a package registry's host",
    ),
    (re.compile(r"/(?:home|Users)/[A-Za-z0-9_.-]|(?<![\w./-])/roo[t]/|[A-Z]:\\Users\\"), "names a home folder"),
]
VERSION_LINE = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
CHANGELOG_HEADING = re.compile(r"^## \[(\d[^\]]*)\]", re.MULTILINE)


def committed_files(root: Path) -> list[Path]:
    """Every file that git holds or would take in, as paths below ``root``."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(Path(name) for name in names.split("\0") if name and (root / name).is_file())


def complaints_about(name: Path, text: str) -> Iterator[str]:
    """What rules 1 and 2 have to say about one file."""
    lines = text.splitlines()
    if name.suffix in SOURCES and "vendor" not in name.parts and len(lines) > MAX_LINES:
        yield f"{name}: {len(lines)} lines, {MAX_LINES} at most; split it by what its parts know"
    for number, line in enumerate(lines, start=1):
        for pattern, what in FORBIDDEN:
            if found := pattern.search(line):
                yield f"{name}:{number}: {what}: {found.group()}"


def complaints_about_version(package: str, changelog: str) -> Iterator[str]:
    """What rule 3 has to say about the text of the package's ``__init__.py`` and of the changelog."""
    version = VERSION_LINE.search(package)
    newest = CHANGELOG_HEADING.search(changelog)
    if version is None:
        yield "backend/mlx_manager/__init__.py: no line '__version__ = \"…\"'"
    elif newest is None:
        yield "CHANGELOG.md: no heading '## [version]'"
    elif version.group(1) != newest.group(1):
        yield f"CHANGELOG.md: newest version is {newest.group(1)}, the package is {version.group(1)}"
    if "## [Unreleased]" not in changelog:
        yield "CHANGELOG.md: no heading '## [Unreleased]'"


def main() -> int:
    complaints: list[str] = []
    files = committed_files(ROOT)
    for name in files:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text
        complaints.extend(complaints_about(name, text))
    package = (ROOT / "backend/mlx_manager/__init__.py").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    complaints.extend(complaints_about_version(package, changelog))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        print(f"House rules: {len(complaints)} broken.", file=sys.stderr)
        return 1
    print(f"House rules: kept, in {len(files)} files.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
