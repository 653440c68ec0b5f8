"""The labels that a multi-lit portrait lacks, by photometric stereo: a step of a build.

Normals come from luminance, the albedo of each colour from the images and the normals. A light is a
lamp and, where shadows show it, the even light of the room:

    image = albedo * (strength * max(0, normal . direction) + ambient)

so the stored light is `strength * directional_light(direction, ambient / strength)`. Directions
are given, or estimated up to the bas-relief ambiguity (shards.labelling.light_estimation);
strengths are read off the portrait's own light label or estimated. Images tell only the product of
albedo and
strength: a lamp of usual strength shades to EXPOSURE, the same for all portraits, so that one
person's skin stays darker than another's; where albedo would pass 1, the lamps are stronger.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from relightx.sample import Portrait, Provenance
from relightx.sh import ambient_light, directional_light, dominant_direction
from shards.labelling.lamps import check_agreement
from shards.labelling.light_estimation import MEMBER, estimate_lights, estimate_strengths
from shards.labelling.photometric_stereo import MIN_LIGHTS, UNKNOWNS, Surface, photometric_stereo
from shards.labelling.surface_albedo import (
    SATURATION,
    Lamps,
    channel_weights,
    fit_albedo,
    luminance,
)

EXPOSURE = 1.25
"""Shading by a lamp of usual strength; puts the albedo of bright skin, well exposed, below 1."""
BRIGHTEST = 0.995
"""Share of the trusted pixels whose albedo must be at most 1."""
TRUSTED = 0.5
"""Confidence, relative to the best, from which on a pixel takes part in finding lamps."""
ESTIMATED_TRUST = 0.5
"""Confidence of labels from estimated lights, relative to those from given ones: each pixel fits as
well, but all normals may be tilted or flattened together."""
TURNED_AWAY = -0.1
"""normal . direction below which a lamp does not reach a surface and shows the room's light."""
ROOM_SHARE = 0.01
"""Share of the pixels, over all lights, that must be turned away to measure the room's light."""
ROOM_LEAST = 0.1
"""Room's light, relative to the lamps, that is believed; skin lit by skin and stray light look like
0.04 to 0.07 on Extended Yale B, where the room was dark."""
ROOM_ROUNDS = 4
COLOURED = 0.05
"""Difference of colour between lamps, in logarithms, from which on they are not taken as alike."""
NOT_A_LAMP = 0.1
"""Share of a light label's length that may be neither a lamp at its direction nor even light."""


def with_stereo_labels(portrait: Portrait, lights: Literal["given", "estimated"]) -> Portrait:
    """The portrait with albedo, normal, confidence, sh and direction, as far as it lacks them.

    What is there stays, whatever is found; where albedo, normal and sh are there, nothing is done.
    lights: 'estimated' finds the directions of a portrait that has neither directions nor sh.
    The new labels are 'pseudo', and the provenance's crop text says how they came about.
    Raises ValueError naming the portrait for lights without directions ('given'), fewer than 3 of
    them (10 to estimate) or in one plane, a light that is black or no single lamp, and directions
    that the images contradict.
    """
    if all(held is not None for held in (portrait.albedo, portrait.normal, portrait.sh)):
        return portrait
    try:
        return _labelled(portrait, lights)
    except ValueError as error:
        raise ValueError(f"portrait {portrait.key!r}: no photometric stereo: {error}") from None


def _labelled(portrait: Portrait, lights: str) -> Portrait:
    image = portrait.linear_image()[..., : portrait.image.shape[3]]
    _refuse_black(portrait, image)
    known = portrait.direction is not None or portrait.sh is not None
    if not known and lights == "given":
        raise ValueError(
            "its lights have no directions; give them, or estimate them (up to the bas-relief"
            " ambiguity) with 'estimated'"
        )
    lamps = _lamps(portrait, image)
    found = _find(image, lamps, portrait)
    trust = 1 if known else ESTIMATED_TRUST
    new = {
        "albedo": np.broadcast_to(found.albedo, (*found.albedo.shape[:2], 3)).clip(0, 1),
        "normal": found.normal,
        "confidence": found.confidence * np.float32(trust),
        "sh": _sh(found.lamps),
        "direction": found.lamps.direction,
    }
    missing = {name: value for name, value in new.items() if getattr(portrait, name) is None}
    return replace(portrait, **missing, provenance=_provenance(portrait, missing, known))


@dataclass(frozen=True)
class _Found:
    """What explains the images: albedo is not clipped."""

    normal: Float[np.ndarray, "height width 3"]
    albedo: Float[np.ndarray, "height width channels"]
    confidence: Float[np.ndarray, "height width"]
    lamps: Lamps


def _refuse_black(
    portrait: Portrait, image: Float[np.ndarray, "lights height width channels"]
) -> None:
    for name, picture in zip(portrait.light_name, image, strict=True):
        if not picture.max() > 0:
            raise ValueError(f"light {name!r} is black throughout; leave it out")


