"""Print the testbed's first harmful dev cases, with their pictures as data URLs, for the other scripts."""

import json

from layeralign.cases.pictures import data_url
from layeralign.testbed.cases import cases

harmful = [case for case in cases("dev", 80) if case.kind == "harmful"]
print(
    json.dumps(
        [{"id": c.id, "prompt": c.prompt, "picture": data_url(c.picture.open(), "PNG")} for c in harmful]
    )
)
