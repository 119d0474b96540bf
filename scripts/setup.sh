#!/bin/sh
# Makes a virtual environment, and does nothing where it is up to date.
# Usage: setup.sh VENV INSTALL-ARGUMENTS...     for example: setup.sh .venv -c constraints.txt -e '.[dev]'
#
# VENV/.ready is written last and says what the environment was made of and where. Anything else found there (an
# interrupted setup, changed requirements, a moved folder, a Python that is gone) means: make it anew, from nothing.
# So no state in between can survive, and what is installed is what the files ask for.
set -eu

venv=$1
shift

# What a person's shell may carry, and what would bend an environment that must stand for itself.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_PYTHON PIP_DRY_RUN PIP_NO_BUILD_ISOLATION
unset UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT UV_BREAK_SYSTEM_PACKAGES
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

recipe() {
    pwd -P
    echo "$*"
    {
        cat scripts/setup.sh
        for word in "$@"; do
            case $word in
                .\[*\]) cat pyproject.toml backend/mlx_manager/__init__.py ;;
                *) if [ -f "$word" ]; then cat "$word"; fi ;;
            esac
        done
    } | cksum
}
wanted=$(recipe "$@")

ready() {
    [ -f "$venv/.ready" ] && [ "$(cat "$venv/.ready")" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null
}
if ready; then exit 0; fi

# Two terminals may start at the same time: one sets up, the other waits.
lock=$venv.lock
waited=0
until mkdir "$lock" 2>/dev/null; do
    if [ ! -d "$lock" ]; then
        echo "Cannot write in $(pwd -P): $venv cannot be made there." >&2
        exit 1
    fi
    holder=$(cat "$lock/pid" 2>/dev/null || :)
    if [ -n "$holder" ] && kill -0 "$holder" 2>/dev/null; then
        if [ $((waited % 15)) -eq 0 ]; then echo "Process $holder is setting up $venv: waiting for it. (Is it not? rm -r $lock)"; fi
    elif [ -n "$holder" ] || [ "$waited" -gt 5 ]; then
        rm -rf "$lock" # its owner is gone
        continue
    fi
    waited=$((waited + 1))
    sleep 1
done
trap 'rm -rf "$lock"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
echo $$ >"$lock/pid"
if ready; then exit 0; fi

announce() {
    rm -rf "$venv"
    echo "Setting up $venv with $1: once, about $2 ..."
}

by_uv() {
    command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1 || return 1
    # Where no Python stands on the PATH, uv finds or brings one.
    python=$(sh scripts/find_python.sh 2>/dev/null) || python='>=3.11,<3.15'
    announce uv "ten seconds"
    if uv venv --quiet --python "$python" "$venv" && uv pip install --quiet --python "$venv/bin/python" "$@"; then
        return 0
    fi
    echo "uv could not do it (see above); trying pip." >&2
    return 1
}

by_pip() {
    python=$(sh scripts/find_python.sh pip) || exit 1
    announce pip "a minute"
    if "$python" -m venv "$venv" && "$venv/bin/python" -m pip install --quiet "$@"; then
        return 0
    fi
    echo "Setting up $venv failed; what went wrong stands above. The next run starts it anew." >&2
    exit 1
}

by_uv "$@" || by_pip "$@"
printf '%s\n' "$wanted" >"$venv/.ready"
echo "Ready: $("$venv/bin/python" --version) in $venv."
