"""What may be said after every look: by hand, by exact probabilities, and in simulation (`-s` prints it)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from layeralign.analysis.sequential import looks
from layeralign.errors import LayeralignError
from layeralign.stats.confidence_sequences import confidence_sequence, share_confidence_sequence, sign_test
from layeralign.stats.proportions import wilson
from simulated import QUICK, crossed, grid


class TestAlwaysValid:
    def test_by_hand(self):
        # one hit of one: the mixture gives B(3/2, 1/2) / B(1/2, 1/2) = 1/2, and p = (1/2) / 20 is the end
        assert confidence_sequence(1, 1) == pytest.approx((0.025, 1))
        # none of two: the mixture gives (1/2) (3/4) = 3/8, and (1 - p)² = 3/160
        assert confidence_sequence(0, 2) == pytest.approx((0, 1 - (3 / 160) ** 0.5))
        assert confidence_sequence(0, 0) == (0, 1)
        for hits, n in ((-1, 3), (4, 3)):
            with pytest.raises(LayeralignError, match="between 0 and n"):
                confidence_sequence(hits, n)

    @QUICK
    @given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_properties(self, counts):
        hits, n = counts
        low, high = confidence_sequence(hits, n)
        assert 0 <= low <= hits / n <= high <= 1
        assert low < high
        assert (1 - high, 1 - low) == pytest.approx(confidence_sequence(n - hits, n), abs=1e-9)
        more = confidence_sequence(2 * hits, 2 * n)
        assert more[1] - more[0] < high - low
        wilsons = wilson(hits, n)
        assert high - low > (wilsons[1] - wilsons[0]) * 0.95  # what it costs to look at any time

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
    def test_looks_after_every_row_exactly(self, share):
        cap = 120
        alive = np.array([1.0])  # probability of each number of hits, never left out so far
        for n in range(1, cap + 1):
            alive = np.append(alive * (1 - share), 0) + np.append(0, alive * share)
            for hits in np.flatnonzero(alive > 1e-9):
                low, high = confidence_sequence(int(hits), n)
                alive[hits] *= low <= share <= high
        print(f"confidence sequence at {share}, a look after each of {cap} rows: {alive.sum():.4f}")
        assert 0.95 <= alive.sum() <= 1

    def test_a_stricter_level_by_hand(self):
        # none of two at 1 %: (1 - p)² = (3/8) / 100
        assert confidence_sequence(0, 2, 0.01) == pytest.approx((0, 1 - (3 / 800) ** 0.5))


class TestClustered:
    def test_rows_that_share_nothing_are_independent(self):
        flags = [i < 9 for i in range(30)]
        found = share_confidence_sequence(flags, range(30), [None] * 30)
        assert found == (*confidence_sequence(9, 30), "confidence sequence")
        assert share_confidence_sequence([], [], []) == (None, None, "")

    def test_clustered_rows_count_as_as_many_as_they_are_worth(self):
        flags = [p < 3 for p in range(10) for _ in range(5)]
        prompts = [p for p in range(10) for _ in range(5)]
        low, high, method = share_confidence_sequence(flags, prompts, [None] * 50)
        # nine rows (test_intervals), less what t of nine degrees of freedom is wider than z at z's probability;
        # z² = 2 log 20 + log(50 π / 2)
        z = (2 * np.log(20) + np.log(25 * np.pi)) ** 0.5
        worth = 9 * (z / student.isf(norm.sf(z), 9)) ** 2
        assert 4 < worth < 5
        assert (low, high) == pytest.approx(confidence_sequence(0.3 * worth, worth))
        assert method == "confidence sequence, clustered by prompt"

    @pytest.mark.parametrize(
        ("prompts", "pictures", "share", "of_prompts", "of_pictures"),
        [(20, 20, 0.1, 2, 0), (10, 10, 0.5, 2, 2), (100, 3, 0.1, 2, 2), (20, 20, 0.02, 0, 2)],
    )
    @pytest.mark.slow
    def test_how_often_it_is_ever_wrong(self, prompts, pictures, share, of_prompts, of_pictures):
        rng, runs, wrong = np.random.default_rng(7), 120, 0
        keys = np.array(grid(prompts, pictures))
        for flags in crossed(rng, prompts, pictures, share, of_prompts, of_pictures, runs):
            mixed = rng.permutation(len(flags))
            row, (one, other) = flags[mixed].tolist(), keys[:, mixed].tolist()
            found = (share_confidence_sequence(row[:n], one[:n], other[:n]) for n in looks(len(row)))
            wrong += any(not low <= share <= high for low, high, _ in found)
        print(f"ever wrong, {prompts} × {pictures} at {share}: {wrong / runs:.3f}")
        assert wrong / runs <= 0.05


def alone(more, fewer, alpha):
    """Of pairs that share nothing."""
    n = more + fewer
    return sign_test([(i < more, i, i) for i in range(n)], alpha)


class TestTips:
    def test_by_hand(self):
        """All n one way: C(2n, n) / 4^n times 2^n. 14.4 at six, below 1 / 5 %; 26.8 at seven."""
        assert [alone(n, 0, 0.05) for n in (0, 1, 6, 7, 8)] == [0, 0, 0, 1, 1]
        assert [alone(0, n, 0.05) for n in (6, 7)] == [0, -1]
        # at 0.05 / 8, 160 to reach: 94.98 at nine, 180.4 at ten
        assert [alone(n, 0, 0.05 / 8) for n in (9, 10)] == [0, 1]
        assert alone(50, 50, 0.05) == 0

    def test_pairs_that_share_a_prompt_say_less(self):
        assert sign_test([(True, i // 4, i) for i in range(20)], 0.05) == 0, "five prompts"
        assert sign_test([(True, i // 4, i) for i in range(28)], 0.05) == 1, "seven"

    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_a_fair_coin_is_called_unfair_exactly_so_often(self, alpha):
        alive, least = np.array([1.0]), 1  # the fewest of n that are said to be more
        for n in range(1, 250):
            alive = (np.append(alive, 0) + np.append(0, alive)) / 2
            least += alone(least, n - least, alpha) != 1 if n >= least else 0
            assert least > n or alone(least - 1, n - least + 1, alpha) == 0
            assert least > n or (alone(least, n - least, alpha), alone(n - least, least, alpha)) == (1, -1)
            alive[least:] = 0
            alive[: max(0, n - least + 1)] = 0
        print(f"fair coin, a look after each of 250, alpha {alpha}: {1 - alive.sum():.4f}")
        assert 0.2 * alpha < 1 - alive.sum() <= alpha

    @pytest.mark.parametrize(("more", "fewer"), [(10, 10), (60, 60), (30, 31), (20, 60)])
    @pytest.mark.slow
    def test_a_list_gone_through_in_random_order_is_misread_exactly_so_often(self, more, fewer):
        """Which way it is called although the whole list does not fall that way, drawing without putting back."""
        alive, wrong = np.array([1.0]), 0.0
        for n in range(1, more + fewer + 1):
            left = more + fewer - n + 1
            drawn = np.arange(n)
            up = np.clip((more - drawn) / left, 0, 1)
            down = np.clip((fewer - (n - 1 - drawn)) / left, 0, 1)
            alive = np.append(alive * down, 0) + np.append(0, alive * up)
            said = np.array([alone(s, n - s, 0.05) for s in range(n + 1)])
            wrong += alive[(said == 1) | ((said == -1) & (more == fewer))].sum()
            alive *= said == 0
        print(f"{more} more, {fewer} fewer: {wrong:.4f}")
        assert wrong <= 0.05
        assert wrong > 0 or more < fewer
