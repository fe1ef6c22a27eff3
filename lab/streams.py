"""Randomness as an argument: every stream is derived from (seed, name, step).

Nothing in the lab holds a hidden generator. A stream is a pure function of a seed and a path of names and
numbers, so a checkpoint needs no generator state, and a run that is killed and resumed draws what it would
have drawn. Two faces:

* `generator(seed, *path)`: a fresh torch generator for a block of draws (a batch, a noise tensor, weights);
* `uniform(key, index)` and `normal(key, index)`: stateless, counter-based draws, one number for each key and
  index. They are elementwise, so a replica's or a request's draws depend on its own key alone: never on how
  many others share the batch, nor on the device.

This module is pure mathematics and stands below all others; it is the one part of `lab` that anyone may import.

Source: the counter-based draws are SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, fig. 14) evaluated at an arbitrary index; normals are Box & Muller (1958).
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, as a signed 64-bit integer
MIX1 = 0xBF58476D1CE4E5B9 - 2**64
MIX2 = 0x94D049BB133111EB - 2**64


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit key for the stream named by `path` below `seed`; equal arguments give equal keys, always.

    Each part of the path is written with its type and length, so ("a", 1), ("a1",) and ("a", "1") differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (int(seed), *path):
        text = part if isinstance(part, str) else str(int(part))
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:{text}".encode())
    return int.from_bytes(digest.digest(), "little") >> 1


def keys(seed: int, name: str, *shape: int) -> Int64[Tensor, "..."]:
    """One key for each index of `shape`: `keys(seed, "world", R, W)[r, w] == derive(seed, "world", r, w)`.

    Slicing off replicas or worlds leaves the keys of the others as they are.
    """
    flat = [
        derive(seed, name, *index)
        for index in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape)).tolist()
    ]
    return torch.tensor(flat, dtype=torch.int64).view(shape)


def generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the stream named by `path` below `seed`."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


def bits(key: Int64[Tensor, "..."], index: Int64[Tensor, "..."] | int) -> Int64[Tensor, "..."]:
    """The `index`-th 64 random bits of each key's stream (the arguments broadcast)."""
    jump = (index + 1) * GOLDEN  # int64 arithmetic wraps, as the algorithm wants
    return mix(key + (jump if isinstance(jump, Tensor) else (jump + 2**63) % 2**64 - 2**63))  # Python's does not


def mix(z: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """SplitMix64's finaliser: `bits(key, index) == mix(key + (index + 1) * GOLDEN)`, for who keeps that sum himself."""
    z = (z >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(z).mul_(MIX1)  # the masks turn arithmetic shifts into logical
    z = (z >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(z).mul_(MIX2)
    return (z >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(z)


def bits_of(key: int, index: int) -> int:
    """`bits` of one key and one index in plain integers: the same signed 64-bit number, for who draws one at a time."""
    mask = 2**64 - 1
    z = (key + (index + 1) * GOLDEN) & mask
    z = ((z ^ (z >> 30)) * MIX1) & mask
    z = ((z ^ (z >> 27)) * MIX2) & mask
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def uniform(key: Int64[Tensor, "..."], index: Int64[Tensor, "..."] | int) -> Float[Tensor, "..."]:
    """float32 in [0, 1): the top 24 bits, so every value is exact and 1.0 never appears."""
    return ((bits(key, index) >> 40) & 0xFFFFFF).float() * 2.0**-24


def normal(key: Int64[Tensor, "..."], index: Int64[Tensor, "..."] | int) -> Float[Tensor, "..."]:
    """Standard normal float32, |z| < 6.7: Box-Muller on the two halves of one 64-bit draw."""
    z = bits(key, index)
    radius = (((z >> 32) & 0xFFFFFFFF).double() + 1.0) * 2.0**-32  # in (0, 1]
    angle = (z & 0xFFFFFFFF).double() * (2.0**-32 * 2.0 * math.pi)  # in [0, 2 pi)
    return (torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(angle)).float()
