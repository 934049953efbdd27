# make demo, make test: all that a fresh Debian or Ubuntu with Rust needs.

CLIP := examples/bbb-360p.mp4
HASN := target/release/hasn
PACKAGES := gcc g++ libc6-dev pkg-config libclang-dev ffmpeg libavcodec-dev libavformat-dev libavutil-dev \
	libavfilter-dev libavdevice-dev libswscale-dev libswresample-dev

# apt-get is root's.
ROOT := $(shell [ $$(id -u) = 0 ] || echo sudo)

.PHONY: demo test test-cuda test-relay relay-packages test-slurm slurm-packages cuda-budget soak soak-smoke soak-fuzz \
	soak-relay soak-videos soak-files lint bench bench-peers kernels kernels-check gpu-pack pack-packages train-deps train-smoke \
	deps python

# The clip, twice as large by HASN and by bicubic, and a detail of both side by side.
demo: deps
	cargo build --release
	mkdir -p demo
	$(HASN) upscale -y $(CLIP) demo/bbb-720p-hasn.mp4
	ffmpeg -v error -y -i $(CLIP) -vf scale=1280:720:flags=bicubic -c:v libx264 -crf 18 -c:a copy \
		demo/bbb-720p-bicubic.mp4
	ffmpeg -v error -y -i demo/bbb-720p-bicubic.mp4 -i demo/bbb-720p-hasn.mp4 -filter_complex \
		"[0]crop=200:150:60:130,scale=iw*4:-1:flags=neighbor,pad=iw+8:ih:0:0:white[a]; \
		[1]crop=200:150:60:130,scale=iw*4:-1:flags=neighbor[b];[a][b]hstack" \
		-ss 0.4 -frames:v 1 -update 1 demo/side-by-side.png
	@echo
	@echo "The clip, 640x360 -> 1280x720:      demo/bbb-720p-hasn.mp4"
	@echo "A detail, left bicubic, right HASN: demo/side-by-side.png"

# Programs that start and streams that wait leave cores idle: two tests on each.
test: deps
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test

# The CUDA engine's tests on the emulated device, which are a part of `test`, once more watched by AddressSanitizer, which
# sees what reaches past shared memory.
test-cuda: deps
	HASN_EMULATED_ASAN=1 ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
		$$(cargo test -p hasn --lib --no-run --message-format=json 2>/dev/null | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') cuda:: --skip faults --skip budget --skip demand

# Relays for longer, among the programs of others, which it gets where they are missing, and through networks that lose.
# Streams take little of the machine: many run side by side.
RELAY_PACKAGES := nginx-light libnginx-mod-rtmp srt-tools nftables iproute2 gir1.2-gst-rtsp-server-1.0 python3-gi \
	gstreamer1.0-plugins-good
test-relay: relay-packages
	HASN_RELAY_SECONDS=20 HASN_RELAY_LOSSES=20 cargo test --test relay -- --test-threads 8

relay-packages: deps
	@dpkg -s $(RELAY_PACKAGES) >/dev/null 2>&1 \
		|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(RELAY_PACKAGES); }
	@command -v chromium >/dev/null || $(ROOT) apt-get install -q -y --no-install-recommends chromium \
		|| echo "chromium is not among the packages: the relay's page will not be opened"

# A video by Slurm on this machine, which gets it where it is missing, with the program as tests build it.
test-slurm: slurm-packages
	cargo build
	tests/slurm/run target/debug/hasn

slurm-packages: deps
	@command -v slurmctld >/dev/null && command -v munged >/dev/null \
	|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends slurm-wlm munge; }

# What a 1080p frame asks of a GPU, counted on the emulated device, and the least time that takes.
cuda-budget: deps
	cargo test -p hasn --lib cuda::budget -- --nocapture

lint: deps
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# A thousand damaged files, others each time, four hours of a small video from file to file and from pipe to pipe, half an
# hour of a relay, and ten minutes of each fuzz target.
SOAK_FILES ?= 1000
SOAK_S ?= 600
SOAK_FRAMES ?= 360000
SOAK_RELAY_S ?= 1800
SOAK_SEED := $(or $(SOAK_SEED),$(shell date +%s))
soak: soak-fuzz soak-relay soak-videos soak-files

soak-files: deps
	@echo "soak: to repeat the damaged files: HASN_DAMAGE_FILES=$(SOAK_FILES) HASN_DAMAGE_SEED=$(SOAK_SEED) cargo test --test video damage::"
	HASN_DAMAGE_FILES=$(SOAK_FILES) HASN_DAMAGE_SEED=$(SOAK_SEED) cargo test --test video damage::

