from painseq.explain.drawing import film_strip
from painseq.explain.gradcam import grad_cam

__all__ = ["film_strip", "grad_cam"]
