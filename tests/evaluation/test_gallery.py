"""The images for the figures."""

import numpy as np

from lcgen.evaluation import gallery


def test_figures_show_all_classes_or_an_even_pick():
  for classes in (2, 10, gallery.MOST_CLASSES):
    np.testing.assert_array_equal(gallery.shown_classes(classes), np.arange(classes))
  shown = gallery.shown_classes(1000)
  assert (len(shown), shown[0], shown[-1]) == (gallery.MOST_CLASSES, 0, 999)
  assert set(np.diff(shown)) <= {52, 53}
  assert len(gallery.shown_classes(21)) == gallery.MOST_CLASSES
