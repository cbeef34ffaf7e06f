# Everything is done by cargo; this file only gives short names.
#   make demo   show the whole thing on real guests
#   make test   all tests, on real guests too
.PHONY: demo test bench check run setup

# Cargo does its own parallelism; two of these at once would wait for each other.
.NOTPARALLEL:

demo: setup
	cargo xtask demo

test: setup
	cargo xtask test

bench: setup
	cargo xtask bench

check:
	cargo xtask check

# A daemon from this checkout, in the foreground.
run: setup
	cargo run --release --bin coppiced

setup:
	cargo xtask setup-host
