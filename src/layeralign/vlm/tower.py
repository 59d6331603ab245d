"""Run an encoder up to an exit, and no further."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class _Stop(Exception):
    """Raised inside the tower's forward once the deepest wanted state is in hand."""


def hidden_states(
    tower: nn.Module, blocks: nn.ModuleList, exits: Iterable[int], **inputs: Any
) -> dict[int, Tensor]:
    """The states at `exits`, as `hidden_states[l]` of the full tower would give them.

    One pass captures every exit and stops at the deepest: block l + 1 and all that follows are
    not run. Works by hooks, so that whatever a tower does before its blocks is its own code; the
    hooks are gone afterwards, also after an error.

    Args:
        tower: a vision model whose forward runs `blocks` one after the other.
        blocks: its L blocks.
        exits: indices 0 to L.
        inputs: what the tower's forward takes, as `pixel_values` [n, 3, h, w].

    Returns:
        exit -> states [n, tokens, width], with any class token still in place.
    """
    wanted = sorted(set(exits))
    states: dict[int, Tensor] = {}

    def keep(exit: int, state: Tensor) -> None:
        if exit in wanted:
            states[exit] = state
        if exit == wanted[-1]:
            raise _Stop

    def before(exit: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(exit, args[0] if args else kwargs["hidden_states"])

        return hook

    def after_last(_: nn.Module, __: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        keep(len(blocks), output if isinstance(output, Tensor) else output[0])

    handles = [
        block.register_forward_pre_hook(before(exit), with_kwargs=True) for exit, block in enumerate(blocks)
    ]
    handles.append(blocks[-1].register_forward_hook(after_last))
    try:
        tower(**inputs)
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return states
