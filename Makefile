# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# What reports of measurements say of it: results that they have left are no changes.
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(shell git status --porcelain -- . ':!perf/results' 2>/dev/null | sed -n '1s/.*/+/p')
LDFLAGS := -s -w -X main.version=$(VERSION) -X weir/perf/measure.commit=$(COMMIT)

# Packages that the race detector is run on as well: all but those whose tests
# mostly start weir as a process of its own.
RACE_PACKAGES = $(shell go list ./... | grep -v -e /cmd/ -e /lab/e2e -e /perf)

# Packages whose tests send more traffic than two of them could at a time. They
# mostly wait, four tests at a time, so all others have their turn beside them.
LAB_PACKAGES = weir/lab/e2e weir/lab/clab weir/lab/demo weir/perf/wire weir/perf/flood weir/perf/checks
OTHER_PACKAGES = $(filter-out $(LAB_PACKAGES),$(shell go list ./...))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/weir and bin/weirlab, static and without cgo
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/weir ./cmd/weirlab

.PHONY: demo
demo: deps build ## watch two weirs serve a web site behind a BGP router (root, half a minute)
	@bin/weirlab demo --weir bin/weir

.PHONY: deps
deps: ## install what tests and code generation need (Debian, root)
	@scripts/deps

.PHONY: test
test: deps build lint ## run all tests: unit, race detector, lab (root; unprivileged, the lab skips)
	@scripts/both 'go test -count=1 -timeout 20m -p 1 -parallel 4 $(LAB_PACKAGES)' \
		'go test -count=1 -timeout 20m $(OTHER_PACKAGES) && go test -count=1 -timeout 20m -race -short $(RACE_PACKAGES)'

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

BENCHTIME ?= 1s
.PHONY: bench
bench: ## run every benchmark for BENCHTIME (default 1s): parse, look-up, forward in each mode, and others
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $$(git grep -l '^func Benchmark' -- '*_test.go' | xargs -n 1 dirname | sort -u | sed 's|^|./|')

.PHONY: perf
perf: deps build ## measure weir beside what one would pick instead (root, two idle cores, an hour or more)
	@bin/weirlab perf all

# Charts that are there are drawn again.
.PHONY: perf-page
perf-page: ## write tables and charts into the pages, from the results they name
	go run ./cmd/weirlab perf page README.md perf/README.md $(patsubst %.svg,%.json,$(wildcard perf/results/*.svg))

.PHONY: perf-ipvs
perf-ipvs: build ## measure beside IPVS in the appliance's kernel, emulated (root, Debian, ten minutes)
	@scripts/perf-ipvs

FUZZTIME ?= 2m
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 2m) each
	@scripts/fuzz $(FUZZTIME)

.PHONY: generate
generate: ## compile the BPF programs and write their Go bindings (needs clang)
	go generate ./...

.PHONY: check-generated
check-generated: generate ## fail if the committed BPF objects differ from their source
	@git diff --exit-code --stat -- '*_bpfel.go' '*_bpfel.o' || { echo "commit what make generate has made"; exit 1; }

.PHONY: package
package: ## build .deb and .rpm for this architecture into bin/package
	@scripts/package

.PHONY: test-package
test-package: deps ## install, run, upgrade, remove and purge the packages in a Debian of their own (root, two minutes)
	@scripts/test-package

WEIR_IMAGE ?= weir:dev
.PHONY: image
image: build ## build the container image weir:dev, from scratch (docker or podman)
	@rm -rf bin/image && mkdir -p bin/image && cp bin/weir bin/image/
	@$$(command -v docker || command -v podman || echo docker) build --quiet --tag $(WEIR_IMAGE) --file lab/containerlab/Dockerfile bin/image

.PHONY: test-containerlab
test-containerlab: ## deploy, check and destroy the labs with containerlab and Docker (root, six minutes the first time, then two)
	@scripts/test-containerlab

.PHONY: appliance
appliance: ## build a bootable disk image, raw and qcow2, and its update into bin/appliance (root, Debian, two minutes)
	@scripts/appliance

.PHONY: test-appliance
test-appliance: ## boot the appliance in an emulated machine, cut its power, update it (root, a quarter of an hour)
	@scripts/test-appliance

.PHONY: release
release: ## build binaries and packages for amd64 and arm64, checksums and SBOM into bin/release
	@scripts/release

.PHONY: test-arm64
test-arm64: ## run the unit tests of the arm64 build under qemu-user (ten minutes)
	@scripts/test-arm64

.PHONY: clean
clean: ## remove what make has built
	rm -rf bin
