# `make demo` and `make test` install what they need on a fresh Debian or Ubuntu with Rust. docs/development.md lists the rest.

CLIP := examples/bbb-360p.mp4
HASN := target/release/hasn
PACKAGES := gcc g++ libc6-dev pkg-config libclang-dev ffmpeg libavcodec-dev libavformat-dev libavutil-dev \
	libavfilter-dev libavdevice-dev libswscale-dev libswresample-dev

# apt-get needs root.
ROOT := $(shell [ $$(id -u) = 0 ] || echo sudo)

.PHONY: demo test test-ffmpeg print-packages test-cuda test-relay relay-packages test-slurm slurm-packages \
	cuda-budget soak soak-smoke soak-fuzz soak-relay soak-relay-hours soak-videos soak-files soak-faults soak-sweeps \
	soak-walk lint public-api public-api-check package bench bench-peers simulate-cores kernels kernels-check gpu-pack \
	pack-packages train-deps train-smoke deps python

# Upscales the clip by HASN and by bicubic and shows a detail of both side by side.
demo: deps
	cargo build --release
	mkdir -p demo
	$(HASN) upscale -y $(CLIP) demo/bbb-720p-hasn.mp4
	ffmpeg -v error -y -i $(CLIP) -vf scale=1280:720:flags=bicubic -c:v libx264 -crf 18 -c:a copy \
		demo/bbb-720p-bicubic.mp4
	ffmpeg -v error -y -i demo/bbb-720p-bicubic.mp4 -i demo/bbb-720p-hasn.mp4 -filter_complex \
		"[0]crop=160:120:257:42,scale=iw*4:-1:flags=neighbor,pad=iw+8:ih:0:0:white[a]; \
		[1]crop=160:120:257:42,scale=iw*4:-1:flags=neighbor[b];[a][b]hstack" \
		-ss 3.6 -frames:v 1 -update 1 demo/side-by-side.png
	@echo
	@echo "The clip, 640x360 -> 1280x720:      demo/bbb-720p-hasn.mp4"
	@echo "A detail, bicubic left, HASN right: demo/side-by-side.png"

# Tests start programs and wait for streams, which leaves cores idle: two tests run on each core.
test: deps
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test

# Builds against other versions of FFmpeg, in chroots of the Debian releases that have them, and runs the tests of files there.
FFMPEG_SUITES ?= trixie forky
test-ffmpeg: deps
	@command -v mmdebstrap >/dev/null \
		|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends mmdebstrap; }
	$(ROOT) env "PATH=$$PATH" "HOME=$$HOME" tests/ffmpeg/run $(FFMPEG_SUITES)

print-packages:
	@echo $(PACKAGES)

# The CUDA engine's tests on the emulated device, which `test` runs as well, under AddressSanitizer: it reports accesses past
# shared memory.
test-cuda: deps
	HASN_EMULATED_ASAN=1 ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
		$$(cargo test -p hasn --lib --no-run --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') cuda:: --skip faults --skip budget --skip demand

# Long relay tests against nginx, srt-live-transmit and GStreamer, which it installs, and through lossy networks. Streams
# need little CPU time, so eight tests run at once.
RELAY_PACKAGES := nginx-light libnginx-mod-rtmp srt-tools nftables iproute2 gir1.2-gst-rtsp-server-1.0 python3-gi \
	gstreamer1.0-plugins-good
test-relay: relay-packages
	HASN_RELAY_SECONDS=20 HASN_RELAY_LOSSES=20 cargo test --test relay -- --test-threads 8

relay-packages: deps
	@dpkg -s $(RELAY_PACKAGES) >/dev/null 2>&1 \
		|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(RELAY_PACKAGES); }
	@command -v chromium >/dev/null || $(ROOT) apt-get install -q -y --no-install-recommends chromium \
		|| echo "chromium is not available: the status page is not tested in a browser"

# Upscales a video as a Slurm job array on this machine; installs Slurm.
test-slurm: slurm-packages
	cargo build
	tests/slurm/run target/debug/hasn

slurm-packages: deps
	@command -v slurmctld >/dev/null && command -v munged >/dev/null \
	|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends slurm-wlm munge; }

# Counts what a 1080p frame needs of a GPU on the emulated device, and the least time that takes.
cuda-budget: deps
	cargo test -p hasn --lib cuda::budget -- --nocapture

lint: deps
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# docs/public-api.txt: the library's public items. `public-api` writes it, `public-api-check` fails where it differs from the
# source. The JSON of rustdoc is not stable yet, so that a stable compiler has to be asked for it in this way.
PUBLIC_API = RUSTC_BOOTSTRAP=1 cargo rustdoc --lib --target-dir target/public-api -- -Z unstable-options \
	--output-format json && HASN_RUSTDOC_JSON=$(CURDIR)/target/public-api/doc/hasn.json

