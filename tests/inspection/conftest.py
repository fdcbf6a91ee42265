import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def no_figure_is_left():
    plt.close("all")  # of tests elsewhere
    yield
    plt.close("all")
