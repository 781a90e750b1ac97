# SPDX-License-Identifier: MIT
# Thin: meson builds. Every target works in a fresh clone.
#
#   make               build into build/
#   make test          install what is missing, build, run every test
#   make demo          install what is missing, build, show it all on a real guest
#   make bench         the speed figures
#   make bench-estimators   working-set estimators beside the truth
#   make install       (DESTDIR and PREFIX as usual)
BUILD := build
PREFIX ?= /usr/local

.PHONY: all deps test demo bench bench-estimators check-format tidy install clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup --prefix=$(PREFIX) $(BUILD)

deps:
	scripts/install-deps.sh

test: deps
	tests/run

check-format tidy: all
	tests/run --checks --only $(subst tidy,clang-tidy,$(subst check-format,clang-format,$@))

demo: deps all
	demo/run

bench: deps all
	bench/run

bench-estimators: deps all
	bench/bench_estimators.py --build $(BUILD) $(ARGS)

install: all
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD)
