"""Arrays of other frameworks: nothing is copied on the way in, results come back in the caller's own."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from typing import Any

import numpy as np
import pytest

import segprior
from segprior import _arrays, _ffi


class Foreign:
    """A framework that speaks nothing but DLPack; `versioned=False` is one older than DLPack 1.0."""

    def __init__(self, array: np.ndarray, versioned: bool = True) -> None:
        self.array, self.versioned, self.exports = array, versioned, 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **arguments: Any) -> Any:
        if "max_version" in arguments and not self.versioned:
            raise TypeError("unexpected keyword max_version")
        self.exports += 1
        return self.array.__dlpack__(**arguments)


@pytest.mark.parametrize("versioned", [True, False])
def test_views_are_zero_copy(versioned: bool) -> None:
    array = np.arange(24.0, dtype=np.float32).reshape(1, 2, 3, 4)
    for given in (array, Foreign(array, versioned)):
        seen = _arrays.view(given, "features")
        assert seen.tensor.data == array.ctypes.data
        assert seen.shape == array.shape and seen.dtype == _ffi.FLOAT32
        assert seen.device == (_ffi.CPU, 0)


def test_a_view_keeps_the_memory_alive() -> None:
    array = np.ones((1, 2, 3, 4))
    alive = weakref.ref(array)
    seen = _arrays.view(Foreign(array), "features")
    del array
    gc.collect()
    assert alive() is not None
    assert seen.to_numpy().sum() == 24
    del seen
    gc.collect()
    assert alive() is None, "the capsule was not released"


def test_slices(problem: dict[str, Any]) -> None:
    features = problem["features"]
    whole = segprior.softmax(features, tv=segprior.TV())
    second = segprior.softmax(Foreign(features[1:]), tv=segprior.TV())
    assert np.array_equal(whole.u[1:], second.u)


def test_foreign_arrays_everywhere(problem: dict[str, Any]) -> None:
    def solve(wrap: Any) -> tuple[Any, Any]:
        r = segprior.softmax(
            wrap(problem["features"]),
            eps=wrap(np.array([0.5])),
            tv=segprior.TV(wrap(np.array([0.7])), edge=wrap(problem["edge"])),
            volume=segprior.Volume(wrap(problem["volume"])),
        )
        return r, r.backward(wrap(problem["grad_u"]))

    (r, g), (r2, g2) = solve(lambda a: a), solve(Foreign)
    assert isinstance(r2.u, np.ndarray)
    assert np.array_equal(r.u, r2.u) and np.array_equal(r.tv_dual, r2.tv_dual)
    for name in ("features", "eps", "tv_lam", "tv_tau", "tv_edge", "volume"):
        assert np.array_equal(getattr(g, name), getattr(g2, name)), name


def test_read_only_input(problem: dict[str, Any]) -> None:
    features = problem["features"]
    expected = segprior.softmax(features).u
    features.flags.writeable = False
    assert np.array_equal(segprior.softmax(features).u, expected)
    assert np.array_equal(segprior.softmax(Foreign(features)).u, expected)


def test_inputs_are_not_written(problem: dict[str, Any]) -> None:
    copies = {name: array.copy() for name, array in problem.items()}
    r = segprior.softmax(
        problem["features"], tv=segprior.TV(edge=problem["edge"]), volume=segprior.Volume(problem["volume"])
    )
    r.backward(problem["grad_u"])
    for name, copy in copies.items():
        assert np.array_equal(copy, problem[name]), name


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (
            np.zeros((1, 2, 3, 4), np.int32),
            "features has dtype int32; it must be float32, float64, float16 or bfloat16",
        ),
        (np.zeros((1, 2, 3, 4), np.uint8), "features has dtype uint8"),
        (np.zeros((1, 2, 3, 4), bool), "features has dtype bool"),
        (np.zeros((1, 2, 3, 4), np.complex64), "features has dtype complex64"),
        (np.zeros((1, 2, 3, 4), ">f4"), "features has dtype >f4"),
        ([[1.0]], "features is list; it must be an array"),
    ],
)
def test_wrong_dtype(array: Any, text: str) -> None:
    with pytest.raises(segprior.InvalidTypeError, match=text):
        segprior.softmax(array)
    if isinstance(array, np.ndarray) and array.dtype.isnative:
        with pytest.raises(TypeError, match=text.split()[0]):
            segprior.softmax(Foreign(array))


@pytest.mark.parametrize("wrap", [lambda a: a, Foreign])
def test_strides(wrap: Any) -> None:
    array = np.zeros((1, 2, 6, 8))
    for bad in (array[..., ::2], array[:, :, ::2], np.asfortranarray(array), array[..., ::-1]):
        with pytest.raises(segprior.InvalidValueError, match="features is not C-contiguous"):
            segprior.softmax(wrap(bad))
    # An axis of one element may have any stride.
    assert segprior.softmax(wrap(np.zeros((2, 2, 6, 8))[::2])).u.shape == (1, 2, 6, 8)


def test_not_a_capsule() -> None:
    class Odd(Foreign):
        def __dlpack__(self, **arguments: Any) -> Any:
            return "capsule"

    with pytest.raises(segprior.InvalidTypeError, match="features: __dlpack__ returned 'capsule'"):
        segprior.softmax(Odd(np.zeros((1, 2, 3, 4))))


class Edited(Foreign):
    """Exports a capsule whose DLTensor the test may change first (NumPy's deleter does not look at it)."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.capsule = array.__dlpack__(max_version=(1, 0))
        pointer = _arrays._capsule_pointer(self.capsule, b"dltensor_versioned")
        self.dl = ctypes.cast(pointer, ctypes.POINTER(_arrays._ManagedVersioned)).contents.dl_tensor
        self.arguments: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.dl.device_type, self.dl.device_id)

    def __dlpack__(self, **arguments: Any) -> Any:
        self.arguments.append(arguments)
        return self.capsule


