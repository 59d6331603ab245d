"""Steering in closed form: where a request looks harmful, add the direction of refusal. Nothing is trained.

The direction is the mean state of harmful requests minus that of others, at the default exit, after a middle
block (Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", section 2.3). It
is added by an amount that ridge regression predicts from the same block's MLP: 1 for harmful requests at the
trained exits, 0 for all others, as the null-space form of Sheng et al. 2025 (AlphaSteer) aims at. Both
together are a LoRA of rank 1 on one linear layer, so the adapter has PEFT's form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layeralign.errors import LayeralignError
from layeralign.training.algorithm import Algorithm, Meter, Microbatch
from layeralign.training.policy import Outputs
from layeralign.training.reference import right_answer

_RIDGE = 1e-3
"""Weight of the gate's norm, in units of the activations' mean square."""


class Steering(Algorithm[Microbatch]):
    """The method `steer`. A step adds its rows to the sums; the last step solves for direction and gate."""

    def __post_init__(self) -> None:
        """Find the block in the middle; the sums are saved with each checkpoint."""
        super().__post_init__()
        width = self.policy.vlm.text_width
        ends = [
            (name, module)
            for name, module in self.policy.peft.named_modules()
            if hasattr(module, "lora_A") and module.out_features == width != module.in_features
        ]
        if not ends:
            raise LayeralignError(
                f"model {self.policy.vlm.checkpoint.name}: has no MLP that method steer knows how to use"
            )
        name, self._linear = ends[len(ends) // 2]
        number = max(at for at, part in enumerate(name.split(".")) if part.isdigit())
        self._block = self.policy.peft.get_submodule(".".join(name.split(".")[: number + 1]))
        inner = int(self._linear.in_features)
        shapes = {"gram": (inner, inner), "target": (inner,), "count": (2,),
                  "harmful": (width + 1,), "others": (width + 1,)}  # fmt: skip
        self._sums = {
            name: nn.Parameter(torch.zeros(shape, device=self.policy.vlm.device), requires_grad=False)
            for name, shape in shapes.items()
        }
        self.parameters |= {f"steering.{name}": value for name, value in self._sums.items()}

    @torch.no_grad()
    def step(self, number: int) -> dict[str, Any]:
        """Add a step's rows to the sums, and solve after the last step; return the step's metrics."""
        meter = Meter(number)

        # 1. Draw rows: cases at drawn exits, and retention rows at the default exit.
        rows = self.draw(meter)

        # 2. Take the right answers; every position of an answer counts.
        answers = [right_answer(self.policy, case, self.reference) for case, _ in rows.trained]
        meter.add("length", sum(map(len, answers)), len(answers))

        # 3. Add the reference policy's activations to the sums.
        added = {name: torch.zeros_like(value) for name, value in self._sums.items()}
        for micro in (m for minibatch in self.microbatches(Microbatch, rows, answers) for m in minibatch):
            self._add(micro, added)
        for name, value in added.items():
            self._sums[name].add_(self.workers.sum(value))

        # 4. After the last step, solve for direction and gate, and write them into the adapter.
        if number + 1 == self.settings.steps:
            meter.plain["gate_error"] = self._solve()
        return meter.metrics(self.workers)

    def _add(self, micro: Microbatch, sums: dict[str, Tensor]) -> None:
        """Add a microbatch: MLP activations with their targets, and states at the default exit."""
        with self._watched() as seen:
            self.reference_outputs(micro.batch)
        at = torch.arange(len(micro.rows), device=micro.batch.states.device)[:, None]
        inner, state = (one[at, micro.batch.states].float() for one in (seen["inner"], seen["state"]))
        mask = torch.zeros(state.shape[:2], dtype=torch.bool, device=state.device)
        for part, found in ((slice(0, micro.n), micro.mask), (slice(micro.n, None), micro.retention_mask)):
            mask[part] = found
        harmful = torch.tensor([case.kind == "harmful" for case, _ in micro.rows], device=state.device)
        wanted = harmful[:, None].expand_as(mask)[mask].float()
        chosen = inner[mask]
        sums["gram"].add_(chosen.T @ chosen)
        sums["target"].add_(chosen.T @ wanted)
        sums["count"].add_(torch.stack([wanted.sum(), torch.ones_like(wanted).sum()]))
        default = self.policy.vlm.exits.default
        for row, (case, exit) in enumerate(micro.rows):
            if exit == default:
                kind = "harmful" if case.kind == "harmful" else "others"
                sums[kind].add_(torch.cat([state[row, 0], state.new_ones(1)]))

    @contextmanager
    def _watched(self) -> Iterator[dict[str, Tensor]]:
        """Keep the inputs of the MLP's last layer and the block's output, both [rows, tokens, width]."""
        seen: dict[str, Tensor] = {}

        def inner(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen["inner"] = inputs[0]

        def state(_: nn.Module, __: Any, output: Any) -> None:
            seen["state"] = output[0] if isinstance(output, tuple) else output

        hooks = self._linear.register_forward_pre_hook(inner), self._block.register_forward_hook(state)
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _solve(self) -> float:
        """Write direction and gate into the adapter; return the gate's mean squared error."""
        sums = {name: value.data.double() for name, value in self._sums.items()}
        if sums["harmful"][-1] == 0 or sums["others"][-1] == 0:
            raise LayeralignError(
                "method steer: needs cases of both kinds at the default exit; use a larger --retention-share"
            )
        means = [sums[kind][:-1] / sums[kind][-1] for kind in ("harmful", "others")]
        direction, gram = means[0] - means[1], sums["gram"]
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        gate = torch.linalg.solve(gram + ridge, sums["target"])
        for name, value in self.policy.trainable().items():
            if "lora_B" in name:
                value.zero_()
        first, last = self._linear.lora_A["default"].weight, self._linear.lora_B["default"].weight
        first[0] = gate.to(first.dtype)
        last[:, 0] = (direction * (self.settings.steer_strength / self._linear.scaling["default"])).to(
            last.dtype
        )
        harmful, count = sums["count"]
        return float((gate @ gram @ gate - 2 * gate @ sums["target"] + harmful) / count)

    def loss(self, micro: Microbatch, outputs: Outputs, meter: Meter) -> Tensor:
        """Not called: there is no update."""
        raise NotImplementedError
