"""How a model is aligned: every constant by name, with its source where the paper leaves it unstated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from layeralign.cases import background
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.decode.decoding import Decoding

KlEstimator = Literal["k1", "k3"]
Method = Literal["lppo", "paper", "sft", "sft-default", "consistency"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What shapes an adapter besides model, cases and reward. The paper states none of the numbers.

    Sources: [PPO] Schulman et al. 2017; [TRL] the defaults of TRL's PPO trainer before 1.13;
    [LoRA] Hu et al. 2022; [ours] chosen on the testbed's dev split, see docs/align.md.
    """

    method: Method = "lppo"
    """lppo; paper (lppo on harmful cases alone, default exit not kept); sft (cross-entropy on right
    answers at the drawn exits); sft-default (at the default exit); consistency (match the start policy's
    default-exit distribution at the drawn exits)."""
    exits: Annotated[str, Parameter(allow_leading_hyphen=True)] = "all"
    """Exits to train on: all, default, early, middle, late, embedding, numbers and ranges, by commas."""
    mix: Annotated[str, Parameter(allow_leading_hyphen=True)] = "uniform"
    """How a row draws its exit: uniform, worst (weights follow the measured harm), or weights by exit,
    as 18:3,20:1. [ours]"""
    harmful_share: float = 0.5
    """Share of the trained rows whose case is harmful; the others are drawn from all other cases. [ours]"""
    keep_share: float = 0.5
    """Share of all rows that hold the default exit: no reward, KL(start policy ‖ policy) on the start
    policy's own answers there. [ours]"""
    keep: float = 10.0
    """Weight of that KL. [ours]"""
    price: float = 4.0
    """Price of harm: what the reward of a harmful case is multiplied by (in the baselines, the loss). At
    an exit that cannot see what authorises a request, a price above 1 buys refusal. [ours]"""
    steps: int = 200
    """Rollouts, each followed by its updates."""
    rows: int = 96
    """Answers per step, kept rows among them, over all processes."""
    epochs: int = 4
    """Passes over a rollout. [TRL]"""
    minibatches: int = 1
    """Optimiser steps per pass. [TRL]"""
    accumulate: int = 1
    """Pieces that a minibatch is computed in, to save memory; the update is the same. At 1 (and 1 minibatch)
    a step's first pass is kept whole for its first update, which saves a pass and costs memory."""
    rate: float = 1e-4
    """Highest learning rate of AdamW; warm-up over a twentieth of the steps, then linear to zero.
    Ten times the usual full fine-tuning rate, as is common for LoRA."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm. [TRL]"""
    rank: int = 16
    """LoRA rank; scaled by 2, on every linear layer of the language model's blocks. [LoRA]"""
    clip: float = 0.2
    """ε: the ratio's distance from 1 at which its gain stops. [PPO]"""
    eta: float = 0.05
    """η: price of a nat of KL from the start policy, per token. [TRL]"""
    c1: float = 0.1
    """Weight of the value loss. [TRL]"""
    gamma: float = 1.0
    """Discount per token. [TRL]"""
    lam: float = 0.95
    """λ of generalised advantage estimation. [TRL]"""
    temperature: float = 1.0
    """Of sampled answers, and of the log-probabilities that PPO compares."""
    max_new_tokens: int = 128
    """Longest sampled answer, in tokens."""
    whiten: bool = True
    """Advantages to mean 0 and variance 1 over a step's tokens. [TRL]"""
    value_clip: float | None = None
    """Largest move of a value that its loss counts; off by default. [TRL: 0.2]"""
    kl: KlEstimator = "k1"
    """Estimator of the KL in the reward: k1 or k3. [TRL]"""
    eos_penalty: float = 0.0
    """Taken off the score of an answer that does not end by itself. [TRL: off]"""
    target_kl: float | None = None
    """Passes over a rollout stop when KL(old ‖ new) per token is above this; off by default."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them."""
    date: str = ""
    """The day that a chat template is told if it asks for one, as 2026-11-28; by default that of the
    first start."""
    special_tokens: Literal["literal", "parse"] = "literal"
    """Whether control tokens in a case's text, as </s>, are read as text or as what they mean to the
    model."""
    reasoning: str = "auto"
    """Marks around the model's reasoning, as '<think> </think>'; auto knows the usual ones; none: it has
    none."""
    seed: int = 0
    """Of everything that is drawn."""
    background: str = "white"
    """Colour behind transparent pictures: white, black, or #rrggbb."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        for name, known in (("method", get_args(Method)), ("kl", get_args(KlEstimator))):
            if getattr(self, name) not in known:
                raise LayeralignError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise LayeralignError(f"{name} {value}: expected {low} to {high}")
        background.parse(self.background)
        if (self.date, self.special_tokens, self.reasoning) != ("", "literal", "auto"):
            self.decoding()  # refuses what it cannot be made of; needs torch, which --help does without

    def record(self) -> dict[str, Any]:
        """As JSON has it; a white background is left out, so that older trainings can be resumed."""
        made = asdict(self)
        colour = made.pop("background")
        return made | background.identity(colour)

    def decoding(self, temperature: float = 0.0) -> Decoding:
        """How answers are made while it trains."""
        from layeralign.decode.decoding import Decoding

        return Decoding(
            self.max_new_tokens, temperature, date=self.date, special_tokens=self.special_tokens,
            reasoning=self.reasoning,
        )  # fmt: skip

    @property
    def rolls_out(self) -> bool:
        """Whether the method samples answers, and so needs a reward."""
        return self.method in ("lppo", "paper")

    def resolved(self) -> Settings:
        """What the method fixes, fixed: `paper` and `sft-default` are others with settings of their own."""
        if self.method == "paper":
            return replace(self, harmful_share=1.0, keep_share=0.0, price=1.0)
        if self.method == "sft-default":
            return replace(self, exits="default", mix="uniform")
        return self


_BIG = 10**9
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("harmful_share", 0, 1),
    ("keep_share", 0, 0.9),
    ("keep", 0, _BIG),
    ("price", 0, _BIG),
    *((name, 1, _BIG) for name in ("steps", "rows", "epochs", "minibatches", "accumulate", "rank")),
    ("max_new_tokens", 1, _BIG),
    ("rate", 0, 1),
    ("max_grad_norm", 1e-9, _BIG),
    ("clip", 1e-6, 1),
    ("eta", 0, _BIG),
    ("c1", 0, _BIG),
    ("gamma", 0, 1),
    ("lam", 0, 1),
    ("temperature", 0.01, 100),
    ("value_clip", 1e-9, _BIG),
    ("eos_penalty", 0, _BIG),
    ("seed", -(2**63), 2**63 - 1),
    ("target_kl", 1e-9, _BIG),
)
FLAGS = frozenset(f.name for f in fields(Settings) if f.type == "bool")
"""Fields that are true or false."""
FRACTIONS = frozenset(f.name for f in fields(Settings) if "float" in str(f.type))
"""Fields that may have a fraction."""
