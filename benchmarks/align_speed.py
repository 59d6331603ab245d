"""One L-PPO step against a plain implementation of the same step: how many times faster.

    python benchmarks/align_speed.py
    python benchmarks/align_speed.py --model natural --dtype bfloat16 --rows 24 --epochs 1 --steps 6

Plain means what one gets from putting PPO around a VLM without thinking of its parts: three models (policy
with LoRA, a reference, a value model), `generate` and every forward pass fed with pixels, so that the
encoder runs each time, and logits of the whole sequence. It does the same updates: the same rows at one
exit (it cannot mix them), the same number of sampled tokens on average, epochs, losses and learning rate.
The two alternate; times are medians over the steps after the first.

The floor is the time of the matrix products that no implementation avoids, at the rate of the model's own
MLP layers on as many tokens: each prompt and answer once for sampling, once for the reference policy, and per
epoch once forward and once back, and the head at the answers' tokens. Attention and the encoder count nothing.
"""

import argparse
import copy
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import layeralign
from layeralign import benchmarks
from layeralign.decode.prompts import ended, prompt_tokens, text
from layeralign.rewards.reward import load_reward
from layeralign.training import ppo
from layeralign.training.data.batches import Batches
from layeralign.training.data.exit_mix import ExitMix
from layeralign.training.data.features import Features
from layeralign.training.lppo import Lppo
from layeralign.training.modules import linear_layers
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.reference import ReferenceAnswers
from layeralign.training.settings import AlignSettings
from layeralign.vlm.vlm import Vlm

EXIT = 1


class Plain:
    """PPO with three models and pixels everywhere."""

    def __init__(self, model: str, dtype: str, settings: AlignSettings, cases: list, reward: object) -> None:
        self.vlm = layeralign.load(model, dtype=dtype)
        self.settings, self.reward = settings, reward
        self.batches = Batches(cases, settings, self.vlm.exits.default)
        self.mix = ExitMix.parse(self.vlm.exits, settings.exits, settings.mix)
        self.reference = copy.deepcopy(self.vlm.model)
        self.critic = copy.deepcopy(self.vlm.model)
        for one in (self.vlm.model, self.reference, self.critic):
            one.config.vision_feature_layer = EXIT
        config = LoraConfig(
            r=settings.rank, lora_alpha=2 * settings.rank, target_modules=linear_layers(self.vlm, "language")
        )
        self.policy = get_peft_model(self.vlm.model, config)
        self.critic = get_peft_model(self.critic, config)
        self.head = nn.Linear(self.vlm.text_width, 1)
        self.parameters = [
            p for m in (self.policy, self.critic, self.head) for p in m.parameters() if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=0.0)

    def step(self, number: int) -> None:
        """One step: rows, answers, scores, log-probs and values three times over, updates."""
        settings, vlm = self.settings, self.vlm
        rows = self.batches.draw(number, self.mix).trained
        asked = [case for case, _ in rows]
        images = [case.picture.open() for case in asked]
        turns = [vlm.prompt(case.prompt, picture=True) for case in asked]
        prompt = vlm.processor(images=images, text=turns, return_tensors="pt", padding=True, padding_side="left",
                               add_special_tokens=True)  # fmt: skip
        with torch.no_grad():
            whole = self.policy.generate(**prompt, max_new_tokens=settings.max_new_tokens, do_sample=True, top_k=0,
                                         pad_token_id=vlm.pad_token, suppress_tokens=vlm.unsayable)  # fmt: skip
            start = prompt["input_ids"].shape[1]
            answers = [ended(vlm, line)[0] for line in whole[:, start:].tolist()]
            scores = self.reward.score(asked, [text(vlm, answer) for answer in answers])
            mask = ppo.answer_mask(torch.tensor([len(a) for a in answers]), whole.shape[1] - start)
            inside = torch.cat([prompt["attention_mask"], mask.long()], 1)
            batch = {"input_ids": whole, "attention_mask": inside, "pixel_values": prompt["pixel_values"]}
            said = whole[:, start:]
            old = self.log_probs(self.policy, batch, start, said)
            reference = self.log_probs(self.reference, batch, start, said)
            old_values = self.values(batch, start)
            kl = ppo.kl_estimate(old, reference)
            advantages, returns = ppo.gae(ppo.token_rewards(scores, kl, mask, settings.kl_coef), old_values, mask,
                                          settings.gamma, settings.lam)  # fmt: skip
            advantages = ppo.whiten(advantages, mask)
        for _ in range(settings.epochs):
            new, values = self.log_probs(self.policy, batch, start, said), self.values(batch, start)
            policy = ppo.policy_loss(new, old, advantages, settings.clip)
            value = ppo.value_loss(values, old_values, returns)
            (ppo.masked_sum(policy + settings.value_coef * value, mask) / mask.sum()).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def log_probs(self, model: nn.Module, batch: dict, start: int, said: torch.Tensor) -> torch.Tensor:
        """Of the answers' tokens, by a whole forward pass."""
        logits = model(**batch).logits[:, start - 1 : -1]
        return ppo.token_log_probs(logits, said)

    def values(self, batch: dict, start: int) -> torch.Tensor:
        """Of the answers' states, by a whole forward pass of the critic."""
        hidden = self.critic(**batch, output_hidden_states=True).hidden_states[-1][:, start - 1 : -1]
        return self.head(hidden.float()).squeeze(-1)


