# shellcheck shell=bash disable=SC2154  # what is not assigned here is in the settings of the file that sources this one
# What the sbatch files share, sourced after their settings: docs/slurm.md draws the life of a job.
set -u
export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
PIPELINE_HOSTS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | paste -sd ' ')
export PIPELINE_HOSTS
unset RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SBATCH_@}" "${!SQUEUE_@}" # of the shell that submitted
# With these, srun would not hand on what is set here, or would take the ranks' words to a file of that shell's.
unset SLURM_EXPORT_ENV SRUN_EXPORT_ENV SLURM_STDINMODE SLURM_STDOUTMODE SLURM_STDERRMODE
# The last element of an array has the array's id for its own: by that, scontrol would requeue every element.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
[ -n "$PIPELINE_HOSTS" ] || { echo "scontrol show hostnames '$SLURM_JOB_NODELIST' says nothing: not started" >&2; exit 1; }

say() { printf '[%s job %s start %s] %s\n' "$(date '+%F %T')" "$job" "$((${SLURM_RESTART_COUNT:-0} + 1))" "$*"; }
program() { "${container[@]}" "$python" -m "$@"; }
life() { program slurm.life "$1" --run "$run" --job "$job" "${@:2}"; }
of_job() { squeue --noheader --jobs "$job" --Format "$1"; }
time_left() { of_job TimeLeft:. | tr -d ' .'; }
exec {never}<> <(:) # nothing comes from there: a sleep without a process of its own
nap() { read -rt "$1" -u "$never"; }

# pretrain ARGUMENTS…: one start of the training of $run, from its checks to the decision what follows.
pretrain() {
    local beat ranks code=1
    trap terminated TERM # by scancel, the time limit, the end of a preemption's grace: outlive the ranks, then decide
    record_start
    if check_nodes && ! is_ending; then # a signal that came before the ranks has reached nobody
        say "training on $SLURM_JOB_NODELIST, $(time_left) left"
        heartbeat &
        beat=$!
        # shellcheck disable=SC2016  # each rank expands it
        srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
            bash -c '[ -z "$1" ] || [ "$SLURM_PROCID" = 0 ] || exec >>"$1-$SLURM_PROCID.log" 2>&1; exec "${@:2}"' \
            rank "$rank_logs" "${container[@]}" "$python" -m pipeline pretrain "$@" --outcome "$folder/outcome.json" &
        ranks=$!
        while wait "$ranks" && code=0 || code=$?; kill -0 "$ranks" 2>/dev/null; do :; done # a signal ends a wait, not the ranks
        kill "$beat" 2>/dev/null
    fi
    decide "$code"
}

record_start() { # or give up; where Python cannot do that, nothing can be done
    local why_not
    life start --nodes "$SLURM_JOB_NODELIST" --most "$most_fruitless_starts" ${fresh:+--fresh}
    case $? in
    0) ;;
    3) exit 1 ;;
    *)
        say "node $SLURMD_NODENAME: UNFIT: $python could not record the start"
        why_not=$(why_not_without "$SLURMD_NODENAME")
        [ -z "$why_not" ] || say "the job cannot run without $SLURMD_NODENAME: not requeued; $why_not"
        [ -z "$why_not" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$most_fruitless_starts" ] && requeue_without "$SLURMD_NODENAME"
        exit 1
        ;;
    esac
}

check_nodes() { # fails if no node is fit; goes back into the queue without those that are not, if some are
    local said token verdict unfit
    rm -f "$folder"/.seen-by-all-* # of a start that was killed here
    token=$(mktemp "$folder/.seen-by-all-XXXXXXXXXX") # on a full disk there is none; the check of this node says so
    said=$(timeout -k 5 300 srun --nodes "$SLURM_NNODES" --ntasks "$SLURM_NNODES" --ntasks-per-node 1 \
        "${container[@]}" "$python" -m slurm.node_check --folder "$folder" --data "$data" ${token:+--token "$token"} \
        --disk-bytes "$disk_bytes" --memory-bytes "$memory_bytes" --gpus "$gpus" 2>&1)
    printf '%s\n' "$said"
    rm -f "$token"
    mapfile -t verdict < <(printf '%s\n' "$said" | program slurm.node_check --verdict "$PIPELINE_HOSTS")
    [ "${#verdict[@]}" = 3 ] || return 1
    unfit=${verdict[0]}
    [ -n "$unfit" ] || return 0
    is_ending && return 1 # they were not given the time to answer
    if [ "${unfit//,/ }" = "$PIPELINE_HOSTS" ] && [ "$SLURM_NNODES" -gt 1 ] && [ -z "${verdict[2]}" ]; then
        say "none of the nodes is fit: it is not they"
        return 1
    fi
    life bad-nodes --nodes "$unfit" --most "$most_fruitless_starts" --found "${verdict[1]}" --unshared "${verdict[2]}" \
        --why-not "$(why_not_without "$unfit")" || exit 1
    requeue_without "$unfit"
}