def test_byte_offset() -> None:
    given = Edited(np.zeros((1, 2, 3, 4)))
    address = given.dl.data
    given.dl.data, given.dl.byte_offset = address - 64, 64
    assert _arrays.view(given, "features").tensor.data == address


def test_pinned_memory_is_host_memory() -> None:
    given = Edited(np.zeros((1, 2, 3, 4)))
    given.dl.device_type, given.dl.device_id = 3, 1
    assert _arrays.view(given, "features").device == (_ffi.CPU, 0)
    given.dl.device_type = 13
    assert _arrays.view(given, "features").device == (_ffi.CUDA, 1)


def test_other_devices_are_refused() -> None:
    given = Edited(np.zeros((1, 2, 3, 4)))
    given.dl.device_type = 8  # Metal
    with pytest.raises(segprior.InvalidValueError, match="features lives on DLPack device type 8"):
        segprior.softmax(given)


def test_cuda_memory_of_an_unknown_framework_is_refused() -> None:
    given = Edited(np.zeros((1, 2, 3, 4)))
    given.dl.device_type = 2
    with pytest.raises(segprior.InvalidTypeError, match="cannot allocate CUDA memory for Edited"):
        segprior.softmax(given)
    with pytest.raises(segprior.InvalidTypeError):
        segprior.softmax(given, stream=0)
    # The producer's own stream; DLPack's spelling of the legacy default stream.
    assert [arguments["stream"] for arguments in given.arguments] == [-1, 1]


def check_framework(make: Any, back: Any, kind: type, problem: dict[str, Any]) -> None:
    """The same call in a framework and in NumPy gives the same bits, and arrays of the framework."""

    def solve(f: Any) -> tuple[Any, Any]:
        r = segprior.softmax(
            f(problem["features"]),
            eps=f(np.array([0.5])),
            tv=segprior.TV(0.7, edge=f(problem["edge"][0])),
            volume=segprior.Volume(f(problem["volume"][0])),
            td=segprior.ThresholdDynamics(f(np.array([0.3])), kernel=f(np.full((3, 3), 1 / 9))),
            star=[
                segprior.Star(0, f(np.array([2.0, 3.0])), f(np.array([0.1]))),
                segprior.Star(2, f(np.array([[2.0, 3.0], [1.0, 4.0]])), 0.2),
            ],
            mask=f(problem["features"][0, 0] < 1),
        )
        again = segprior.softmax(
            f(problem["features"]), eps=0.5, tv=segprior.TV(0.7), volume=None, warm_start=r
        )
        return r, (again, r.backward(f(problem["grad_u"])))

    (r, (a, g)), (r2, (a2, g2)) = solve(np.ascontiguousarray), solve(make)
    pairs = [(r.u, r2.u), (r.tv_dual, r2.tv_dual), (r.volume_dual, r2.volume_dual), (a.u, a2.u)]
    names = ("features", "eps", "tv_edge", "volume", "td_lam", "td_kernel", "star_tau")
    pairs += [(getattr(g, n), getattr(g2, n)) for n in names] + [(r.star_dual, r2.star_dual)]
    pairs += list(zip(g.star_center, g2.star_center))
    assert [tuple(center.shape) for center in g2.star_center] == [(2,), (2, 2)]
    for expected, found in pairs:
        assert isinstance(found, kind)
        assert tuple(found.shape) == expected.shape
        np.testing.assert_allclose(back(found), expected, rtol=1e-13, atol=1e-13)


def test_torch(problem: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    check_framework(torch.from_numpy, lambda t: t.numpy(), torch.Tensor, problem)
    features = torch.from_numpy(problem["features"]).requires_grad_()
    seen = _arrays.view(features, "features")
    assert seen.tensor.data == features.data_ptr()
    with pytest.raises(segprior.InvalidTypeError, match="features has dtype torch.int32"):
        segprior.softmax(features.detach().int())


def test_torch_cuda(problem: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available() or _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    check_framework(
        lambda a: torch.tensor(a, device="cuda"), lambda t: t.cpu().numpy(), torch.Tensor, problem
    )
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        r = segprior.softmax(torch.tensor(problem["features"], device="cuda"), tv=segprior.TV())
        assert r._call.stream == side.cuda_stream
        assert r.info.iterations.tolist() == [30, 30]


def test_cupy(problem: dict[str, Any]) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if _ffi.library().device_count(_ffi.CUDA) == 0:
        pytest.skip("no CUDA device, or a library without CUDA")
    check_framework(cupy.asarray, cupy.asnumpy, cupy.ndarray, problem)


def test_jax(problem: dict[str, Any]) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_enable_x64", True)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            check_framework(jax.numpy.asarray, np.asarray, jax.Array, problem)
            r = segprior.softmax(jax.numpy.zeros((1, 2, 3, 4)))
            assert r.u.unsafe_buffer_pointer() == r._views["u"].address, "the result was copied"
            features = jax.numpy.zeros((1, 2, 3, 4))
            assert _arrays.view(features, "").tensor.data == features.unsafe_buffer_pointer()
            assert isinstance(segprior.softmax(jax.numpy.zeros((1, 2, 0))).u, jax.Array)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_no_framework_is_imported() -> None:
    import subprocess

    code = "import segprior, sys; print(sorted({'torch', 'cupy', 'jax', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