def ours(
    model: str, dtype: str, settings: AlignSettings, cases: list, reward: object, folder: Path
) -> tuple[Lppo, float]:
    """A training that is ready to step, and the seconds that its reference answers and their scores took."""
    vlm = layeralign.load(model, dtype=dtype)
    policy = Policy(vlm, settings.rank, settings.seed)
    mix = ExitMix.parse(vlm.exits, settings.exits, settings.mix)
    features = Features(vlm, cases, mix.exits)
    reference = ReferenceAnswers(policy, Features(vlm, cases, [vlm.exits.default]), settings.decoding())
    batches = Batches(cases, settings, vlm.exits.default)
    lppo = Lppo(policy, batches, features, reference, mix, settings, Workers(), reward)
    began = time.perf_counter()
    lppo.begin(folder)
    return lppo, time.perf_counter() - began


def floor(vlm: Vlm, settings: AlignSettings, tokens: int, answered: int) -> float:
    """Seconds of the matrix products of a step whose prompts and answers have so many tokens."""
    decoder, mlp = vlm.model.get_decoder(), vlm.model.get_decoder().layers[0].mlp
    weights = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, nn.Linear))
    head = vlm.model.get_output_embeddings().weight.numel()
    passes = 2 + 2 * settings.epochs
    rows = torch.randn(tokens, mlp.up_proj.in_features, dtype=vlm.model.dtype)
    took = []
    with torch.no_grad():
        for _ in range(20):
            start = time.perf_counter()
            mlp.up_proj(rows)
            took.append(time.perf_counter() - start)
    return min(took) / mlp.up_proj.weight.numel() * passes * (weights + head * answered / tokens)


def main() -> None:
    """Alternate the two, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=AlignSettings.epochs)
    parser.add_argument("--model", default="testbed", choices=("testbed", "natural"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--cases", type=int, default=240, help="as many as are drawn twice or more, as in a training"
    )
    arguments = parser.parse_args()
    settings = AlignSettings(
        exits=str(EXIT), rows=arguments.rows, retention_share=0, max_new_tokens=24, steps=arguments.steps,
        epochs=arguments.epochs,
    )  # fmt: skip
    model, dtype = arguments.model, arguments.dtype
    cases = benchmarks.cases(f"{model}:train", limit=arguments.cases)
    reward = load_reward("testbed" if model == "testbed" else "layeralign.testbed.natural.outcome:score")
    torch.manual_seed(0)
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    with TemporaryDirectory() as folder:
        lppo, began = ours(model, dtype, settings, cases, reward, Path(folder))
        read: list[tuple[int, int]] = []  # tokens of prompts and answers, and of answers, per step
        sample, vlm = lppo.sample, lppo.policy.vlm

        def counted(rows: list, step: int) -> tuple:
            answers, finished = sample(rows, step)
            said = sum(map(len, answers))
            prompts = [prompt_tokens(vlm, row[0], lppo.features.of(row), settings.decoding()) for row in rows]
            read.append((said + sum(map(len, prompts)), said))
            return answers, finished

        lppo.sample = counted
        contestants = {"plain": Plain(model, dtype, settings, cases, reward).step, "ours": lppo.step}
        for number in range(arguments.steps):
            for name, step in contestants.items():
                start = time.perf_counter()
                step(number)
                times[name].append(time.perf_counter() - start)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}; {model}, {dtype}, exit {EXIT}, {settings.rows} rows, {settings.epochs} epochs\n")  # fmt: skip
    print("| | s per step, median | fastest | slowest |\n|---|---|---|---|")
    for name, all_times in times.items():
        later = all_times[1:]
        print(f"| {name} | {median(later):.2f} | {min(later):.2f} | {max(later):.2f} |")
    each = began / 60
    print(
        f"\nour reference answers and their scores, {began:.1f} s once, are {each:.2f} s a step over 60 steps"
    )
    for name, more in (("ours", 0.0), ("(ours and that)", each)):
        ratios = [p / (o + more) for p, o in zip(times["plain"][1:], times["ours"][1:], strict=True)]
        told = f"{median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        print(f"plain / {name}, paired by step: median {told}")
    least = [floor(vlm, settings, *one) for one in read[1:]]
    ratios = [took / at_least for took, at_least in zip(times["ours"][1:], least, strict=True)]
    print(f"floor: median {median(least):.2f} s a step; ours / floor, by step: median {median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
