"""docs/theory.md, checked on problems small enough to solve exactly; `-s` prints the figures it quotes."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from layeralign.training.ppo import clipped, policy_loss

EXITS, STATES, ACTIONS, WIDTH = 3, 6, 4, 5
EXACT = {"atol": 1e-10, "rtol": 1e-10}


@dataclass(frozen=True)
class Problem:
    """A decision problem whose N states are (exit, time, situation); an episode keeps its exit.

    Exits share dynamics and rewards, as answers do, and differ in what the policy sees. A problem with a
    horizon counts time in its states and ends by a step of no probability, so gamma may be 1.
    """

    step: Tensor  # [N, actions, N]
    reward: Tensor  # [N, actions]
    features: Tensor  # [N, width]
    exit: Tensor  # [N]
    time: Tensor  # [N]
    start: Tensor  # [N], a distribution within each exit
    gamma: float
    horizon: int | None

    @property
    def length(self) -> float:
        """Sum of gamma^t."""
        return (
            1 / (1 - self.gamma) if self.horizon is None else sum(self.gamma**t for t in range(self.horizon))
        )

    @property
    def drift(self) -> float:
        """Sum of t·gamma^t: how much room the visited states have to move away."""
        if self.horizon is None:
            return self.gamma / (1 - self.gamma) ** 2
        return sum(t * self.gamma**t for t in range(self.horizon))

    @property
    def later(self) -> Tensor:
        """Sum of gamma^k over the steps k = 1, 2, ... that follow each state, [N]."""
        if self.horizon is None:
            return torch.full_like(self.start, self.gamma / (1 - self.gamma))
        left = self.horizon - 1 - self.time
        return sum(self.gamma**k * (left >= k) for k in range(1, self.horizon))

    def policy(self, theta: Tensor) -> Tensor:
        return (self.features @ theta).softmax(-1)


def problem(seed: int, gamma: float = 0.9, horizon: int | None = None, alike: float = 0.25) -> Problem:
    """Random; `alike` is the correlation of what two exits see of the same situation."""
    rng = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    moves = (2 * normal(STATES, ACTIONS, STATES)).softmax(-1)
    reward, first = normal(STATES, ACTIONS), normal(STATES).softmax(-1)
    common, own = normal(STATES, WIDTH), normal(EXITS, STATES, WIDTH)
    features = alike**0.5 * common + (1 - alike) ** 0.5 * own
    times = horizon or 1
    step = torch.zeros(EXITS, times, STATES, ACTIONS, EXITS, times, STATES, dtype=torch.float64)
    start = torch.zeros(EXITS, times, STATES, dtype=torch.float64)
    start[:, 0] = first
    for exit in range(EXITS):
        if horizon is None:
            step[exit, 0, :, :, exit, 0] = moves
        for t in range(times - 1):
            step[exit, t, :, :, exit, t + 1] = moves
    n = EXITS * times * STATES
    return Problem(
        step.reshape(n, ACTIONS, n),
        reward.repeat(EXITS * times, 1),
        features[:, None].expand(-1, times, -1, -1).reshape(n, WIDTH),
        torch.arange(EXITS).repeat_interleave(times * STATES),
        torch.arange(times).repeat_interleave(STATES).repeat(EXITS),
        start.flatten(),
        gamma,
        horizon,
    )


def solve(p: Problem, policy: Tensor, reward: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Exact V [N] and A [N, actions] of a policy [N, actions]."""
    reward = p.reward if reward is None else reward
    chain = torch.einsum("na,nam->nm", policy, p.step)
    values = torch.linalg.solve(torch.eye(len(chain)).to(chain) - p.gamma * chain, (policy * reward).sum(-1))
    return values, reward + p.gamma * p.step @ values - values[:, None]


def returns(p: Problem, policy: Tensor, reward: Tensor | None = None) -> Tensor:
    """Exact J [exits] of every exit."""
    started = p.start * solve(p, policy, reward)[0]
    return torch.stack([started[p.exit == exit].sum() for exit in range(EXITS)])


def visits(p: Problem, policy: Tensor, weights: Tensor) -> Tensor:
    """Expected discounted visits [N] when the start draws the exit from `weights` [exits]."""
    chain = torch.einsum("na,nam->nm", policy, p.step)
    return torch.linalg.solve(
        (torch.eye(len(chain)).to(chain) - p.gamma * chain).T, p.start * weights[p.exit]
    )


