"""The entropic softmax with composable priors: `softmax`. Its result and backward pass: result.py."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Sequence
from typing import Any

from . import _ffi
from ._arrays import MASK
from ._call import choice, flag, integer, number, positive
from ._softmax_call import SoftmaxCall
from .errors import InvalidTypeError, InvalidValueError
from .priors import TV, Star, ThresholdDynamics, Volume
from .result import Gradients, Result

__all__ = ["Gradients", "Result", "softmax"]

PATHS = {"auto": _ffi.PATH_AUTO, "streaming": _ffi.PATH_STREAMING, "on_chip": _ffi.PATH_ON_CHIP}


def softmax(
    features: Any,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: float | None = None,
    tol: float | None = None,
    tv: TV | None = None,
    accelerate: bool | None = None,
    volume: Volume | None = None,
    spacing: Sequence[float] | None = None,
    warm_start: Result | tuple[Any, ...] | None = None,
    *,
    td: ThresholdDynamics | None = None,
    star: Sequence[Star] | None = None,
    mask: Any = None,
    checkpoint: int | None = None,
    compact_saved: bool = False,
    check_interval: int = 10,
    duals: bool = True,
    threads: int | None = None,
    stream: int | None = None,
    path: str = "auto",
) -> Result:
    """Entropic softmax with any mix of total-variation, threshold-dynamics, volume and star-shape priors.

    Approximates, by the dual iteration of [VPTV] Algorithm 1 and [STD] Algorithms 1 to 3, the minimiser over
    the simplex of

        -<o, u> + eps <u, ln u> + tv.lam sum_x e(x) |grad u|(x) + td.lam <e' u, k * (1 - u)>
        subject to   lower_i <= sum_x u_i(x) <= upper_i   and   s . grad u_i >= 0 for star-shaped classes i

    Without priors it is the plain softmax of ``features / eps`` over axis 1. The named methods of the papers,
    with their parameters, are in `segprior.presets`.

    Args:
        features: o [B, I, *S], 1 to 3 spatial axes, 1 to 256 classes, C-contiguous; float32, float64, float16
            or bfloat16 (computed in float32 if 16-bit). NumPy (bfloat16: ml_dtypes), or any array with
            ``__dlpack__`` (torch, CuPy, JAX on the CPU); read in place, never copied. Larger means more
            likely. Every other array is float64 if the features are, else float32.
        eps: ε > 0, weight of the entropy, in units of the features; a float or a one-element array.
        iters: T >= 0, the number of iterations; their cap if `tol` is given.
        init_eps: ε₀ > 0 of the start ``u0 = S(o / init_eps)``; None: `eps`.
        tol: stop an image when ``max |u_(t+1) - u_t| < tol`` at a check; None: never. An accelerated image
            then does one more iteration, without momentum.
        tv: the total-variation prior; None: without.
        accelerate: Nesterov momentum with restart on the TV and star duals, instead of the papers' plain
            iteration. None: only when `tol` is given, where reaching the limit is what counts.
        volume: the volume prior, in voxels; None: without.
        spacing: physical voxel size per spatial axis, > 0, of the gradients; None: 1.
        warm_start: an earlier `Result`, or (tv_dual, volume_dual) or (tv_dual, volume_dual, star_dual), any
            of them None: start from these duals. With threshold dynamics they do not give the earlier u back:
            its force comes from u, and the start has none.
        td: the threshold-dynamics prior; None: without.
        star: the star-shaped classes; None: none.
        mask: valid voxels, bool or uint8 [*S], [1, *S] or [B, *S]; 0: masked. A masked voxel takes part in
            nothing, whatever its features hold (NaN too): u and its gradients are 0 there. None: all valid.
        checkpoint: interval at which iterates are kept for ``Result.backward``: 1 all of them, None about
            sqrt(T), 0 none (inference); `iters` is enough for mode "implicit".
        compact_saved: whether those iterates are kept as 16-bit fixed point, in about half the bytes: TV
            duals to within ``tv.lam * edge / 32767``, u to within 1 / 131070. Gradients change by 1e-5 to
            1e-3 of their largest entry, rarely 1e-2. Not with a warm start, and only with the plain iteration
            (``accelerate=False`` if `tol` is given).
        check_interval: iterations between two checks of `tol`.
        duals: whether to return the duals.
        threads: CPU threads; None: the OpenMP default. The result does not depend on it. In a child forked
            by a process that has used several (`multiprocessing`, workers of a torch `DataLoader`) it is
            one: OpenMP's threads do not survive a fork.
        stream: a cudaStream_t as an integer to work on, which lives as long as the result; None: the current
            stream of the features' framework. It waits for that stream's work on the arguments; to make
            others wait for the results is the caller's part.
        path: "auto", "streaming" or "on_chip" (CUDA; the CPU has one path): state in global memory, or all
            iterations in one kernel where the problem fits.

    Returns:
        `Result`: u, duals, info, and `Result.backward`. Arrays: the features' framework and device.

    Raises:
        InvalidTypeError (a TypeError): not an array, or not of the dtypes above.
        InvalidValueError (a ValueError): a value, shape, stride or device; the text names the argument.
        NotSupportedError: ``path="on_chip"`` for a problem that does not fit.
        DeviceError, OutOfMemoryError, LibraryError.

    References:
        [VPTV] Li, Liu, Cui, Huang, Tai, "Volume preserving image segmentation with entropic regularization
        optimal transport", arXiv 1909.09931, Algorithm 1. [STD] Liu, Wang, Tai, "Deep convolutional neural
        networks with spatial regularization, volume and star-shape priori", arXiv 2002.03989, Algorithms 1-3.
    """
    lib = _ffi.library()
    call = SoftmaxCall(features, stream, threads)
    set_options(call, iters, init_eps, tol, accelerate, spacing, compact_saved, check_interval, path)
    call.opts.checkpoint_interval = (
        default_checkpoint(call.opts.iterations)
        if checkpoint is None
        else integer("checkpoint", checkpoint, 0)
    )
    duals = flag("duals", duals)
    call.add_scalar("eps", eps)
    wanted = ["u"]
    if tv is not None:
        call.add_tv(tv)
        wanted += ["tv_dual"] if duals else []
    if volume is not None:
        call.add_volume(volume)
        wanted += ["volume_dual"] if duals else []
    if td is not None:
        call.add_threshold_dynamics(td)
    if star is not None:
        call.add_stars(star)
        wanted += ["star_dual"] if duals and call.star_classes else []
    if mask is not None:
        call.add_field("mask", mask, MASK)
    _add_warm_start(call, warm_start)
    return _forward(lib, call, wanted)


def set_options(
    call: SoftmaxCall,
    iters: Any,
    init_eps: Any,
    tol: Any,
    accelerate: Any,
    spacing: Any,
    compact_saved: Any,
    check_interval: Any,
    path: Any,
) -> None:
    """Checks options that are no priors and sets those of a call."""
    opts = call.opts
    opts.iterations = integer("iters", iters, 0)
    opts.check_interval = integer("check_interval", check_interval, 1)
    opts.compact_saved = flag("compact_saved", compact_saved)
    opts.tolerance = 0.0 if tol is None else positive("tol", tol, True)
    opts.accelerate = tol is not None if accelerate is None else flag("accelerate", accelerate)
    opts.init_eps = 0.0 if init_eps is None else positive("init_eps", init_eps, True)
    opts.path = choice("path", path, PATHS)
    if spacing is not None:
        for axis, step in enumerate(spacing_steps(spacing, len(call.spatial))):
            opts.spacing[axis] = step


def default_checkpoint(iterations: int) -> int:
    """The interval at which iterates are kept that needs the least memory."""
    return max(1, round(math.sqrt(iterations)))


def spacing_steps(spacing: Any, axes: int) -> tuple[float, ...]:
    """One number per spatial axis; the library checks that they are > 0."""
    try:
        count = len(spacing)
    except TypeError as error:
        raise InvalidTypeError(
            f"spacing is {spacing!r}; it must be one number per spatial axis ({axes})"
        ) from error
    if count != axes:
        raise InvalidValueError(f"spacing has {count} values; features have {axes} axes")
    return tuple([number(f"spacing[{axis}]", step) for axis, step in enumerate(spacing)])


def _add_warm_start(call: SoftmaxCall, start: Any) -> None:
    """A previous result serves whatever priors this call has; a dual given by hand must have its prior."""
    if start is None:
        return
    if isinstance(start, Result):
        stars = start._call.star_classes
        if call.star_classes and start.star_dual is not None and stars != call.star_classes:
            raise InvalidValueError(
                f"warm_start has the star classes {stars}; this call has {call.star_classes}"
            )
        given: tuple[Any, ...] = (
            start.tv_dual if call.opts.tv else None,
            start.volume_dual if call.has_volume else None,
            start.star_dual if call.star_classes else None,
        )
    elif isinstance(start, (tuple, list)) and len(start) in (2, 3):
        given = tuple(start)
    else:
        raise InvalidTypeError(
            "warm_start must be a Result, (tv_dual, volume_dual) or (tv_dual, volume_dual, star_dual)"
        )
    for name, dual in zip(("init_tv_dual", "init_volume_dual", "init_star_dual"), given):
        if dual is not None:
            call.add(name, call.view(dual, f"warm_start's {name[5:]}"))


def _forward(lib: _ffi.Library, call: SoftmaxCall, wanted: list[str]) -> Result:
    context = call.context()
    size, saved_size = ct.c_size_t(), ct.c_size_t()
    common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
    lib.check(lib.softmax_workspace_size(*common, ct.byref(size), None))
    lib.check(lib.softmax_saved_size(*common, ct.byref(saved_size)))
    outputs = _ffi.SoftmaxOutputs(struct_size=ct.sizeof(_ffi.SoftmaxOutputs))
    with call.framework.on_stream(call.stream):
        made = call.allocate(outputs, wanted)
        info = call.framework.buffer(ct.sizeof(_ffi.Info) * call.batch)
        outputs.info = info[1]
        workspace, address = call.framework.buffer(size.value)
        saved = call.framework.buffer(saved_size.value) if saved_size.value else (None, 0)
        status = lib.softmax_forward(
            *common, ct.byref(outputs), address, size.value, saved[1] or None, saved_size.value
        )
        lib.check(status)
        del workspace
        result = Result(call, made, (*saved, saved_size.value), info)
    call.hold(call.arrays, call.stream)
    call.arrays += [made["u"][0]] if saved[0] is None else [made["u"][0], saved[0]]
    return result
