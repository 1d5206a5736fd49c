#!/usr/bin/env bash
# Builds the image around a binary and runs it for real: health, a request, a reload, metrics, a stop; and
# compose.yml with a Prometheus beside it.
#
#   docker/check.sh target/release/dynomesh
#
# Needs root, docker's engine (Debian: docker.io), busybox-static, iproute2 and curl; no image registry. It runs
# an engine of its own, with its own data, socket and bridge, and leaves nothing behind. systemd-analyze, promtool,
# prometheus and docker compose (the plugin, or Debian's docker-compose) are used where they are installed, and named
# where not.
set -euo pipefail

binary=$(realpath "${1:?usage: docker/check.sh BINARY}")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d /tmp/dynomesh-docker.XXXXXX)
bridge=dmcheck0
subnet=172.31.254
engine=
scraper=
composed=

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

# The plugin, or the program of its own that came before it; asks the same engine, builds with the same client.
compose() {
    local program=(docker compose)
    command "$client" compose version >/dev/null 2>&1 || program=(command docker-compose)
    PATH=${client%/*}:$PATH DOCKER_HOST=unix://$work/docker.sock DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 \
        "${program[@]}" --project-name dmcheck --file "$work/context/docker/compose.yml" "$@"
}

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
    if [[ -n $composed ]]; then
        ((status == 0)) || compose logs --tail 50 2>&1
        compose down --volumes --timeout 75 >/dev/null 2>&1
    fi
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

# The units as they are, but for where the binary is. systemd before 254 says that it ignores one key.
verify_units() {
    local said
    mkdir "$work/units"
    sed "s|^ExecStart=/usr/local/bin/dynomesh |ExecStart=$binary |" "$here/dynomesh.service" \
        >"$work/units/dynomesh.service"
    cp "$here/dynomesh.socket" "$work/units"
    said=$(systemd-analyze verify --man=no "$work"/units/* 2>&1 | grep -v "Unknown key 'DelegateSubgroup'") || true
    [[ -z $said ]] || fail "$said"
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

# tree_of NAME PROGRAM: a file system with a shell and its tools, and the libraries of a program.
tree_of() {
    local tree=$work/tree-$1 library applet
    mkdir -p "$tree"/{bin,etc,lib64,proc,root,srv,sys,tmp,usr/bin,usr/local/bin,var/lib}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    for applet in $(busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$tree/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
    for library in $(ldd "$2" | grep -o '/[^ ]*'); do
        cp --dereference --parents "$library" "$tree"
    done
    printf '%s\n' "$tree"
}

# What stands in for debian:bookworm-slim.
import_base() {
    tar --create --directory "$(tree_of base "$binary")" . | docker import - dynomesh-check-base
}

# What stands in for the image of Prometheus that compose.yml names: Debian's, called as that image's is.
import_prometheus() {
    local tree
    tree=$(tree_of prometheus "$(command -v prometheus)")
    cp "$(command -v prometheus)" "$tree/bin/prometheus"
    mkdir -p "$tree/etc/prometheus" "$tree/prometheus"
    tar --create --directory "$tree" . | docker import \
        --change 'ENTRYPOINT ["/bin/prometheus"]' \
        --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]' \
        - "$(awk '$1 == "image:" { print $2 }' "$here/compose.yml")"
}

build_args=(--build-arg BASE=dynomesh-check-base --build-arg FROM_STAGE=prebuilt --build-arg BINARY=dynomesh)

build() {
    local context=$work/context
    mkdir -p "$context/config"
    cp -r "$here" "$context/docker"
    cp -r "$here/../config/hello" "$context/config/hello"
    cp "$binary" "$context/dynomesh"
    docker build --quiet --tag dynomesh --file "$context/docker/Dockerfile" "${build_args[@]}" "$context"
}

is_healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' dynomesh) == healthy ]]; }
metric() { curl --fail --silent "http://$address:9090/metrics" | awk -v name="$1" '$1 == name { print $2 }'; }
is_metric() { [[ $(metric "$1") == "$2" ]]; }
is_scraped() {
    curl --fail --silent --get "http://$scraper_address/api/v1/query" \
        --data-urlencode 'query=dynomesh_requests_total{job="dynomesh"}' | grep -q '"app":"hello"'
}

scrape() {
    scraper_address=127.0.0.1:19191
    sed -e "s/dynomesh:9090/$address:9090/" -e 's/15s/1s/' "$here/prometheus.yml" >"$work/prometheus.yml"
    prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
        --web.listen-address="$scraper_address" >"$work/prometheus.log" 2>&1 &
    scraper=$!
    await 30 "a scrape by prometheus" is_scraped
    echo "   scraped by $(prometheus --version 2>&1 | head -1)"
}

# compose.yml as it is, but for the host's ports, which may be taken here (the engine chooses others), and for the
# hard limit on open files, which this check may not raise where it has less itself.
run_composed() {
    import_prometheus
    sed -i -e 's/"8080:8080"/"127.0.0.1::8080"/' -e 's/"127.0.0.1:[0-9]*:9090"/"127.0.0.1::9090"/' \
        -e "s/hard: 1048576/hard: $(ulimit -H -n)/" "$work/context/docker/compose.yml"
    sed -i 's/15s/1s/' "$work/context/docker/prometheus.yml"
    composed=yes
    compose build "${build_args[@]}" dynomesh >"$work/compose-build.log" 2>&1 || {
        cat "$work/compose-build.log"
        fail "compose cannot build"
    }
    compose up --detach
    curl --fail --silent --show-error --header 'Host: hello.localhost' "http://$(compose port dynomesh 8080)/"
    scraper_address=$(compose port prometheus 9090)
    await 60 "a scrape by compose's prometheus" is_scraped
    echo "   scraped by the prometheus beside it"
    compose down --volumes --timeout 75
    composed=
}

client=$(find_client)

step "files: units, prometheus"
if have systemd-analyze; then verify_units; else skip systemd-analyze; fi
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

step "compose"
if ! have docker-compose && ! docker compose version >/dev/null 2>&1; then
    skip "docker compose"
elif ! have prometheus; then
    skip prometheus
else
    run_composed
fi

step "ok"
