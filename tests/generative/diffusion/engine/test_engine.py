"""The batched loop: exact moments, agreement with plain loops, and independence of a sample from its company."""

from collections.abc import Callable
from dataclasses import replace

import diffusers
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from backbones.unet import UNet
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.schedule import cosine, linear
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.solvers.solver import Levels, compile_solver, ddim, trailing
from lab import streams
from tests.oracles.gaussian import Gaussian, moments

DATA = Gaussian(
    torch.tensor([0.4, -0.7, 0.1], dtype=torch.float64),
    torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, -0.1], [0.0, -0.1, 0.2]], dtype=torch.float64),
)
COSINE, LINEAR = ClosedForms(cosine(), "v"), ClosedForms(linear(), "eps")


def exact_velocity(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """What a perfect network trained on DATA with the cosine schedule says."""
    alpha, sigma = cosine().alpha(t.long()), cosine().sigma(t.long())
    x0 = DATA.denoise(x.double(), alpha, sigma)
    eps = (x.double() - alpha[:, None] * x0) / sigma[:, None]
    return (alpha[:, None] * eps - sigma[:, None] * x0).to(x.dtype)


@pytest.fixture(scope="module")
def unet() -> UNet:
    network = UNet(1, 1, width=16, multipliers=(1, 2), blocks=1, classes=10, head_width=16)
    draws = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.08, generator=draws)
    return network


def fresh(network: UNet, rows: int = 16) -> Engine:
    return Engine(network, (1, 8, 8), COSINE, rows=rows, classes=10)


def exact_moments(solver: str, steps: int) -> tuple[Tensor, Tensor]:
    timesteps = torch.from_numpy(trailing(1000, steps))
    table = compile_solver(solver, cosine(), "v", steps)
    return moments(table, cosine().alpha(timesteps), cosine().sigma(timesteps), DATA)


@pytest.mark.parametrize(
    ("solver", "steps", "within"), [("ddpm", 1000, 0.01), ("ddim", 1000, 0.01), ("dpmpp-2m", 60, 0.01)]
)
def test_with_the_exact_denoiser_many_steps_draw_the_data_distribution(solver: str, steps: int, within: float) -> None:
    mean, covariance = exact_moments(solver, steps)
    torch.testing.assert_close(mean, DATA.mean, rtol=0, atol=within)
    torch.testing.assert_close(covariance, DATA.covariance, rtol=0, atol=within)


def test_samples_of_a_mixed_batch_have_the_exact_moments_of_their_own_solver() -> None:
    """4,096 samples each; the margin is five standard errors of the sample moments, from the exact covariance."""
    n, mix = 4096, [("ddpm", 25), ("ddim", 20), ("dpmpp-2m", 10)]
    engine = Engine(exact_velocity, (3,), COSINE, rows=1024)
    requests = [Request(seed, solver, steps) for seed in range(n) for solver, steps in mix]
    samples = engine.sample(requests).double().view(n, len(mix), 3)
    for i, (solver, steps) in enumerate(mix):
        mean, covariance = exact_moments(solver, steps)
        spread = covariance.diagonal()
        x = samples[:, i]
        assert ((x.mean(0) - mean).abs() < 5 * (spread / n).sqrt()).all(), solver
        error = (spread[:, None] * spread + covariance**2).div(n).sqrt()  # of each entry of a Gaussian's covariance
        assert ((x.T.cov() - covariance).abs() < 5 * error).all(), solver


def strangers(count: int) -> list[Request]:
    """Every request another mixture of solver, steps, guidance, label and clip."""
    solvers, guidances, clips = ("ddpm", "ddim", "dpmpp-2m"), (1.0, 3.0, 1.0, 7.5), (None, 1.0, 0.5)
    return [
        Request(
            seed=100 + i,
            solver=solvers[i % 3],
            steps=3 + i % 8,
            guidance=guidances[i % 4],
            label=i % 10 if i % 4 % 2 else (None, 5)[i % 3 == 0],
            clip=clips[i % 5 % 3],
        )
        for i in range(count)
    ]


def test_a_sample_is_bit_for_bit_the_same_alone_or_among_63_strangers(unet: UNet) -> None:
    requests = strangers(64)
    together = fresh(unet, rows=64).sample(requests)
    for i in range(0, 64, 5):  # of every solver, guidance, label and clip
        assert torch.equal(fresh(unet, rows=64).sample([requests[i]])[0], together[i])
    assert len({tuple(x.flatten().tolist()) for x in together}) == 64


