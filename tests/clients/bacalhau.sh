#!/usr/bin/env bash
# Bacalhau's own program and codling, both ways round: its command line drives a codling node, and codling's command
# line drives a node of Bacalhau's.
#
# tests/clients/bacalhau.sh [VERSION...]   1.4.0 and 1.9.3 if none is named
#
# Bacalhau is built from its Go module, below target/clients. That wants Go and Go's module proxy, which ./tests/run.sh
# does without: tests/front_door/exchanges.rs replays there what these programs send.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
[ $# -gt 0 ] || set -- 1.4.0 1.9.3

command -v go >/dev/null || die 69 "please install Go: https://go.dev/dl"
need curl curl
need python3 python3
cargo build --locked --quiet --features interpreter
codling=$PWD/target/debug/codling
# As Bacalhau's nodes want a module: with its entry point said, and with a name section.
job=$PWD/examples/hello-1.4.json
work=$(mktemp -d)
node=''
stop_node() {
    [ -z "$node" ] || { kill "$node" 2>/dev/null && wait "$node" 2>/dev/null; } || true
    node=''
}
trap 'stop_node; rm -rf "$work"' EXIT
fail() { printf 'FAILED: %s\n' "$*" >&2; tail -n 20 "$work/node.log" >&2; exit 1; }

# build VERSION: the program, as its authors' own build has it but for the web pages.
build() {
    local home=$PWD/target/clients/bacalhau-$1 from
    [ ! -x "$home/bacalhau" ] || return 0
    say "building Bacalhau $1"
    # No list of checksums is asked for this module; those of all that it needs are in it.
    export GONOSUMDB=github.com/bacalhau-project/bacalhau GOWORK=off CGO_ENABLED=0
    from=$(mkdir -p "$home" && cd "$home" && go mod download -json "github.com/bacalhau-project/bacalhau@v$1" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') || die 69 "Bacalhau $1 cannot be had"
    rm -rf "$home/src"
    cp -r "$from" "$home/src"
    chmod -R u+w "$home/src"
    mkdir -p "$home/src/webui/build"
    echo >"$home/src/webui/build/index.html"
    (cd "$home/src" && go build -o ../bacalhau \
        -ldflags "-X github.com/bacalhau-project/bacalhau/pkg/version.GITVERSION=v$1" .)
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# starts COMMAND...: a node; returns when its API answers.
starts() {
    local tries=0
    "$@" >"$work/node.log" 2>&1 &
    node=$!
    until curl -sf "http://127.0.0.1:$BACALHAU_API_PORT/api/v1/agent/alive" >/dev/null; do
        kill -0 "$node" 2>/dev/null || fail "the node ended"
        [ $((tries += 1)) -lt 600 ] || fail "the node does not answer"
        sleep 0.1
    done
}

# says TEXT COMMAND...: it works, and says that (a pattern of the shell's). refuses: it fails, and says that.
ran=0
run() {
    said=$("$@" 2>&1 </dev/null | sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g'; exit "${PIPESTATUS[0]}")
}
says() {
    local text=$1
    shift
    run "$@" || fail "$*: $said"
    [[ $said == *$text* ]] || fail "$* does not say '$text': $said"
    ran=$((ran + 1))
}
refuses() {
    local text=$1
    shift
    ! run "$@" || fail "$* works: $said"
    [[ $said == *$text* ]] || fail "$* does not say '$text': $said"
    ran=$((ran + 1))
}
# until_says TEXT COMMAND...: it comes to say that.
until_says() {
    local tries=0
    until run "${@:2}" && [[ $said == *$1* ]]; do
        [ $((tries += 1)) -lt 300 ] || fail "${*:2} does not come to say '$1': $said"
        sleep 0.1
    done
    ran=$((ran + 1))
}

# drives_codling VERSION: each command of Bacalhau's against a codling node.
drives_codling() {
    local id service
    starts "$codling" serve --data-dir "$work/codling-$1" --api-port "$BACALHAU_API_PORT" -c Publishers.Types.Local.Port=0
    # Of the client and of the server.
    says "v$1*v1.9" "$program" version
    says OK "$program" agent alive
    id=$(curl -s "http://127.0.0.1:$BACALHAU_API_PORT/api/v1/orchestrator/nodes" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["Nodes"][0]["Info"]["NodeID"])')
    says "${id:0:10}" "$program" node list
    says "$id" "$program" node describe "$id"
    says j- "$program" job run --id-only --wait "$job"
    id=$said
    says "${id:0:10}" "$program" job list
    says Completed "$program" job describe "$id"
    says 'hello, world' "$program" job describe "$id"
    says Completed "$program" job executions "$id"
    says 'completed with exit code 0' "$program" job history "$id"
    says 'hello, world' "$program" job logs "$id"
    says 'have been written' "$program" job get --output-dir "$(mkdir -p "$work/got-$1" && echo "$work/got-$1")" "$id"
    [ "$(cat "$work/got-$1/stdout")" = 'hello, world' ] || fail "the result is '$(cat "$work/got-$1/stdout")'"
    refuses 'terminal state' "$program" job stop "$id"
    refuses 'not found' "$program" job describe j-nothere
    says j- "$program" wasm run --id-only --wait "$PWD/guests/probe.wasm" echo by-itself
    says by-itself "$program" job logs "$said"
    sed 's/"batch"/"service"/; s/"hello"/"goes-on"/' "$job" >"$work/service.json"
    says j- "$program" job run --id-only --wait=false "$work/service.json"
    service=$said
    until_says Running "$program" job describe "$service"
    says 'successfully submitted' "$program" job stop "$service"
    until_says Stopped "$program" job describe "$service"
    [ "$1" = 1.4.0 ] || {
        says 'No diff' "$program" job run --dry-run "$job"
        says "$id" "$program" job rerun --wait "$id"
        says ':[0-9][0-9] * 1 *:[0-9][0-9] * 2 ' "$program" job versions "$id"
        sed 's/"world"/"board"/' "$job" >"$work/next.json"
        says "$id" "$program" job run --id-only --wait "$work/next.json"
        says 'hello, board' "$program" job logs "$id"
        says 'hello, board' "$program" job run --force --follow "$work/next.json"
        says Engines "$program" agent config
        # A job that fails is no failure of the command's.
        says "engine 'docker' is not available" "$program" docker run ubuntu true
        stop_node
        printf secret >"$work/token" && chmod 600 "$work/token"
        starts "$codling" serve --data-dir "$work/codling-$1" --api-port "$BACALHAU_API_PORT" \
            -c Publishers.Types.Local.Port=0 -c "API.Auth.TokenFile=$work/token"
        refuses unauthorized "$program" job list
        BACALHAU_API_KEY=secret says "${id:0:10}" "$program" job list
    }
    stop_node
}

# is_driven VERSION: codling's commands against a node of Bacalhau's.
is_driven() {
    local id port publisher
    port=$(free_port) publisher=$(free_port)
    case $1 in
        1.4.*) starts "$program" serve --node-type requester,compute --host 127.0.0.1 --port "$BACALHAU_API_PORT" \
            --network-port "$port" --local-publisher-address 127.0.0.1 --local-publisher-port "$publisher" ;;
        *) starts "$program" serve --orchestrator --compute -c API.Host=127.0.0.1 -c "API.Port=$BACALHAU_API_PORT" \
            -c "Orchestrator.Port=$port" -c "Compute.Orchestrators=nats://127.0.0.1:$port" -c WebUI.Enabled=false \
            -c Publishers.Types.Local.Address=127.0.0.1 -c "Publishers.Types.Local.Port=$publisher" ;;
    esac
    says OK "$codling" agent alive
    says "v$1" "$codling" agent version
    says wasm "$codling" agent node
    # A compute node takes a moment to come to its orchestrator.
    until_says CONNECTED "$codling" node list
    says n- "$codling" node list --output json
    id=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])[0]["Info"]["NodeID"])' "$said")
    says "$id" "$codling" node describe "$id"
    says completed "$codling" job run --wait "$job"
    says j- "$codling" job run --id-only --wait --force "$job"
    id=${said##*$'\n'}
    says "${id:0:10}" "$codling" job list
    says Completed "$codling" job describe "$id"
    says Completed "$codling" job executions "$id"
    says Completed "$codling" job history "$id"
    # 1.9.3 does not come to answer for the log of what has ended, its own command line either.
    case $1 in 1.4.*) says hello "$codling" job logs "$id" ;; esac
    says "$work/of-$1" "$codling" job get --output-dir "$work/of-$1" "$id"
    grep -q hello "$work/of-$1/stdout" || fail "the result is not there"
    refuses 'already completed' "$codling" job stop "$id"
    refuses 'only a codling node' "$codling" results list
    refuses 'only a codling node' "$codling" results pin e-0
    says j- "$codling" wasm run --name mine "$PWD/guests/probe.wasm" echo on
    case $1 in
        1.4.*)
            refuses 'may be too old' "$codling" job rerun "$id"
            refuses 'may be too old' "$codling" job versions "$id"
            refuses 'may be too old' "$codling" job run --dry-run "$job" ;;
        *)
            says 'as version' "$codling" job rerun "$id"
            # Those of two submissions and of this.
            says '2  20*3  20' "$codling" job versions "$id"
            refuses 'not found' "$codling" job describe j-nothere ;;
    esac
    stop_node
}

for version in "$@"; do build "$version"; done
# Nobody is told of these runs, and nothing is left of them.
export BACALHAU_API_HOST=127.0.0.1 BACALHAU_UPDATE_CHECKER_ENDPOINT=http://127.0.0.1:1/x BACALHAU_UPDATECONFIG_INTERVAL=0
export BACALHAU_DISABLEANALYTICS=true HOME=$work
for version in "$@"; do
    program=$PWD/target/clients/bacalhau-$version/bacalhau
    export BACALHAU_DIR=$work/client-$version
    BACALHAU_API_PORT=$(free_port)
    export BACALHAU_API_PORT
    ran=0
    drives_codling "$version"
    printf 'Bacalhau %s drives codling: %d commands\n' "$version" "$ran"
    ran=0
    export BACALHAU_DIR=$work/node-$version
    is_driven "$version"
    printf 'codling drives Bacalhau %s: %d commands\n' "$version" "$ran"
done
