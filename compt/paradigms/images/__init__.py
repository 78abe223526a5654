"""What paradigms that learn from several views of images share."""

from compt.paradigms.images.data import View, Views, WholeImages, random_view
from compt.paradigms.images.neighbours import labelled_features, neighbours
from compt.paradigms.images.paradigm import ImageParadigm
from compt.paradigms.images.starting import ImageStarter

__all__ = [
    "ImageParadigm",
    "ImageStarter",
    "View",
    "Views",
    "WholeImages",
    "labelled_features",
    "neighbours",
    "random_view",
]
