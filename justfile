# One command a task; each is one plain line that works without just as well.

# Format, lints, tests, doctests, demo: what has to pass before a change lands.
test:
    ./test

# Clippy and rustdoc with warnings denied.
check:
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The story of Alice, Bob and a relay that is killed in the middle.
demo:
    cargo run --release --bin tuckseal -- demo

# Replay of the test vectors.
vectors:
    cargo test -p tuckseal --test vectors

# Conversations with the real libsignal and the C library (needs Node, npm, libsignal-protocol-c, CMake).
interop:
    cargo test -p tuckseal-interop --features c-crate --test c_crate
    TUCKSEAL_REQUIRE_NODE=1 TUCKSEAL_INTEROP_RELEASES=all cargo test -p tuckseal-interop --test libsignal -- --nocapture

# The examples and their asserted output.
examples:
    cargo test -p tuckseal --test examples

# Three million random steps of two parties with backups restored, and two million of the post-quantum
# ratchet alone: minutes. TUCKSEAL_SOAK_STEPS and TUCKSEAL_SOAK_SEED change the former.
soak:
    cargo test --release -p tuckseal --test soak -- --ignored --nocapture
    cargo test --release -p tuckseal --lib spqr -- --ignored

# Beside vodozemac, openmls and the fastest primitives, in one process; then with assembly.
bench-peers:
    cargo bench --manifest-path benches/peers/Cargo.toml
    cargo bench --manifest-path benches/peers/Cargo.toml --features asm

# The relay beside RabbitMQ, Redis, PostgreSQL, Mosquitto and NATS: the same work, in turn, so many rounds. Minutes, on a
# machine that does nothing else; who is not installed is named.
bench-relay ROUNDS="3":
    cargo build --release -p tuckseal-server && cargo run --release --manifest-path benches/relay/Cargo.toml -- --rounds {{ROUNDS}}

# Every operation beside the primitives that it cannot avoid.
bench:
    cargo bench -p tuckseal

# One fuzz target for so many seconds.
fuzz TARGET SECONDS="60":
    fuzz/run {{SECONDS}} {{TARGET}}

# Every fuzz target for so many seconds.
fuzz-all SECONDS="600":
    fuzz/run {{SECONDS}}

# Licences, sources and advisories of all dependencies of all members (needs cargo-deny).
deny:
    cargo deny --workspace check

# Structs of src/wire/ anew from proto/.
wire:
    TUCKSEAL_REGENERATE=1 cargo test -p tuckseal --test wire

# What would be published.
publish-check:
    cargo publish --workspace --dry-run --allow-dirty

# Nodes, database, standby, bus and the line to it are killed, cut and stalled at random for so many seconds.
chaos SECONDS="600" SEED="1":
    TUCKSEAL_CHAOS_SECS={{SECONDS}} TUCKSEAL_CHAOS_SEED={{SEED}} cargo test -p tuckseal-server --test server chaos_long -- --ignored --nocapture

# Streams, submissions, notices and sweeps of two nodes in every order, in larger worlds than the tests have. Less than a minute, after the build.
interleavings:
    cargo test --release -p tuckseal-server --lib interleavings -- --ignored --nocapture

# So many one-time prekeys are taken by many at once while nodes are killed, on PostgreSQL, then on SQLite.
takes COUNT="1000000":
    TUCKSEAL_TAKES={{COUNT}} cargo test --release -p tuckseal-server --test server takes_long -- --ignored --nocapture --test-threads=1

# What docs/scaling.md cannot measure, simulated. Needs nothing but rustc.
scaling:
    rustc --edition 2024 -O -o target/scaling docs/scaling.rs
    target/scaling
