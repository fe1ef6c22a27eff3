"""Who listens while our DQN with stable-baselines3's face learns: their callbacks, and their logger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import safe_mean
from torch import Tensor


def called(callback: Any, progress_bar: bool) -> BaseCallback:
    """Their kinds of callback (none, a function, a list, their class) as one."""
    if callback is None or isinstance(callback, list):
        callback = CallbackList(callback or [])
    elif not isinstance(callback, BaseCallback):
        callback = ConvertCallback(callback)
    return CallbackList([callback, ProgressBarCallback()]) if progress_bar else callback


def record(
    logger: Logger,
    reports: Iterable[Mapping[str, Float[Tensor, "R"]]],
    ended: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int | float],
) -> None:
    """Tell their logger, under their names.

    Args:
        logger: not written out here.
        reports: what our trainer said of one replica, oldest first; the last loss counts.
        ended: return `r` and length `l` of the last episodes.
        counts: other numbers by their name; those of `time/` are not for TensorBoard.
    """
    if ended:
        logger.record("rollout/ep_rew_mean", safe_mean([one["r"] for one in ended]))
        logger.record("rollout/ep_len_mean", safe_mean([one["l"] for one in ended]))
    for name, number in counts.items():
        logger.record(name, number, exclude="tensorboard" if name.startswith("time/") else None)
    for said in reports:
        if "loss" in said:
            logger.record("train/loss", float(said["loss"]))
