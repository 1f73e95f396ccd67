"""Options of our own."""


def pytest_addoption(parser):
    parser.addoption(
        "--seeds",
        type=int,
        default=200,
        help="how many seeds the simulator runs (make sim SEEDS=N)",
    )
