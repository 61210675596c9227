"""The page of examples of a segmentation, pixel by pixel."""
import numpy as np

from jaxmm.report import pictures


def test_a_page_shows_inputs_label_prediction_and_error():
    label = np.array([[[0, 1], [-1, 2]], [[2, 2], [2, 2]]])
    predicted = np.array([[[0, 2], [1, 2]], [[2, 2], [2, 0]]])
    inputs = {"sight": np.full((2, 2, 2, 3), 51, np.uint8), "far": np.arange(8.0).reshape(2, 2, 2)}
    figure = pictures.example_page(inputs, label, predicted, ("a", "b$x$", "c"))
    grid = np.array(figure.axes).reshape(2, 5)
    assert [axes.get_title("left") for axes in grid[0]] == ["sight", "far", "label", "prediction", "error"]
    sight, far, true, found, error = (axes.images[0].get_array() for axes in grid[0])
    np.testing.assert_allclose(sight, 0.2)
    np.testing.assert_array_equal(far, [[0, 1], [2, 3]])
    colours = pictures.class_colours(3)
    np.testing.assert_array_equal(true, [[colours[0], colours[1]], [[1, 1, 1, 1], colours[2]]])
    np.testing.assert_array_equal(found, [[colours[0], colours[2]], [colours[1], colours[2]]])
    wrong, right, none = (pictures.colors.to_rgba(c) for c in (pictures.WRONG, pictures.RIGHT, pictures.NONE))
    np.testing.assert_array_equal(error, [[right, wrong], [none, right]])
    assert [t.get_text() for t in figure.legends[0].texts] == ["a", "b$x$", "c", "error"]


def test_every_class_has_a_colour_of_its_own_and_void_is_white():
    for count in 7, 20, 40, 200:
        colours = pictures.class_colours(count)
        assert colours.shape == (count + 1, 4) and colours[-1].tolist() == [1, 1, 1, 1]
        assert len(np.unique(colours.round(3), axis=0)) == count + 1


def test_images_that_are_no_bytes_of_three_channels_are_scaled():
    x = np.array([-1.0, 0.0, 3.0]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(pictures.shown(x), [[[[0, 0.25, 1]]]])
    np.testing.assert_allclose(pictures.shown(np.repeat(x, 2, -1)), [[[2 / 3]]])