def _lamps(
    portrait: Portrait,
    image: Float[np.ndarray, "lights height width channels"],
    albedo: Float[np.ndarray, "height width channels"] | None = None,
    room: float = 0.0,
) -> Lamps:
    """The lamps of the light label, or as the images tell them less what the room's light adds."""
    channels = image.shape[3]
    if portrait.sh is not None:
        return _lamps_of_label(portrait, channels)
    white = np.ones((len(image), channels), np.float32)
    added = None if albedo is None else np.broadcast_to(np.float32(room) * albedo, image.shape)
    gray = luminance(image, white, added)
    direction = portrait.direction
    if direction is None:
        estimated = estimate_lights(gray, portrait.mask, SATURATION)
        direction, strength = estimated.direction, estimated.strength
    else:
        _refuse_few(direction)
        strength = estimate_strengths(gray, direction, portrait.mask, SATURATION)
    return Lamps(direction, strength[:, None] * white, room * white)


def _refuse_few(direction: Float[np.ndarray, "lights 3"]) -> None:
    if len(direction) < UNKNOWNS:
        raise ValueError(f"{len(direction)} lights; {UNKNOWNS} needed, better {MIN_LIGHTS} or more")


def _lamps_of_label(portrait: Portrait, channels: int) -> Lamps:
    """Lamps and even light that are the light label; a gray image has the mean of its colours."""
    sh = torch.from_numpy(portrait.sh).double()
    if portrait.direction is None:
        direction = dominant_direction(sh)
        if not bool((torch.linalg.vector_norm(direction, dim=-1) > 0.5).all()):
            raise ValueError("its light label has lights without a direction")
    else:
        direction = torch.from_numpy(portrait.direction).double()
    _refuse_few(direction.numpy())
    sh = sh if channels == 3 else sh.mean(dim=1, keepdim=True)
    lamp, even = directional_light(direction), ambient_light(1.0).double()
    basis = torch.stack((lamp, even.expand_as(lamp)), dim=-1)
    part = torch.linalg.lstsq(basis, sh.transpose(1, 2)).solution
    rest = torch.linalg.vector_norm(basis @ part - sh.transpose(1, 2), dim=(1, 2))
    share = rest / torch.linalg.vector_norm(sh, dim=(1, 2))
    for name, left, strength in zip(portrait.light_name, share, part[:, 0], strict=True):
        if not (left < NOT_A_LAMP and bool((strength > 0).all())):
            raise ValueError(
                f"the label of light {name!r} is no single lamp at its direction"
                f" ({float(left):.0%} of it is something else)"
            )
    strength, ambient = part[:, 0].float().numpy(), part[:, 1].float().numpy()
    return Lamps(direction.float().numpy(), strength, ambient)


def _find(
    image: Float[np.ndarray, "lights height width channels"], lamps: Lamps, portrait: Portrait
) -> _Found:
    """Surface and lamps; lamps that a light label gives are left as they are."""
    if portrait.sh is not None:
        found = _surface(image, lamps, portrait.normal, rounds=ROOM_ROUNDS)
        _check(image, found, portrait)
        return found
    found = _surface(image, lamps, portrait.normal)
    _check(image, found, portrait)
    inside = _trusted(found, portrait.mask)
    for _ in range(ROOM_ROUNDS):
        room = _room_light(image, found, inside)
        if room == 0:
            break
        lamps = _lamps(portrait, image, found.albedo, room)
        found = _surface(image, lamps, portrait.normal, found.albedo)
    colour = _lamp_colour(image, found, inside)
    if (np.abs(np.log(colour)) > COLOURED).any():
        lamps = lamps._replace(strength=lamps.strength * colour)
        found = _surface(image, lamps, portrait.normal, found.albedo)
    return _exposed(found, inside, portrait)


def _surface(
    image: Float[np.ndarray, "lights height width channels"],
    lamps: Lamps,
    normal: Float[np.ndarray, "height width 3"] | None,
    albedo: Float[np.ndarray, "height width channels"] | None = None,
    rounds: int = 1,
) -> _Found:
    """Normals, unless they are given, and albedo; what the room adds is taken away in rounds."""
    strength = lamps.strength
    usual = strength @ channel_weights(strength.shape[1])
    for _ in range(rounds if lamps.ambient.any() else 1):
        room = None if albedo is None else albedo * lamps.ambient[:, None, None]
        gray = luminance(image, strength / usual[:, None], room)
        surface = photometric_stereo(gray, lamps.direction, usual, SATURATION)
        facing = surface.normal if normal is None else normal
        albedo = fit_albedo(image, facing, lamps)
    return _Found(facing, albedo, surface.confidence, lamps)


