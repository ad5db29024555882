# MojaveFS: everything a person or a machine does with it.
#
# `make demo` and `make test` set up what is missing (system packages as root, with apt-get) and need Rust, gcc and make.
# One cargo profile serves all of it: RocksDB takes more than ten minutes to build.

CARGO := cargo
RELEASE := --release

.PHONY: all build demo test test-fuser planted soak lint bench install setup

all: build

setup:
	@scripts/setup

build: setup
	$(CARGO) build $(RELEASE) --workspace

demo: build
	@scripts/demo

# The tests link programs with libmojave, which building the tests alone does not put in its place.
test: build
	$(CARGO) nextest run $(RELEASE) --workspace

# The core of it with the crate fuser in the place of our own transport.
CORE = test(filesystem::) | test(workloads::) | test(posix::) | test(jobs::) | test(holes::) | test(at_once::) | test(mounting::)
test-fuser: build
	MOJAVEFS_TRANSPORT=fuser $(CARGO) nextest run $(RELEASE) --workspace -E 'binary(e2e) & ($(CORE))'

# Programs with faults in them, beside the others and never installed; each fault must be found by a net, by random histories of the server,
# or by the simulator.
planted: build
	@# The whole workspace, or what it depends on would be built anew with other features.
	$(CARGO) build $(RELEASE) --workspace --features mojavefs-programs/planted --bin mojavefs-planted --bin specrun-planted
	$(CARGO) nextest run $(RELEASE) --workspace --run-ignored only -E 'package(mojavefs-nets) & test(/^planted::/)'
	$(CARGO) nextest run $(RELEASE) --workspace --lib --test sim --features mojavefs-programs/planted --run-ignored only \
		-E 'test(/planted_faults/)'

# The long forms of the nets, and of the crash, random and POSIX tests: hours.
soak: build
	MOJAVEFS_SOAK=1 $(CARGO) nextest run $(RELEASE) --workspace --profile soak

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(RELEASE) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --workspace --no-deps
	@scripts/deny

bench: build
	$(CARGO) run $(RELEASE) -p mojavefs-bench
	$(CARGO) bench --profile release -p mojavefs -p mojavefs-server --bench graph --bench store

TARGET = $$($(CARGO) metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
PREFIX := /usr/local

install: build
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin $(TARGET)/mojavefs $(TARGET)/specrun
	install -Dm644 -t $(DESTDIR)$(PREFIX)/lib $(TARGET)/libmojave.so $(TARGET)/libmojave.a
	@# What only a debugger reads is most of them.
	strip --strip-debug $(addprefix $(DESTDIR)$(PREFIX)/,bin/mojavefs bin/specrun lib/libmojave.so lib/libmojave.a)
	install -Dm644 -t $(DESTDIR)$(PREFIX)/include mojavefs/process/include/mojave.h mojavefs/process/include/mcc.h
	mkdir -p $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed 's#@PREFIX@#$(PREFIX)#' mojavefs/process/mojave.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/mojave.pc
	@# mount(8) looks for it there only.
	if [ -n "$(DESTDIR)" ] || [ "$$(id -u)" = 0 ]; then \
		mkdir -p $(DESTDIR)/sbin && sed 's#@PREFIX@#$(PREFIX)#' scripts/mount.fuse.mojavefs > $(DESTDIR)/sbin/mount.fuse.mojavefs && \
		chmod 755 $(DESTDIR)/sbin/mount.fuse.mojavefs; fi
	@# For `systemctl enable`.
	mkdir -p $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's#@PREFIX@#$(PREFIX)#' scripts/mojavefs-apply.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/mojavefs-apply.service
	@# Programs find a new library in its cache only.
	if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi
