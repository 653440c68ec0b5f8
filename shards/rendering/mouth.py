"""Teeth, gums and tongue of an open mouth.

The mesh has arches without gaps; single teeth are painted on it.
"""

import functools

import numpy as np
from jaxtyping import Float, Integer

from shards.rendering import makehuman
from shards.rendering.heads import Person, mouth_vertices
from shards.rendering.parts import MOUTH
from shards.rendering.pieces import Piece
from shards.rendering.subdivision import Subdivision

_ROUGHNESS, _REFLECTANCE = 0.25, 0.03  # wet
_GUM = np.array([0.34, 0.1, 0.09], np.float32)
_TONGUE = np.array([0.3, 0.095, 0.085], np.float32)
_TOOTH = np.array([0.56, 0.5, 0.4], np.float32)
_GAP = np.array([0.12, 0.06, 0.045], np.float32)
# Half of an arch of the undeformed mesh: |x|, and the way along it from the middle, decimetres.
_ARCH_X = (0.0, 0.089, 0.174, 0.221, 0.254, 0.284, 0.31)
_ARCH_WAY = (0.0, 0.089, 0.189, 0.273, 0.362, 0.457, 0.62)
# Where one tooth ends and the next begins, along half an arch: incisors, canine, molars.
_UPPER = np.array([0.0, 0.085, 0.152, 0.228, 0.298, 0.368, 0.47, 0.57])
_LOWER = np.array([0.0, 0.056, 0.115, 0.185, 0.256, 0.328, 0.44, 0.55])
_UPPER_EDGE, _LOWER_EDGE = 6.6, 6.593  # height of the incisors' edges
_CROWN = 0.1  # height of a tooth over its gum, decimetres
# MakeHuman's closed mouth hides the upper teeth high behind the lip: what is added to each place.
_MOVED = ((0.0, -0.07, -0.02), (0.0, -0.05, -0.035), (0.0, 0.0, 0.0))
_NARROWED = ((0.95, 1.0, 1.0), (0.86, 1.0, 1.0), (0.95, 1.0, 1.0))
_FLATTENED = 0.7  # lower molars, which else stand in the corner of the mouth, per decimetre

_Places = Float[np.ndarray, "num 3"]
_Weight = Float[np.ndarray, "num"]


def mouth_piece(person: Person) -> Piece:
    """What lies in the person's mouth, in the frame of `head_vertices`."""
    refine, triangles, template = _refined()
    mesh = makehuman.mouth_mesh()
    vertices = mouth_vertices(person)
    rows = [np.unique(quads) for quads in mesh.by_kind()]
    _, lower, tongue = rows
    vertices[lower, 1] -= _FLATTENED * mesh.vertices[lower, 0] ** 2
    for kind, narrowed, moved in zip(rows, _NARROWED, _MOVED, strict=True):
        vertices[kind] = vertices[kind] * np.array(narrowed) + np.array(moved)
    jaw = vertices[lower].mean(axis=0) - mesh.vertices[lower].mean(axis=0)
    vertices[tongue] += jaw - (vertices[tongue] - mesh.vertices[tongue]).mean(axis=0)
    vertices = refine(vertices)
    return Piece(vertices, triangles, template, mouth_albedo, _ROUGHNESS, _REFLECTANCE, MOUTH)


def mouth_albedo(template: _Places) -> _Places:
    """Linear albedo at places of the undeformed teeth and tongue.

    The template's x tells which of the three by a shift of whole _APART (see `_refined`).
    """
    kind = np.rint(template[:, 0] / _APART)
    x, y = np.abs(template[:, 0] - kind * _APART), template[:, 1]
    way, rise = np.interp(x, _ARCH_X, _ARCH_WAY), 0.9 * x * x  # the arches rise to the back
    upper = _tooth(way, y - rise - _UPPER_EDGE, _UPPER)
    lower = _tooth(way, _LOWER_EDGE + rise - y, _LOWER)
    albedo = np.where((kind == _UPPER_KIND)[:, None], upper, lower)
    return np.where((kind == 0)[:, None], _TONGUE, albedo).astype(np.float32)


def _tooth(way: _Weight, height: _Weight, ends: np.ndarray) -> _Places:
    """Albedo of a row of teeth; height: over their edges, decimetres."""
    nearest = np.abs(way[:, None] - ends).min(axis=1)
    # Corners at the edge are round, necks at the gum are narrow.
    width = 0.003 + 0.01 * np.exp(-np.maximum(height, 0) / 0.008)
    gap = np.exp(-((nearest / width) ** 2))[:, None]
    shade = 1 - 0.12 * np.clip(height / _CROWN, 0, 1)[:, None] * (0, 0.5, 1.0)  # yellow at the neck
    shade = shade * (1 - 0.6 * np.clip(way - 0.2, 0, 0.3) / 0.3)[:, None]
    tooth = _TOOTH * shade
    tooth = tooth + (_GAP - tooth) * 0.7 * gap
    scallop = _CROWN - 0.02 * np.exp(-((nearest / 0.02) ** 2))  # gums come down between teeth
    gum = np.clip((height - scallop) / 0.012 + 0.5, 0, 1)[:, None]
    return tooth + (_GUM - tooth) * gum


_APART, _UPPER_KIND = 4.0, 1


@functools.cache
def _refined() -> tuple[
    Subdivision, Integer[np.ndarray, "triangles 3"], Float[np.ndarray, "vertices 3"]
]:
    """The mesh of every mouth; its template with upper and lower teeth moved aside, that no paint
    is mixed of two."""
    mesh = makehuman.mouth_mesh()
    refine = Subdivision(mesh.quads, len(mesh.vertices))
    triangles = refine.quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    template = refine(mesh.vertices)
    upper, lower, _ = np.split(refine.quads, [4 * mesh.first_lower, 4 * mesh.first_tongue])
    template[np.unique(upper), 0] += _APART * _UPPER_KIND
    template[np.unique(lower), 0] -= _APART
    return refine, triangles, template
