"""Every test runs seeded, and with uninitialised memory poisoned: `torch.empty` gives NaN."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from tests.cases import FIRST, NAMES, Case

# Of each method one graph of forward and backward, one of encode and decode, and forward through a file.
GRAPHS_OF_ALL = (
    "test_one_graph_for_all_batch_sizes",
    "test_encode_and_decode_compile",
    "test_forward_runs_from_a_file",
    "test_nothing_is_read_back",
    "test_torch_func_gives",
    "test_second_derivatives_are_the_same",
    "test_gradients_of_each_sample",
    "test_mapped_encode_decode",
    "test_a_trace",
    "test_without_values",
    "test_script_says",
)

# What these do to a graph in vq they do in each quantizer that searches a codebook.
SEARCHED = ("ema_vq", "rotation_vq", "simvq")
OF_THE_SEARCH = {"distance", "code_dim"}

settings.register_profile(
    "default",
    deadline=None,  # shared machines stall
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tried of the methods that stand on the operations of others, beside the contract, takes its time."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        case = parameters.get("case", parameters.get("name"))
        if _is_tried_elsewhere(item.path.parent.name, item.name, parameters.get("implementation"), case):
            item.add_marker(pytest.mark.long)
    # The slow ones first: a worker that began one of them last would keep the others waiting for it.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _is_tried_elsewhere(folder: str, test: str, implementation: object, case: object) -> bool:
    name, options = (case.name, case.options) if isinstance(case, Case) else (case, {})
    if folder == "graphs" and name in SEARCHED and options and options.keys() <= OF_THE_SEARCH:
        return True
    if name not in NAMES or (name in FIRST and not options.keys() & {"regularizers", "learned_scale"}):
        return False
    if folder == "contract":
        return implementation == "reference"
    if folder == "graphs":
        return bool(options) or not test.startswith(GRAPHS_OF_ALL)
    return folder == "triton" or (bool(options) and folder in ("precision", "robustness", "state"))


@pytest.fixture(autouse=True)
def _seeded_and_poisoned() -> Iterator[None]:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # among others, fills `torch.empty` with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small pictures, one of them in a subfolder and grey."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    (folder / "sub").mkdir()
    Image.fromarray(noise[0]).save(folder / "a.png")
    Image.fromarray(noise[1]).save(folder / "b.jpg")
    Image.fromarray(noise[2, :, :, 0]).save(folder / "sub" / "grey.png")
    return folder
