# SPDX-License-Identifier: Apache-2.0
# The everyday verbs over meson. `make help` lists them.
#
# CC=clang chooses the compiler, BUILD=dir the build folder, CI=true turns warnings
# into errors. A build folder is made anew when one of these changes.
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
SEEDS ?= 100000
FUZZ_S ?= 60
CYCLES ?= 10000
WERROR := $(if $(filter true,$(CI)),true,false)
SANITIZED := -Db_lundef=false -Dbuildtype=debugoptimized
# GCC 12's thread sanitizer cannot cope with the address layout of newer kernels; a
# container may refuse to change it.
NO_ASLR = $(shell setarch -R true 2>/dev/null && echo setarch -R)

# LAB=0 leaves the lab's tests out of `make test`. They are most of its time.
LAB ?= 1

export ASAN_OPTIONS ?= abort_on_error=0:detect_leaks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1

# $(call compile,folder,meson flags[,target]): configures if need be, and builds. A folder
# that somebody configured by hand (no .made-for in it) is left as it is.
define compile
	@want='$(CC) werror=$(WERROR) $(2)'; have=$$(cat $(1)/.made-for 2>/dev/null); \
	if [ ! -f $(1)/build.ninja ] || [ "$${have:-$$want}" != "$$want" ]; then \
		rm -rf $(1) && CC='$(CC)' meson setup $(1) -Dwerror=$(WERROR) $(2) && \
		echo "$$want" > $(1)/.made-for; \
	fi
	@ninja -C $(1) $(3)
endef

.PHONY: all boot install uninstall deb deb-test demo demo-linux demo-restore pictures test check \
	asan tsan valgrind soak fuzz-smoke sim mutants model tidy bench bench-qemu \
	kvm-unit-tests lab lab-test lab-python lab-bench s3-test clean help
all:
	$(call compile,$(BUILD),)

install: ## what was built, into PREFIX=/usr/local, or below DESTDIR
	$(call compile,$(BUILD),)
	@DESTDIR='$(abspath $(DESTDIR))' tools/install $(BUILD) '$(PREFIX)'

uninstall: ## removes what the last install wrote
	@ninja -C $(BUILD) uninstall

deb: ## Debian packages, into $(BUILD)-deb
	@tools/setup deb
	@tools/deb $(BUILD)-deb

deb-test: ## builds them twice, tries them on a clean Debian: docs/testing.md; minutes
	@tools/setup deb
	@tools/deb-test $(ARGS) $(BUILD)-deb-test

demo: ## the main job in one minute, side by side
	@tools/setup demo
	$(call compile,$(BUILD),)
	@tools/demo $(BUILD)/asyncpf $(ARGS)

boot: ## a stock Linux in front of you, its faults served; exit or Ctrl-A x ends it
	@tools/setup demo
	$(call compile,$(BUILD),)
	@tools/lab guest $(BUILD)/linux-guest
	@$(BUILD)/asyncpf run --kernel $(BUILD)/linux-guest/vmlinuz \
		--initrd $(BUILD)/linux-guest/initrd.img $(ARGS)

demo-linux: ## the same for stock Linux, overcommitted, in the lab; minutes
	@tools/setup demo
	$(call compile,$(BUILD),)
	@tools/demo-linux $(BUILD) $(ARGS)

demo-restore: ## a restored Redis, its memory far away, in the lab; hours, less with ARGS
	@tools/setup restore
	$(call compile,$(BUILD),)
	@ninja -C $(BUILD) tests/integration/late-relay >/dev/null
	@tools/demo-restore $(BUILD) $(ARGS)

pictures: ## those of docs/trace.md anew; ARGS=demo for those that need no lab; minutes
	@tools/setup demo
	$(call compile,$(BUILD),)
	@tools/pictures $(BUILD) $(ARGS)

test: ## every test; LAB=0 leaves out those in the lab, a quarter of an hour
	@tools/setup test
	$(call compile,$(BUILD),)
	@$(if $(filter 1,$(LAB)),tools/lab fetch || echo 'the tests of the lab are left out')
	@tools/run-tests $(BUILD) $(if $(filter 1,$(LAB)),,--no-suite lab)

check: ## unit tests and tidy, less than a minute
	$(call compile,$(BUILD),)
	@tools/run-tests $(BUILD) --suite unit --suite tidy

