"""A, B and ours on one model and one set of cases: speed, tokens, and how far from the machine's limit."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from baselines import Answers, Harness, Loop
from rates import Rates, work
from watch import watched

import layeralign
from layeralign.decode.memory import PREFILL_TOKENS
from layeralign.runs import opening
from layeralign.vlm.vlm import Vlm

TIE = 1e-4
"""Logits that are nearer to each other than this may swap places between two ways to compute them."""


class Contest:
    """A, B, C and ours on one model and one set of cases."""

    def __init__(self, vlm: Vlm, cases: list, exits: list[int], longest: int, part: int) -> None:
        self.vlm, self.cases, self.exits, self.longest, self.part = vlm, cases, exits, longest, part
        self.rates = Rates()
        self.others = {"A": Loop(vlm.model, vlm.processor, 1), "B": Loop(vlm.model, vlm.processor, 8)}
        if not Harness.missing():
            self.others["C"] = Harness(vlm.checkpoint.path, vlm.model, len(cases))
        for other in self.others.values():
            other.answers(cases[:1], exits[-1:], 2)  # whatever is slow the first time
        self.speeds: dict[str, list[float]] = {name: [] for name in (*self.others, "ours")}
        self.seconds: dict[str, list[float]] = {}
        self.theirs: Answers = {}
        self.ours: Answers = {}
        self.tokens: dict[tuple[str, int], int] = {}

    def round(self, number: int) -> None:
        """Everyone once; the others at other exits than in the last round."""
        able = [exit for exit in self.exits if exit]
        asked = able[number :: len(able) // self.part][: self.part]
        self.rates.measure(self.vlm, PREFILL_TOKENS["cpu" if self.vlm.device.type == "cpu" else "cuda"])
        self._sweep()
        for name, other in self.others.items():
            start = time.perf_counter()
            made = other.answers(self.cases, asked, self.longest)
            took = time.perf_counter() - start
            self.speeds[name].append(sum(self.tokens[key] for key in made) / took)
            if name == "A":
                self.theirs |= {key: text.strip() for key, text in made.items()}
        told = {name: round(speeds[-1], 1) for name, speeds in self.speeds.items()}
        print(f"round {number}, tokens/s: {told}", file=sys.stderr)

    def _sweep(self) -> None:
        with TemporaryDirectory() as folder, watched(self.vlm) as watch:
            layeralign.scan(
                self.vlm, self.cases, Path(folder) / "run", exits=self.exits, max_new_tokens=self.longest
            )
            with opening.open_run(Path(folder) / "run") as run:
                rows = list(run.rows())
        self.ours = {(row["case"], row["exit"]): row["answer"] for row in rows}
        self.tokens = {(row["case"], row["exit"]): row["tokens"] for row in rows}
        self.engine = watch.engine
        self.speeds["ours"].append(sum(self.tokens.values()) / watch.seconds["all"])
        for part, spent in watch.seconds.items():
            self.seconds.setdefault(part, []).append(spent)

    # --- what came out

    def differences(self) -> list[tuple[str, int, int, float]]:
        """Case, exit, the token at which two answers part, and how far the best two logits are from each other."""
        found = []
        for (name, exit), text in self.theirs.items():
            if self.ours[name, exit] != text:
                found.append((name, exit, *self._gap(name, exit, text)))
        return found

    @torch.no_grad()
    def _gap(self, name: str, exit: int, text: str) -> tuple[int, float]:
        vlm = self.vlm
        case = next(case for case in self.cases if case.id == name)
        theirs, ours = (
            vlm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, self.ours[name, exit])
        )
        at = next(
            (n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
            min(len(theirs), len(ours)),
        )
        (feature,) = vlm.encode([case.picture.open()], [exit])[exit]
        prompt = vlm.tokens(vlm.prompt(case.prompt, picture=True), feature)
        line = torch.tensor([[*prompt, *theirs[:at]]], device=vlm.device)
        inside = torch.arange(line.shape[1], device=vlm.device)[None] < len(prompt)
        best = vlm.logits(vlm.hidden(line, inside, [feature])[:, -1])[0].topk(2).values
        return at, float(best[0] - best[1])

    def report(self, title: str) -> None:
        """As Markdown."""
        counts = self.engine.counts
        rows, tokens = len(self.ours), sum(self.tokens.values())
        print(f"\n## {title}\n")
        print(f"{len(self.cases)} cases of {len({c.picture.sha256 for c in self.cases})} pictures × {len(self.exits)} exits, "
              f"{rows} rows, {tokens / rows:.0f} tokens each; the others {len(self.speeds['A'])} rounds of "
              f"{len(self.cases)} × {self.part}\n")  # fmt: skip
        print(
            "| | tokens/s, median | slowest, fastest round | × A, paired | × B, paired |\n|---|---|---|---|---|"
        )
        for name, speeds in self.speeds.items():
            paired = (zip(speeds, self.speeds[other], strict=True) for other in "AB")
            by_a, by_b = (median(one / other for one, other in pairs) for pairs in paired)
            print(
                f"| {name} | {median(speeds):.1f} | {min(speeds):.1f}, {max(speeds):.1f} | {by_a:.2f} | {by_b:.2f} |"
            )
        if Harness.missing():
            print("\nC, the harness, is not installed here (`pip install lm-eval`).")
        differing = self.differences()
        ties = [one for one in differing if one[3] < TIE]
        print(f"\nTokens: {len(self.theirs) - len(differing)} of {len(self.theirs)} rows that A answered are the same; "
              f"{len(ties)} part at a tie (two best logits nearer than {TIE}), {len(differing) - len(ties)} else."
              f"{''.join(f' {n} exit {e}: token {t}, gap {g:.1e}.' for n, e, t, g in differing)}\n")  # fmt: skip
        print(f"Prompts: {counts.read} tokens read; {counts.read + counts.shared} if nothing were shared, "
              f"{(counts.read + counts.shared) / counts.read:.1f} × as many.\n")  # fmt: skip
        self._limits(rows, tokens // rows)

    def _limits(self, rows: int, answer: int) -> None:
        """Floors beside what was measured."""
        rates, counts = self.rates, self.engine.counts
        pictures = len({case.picture.sha256 for case in self.cases})
        prompt = (counts.read + counts.shared) // rows
        needs = work(self.vlm, pictures, self.exits, counts.read, rows, prompt, answer)
        spent = {part: median(all) for part, all in self.seconds.items()}
        print(f"This machine in this process: product of two square matrices {rates.square / 1e9:.0f} GFLOP/s; the language "
              f"model's linear layers alone, at the prefill's width, {rates.linears / 1e9:.0f} GFLOP/s; copy "
              f"{rates.copied / 1e9:.1f} GB/s.\n")  # fmt: skip
        print(
            "| part | GFLOP needed | floor, s | measured, s | of the square's rate | of the linear layers' rate |"
        )
        print("|---|---|---|---|---|---|")
        for part, flop, took in (
            ("encode", needs.encode, spent["encode"]), ("prefill", needs.prefill, spent["prefill"]),
            ("decode", needs.decode, spent["decode"]), ("all", needs.total, spent["all"]),
        ):  # fmt: skip
            print(f"| {part} | {flop / 1e9:.0f} | {flop / rates.square:.2f} | {took:.2f} "
                  f"| {100 * flop / took / rates.square:.0f} % | {100 * flop / took / rates.linears:.0f} % |")  # fmt: skip
        parameters = sum(p.nbytes for p in self.vlm.model.get_decoder().parameters())
        moved = self.engine.steps * parameters + rows * answer * (prompt + answer / 2) * self._column_bytes()
        print(f"\nDecoding reads the weights {self.engine.steps} times and keys and values once a token, "
              f"{moved / 1e9:.0f} GB: {moved / rates.copied:.2f} s at the copy's rate, "
              f"{100 * moved / rates.copied / spent['decode']:.0f} % of what it took.\n")  # fmt: skip
        around = [
            f"{part} {100 * spent[part] / spent['all']:.2f} %" for part in ("planning", "store", "judging")
        ]
        print(f"Around the model: {', '.join(around)} of the time.")

    def _column_bytes(self) -> int:
        text = self.vlm.model.config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return 2 * text.num_hidden_layers * text.num_key_value_heads * head * self.vlm.model.dtype.itemsize
