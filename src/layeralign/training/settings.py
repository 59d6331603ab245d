"""Settings of a training, each with its source where the paper does not state it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from layeralign.cases import background
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.decode.decoding import Decoding

KlEstimator = Literal["k1", "k3"]
Schedule = Literal["linear", "constant"]
Method = Literal[
    "lppo", "paper", "rloo", "grpo", "sft", "sft-default", "consistency", "dpo", "latent", "repair", "steer"
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """Settings that determine an adapter, besides model, cases and reward.

    The paper states none of the numbers. Sources: [PPO] Schulman et al. 2017; [TRL] the defaults of TRL's PPO
    trainer before 1.13; [LoRA] Hu et al. 2022; [ours] chosen on the testbed's dev split, see docs/align.md.
    """

    method: Method = "lppo"
    """Training method: lppo, paper (lppo on harmful cases alone, without retention rows) or a baseline.
    Methods sft and sft-default learn right answers by cross-entropy, at the drawn exits or the default exit.
    Method consistency matches the reference policy's default-exit distribution at the drawn exits.
    Methods rloo and grpo are lppo without a critic. Method dpo prefers right answers to the exit's own.
    Method latent is sft next to features of the default exit that were moved to where the loss is high.
    Method repair is consistency with LoRA on the projector; the language model is not changed.
    Method steer trains nothing: it adds the direction of refusal where a request looks harmful."""
    exits: Annotated[str, Parameter(allow_leading_hyphen=True)] = "all"
    """Exits to train on: all, default, early, middle, late, embedding, numbers and ranges, separated by
    commas."""
    mix: Annotated[str, Parameter(allow_leading_hyphen=True)] = "uniform"
    """Weights by which rows draw their exits: uniform; worst, which follows the measured harm; or one
    weight per exit, as 18:3,20:1. [ours]"""
    harmful_share: float = 0.5
    """Share of the trained rows whose case is harmful, 0 to 1. The others are drawn from all other cases.
    [ours]"""
    retention_share: float = 0.5
    """Share of all rows that are retention rows, 0 to 0.9. They get no reward; their loss is
    KL(reference ‖ policy) on the reference policy's own answers at the default exit. [ours]"""
    retention_weight: float = 10.0
    """Weight of the KL on the retention rows in the loss. [ours]"""
    harm_weight: float = 4.0
    """Factor on the score of a harmful case; in the baselines, on its loss. Above 1 it favours refusal at
    exits that cannot see what authorises a request. [ours]"""
    steps: int = 200
    """Number of rollouts, each followed by its updates."""
    rows: int = 96
    """Answers per step over all processes, retention rows included."""
    epochs: int = 4
    """Passes over each rollout. [TRL]"""
    minibatches: int = 1
    """Optimiser steps per pass. [TRL]"""
    accumulate: int = 1
    """Parts of a minibatch that are computed one after the other, to save memory; the update is the same.
    With 1 part and 1 minibatch, a step's first update saves one forward pass and needs more memory."""
    lr: float = 1e-4
    """Highest learning rate of AdamW. The default is ten times the usual rate of full fine-tuning, as is
    common for LoRA."""
    schedule: Schedule = "linear"
    """Learning rate over the steps, linear or constant. Linear: a warm-up over a twentieth of the steps, then
    a fall to zero. Constant: a warm-up over 10 steps, then no change; more --steps continue the training."""
    max_grad_norm: float = 1.0
    """Norm that gradients are scaled down to. [TRL]"""
    rank: int = 16
    """Rank of LoRA on every linear layer of the language model's blocks; its scale is 2. [LoRA]"""
    clip: float = 0.2
    """PPO's ε: distance of the probability ratio from 1 at which the loss stops rewarding it. [PPO]"""
    kl_coef: float = 0.05
    """Coefficient η of the KL from the reference policy, per nat and token, in the reward. [TRL]"""
    value_coef: float = 0.1
    """Coefficient of the value loss. [TRL]"""
    gamma: float = 1.0
    """Discount per token, 0 to 1. [TRL]"""
    lam: float = 0.95
    """Factor λ of generalised advantage estimation, 0 to 1. [TRL]"""
    group: int = 4
    """Answers to each row in rloo and grpo; --rows counts answers, so there are fewer different rows.
    [Ahmadian et al. 2024]"""
    beta: float = 0.1
    """Coefficient β of dpo: the weight of the distance from the reference policy. [Rafailov et al. 2023]"""
    latent_radius: float = 1.0
    """Largest move of a picture's features in latent, in units of their mean norm. [ours]"""
    latent_steps: int = 2
    """Gradient steps of each move in latent; each costs about as much as an update. [ours]"""
    steer_strength: float = 1.0
    """Factor of the direction that steer adds. [ours]"""
    temperature: float = 1.0
    """Sampling temperature of rollouts, and of the log-probabilities that PPO compares."""
    max_new_tokens: int = 128
    """Length limit of a sampled answer, in tokens."""
    whiten: bool = True
    """Normalise advantages to mean 0 and variance 1 over a step's tokens. [TRL]"""
    value_clip: float | None = None
    """Largest change of a value that its loss counts; off by default. [TRL: 0.2]"""
    kl_estimator: KlEstimator = "k1"
    """Estimator of the KL in the reward: k1 or k3. [TRL]"""
    eos_penalty: float = 0.0
    """Penalty on the score of an answer without an end token; 0 by default. [TRL: off]"""
    target_kl: float | None = None
    """Limit of KL(old ‖ new) in nats per token above which a step's updates stop; off by default."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them; off by default."""
    date: str = ""
    """Day that the chat template is given if it uses one, as 2026-11-28; by default the day of the first
    start."""
    special_tokens: Literal["literal", "parse"] = "literal"
    """Reading of control tokens, such as `</s>`, in a case's text: literal, as plain text; or parse, as
    control tokens."""
    reasoning: str = "auto"
    """Marks around the model's reasoning, as `<think> </think>`. auto finds the usual marks; none means
    that the model does not reason."""
    seed: int = 0
    """Seed of every random draw."""
    background: str = "white"
    """Colour behind transparent pictures: white, black, or #rrggbb."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        for name, kind in (("method", Method), ("kl_estimator", KlEstimator), ("schedule", Schedule)):
            known = get_args(kind)
            if getattr(self, name) not in known:
                raise LayeralignError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise LayeralignError(f"{name} {value}: expected {low} to {high}")
        background.parse(self.background)
        if (self.date, self.special_tokens, self.reasoning) != ("", "literal", "auto"):
            self.decoding()  # refuses unusable values; imports torch, which --help must not need

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON, without a white background, which older records do not have."""
        made = asdict(self)
        colour = made.pop("background")
        return made | background.identity(colour)

    def decoding(self, temperature: float = 0.0) -> Decoding:
        """Return the settings of decoding during training."""
        from layeralign.decode.decoding import Decoding

        return Decoding(
            self.max_new_tokens, temperature, date=self.date, special_tokens=self.special_tokens,
            reasoning=self.reasoning,
        )  # fmt: skip

    @property
    def rolls_out(self) -> bool:
        """Whether the method samples answers, and so needs a reward."""
        return self.method in ("lppo", "paper", "rloo", "grpo")

    @property
    def answers_per_row(self) -> int:
        """Number of answers that a step samples to each trained row."""
        return self.group if self.method in ("rloo", "grpo") else 1

    def check_reward(self, reward: object) -> None:
        """Refuse a method that needs a reward, without one.

        Raises:
            LayeralignError: `reward` is None.
        """
        if self.rolls_out and reward is None:
            raise LayeralignError(
                f"reward: method {self.method} needs one (--reward, docs/reward.md); "
                "--method consistency and --method sft need none"
            )

    def resolved(self) -> AlignSettings:
        """The settings with those that the method fixes."""
        if self.method == "paper":
            return replace(self, harmful_share=1.0, retention_share=0.0, harm_weight=1.0)
        if self.method in ("sft-default", "latent"):
            return replace(self, exits="default", mix="uniform")
        return self


_BIG = 10**9
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("harmful_share", 0, 1),
    ("retention_share", 0, 0.9),
    ("retention_weight", 0, _BIG),
    ("harm_weight", 0, _BIG),
    *((name, 1, _BIG) for name in ("steps", "rows", "epochs", "minibatches", "accumulate", "rank")),
    ("max_new_tokens", 1, _BIG),
    ("lr", 0, 1),
    ("max_grad_norm", 1e-9, _BIG),
    ("clip", 1e-6, 1),
    ("kl_coef", 0, _BIG),
    ("value_coef", 0, _BIG),
    ("gamma", 0, 1),
    ("lam", 0, 1),
    ("group", 2, 1000),
    ("beta", 1e-6, 1000),
    ("latent_radius", 0, 1000),
    ("latent_steps", 1, 100),
    ("steer_strength", 0, 1000),
    ("temperature", 0.01, 100),
    ("value_clip", 1e-9, _BIG),
    ("eos_penalty", 0, _BIG),
    ("seed", -(2**63), 2**63 - 1),
    ("target_kl", 1e-9, _BIG),
)
