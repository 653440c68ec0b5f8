#!/usr/bin/env bash
# Makes .venv at the project's root and installs relightx in it.
#
#   bash launch/install.sh [EXTRAS]      EXTRAS: names from pyproject.toml, such as synthetic,test
#
# RELIGHTX_TORCH=cpu|gpu chooses the build of torch; left out, a working nvidia-smi means gpu.
# Run it again at any time: it does only what is missing.
# Exit status 2: this machine or the request cannot work; the message says what to change.
set -euo pipefail

torch=2.13.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/relightx-installed
extras=${1:-}

say() { printf 'install: %s\n' "$*"; }
refuse() {
    printf 'install: %s\n' "$@" >&2
    exit 2
}

# Debian's python3 has venv but not ensurepip unless python3-venv is installed.
usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        "$1" -c 'import venv, ensurepip' 2>/dev/null
}

find_python() {
    local name without_venv=
    for name in python3.13 python3.12 python3.11 python3; do
        command -v "$name" >/dev/null || continue
        if usable "$name"; then
            python=$name
            return
        fi
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            without_venv=${without_venv:-$name}
        fi
    done
    if [[ -n $without_venv ]]; then
        refuse "$without_venv cannot make virtual environments: its venv package is missing." \
            "On Debian or Ubuntu: apt-get install python3-venv   (or $without_venv-venv)"
    fi
    refuse "Python 3.11 or newer is needed, and none of python3.13, python3.12, python3.11," \
        "python3 on the PATH is one. On Debian or Ubuntu: apt-get install python3 python3-venv"
}

torch_kind() {
    case ${RELIGHTX_TORCH:-} in
        cpu | gpu) echo "$RELIGHTX_TORCH" ;;
        '') if nvidia-smi -L >/dev/null 2>&1; then echo gpu; else echo cpu; fi ;;
        *) refuse "RELIGHTX_TORCH is '$RELIGHTX_TORCH'; cpu or gpu is needed" ;;
    esac
}

check_extras() {
    "$python" - "$root/pyproject.toml" "$extras" <<'PYTHON' || exit 2
import sys, tomllib

with open(sys.argv[1], "rb") as file:
    known = list(tomllib.load(file)["project"]["optional-dependencies"])
unknown = [name for name in sys.argv[2].split(",") if name and name not in known]
if unknown:
    sys.exit(f"install: extras {', '.join(unknown)} are unknown; known: {', '.join(known)}")
PYTHON
}

# The stamp's first word stands for everything that an installation depends on; the extras
# installed under it follow.
fingerprint() {
    {
        cat "$root/pyproject.toml" "${BASH_SOURCE[0]}"
        echo "$root $kind"
    } | sha256sum | cut -d' ' -f1
}

already_installed() {
    [[ -f $stamp ]] || return 1
    local found extra
    read -r -a found <"$stamp"
    [[ ${found[0]} == "$(fingerprint)" ]] || return 1
    for extra in ${extras//,/ }; do
        [[ " ${found[*]:1} " == *" $extra "* ]] || return 1
    done
}

write_stamp() {
    local found=() now
    now=$(fingerprint)
    [[ -f $stamp ]] && read -r -a found <"$stamp"
    [[ ${found[0]:-} == "$now" ]] || found=("$now")
    echo "${found[*]} ${extras//,/ }" >"$stamp"
}

choose_python() {
    if ! [[ -x $venv/bin/python ]]; then
        find_python
    elif usable "$venv/bin/python"; then
        python=$venv/bin/python
    else
        refuse ".venv does not hold a working Python 3.11 or newer. Move it away and run this again."
    fi
}

make_venv() {
    if [[ $python != "$venv/bin/python" ]]; then
        say "making .venv with $("$python" --version)"
        "$python" -m venv "$venv"
    fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip
}

# The build of torch in .venv: cpu, gpu, or nothing when another version or none is there.
torch_found() {
    "$venv/bin/python" - "$torch" <<'PYTHON' 2>/dev/null
import sys, torch

if torch.__version__.split("+")[0] == sys.argv[1]:
    print("gpu" if torch.version.cuda or torch.version.hip else "cpu")
PYTHON
}

pip_install() {
    local quiet=()
    [[ -t 1 ]] || quiet=(--quiet)  # progress bars only for a person who watches
    "$venv/bin/python" -m pip install --disable-pip-version-check "${quiet[@]}" "$@"
}

# The plain name means a build with gigabytes of CUDA libraries on x86_64 and on aarch64 alike,
# so the CPU build is asked for by its local version, and uv knows where it is published.
install_torch() {
    local log=$venv/torch-attempts.log backend=cpu
    [[ $(torch_found || true) != "$kind" ]] || return 0
    : >"$log"
    if [[ $kind == cpu ]]; then
        say "installing torch $torch for the CPU (about 200 MB)"
        pip_install "torch==$torch+cpu" 2>>"$log" && return
    else
        say "installing torch $torch for the GPU (about 3 GB)"
        backend=auto
    fi
    # Without a driver to look at, uv's auto means the CPU build.
    if [[ $kind == cpu ]] || nvidia-smi -L >/dev/null 2>&1; then
        say "asking uv, which knows where each build of torch is published"
        if pip_install uv 2>>"$log"; then
            "$venv/bin/python" -m uv pip install --python "$venv/bin/python" \
                --torch-backend="$backend" --reinstall-package torch "torch==$torch" \
                2>>"$log" || true
        fi
        [[ $(torch_found || true) != "$kind" ]] || return 0
    fi
    # Three equal signs do not match a local version, so this is never the CPU build.
    if [[ $kind == gpu ]]; then
        pip_install "torch===$torch" 2>>"$log" || true
        [[ $(torch_found || true) != gpu ]] || return 0
    fi
    torch_failed "$log"
}

torch_failed() {
    grep -vi '^warning' "$1" | tail -n 12 >&2 || true
    local plain="torch==$torch+cpu" backend=cpu
    [[ $kind == cpu ]] || { plain="torch===$torch" && backend=auto; }
    refuse "torch $torch for the $kind could not be installed. Tried 'pip install $plain' and" \
        "'uv pip install --torch-backend=$backend torch==$torch'; see .venv/${1##*/}." \
        "If this network reaches no such build, put its wheel in a folder and name the folder:" \
        "  PIP_FIND_LINKS=FOLDER bash launch/install.sh $extras"
}

install_relightx() {
    say "installing relightx${extras:+ with $extras} and what it needs"
    "$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' \
        >"$venv/torch-constraint.txt"
    pip_install --constraint "$venv/torch-constraint.txt" --editable ".${extras:+[$extras]}"
}

cd "$root"
exec 9<pyproject.toml
if command -v flock >/dev/null; then flock 9; fi # two at once would break each other's .venv
kind=$(torch_kind)
if already_installed; then
    say "nothing to do: .venv is up to date (torch for the $kind${extras:+; extras $extras})"
    exit 0
fi
choose_python
check_extras
make_venv
install_torch
install_relightx
write_stamp
say "done: .venv/bin/relightx, torch for the $kind"
