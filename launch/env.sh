# What is the same for all batch scripts of this site; they read it, from the project's root.
# Change it here, or set the variables before sbatch: what is set already wins.
# shellcheck shell=bash
set -euo pipefail

# Where runs are kept, on a disk that all nodes share.
: "${RELIGHTX_RUNS:=$RELIGHTX_ROOT/runs}"
# GPUs of a node; 0 trains on CPUs, with RELIGHTX_PROCESSES processes on each.
: "${RELIGHTX_GPUS:=${SLURM_GPUS_ON_NODE:-0}}"
: "${RELIGHTX_PROCESSES:=1}"
# The file of configs/accelerate/ without .yaml: ddp, zero1, zero2, zero3, zero3_offload, fsdp2.
: "${RELIGHTX_BACKEND:=ddp}"
# Command and options before the program, to run it in a container, such as
#   RELIGHTX_CONTAINER="apptainer exec --nv --bind /data relightx.sif"
: "${RELIGHTX_CONTAINER:=}"
# The interface that nodes reach each other by, where it is not the one of their names.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# Where a hang of NCCL is written to, for its flight recorder.
export TORCH_NCCL_TRACE_BUFFER_SIZE=${TORCH_NCCL_TRACE_BUFFER_SIZE:-2000}
export TORCH_NCCL_DUMP_ON_TIMEOUT=${TORCH_NCCL_DUMP_ON_TIMEOUT:-1}
# torchrun kills processes that are still saving after so many seconds; its default is 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}

# -- from here on nothing is a site's --------------------------------------------------------------

refuse() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    (($#)) && printf '    %s\n' "$@" >&2
    exit 2
}

if [[ -x $RELIGHTX_ROOT/.venv/bin/relightx ]]; then
    PATH=$RELIGHTX_ROOT/.venv/bin:$PATH
elif ! command -v relightx >/dev/null && [[ -z $RELIGHTX_CONTAINER ]]; then
    refuse "relightx is neither in $RELIGHTX_ROOT/.venv/bin nor on the PATH." \
        "Submit from the project's root after bash launch/install.sh, or set RELIGHTX_ROOT."
fi
