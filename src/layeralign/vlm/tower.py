"""Run an encoder up to an exit, and no further; then what follows its blocks, with the state of the exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _Stop(Exception):
    """Raised inside the tower's forward once the deepest wanted state is in hand."""


def states(run: Callable[[], object], blocks: nn.ModuleList, exits: Iterable[int]) -> dict[int, Tensor]:
    """The states at `exits`, as `hidden_states[l]` of the full tower would give them.

    One pass captures every exit and stops at the deepest: block l + 1 and all that follows are
    not run. Works by hooks, so that whatever a tower does before its blocks is its own code; the
    hooks are gone afterwards, also after an error.

    Args:
        run: runs the tower, whose forward runs `blocks` one after the other.
        blocks: its L blocks.
        exits: indices 0 to L.

    Returns:
        exit -> states, [n, tokens, width] in most towers, with any class token still in place.
    """
    wanted = sorted(set(exits))
    found: dict[int, Tensor] = {}

    def keep(exit: int, state: Tensor) -> None:
        if exit in wanted:
            found[exit] = state
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
        run()
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def held(
    blocks: nn.ModuleList, known: Mapping[int, Tensor], exit: int, *, tuples: bool = False
) -> Iterator[None]:
    """Within it, the tower's forward is that of a tower cut at `exit`, and its blocks compute nothing.

    Every block gives the exit's state, whichever of them the model reads; those before it, too, but for
    the states that `known` has. What comes after the blocks - norms, mergers, projector - is the model's
    own code.

    Args:
        blocks: the tower's blocks.
        known: states by exit: the exit's own, and those that the model reads besides.
        exit: index 0 to L.
        tuples: whether the blocks return tuples that begin with the state.
    """

    def output(at: int) -> Any:
        state = known.get(min(at, exit), known[exit])
        return (state,) if tuples else state

    own = [vars(block).get("forward") for block in blocks]
    try:
        for at, block in enumerate(blocks, 1):
            block.forward = lambda *_, at=at, **__: output(at)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                block.forward = forward
