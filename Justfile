# Run these as `./just RECIPE`: the wrapper sets up what they need.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# List the recipes
default:
    @just --list --unsorted

# Serve on 127.0.0.1:8080 with the built-in model; takes the options of `quiver serve`
[no-exit-message]
serve *options: build
    @exec quiver serve "$@"

# Run every test: the Rust crates without Python, then the Python suite on the built extension
test *options: build
    cargo test --release --locked --workspace --exclude quiver-py
    pytest "$@"

# Run the gateway against SEEDS schedules of faults in virtual time: `./just sim 10000`
sim seeds="1000" *options: build
    @python -m quiver.proxy.testing "$@"

# Check formatting, lint and types in both languages
lint: build
    ruff format --check .
    ruff check .
    mypy
    stubtest quiver._engine
    cargo fmt --all --check
    cargo clippy --release --locked --workspace --all-targets -- -D warnings

# Put both languages into their standard format
fmt:
    ruff format .
    ruff check --fix .
    cargo fmt --all

# Build the extension and install Quiver into .venv, pointing at this checkout
build:
    @maturin develop --release --locked --skip-install --quiet
    @[ -x .venv/bin/quiver ] || uv pip install --quiet --no-deps --no-build-isolation --editable .

# Build the wheel into dist/
wheel:
    maturin build --release --locked --out dist

# Load damaged model files for so many seconds: no panic, little time, little memory
fuzz seconds="600":
    cargo run --release --locked --quiet -p quiver-core --example fuzz_gguf -- {{ seconds }}

# Register a thousand servers while the gateway is killed at random moments: none that was acknowledged is lost (10 minutes)
registrations count="1000": build
    REGISTRATIONS="{{ count }}" pytest -s tests/e2e/test_registrations.py

# Measure: throughput and latency of the gateway and of the engine
bench *options: build
    python -m bench "$@"

# Ask the built-in model one question through the HTTP endpoint of a fresh gateway
demo: build
    @python -m bench.demo

# Print where the documentation starts and check that it agrees with the code
docs: build
    pytest tests/docs
    @echo "docs/design.md  docs/simulation.md  docs/performance.md  docs/engine.md  docs/configuration.md  docs/errors.md  docs/bolt.md; the API page is /docs of a running gateway"

# Make the built-in model again: corpus, vocabulary, training, evaluation (about 15 minutes on 2 cores)
bolt:
    bolt/make.sh
