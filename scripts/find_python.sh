#!/bin/sh
# Prints the path of a Python that can carry MLX Manager, or says what was found instead and what to do, and fails.
# Usage: find_python.sh [pip]      with "pip" the Python must bring venv and pip along; uv needs neither.
# PYTHON=/path/to/python names one. A file called python3.12 proves nothing: each candidate is run.
set -u
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP

probe='
import sys
print("%d.%d.%d" % sys.version_info[:3])
if sys.version_info < (3, 11):
    sys.exit(3)
if sys.argv[1:] == ["pip"]:
    try:
        import ensurepip, venv
    except ImportError:
        sys.exit(4)
print(sys.executable)
'

need=${1:-}
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    # The versions that are tested come first; a plain python3 may be newer than the packages' wheels.
    set -- python3.13 python3.12 python3.11 python3.14 python3
fi

seen=""
note() { seen="$seen
    $1"; }

for name in "$@"; do
    place=$(command -v "$name" 2>/dev/null) || continue
    answer=$("$place" -c "$probe" $need 2>/dev/null)
    verdict=$?
    version=$(printf '%s\n' "$answer" | sed -n 1p)
    case $verdict in
        0)
            printf '%s\n' "$answer" | sed -n 2p
            exit 0
            ;;
        3) note "$place is Python $version: too old" ;;
        4) note "$place is Python $version, but has no venv or no pip (Debian, Ubuntu: apt install python3-venv)" ;;
        *) note "$place does not run" ;;
    esac
done

{
    echo "MLX Manager needs Python 3.11 or newer, and found none that it can use."
    if [ -n "$seen" ]; then
        printf 'Found:%s\n' "$seen"
    elif [ -n "${PYTHON:-}" ]; then
        echo "Found: nothing at PYTHON=$PYTHON"
    else
        echo "Found: no Python on the PATH at all."
    fi
    echo "What to do: install one, then run the same command again."
    echo "    macOS            brew install python@3.13"
    echo "    Debian, Ubuntu   apt install python3 python3-venv"
    echo "    Fedora           dnf install python3.13"
    echo "    anywhere         install uv, which brings a Python of its own"
    echo "Where one stands elsewhere, name it: make serve PYTHON=/path/to/python3.13"
} >&2
exit 1
