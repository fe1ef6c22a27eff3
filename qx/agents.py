"""`qx train`: agents on worlds, R replicas side by side, measured against the exact optimum where there is one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro
from torch import Tensor

import envs
from lab import console
from lab.run import Run
from qx import agent_list, agent_report, schedules
from qx.jobs import device_of, show, start
from qx.usage import Common, Lasting, UsageError, asked, choose, from_tree, parse, to_tree
from qx.worlds import discount, overrides
from rl import saved
from rl.agents import RECIPES, defaults, trainer
from rl.evaluate import Evaluation, evaluate, judged
from rl.sb3_learners import LEARNERS
from rl.train import TrainConfig
from rl.types import Predictor

C = TypeVar("C")
WATCHED = 1500  # states; on larger worlds the exact value is computed at the end only

HELP = """usage: qx train AGENT WORLD [options]

  AGENT  one of these (`qx agents` says a line about each)

{agents}

  WORLD  a name from `qx worlds`, a TOML file, or a Gymnasium id with discrete actions (CartPole-v1, ALE/Pong-v5)

`qx train AGENT WORLD --help` lists the options, with the defaults that hold for that agent on that world.
For a first run: qx train q-learning zhao-5x5"""


@dataclass(frozen=True, kw_only=True)
class Train(Lasting, Generic[C]):
    """Train an agent; prints its interquartile mean over replicas, a 95% interval, and the gap to the exact optimum."""

    agent: C
    train: TrainConfig
    replicas: int = 5
    """Independent learners, trained side by side. With more of them the interval is narrower."""
    episodes: int = 20
    """Episodes that each replica plays at the end, by the policy that it is judged by. With more of them a world
    without tables is judged more surely."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the world: KEY=VALUE, e.g. --set reward.forbidden=-10. Repeat for more."""