asan: ## all tests with address and undefined-behaviour sanitizers
	$(call compile,$(BUILD)-asan,-Db_sanitize=address$(COMMA)undefined $(SANITIZED))
	@tools/run-tests $(BUILD)-asan --no-suite tidy --no-suite lab --no-suite model \
		--timeout-multiplier 4

tsan: ## tests of the suites unit and integration with the thread sanitizer
	$(call compile,$(BUILD)-tsan,-Db_sanitize=thread $(SANITIZED))
	@$(NO_ASLR) tools/run-tests $(BUILD)-tsan --suite unit --suite integration \
		--timeout-multiplier 8

soak: ## a guest moved CYCLES times (10,000), snapshots of snapshots; half an hour
	$(call compile,$(BUILD),)
	@$(BUILD)/tests/integration/migrate_test $(CYCLES)
	@tests/integration/snapshot_run_test.py $(BUILD)/asyncpf 1000

valgrind: ## unit tests under valgrind
	@tools/setup valgrind
	$(call compile,$(BUILD),)
	@tools/run-tests $(BUILD) --suite unit --timeout-multiplier 20 \
		--wrapper 'valgrind -q --error-exitcode=99 --leak-check=full'

# libFuzzer is clang's, whatever the compiler of everything else.
fuzz-smoke: override CC := clang
fuzz-smoke: ## every fuzzing entry for FUZZ_S seconds (60), with sanitizers; minutes
	@CC=clang tools/setup fuzz
	$(call compile,$(BUILD)-fuzz,-Dfuzzer=true -Db_sanitize=address$(COMMA)undefined \
		$(SANITIZED),fuzz)
	@tools/fuzz --seconds $(FUZZ_S) $(BUILD)-fuzz $(ARGS)

sim: ## SEEDS seeds of the simulator (100,000), or SEED=n in detail
	$(call compile,$(BUILD),)
	@$(BUILD)/asyncpf sim $(if $(SEED),--seed $(SEED) --log,--seeds $(SEEDS)) $(ARGS)

mutants: ## defects planted in the shipped code, found by the simulator or by tests; minutes
	@tools/mutants --tree $(BUILD)-mutants $(ARGS)

model: ## the protocol's revisions in spin, every configuration: docs/model.md
	@tools/setup model
	@tools/model --out $(BUILD)-model $(ARGS)

tidy: ## the rules of the source tree
	@tools/tidy

bench: ## the benchmarks of bench/, with the promises they assert
	$(call compile,$(BUILD),)
	@tools/run-tests $(BUILD) --benchmark

bench-qemu: ## --net user beside QEMU's user network, in one lab: minutes
	@tools/setup qemu
	$(call compile,$(BUILD),)
	@bench/qemu_net.py --check $(ARGS) $(BUILD)

kvm-unit-tests: ## kernels of that suite, of the folder DIR
	$(call compile,$(BUILD),)
	@tools/kvm-unit-tests $(BUILD)/asyncpf \
		$(or $(DIR),$(error give DIR, the folder x86 of kvm-unit-tests)) $(ARGS)

lab: ## a shell in a Linux with real kvm_amd, in software emulation: docs/lab.md
	@tools/lab $(ARGS)

s3-test: ## page sources by S3, against Ceph's object gateway; a minute
	@tools/setup s3
	$(call compile,$(BUILD),)
	@tools/run-tests $(BUILD) --suite s3

lab-test: ## the tests in there: minutes
	@tools/setup test
	$(call compile,$(BUILD),)
	@tools/run-tests $(BUILD) --suite lab

lab-python: ## the Python tests of other suites in there; hours, less with ARGS=run-disk
	$(call compile,$(BUILD),)
	@tests/lab/python_in_lab.py $(BUILD) $(ARGS)

lab-bench: ## the benchmarks with a guest in there; an hour, less with ARGS=views
	$(call compile,$(BUILD),,all meson-benchmark-prereq)
	@tests/lab/python_in_lab.py $(BUILD) --benchmarks $(ARGS)

clean: ## remove what was built
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz $(BUILD)-model \
		$(BUILD)-deb $(BUILD)-deb-test

help: ## this list
	@echo 'make            build $(BUILD)/asyncpf'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | \
		while read -r verb what; do printf 'make %-10s %s\n' "$$verb" "$$what"; done

COMMA := ,
