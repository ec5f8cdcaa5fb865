"""Attention statistics that reveal flat, stuck or centred maps."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from visattn.metrics.grounding import entropy

STUCK = 1e-3  # share of the weight that moves between maps; less is invisible, and has no effect on a decoder


class Health(NamedTuple):
    """Attention statistics: means over the maps α_1 … α_T of L places of all sequences.

    Attributes:
        entropy: −Σ α log α of a map, in nats; from 0 (one place) to log L (uniform).
        relative_entropy: entropy / log L; 1 is uniform, for any grid.
        largest_weight: of a map.
        change: ½ Σ_i |α_t,i − α_t+1,i| of consecutive maps: the share of the weight that moves, from 0 (equal) to 1
            (disjoint). It is the total variation distance (Levin and Peres 2017, "Markov Chains and Mixing Times",
            proposition 4.2). NaN if there are no consecutive maps.
        coverage: share of the places that get at least half of an even share, Σ_t α_t,i ≥ T / 2L.
        doubly_stochastic: Σ_i (1 − Σ_t α_t,i)² / L, the mean over places of the penalty in Xu et al. 2015, equation
            14. It can be 0 only if T = L; with T words it is at least (1 − T/L)².
        maps: number of maps.
        sequences: number of sequences.
    """

    entropy: float
    relative_entropy: float
    largest_weight: float
    change: float
    coverage: float
    doubly_stochastic: float
    maps: int
    sequences: int

    @classmethod
    def together(cls, parts: "Iterable[Health]") -> "Health":
        """Combine the statistics of several sets of sequences.

        Raises:
            ValueError: if there are none.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("there are no attention maps")
        table = {
            name: np.array(values, dtype=float)
            for name, values in zip(cls._fields, zip(*parts, strict=True), strict=True)
        }
        maps, sequences = table.pop("maps"), table.pop("sequences")
        weights = {"change": maps - sequences, "coverage": sequences, "doubly_stochastic": sequences}

        def mean(name: str, values: np.ndarray) -> float:
            weight = weights.get(name, maps)
            known = weight > 0
            return float(np.average(values[known], weights=weight[known])) if known.any() else float("nan")

        means = {name: mean(name, values) for name, values in table.items()}
        return cls(**means, maps=int(maps.sum()), sequences=int(sequences.sum()))

    def known(self) -> dict[str, float]:
        """The means that are not NaN, by name."""
        numbers = self._asdict()
        del numbers["maps"], numbers["sequences"]
        return {name: value for name, value in numbers.items() if np.isfinite(value)}

    @property
    def stuck(self) -> bool:
        """Whether consecutive maps hardly differ: by less than `STUCK`."""
        return self.change < STUCK


def attention_health(sequences: Iterable[np.ndarray]) -> Health:
    """Attention statistics over sequences of maps, such as one map per word of each caption.

    Args:
        sequences: (T, h, w) or (T, L), non-negative weights; T may differ, and may be 0. Each map is normalised to sum
            1, so that maps without the weight of special tokens are comparable.

    Raises:
        ValueError: if there is no map at all, or weights are negative, not finite, or 0 in all places of a map.
    """
    return Health.together(_of_sequence(maps) for maps in sequences if len(maps))


def _of_sequence(maps: np.ndarray) -> Health:
    maps = np.asarray(maps, dtype=float).reshape(len(maps), -1)  # (T, L)
    nats, places = entropy(maps), maps.shape[1]
    maps = maps / maps.sum(axis=1, keepdims=True)
    received = maps.sum(axis=0)  # (L,)
    moved = np.abs(np.diff(maps, axis=0)).sum(axis=1) / 2
    return Health(
        entropy=float(nats.mean()),
        relative_entropy=float(nats.mean() / np.log(places)) if places > 1 else 0.0,
        largest_weight=float(maps.max(axis=1).mean()),
        change=float(moved.mean()) if len(moved) else float("nan"),
        coverage=float(np.mean(received >= len(maps) / places / 2)),
        doubly_stochastic=float(np.mean((1 - received) ** 2)),
        maps=len(maps),
        sequences=1,
    )
