import h5py
import numpy as np
import pytest
from scipy.io import savemat

from shards.layouts.matlab import read_maps, read_matrix

SHAPE = (5, 7)


def some_maps() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    maps = {name: generator.normal(size=SHAPE) for name in ("px", "py", "pz")}
    maps["px"][1, 2], maps["py"][3, 3] = np.nan, np.inf
    return maps


def write_7_3(file, maps: dict[str, np.ndarray]) -> None:
    """As MATLAB does: 512 bytes of its own, and columns first."""
    with h5py.File(file, "w", userblock_size=512) as content:
        for name, values in maps.items():
            content[name] = values.T
    with open(file, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


WRITERS = {
    "4": lambda file, maps: savemat(file, maps, format="4"),
    "5": savemat,
    "7": lambda file, maps: savemat(file, maps, do_compression=True),
    "7.3": write_7_3,
}


@pytest.mark.parametrize("version", WRITERS)
def test_maps_of_every_version_come_back_with_what_is_not_finite(tmp_path, version):
    file, maps = tmp_path / "sn.mat", some_maps()
    WRITERS[version](file, maps)
    found = read_maps(file, ("px", "py"), SHAPE, optional=("pz", "other"))
    assert set(found) == {"px", "py", "pz"}
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, maps[name].astype(np.float32))


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, bool])
def test_numbers_of_any_kind_are_read(tmp_path, version, kind):
    values = np.arange(35).reshape(SHAPE) % 3
    WRITERS[version](tmp_path / "mask.mat", {"mask": values.astype(kind)})
    found = read_maps(tmp_path / "mask.mat", ("mask",), SHAPE)["mask"]
    np.testing.assert_array_equal(found, values.astype(kind).astype(np.float32))


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"py": np.zeros(SHAPE)}, "has no variable px"),
        ({"px": np.zeros((7, 5))}, "px has 7 x 5 values, 5 x 7 needed"),
        ({"px": np.zeros((5, 8))}, "px has 5 x 8 values, 5 x 7 needed"),
    ],
)
def test_a_variable_that_is_missing_or_of_another_shape_is_named(
    tmp_path, version, content, message
):
    file = tmp_path / "sn.mat"
    WRITERS[version](file, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_maps(file, ("px",), SHAPE)
    assert str(file) in str(caught.value)


def test_what_is_no_picture_of_real_numbers_is_refused(tmp_path):
    file = tmp_path / "sn.mat"
    for content in ("text", {"a": 1.0}, np.array([["cell"]], object)):
        savemat(file, {"px": content})
        with pytest.raises(ValueError, match=r"sn\.mat: px (does not hold numbers|has)"):
            read_maps(file, ("px",), SHAPE)
    savemat(file, {"px": np.full(SHAPE, 1j)})
    with pytest.raises(ValueError, match="complex"):
        read_maps(file, ("px",), SHAPE)
    with h5py.File(file, "w") as content:
        content.create_group("px")
    with pytest.raises(ValueError, match="px is no plain variable"):
        read_maps(file, ("px",), SHAPE)


def test_a_link_to_another_file_is_not_followed(tmp_path):
    write_7_3(tmp_path / "secret.mat", {"px": np.ones(SHAPE)})
    with h5py.File(tmp_path / "sn.mat", "w") as content:
        content["px"] = h5py.ExternalLink(str(tmp_path / "secret.mat"), "px")
    with pytest.raises(ValueError, match="has no variable px"):
        read_maps(tmp_path / "sn.mat", ("px",), SHAPE)


@pytest.mark.parametrize("version", WRITERS)
def test_a_file_cut_or_changed_anywhere_gives_an_error_that_names_it(tmp_path, version):
    file, generator = tmp_path / "sn.mat", np.random.default_rng(1)
    WRITERS[version](file, some_maps())
    whole = file.read_bytes()
    for _ in range(60):
        broken = bytearray(whole[: int(generator.integers(0, len(whole)))])
        for place in generator.integers(0, max(len(broken), 1), 3 if len(broken) else 0):
            broken[place] = int(generator.integers(0, 256))
        file.write_bytes(bytes(broken))
        try:
            read_maps(file, ("px", "py"), SHAPE)
        except ValueError as error:
            assert str(file) in str(error)


@pytest.mark.parametrize("content", [b"", b"x", b"<html>not found</html>" * 50])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "sn.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"sn\.mat: (cannot be read as|has no variable)"):
        read_maps(tmp_path / "sn.mat", ("px",), SHAPE)


def test_what_would_be_large_in_memory_is_refused_before(tmp_path):
    file = tmp_path / "sn.mat"
    savemat(file, {"px": np.zeros(SHAPE), "bomb": np.zeros((2000, 1000))}, do_compression=True)
    assert file.stat().st_size < 100_000
    with pytest.raises(ValueError, match="unpacks to"):
        read_maps(file, ("px",), SHAPE)
    with open(file, "wb") as stream:
        stream.truncate(257 << 20)  # takes no room on disk
    with pytest.raises(ValueError, match="has 257 MiB; a file of at most 256 MiB is read"):
        read_maps(file, ("px",), SHAPE)


@pytest.mark.parametrize(
    "script",
    [
        "LightSource = [30 45; 31.5 135; 30 225; 30 -45];",
        "% angles [1 2 3]\r\nx = [7 7];\r\nL=[30, 45\r\n31.5, 135 % 2nd\r\n30 225\r\n30 -45]\r\n",
    ],
)
def test_the_last_matrix_of_a_script_is_read(tmp_path, script):
    (tmp_path / "LightSource.m").write_bytes(script.encode())
    found = read_matrix(tmp_path / "LightSource.m")
    np.testing.assert_array_equal(found, [[30, 45], [31.5, 135], [30, 225], [30, -45]])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (b"", "sets no matrix"),
        (b"x = 5", "sets no matrix"),
        (b"x = [1 2; 3]", "is not rows of numbers"),
        (b"x = [a b; c d]", "is not rows of numbers"),
        (b"x = [1 NaN; 2 3]", "is not rows of numbers"),
        (b"x = []", "is not rows of numbers"),
        (b"[" * 70_000, "has 70000 bytes"),
        (bytes(range(256)), "sets no matrix|not rows"),
    ],
)
def test_a_script_without_a_matrix_is_refused(tmp_path, script, message):
    (tmp_path / "LightSource.m").write_bytes(script)
    with pytest.raises(ValueError, match=message) as caught:
        read_matrix(tmp_path / "LightSource.m")
    assert "LightSource.m" in str(caught.value)
