"""Pieces beside the head's own skin: glasses that it wears, teeth in its mouth.

A piece is a mesh of its own in the frame of the unturned head. It is seen, shaded and casts shadows
like the head.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from shards.rendering.render import vertex_normals

Paint = Callable[[Float[np.ndarray, "num 3"]], Float[np.ndarray, "num 3"]]


class Piece(NamedTuple):
    """A closed mesh and what it is made of.

    template: where `paint` finds each vertex: a place that no person's shape has moved.
    paint: linear albedo at such places. roughness, reflectance: of its gloss.
    part: its number in `relightx.layers.PARTS`.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    triangles: Integer[np.ndarray, "triangles 3"]
    template: Float[np.ndarray, "vertices 3"]
    paint: Paint
    roughness: float
    reflectance: float
    part: int


def joined(
    vertices: Float[np.ndarray, "vertices 3"],
    triangles: Integer[np.ndarray, "triangles 3"],
    known: Float[np.ndarray, "vertices channels"],
    pieces: Sequence[Piece],
) -> tuple[
    Float[np.ndarray, "all 3"], Integer[np.ndarray, "more 3"], Float[np.ndarray, "all channels"]
]:
    """The head's mesh with those of pieces behind it, in order.

    known: of each vertex, its normal, its template and what pieces have 0 of.
    """
    for piece in pieces:
        own = np.zeros((len(piece.vertices), known.shape[1]))
        own[:, :3] = vertex_normals(piece.vertices, piece.triangles)
        own[:, 3:6] = piece.template
        known = np.concatenate((known, own))
        triangles = np.concatenate((triangles, piece.triangles + len(vertices)))
        vertices = np.concatenate((vertices, piece.vertices))
    return vertices, triangles, known


def samples_of(
    pieces: Sequence[Piece], triangle: Integer[np.ndarray, "num"], first: int
) -> list[tuple[Piece, Integer[np.ndarray, "some"]]]:
    """Each piece and the samples that show it.

    triangle: that each sample shows, of the mesh of `joined`. first: that of the first piece.
    """
    found = []
    for piece in pieces:
        end = first + len(piece.triangles)
        found.append((piece, np.flatnonzero((triangle >= first) & (triangle < end))))
        first = end
    return found
