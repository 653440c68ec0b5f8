"""What a look from near finds on the skin of one head: relief, marks, a photographed colour."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from shards.rendering.chart import Chart
from shards.rendering.hair import hair_weight
from shards.rendering.heads import Person
from shards.rendering.marks import Marks, marked, random_marks, spot_heights, without_marks
from shards.rendering.relief import Relief, heights, random_relief, tilt
from shards.rendering.skin import Appearance, bare_skin, clothed, skin_colour
from shards.rendering.skins import Skin, likely_skin, read_skin, skin_files


@dataclass(frozen=True)
class Detail:
    """relief, marks: none in pictures without fine detail. skin: a texture to colour the skin by,
    none where the model of two dyes does. lightness: CIE L* of the skin.
    """

    lightness: float
    relief: Relief | None = None
    marks: Marks | None = None
    skin: Skin | None = None

    def drawn_elsewhere(self, appearance: Appearance) -> Appearance:
        """The appearance without what this detail draws in its place."""
        return appearance if self.marks is None else without_marks(appearance)

    def skin_of(
        self,
        at: Float[np.ndarray, "num 9"],
        uv: Float[np.ndarray, "num 3"],
        appearance: Appearance,
        spacing: float,
    ) -> tuple[Float[np.ndarray, "num 3"], Float[np.ndarray, "num 3"] | None]:
        """Albedo of bare skin, and what its relief, if any, adds to the unit normal.

        at: normal, place on the undeformed head, weights of lips, ears and mouth cavity.
        uv: texture coordinates and how far they hold. spacing: of the samples, decimetres.
        """
        normal, template, (lips, ears, cavity) = at[:, :3], at[:, 3:6], at[:, 6:].T
        chart = Chart.of_spacing(spacing)
        bare = bare_skin(template, lips, ears, appearance)
        if self.skin is not None:
            bare = self._photographed(bare, template, ears, uv, appearance)
        if self.marks is not None:
            bare = marked(bare, template, lips, self.marks, appearance, chart)
        if self.relief is None:
            return bare, None
        height = heights(self.relief, chart)
        if self.marks is not None:
            height += spot_heights(self.marks, chart)
        uncovered = (1 - clothed(template, appearance)) * (1 - np.clip(cavity, 0, 1))
        unit = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        slope = tilt(height, chart, template, unit) * uncovered[:, None].astype(np.float32)
        return bare, slope

    def _photographed(
        self,
        bare: np.ndarray,
        template: np.ndarray,
        ears: np.ndarray,
        uv: np.ndarray,
        appearance: Appearance,
    ) -> np.ndarray:
        """Bare skin in the texture's colour; its pattern where coordinates hold and no hair is."""
        tone = self.skin.toned(self.lightness)
        plain = bare * (tone / skin_colour(appearance.melanin, appearance.blood))
        # Textures have a shaved scalp painted on.
        usual = replace(appearance.hair, recede=0.0, low=0.0)
        scalp = hair_weight(template, ears, usual, softness=0.3, ragged=0.0)
        share = (np.clip(uv[:, 2], 0, 1) * (1 - scalp))[:, None]
        pattern = np.clip(self.skin.at(uv[:, :2]), 0.05, 2.5)
        return (plain + (tone * pattern - plain) * share).astype(np.float32)


def random_detail(
    rng: np.random.Generator, person: Person, appearance: Appearance, skin: Skin | None = None
) -> Detail:
    """Relief and marks likely for the person."""
    relief = random_relief(rng, person)
    return Detail(person.lightness, relief, random_marks(rng, person, appearance), skin)


def random_skin(rng: np.random.Generator, person: Person, folder: Path) -> Skin:
    """One of a folder's textures that is likely for the person."""
    return read_skin(likely_skin(rng, person, skin_files(folder)))
