# Sourced: a container whose root is the directory $board and whose PID 1 is a real systemd. For who may mount and has
# a function `fail MESSAGE`. What is left of the container goes with the script.
leader='' container=''

# container_starts CONSOLE [ARGUMENT...]: its first process is $leader when this returns. systemd-nspawn has other
# children for a moment while it sets up; the one that stays is number 1 of its own namespace.
container_starts() {
    local console=$1 pid tries=0
    shift
    UNIFIED_CGROUP_HIERARCHY=1 systemd-nspawn -q --register=no --keep-unit --private-network -b -D "$board" --console=pipe \
        "$@" </dev/null >"$console" 2>&1 &
    container=$!
    trap container_cut EXIT
    leader=''
    while [ -z "$leader" ]; do
        if ! kill -0 "$container" 2>/dev/null || [ $((tries += 1)) -gt 600 ]; then
            fail "the container did not start: $(tail -5 "$console")"
        fi
        sleep 0.1
        for pid in $(pgrep -P "$container"); do
            if grep -qsP '^NSpid:\t.*\t1$' "/proc/$pid/status"; then leader=$pid; fi
        done
    done
}

# container_cut: as when the power goes.
container_cut() {
    # Its keeper goes with it, and on its own only when there is nothing to keep yet.
    [ -z "$container$leader" ] || kill -KILL "${leader:-$container}" 2>/dev/null || true
    [ -z "$container" ] || wait "$container" 2>/dev/null || true
    leader='' container=''
}

# in_board COMMAND...: runs there, for five minutes at most.
in_board() { timeout --foreground -k 10 300 nsenter -t "$leader" -m -p -u -i -n -C \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C "$@"; }
