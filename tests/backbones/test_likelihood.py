"""log p without its logits: against the whole softmax in float64, in values and gradients, over many chunks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from backbones import likelihood
from backbones.likelihood import log_probability


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def judged(n: int, d: int, v: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    target = torch.randint(v, (n,), generator=torch.Generator().manual_seed(2))
    return draw(n, d, dtype=dtype).requires_grad_(), draw(v, d, seed=1, dtype=dtype).requires_grad_(), target


def whole(
    hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same with all logits at once, in float64, by autograd."""
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    value = (h @ w.T).log_softmax(-1)[torch.arange(len(h)), target]
    value.backward(upstream.double())
    assert h.grad is not None
    assert w.grad is not None
    return value.detach(), h.grad, w.grad


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least there are: 64 positions, 128 of a narrow type."""
    monkeypatch.setattr(likelihood, "CHUNK", 1)


@pytest.mark.parametrize(("n", "v"), [(7, 11), (64, 5), (65, 5), (200, 30)])
@pytest.mark.parametrize("chunk", [1, 2**22])
def test_it_equals_the_whole_softmax_and_its_gradients(monkeypatch: pytest.MonkeyPatch, n: int, v: int, chunk: int):
    monkeypatch.setattr(likelihood, "CHUNK", chunk)  # the least chunk is of 64 rows: 1, 1, 2 and 4 of them
    hidden, weight, target = judged(n, 6, v, torch.float64)
    upstream = draw(n, seed=3)  # another for every position
    value = log_probability(hidden, weight, target)
    value.backward(upstream)
    expected = whole(hidden, weight, target, upstream)
    for found, truth in zip((value.detach(), hidden.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("chunks")
def test_a_large_vocabulary_in_float32_goes_by_onednn_to_the_same_numbers():
    hidden, weight, target = judged(150, 64, 4096, torch.float32)  # 2^18 weights
    with torch.no_grad():
        weight.div_(8)
    upstream = draw(150, seed=3, dtype=torch.float32)
    value = log_probability(hidden, weight, target)
    value.backward(upstream)
    expected = whole(hidden, weight, target, upstream)
    for found, truth in zip((value.detach(), hidden.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("chunks")
def test_bfloat16_is_judged_in_float32_and_its_gradients_are_bfloat16():
    hidden, weight, target = judged(300, 16, 50, torch.bfloat16)
    upstream = draw(300, seed=3, dtype=torch.float32)
    value = log_probability(hidden, weight, target)
    assert value.dtype == torch.float32
    value.backward(upstream)
    expected = whole(hidden, weight, target, upstream)
    assert hidden.grad is not None
    assert weight.grad is not None
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    for found, truth in zip((value.detach(), hidden.grad, weight.grad), expected, strict=True):
        assert (found.double() - truth).norm() < 0.02 * truth.norm()


@pytest.mark.usefixtures("chunks")
def test_only_what_is_asked_for_gets_a_gradient_and_no_position_is_no_error():
    hidden, weight, target = judged(70, 6, 11, torch.float64)
    log_probability(hidden, weight.detach(), target).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None
    none = log_probability(hidden[:0], weight, target[:0])
    assert none.shape == (0,)
    none.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.usefixtures("chunks")
def test_under_autocast_it_multiplies_in_the_lower_type_as_a_linear_layer_does():
    hidden, weight, target = judged(200, 6, 11, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = log_probability(hidden, weight, target)
        logits = torch.nn.functional.linear(hidden, weight).float()
    assert torch.equal(value, logits.log_softmax(-1)[torch.arange(200), target])
    value.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


@pytest.mark.usefixtures("chunks")
def test_autocast_leaves_float64_and_a_way_back_that_is_asked_for_in_it():
    for dtype in (torch.float64, torch.float32):
        hidden, weight, target = judged(200, 6, 11, dtype)
        value = log_probability(hidden, weight, target)
        expected = torch.autograd.grad(value.sum(), (hidden, weight), retain_graph=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if dtype == torch.float64:
                assert torch.equal(log_probability(hidden, weight, target), value)
            found = torch.autograd.grad(value.sum(), (hidden, weight))
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("chunk", [1, 2**22])
def test_a_target_that_is_no_word_is_refused(monkeypatch: pytest.MonkeyPatch, chunk: int):
    """Also -100, which some losses pass over."""
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    hidden, weight, target = judged(100, 6, 11, torch.float32)
    for wrong in (-100, 11):
        target[70] = wrong
        with pytest.raises(RuntimeError, match="index"):
            log_probability(hidden, weight, target)


@pytest.mark.parametrize("words", [1, 4, 11, 2**13])
@pytest.mark.usefixtures("chunks")
def test_gradients_of_float32_weights_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch, words: int):
    """1,000 positions, eight chunks: off by .0006 of the gradient of rounded factors; rounded in the end, by .0015.

    However many words are widened at a time, the numbers are the same but for rounding.
    """
    monkeypatch.setattr(likelihood, "WORDS", words)
    hidden, weight, target = judged(1000, 6, 11, torch.float32)
    with torch.no_grad():
        hidden.copy_(hidden.abs())  # nothing cancels
    upstream = torch.ones(1000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = log_probability(hidden, weight, target)
    value.backward(upstream)
    rounded = [x.detach().bfloat16().float() for x in (hidden, weight)]
    _, d_hidden, d_weight = whole(rounded[0], rounded[1], target, upstream)
    assert hidden.grad is not None
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert (weight.grad.double() - d_weight).norm() < 1e-3 * d_weight.norm()
    assert (hidden.grad.double() - d_hidden).norm() < 2**-7 * d_hidden.norm()
    if words < 11:
        monkeypatch.setattr(likelihood, "WORDS", 11)
        first, weight.grad = weight.grad, None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_probability(hidden, weight, target).backward(upstream)
        torch.testing.assert_close(weight.grad, first, rtol=2**-7, atol=0)  # a sum may round otherwise


def allocated(dtype: torch.dtype, d: int, v: int) -> list[int]:
    """Bytes that torch takes and, negative, gives back, in turn, forward and back over 640 positions."""
    hidden, weight, target = judged(640, d, v, torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = log_probability(hidden, weight, target)
        value.sum().backward()
    found = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(found, key=lambda event: event.start_ns())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("chunks")
def test_no_more_logits_are_held_than_those_of_a_chunk(dtype: torch.dtype):
    """In float32 once, each chunk's in a tensor of its own; in bfloat16 narrow and wide, in one place a pass."""
    found = allocated(dtype, 8, 2000)
    narrow, wide = 128 * 2000 * 2, 128 * 2000 * 4  # of bfloat16; and narrow is 64 rows of float32
    held = narrow if dtype == torch.float32 else narrow + wide
    assert held < max(itertools.accumulate(found)) < 1.4 * held  # and the gradients
    assert (found.count(narrow), found.count(wide)) == ((20, 0) if dtype == torch.float32 else (2, 2))


