"""Feature maps of the frames that come next."""

# ruff: noqa: F401
from stmixer_mm.projects.forecast.sampling import SampleClipAndFuture
from stmixer_mm.projects.forecast.warp_forecast import WarpForecast
