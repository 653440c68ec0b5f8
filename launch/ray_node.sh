#!/usr/bin/env bash
# What each node of a job does for a program that needs a Ray cluster of them all.
#
#   srun --ntasks-per-node=1 bash launch/ray_node.sh HEAD PORT CPUS GPUS PROGRAM [OPTIONS]
#
# The first node starts Ray's head and, when it answers, the program; the others join until the head
# is gone. The exit status is the program's, on the others 0.
# RELIGHTX_NODE_ADDRESSES: an address for each node, for virtual nodes that share a machine.
set -euo pipefail

head=$1 port=$2 cpus=$3 gpus=$4
shift 4
: "${SLURM_NODEID:?this is run by srun}"
trap '' USR1 # for the batch script alone

# Ray's sockets lie in there, and a socket's path has 107 characters at most.
temporary=$(mktemp -d /tmp/ray-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
own=(--num-cpus="$cpus" --num-gpus="$gpus" --block)
read -r -a addresses <<<"${RELIGHTX_NODE_ADDRESSES:-}"
if ((${#addresses[@]})); then
    own+=(--node-ip-address="${addresses[SLURM_NODEID]}")
elif ((SLURM_NODEID == 0)); then
    own+=(--node-ip-address="$head")
fi
read -r -a container <<<"${RELIGHTX_CONTAINER:-}"
# By default Ray's workers give way to all else on the node; trials are what it is there for.
export RAY_worker_niceness="${RAY_worker_niceness:-0}"

# Until Ray's head listens; fails when it is gone, or after five minutes.
await_head() {
    local left
    for ((left = 600; left > 0; left--)); do
        if (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; then
            return
        fi
        if [[ -n ${1:-} ]] && ! kill -0 "$1" 2>/dev/null; then
            break
        fi
        sleep 0.5
    done
    echo "ray_node.sh: no Ray answers at $head:$port" >&2
    tail -n 5 "$temporary/start.log" >&2 2>/dev/null || true
    exit 1
}

if ((SLURM_NODEID)); then
    await_head
    "${container[@]}" ray start --address="$head:$port" "${own[@]}" &>"$temporary/start.log" &
    ray=$!
    # Ray itself would wait a minute for a head that is gone.
    while kill -0 "$ray" 2>/dev/null && (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; do
        sleep 1
    done
    kill "$ray" 2>/dev/null || true
    wait "$ray" || true
    exit 0
fi
"${container[@]}" ray start --head --port="$port" --include-dashboard=false \
    --temp-dir="$temporary" "${own[@]}" &>"$temporary/start.log" &
ray=$!
await_head "$ray"
status=0
"${container[@]}" "$@" || status=$?
kill "$ray" 2>/dev/null || true
wait "$ray" || true
exit "$status"
