import pytest
import torch
from diffusers.models.embeddings import Timesteps

from backbones.embeddings import ClassEmbedding, timestep_waves


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("sine_first", [False, True])
def test_timestep_waves_are_those_of_diffusers(offset: int, sine_first: bool) -> None:
    t = torch.tensor([0.0, 1.0, 17.5, 999.0])
    theirs = Timesteps(32, flip_sin_to_cos=not sine_first, downscale_freq_shift=offset)(t)
    torch.testing.assert_close(timestep_waves(t, 32, offset=offset, sine_first=sine_first), theirs, rtol=0, atol=1e-6)


def test_the_null_label_has_a_row_of_its_own() -> None:
    embedding = ClassEmbedding(10, 8)
    assert embedding.null == 10
    rows = embedding(torch.arange(11))
    assert rows.shape == (11, 8)
    assert len({tuple(row.tolist()) for row in rows}) == 11
