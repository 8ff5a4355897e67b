"""What the string of a method may give in brackets, and what it means where it gives nothing. Loads nothing heavy."""

from PIL import Image

FILTERS = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")}  # of `resized`
FILTER = "bicubic"
OVERLAP = 0.75  # of windows; MultiDiffusion moves windows of 64 latent pixels by 8, which is 0.875 and takes four times as long
STRENGTH = 0.6  # of `two-stage`: how much noise is put back before a picture is drawn over
SHIFT = 1.0  # of `schedule-shift`; 1 keeps the signal-to-noise ratio of the mean over as many pixels as show the same share
PADDING = "reflect"
UPSCALERS = ("back-projection", "x4", "latent")  # of `super-resolved`
UPSCALER = "back-projection"
