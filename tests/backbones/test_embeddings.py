import torch
from diffusers.models.embeddings import Timesteps

from backbones.embeddings import ClassEmbedding, timestep_waves


def test_timestep_waves_are_those_of_diffusers() -> None:
    t = torch.tensor([0.0, 1.0, 17.5, 999.0])
    theirs = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)(t)
    torch.testing.assert_close(timestep_waves(t, 32), theirs, rtol=0, atol=1e-6)


def test_the_null_label_has_a_row_of_its_own() -> None:
    embedding = ClassEmbedding(10, 8)
    assert embedding.null == 10
    rows = embedding(torch.arange(11))
    assert rows.shape == (11, 8)
    assert len({tuple(row.tolist()) for row in rows}) == 11