soak-videos: deps
	HASN_SOAK_FRAMES=$(SOAK_FRAMES) cargo test --test video soak:: -- --nocapture

soak-relay: deps
	HASN_RELAY_SOAK_S=$(SOAK_RELAY_S) cargo test --test relay soak:: -- --nocapture

soak-fuzz: deps
	@command -v cargo-fuzz >/dev/null || cargo install --debug cargo-fuzz --version 0.13.1
	mkdir -p fuzz/corpus/weights fuzz/corpus/frames
	cp models/hasn-lite-x2.safetensors fuzz/corpus/weights/
	for clip in "h264.mkv -c:v libx264" "mpeg2.ts -c:v mpeg2video" "ffv1.mkv -c:v ffv1" "prores.mov -c:v prores_ks" \
		"png.mov -c:v png" "vp9.webm -c:v libvpx-vp9" "palette.gif -c:v gif"; do \
		ffmpeg -v error -y -f lavfi -i testsrc2=s=32x32:r=25 -frames:v 3 $${clip#* } fuzz/corpus/frames/$${clip%% *} || exit 1; \
	done
	for target in weights frames; do \
		cargo fuzz run -s none $$target -- -max_total_time=$(SOAK_S) || { \
		echo "soak: to repeat it: cargo fuzz run -s none $$target FILE, with the file that is named above"; exit 1; }; \
	done

# The same in minutes, with the same damaged files each time.
soak-smoke:
	$(MAKE) soak SOAK_FILES=20 SOAK_S=20 SOAK_SEED=2 SOAK_FRAMES=12000 SOAK_RELAY_S=60

# The network alone, one thread, in both precisions.
bench: deps
	cargo build --release
	$(HASN) bench --threads 1 --precision f32
	$(HASN) bench --threads 1

# Beside ONNX Runtime, OpenVINO and vs-mlrt. VapourSynth has wheels from Python 3.12 on; with an older one its part
# is skipped. TORCH=1 adds PyTorch, 5 GB.
bench-peers: deps python
	cargo build --release
	$(PYTHON) -m venv target/peers
	target/peers/bin/pip install -q -r examples/peers/requirements$(if $(TORCH),-torch).txt
	target/peers/bin/python examples/peers/network.py --json target/peers/network.json
	target/peers/bin/python examples/peers/pipeline.py --json target/peers/pipeline.json

# The CUDA kernels, compiled for every kind of GPU; a GPU is not needed. The outcome is a part of the tree.
kernels: target/kernels
	target/kernels/bin/python kernels/build.py

# Whether that outcome is of these sources.
kernels-check: target/kernels
	target/kernels/bin/python kernels/build.py --check

target/kernels: kernels/requirements.txt | python
	$(PYTHON) -m venv $@
	$@/bin/pip install -q -r $<
	touch $@

# One folder for a machine with a GPU and neither Rust nor FFmpeg, where gpu-check/run tells what only a GPU can.
PACK_PACKAGES := nasm dpkg-dev make patchelf libx264-dev libffmpeg-nvenc-dev
gpu-pack: pack-packages
	gpu-check/pack

pack-packages: deps
	@dpkg -s $(PACK_PACKAGES) >/dev/null 2>&1 \
		|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(PACK_PACKAGES); }

# PyTorch as training/ wants it: whole where there is a GPU, else without CUDA's libraries: 1.2 GB on disk instead of 5.
train-deps: target/train

target/train: training/requirements.txt training/without_cuda.py | deps python
	$(PYTHON) -m venv $@
	$@/bin/pip install -q --no-compile $$(command -v nvidia-smi >/dev/null || echo --no-deps) -r $<
	command -v nvidia-smi >/dev/null || $@/bin/python training/without_cuda.py
	touch $@

# Training tried: a tiny network on frames drawn for it, beside golden tensors, through every codec.
train-smoke: target/train
	target/train/bin/python training/tests.py

# The first that runs and makes environments: a version manager may list ones that do not.
PYTHON = $(shell for python in python3.12 python3.13 $(HOME)/.pyenv/versions/3.12.*/bin/python3 python3; do \
	$$python -c "import ensurepip" 2>/dev/null && echo $$python && break; done)

python:
	@[ -n "$(PYTHON)" ] || { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y python3-venv; }

# FFmpeg with its headers, and libclang to read them. Nothing is installed where all is there.
deps:
	@pkg-config --exists libavcodec libavformat libavutil libavfilter libavdevice libswscale libswresample 2>/dev/null \
		&& command -v ffmpeg >/dev/null && command -v gcc >/dev/null && command -v g++ >/dev/null \
		&& ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 \
	|| { $(ROOT) apt-get update -q && $(ROOT) apt-get install -q -y --no-install-recommends $(PACKAGES); }
