"""A network that plans on the map it sees: values spread over the map, then an MLP reads the agent's surroundings.

    r = sigmoid(MLP(the cell's planes) + 6 if this plane is)                 what a cell is worth by itself
    p = sigmoid(MLP(the cell's planes) - 3 if anything is marked there)      how open it is
    v <- max(v, r + p (max over the 4 neighbours of v - r))                  k times, from v = r
    output = MLP(which neighbours are worth more, what stands around, v here)

There are such values for each plane but the agent's: at first each tells how near the nearest cell is that is marked in
its plane, by ways on which little else is marked; what matters, and what bars the way, is to be learned. Where nothing
is marked in a plane its values are 0.

With r = 1 at a goal, 0 elsewhere, p = gamma on floor and 0 in walls the recursion is value iteration: v is gamma to the
distance. Nothing in it knows the size of the map or where things are, so what is learned on some mazes holds on others.
Values far from a goal differ by little, so the MLP reads their differences relative to v here, enlarged:
tanh(20 (v' - v) / v).

The plane in r is there because only maxima spread. Where the first weights happened to make walls worth more than
goals, a goal was never where a value came from, and no gradient said that it should be: half of all seeds learned
nothing. With it, and every cell as open as the next, a third still did not find that walls are closed
(docs/notebook.md).

Once v has settled, each cell's value comes along one way, from neighbour to best neighbour to where v = r, and the
gradient of the maximum is the gradient along that way. So the sweeps over the map record nothing; the values of the
agent's cell and its neighbours are computed again along their ways, and only that is differentiated.

Source: Nardelli, Synnaeve, Lin, Kohli, Torr & Usunier, "Value propagation networks", ICLR 2019, eq. 4 (MVProp), after
Tamar et al., "Value iteration networks", NIPS 2016. Departures: neighbours are the 4 that one step reaches, not 8; r
and p read one cell each (theirs 3 x 3); the differences are relative and enlarged; values for each plane; the planes in
r and p.

Key: R replicas (a leading dimension, or none), B batch, N = R B observations, C planes, K = C - 1 values of each cell,
H, W the map's size, k sweeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from backbones.mlp import MLP
from backbones.shape import wrong

LOOK = 8  # sweeps between two looks whether anything still changes
SHARP = 20.0  # how much relative differences of values are enlarged
POOR, OPEN = -3.0, 2.0  # first biases of r and p: nearly nothing is worth anything, nearly everything is open
MARKED, CLOSED = 6.0, 3.0  # what a cell's own plane adds to the logit of r, and any plane takes from that of p


class Planner(nn.Module):
    """[B, C, H, W] -> [B, outputs]; plane 0 is 1 where the agent is.

    Args:
        shape: (C, H, W) of an observation's planes.
        outputs: numbers out.
        width: of the layer that reads a cell.
        hidden: of the MLP that reads the surroundings.
        sweeps: k, by default the longest way that a maze of this size can have: a serpentine through half of the cells.
            News of a goal travels one cell in each. On the CPU it ends sooner where nothing changes any more.
    """

    stacks = True  # weights may carry a leading replica dimension

    def __init__(
        self, shape: Sequence[int], outputs: int, *, width: int = 16, hidden: int = 64, sweeps: int | None = None
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, height, columns = self.shape
        self.sweeps = height * columns // 2 + max(height, columns) if sweeps is None else sweeps
        self.maps = channels - 1
        self.judge = MLP(self.maps, [width], 2 * self.maps)
        self.head = MLP((5 + 9) * self.maps, [hidden], outputs)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Biases of r and p such that values spread from the first; all else is as everywhere."""
        self.judge.output.bias.copy_(torch.tensor([POOR] * self.maps + [OPEN] * self.maps))

    def forward(self, x: Shaped[Tensor, "*R B C H W"]) -> Float[Tensor, "*R B o"]:
        """What the MLP makes of the agent's surroundings; held R times, all with a leading R.

        Raises:
            ShapeError: for planes of another shape than it was made for.
        """
        held = self.head.output.weight.ndim - 2
        if x.ndim != 4 + held or tuple(x.shape[-3:]) != self.shape:
            raise wrong("Planner: x", x, f"[{'R, ' * held}B, {', '.join(map(str, self.shape))}]")
        x = x.to(self.head.output.weight.dtype)
        columns, maps = self.shape[2], x.flatten(0, held)  # [N, C, H, W]
        at = maps[:, 0].flatten(1).argmax(1)  # [N]
        corner = at // columns * (columns + 2) + at % columns  # of the 3 x 3 around it, on the map with a margin
        step = torch.arange(3, device=x.device)
        nine = corner[:, None] + (step[:, None] * (columns + 2) + step).flatten()  # [N, 9]
        v = self.values(maps[:, 1:], nine[:, 1::2], nine[:, 4:5], held)  # [N, K, 5], the neighbours and here
        here = v[..., 4:]
        relative = torch.tanh(SHARP * (v[..., :4] - here) / (here + 1e-6))
        seen = torch.cat([relative, here], -1).flatten(1)  # [N, 5 K]
        planes = nn.functional.pad(maps[:, 1:], (1, 1, 1, 1)).flatten(2)
        around = planes.gather(2, nine[:, None].expand(-1, planes.shape[1], -1)).flatten(1)  # [N, 9 (C - 1)]
        return self.head(torch.cat([seen, around], dim=1).view(*x.shape[: 1 + held], -1))

    def values(
        self,
        planes: Float[Tensor, "N K H W"],
        neighbours: Int64[Tensor, "N 4"],
        here: Int64[Tensor, "N 1"],
        held: int = 0,
    ) -> Float[Tensor, "N K 5"]:
        """The settled values of the named cells; cells are numbered with a margin of one around a map."""
        cells, marked = planes.movedim(1, -1), planes.flatten(2).any(-1)  # [N, H, W, K], [N, K]
        own = cells.reshape(*self.judge.output.weight.shape[:held], -1, cells.shape[-1])
        worth, open_ = self.judge(own).view(*cells.shape[:3], 2, self.maps).movedim(4, 1).unbind(-1)
        worth = worth + MARKED * planes
        open_ = open_ - CLOSED * planes.amax(1, keepdim=True)
        if planes.device.type == "cpu":  # elsewhere the host would have to wait for the answer
            some = marked.any(0)
            worth, open_ = worth[:, some], open_[:, some]
        else:
            some = torch.ones_like(marked[0])
        maps = worth.shape[1]
        r, p = torch.sigmoid(worth.flatten(0, 1)), torch.sigmoid(open_.flatten(0, 1))  # [N maps, H, W]
        leads, ends = ways(r.detach(), p.detach(), self.sweeps)
        r, p = (nn.functional.pad(one, (1, 1, 1, 1)).flatten(1) for one in (r, p * ~ends))
        way = [torch.cat([neighbours, here], 1).repeat_interleave(maps, 0)]
        for k in range(self.sweeps):
            way.append(leads.gather(1, way[-1]))
            if k % LOOK == LOOK - 1 and leads.device.type == "cpu" and torch.equal(way[-1], way[-2]):
                break  # all are where their values come from
        along = torch.stack(way, 1).flatten(1)  # [N maps, (k + 1) 5]
        r, p = (one.gather(1, along).view(len(one), len(way), 5) for one in (r, p))
        v = r[:, -1]
        for k in reversed(range(len(way) - 1)):
            v = torch.lerp(r[:, k], v, p[:, k])
        found = v.new_zeros(len(planes), self.maps, 5)
        found[:, some] = v.view(len(planes), maps, 5)
        return found * marked[..., None]


