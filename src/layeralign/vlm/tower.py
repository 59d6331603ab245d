"""Run an encoder up to an exit, then the model's own code after the blocks on the exit's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn


class _Stop(Exception):
    """Raised inside the tower's forward after the deepest requested state."""


def given_state(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The state among a block's arguments."""
    return args[0] if args else kwargs["hidden_state" if "hidden_state" in kwargs else "hidden_states"]


def states(run: Callable[[], object], blocks: nn.ModuleList, exits: Iterable[int]) -> dict[int, Tensor]:
    """The states at `exits`, equal to `hidden_states[l]` of the full tower.

    One pass captures every exit and stops at the deepest one l: block l + 1 and everything after it do not
    run. Hooks capture the states, so the code before the blocks is the tower's own. The hooks are removed
    afterwards, also after an error.

    Args:
        run: Runs the tower, whose forward runs `blocks` in order.
        blocks: The tower's L blocks.
        exits: Indices, 0 to L.

    Returns:
        Exit -> states, [n, tokens, width] in most towers, including any class token.
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
            keep(exit, given_state(args, kwargs))

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


def lists_of_blocks(tower: nn.Module) -> dict[str, nn.ModuleList]:
    """A tower's lists of two or more blocks of one class, by name, without lists inside blocks.

    Mergers, which project what blocks have made, are left out. timm's lists of blocks are sequences.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in tower.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        listed = isinstance(module, nn.ModuleList) or (
            isinstance(module, nn.Sequential) and all(any(block.children()) for block in module)
        )
        if listed and len(module) > 1 and len({type(block) for block in module}) == 1 and not inside:
            found[name] = cast(nn.ModuleList, module)
    return {name: one for name, one in found.items() if "merger" not in name}


@contextmanager
def held(
    blocks: nn.ModuleList, known: Mapping[int, Tensor], exit: int, *, tuples: bool = False
) -> Iterator[None]:
    """Context in which the tower's forward is that of a tower cut at `exit`, and its blocks compute nothing.

    Every block returns the exit's state, so it does not matter which one the model reads; blocks before the
    exit return their states in `known`, if they have one. The code after the blocks (norms, mergers,
    projector) is the model's own.

    Args:
        blocks: The tower's blocks.
        known: Exit -> state, for the exit and for other layers that the model reads.
        exit: Index, 0 to L.
        tuples: Whether the blocks return tuples that start with the state.
    """
    with _standing_in(blocks, lambda at, _: known.get(min(at, exit), known[exit]), tuples):
        yield


def passes(
    run: Callable[[], object], blocks: nn.ModuleList, deepest: int, *, tuples: bool = False
) -> list[dict[int, Tensor]]:
    """All states up to `deepest`, of a tower that may run several times, as for a picture and its tiles.

    Blocks past `deepest` return what they are given, so that the model goes on to its tower's next run.

    Args:
        run: Runs the model's code for pictures, which runs `blocks` in order, once or more.
        blocks: The tower's L blocks.
        deepest: Index, 0 to L.
        tuples: Whether the blocks return tuples that start with the state.

    Returns:
        Per run of the tower: exit -> states, for every exit from 0 to `deepest`.
    """
    found: list[dict[int, Tensor]] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append({0: given_state(args, kwargs)})

    def after(exit: int) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            found[-1][exit] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [blocks[at].register_forward_hook(after(at + 1)) for at in range(deepest)]
    try:
        with _standing_in(list(blocks)[deepest:], lambda _, given: given, tuples):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def replayed(
    blocks: nn.ModuleList,
    known: Sequence[Mapping[int, Tensor]],
    exit: int,
    first: int,
    *,
    tuples: bool = False,
) -> Iterator[None]:
    """Context in which each run of the tower is that of one cut at `exit`, and its blocks compute nothing.

    Blocks before l return their own states, block l the exit's state, and blocks past it what they are given.
    So what the model does between its blocks, such as merging patches, is done to the exit's state, too.

    Args:
        blocks: The tower's blocks.
        known: Result of `passes`, at least up to `exit`.
        exit: Index, 0 to L.
        first: The block from which on the exit's state is returned, for a model that reads no block past it.
        tuples: Whether the blocks return tuples that start with the state.
    """
    runs = iter(known)
    now: Mapping[int, Tensor] = {}

    def output(at: int, given: Tensor) -> Tensor:
        nonlocal now
        if at == 1:
            now = next(runs)
        return given if at > exit else now[at if at < first else exit]

    with _standing_in(blocks, output, tuples):
        yield


@contextmanager
def _standing_in(
    blocks: Iterable[nn.Module], output: Callable[[int, Tensor], Tensor], tuples: bool
) -> Iterator[None]:
    """Context in which block number n, from 1, returns `output` of n and of the state that it is given."""
    blocks = list(blocks)

    def stand_in(at: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            state = output(at, given_state(args, kwargs))
            return (state,) if tuples else state

        return forward

    own = [vars(block).get("forward") for block in blocks]
    try:
        for at, block in enumerate(blocks, 1):
            block.forward = stand_in(at)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                block.forward = forward