def _trusted(found: _Found, mask: Bool[np.ndarray, "height width"] | None) -> np.ndarray:
    inside = np.ones(found.confidence.shape, bool) if mask is None else mask
    if not (found.confidence[inside] > 0).any():
        raise ValueError("no pixel is explained by the lights")
    level = TRUSTED * np.quantile(found.confidence[inside], 0.9)
    return inside & (found.confidence >= level) & (found.albedo.max(axis=2) > 0)


def _check(
    image: Float[np.ndarray, "lights height width channels"], found: _Found, portrait: Portrait
) -> None:
    """Refuse directions that the images contradict; three lights never do."""
    if len(image) < MIN_LIGHTS:
        return
    gray = luminance(image, np.ones((len(image), image.shape[3]), np.float32))
    surface = Surface(found.normal, found.albedo.mean(axis=2), found.confidence)
    lamp = found.lamps.direction * found.lamps.strength.mean(axis=1, keepdims=True)
    check_agreement(gray, surface, _trusted(found, portrait.mask), lamp)


def _room_light(
    image: Float[np.ndarray, "lights height width channels"],
    found: _Found,
    inside: Bool[np.ndarray, "height width"],
) -> float:
    """Even shading seen where lamps do not reach; 0 where too little is seen or there is none."""
    cosine = found.lamps.direction @ found.normal[inside].T
    away = cosine < TURNED_AWAY
    if away.sum() < ROOM_SHARE * away.size:
        return 0.0
    shading = image[:, inside] / found.albedo[inside]
    room = float(np.median(shading.mean(axis=2)[away]))
    return room if room > ROOM_LEAST * np.median(found.lamps.strength) else 0.0


def _lamp_colour(
    image: Float[np.ndarray, "lights height width channels"],
    found: _Found,
    inside: Bool[np.ndarray, "height width"],
) -> Float[np.ndarray, "lights channels"]:
    """Colour of each lamp relative to the usual one, whose colour the albedo has."""
    if image.shape[3] == 1:
        return np.ones((len(image), 1), np.float32)
    lit = np.maximum(found.lamps.direction @ found.normal[inside].T, 0)
    shading = lit[..., None] * found.lamps.strength[:, None] + found.lamps.ambient[:, None]
    expected, seen = found.albedo[inside] * shading, image[:, inside]
    gray, usual = seen @ channel_weights(3), expected @ channel_weights(3)
    good = (np.abs(gray - usual) < 0.4 * usual) & (seen.max(axis=2) < SATURATION)
    over = np.einsum("lp,lpc,lpc->lc", good, seen, expected)
    under = np.einsum("lp,lpc,lpc->lc", good, expected, expected)
    share = np.where(under > 0, over / np.maximum(under, 1e-12), 1)
    colour = share / (share @ channel_weights(3))[:, None]
    return (colour / np.median(colour, axis=0)).astype(np.float32)


def _exposed(found: _Found, inside: Bool[np.ndarray, "height width"], portrait: Portrait) -> _Found:
    """The share of albedo and strength in their product, which is all that images show."""
    if portrait.albedo is not None:
        held = portrait.albedo[inside].mean(axis=1)
        known = held > 0.02
        if not known.any():
            raise ValueError("its albedo is black where the lights can be trusted")
        scale = np.median(found.albedo[inside].mean(axis=1)[known] / held[known])
    else:
        brightest = np.quantile(found.albedo[inside].max(axis=1), BRIGHTEST)
        scale = max(EXPOSURE, float(brightest))
    lamps = found.lamps
    return replace(
        found,
        albedo=found.albedo / np.float32(scale),
        lamps=Lamps(
            lamps.direction,
            lamps.strength * np.float32(scale),
            lamps.ambient * np.float32(scale),
        ),
    )


def _sh(lamps: Lamps) -> Float[np.ndarray, "lights 3 9"]:
    lamp = directional_light(torch.from_numpy(lamps.direction)).numpy()
    even = ambient_light(1.0).numpy()
    sh = lamps.strength[..., None] * lamp[:, None] + lamps.ambient[..., None] * even
    return np.array(np.broadcast_to(sh, (len(sh), 3, 9)), np.float32)


def _provenance(portrait: Portrait, missing: dict[str, np.ndarray], known: bool) -> Provenance:
    label = {"albedo": "albedo", "normal": "normal", "sh": "light"}
    made = [label[name] for name in missing if name in label]
    names = " and ".join((", ".join(made[:-1]), made[-1])) if len(made) > 1 else made[0]
    how = "given" if known else f"estimated, up to the bas-relief ambiguity; member: {MEMBER}"
    sentence = (
        f"{names.capitalize()} by photometric stereo from {portrait.num_lights} lights"
        f" (directions {how})"
    )
    provenance = portrait.provenance
    before = provenance.crop.rstrip(". ")
    crop = f"{before}. {sentence}" if before else sentence
    return replace(provenance, crop=crop, **dict.fromkeys(made, "pseudo"))
