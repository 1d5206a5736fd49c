#!/usr/bin/env bash
# Builds the image around a binary and runs it for real: health, a request, a reload, metrics, a stop.
#
#   docker/check.sh target/release/dynomesh
#
# Needs root, docker's engine (Debian: docker.io), busybox-static, iproute2 and curl; no image registry. It runs
# an engine of its own, with its own data, socket and bridge, and leaves nothing behind. promtool, prometheus and
# docker compose are used where they are installed, and named where they are not.
set -euo pipefail

binary=$(realpath "${1:?usage: docker/check.sh BINARY}")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d /tmp/dynomesh-docker.XXXXXX)
bridge=dmcheck0
subnet=172.31.254
engine=
scraper=

step() { printf '== %s\n' "$*"; }
fail() { printf 'docker/check.sh: %s\n' "$*" >&2; exit 1; }
skip() { printf '   skipped: %s is not installed\n' "$*"; }
have() { command -v "$1" >/dev/null; }

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "$what: not within the time"
        sleep 0.1
    done
}

docker() { DOCKER_BUILDKIT=1 command "$client" --host "unix://$work/docker.sock" "$@"; }

# Ends one process that this script started, by its id, and waits for it.
end() {
    [[ -z $1 ]] && return
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    local status=$?
    set +e
    ((status == 0)) || { [[ -n $engine ]] && docker logs dynomesh 2>&1 | tail -50; }
    end "$scraper"
    [[ -n $engine ]] && docker rm --force dynomesh >/dev/null 2>&1
    end "$engine"
    ip link delete "$bridge" 2>/dev/null
    # The engine unmounts its own; what it may have left has our directory in its path.
    awk -v work="$work" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The Dockerfile leaves out the stage that is not used, which BuildKit does. Clients before 23 speak it by
# themselves, later ones through a plugin.
find_client() {
    local candidate major
    for candidate in $(type -aP docker); do
        major=$("$candidate" --version | sed 's/^Docker version \([0-9]*\).*/\1/')
        if ((major < 23)) || "$candidate" buildx version >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no docker client that can build with BuildKit (docker.io 20.10, or docker with buildx)"
}

start_engine() {
    ip link add "$bridge" type bridge
    ip address add "$subnet.1/24" dev "$bridge"
    ip link set "$bridge" up
    # No rule of the host's firewall is touched: the check reaches the container by its own address.
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
        --host "unix://$work/docker.sock" --bridge "$bridge" --fixed-cidr "$subnet.0/24" \
        --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false \
        >"$work/dockerd.log" 2>&1 &
    engine=$!
    await 60 "the engine's start" docker info
}

# What stands in for debian:bookworm-slim: a shell with its tools, and the libraries of the binary.
import_base() {
    local tree=$work/tree library applet
    mkdir -p "$tree"/{bin,etc,lib64,proc,root,srv,sys,tmp,usr/bin,usr/local/bin,var/lib}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    for applet in $(busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$tree/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    for library in $(ldd "$binary" | grep -o '/[^ ]*'); do
        cp --dereference --parents "$library" "$tree"
    done
    tar --create --directory "$tree" . | docker import - dynomesh-check-base
}

build() {
    local context=$work/context
    mkdir -p "$context/config"
    cp -r "$here" "$context/docker"
    cp -r "$here/../config/hello" "$context/config/hello"
    cp "$binary" "$context/dynomesh"
    docker build --quiet --tag dynomesh --file "$context/docker/Dockerfile" \
        --build-arg BASE=dynomesh-check-base --build-arg FROM_STAGE=prebuilt --build-arg BINARY=dynomesh \
        "$context"
}

is_healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' dynomesh) == healthy ]]; }
metric() { curl --fail --silent "http://$address:9090/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }
is_metric() { [[ $(metric "$1") == "$2" ]]; }
is_scraped() {
    curl --fail --silent --get "http://127.0.0.1:$scraper_port/api/v1/query" \
        --data-urlencode 'query=dynomesh_requests_total{job="dynomesh"}' | grep -q '"app":"hello"'
}

scrape() {
    scraper_port=19191
    sed -e "s/dynomesh:9090/$address:9090/" -e 's/15s/1s/' "$here/prometheus.yml" >"$work/prometheus.yml"
    prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
        --web.listen-address="127.0.0.1:$scraper_port" >"$work/prometheus.log" 2>&1 &
    scraper=$!
    await 30 "a scrape by prometheus" is_scraped
    echo "   scraped by $(prometheus --version 2>&1 | head -1)"
}

client=$(find_client)

step "files: compose, prometheus"
if docker compose version >/dev/null 2>&1; then
    docker compose --file "$here/compose.yml" config --quiet
elif have docker-compose; then
    docker-compose --file "$here/compose.yml" config --quiet
else
    skip "docker compose"
fi
if have promtool; then promtool check config "$here/prometheus.yml"; else skip promtool; fi

step "engine: $(dockerd --version)"
start_engine

step "image"
import_base
build
docker images --format '   {{.Repository}} {{.Size}}' dynomesh

step "start"
docker run --detach --init --name dynomesh --health-interval 1s dynomesh
address=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' dynomesh)
await 60 "the health check" is_healthy
await 60 "readiness" docker exec dynomesh dynomesh health --ready

step "request"
curl --fail --silent --show-error --header 'Host: hello.localhost' "http://$address:8080/"

step "reload: by SIGHUP, and by command"
docker kill --signal HUP dynomesh >/dev/null
await 10 "the reload" is_metric 'dynomesh_reloads_total{result="ok"}' 1
docker exec dynomesh dynomesh reload
is_metric 'dynomesh_reloads_total{result="ok"}' 2 || fail "the second reload was not counted"
is_metric 'dynomesh_reloads_total{result="refused"}' 0 || fail "a reload was refused"

step "metrics"
if have promtool; then
    curl --fail --silent "http://$address:9090/metrics" | promtool check metrics
else
    skip promtool
fi
if have prometheus; then scrape; else skip prometheus; fi

step "stop"
before=$SECONDS
docker stop --time 75 dynomesh >/dev/null
docker logs dynomesh 2>&1 | tail -6
exit_code=$(docker inspect --format '{{.State.ExitCode}}' dynomesh)
((exit_code == 0)) || fail "the daemon stopped with exit code $exit_code"
((SECONDS - before < 70)) || fail "the stop took $((SECONDS - before)) s"
docker rm dynomesh >/dev/null

step "ok"
