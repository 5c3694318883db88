"""A service with a page: predict uploads and camera pictures on one's own machine. No medical device."""

from painseq.serve.app import app
from painseq.serve.options import ServeOptions
from painseq.serve.server import serve

__all__ = ["ServeOptions", "app", "serve"]
