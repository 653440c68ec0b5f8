"""Catmull-Clark subdivision of a fixed quad mesh as one linear map of its vertices."""

import numpy as np
from jaxtyping import Float, Integer


class Subdivision:
    """One step of Catmull and Clark (1978), boundaries as cubic B-splines.

    The old vertices come first among the new ones, then one for each edge, then one for each quad.
    Applied to positions, or to any values given at the vertices.
    """

    quads: Integer[np.ndarray, "new_quads 4"]
    """The refined mesh: four for each old quad, in order."""

    def __init__(self, quads: Integer[np.ndarray, "quads 4"], num_vertices: int) -> None:
        num_quads = len(quads)
        side = np.stack((quads, np.roll(quads, -1, axis=1)), axis=-1).reshape(-1, 2)
        edges, edge_of_side, sides = np.unique(
            np.sort(side, axis=1), axis=0, return_inverse=True, return_counts=True
        )
        edge_of_side = edge_of_side.reshape(num_quads, 4)
        quad_of_side = np.repeat(np.arange(num_quads), 4)
        self._num_vertices, self._quads, self._edges = num_vertices, quads, edges
        self._edge_inner = sides == 2
        inner_side = self._edge_inner[edge_of_side.ravel()]
        self._side_edge = edge_of_side.ravel()[inner_side]
        self._side_quad = quad_of_side[inner_side]
        self._rim = np.zeros(num_vertices, bool)
        self._rim[edges[~self._edge_inner].ravel()] = True
        self._valence = np.maximum(np.bincount(edges.ravel(), minlength=num_vertices), 1)
        self._quad_count = np.maximum(np.bincount(quads.ravel(), minlength=num_vertices), 1)
        first_edge, first_quad = num_vertices, num_vertices + len(edges)
        around = first_edge + edge_of_side
        centre = np.repeat((first_quad + np.arange(num_quads))[:, None], 4, axis=1)
        # Around corner k of a quad: the corner, its next edge, the centre, its previous edge.
        self.quads = np.stack((quads, around, centre, np.roll(around, 1, axis=1)), -1).reshape(
            -1, 4
        )
        self._rows, self._columns, self._weights = self._linear_map()

    def __call__(
        self, values: Float[np.ndarray, "vertices channels"]
    ) -> Float[np.ndarray, "new_vertices channels"]:
        """Values at the new vertices, float32."""
        gathered = self._weights[:, None] * values.astype(np.float32)[self._columns]
        return np.add.reduceat(gathered, self._rows, axis=0)

    def unsmoothed(
        self, values: Float[np.ndarray, "vertices channels"]
    ) -> Float[np.ndarray, "new_vertices channels"]:
        """Values at the new vertices, the old ones as they were: for what jumps at seams."""
        values = values.astype(np.float32)
        parts = (values, values[self._edges].mean(axis=1), values[self._quads].mean(axis=1))
        return np.concatenate(parts)

    def _linear_map(
        self,
    ) -> tuple[
        Integer[np.ndarray, "rows"],
        Integer[np.ndarray, "entries"],
        Float[np.ndarray, "entries"],
    ]:
        """The map's entries by row: where each row begins, columns and weights."""
        num_vertices, quads, edges = self._num_vertices, self._quads, self._edges
        first_edge, first_quad = num_vertices, num_vertices + len(edges)
        entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

        def add(row: np.ndarray, column: np.ndarray, weight: np.ndarray | float) -> None:
            entries.append((row, column, np.broadcast_to(weight, row.shape)))

        for corner in range(4):
            add(first_quad + np.arange(len(quads)), quads[:, corner], 0.25)
            add(first_edge + self._side_edge, quads[self._side_quad, corner], 1 / 16)
        for end in range(2):
            weight = np.where(self._edge_inner, 0.25, 0.5)
            add(first_edge + np.arange(len(edges)), edges[:, end], weight)
        # A vertex: (Q + 2 R + (n - 3) V) / n with Q the mean of the centres, R of edge middles.
        valence = self._valence.astype(np.float64)
        everyone = np.arange(num_vertices)
        add(everyone, everyone, np.where(self._rim, 0.75, (valence - 2) / valence))
        for end in range(2):
            here, there = edges[:, end], edges[:, 1 - end]
            inner = ~self._rim[here]
            add(here[inner], there[inner], 1 / valence[here[inner]] ** 2)
            rim = self._rim[here] & ~self._edge_inner
            add(here[rim], there[rim], 1 / 8)
        for corner in range(4):
            inner = ~self._rim[quads[:, corner]]
            here = quads[inner, corner]
            for other in range(4):
                weight = 0.25 / (valence[here] * self._quad_count[here])
                add(here, quads[inner, other], weight)
        row, column, weight = (np.concatenate(part) for part in zip(*entries, strict=True))
        order = np.argsort(row, kind="stable")
        starts = np.searchsorted(row[order], np.arange(first_quad + len(quads)))
        return starts, column[order], weight[order].astype(np.float32)
