#!/bin/sh
# Two exits of the testbed, one after the other; prints lmms-eval's row of each.
for exit in 0 default; do
  python -m lmms_eval --model openai --tasks layeralign_testbed --include_path . --batch_size 1 \
    --model_args "model_version=testbed@$exit,base_url=http://127.0.0.1:8001/v1,api_key=unused" 2>&1 |
    grep '^|layeralign' | sed "s/^/exit $exit: /"
done
