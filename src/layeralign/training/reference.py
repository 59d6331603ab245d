"""The reference policy's answers at its default exit, and the answers that supervised baselines learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign._util import files
from layeralign._util.progress import Progress
from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.training.data.features import Features
from layeralign.training.data.rollout import answers
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.state.record import REFERENCE

STOCK_REFUSAL = "I'm sorry, but I can't help with that."
CHUNK = 64
"""Cases whose reference answers are generated, and scored, together."""


class ReferenceAnswers:
    """Greedy answers of the reference policy at its default exit, each generated once."""

    def __init__(self, policy: Policy, features: Features, decoding: Decoding) -> None:
        self._policy, self._features, self._decoding = policy, features, decoding
        self._tokens: dict[str, list[int]] = {}
        self.chunks: list[Sequence[Case]] = []
        """The cases with answers, in the chunks in which these were generated."""

    def make(self, cases: Sequence[Case], workers: Workers, out: Path) -> None:
        """Generate the answers that are missing in `out`; call it once, before training.

        The batches depend on the cases alone, in their order. The file in `out` is for a resumed or continued
        training, and only its owner can read it.
        """
        file = out / REFERENCE
        if file.exists():
            self._tokens = files.read_tokens(file)
        self.chunks = [cases[at : at + CHUNK] for at in range(0, len(cases), CHUNK)]
        missing = [one for one in self.chunks if any(case.id not in self._tokens for case in one)]
        if not missing:
            return
        chunks = workers.share(missing)
        made: list[tuple[str, list[int]]] = []
        with Progress("reference answers", sum(map(len, chunks)), speaks=workers.main) as progress:
            for chunk in chunks:
                made += self._answer(chunk)
                progress.advance(len(chunk))
        self._tokens |= dict(workers.gather(made))
        if workers.main:
            files.write_tokens(file, self._tokens)
        workers.wait()

    def _answer(self, chunk: Sequence[Case]) -> list[tuple[str, list[int]]]:
        vlm = self._policy.vlm
        rows = [(case, vlm.exits.default) for case in chunk]
        with self._policy.reference():
            features = [self._features.of(row) for row in rows]
            made = answers(vlm, rows, features, self._decoding, batch_size=CHUNK)
        return [(case.id, answer.tokens) for case, answer in zip(chunk, made, strict=True)]

    def tokens(self, case: Case) -> list[int]:
        """Return the answer's token ids, with the end token if the answer has one."""
        return self._tokens[case.id]


def right_answer(policy: Policy, case: Case, reference: ReferenceAnswers) -> list[int]:
    """Return the answer that supervised baselines learn: the case's own reference, if it has one.

    Otherwise it is STOCK_REFUSAL for a harmful case, and the reference policy's answer for any other case.
    """
    if case.reference is not None:
        return _tokens(policy, case.reference)
    return stock_refusal(policy) if case.kind == "harmful" else reference.tokens(case)


def stock_refusal(policy: Policy) -> list[int]:
    """Return the token ids of STOCK_REFUSAL, with an end token."""
    return _tokens(policy, STOCK_REFUSAL)


def _tokens(policy: Policy, text: str) -> list[int]:
    ids = policy.vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    suppressed = set(policy.vlm.unsayable)  # usually the token of unknown words
    return [*(token for token in ids if token not in suppressed), min(policy.vlm.eos_tokens)]