public-api: deps
	$(PUBLIC_API) HASN_PUBLIC_API_UPDATE=1 cargo test --test public_api listing

public-api-check: deps
	$(PUBLIC_API) cargo test --test public_api

# The crates as a registry gets them, hasn built from its package. Cargo keeps what it has unpacked of an earlier
# hasn-kernels of the same version, even if that was another.
package: deps
	rm -rf "$${CARGO_HOME:-$$HOME/.cargo}"/registry/src/-*/hasn-kernels-*
	cargo publish --dry-run --workspace

# A thousand damaged files (new ones in each run), every call on a file that fails in turn, four hours of a small video from
# file to file and from pipe to pipe, half an hour of a relay, and ten minutes of each fuzz target.
SOAK_FILES ?= 1000
SOAK_S ?= 600
SOAK_FRAMES ?= 360000
SOAK_RELAY_S ?= 1800
SOAK_FAULTS ?= all
SOAK_PAIRS ?= 500
SOAK_KILLS ?= 200
SOAK_WALKS ?= 500
SOAK_SEED := $(or $(SOAK_SEED),$(shell date +%s))
soak: soak-fuzz soak-relay soak-videos soak-files soak-faults soak-sweeps soak-walk

soak-files: deps
	@echo "soak: to repeat with the same damaged files: HASN_DAMAGE_FILES=$(SOAK_FILES) HASN_DAMAGE_SEED=$(SOAK_SEED) cargo test --test video damage::"
	HASN_DAMAGE_FILES=$(SOAK_FILES) HASN_DAMAGE_SEED=$(SOAK_SEED) cargo test --test video damage::

# Every call of short runs fails in turn; 500 runs with a fault and a kill; 200 kills on each of three file systems.
soak-faults: deps
	HASN_FAULT_CALLS=$(SOAK_FAULTS) HASN_FAULT_PAIRS=$(SOAK_PAIRS) HASN_FAULT_KILLS=$(SOAK_KILLS) \
		HASN_FAULT_SEED=$(SOAK_SEED) cargo test --test faults -- --nocapture

# Every combination of the sweeps, of which `make test` tries a sample: codecs, containers, languages, layouts, names.
soak-sweeps: deps
	HASN_SWEEP=all cargo test --test video --test relay sweep -- --nocapture

# Inputs of random containers, codecs, layouts, languages and cuts, compared with FFmpeg's own remux.
soak-walk: deps
	HASN_WALK_RUNS=$(SOAK_WALKS) HASN_WALK_SEED=$(SOAK_SEED) cargo test --test video walk:: -- --nocapture

soak-videos: deps
	HASN_SOAK_FRAMES=$(SOAK_FRAMES) cargo test --test video soak:: -- --nocapture

soak-relay: deps
	HASN_RELAY_SOAK_S=$(SOAK_RELAY_S) cargo test --test relay soak:: -- --nocapture

# Two hours of a relay from SRT to RTMP, HLS, a file and UDP, with faults by schedule. No part of `soak`.
HASN_RELAY_HOURS_S ?= 7200
soak-relay-hours: deps
	HASN_RELAY_HOURS_S=$(HASN_RELAY_HOURS_S) cargo test --test relay hours:: -- --nocapture