def test_neither_order_nor_arrival_nor_rows_change_a_sample(unet: UNet) -> None:
    requests = strangers(24)
    expected = fresh(unet).sample(requests)
    backwards = fresh(unet).sample(requests[::-1]).flip(0)
    assert torch.equal(backwards, expected)
    torch.testing.assert_close(fresh(unet, rows=5).sample(requests), expected, rtol=1e-5, atol=1e-5)
    engine, arrived = fresh(unet), {}
    numbers = [engine.submit(request) for request in requests[:3]]
    for request in requests[3:]:  # one more before every turn
        arrived.update(engine.turn().finished)
        numbers.append(engine.submit(request))
    while len(arrived) < len(requests):
        arrived.update(engine.turn().finished)
    assert torch.equal(torch.stack([arrived[number] for number in numbers]), expected)


def plain_loop(
    unet: UNet, request: Request, scheduler: diffusers.SchedulerMixin, start: Tensor, extra: dict[str, bool]
) -> Tensor:
    """One image by diffusers' scheduler, guidance as its pipelines have it."""
    scheduler.set_timesteps(request.steps)
    x = start[None]
    for t in scheduler.timesteps:
        now = t[None].float()
        told, null = (unet(x, now, torch.tensor([label])) for label in (request.label, 10))
        x = scheduler.step(null + request.guidance * (told - null), t, x, **extra).prev_sample
    return x[0]


