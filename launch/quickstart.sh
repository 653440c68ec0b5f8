#!/usr/bin/env bash
# From nothing to a trained model and a report: installs into .venv, then runs the main job.
#
#   bash launch/quickstart.sh [OPTIONS]      the options of `relightx quickstart`
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/launch/install.sh" synthetic
exec "$root/.venv/bin/relightx" quickstart "$@"