# AddressSanitizer needs a nightly toolchain. It checks all of hasn's accesses, and FFmpeg's copies and frees.
FUZZ := $(if $(shell rustup toolchain list 2>/dev/null | grep ^nightly),cargo +nightly fuzz run,cargo fuzz run -s none)
soak-fuzz: deps
	@command -v cargo-fuzz >/dev/null || cargo install --debug cargo-fuzz --version 0.13.1
	mkdir -p fuzz/corpus/weights fuzz/corpus/frames fuzz/corpus/job
	cp models/hasn-lite-x2.safetensors fuzz/corpus/weights/
	for clip in "h264.mkv -c:v libx264" "mpeg2.ts -c:v mpeg2video" "ffv1.mkv -c:v ffv1" "prores.mov -c:v prores_ks" \
		"png.mov -c:v png" "vp9.webm -c:v libvpx-vp9" "palette.gif -c:v gif"; do \
		ffmpeg -v error -y -f lavfi -i testsrc2=s=32x32:r=25 -frames:v 3 $${clip#* } fuzz/corpus/frames/$${clip%% *} || exit 1; \
	done
	cp fuzz/corpus/frames/*.* fuzz/corpus/job/
	for clip in "aac.mp4 -c:a aac" "mp3.avi -c:a mp3" "mp2.ts -c:a mp2" "opus.mkv -c:a libopus" "wma.asf -c:a wmav2"; do \
		ffmpeg -v error -y -f lavfi -i testsrc2=s=32x32:r=25 -f lavfi -i sine -t 0.2 -c:v mpeg4 $${clip#* } \
		fuzz/corpus/job/$${clip%% *} || exit 1; \
	done
	for target in weights frames job; do \
		$(FUZZ) $$target -- -max_total_time=$(SOAK_S) -rss_limit_mb=8192 || { \
		echo "soak: to repeat it: $(FUZZ) $$target FILE, with the file that is named above"; exit 1; }; \
	done

# The soak tests in minutes, with the same damaged files in each run.
soak-smoke:
	$(MAKE) soak SOAK_FILES=20 SOAK_S=20 SOAK_SEED=2 SOAK_FRAMES=12000 SOAK_RELAY_S=60 SOAK_FAULTS=20 SOAK_PAIRS=20 \
		SOAK_KILLS=20 SOAK_WALKS=60

# The speed of the network alone, one thread, in f32 and in the default precision.
bench: deps
	cargo build --release
	$(HASN) bench --threads 1 --precision f32
	$(HASN) bench --threads 1

# Measures a frame on one core and simulates it, and frames side by side, on 2 to 64 cores.
simulate-cores: deps
	cargo test --release -p hasn --lib cores::more_cores -- --ignored --nocapture

# Compares with ONNX Runtime, OpenVINO and vs-mlrt: versions, instruction sets, outputs that are off, times. VapourSynth
# needs Python 3.12 or newer and is skipped without it. TORCH=1 adds PyTorch (5 GB). BUSY=1 measures beside other programs
# as well.
bench-peers: deps python
	cargo build --release
	$(PYTHON) -m venv target/peers
	target/peers/bin/pip install -q -r examples/peers/requirements$(if $(TORCH),-torch).txt
	target/peers/bin/python examples/peers/network.py $(if $(BUSY),--busy) --json target/peers/network.json
	target/peers/bin/python examples/peers/pipeline.py $(if $(BUSY),--busy) --json target/peers/pipeline.json

# Compiles the CUDA kernels for every supported GPU into kernels/hasn.cubins, which is committed. Needs no GPU.
kernels: target/kernels
	target/kernels/bin/python kernels/build.py

# Checks that kernels/hasn.cubins was compiled from these sources.
kernels-check: target/kernels
	target/kernels/bin/python kernels/build.py --check

target/kernels: kernels/requirements.txt | python
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -r $<
	touch $@

# Packs target/hasn-gpu-check for a machine with a GPU and neither Rust nor FFmpeg; its `run` tests what needs a GPU.
PACK_PACKAGES := nasm dpkg-dev make patchelf libx264-dev libffmpeg-nvenc-dev
gpu-pack: pack-packages
	gpu-check/pack

pack-packages: deps
	@dpkg -s $(PACK_PACKAGES) >/dev/null 2>&1 \
		|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(PACK_PACKAGES); }

# PyTorch for training/: with CUDA's libraries (5 GB) where there is a GPU, without them (1.2 GB) elsewhere.
train-deps: target/train

target/train: training/requirements.txt training/without_cuda.py | deps python
	$(PYTHON) -m venv $@
	$@/bin/pip install -q --no-compile $$(command -v nvidia-smi >/dev/null || echo --no-deps) -r $<
	command -v nvidia-smi >/dev/null || $@/bin/python training/without_cuda.py
	touch $@

# Tests training/: a tiny network on drawn images, golden tensors, every codec and degradation.
train-smoke: target/train
	target/train/bin/python -m unittest discover -v -s training -p "test*.py"

# The first Python that can create virtual environments: version managers list some that cannot.
PYTHON = $(shell for python in python3.12 python3.13 $(HOME)/.pyenv/versions/3.12.*/bin/python3 python3; do \
	$$python -c "import ensurepip" 2>/dev/null && echo $$python && break; done)

python:
	@[ -n "$(PYTHON)" ] || { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y python3-venv; }

# FFmpeg with its headers, and libclang for bindgen. Installs nothing where all of it is present.
deps:
	@pkg-config --exists libavcodec libavformat libavutil libavfilter libavdevice libswscale libswresample 2>/dev/null \
		&& command -v ffmpeg >/dev/null && command -v gcc >/dev/null && command -v g++ >/dev/null \
		&& ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 \
	|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(PACKAGES); }
