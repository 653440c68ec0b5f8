"""The mesh that heads of a kind share: its triangles, and what each vertex is.

Whatever the mesh, each vertex has a template place: the one it has on the undeformed MakeHuman head
(base.obj, decimetres). Colour, hair and gloss are functions of it, and so know no mesh.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from shards.rendering import makehuman
from shards.rendering.heads import Person, head_vertices
from shards.rendering.subdivision import Subdivision

_CHIN, _HAIRLINE = (0.0, 6.17, 1.37), (0.0, 8.05, 1.37)


class Surface(NamedTuple):
    """A kind of head.

    vertices_of: a person's mesh, decimetres, +x the subject's left, +y up, +z the way it looks.
    template: undeformed place of each vertex. weights: lips, ears and mouth cavity.
    first_eye: triangles from here on are eyes. chin, hairline: numbers of two vertices.
    uv: as of `makehuman.HeadMesh`.
    """

    vertices_of: Callable[[Person], Float[np.ndarray, "vertices 3"]]
    triangles: Integer[np.ndarray, "triangles 3"]
    template: Float[np.ndarray, "vertices 3"]
    weights: Float[np.ndarray, "vertices 3"]
    first_eye: int
    chin: int
    hairline: int
    uv: Float[np.ndarray, "vertices 3"]


@functools.cache
def makehuman_surface() -> Surface:
    """MakeHuman's, refined once; read once for each process."""
    mesh = makehuman.head_mesh()
    refine = Subdivision(mesh.quads, len(mesh.vertices))
    known = np.column_stack((mesh.vertices, mesh.lips, mesh.ears, mesh.cavity))
    known = refine(known)
    chin, hairline = chin_and_hairline(known[:, :3])
    return Surface(
        vertices_of=lambda person: refine(head_vertices(person)),
        triangles=refine.quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3),
        template=known[:, :3],
        weights=np.clip(known[:, 3:], 0, 1),
        first_eye=mesh.first_eye_quad * 8,
        chin=chin,
        hairline=hairline,
        uv=refine.unsmoothed(mesh.uv),
    )


def chin_and_hairline(template: Float[np.ndarray, "vertices 3"]) -> tuple[int, int]:
    """Numbers of the vertices that a face's height is measured between."""
    chin, hairline = (
        int(np.argmin(np.linalg.norm(template - np.array(place), axis=1)))
        for place in (_CHIN, _HAIRLINE)
    )
    return chin, hairline
