"""The claims on mazes walked after preferences, small; the rule of the first; what is held out, and best of n."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType

import pytest
import torch

from experiments import corrupted_mazes, maze_course, preferred_mazes
from experiments.claim import Setting
from experiments.maze_course import TOKENIZER, Score, Sizes, unseen
from experiments.preferred_mazes import apart, best_of, columns, judge, ranked_right
from experiments.students import half, interval
from generative.language import mazes
from generative.language.model import ModelConfig
from generative.preference.best import scored
from generative.preference.pairs import Pair
from generative.preference.reward import RewardModel
from generative.train import TrainConfig
from lab import streams
from qx.maze_report import held_out

FEW = TrainConfig(steps=4, batch_size=8, warmup=2)
TINY = Sizes(
    **{"examples": 60, "pairs": 24, "held": 6, "judged": 12, "seeds": 2},
    **{"first": FEW, "second": FEW, "alone": FEW, "reward": FEW},
    model=ModelConfig(width=16, depth=1, heads=2),
)


@pytest.mark.parametrize("claim", [preferred_mazes, corrupted_mazes], ids=lambda claim: claim.__name__)
def test_a_small_run(claim: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly trained models do not walk; the finding's parts fit each other."""
    monkeypatch.setattr(claim, "LONGEST", 5)
    shares: list[float] = []
    setting = Setting(0, torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = claim.compare(setting, TINY)
    assert list(finding.found) == list(claim.CLAIM.stated)
    assert not finding.holds
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert all(len(row) == len(finding.header) for row in finding.rows)


def test_the_interval_is_students() -> None:
    """Of five seeds 2.776 standard errors either way."""
    mean, low, high = interval(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
    assert mean == 3
    assert high - mean == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert mean - low == pytest.approx(high - mean)


def test_half_of_it_by_hand() -> None:
    """Of 1, 3, 5, 7: deviation 2.58199, of 3 degrees 3.18245, over the root of four numbers."""
    assert half(torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)) == pytest.approx(4.1085, abs=1e-4)
    assert half(torch.tensor([1.0], dtype=torch.float64)) == math.inf


def test_the_rule_takes_each_seed_against_itself() -> None:
    """Gains of every seed are seen although the seeds lie far apart; one seed that loses undoes them."""
    names = ("before", "DPO", "DPO alone", "SFT", "SFT, twice", "one draw", "best of 4", "best of 16")
    rest = dict.fromkeys(names[3:], Score(0.5, 0.5))

    def course(before: float, gain: float) -> dict[str, Score]:
        after = Score(before + gain, before + gain)
        return {"before": Score(before, before), "DPO": after, "DPO alone": after, **rest}

    good = [course(before, 0.1) for before in (0.1, 0.4, 0.8)]
    finding = judge(good, [0.9] * 3, TINY)
    assert finding.holds
    assert [row[0] for row in finding.rows] == list(names)
    assert "minus SFT by twice the updates" in finding.verdict
    assert not judge([*good, course(0.5, -0.1)], [0.9] * 4, TINY).holds
    assert columns(good)["success"]["before"].tolist() == [0.1, 0.4, 0.8]


def test_mazes_to_judge_by_are_never_trained_on_nor_were_looked_at() -> None:
    """None has walls of the mazes that `qx` judges every model on; of more the first are the same."""
    texts, looked_at = unseen(0, 50), held_out()
    assert len(texts) == 50
    assert unseen(0, 60)[:50] == texts
    assert len(looked_at) == maze_course.LOOKED_AT
    assert all(mazes.held_out(text) for text in texts)
    assert not {filled(text) for text in texts} & {filled(text) for text in looked_at}


def filled(text: str) -> tuple[bool, ...]:
    return tuple(mark == "#" for mark in text)


def test_it_says_where_there_are_too_few_mazes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maze_course, "PATIENCE", 1)
    with pytest.raises(ValueError, match=r"^40 mazes drawn: \d+ have walls that were not looked at; expected 40$"):
        unseen(0, 40)


def test_updates_are_those_of_every_training() -> None:
    """Demonstrations, DPO, DPO alone, SFT, SFT by twice as many, and the reward model."""
    sizes = dataclasses.replace(
        TINY,
        seeds=3,
        first=TrainConfig(steps=100),
        second=TrainConfig(steps=10, warmup=3),
        alone=TrainConfig(steps=1),
        reward=TrainConfig(steps=1000),
    )
    assert sizes.updates == 3 * (100 + 10 + 1 + 10 + 20 + 1000)
    assert sizes.twice == TrainConfig(steps=20, warmup=3)


def test_pairs_held_out_are_of_mazes_not_learned_from() -> None:
    pairs = [Pair(f"{maze}\n", "R", "L") for maze in ("SG", "S.G", "SG", "S..G", "S.G", "S...G")]
    assert apart(pairs, 3) == (pairs[:3], [pairs[3], pairs[5]])


def test_best_of_n_is_the_best_of_the_first_n_by_their_own_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of four mazes one draw reaches the goal: of the first draw 0, which has the highest score, and so on."""
    good, highest = [0, 2, 9, 1], [0, 2, 9, 3]
    walks = [[[*TOKENIZER.encode("RR" if k == place else "U"), TOKENIZER.eos] for k in range(16)] for place in good]
    told = torch.nn.functional.one_hot(torch.tensor(highest), 16).float()
    monkeypatch.setattr(preferred_mazes, "drawn", lambda *given, **more: walks)
    monkeypatch.setattr(preferred_mazes, "scored", lambda *given, **more: told)
    model = TINY.model.make(TOKENIZER.size, streams.generator(0, "weights"))
    found = best_of(model, RewardModel(model.transformer), ["S.G\n"] * 4, 0, torch.device("cpu"))
    assert {name: score.success for name, score in found.items()} == {
        **{"one draw": 1 / 4, "best of 4": 2 / 4, "best of 16": 3 / 4}
    }


def test_the_reward_model_is_right_of_pairs_whose_chosen_side_it_scores_higher() -> None:
    """As `scored` has the sides one by one; of pairs turned round it is the rest."""
    body = TINY.model.make(TOKENIZER.size, streams.generator(0, "weights")).transformer
    reward = RewardModel(body)
    pairs = [Pair("S.G\n", "RR", "RL"), Pair("S.G\n", "LR", "UL"), Pair("S.G\n", "RL", "RR")]
    prompts = [[TOKENIZER.bos, *TOKENIZER.encode(str(pair.prompt))] for pair in pairs]
    sides = [[[*TOKENIZER.encode(str(side)), TOKENIZER.eos] for side in (pair.chosen, pair.rejected)] for pair in pairs]
    with torch.no_grad():
        reward.head += torch.randn(16, generator=streams.generator(1, "head"))
    told = scored(reward, prompts, sides, device=torch.device("cpu"))
    right = sum(bool(chosen > rejected) for chosen, rejected in told)
    assert ranked_right(reward, pairs, torch.device("cpu")) == pytest.approx(right / 3)
    assert ranked_right(reward, [Pair(p.prompt, p.rejected, p.chosen) for p in pairs], torch.device("cpu")) == (
        pytest.approx(1 - right / 3)
    )
