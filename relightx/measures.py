"""The metrics by name: unit, meaning, and which way is better; relightx.metrics takes them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number's direction, unit ('' for a ratio) and meaning in one sentence."""

    higher_is_better: bool
    unit: str
    meaning: str

    def improves(self, value: float, best: float | None) -> bool:
        """Whether the value beats the best so far (None: nothing yet); NaN never does."""
        if best is None or math.isnan(best):
            return not math.isnan(value)
        return value > best if self.higher_is_better else value < best


METRICS: dict[str, Metric] = {
    "normal_error_deg": Metric(False, "deg", "mean angle between predicted and true normal"),
    "normal_below_20_deg": Metric(True, "%", "pixels whose normal is less than 20 degrees off"),
    "normal_below_25_deg": Metric(True, "%", "pixels whose normal is less than 25 degrees off"),
    "normal_below_30_deg": Metric(True, "%", "pixels whose normal is less than 30 degrees off"),
    "albedo_si_mae": Metric(False, "linear", "mean absolute error of albedo at the best scale"),
    "albedo_si_rmse": Metric(False, "linear", "root mean square error of albedo at the best scale"),
    "light_direction_error_deg": Metric(
        False, "deg", "angle between the main directions of predicted and true light"
    ),
    "light_sh_error": Metric(
        False, "", "relative error of a white ball's shading under the light, at the best scale"
    ),
    "reconstruction_mae": Metric(False, "sRGB", "mean absolute error of the image rebuilt"),
    "reconstruction_psnr": Metric(True, "dB", "peak signal-to-noise ratio of the image rebuilt"),
    "reconstruction_ssim": Metric(True, "", "structural similarity of the image rebuilt"),
    "reconstruction_dssim": Metric(False, "", "(1 - SSIM) / 2 of the image rebuilt"),
    "reconstruction_si_mse": Metric(False, "sRGB", "mean square error rebuilt, at the best gain"),
    "relighting_mae": Metric(False, "sRGB", "mean absolute error of the image relit"),
    "relighting_psnr": Metric(True, "dB", "peak signal-to-noise ratio of the image relit"),
    "relighting_ssim": Metric(True, "", "structural similarity of the image relit"),
    "relighting_dssim": Metric(False, "", "(1 - SSIM) / 2 of the image relit"),
    "relighting_si_mse": Metric(False, "sRGB", "mean square error relit, at the best gain"),
    "albedo_consistency": Metric(
        False, "", "spread of albedo over the lights of a portrait, relative to its mean"
    ),
    "normal_consistency_deg": Metric(
        False, "deg", "mean angle of a normal to its mean over the lights of a portrait"
    ),
}
