#!/usr/bin/env bash
# Installs into .venv what the tests need, then checks style and runs the tests.
#
#   bash launch/test.sh [OPTIONS]      the options of pytest
#
# The exit status is pytest's, or 1 when the tests pass and the style does not.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/launch/install.sh" synthetic,ray,sweep,deepspeed,boards,test
cd "$root"
PATH=$root/.venv/bin:$PATH

style=0
ruff check . || style=1
ruff format --check . || style=1
if command -v shellcheck >/dev/null; then
    shellcheck launch/*.sh launch/*.sbatch .ci/run || style=1
else
    echo 'test: shellcheck is not installed, so the scripts are not linted'
fi

tests=0
# A file is one process's. Three on two cores: much of the time goes into waiting for programs that
# tests start, and for clusters and servers that are to notice something.
python -m pytest --numprocesses 3 --dist loadfile "$@" || tests=$?
if ((style)); then
    echo 'test: ruff or shellcheck found faults, listed before the tests' >&2
fi
exit $((tests ? tests : style))