class TrainJob:
    """One training of an agent on a world, prepared."""

    command = "train"

    def __init__(self, agent: str, world: str, options: Train[Any]) -> None:
        self.options, self.device = options, device_of(options)
        self.asked_agent, self.asked_world = agent, world
        self.inputs: tuple[Path, ...] = (Path(world),) if Path(world).is_file() else ()
        self.world = envs.load(world, overrides(options.set))
        config, length = options.agent, options.train
        if getattr(config, "capacity", length.worlds) < length.worlds:
            raise UsageError(f"--capacity {config.capacity}: expected at least the {length.worlds} worlds of a replica")
        self.gamma = discount(config.gamma, self.world.discount)
        common: dict[str, Any] = {"replicas": options.replicas, "seed": options.seed, "device": self.device}
        with asked(f"{agent} on {world}"):
            self.trainer = _trainer(agent)(agent, self.world, config, length, **common)
        self.agent = self.trainer.agent
        self.in_turn = options.replicas if agent in LEARNERS else 1  # how many learn one after another
        self.name = f"{agent}-{self.world.name}".replace(":", "-").replace("/", "-")
        self.total = length.steps * self.in_turn
        self.headline: tuple[str, ...] = ("replica", "value", "return", "loss", "td_error")
        self.watch()  # a world without a finite optimum is refused here, before anything is written

    def config(self) -> dict[str, Any]:
        """What `reopen` needs to make this job again."""
        [world] = [str(path.resolve()) for path in self.inputs] or [self.asked_world]
        return {"agent": self.asked_agent, "world": world, "options": to_tree(self.options)}

    def watch(self) -> Mapping[str, Tensor]:
        """`value`: what each replica would be judged by now, on tables small enough."""
        if not isinstance(self.world, envs.World) or self.world.mdp.states > WATCHED:
            return {}
        learning = self.trainer.running if self.asked_agent in LEARNERS else self.agent
        found = judged(learning, self.world, gamma=self.gamma, observation=self.options.agent.observation)
        return {} if found is None else {"value": found[0]}

    def evaluate(self) -> dict[str, Any]:
        o = self.options
        seen = o.agent.observation
        found: Evaluation = evaluate(
            self.agent, self.world, gamma=self.gamma, observation=seen, seed=o.seed, episodes=o.episodes
        )
        never = int((found.returns == -math.inf).sum())  # which JSON cannot say
        result = dataclasses.asdict(found) | {"gap": found.gap, "gamma": self.gamma, "never_arrive": never}
        return result | {"world": self.world.name, "replicas": o.replicas, "steps": self.trainer.step // self.in_turn}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        saved.save(run.path / "agent", self.learned(result["returns"]))
        agent_report.draw(run, self.world, self.agent, self.options.agent.observation, self.gamma, result)

    def learned(self, returns: Sequence[float | None] = ()) -> saved.Saved:
        """The agent as it stands, with what its replicas were judged to be worth."""
        scores = tuple(-math.inf if one is None else one for one in returns)
        origin = saved.Origin(self.asked_world, overrides(self.options.set))
        return saved.Saved(self.agent, self.asked_agent, self.options.agent, self.world, origin, scores)

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        low, high = (_number(end) for end in result["ci95"])
        iqm = f"{_number(result['iqm'])}   95% interval {low} to {high}, {result['replicas']} replicas"
        rows = [("iqm", iqm)]
        if result["optimal_return"] is not None:
            rows.append(("optimum", f"{result['optimal_return']:.4g}   gap {_number(result['gap'], 'infinite')}"))
        rows.append(("measure", str(result["measure"])))
        played, never = result["episode_returns"], result["never_arrive"]
        if never:
            rows.append(("never arrive", f"{never} of {result['replicas']} replicas: their policies go in circles"))
        if played is not None and result["optimal_return"] is not None and not isinstance(self.agent, Predictor):
            other = " (another measure)" if self.gamma != 1 else ""
            rows.append(("played", f"{sum(played) / len(played):.4g} undiscounted, mean of the episodes{other}"))
        epsilon = schedules.unfinished(self.options.agent, result["steps"])
        if epsilon is not None:
            rows.append(("note", f"exploring was not over: epsilon is still {epsilon:.2g}"))
        return [*rows, ("run", str(result["run"]))]


def _number(found: float | None, endless: str = "minus infinity") -> str:
    """A number of the result in words; None is one without end: undiscounted, a greedy policy may cost for ever."""
    return endless if found is None else f"{round(found, 9) + 0.0:.4g}"


def train(args: Sequence[str]) -> dict[str, Any]:
    """`qx train AGENT WORLD`."""
    if not args or args[0] in ("-h", "--help"):
        console.out.print(HELP.format(agents=agent_list.names()), markup=False, soft_wrap=True)
        raise SystemExit(0 if args else 2)
    agent = choose("agent", args[0], RECIPES)
    if len(args) < 2 or (args[1].startswith("-") and args[1] not in ("-h", "--help")):
        raise UsageError(
            f"qx train {agent}: expected a world next, as in `qx train {agent} zhao-5x5` (see `qx worlds`)"
        )
    world, rest = (args[1], args[2:]) if not args[1].startswith("-") else ("WORLD", args[1:])
    options = _asked(agent, world, rest)
    job = TrainJob(agent, world, options)
    _, result = start(job, job.config(), options)
    show(job, result)
    return result


def _asked(agent: str, world: str, args: Sequence[str]) -> Train[Any]:
    """The options; where --steps is unusual, schedules that are not asked for keep their share of the run."""
    kind, prog, usual = _kind(agent), f"qx train {agent} {world}", _defaults(agent, world)
    options: Train[Any] = parse(kind, args, prog, usual)
    steps = options.train.steps
    if steps == usual.train.steps:
        return options
    stretch = schedules.stretched(agent, usual.agent, usual.train, steps)
    options = parse(kind, args, prog, dataclasses.replace(usual, agent=stretch))
    if said := schedules.told(options.agent, usual.agent, stretch, steps):
        console.err.print(f"[dim]{said}")
    return options


def _trainer(agent: str) -> Any:
    """What makes the training loop of an agent: ours, or stable-baselines3's, which is imported only where it is."""
    if agent not in LEARNERS:
        return trainer
    from rl import sb3_train

    return sb3_train.trainer


def _kind(agent: str) -> Any:
    """`Train` with the agent's own config."""
    config = RECIPES[agent].config
    return Train[config]  # type: ignore[valid-type]  # a type that is chosen when the command is run


def _defaults(agent: str, world: str) -> Train[Any]:
    config, length = defaults(agent, world)
    return Train(agent=config, train=length)


def reopen(run: Run, common: Common) -> TrainJob:
    """The job of a run of `qx train`."""
    agent = choose("agent", run.config["agent"], RECIPES)
    options = from_tree(_kind(agent), run.config["options"])
    return TrainJob(agent, run.config["world"], dataclasses.replace(options, device=common.device))
