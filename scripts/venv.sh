#!/bin/sh
# Makes the virtual environment that Reverie is installed into, or keeps the one that works.
#   sh scripts/venv.sh .venv        (PYTHON=python3.12 chooses the interpreter)
# Says in plain words what is missing; installs nothing outside the folder it is given.
set -eu
venv=$1

say() { printf '%s\n' "$*" >&2; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Works: it runs, is new enough, has pip and was not moved here from elsewhere (its scripts name the folder they were made in).
works() {
    [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python" || return 1
    grep -qF "$(pwd -P)/$venv" "$venv/bin/activate" 2>/dev/null || return 1
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip >/dev/null 2>&1
}

if works; then exit 0; fi
if [ -L "$venv" ]; then # what it leads to is somebody else's
    say "$venv is a link to an environment that was made elsewhere. Remove the link and try again."
    exit 1
fi

python=
old=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if new_enough "$candidate"; then
        python=$candidate
        break
    fi
    # a name without a working interpreter behind it (a version manager's stub) is no "too old" Python
    version=$("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue
    [ -n "$old" ] || old="$candidate is Python $version"
done
if [ -z "$python" ]; then
    if [ -n "$old" ]; then
        say "Reverie needs Python 3.11 or newer, but $old. Install a newer one, or name it: make PYTHON=/path/to/python3.12"
    elif [ -n "${PYTHON:-}" ]; then
        say "PYTHON=$PYTHON is not a Python that runs here; Reverie needs Python 3.11 or newer."
    else
        say "Reverie needs Python 3.11 or newer, and there is no python3 here. On Debian or Ubuntu: apt-get install python3 python3-venv"
    fi
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    say "$python cannot make virtual environments: its venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"
    exit 1
fi

if [ -e "$venv" ]; then
    say "$venv does not work (moved, or made by a Python that is gone); making it again."
fi
say "Making $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