@torch.no_grad()
def ways(
    r: Float[Tensor, "N H W"], p: Float[Tensor, "N H W"], sweeps: int
) -> tuple[Int64[Tensor, "N cells"], Bool[Tensor, "N H W"]]:
    """To which neighbour each cell's value leads, on the map with a margin, and where it comes from the cell itself."""
    N, H, W = r.shape
    w = r.new_zeros(N, H + 2, W + 2)
    v = w[:, 1:-1, 1:-1]
    v.copy_(r)
    around = (w[:, :-2, 1:-1], w[:, 1:-1, :-2], w[:, 1:-1, 2:], w[:, 2:, 1:-1])
    best = torch.empty_like(r)
    for k in range(sweeps):
        former = v.clone() if k % LOOK == LOOK - 1 and r.device.type == "cpu" else None
        torch.maximum(around[0], around[1], out=best)
        torch.maximum(best, around[2], out=best)
        torch.maximum(best, around[3], out=best)
        torch.maximum(v, torch.lerp(r, best, p, out=best), out=v)
        if former is not None and torch.equal(v, former):
            break
    best, which = torch.stack(around, -1).max(-1)
    ends = best <= r
    step = torch.tensor([-(W + 2), -1, 1, W + 2], device=r.device)
    cell = torch.arange((H + 2) * (W + 2), device=r.device).view(H + 2, W + 2)
    leads = cell.repeat(N, 1, 1)
    leads[:, 1:-1, 1:-1] += step[which].masked_fill(ends, 0)
    return leads.flatten(1), ends
