"""How far back a loss is felt: the gradient with respect to earlier states of a plain recurrent network and an LSTM.

    RNN    dh_T/dh_{T-k} = prod_t diag(1 - h_t^2) U          so  |.| <= (sigma_max(U) max tanh')^k
    LSTM   dc_T/dc_{T-k} = prod_t diag(f_t) + what passes h and the gates,  f = sigmoid(... + b)

Fitted is the decay a step of the root mean square of the gradient, k = 10 ... K. Its prediction comes from the forward
pass alone. The RNN's Jacobians scatter about a mean, and with U orthogonal times sigma squares add: sigma rms(tanh') a
step. The LSTM's are nearly the same at every step, since f and i stay away from 0: the decay is the spectral radius of
their mean, d(c_t, h_t)/d(c_{t-1}, h_{t-1}) [2 H, 2 H]. It is above the mean forget gate by what goes round through h.

Key: T steps, H width, sigma the gain of U, b the bias of the forget gate, k the distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from backbones.initialise import build
from backbones.recurrent import ROLES, Recurrent
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

GAINS = (0.6, 0.8, 1.0, 1.2)  # sigma
BIASES = (0.0, 1.0, 3.0, 5.0)  # b
FIRST = 10  # distance from which the decay is fitted: past the first steps, where directions have not mixed

CLAIM = Claim(
    claim="The gradient of a plain recurrent network vanishes exponentially with distance, at a rate that its weights "
    "predict; an LSTM whose forget gate begins open keeps it.",
    source="Bengio, Simard & Frasconi 1994, sec. IV; Pascanu, Mikolov & Bengio 2013, sec. 2.1; Hochreiter & "
    "Schmidhuber 1997, sec. 4; Gers, Schmidhuber & Cummins 2000",
    stated={
        "gradient left halfway back: RNN, sigma = 1": "< 1e-3",
        "gradient left halfway back: LSTM, forget bias 1": "> 100 x the RNN's",
        "gradient left halfway back: LSTM, forget bias 5": "> 0.1",
        "RNN: gradient over its bound, at most": "<= 1",
        "RNN: decay found over predicted, at worst": "1 +- 0.05",
        "LSTM: decay found over predicted, at worst": "1 +- 0.05",
    },
)


@dataclass(frozen=True)
class Decay:
    """Of one network.

    Attributes:
        norm: root mean square of dL/dstate_{T-k} over that at k = 0, k = 0 ... K.
        predicted: decay a step, from the forward pass.
        bound: largest possible decay a step (1 where there is none).
    """

    norm: Float64[Tensor, "K"]
    predicted: float
    bound: float = math.inf

    @property
    def rate(self) -> float:
        """Decay a step: the slope of log norm against k, by least squares."""
        y = self.norm[FIRST:].log()
        k = torch.arange(len(y), dtype=torch.float64)
        k = k - k.mean()
        return float(((k * y).sum() / k.square().sum()).exp())


def run(setting: Setting) -> Finding:
    """All of them at width 64 over 200 steps, 32 sequences."""
    return compare(setting, width=64, steps=200, batch=32)


def compare(setting: Setting, width: int, steps: int, batch: int) -> Finding:
    """The experiment at any size."""
    plain, gated = {}, {}
    total = len(GAINS) + len(BIASES)
    for i, gain in enumerate(GAINS):
        plain[gain] = rnn(setting, gain, width, steps, batch)
        setting.report((i + 1) / total, f"RNN, sigma {gain:g}")
    for i, bias in enumerate(BIASES):
        gated[bias] = lstm(setting, bias, width, steps, batch)
        setting.report((len(GAINS) + i + 1) / total, f"LSTM, forget bias {bias:g}")
    k = torch.arange(steps + 1, dtype=torch.float64)
    excess = max(float((d.norm / d.bound**k)[1:].max()) for d in plain.values())
    worst = [
        max((d.rate / d.predicted for d in networks.values()), key=lambda ratio: abs(math.log(ratio)))
        for networks in (plain, gated)
    ]
    far = steps // 2
    left = [float(d.norm[far]) for d in (plain[1.0], gated[1.0], gated[5.0])]
    found = [*left, excess, *worst]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"{far} steps back the RNN feels {left[0]:.1g} of a gradient, the LSTM {left[1]:.1g} with forget bias "
        f"1 and {left[2]:.2g} with 5 (which grows to {float(gated[5.0].norm[-1]):.2g} after {steps}): at "
        f"initialisation, on white noise, {width} wide",
        figure=_picture(plain, gated, far),
        header=("network", "decay a step", "predicted", f"left after {far} steps"),
        rows=[
            [name, f"{d.rate:.4f}", f"{d.predicted:.4f}", f"{float(d.norm[far]):.1e}"]
            for name, d in (
                *((f"RNN, sigma {gain:g}", d) for gain, d in plain.items()),
                *((f"LSTM, forget bias {bias:g}", d) for bias, d in gated.items()),
            )
        ],
    )


def judge(plain: float, gated: float, opened: float, excess: float, rnn_rate: float, lstm_rate: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    kept = plain < 1e-3 and gated > 100 * plain and opened > 0.1
    return kept and excess <= 1 + 1e-9 and max(abs(rnn_rate - 1), abs(lstm_rate - 1)) < 0.05


def rnn(setting: Setting, gain: float, width: int, steps: int, batch: int) -> Decay:
    """A plain network whose U is `gain` times orthogonal."""
    net = build(lambda: Recurrent("rnn", width, width), streams.generator(setting.seed, "rnn")).double()
    with torch.no_grad():
        net.get_parameter("weight_hh_l0").mul_(gain)
    states = _states(net.to(setting.device), setting, steps, batch)
    slope = torch.stack([1 - h.detach()[:, 0, 0].square() for h in states[1:]])  # [T, B, H], tanh'
    return Decay(_norms(states, setting, part=0), gain * float(slope.square().mean().sqrt()), gain)


def lstm(setting: Setting, bias: float, width: int, steps: int, batch: int) -> Decay:
    """An LSTM whose forget gate begins at sigmoid(bias)."""
    net = build(lambda: Recurrent("lstm", width, width), streams.generator(setting.seed, "lstm")).double()
    with torch.no_grad():
        net.get_parameter("bias_ih_l0")[width : 2 * width] = bias
    states = _states(net.to(setting.device), setting, steps, batch)
    return Decay(_norms(states, setting, part=1), _spectral(net, _inputs(net, setting, steps, batch), states))


@torch.no_grad()
def _spectral(net: Recurrent, x: Float64[Tensor, "B T I"], states: list[Tensor]) -> float:
    """The spectral radius of the mean Jacobian, the mean over sequences and steps."""
    h = torch.stack([state[:, 0, 0] for state in states[:-1]], dim=1)  # [B, T, H], before each step
    before, c = (torch.stack([s[:, 1, 0] for s in part], dim=1) for part in (states[:-1], states[1:]))
    w, u, b, b_state = (net.get_parameter(f"{role}_l0") for role in ROLES)
    sums = x @ w.T + h @ u.T + b + b_state
    i, f, g, o = sums.chunk(4, dim=-1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    Ui, Uf, Ug, Uo = u.chunk(4)

    def mean(y: Tensor) -> Tensor:
        return y.mean((0, 1)).diag()  # [H, H]

    def rows(scale: Tensor) -> list[Tensor]:
        """`scale` times d c_t / d (c_{t-1}, h_{t-1})."""
        gates = mean(scale * i * (1 - i) * g) @ Ui + mean(scale * f * (1 - f) * before) @ Uf
        return [mean(scale * f), gates + mean(scale * i * (1 - g.square())) @ Ug]

    lower = rows(o * (1 - c.tanh().square()))
    lower[1] = lower[1] + mean(o * (1 - o) * c.tanh()) @ Uo
    jacobian = torch.cat([torch.cat(rows(torch.ones_like(c)), dim=1), torch.cat(lower, dim=1)])
    return float(torch.linalg.eigvals(jacobian).abs().max())


def _inputs(net: Recurrent, setting: Setting, steps: int, batch: int) -> Float64[Tensor, "B T I"]:
    generator = streams.generator(setting.seed, "inputs")
    return torch.randn(batch, steps, net.inputs, generator=generator, dtype=torch.float64).to(setting.device)


def _states(net: Recurrent, setting: Setting, steps: int, batch: int) -> list[Tensor]:
    """The state before the first step and after each, [B, P, 1, H], every one a node of the graph."""
    states = [net.initial(batch).requires_grad_()]
    for x in torch.split(_inputs(net, setting, steps, batch), 1, dim=1):
        states.append(net(x, states[-1])[1])
    return states


def _norms(states: list[Tensor], setting: Setting, part: int) -> Float64[Tensor, "K"]:
    """Root mean square over sequences of |dL/ds_{T-k}| / |dL/ds_T| for L = v . s_T, v random; s is h or the cell."""
    last = states[-1]
    direction = torch.randn(last[:, part].shape, generator=streams.generator(setting.seed, "loss"), dtype=last.dtype)
    gradients = torch.autograd.grad((last[:, part] * direction.to(last.device)).sum(), states)
    norms = [g[:, part].square().mean().sqrt().cpu() for g in reversed(gradients)]
    return torch.stack(norms) / norms[0]


def _picture(plain: dict[float, Decay], gated: dict[float, Decay], far: int) -> Figure:
    """Gradient against distance, and the decay found against the decay predicted."""
    figure, (left, right) = plots.figure(1, 2, width=5.4, height=3.8)
    for colour, (networks, word) in enumerate(((plain, "RNN, $\\sigma$ ="), (gated, "LSTM, forget bias"))):
        for i, (value, d) in enumerate(networks.items()):
            shown = d.norm[d.norm > 1e-16]
            alpha = 0.4 + 0.6 * (i + 1) / len(networks)
            left.plot(
                range(len(shown)), shown.tolist(), color=plots.COLOURS[colour], alpha=alpha, linewidth=1.6,
                linestyle=("-", "--", "-.", ":")[i], label=f"{word} {value:g}",
            )  # fmt: skip
        right.plot(
            [d.predicted for d in networks.values()], [d.rate for d in networks.values()], "os"[colour],
            color=plots.COLOURS[colour], markersize=6, label=("RNN", "LSTM")[colour],
        )  # fmt: skip
    left.set_yscale("log")
    left.set_ylim(1e-16, 1e4)
    title = (
        f"{far} steps back: {float(gated[5.0].norm[far]):.2g} with forget bias 5, RNN {float(plain[1.0].norm[far]):.0e}"
    )
    plots.label(left, title, "distance k, steps", "gradient at T - k over that at T")
    left.legend(frameon=False, fontsize=7.5, labelcolor=plots.INK, ncol=1, loc="center left", bbox_to_anchor=(1, 0.5))
    right.plot([0.3, 1.05], [0.3, 1.05], color=plots.INK, linewidth=1, linestyle=(0, (4, 3)), label="found = predicted")
    worst = max(abs(d.rate / d.predicted - 1) for networks in (plain, gated) for d in networks.values())
    plots.label(
        right, f"The forward pass predicts the decay to {worst:.1%}", "predicted decay a step", "found decay a step"
    )
    plots.legend(right, "lower right")
    return figure
