# One door to every check and tool. `just` alone lists them.

[private]
default:
    @just --list --unsorted

# all that must hold before a commit
check: fmt clippy test doc deny

# only look: `cargo fmt` mends
fmt:
    cargo fmt --check

clippy:
    cargo clippy --all-targets --locked -- -D warnings

test:
    cargo test

doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked

# licences, duplicate and banned dependencies, advisories (needs: cargo install cargo-deny --locked)
deny:
    cargo deny check

# the promises, against the real binary: all of them, or those whose name contains FILTER
it FILTER='':
    cargo test --test it -- {{ FILTER }}

# the dyno manager with scripted processes on a paused clock
sim:
    cargo test --lib supervisor::

# each parser of outside bytes for SECONDS (needs: nightly, cargo install cargo-fuzz --locked)
fuzz SECONDS='60':
    for target in $(cargo +nightly fuzz list); do cargo +nightly fuzz run $target -- -max_total_time={{ SECONDS }} || exit 1; done

# what runs once per request, measured alone
bench *ARGS:
    cargo bench --manifest-path bench/micro/Cargo.toml {{ ARGS }}

# this proxy beside nginx, HAProxy and others; appends to bench/results/
compare *ARGS:
    bench/compare/run {{ ARGS }}

# the image, built and run
docker: release
    docker/check.sh target/release/dynomesh

# real servers and other people's clients (needs what .ci/run's packages installs)
e2e: release
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/real_apps.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/outside_clients.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/stalled_worker.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/dynos.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/killed_at_every_write.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/http2_conformance.py
    PYTHONDONTWRITEBYTECODE=1 python3 tests/e2e/edge.py

# all of the above that a machine can judge, as CI runs it
ci *STAGES:
    .ci/run {{ STAGES }}

release:
    cargo build --release --locked