@pytest.mark.usefixtures("chunks")
def test_no_more_gradients_are_widened_than_those_of_some_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likelihood, "WORDS", 10)
    assert allocated(torch.bfloat16, 390, 301).count(2 * 390 * 301) == 1  # the weights' own copy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("chunks")
def test_beside_weights_that_do_not_learn_everything_is_multiplied_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    hidden, weight, target = judged(200, 64, 4096 if dtype == torch.float32 else 30, dtype)
    with torch.no_grad():
        weight.div_(8)
    rows, upstream = counted(monkeypatch), draw(200, seed=3, dtype=torch.promote_types(dtype, torch.float32))
    value = log_probability(hidden, weight.detach(), target)
    value.backward(upstream)
    assert rows == ([128, 72] if dtype == torch.bfloat16 else [64, 64, 64, 8])
    expected, found = whole(hidden, weight, target, upstream), (value.detach(), hidden.grad)
    off = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    for one, truth in zip(found, expected, strict=False):
        assert one is not None
        assert (one.double() - truth).norm() < off * truth.norm()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every product that makes logits, from now on."""
    rows, multiply = [], likelihood._logits

    def watched(hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(hidden))
        return multiply(hidden, *rest)

    monkeypatch.setattr(likelihood, "_logits", watched)
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_one_chunk_are_computed_once_and_those_of_many_twice(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    rows = counted(monkeypatch)
    for chunk, expected in ((200 * 30, [200]), (100 * 30, [100, 100] * 2)):
        monkeypatch.setattr(likelihood, "CHUNK", chunk)
        log_probability(*judged(200, 6, 30, dtype)).sum().backward()
        assert rows == expected
        rows.clear()


@pytest.mark.usefixtures("chunks")
def test_the_graph_may_be_run_again():
    hidden, weight, target = judged(70, 6, 11, torch.float64)
    value, upstream = log_probability(hidden, weight, target), draw(70, seed=3)
    first, second = (torch.autograd.grad(value, (hidden, weight), upstream, retain_graph=True) for _ in range(2))
    for one, other, truth in zip(first, second, whole(hidden, weight, target, upstream)[1:], strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("device", "rows"), [("cpu", 2**22 // 5000), ("meta", 2**26 // 5000)])
def test_a_chunk_stays_in_the_cache_of_a_processor_and_is_large_elsewhere(device: str, rows: int):
    """Logits of 16 MiB in float32, and of 256."""
    parts = likelihood._parts(20_000, torch.empty(5000, 1, device=device), torch.float32)
    assert [part.start for part in parts] == list(range(0, 20_000, rows))