is_ending() { # is the job cancelled, or preempted with some grace?
    case $(of_job 'State:|,PreemptTime:|') in
    'RUNNING|N/A|' | '') false ;;
    *) true ;;
    esac
}

terminated() { # SLURM ends the job, this shell soon, too: what is written now is what the next start knows
    life terminated <<<"$(of_job 'State:|,Reason:|,PreemptTime:|')"
}

heartbeat() { # every so often, how much time is left, and for how long the run has said nothing
    local last
    while :; do
        nap "$heartbeat_s"
        last=$(stat -c %Y "$run/metrics.jsonl" 2>/dev/null) && last=", last metrics $(($(date +%s) - last)) s ago"
        say "alive, $(time_left) left$last"
    done
}

decide() { # EXIT-CODE of srun
    local next shown tries
    for ((tries = 0; tries < 60; tries++)); do # the controller may be restarting, or failing over
        shown=$(of_job 'State:|,Reason:|,PreemptTime:|') && [ -n "$shown" ] && break
        nap 10
    done
    next=$(life end --exit-code "$1" --most "$most_fruitless_starts" <<<"$shown")
    say "${next:-no decision}"
    case $next in
    done) exit 0 ;;
    requeue) requeue ;;
    *) exit 1 ;;
    esac
}

# go_back COMMAND…: into the queue, with scontrol. SLURM then ends this shell and all that it has started with TERM, which must
# not hit scontrol in the middle. While the controller is away it is tried again; what it refuses, it refuses.
go_back() {
    local tries
    for ((tries = 0; tries < 60; tries++)); do
        case $(of_job 'State:|,Reason:|') in
        RUNNING* | *'|TimeLimit|')
            trap '' TERM
            "$@" && exit 0
            trap terminated TERM
            [ "$tries" -lt 3 ] || break
            ;;
        '') ;;
        *) exit 1 ;; # cancelled a moment ago
        esac
        nap 10
    done
    say "SLURM refuses to requeue: say the same submit again, the run goes on from its last checkpoint"
    exit 1
}

requeue() { go_back scontrol requeue "$job"; }

of_lists() { # 1 or 2: the nodes that the job asks for, or avoids
    scontrol -o show job "$job" | sed -n "s/.* ReqNodeList=\([^ ]*\) ExcNodeList=\([^ ]*\) NodeList=.*/\\$1/p" | grep -vF '(null)'
}

avoiding() { # NODES: with those that the job avoids already
    local avoid
    avoid=$(of_lists 2)
    printf '%s' "$1${avoid:+,$avoid}"
}

# why_not_without NODES: why the job could never start without them; nothing if it could. What SLURM says against it with them,
# too, is no reason, unless it says that no other nodes are there; nor is silence of the controller.
why_not_without() {
    local pinned node refusal
    pinned=$(of_lists 1) && pinned=$(scontrol show hostnames "$pinned")
    for node in ${1//,/ }; do
        if printf '%s\n' "$pinned" | grep -qxF "$node"; then
            echo "SBATCH_OPTIONS pins $node (--nodelist or --nodefile): take it out there, and submit again"
            return
        fi
    done
    refusal=$(sbatch --test-only --exclude="$(avoiding "$1")" "$script" 2>&1) && return
    case $refusal in
    *'not available'* | *'Invalid node name'*) ;;
    *'Unable to contact'* | *'timed out'*) return ;;
    *) sbatch --test-only "$script" >/dev/null 2>&1 || return ;;
    esac
    echo "SLURM: $(printf '%s' "$refusal" | paste -sd ' ')"
}

requeue_without() { # NODES, beside those that the job avoids already
    local avoid
    avoid=$(avoiding "$1")
    say "back into the queue without $avoid"
    go_back hold_and_release "$avoid"
}

hold_and_release() { # NODES: only a job that waits can be told to avoid some
    scontrol requeuehold "$job" && scontrol update "JobId=$job" "ExcNodeList=$1" && scontrol release "$job"
}
