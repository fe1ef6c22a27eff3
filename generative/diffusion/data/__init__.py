"""Images to learn from, all as one kind of data set (`Split`), wherever they come from (`load`)."""

from generative.diffusion.data.handwritten import digits
from generative.diffusion.data.sources import EMBEDDED, load
from generative.diffusion.data.split import DataError, Images, Split

__all__ = ["EMBEDDED", "DataError", "Images", "Split", "digits", "load"]