def distances(old: Tensor, new: Tensor) -> Tensor:
    """Total variation per state, [N]."""
    return (new - old).abs().sum(-1) / 2


def bound(p: Problem, old: Tensor, new: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gain that the surrogate promises (L - J), what the bound takes off, epsilon and rho."""
    advantages = solve(p, old)[1]
    gain = visits(p, old, weights) @ (new * advantages).sum(-1)
    inside = weights[p.exit] > 0
    epsilon, rho = advantages[inside].abs().max(), distances(old, new)[inside].max()
    return gain, 4 * epsilon * p.drift * rho**2, epsilon, rho


def sharper(p: Problem, old: Tensor, new: Tensor, weights: Tensor) -> Tensor:
    """What a bound by the *expected* total variation takes off (Achiam et al. 2017)."""
    surprise = (new * solve(p, old)[1]).sum(-1)[weights[p.exit] > 0].abs().max()
    return 2 * surprise * (visits(p, old, weights) * p.later) @ distances(old, new)


def one(exit: int) -> Tensor:
    return torch.eye(EXITS, dtype=torch.float64)[exit]


def mixes(rng: torch.Generator) -> list[Tensor]:
    """Every exit alone, and two mixes: over all of them, over two of them."""
    weights = torch.rand(EXITS, generator=rng, dtype=torch.float64)
    some = weights * torch.tensor([1.0, 0.0, 1.0])
    return [*map(one, range(EXITS)), weights / weights.sum(), some / some.sum()]


def pairs(count: int, setting: dict):
    """Random problems with two random policies that share their parameters over exits, near and far."""
    for seed in range(count):
        p = problem(seed, **setting)
        rng = torch.Generator().manual_seed(1000 + seed)
        theta = torch.randn(WIDTH, ACTIONS, generator=rng, dtype=torch.float64)
        away = torch.randn(WIDTH, ACTIONS, generator=rng, dtype=torch.float64)
        yield p, p.policy(theta), p.policy(theta + 10.0 ** (seed % 4 - 3) * away), rng


SETTINGS = [
    pytest.param({"gamma": 0.5}, id="gamma-0.5"),
    pytest.param({"gamma": 0.9}, id="gamma-0.9"),
    pytest.param({"gamma": 1.0, "horizon": 5}, id="horizon-5"),
    pytest.param({"gamma": 0.8, "horizon": 4}, id="both"),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.slow
def test_performance_difference_identity(setting):
    for p, old, new, rng in pairs(40, setting):
        advantages = (new * solve(p, old)[1]).sum(-1)
        for weights in mixes(rng):
            difference = weights @ (returns(p, new) - returns(p, old))
            torch.testing.assert_close(visits(p, new, weights) @ advantages, difference, **EXACT)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.slow
def test_bound_for_one_exit_and_for_the_mix(setting):
    promised, tightest = 0, 0.0
    for p, old, new, rng in pairs(40, setting):
        change = returns(p, new) - returns(p, old)
        single = torch.stack([bound(p, old, new, one(exit))[1] for exit in range(EXITS)])
        for weights in mixes(rng):
            gain, penalty, epsilon, rho = bound(p, old, new, weights)
            error = (weights @ change - gain).abs()
            assert error <= penalty + 1e-10  # both ways, so J(new) >= L - penalty
            assert (weights @ change).abs() <= 2 * epsilon * rho * p.length + 1e-10
            assert gain.abs() <= 2 * epsilon * rho * p.length + 1e-10
            assert error <= weights @ single + 1e-10  # the sharper form: each exit's own constants
            assert weights @ single <= penalty + 1e-10
            less = sharper(p, old, new, weights)
            assert error <= less + 1e-10
            assert less <= penalty + 1e-10
            promised += int(gain > penalty)
            tightest = max(tightest, float(error / penalty))
    print(
        f"bound, {setting}: promises a gain in {promised}/200, error at most {tightest:.2f} of what is allowed"
    )
    assert promised > 0  # else the test would hold of a bound that never speaks


@pytest.mark.parametrize(
    ("gamma", "horizon", "rho", "slack"),
    [
        (1.0, 2, 0.3, 1e-12),
        (1.0, 2, 0.5, 1e-12),
        (1.0, 9, 1e-4, 1e-3),
        (0.5, None, 1e-4, 1e-3),
        (0.9, None, 1e-4, 1e-3),
    ],
)
def test_no_smaller_constant_will_do(gamma, horizon, rho, slack):
    """A policy that starts to leave a place for one where its other changes hurt: the bound is met."""
    times = horizon or 1
    step = torch.zeros(
        times, 2, 3, times, 2, dtype=torch.float64
    )  # two places; the third action changes place
    for t in range(times):
        then = 0 if horizon is None else t + 1
        if then < times:
            step[t, 0, :2, then, 0] = step[t, 0, 2, then, 1] = step[t, 1, :, then, 1] = 1
    n = 2 * times
    reward = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64).repeat(n, 1)
    start, time = torch.eye(n, dtype=torch.float64)[0], torch.arange(times).repeat_interleave(2)
    features, exit = torch.zeros(n, 1, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    p = Problem(step.reshape(n, 3, n), reward, features, exit, time, start, gamma, horizon)
    old = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).repeat(n, 1)
    moved = torch.tensor([[0.0, -rho, rho], [-rho, rho, 0.0]], dtype=torch.float64).repeat(times, 1)
    change = p.start @ (solve(p, old + moved)[0] - solve(p, old)[0])
    gain, penalty, epsilon, measured = bound(p, old, old + moved, one(0))
    assert (float(epsilon), float(measured)) == pytest.approx((1.0, rho))
    assert float(gain - change) == pytest.approx(float(penalty), rel=slack)
    assert float(gain - change) == pytest.approx(float(sharper(p, old, old + moved, one(0))), rel=slack)


def test_kl_penalty_changes_the_identity():
    """A reward that holds -kl_coef·log(π/π_SFT) moves with the policy: a KL to the old policy comes off."""
    kl_coef = 0.3
    for p, old, new, _ in pairs(40, {"gamma": 0.9}):
        start = torch.randn(WIDTH, ACTIONS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        frozen = p.policy(start).log()
        seen = p.reward - kl_coef * (old.log() - frozen)  # what PPO computes advantages from
        advantages = solve(p, old, seen)[1]
        difference = returns(p, new, p.reward - kl_coef * (new.log() - frozen)) - returns(p, old, seen)
        moved = (new * (new / old).log()).sum(-1)
        for exit in range(EXITS):
            expected = visits(p, new, one(exit)) @ ((new * advantages).sum(-1) - kl_coef * moved)
            torch.testing.assert_close(expected, difference[exit], atol=1e-9, rtol=1e-9)


def test_clipped_loss_is_lowest_far_outside_its_clip():
    """One state, two actions: nothing in the loss pulls a policy back whose total variation is near 1."""
    old = torch.tensor([0.01, 0.99], dtype=torch.float64)
    advantages = torch.tensor([0.99, -0.01], dtype=torch.float64)

    def loss(p: float) -> tuple[float, float]:
        logit = torch.tensor(p, dtype=torch.float64).logit().requires_grad_()
        new = torch.stack([logit.sigmoid(), (-logit).sigmoid()])
        value = (old * policy_loss(new.log(), old.log(), advantages, 0.2)).sum()
        value.backward()
        return value.item(), logit.grad.item()

    inside, outside = loss(0.011), loss(0.999)
    assert outside[0] < inside[0] and inside[1] < 0
    assert outside == loss(0.9)  # flat: the same loss, no gradient
    assert outside[1] == 0
    assert min(loss(p)[0] for p in torch.linspace(0.001, 0.999, 500).tolist()) >= outside[0] - 1e-15


def rollout(p: Problem, policy: Tensor, weights: Tensor, rows: int, tokens: int, rng: torch.Generator):
    """Sampled states and actions, int64 [rows, tokens]."""
    state = torch.multinomial(p.start * weights[p.exit], rows, replacement=True, generator=rng)
    states, actions = [], []
    for t in range(tokens):
        action = torch.multinomial(policy[state], 1, generator=rng)[:, 0]
        states.append(state)
        actions.append(action)
        if t < tokens - 1:
            state = torch.multinomial(p.step[state, action], 1, generator=rng)[:, 0]
    return torch.stack(states, 1), torch.stack(actions, 1)


def ppo(seed: int, setting: dict, lr: float, updates: int, clip: float = 0.2, tokens: int = 12):
    """Clipped PPO with exact advantages at sampled tokens: 64 rows, 4 epochs of 4 minibatches, Adam.

    Yields of every update: does the bound promise a gain, does its sharper form, the gain, the largest total
    variation at any state, the share of the sampled tokens whose ratio left the clip.
    """
    p, weights = problem(seed, **setting), torch.full((EXITS,), 1 / EXITS, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    theta = (0.1 * torch.randn(WIDTH, ACTIONS, generator=rng, dtype=torch.float64)).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=lr, eps=1e-5)
    for _ in range(updates):
        old = p.policy(theta).detach()
        states, actions = rollout(p, old, weights, 64, tokens, rng)
        advantages = solve(p, old)[1][states, actions]
        old_log_probs = old.log()[states, actions]
        for _ in range(4):
            for rows in torch.randperm(64, generator=rng).split(16):
                log_probs = (p.features[states[rows]] @ theta).log_softmax(-1)
                log_probs = log_probs.gather(-1, actions[rows][..., None])[..., 0]
                loss = policy_loss(log_probs, old_log_probs[rows], advantages[rows], clip).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        new = p.policy(theta).detach()
        gain, penalty, _, rho = bound(p, old, new, weights)
        promised = (float(gain > penalty), float(gain > sharper(p, old, new, weights)))
        outside = clipped(new.log()[states, actions], old_log_probs, clip)
        gained = weights @ (returns(p, new) - returns(p, old))
        yield *promised, float(gained), float(rho), float(outside.double().mean())


@pytest.mark.parametrize(
    "setting", [{"gamma": 0.9}, {"gamma": 1.0, "horizon": 12}], ids=["gamma-0.9", "horizon-12"]
)
@pytest.mark.slow
def test_how_often_clipped_steps_leave_the_bound(setting):
    p = problem(0, **setting)
    radius, silent, largest = p.length / (2 * p.drift), {}, {}
    for lr in (1e-4, 1e-3, 1e-2, 1e-1):
        updates = [update for seed in range(3) for update in ppo(seed, setting, lr, updates=10)]
        promised, sharp, gained, rho, outside = torch.tensor(updates, dtype=torch.float64).T
        n, silent[lr], largest[lr] = len(updates), 1 - promised.mean().item(), rho.max().item()
        print(
            f"ppo, {setting}, lr {lr:g}: no promise {n - int(promised.sum())}/{n} updates (sharper bound "
            f"{n - int(sharp.sum())}), beyond the radius {radius:.3f} {int((rho >= radius).sum())}, better in truth "
            f"{int((gained > 0).sum())}, largest TV median {rho.median():.3f} max {rho.max():.3f}, ratio outside the "
            f"clip {outside.mean():.1%}, J up by {gained.sum() / 3:.2f}"
        )
        assert not (promised.bool() & (rho >= radius)).any()
    assert silent[1e-2] > 0.5
    assert silent[1e-1] > 0.5
    assert largest[1e-2] > 0.1  # what all ratios within 0.2 of 1 would allow
    assert silent[1e-4] < 0.5  # short steps are inside: size decides, and the loss does not see to it


def opposed() -> tuple[Tensor, Tensor]:
    """Features [exits 2, cases 2, width 2] and reward of refusing [cases 2], of harmful and of authorised.

    No feature is negative, and those of one case are much alike at both exits (cosine 0.39): the second exit
    only sees more of what the first takes for the other case.
    """
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.3, 0.7], [0.7, 0.3]]], dtype=torch.float64)
    return features, torch.tensor([1.0, -1.0], dtype=torch.float64)


def opposed_returns(theta: Tensor) -> Tensor:
    """J [exits 2] of refusing with probability sigmoid(features @ theta); both cases equally often."""
    features, reward = opposed()
    return ((features @ theta).sigmoid() * reward).mean(-1)


def test_training_one_exit_harms_another():
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    first = opposed_returns(theta).detach()
    before = first
    for _ in range(200):
        (gradient,) = torch.autograd.grad(opposed_returns(theta)[0], theta)
        theta = (theta + gradient).detach().requires_grad_()
        after = opposed_returns(theta).detach()
        assert after[0] > before[0] and after[1] < before[1]  # at every exact step
        before = after
    print(f"counterexample: J {first.tolist()} -> {[round(x, 2) for x in before.tolist()]}")
    assert before[0] > 0.4 and before[1] < -0.1


def test_a_better_mix_may_be_worse_at_an_exit():
    """The same problem: weight decides who pays, and what the other exit gains is what may be lost."""
    lost = {}
    for weight in (0.1, 0.3, 0.5, 0.8):
        weights = torch.tensor([1 - weight, weight], dtype=torch.float64)
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        start = opposed_returns(theta).detach()
        for _ in range(200):
            (gradient,) = torch.autograd.grad(weights @ opposed_returns(theta), theta)
            theta = (theta + gradient).detach().requires_grad_()
        change = opposed_returns(theta).detach() - start
        assert weights @ change > 0
        for exit in range(2):
            assert change[exit] >= -(1 - weights[exit]) / weights[exit] * change[1 - exit].clamp(min=0)
        lost[weight] = float(change[1])
        print(
            f"mix with weight {weight} on the second exit: J changes by {[round(x, 3) for x in change.tolist()]}"
        )
    assert lost[0.1] < lost[0.5] < 0 < lost[0.8]


@pytest.mark.slow
def test_what_a_mix_promises_one_exit():
    falls = 0
    steps = [*pairs(300, {"gamma": 0.9}), *pairs(100, {"gamma": 1.0, "horizon": 5})]
    for p, old, new, rng in steps:
        change = returns(p, new) - returns(p, old)
        weights = mixes(rng)[3]
        total = weights @ change
        if total < 0:
            continue
        falls += int((change < 0).any())
        for exit in range(EXITS):
            others = torch.arange(EXITS) != exit
            allowed = (weights * change.clamp(min=0))[others].sum()
            assert change[exit] >= (total - allowed) / weights[exit] - 1e-10
            floor = float(weights.min())
            assert change[exit] >= -(1 - floor) / floor * change[others].max().clamp(min=0) - 1e-10
            _, _, epsilon, rho = bound(p, old, new, one(exit))
            assert change[exit] >= -2 * epsilon * rho * p.length - 1e-10  # needs no weight
    assert falls > 50


@pytest.mark.slow
def test_kl_per_answer_limits_what_any_judge_can_see():
    """A share of answers moves by at most sqrt(KL/2) at an exit, KL summed over the new policy's answers."""
    closest = 0.0
    for length in (1, 5):
        for p, old, new, rng in pairs(60, {"gamma": 1.0, "horizon": length}):
            verdict = torch.rand(p.reward.shape, generator=rng, dtype=torch.float64).round()
            verdict = (
                verdict * (p.time == length - 1)[:, None]
            )  # the judge calls the last token unsafe, or not
            change = returns(p, new, verdict) - returns(p, old, verdict)
            for exit in range(EXITS):
                kl = visits(p, new, one(exit)) @ (new * (new / old).log()).sum(-1)
                assert change[exit].abs() <= (kl / 2).sqrt() + 1e-10
                closest = max(closest, float(change[exit].abs() / (kl / 2).sqrt()))
    print(f"KL per answer: a share changed by at most {closest:.2f} of sqrt(KL/2)")
    assert closest > 0.5


@pytest.mark.slow
def test_how_often_a_step_at_one_exit_harms_another():
    """A short exact gradient step on J of exit 0, on random problems: the less alike, the more harm."""
    shares = []
    for alike in (0.0, 0.5, 0.9):
        harmed = agreed = count = 0
        for seed in range(100):
            p = problem(seed, gamma=0.9, alike=alike)
            rng = torch.Generator().manual_seed(2000 + seed)
            theta = torch.randn(WIDTH, ACTIONS, generator=rng, dtype=torch.float64).requires_grad_()
            before = returns(p, p.policy(theta))
            gradients = [
                torch.autograd.grad(before[exit], theta, retain_graph=True)[0] for exit in range(EXITS)
            ]
            step = 1e-4 * gradients[0] / gradients[0].norm()
            change = (returns(p, p.policy(theta + step)) - before).detach()
            assert change[0] > 0
            for exit in (1, 2):
                opposite = (gradients[0] * gradients[exit]).sum() < 0
                harmed += int(change[exit] < 0)
                agreed += int((change[exit] < 0) == opposite)
                count += 1
        print(f"features that correlate {alike}: a step that helps exit 0 harms another in {harmed}/{count} cases; "
              f"the gradients' angle says which in {agreed}")  # fmt: skip
        shares.append(harmed / count)
        assert agreed >= 0.98 * count
    assert 0.4 < shares[0] < 0.6
    assert shares[0] > shares[1] > shares[2]
