# Lacuna: the front door. Everything here is one line and done elsewhere (tools/, CMakePresets.json).

# What the demo runs; any of these can be given on the command line: make demo METHODS=streamingllm
MODEL   ?= models/smollm2-135m-instruct.gguf
TEXT    ?= models/texts/demo.txt
METHODS ?= streamingllm,xattention,sampleattention
# A file with the question; of the demo's own text unless another text is named.
ifeq ($(TEXT),models/texts/demo.txt)
QUESTION?= models/texts/demo_question.txt
endif
ask = $(if $(QUESTION),"$$(cat '$(QUESTION)')",'Summarise the text.')
# What the demo must fetch: nothing when model and text are the user's.
wanted = $(strip $(if $(filter models/smollm2-135m-instruct.gguf,$(MODEL)),smollm2) \
  $(if $(filter models/texts/%,$(TEXT) $(QUESTION)),texts))

.NOTPARALLEL:
.PHONY: help setup check-setup llama models demo-model build demo check check-fast check-full check-torch clean

help:
	@echo 'make demo        install what is missing, build, compare methods with dense on a small model'
	@echo 'make check       install what is missing, build, run all tests (make check-fast: no sanitizers)'
	@echo 'make check-full  the long run of the tests: every seed of several, products where pairs are the rule'
	@echo 'make check-torch build the Python package, install it into .venv beside PyTorch, run its tests'
	@echo 'make build       leave build/release/lacuna and build/release/liblacuna-ggml.so'
	@echo 'make setup       install missing tools and libraries'
	@echo 'make llama       find llama.cpp, or build one into the cache'
	@echo 'make models      fetch the small models and the texts into models/'
	@echo 'make clean       remove build/ (models and the cache stay)'
	@echo
	@echo 'make demo takes MODEL=file.gguf TEXT=file.txt QUESTION=file.txt METHODS=a,b,c'

setup:
	@tools/setup.sh

check-setup:
	@tools/setup.sh --check

llama: setup
	@tools/get_llama.sh > /dev/null

models: setup
	@python3 tools/get_models.py

demo-model: setup
	@$(if $(wanted),python3 tools/get_models.py $(wanted))

build: setup
	@dir=$$(tools/get_llama.sh) && LLAMA_DIR=$$dir tools/build.sh release

demo: build demo-model
	build/release/lacuna compare -m '$(MODEL)' -f '$(TEXT)' -p $(ask) --methods '$(METHODS)'

check: check-setup demo-model
	@dir=$$(tools/get_llama.sh) && LLAMA_DIR=$$dir tools/check.sh

check-full: check-setup demo-model
	@dir=$$(tools/get_llama.sh) && LLAMA_DIR=$$dir tools/check_full.sh

check-fast: check-setup demo-model
	@dir=$$(tools/get_llama.sh) && LLAMA_DIR=$$dir tools/check.sh --fast

check-torch: setup
	@tools/check_torch.sh

clean:
	rm -rf build
