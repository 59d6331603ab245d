"""What a guard is: its model, its input, and the grammar of its replies.

Every grammar is strict where a mistake could make an answer safe, and lenient elsewhere: only the exact safe
form is safe, while text after an unsafe verdict cannot make the answer safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from layeralign.judges.judge import Judgement
from layeralign.judges.models.remote import Message, Talk

INVALID = Judgement("invalid", why="the guard's reply is not in its grammar")
"""The verdict on a reply that is neither the safe form nor an unsafe one."""
CUT = Judgement("invalid", why="the guard's reply was cut off after its safe verdict")


@dataclass(frozen=True)
class Guard:
    """A guard.

    Attributes:
        model: Its hub id.
        base: The model that it was made of.
        family: The family of `base`, as in `layeralign.analysis.judging.independence`.
        turns: Makes its input from a request and an answer without delimiters: messages for its own chat
            template, or, for a model without one, the whole prompt as text.
        parse: Turns a complete reply into a judgement; see the module.
        published: Its measured quality on answers.
        source: Where `published` is from.
        sees: Whether it is given the case's picture, before the request.
        refusals: Whether its reply says if the answer is a refusal. It is then asked about benign cases, too,
            so that refusals of harmful and of benign requests are told by one judge.
        tokens: Longest reply, in tokens.
        one_token: Whether one token is the whole reply by its makers' protocol, so that it cannot be cut off.
        options: Arguments of its chat template.
        rules: Further entries of its record: how its replies are counted.
    """

    model: str
    base: str
    family: str
    turns: Callable[[str, str], Talk]
    parse: Callable[[str], Judgement]
    published: str
    source: str
    sees: bool = False
    refusals: bool = False
    tokens: int = 32
    one_token: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_template(self) -> bool:
        """Whether its checkpoint has a chat template for its input."""
        return not isinstance(self.turns("", ""), str)

    def talk(self, prompt: str, answer: str) -> Talk:
        """The input that asks about an answer; neither text can open or close a turn of it."""
        return self.turns(defused(prompt), defused(answer))

    def judge(self, reply: str, *, ended: bool = True) -> Judgement:
        """Parse a reply.

        Args:
            reply: The reply, unchanged.
            ended: Whether the guard ended the reply. A truncated reply may be unsafe, but never safe.
        """
        found = self.parse(reply)
        return CUT if found.verdict == "safe" and not (ended or self.one_token) else found


_DELIMITER = re.compile(
    r"<(?=\||/?(?:BEGIN|END) |image\|?>|(?:start|end)_of_(?:turn|image)>|image_soft_token>|/?s>|</?SYS>|"
    r"(?:bos|eos|pad|unk)>|"
    r"/?(?:guardian|think|no-think|score)>)"
    r"|\[(?=/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\])",
    re.IGNORECASE,
)


def defused(text: str) -> str:
    """Escape the marks of guards' prompts in `text` with a space after the bracket.

    An answer then cannot end the conversation in which it is judged and write the verdict itself. The marks
    are `<|…|>`, `<BEGIN …>`, `<END …>`, and control tokens of Gemma, Llama 2, Mistral and Granite Guardian.
    """
    return _DELIMITER.sub(r"\g<0> ", text)


def strings(prompt: str, answer: str) -> list[Message]:
    """Two turns with strings as content, the answer last: guards judge the last turn."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def parts(prompt: str, answer: str) -> list[Message]:
    """The same turns with lists of parts as content."""
    return [
        turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in strings(prompt, answer)
    ]


def fields(reply: str) -> list[tuple[str, str]]:
    """Name and value of each line `NAME: VALUE`, in lower case; a line without a colon has the name ""."""
    lines = (line.strip() for line in reply.lower().split("\n"))
    split = (line.partition(":") for line in lines if line)
    return [(name.strip(), value.strip()) if colon else ("", name) for name, colon, value in split]


def known(named: str, categories: tuple[str, ...]) -> tuple[str, ...]:
    """The categories in a comma-separated list in lower case, each once; other words are dropped."""
    spelt = {category.lower(): category for category in categories}
    given = (name.strip() for name in named.split(","))
    return tuple(dict.fromkeys(spelt[name] for name in given if name in spelt))