@torch.no_grad()
def test_guided_trajectories_are_those_of_diffusers_schedulers_on_the_same_network(
    unet: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    wanted = [
        (Request(1, "ddim", 10, 3.0, 7, clip=1.0), diffusers.DDIMScheduler(clip_sample=True, **common)),
        (Request(2, "ddpm", 20, 2.0, 3, clip=1.0), diffusers.DDPMScheduler(clip_sample=True, **common)),
        (Request(3, "dpmpp-2m", 20, 5.0, 1), diffusers.DPMSolverMultistepScheduler(**common)),
        (Request(4, "ddim", 25, 1.0, 0), diffusers.DDIMScheduler(clip_sample=False, **common)),
    ]
    engine = fresh(unet)
    samples = engine.sample([*(request for request, _ in wanted), *strangers(30)])
    for (request, scheduler), ours in zip(wanted, samples[:4], strict=True):
        key, drawn = torch.tensor(streams.derive(request.seed, "sample")), iter(range(1, 100))

        def noise(*_: object, key: Tensor = key, drawn: "iter[int]" = drawn, **__: object) -> Tensor:
            return streams.normal(key, next(drawn) * 64 + torch.arange(64)).view(1, 1, 8, 8)

        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", noise)
        extra = {"use_clipped_model_output": True} if request.solver == "ddim" else {}
        start = streams.normal(key, torch.arange(64)).view(1, 8, 8)
        assert torch.equal(engine.start(request), start)
        torch.testing.assert_close(ours, plain_loop(unet, request, scheduler, start, extra), rtol=1e-4, atol=1e-4)


def test_clip_bounds_the_estimate_and_so_the_last_sample(unet: UNet) -> None:
    samples = fresh(unet).sample([Request(1, steps=5, clip=0.25), Request(1, steps=5)])
    assert samples[0].abs().max() <= 0.25
    assert samples[1].abs().max() > 0.5


def counting(network: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    def call(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        calls.append(len(x))
        return network(x, t, label)

    return call


def test_rows_are_fixed_filled_and_refilled() -> None:
    calls: list[int] = []
    engine = Engine(counting(lambda x, t, label: x * 0.1, calls), (2,), COSINE, rows=4, classes=3)
    unguided = [Request(i, "ddim", 5) for i in range(8)]
    engine.sample(unguided)
    assert calls == [4] * 10  # two waves of four
    calls.clear()
    engine.sample([Request(i, "ddim", 5, 2.0, 1) for i in range(4)])  # two rows each
    assert calls == [4] * 10
    calls.clear()
    engine.sample([Request(0, "ddim", 3), *(Request(i, "ddim", 9) for i in range(1, 4)), Request(9, "ddim", 6)])
    assert calls == [4] * 9  # the fifth takes the row that the first leaves after three
    assert engine.slots.free == [0, 1, 2, 3]


def test_ticks_report_who_runs_and_a_stopped_loop_leaves_the_engine_clean(unet: UNet) -> None:
    engine = fresh(unet, rows=4)
    requests = [Request(i, "ddim", 2 + i, label=i) for i in range(3)]
    expected = engine.sample(requests)
    seen = [(tick.running, [number for number, _ in tick.finished]) for tick in engine.steps(requests)]
    assert seen == [([0, 1, 2], []), ([1, 2], [0]), ([2], [1]), ([], [2])]
    for tick in engine.steps(requests):
        assert engine.peek(2).shape == (1, 8, 8)
        assert tick.running == [0, 1, 2]
        break
    with pytest.raises(KeyError):
        engine.peek(2)
    assert torch.equal(engine.sample(requests), expected)
    assert dict(engine.run(requests)).keys() == {0, 1, 2}
    heard: list[int] = []
    engine.sample(requests, heard.append)
    assert sum(heard) == 3
    assert engine.sample([]).shape == (0, 1, 8, 8)


def test_a_request_whose_numbers_break_harms_no_other() -> None:
    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return torch.where((label == 1)[:, None], torch.nan, torch.sin(x))

    engine = Engine(network, (2,), COSINE, rows=4, classes=3)
    good, bad = Request(5, "ddpm", 6, 2.0, 0), Request(6, "ddpm", 3, 2.0, 1)
    ticks = list(engine.steps([bad, good, bad, good]))
    mixed = dict(pair for tick in ticks for pair in tick.finished)
    assert [number for tick in ticks for number, _ in tick.failed] == [0, 2]
    assert torch.equal(mixed[1], engine.sample([good])[0])
    assert torch.equal(mixed[3], mixed[1])
    with pytest.raises(RequestError, match="request 1: sample is not finite"):
        engine.sample([good, bad])
    kept = []
    with pytest.raises(RequestError, match="request 0: sample is not finite"):
        kept.extend(engine.run([bad, good]))


def test_nonsense_in_idle_rows_is_not_inherited() -> None:
    """A network that breaks at the noise level of an idle row, and a solver that remembers."""

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.where(t[:, None] == 0, torch.nan, torch.sin(x))

    engine = Engine(network, (2,), COSINE, rows=2)
    late = Request(2, "dpmpp-2m", 4)
    expected = engine.sample([late])
    engine.submit(Request(1, "ddim", 3))
    engine.turn()
    number = engine.submit(late)
    finished: dict[int, Tensor] = {}
    while number not in finished:
        finished.update(engine.turn().finished)
    assert torch.equal(finished[number], expected[0])


def test_a_table_of_ones_own_runs_beside_the_named(unet: UNet) -> None:
    table = ddim(Levels.through(cosine(), torch.from_numpy(trailing(1000, 6))), "v", eta=0.5)
    engine = fresh(unet)
    own, named = engine.sample([Request(1, table), Request(1, "ddim", 6)])
    assert not torch.allclose(own, named)
    assert torch.equal(own, engine.sample([Request(1, table, clip=None)])[0])


def test_the_loop_asks_nothing_of_the_device(unet: UNet) -> None:
    """Under fake tensors, which hold no numbers, any question about one would raise."""
    engine = fresh(unet)
    image = torch.zeros(1, 8, 8)
    engine.submit(Request(1, "ddpm", 7, noise=torch.zeros(8, 1, 8, 8), init=image, mask=image))
    for request in strangers(20):
        engine.submit(request)
    engine.turn()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        for part in (engine.slots, engine.shelf):
            for name, value in vars(part).items():
                if isinstance(value, Tensor):
                    setattr(part, name, fake.from_tensor(value))
        engine.shelf.tables = engine.shelf.tables._map(fake.from_tensor)
        for _ in range(8):
            tick = engine.turn()
    assert tick.running


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"solver": "ddmp"}, "request 1: solver 'ddmp' is unknown; did you mean 'ddpm'"),
        ({"steps": 0}, "request 1: steps is 0"),
        ({"label": 10}, "label is 10; expected an integer, 0 to 9"),
        ({"label": None}, "guidance is 2.0 but there is no label"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"clip": 0.0}, "clip is 0.0"),
    ],
)
def test_impossible_requests_are_refused_before_any_work(unet: UNet, change: dict[str, object], words: str) -> None:
    good = Request(0, "ddim", 3, 2.0, 1)
    engine = fresh(unet)
    with pytest.raises(RequestError, match=words.replace("(", r"\(")):
        engine.sample([good, replace(good, **change)])
    assert engine.sample([good]).shape == (1, 1, 8, 8)


def test_an_engine_without_labels_or_without_a_second_row_says_so() -> None:
    engine = Engine(lambda x, t, label: x, (2,), LINEAR, rows=1)
    with pytest.raises(RequestError, match="the network knows no labels"):
        engine.submit(Request(0, label=0))
    one_row = Engine(lambda x, t, label: x, (2,), LINEAR, rows=1, classes=2)
    with pytest.raises(RequestError, match="takes 2 network rows; this engine has 1"):
        one_row.submit(Request(0, guidance=2.0, label=0))
    with pytest.raises(ValueError, match="rows=0"):
        Engine(lambda x, t, label: x, (2,), LINEAR, rows=0)
