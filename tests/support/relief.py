"""A head in relief for tests: smooth, convex but for nose, brows and mouth, before a dark wall."""

import numpy as np

HEIGHT, WIDTH = 60, 48


def relief() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals (x right, y up, z to the camera), gray albedo and mask of the head."""
    y, x = np.meshgrid(np.linspace(1.2, -1.2, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    mask = (x / 0.75) ** 2 + y**2 < 0.9
    depth = 0.9 * np.sqrt(np.clip(1 - (x / 0.8) ** 2 - (y / 1.1) ** 2, 0.02, None))
    depth += 0.25 * np.exp(-((x / 0.12) ** 2) - ((y + 0.05) / 0.25) ** 2)
    for eye in (-0.3, 0.3):
        depth -= 0.06 * np.exp(-(((x - eye) / 0.13) ** 2) - ((y - 0.3) / 0.1) ** 2)
    depth += 0.05 * np.exp(-((x / 0.25) ** 2) - ((y + 0.5) / 0.08) ** 2)
    step_y, step_x = 2.4 / (HEIGHT - 1), 2 / (WIDTH - 1)
    normal = np.stack(
        (
            -np.gradient(depth, step_x, axis=1),
            np.gradient(depth, step_y, axis=0),
            np.ones_like(depth),
        ),
        axis=-1,
    )
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    normal[~mask] = (0, 0, 1)
    albedo = np.where(mask, 0.55 + 0.15 * np.cos(7 * x) * np.cos(5 * y), 0.01)
    return normal, albedo, mask


def photograph(
    normal: np.ndarray, albedo: np.ndarray, toward: np.ndarray, strength: float
) -> np.ndarray:
    """Linear light of the relief under a distant lamp, without cast shadows."""
    return albedo * strength * np.maximum(normal @ toward, 0)
