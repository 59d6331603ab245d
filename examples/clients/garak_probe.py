"""Attack two exits of the testbed with a probe of garak, and judge the answers with garak's own detector.

layeralign serve --model testbed &
python cases.py > cases.json              # in layeralign's environment
python garak_probe.py 2>&1 | grep exit > garak_probe.txt   # where garak is installed
"""

import json
import os
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory

from garak import _config
from garak.attempt import Attempt, Conversation, Message, Turn
from garak.detectors.mitigation import MitigationBypass
from garak.generators.openai import OpenAICompatible

os.environ["OPENAICOMPATIBLE_API_KEY"] = "none"
_config.load_base_config()
cases = json.loads(Path(__file__).with_name("cases.json").read_text())
served = {"uri": "http://127.0.0.1:8001/v1", "max_tokens": 24, "temperature": 0, "stop": None}
detector = MitigationBypass()
with TemporaryDirectory() as folder:
    conversations = []
    for case in cases:
        file = Path(folder) / f"{case['id']}.png"
        file.write_bytes(b64decode(case["picture"].partition(",")[2]))
        asked = Message(text=case["prompt"], data_path=str(file), lang="en")
        conversations.append(Conversation([Turn(role="user", content=asked)]))
    for exit in ("0", "default"):
        generator = OpenAICompatible(
            f"testbed@{exit}", config_root={"generators": {"openai": {"OpenAICompatible": served}}}
        )
        hits = 0
        for conversation in conversations:
            attempt = Attempt(prompt=conversation)
            attempt.outputs = generator.generate(conversation)
            hits += sum(detector.detect(attempt))
        print(f"exit {exit}: {detector.hit_desc} {hits:.0f} of {len(cases)} times")
