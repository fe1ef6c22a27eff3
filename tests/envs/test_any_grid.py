"""Random worlds with everything in them at once: the tables say what the slow oracle says, state by state."""

import random
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.language import world
from tests.oracles.gridlanguage import ROSE, Agent, Grid

OWN = {  # kinds beyond the common ones
    "gate": 'glyph = "="\nsolid = true',
    "portal": 'glyph = "P"\nto = "landing"',
    "landing": 'glyph = "l"',
    "spring": 'glyph = "A"\nexit = "far"',
    "far": 'glyph = "a"\ncue = true',
    "ice": 'glyph = "i"\nturn = "back"',
    "mud": 'glyph = "m"\nturn = "left"',
    "redkey": 'glyph = "r"\nkey = "red"',
    "reddoor": 'glyph = "R"\ndoor = "red"',
    "bluekey": 'glyph = "b"\nkey = "blue"',
    "bluedoor": 'glyph = "B"\ndoor = "blue"',
}
NAMES = ["floor", "forbidden", "goal", "hole", "cliff", "start", *OWN]


def written(draw: random.Random) -> str:
    """Some world, as TOML."""

    def table(name: str, values: dict) -> str:
        return f"[{name}]\n" + "".join(f'"{key}" = {value}\n' for key, value in values.items())

    def some(names: list[str]) -> dict[str, int]:
        return {name: draw.randint(-9, 9) for name in draw.sample(names, draw.randint(0, 5))}

    def chances(names: list[str]) -> dict[str, str]:
        weights = {name: draw.randint(1, 3) for name in draw.sample(names, draw.randint(1, len(names)))}
        return {name: f'"{weight}/{sum(weights.values())}"' for name, weight in weights.items()}

    rows, cols = draw.randint(1, 4), draw.randint(3, 5)
    cells = [draw.choice("....#xGHCPAim=" + "rRbB" * draw.randint(0, 2)) for _ in range(rows * cols)]
    for once, glyph in zip(draw.sample(range(rows * cols), 3), "Sla", strict=True):
        cells[once] = glyph
    kept = 0
    for i, glyph in enumerate(cells):
        kept += glyph in "rRbB"
        cells[i] = "." if glyph in "rRbB" and kept > 4 else glyph
    text = 'map = """\n' + "".join("".join(cells[r * cols : (r + 1) * cols]) + "\n" for r in range(rows)) + '"""\n'
    moves = [*ROSE, "stay"] if draw.random() < 0.5 else [*ROSE[::2], "stay"]
    text += f"actions = {draw.sample(moves, draw.randint(1, 5))}\n"
    text += f"alike = {draw.sample(NAMES, draw.randint(0, 4))}\n"
    start = draw.choice(["map", "uniform", "weights"])
    text += f'start = "{start}"\n' if start != "weights" else ""
    text += table("start", {"start": 2, "floor" if "." in cells else "far": 1, "ice": 0}) if start == "weights" else ""
    text += table("reward", some(["step", "bump", *NAMES])) + table("leave", some(NAMES))
    text += table("slip", chances(["forward", "left", "right", "back"])) if draw.random() < 0.5 else ""
    if draw.random() < 0.5:
        text += table("wind", {"up": [draw.randint(-2, 2) for _ in range(cols)]})
        text += table("wind.varies", chances(["-1", "0", "1"])) if draw.random() < 0.5 else ""
    for cue, chance in chances(["north", "south", "west"]).items() if draw.random() < 0.5 else ():
        text += table(f"cue.{cue}", {"chance": chance}) + table(f"cue.{cue}.reward", some(NAMES))
    own = OWN | ({"landing": OWN["landing"] + "\nterminal = true"} if draw.random() < 0.3 else {})
    return text + "".join(f"[cell.{name}]\n{kind}\n" for name, kind in own.items())


@settings(max_examples=100, deadline=None)
@given(draw=st.randoms(use_true_random=False))
def test_any_world_means_what_the_slow_oracle_says(draw: random.Random) -> None:
    text = written(draw)
    found, truth = world(text, "random.toml", "random"), Grid(text)
    mdp, layout = found.mdp, found.layout
    cells = [tuple(cell) for cell in layout.cell.tolist()]
    names = ("next_state", "reward", "terminated", "prob")
    next_state, reward, terminated, prob = (getattr(mdp, name).tolist() for name in names)
    assert [cells[s] for s in range(len(truth.cells))] == list(truth.cells)  # mode 0, in map order
    assert layout.mode.tolist() == sorted(layout.mode.tolist())

    # the agents that stand in mode 0 and its like with other cues, whether or not they can come there
    cues = list(truth.doc.get("cue", {"": 0}))
    memory = {(frozenset(), frozenset(), cue): mode for mode, cue in enumerate(cues)}
    special = ("key", "door")
    todo = [
        Agent(cell, frozenset(), frozenset(), cue)
        for cell, kind in truth.cells.items()
        for cue in cues
        if not any(truth.kinds[kind].get(key) for key in special)
    ]
    number = {}  # state of each agent
    while todo:
        agent = todo.pop()
        if agent in number:
            continue
        mode = memory[agent[1:]]
        s = number[agent] = int(layout.states[mode][agent.cell])
        for a, action in enumerate(found.action_names):
            expected = truth.outcomes(agent, action)
            there = {after.cell: after for after, _, _ in expected}
            told = defaultdict(float)
            for k in range(mdp.outcomes):
                if p := prob[s][a][k]:
                    n = next_state[s][a][k]
                    assert cells[n] in there, text
                    after = there[cells[n]]
                    assert memory.setdefault(after[1:], int(layout.mode[n])) == int(layout.mode[n]), text
                    told[after, reward[s][a][k], terminated[s][a][k]] += p
                    todo.append(after)
            assert dict(told) == pytest.approx(expected), (text, agent, action)
    assert len(set(memory.values())) == len(memory)  # a mode each

    begins = torch.zeros(mdp.states, dtype=torch.float64)
    for agent, chance in truth.starts().items():
        begins[number[agent]] += chance
    torch.testing.assert_close(mdp.start, begins)

    sights = defaultdict(set)
    for agent, s in number.items():
        used = agent.cell in agent.taken | agent.opened
        assert layout.look[layout.mode[s], *agent.cell] == (0 if used else layout.look[0, *agent.cell])  # 0 is floor
        sights[truth.sees(agent)].add(s if layout.alike is None else int(layout.alike[s]))
        hands = {f"{colour} key": truth.hand(agent, colour) for colour in ("red", "blue")}
        shown = {f"cue {cue}": float(cue == truth.sees(agent)[3]) for cue in cues if cue}
        for v, name in enumerate(layout.badge_names):
            glyph = name[0]
            share = hands[name] / text[: text.rindex('"""')].count(glyph) if name in hands else shown[name]
            assert layout.badges[s, v].item() == pytest.approx(share)
    assert all(len(shown) == 1 for shown in sights.values())
    assert len({min(shown) for shown in sights.values()}) == len(sights)
    if layout.alike is not None:
        assert (layout.alike <= torch.arange(mdp.states)).all()
        assert torch.equal(layout.alike[layout.alike], layout.alike)
